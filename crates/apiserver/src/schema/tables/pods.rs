//! Rows of Pods: one word for the state of many containers.
//!
//! The order of precedence is upstream's `printPod`: the phase, overruled by
//! the status reason, by the first init container that is not through, by the
//! containers from last to first, and by deletion.

use serde_json::{Value, json};

use super::{NONE, age, text::or};
use crate::{
    registry::object::{self, parse_timestamp},
    schema::value::{at, flag, int, list, text},
};

/// What the statuses of the containers add up to.
#[derive(Default)]
struct Summary {
    word: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<u64>,
}

impl Summary {
    fn add_restarts(&mut self, status: &Value) {
        self.restarts += int(status, &["restartCount"]).unwrap_or(0);
        let ended = text(status, &["lastState", "terminated", "finishedAt"]);
        self.last_restart = self.last_restart.max(parse_timestamp(ended));
    }
}

pub(super) fn row(pod: &Value, age: &str, now: u64) -> Vec<Value> {
    let sidecars = list(pod, &["spec", "initContainers"]).iter().filter(|c| is_sidecar(c)).count();
    let total = list(pod, &["spec", "containers"]).len() + sidecars;
    let summary = summarise(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            let ago = age::human_duration(now.cast_signed().saturating_sub(last.cast_signed()));
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let address = list(pod, &["status", "podIPs"]).first().map_or("", |ip| text(ip, &["ip"]));
    vec![
        json!(object::name(pod)),
        json!(format!("{}/{total}", summary.ready)),
        json!(summary.word),
        json!(restarts),
        json!(age),
        json!(or(address, NONE)),
        json!(or(text(pod, &["spec", "nodeName"]), NONE)),
        json!(or(text(pod, &["status", "nominatedNodeName"]), NONE)),
        json!(readiness_gates(pod)),
    ]
}

fn is_sidecar(container: &Value) -> bool {
    text(container, &["restartPolicy"]) == "Always"
}

fn condition<'p>(pod: &'p Value, kind: &str) -> Option<&'p Value> {
    list(pod, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|c| text(c, &["status"]) == "True")
}

fn summarise(pod: &Value) -> Summary {
    let phase = text(pod, &["status", "phase"]);
    let status_reason = text(pod, &["status", "reason"]);
    let mut summary = Summary { word: or(status_reason, phase).to_owned(), ..Summary::default() };
    let gated = list(pod, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == "PodScheduled" && text(c, &["reason"]) == "SchedulingGated");
    if gated {
        summary.word = "SchedulingGated".to_owned();
    }
    // Restarts of sidecars go on counting once the Pod is initialised, those of the others not.
    let mut sidecars = Summary::default();
    let initialising = init_containers(pod, &mut summary, &mut sidecars);
    if !initialising || is_true(pod, "Initialized") {
        summary.restarts = sidecars.restarts;
        summary.last_restart = sidecars.last_restart;
        containers(pod, &mut summary);
    }
    if object::is_deleting(pod) {
        if status_reason == "NodeLost" {
            summary.word = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.word = "Terminating".to_owned();
        }
    }
    summary
}

/// Looks for the init container that holds the Pod up; tells whether there is one.
fn init_containers(pod: &Value, summary: &mut Summary, sidecars: &mut Summary) -> bool {
    let declared = list(pod, &["spec", "initContainers"]);
    let statuses = list(pod, &["status", "initContainerStatuses"]);
    for (index, status) in statuses.iter().enumerate() {
        let name = text(status, &["name"]);
        let sidecar = declared.iter().any(|c| text(c, &["name"]) == name && is_sidecar(c));
        summary.add_restarts(status);
        if sidecar {
            sidecars.add_restarts(status);
        }
        let terminated = at(status, &["state", "terminated"]);
        if terminated.is_some_and(|t| int(t, &["exitCode"]).unwrap_or(0) == 0) {
            continue;
        }
        if sidecar && flag(status, &["started"]) {
            summary.ready += usize::from(flag(status, &["ready"]));
            continue;
        }
        let waiting = text(status, &["state", "waiting", "reason"]);
        summary.word = match terminated {
            Some(terminated) => format!("Init:{}", ending(terminated)),
            None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", declared.len()),
        };
        return true;
    }
    false
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
        summary.add_restarts(status);
        let waiting = text(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            summary.word = waiting.to_owned();
        } else if let Some(terminated) = at(status, &["state", "terminated"]) {
            summary.word = ending(terminated);
        } else if flag(status, &["ready"]) && at(status, &["state", "running"]).is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    // One container is through, another still runs.
    if summary.word == "Completed" && running {
        summary.word = if is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

/// How a container ended: `Error`, `Signal:9`, `ExitCode:1`.
fn ending(terminated: &Value) -> String {
    let reason = text(terminated, &["reason"]);
    match int(terminated, &["signal"]).unwrap_or(0) {
        _ if !reason.is_empty() => reason.to_owned(),
        0 => format!("ExitCode:{}", int(terminated, &["exitCode"]).unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| is_true(pod, text(gate, &["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}
