//! The Pod of a process outside, and its status.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, Pod, PodSpec, Toleration},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use portolan_dialects::Registration;
use portolan_model::Code;
use serde_json::{Value, json};

use super::{IMAGE, NODE, RegisterConfig, check::Health};

/// The one container's name.
const CONTAINER: &str = "process";
/// Room for `-` and the random end within a label's 63 characters.
const BASE_CHARS_MAX: usize = 57;
/// As Kubernetes ends generated names: no vowels, no words by accident.
const END_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const END_CHARS: usize = 5;

/// A name for the Pod: the first interface as a DNS label, and a random end.
pub(super) fn name(registrations: &[Registration]) -> String {
    let base = registrations.first().map_or("", |first| first.interface.as_str());
    let end: String = (0..END_CHARS)
        .map(|_| char::from(END_LETTERS[rand::random_range(0..END_LETTERS.len())]))
        .collect();
    format!("{}-{end}", label(base))
}

fn label(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(BASE_CHARS_MAX)
        .collect();
    let trimmed = plain.trim_matches('-');
    if trimmed.is_empty() { "external".to_owned() } else { trimmed.to_owned() }
}

/// The Pod, bound to its Node from the start: no scheduler has a say.
pub(super) fn object(config: &RegisterConfig, name: &str, annotation: &str) -> Pod {
    let app = &config.app;
    let mut ports: Vec<ContainerPort> = config
        .registrations
        .iter()
        .map(|registration| ContainerPort {
            container_port: registration.port.into(),
            protocol: (registration.protocol == "udp").then(|| "UDP".to_owned()),
            ..ContainerPort::default()
        })
        .collect();
    ports.sort_by(|a, b| (a.container_port, &a.protocol).cmp(&(b.container_port, &b.protocol)));
    ports.dedup();
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(config.namespace.clone()),
            labels: Some(BTreeMap::from([(app.label_key(), app.label_value())])),
            annotations: Some(BTreeMap::from([(app.annotation_key(), annotation.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(NODE.to_owned()),
            containers: vec![Container {
                name: CONTAINER.to_owned(),
                image: Some(IMAGE.to_owned()),
                ports: Some(ports),
                ..Container::default()
            }],
            automount_service_account_token: Some(false),
            // Nobody but the registrar has anything to end, and it does so itself.
            termination_grace_period_seconds: Some(0),
            // A Node without a kubelet is tainted as unreachable on real clusters.
            tolerations: Some(vec![Toleration {
                operator: Some("Exists".to_owned()),
                ..Toleration::default()
            }]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// A merge patch of the status, as a kubelet would report the process.
pub(super) fn status(addresses: &[IpAddr], health: &Health) -> Value {
    let now = Time(Timestamp::now());
    let ready = *health == Health::Accepts;
    let (reason, message) = match health {
        Health::Accepts => (Value::Null, Value::Null),
        Health::Refuses(why) => {
            let code = Code::PROBE_FAILING.info();
            (json!(code.name), json!(format!("{}: {why}; fix: {}", code.code, code.fix)))
        }
    };
    let condition = |kind: &str, fine: bool| {
        let mut condition = json!({
            "type": kind,
            "status": if fine { "True" } else { "False" },
            "lastTransitionTime": now,
        });
        if !fine {
            condition["reason"] = reason.clone();
            condition["message"] = message.clone();
        }
        condition
    };
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
    json!({
        "status": {
            "phase": "Running",
            "podIP": addresses.first(),
            "podIPs": ips,
            "startTime": now,
            "conditions": [
                condition("PodScheduled", true),
                condition("Initialized", true),
                condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
            "containerStatuses": [{
                "name": CONTAINER, "image": IMAGE, "imageID": "", "restartCount": 0,
                "ready": ready, "started": true, "state": {"running": {"startedAt": now}},
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for (interface, expected) in [
            ("reviews", "reviews"),
            ("com.acme.User$Provider", "com-acme-user-provider"),
            ("--", "external"),
            ("", "external"),
        ] {
            assert_eq!(label(interface), expected);
        }
        let long = Registration::new(&"x".repeat(99), "http", "10.0.0.1:1".parse().unwrap());
        assert_eq!(name(&[long]).len(), 63);
    }

    #[test]
    fn the_status_says_why() {
        let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let fine = status(&addresses, &Health::Accepts);
        assert_eq!(fine["status"]["podIP"], "10.0.0.1");
        assert_eq!(fine["status"]["podIPs"][1]["ip"], "fd00::1");
        assert_eq!(fine["status"]["conditions"][3]["status"], "True");
        let bad = status(&addresses, &Health::Refuses("refused".into()));
        let ready = &bad["status"]["conditions"][3];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ProbeFailing")));
        let message = ready["message"].as_str().unwrap();
        assert_eq!(Code::leading(message), Some(Code::PROBE_FAILING), "{message}");
    }
}
