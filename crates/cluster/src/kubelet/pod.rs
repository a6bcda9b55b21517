//! A Pod as the kubelet reads it: only what it acts on, in plain types.
//!
//! The API has validated the object, but nothing here relies on it. A field of
//! the wrong type reads as absent; where that would change what is run, the
//! container carries a `problem` and waits with it instead of running.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::probes::{Handler, Probe};
use crate::object::{at, flag, int, list, text};

/// The image whose containers are local processes. Any tag; the tag says nothing.
pub const PROCESS_IMAGE: &str = "portolan.dev/process";

/// The annotation that marks a Pod without processes.
pub const HOLLOW_ANNOTATION: &str = "portolan.dev/hollow";

/// `corev1.DefaultTerminationGracePeriodSeconds`.
const GRACE_S_DEFAULT: i64 = 30;

/// Longest grace period that is kept as asked; a day. Longer ones are cut, so
/// that arithmetic with them cannot overflow.
const GRACE_S_MAX: i64 = 86_400;

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn of(pod: &Value) -> Self {
        match text(pod, "/spec/restartPolicy") {
            "Never" => Self::Never,
            "OnFailure" => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    /// SCTP, or a word that we do not know: declared, but not looked at.
    Other,
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) transport: Transport,
}

/// What is run when a container is about to be stopped, or has been started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Run(Handler),
    SleepS(u64),
}

/// One container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) ports: Vec<Port>,
    /// An init container with restartPolicy Always: starts in its turn, then stays.
    pub(crate) sidecar: bool,
    pub(crate) startup: Option<Probe>,
    pub(crate) readiness: Option<Probe>,
    pub(crate) liveness: Option<Probe>,
    pub(crate) post_start: Option<Hook>,
    pub(crate) pre_stop: Option<Hook>,
    /// `env` and `envFrom` stay JSON: they are resolved at each start.
    pub(crate) raw: Value,
    /// Why it cannot run as it is written.
    pub(crate) problem: Option<String>,
}

impl Container {
    pub(crate) fn of(raw: &Value) -> Container {
        let mut problem = None;
        let mut words = |key: &str| match strings(raw.get(key)) {
            Ok(words) => words,
            Err(()) => {
                problem = Some(format!("{key}: expected a list of strings"));
                Vec::new()
            }
        };
        let (command, args) = (words("command"), words("args"));
        let ports: Vec<Port> = list(raw, "/ports").iter().filter_map(port).collect();
        let probe = |key: &str| Probe::of(raw.get(key)?, &ports);
        let hook = |key: &str| hook(at(raw, &format!("/lifecycle/{key}"))?, &ports);
        Container {
            name: text(raw, "/name").to_owned(),
            image: text(raw, "/image").to_owned(),
            working_dir: text(raw, "/workingDir").to_owned(),
            sidecar: text(raw, "/restartPolicy") == "Always",
            startup: probe("startupProbe"),
            readiness: probe("readinessProbe"),
            liveness: probe("livenessProbe"),
            post_start: hook("postStart"),
            pre_stop: hook("preStop"),
            raw: raw.clone(),
            command,
            args,
            ports,
            problem,
        }
    }

    /// Whether it is to run as a local process.
    pub(crate) fn is_process(&self) -> bool {
        is_process_image(&self.image)
    }
}

fn is_process_image(image: &str) -> bool {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    name.strip_prefix(PROCESS_IMAGE).is_some_and(|tag| tag.is_empty() || tag.starts_with(':'))
}

fn strings(value: Option<&Value>) -> Result<Vec<String>, ()> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|i| i.as_str().map(str::to_owned).ok_or(())).collect()
        }
        Some(_) => Err(()),
    }
}

fn port(raw: &Value) -> Option<Port> {
    let number = u16::try_from(int(raw, "/containerPort")?).ok().filter(|n| *n != 0)?;
    let transport = match text(raw, "/protocol") {
        "" | "TCP" => Transport::Tcp,
        "UDP" => Transport::Udp,
        _ => Transport::Other,
    };
    Some(Port { name: text(raw, "/name").to_owned(), number, transport })
}

fn hook(raw: &Value, ports: &[Port]) -> Option<Hook> {
    if let Some(seconds) = int(raw, "/sleep/seconds") {
        return Some(Hook::SleepS(u64::try_from(seconds.clamp(0, GRACE_S_MAX)).unwrap_or(0)));
    }
    Handler::of(raw, ports).map(Hook::Run)
}

/// One Pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) restart: RestartPolicy,
    pub(crate) host_network: bool,
    pub(crate) init: Vec<Container>,
    pub(crate) main: Vec<Container>,
    /// Set when the Pod is to end: how long it may take.
    pub(crate) deletion_grace_s: Option<u64>,
    pub(crate) grace_s: u64,
    /// The addresses that its status carries.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) phase: String,
    pub(crate) raw: std::sync::Arc<Value>,
}

impl Pod {
    pub(crate) fn of(raw: std::sync::Arc<Value>) -> Pod {
        let meta = |key: &str| text(&raw, &format!("/metadata/{key}")).to_owned();
        let containers = |key: &str| -> Vec<Container> {
            list(&raw, &format!("/spec/{key}")).iter().map(Container::of).collect()
        };
        let deleting = at(&raw, "/metadata/deletionTimestamp").is_some();
        let grace_s = seconds(int(&raw, "/spec/terminationGracePeriodSeconds"));
        let deletion_grace_s = deleting.then(|| {
            let asked = int(&raw, "/metadata/deletionGracePeriodSeconds");
            asked.map_or(grace_s, |s| seconds(Some(s)))
        });
        Pod {
            namespace: meta("namespace"),
            name: meta("name"),
            uid: meta("uid"),
            node: text(&raw, "/spec/nodeName").to_owned(),
            restart: RestartPolicy::of(&raw),
            host_network: flag(&raw, "/spec/hostNetwork"),
            init: containers("initContainers"),
            main: containers("containers"),
            deletion_grace_s,
            grace_s,
            addresses: addresses(&raw),
            phase: text(&raw, "/status/phase").to_owned(),
            raw,
        }
    }

    /// Whether it has processes; else it is hollow.
    pub(crate) fn is_process(&self) -> bool {
        self.main.iter().any(Container::is_process)
    }

    /// Whether it has ended for good.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The TCP ports that its containers declare.
    pub(crate) fn tcp_ports(&self) -> BTreeSet<u16> {
        let long_lived = self.init.iter().filter(|c| c.sidecar).chain(&self.main);
        let ports = long_lived.flat_map(|c| &c.ports);
        ports.filter(|p| p.transport == Transport::Tcp).map(|p| p.number).collect()
    }
}

fn seconds(asked: Option<i64>) -> u64 {
    u64::try_from(asked.unwrap_or(GRACE_S_DEFAULT).clamp(0, GRACE_S_MAX)).unwrap_or(0)
}

/// `status.podIPs`, else `status.podIP`.
pub(crate) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let many = list(pod, "/status/podIPs").iter().map(|entry| text(entry, "/ip"));
    let mut found: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
    if found.is_empty() {
        found.extend(text(pod, "/status/podIP").parse::<IpAddr>().ok());
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn images_that_are_processes() {
        for (image, expected) in [
            ("portolan.dev/process", true),
            ("portolan.dev/process:v1", true),
            ("portolan.dev/process@sha256:00", true),
            ("portolan.dev/processes", false),
            ("docker.io/portolan.dev/process", false),
            ("nginx", false),
            ("", false),
        ] {
            assert_eq!(is_process_image(image), expected, "{image}");
        }
    }

    #[test]
    fn odd_pods_are_read_without_harm() {
        for odd in [
            json!(null),
            json!([]),
            json!({"spec": {"containers": "x"}}),
            json!({"spec": {"containers": [1, null, {"ports": [{"containerPort": 70000}]}]}}),
            json!({"metadata": {"deletionTimestamp": "x", "deletionGracePeriodSeconds": -9}}),
            json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": {}}}}]}}),
            json!({"status": {"podIPs": [{"ip": "x"}, 3]}}),
        ] {
            let pod = Pod::of(Arc::new(odd));
            assert!(pod.main.iter().all(|c| c.ports.is_empty()));
            assert!(!pod.is_process());
        }
        let pod = Pod::of(Arc::new(json!({"spec": {
            "terminationGracePeriodSeconds": i64::MAX,
            "containers": [{"image": "portolan.dev/process", "command": "ls", "args": ["-l", 3]}]
        }})));
        assert_eq!(pod.main[0].problem.as_deref(), Some("args: expected a list of strings"));
        assert_eq!(pod.grace_s, 86_400);
    }
}
