//! A Pod, trimmed to what a registry reads of it, and its instances.
//!
//! Everything else of the object is skipped while parsing and never allocated.
//! `null` means absent everywhere, as Go writes empty maps and lists that way.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_dialects::{ContainerView, Dialect, PodView, Standing};
use portolan_model::{Reason, State};
use serde::{Deserialize, Deserializer};

use crate::Instance;

/// A copy of the node's label on recent clusters (KEP-4742).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Reads `null` as the default.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Declares trimmed types: every field may be absent or `null`.
macro_rules! trimmed {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub(crate) struct $name {
            $($(#[$attribute])* #[serde(deserialize_with = "nullable")] pub(crate) $field: $type,)*
        }
    )*};
}

trimmed! {
    Pod {
        metadata: Meta,
        status: PodStatus,
    }
    Meta {
        name: String,
        uid: String,
        resource_version: String,
        deletion_timestamp: Option<String>,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
    PodStatus {
        phase: String,
        #[serde(rename = "podIP")]
        pod_ip: String,
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
    }
    ContainerStatus {
        name: String,
        state: ContainerState,
    }
    ContainerState { running: Option<Running>, }
    Running { started_at: String, }
    PodIp { ip: String, }
    Condition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
        reason: String,
    }
}

/// What a Pod offers, and what of its words cannot be used.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub(crate) instances: Vec<Instance>,
    pub(crate) reasons: Vec<Reason>,
}

impl Pod {
    /// Reads what the Pod's processes wrote on it.
    pub(crate) fn offer(&self, dialects: &[Dialect]) -> Offer {
        let meta = &self.metadata;
        let addresses = self.addresses();
        let containers: Vec<ContainerView<'_>> = self
            .status
            .container_statuses
            .iter()
            .map(|status| ContainerView {
                name: &status.name,
                started: status.state.running.as_ref().map(|running| &*running.started_at),
            })
            .collect();
        let view = PodView {
            labels: &meta.labels,
            annotations: &meta.annotations,
            addresses: &addresses,
            containers: &containers,
        };
        let reading = Dialect::read_all(dialects, &view);
        let mut offer = Offer { instances: Vec::new(), reasons: reading.reasons };
        let state = self.state();
        for mut registration in reading.registrations {
            if let Some(reason) = registration.foreign_to(&addresses) {
                offer.reasons.push(reason);
                continue;
            }
            let zone = || meta.labels.get(ZONE_LABEL).filter(|zone| !zone.is_empty()).cloned();
            registration.zone = registration.zone.or_else(zone);
            let state = standing(state, registration.standing);
            offer.instances.push(Instance::new(&meta.name, registration, state));
        }
        offer
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let all = self.status.pod_ips.iter().map(|ip| &ip.ip);
        [&self.status.pod_ip].into_iter().chain(all).filter_map(|ip| ip.parse().ok()).collect()
    }

    /// Only what runs, is ready and is not about to end takes calls. Whether a
    /// Pod that is not ready has been before is told by the condition's reason.
    fn state(&self) -> State {
        let ready = self.status.conditions.iter().find(|condition| condition.kind == "Ready");
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        match self.status.phase.as_str() {
            _ if self.metadata.deletion_timestamp.is_some() => State::Draining,
            "Running" if is_ready => State::Serving,
            "Running" | "Failed" => State::Failing,
            "Succeeded" => State::Disabled,
            "Pending" | "" => State::Starting,
            _ => State::Unknown,
        }
    }
}

/// The state of a process in a Pod of a state: the operator's word first, then the Pod's end,
/// which is that of all its processes, then the container, the record, and at last the Pod's
/// readiness.
fn standing(pod: State, process: Standing) -> State {
    match process {
        Standing::SwitchedOff => State::Disabled,
        _ if pod == State::Draining => pod,
        Standing::Down => State::Failing,
        Standing::Draining => State::Draining,
        Standing::OutOfService => State::Disabled,
        Standing::Starting if pod == State::Serving => State::Starting,
        Standing::Starting | Standing::Up => pod,
    }
}

#[cfg(test)]
mod tests {
    use portolan_dialects::{Registration, app};
    use portolan_model::Code;
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    fn text(registrations: &[Registration]) -> String {
        app::encode(registrations).unwrap()
    }

    fn registration() -> Registration {
        Registration::new("reviews", "http", "10.0.0.5:9080".parse().unwrap())
    }

    fn offer(annotation: &str, status: Value, labels: Value) -> Offer {
        let mut all = json!({"app.io/label": "app.io-value"});
        all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
        let object = json!({
            "metadata": {"name": "p", "labels": all, "annotations": {"app.io/annotation": annotation}},
            "status": status,
        });
        pod(object).offer(&[Dialect::App(app::App::default())])
    }

    #[test]
    fn states() {
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        for (metadata, phase, conditions, expected) in [
            (json!({}), "Running", ready("True"), State::Serving),
            (json!({}), "Running", ready("False"), State::Failing),
            (json!({}), "Running", json!(null), State::Failing),
            (json!({}), "Pending", ready("False"), State::Starting),
            (json!({}), "", json!([]), State::Starting),
            (json!({}), "Succeeded", ready("False"), State::Disabled),
            (json!({}), "Failed", ready("False"), State::Failing),
            (json!({}), "Unknown", ready("True"), State::Unknown),
            (json!({"deletionTimestamp": "now"}), "Running", ready("True"), State::Draining),
        ] {
            let status = json!({"phase": phase, "conditions": conditions});
            let object = json!({"metadata": metadata, "status": status});
            assert_eq!(pod(object.clone()).state(), expected, "{object}");
        }
    }

    #[test]
    fn a_process_counts_below_its_pod() {
        for (pod, process, expected) in [
            (State::Serving, Standing::Up, State::Serving),
            (State::Serving, Standing::Starting, State::Starting),
            (State::Serving, Standing::Draining, State::Draining),
            (State::Serving, Standing::OutOfService, State::Disabled),
            (State::Serving, Standing::Down, State::Failing),
            (State::Failing, Standing::Starting, State::Failing),
            (State::Failing, Standing::OutOfService, State::Disabled),
            (State::Draining, Standing::Down, State::Draining),
            (State::Draining, Standing::SwitchedOff, State::Disabled),
            (State::Serving, Standing::SwitchedOff, State::Disabled),
        ] {
            assert_eq!(standing(pod, process), expected, "{pod:?} {process:?}");
        }
    }

    /// Every combination of what is said of one process, against the order in which it counts:
    /// override, Terminating, container, record, Pod.
    #[test]
    fn what_counts_before_what() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..3 * 2 * 3 * 4 * 4 {
            let pick = |size: usize, below: usize| number / below % size;
            let operator = ["", "draining", "disabled"][pick(3, 1)];
            let ends = pick(2, 3) == 1;
            // Of a container that runs since the record's second, since later, or not at all.
            let container = ["same", "later", "none"][pick(3, 6)];
            let record = ["up", "starting", "draining", "out_of_service"][pick(4, 18)];
            let (phase, ready) =
                [("Running", true), ("Running", false), ("Pending", false), ("Failed", false)]
                    [pick(4, 72)];
            let rules = [
                (operator == "disabled", State::Disabled),
                (operator == "draining", State::Draining),
                (ends, State::Draining),
                (container != "same", State::Failing),
                (record == "draining", State::Draining),
                (record == "out_of_service", State::Disabled),
                (record == "starting" && phase == "Running" && ready, State::Starting),
                (phase == "Pending", State::Starting),
                (phase == "Failed" || !ready, State::Failing),
            ];
            let expected =
                rules.iter().find(|(holds, _)| *holds).map_or(State::Serving, |rule| rule.1);

            let state = json!({"name": "reviews", "protocol": "http", "port": 80, "state": record});
            let text = json!({"v": 1, "start": "2026-01-01T00:00:10Z", "services": [state]});
            let mut annotations = json!({"registry.portolan.dev/main": text.to_string()});
            if !operator.is_empty() {
                annotations["portolan.dev/override"] = json!(operator);
            }
            let running = match container {
                "same" => json!({"running": {"startedAt": "2026-01-01T00:00:10Z"}}),
                "later" => json!({"running": {"startedAt": "2026-01-01T00:00:11Z"}}),
                _ => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            };
            let object = json!({
                "metadata": {"name": "p", "annotations": annotations,
                    "deletionTimestamp": ends.then_some("2026-01-01T00:00:20Z")},
                "status": {"phase": phase, "podIP": "10.0.0.5",
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                    "containerStatuses": [{"name": "main", "state": running}]},
            });
            let offer = pod(object.clone()).offer(&[Dialect::Native]);
            assert_eq!(offer.instances[0].state, expected, "{object}");
            seen.insert(expected);
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
    }

    #[test]
    fn an_offer_has_zone_and_state() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"phase": "Running", "podIP": "10.0.0.5", "conditions": ready});
        let found = offer(&text(&[registration()]), status.clone(), json!({ZONE_LABEL: "z1"}));
        let instance = &found.instances[0];
        assert_eq!(instance.socket_address(), "10.0.0.5:9080".parse().unwrap());
        assert_eq!((instance.zone.as_deref(), instance.is_available()), (Some("z1"), true));
        // Weight 0 takes no calls though its Pod is ready.
        let off = Registration { weight: 0, zone: Some("z2".into()), ..registration() };
        let found = offer(&text(&[off]), status, json!({ZONE_LABEL: "z1"}));
        let instance = &found.instances[0];
        assert_eq!((instance.zone.as_deref(), instance.is_available()), (Some("z2"), false));
        assert_eq!((instance.ready, instance.state), (true, State::Disabled));
    }

    #[test]
    fn a_pod_registers_only_itself() {
        let both = [
            registration(),
            Registration::new("reviews", "http", "10.0.0.6:9080".parse().unwrap()),
        ];
        let status = json!({"podIPs": [{"ip": "fd00::1"}, {"ip": "10.0.0.5"}]});
        let found = offer(&text(&both), status, json!({}));
        assert_eq!(found.instances.len(), 1);
        assert_eq!(found.reasons[0].code, Code::ADDRESS_FOREIGN);
        // Without a status there is nothing to compare with, and nothing is ready.
        let found = offer(&text(&both), json!(null), json!({}));
        assert_eq!((found.instances.len(), found.reasons.len()), (2, 0));
        assert!(found.instances.iter().all(|instance| !instance.is_available()));
    }

    #[test]
    fn what_does_not_decode_is_a_reason() {
        let found = offer("plain text!", json!({}), json!({}));
        assert!(found.instances.is_empty());
        assert_eq!(found.reasons[0].code, Code::ANNOTATION_UNREADABLE);
    }
}
