//! A Pod's status, computed: from the containers' states to what the API shows.
//!
//! [`Report`] is what process Pods and hollow Pods have in common; [`patch`]
//! turns it into a merge patch. Conditions of other writers stay, times of
//! transition change only with the condition, and a status that says the same
//! as the stored one gives no patch, so that nothing is written in vain.

use std::net::IpAddr;

use portolan_apiserver::{registry::object::timestamp, schema::qos};
use serde_json::{Value, json};

use super::{
    machine::{Ended, Machine, State, Unit},
    pod::Pod,
    problem::Problem,
};
use crate::object::{self, condition, list, text};

/// Everything that is said about a Pod.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) phase: &'static str,
    pub(crate) initialised: bool,
    pub(crate) ready: bool,
    /// The Ready condition's reason and message: why not, or what else there is to know.
    pub(crate) remark: Option<Problem>,
    /// Containers that are not ready.
    pub(crate) unready: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_ip: IpAddr,
    /// When the kubelet first saw the Pod, unless its status says so already.
    pub(crate) seen_unix_s: u64,
    pub(crate) init_statuses: Vec<Value>,
    pub(crate) statuses: Vec<Value>,
}

impl Report {
    /// What to say about containers with processes.
    pub(crate) fn of_machine(
        machine: &Machine,
        addresses: &[IpAddr],
        host_ip: IpAddr,
        seen_unix_s: u64,
    ) -> Report {
        let of = |init: bool| {
            machine.units.iter().filter(|unit| unit.init == init).map(unit_status).collect()
        };
        let address = addresses.first().copied().unwrap_or(host_ip);
        Report {
            phase: machine.phase(),
            initialised: machine.is_initialised(),
            ready: machine.is_ready(),
            remark: machine.explain(address),
            unready: machine.unready().into_iter().map(str::to_owned).collect(),
            addresses: addresses.to_vec(),
            host_ip,
            seen_unix_s,
            init_statuses: of(true),
            statuses: of(false),
        }
    }
}

/// One container's entry. `id` and `image_id` are empty while there is nothing to name.
pub(crate) fn container_status(
    name: &str,
    image: &str,
    id: &str,
    image_id: &str,
    state: Value,
) -> Value {
    json!({
        "name": name,
        "state": state,
        "lastState": {},
        "ready": false,
        "restartCount": 0,
        "image": image,
        "imageID": image_id,
        "containerID": id,
        "started": false,
    })
}

fn terminated(ended: &Ended) -> Value {
    let mut terminated = json!({
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": timestamp(ended.started_unix_s),
        "finishedAt": timestamp(ended.finished_unix_s),
        "containerID": ended.id,
    });
    if !ended.message.is_empty() {
        terminated["message"] = ended.message.as_str().into();
    }
    json!({"terminated": terminated})
}

fn waiting(reason: &str, message: &str) -> Value {
    let mut waiting = json!({"reason": reason});
    if !message.is_empty() {
        waiting["message"] = message.into();
    }
    json!({"waiting": waiting})
}

fn unit_status(unit: &Unit) -> Value {
    let container = &unit.container;
    let (state, id, started) = match &unit.state {
        State::Waiting { reason, message, .. } => (waiting(reason, message), "", false),
        State::Starting => (waiting("ContainerCreating", ""), "", false),
        State::Running(running) => {
            let since = timestamp(running.since.unix_s);
            (json!({"running": {"startedAt": since}}), running.id.as_str(), running.is_started())
        }
        State::Ended(ended) => (terminated(ended), ended.id.as_str(), false),
    };
    let id = if id.is_empty() { unit.last.as_ref().map_or("", |last| &last.id) } else { id };
    let image_id = if id.is_empty() { "" } else { super::pod::PROCESS_IMAGE };
    let mut status = container_status(&container.name, &container.image, id, image_id, state);
    if let Some(last) = &unit.last {
        status["lastState"] = terminated(last);
    }
    status["ready"] = unit.is_ready().into();
    status["restartCount"] = unit.restarts.into();
    status["started"] = started.into();
    status
}

/// The merge patch that makes a Pod's status say this, or `None` if it does already.
pub(crate) fn patch(report: &Report, pod: &Pod, now_unix_s: u64) -> Option<Value> {
    let before = pod.raw.get("status").unwrap_or(&Value::Null);
    let started = text(before, "/startTime");
    let mut status = json!({
        "phase": report.phase,
        "conditions": conditions(report, pod, &timestamp(now_unix_s)),
        "hostIP": report.host_ip,
        "hostIPs": [{"ip": report.host_ip}],
        "startTime": if started.is_empty() { timestamp(report.seen_unix_s) } else { started.to_owned() },
        "containerStatuses": report.statuses,
    });
    if let Some(first) = report.addresses.first() {
        status["podIP"] = first.to_string().into();
        status["podIPs"] = report.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    }
    if !report.init_statuses.is_empty() {
        status["initContainerStatuses"] = report.init_statuses.clone().into();
    }
    if text(before, "/qosClass").is_empty() {
        status["qosClass"] = qos::class(&pod.raw).into();
    }
    let says_so = status
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| object::same(value, before.get(key).unwrap_or(&Value::Null)));
    // The uid makes the API refuse it if another Pod has the name by now.
    (!says_so).then(|| json!({"metadata": {"uid": pod.uid}, "status": status}))
}

/// `Some((reason, message))` makes a condition False or annotates a True one.
type Remark = Option<(String, String)>;

fn conditions(report: &Report, pod: &Pod, now: &str) -> Value {
    let ended = match report.phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let unready = || -> Remark {
        if let Some(reason) = ended {
            return Some((reason.to_owned(), String::new()));
        }
        let names = report.unready.join(" ");
        Some((
            "ContainersNotReady".to_owned(),
            format!("containers with unready status: [{names}]"),
        ))
    };
    let containers_ready = report.ready && ended.is_none();
    let closed_gate = list(&pod.raw, "/spec/readinessGates")
        .iter()
        .map(|gate| text(gate, "/conditionType"))
        .find(|kind| !object::is_condition_true(&pod.raw, kind));
    let remark = report.remark.as_ref().filter(|_| ended.is_none());
    let (ready, why_ready): (bool, Remark) = match (containers_ready, closed_gate) {
        (true, Some(gate)) => {
            let text = format!("the status of pod readiness gate {gate:?} is not \"True\"");
            (false, Some(("ReadinessGatesNotReady".to_owned(), text)))
        }
        (ready, _) => {
            let said = remark.map(|r| (r.reason.to_owned(), r.message.clone()));
            (ready, said.or_else(|| if ready { None } else { unready() }))
        }
    };
    let waits_for_init = || {
        let text = "containers with incomplete status".to_owned();
        Some(("ContainersNotInitialized".to_owned(), text))
    };
    let mut all: Vec<Value> = Vec::new();
    let mut put = |kind: &str, good: bool, why: Remark| {
        all.push(one(kind, good, why, condition(&pod.raw, kind), now));
    };
    put("PodReadyToStartContainers", !report.addresses.is_empty() && ended.is_none(), None);
    put(
        "Initialized",
        report.initialised,
        if report.initialised { None } else { waits_for_init() },
    );
    put("Ready", ready, why_ready);
    put("ContainersReady", containers_ready, if containers_ready { None } else { unready() });
    put("PodScheduled", true, None);
    let ours: Vec<String> = all.iter().map(|c| text(c, "/type").to_owned()).collect();
    let others = list(&pod.raw, "/status/conditions").iter();
    all.extend(others.filter(|c| !ours.iter().any(|t| t == text(c, "/type"))).cloned());
    all.into()
}

fn one(kind: &str, good: bool, why: Remark, before: Option<&Value>, now: &str) -> Value {
    let status = if good { "True" } else { "False" };
    let since = before
        .filter(|before| text(before, "/status") == status)
        .map(|before| text(before, "/lastTransitionTime"))
        .filter(|time| !time.is_empty())
        .unwrap_or(now);
    let mut condition = json!({
        "type": kind,
        "status": status,
        "lastProbeTime": null,
        "lastTransitionTime": since,
    });
    if let Some((reason, message)) = why {
        condition["reason"] = reason.into();
        if !message.is_empty() {
            condition["message"] = message.into();
        }
    }
    condition
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kubelet::{
        listeners::Listening,
        machine::{Moment, RestartPacing},
    };

    fn pod(extra: Value) -> Pod {
        let mut object = json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"name": "a", "image": "portolan.dev/process:v1",
                "ports": [{"containerPort": 80}]}]},
            "status": {"phase": "Pending"}
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            object[key.as_str()] = value.clone();
        }
        Pod::of(Arc::new(object))
    }

    fn at(unix_s: u64) -> Moment {
        Moment { ms: unix_s * 1000, unix_s }
    }

    fn status_of(machine: &Machine, pod: &Pod, now: u64) -> Value {
        let addresses = ["127.10.0.7".parse().unwrap()];
        let host = "127.0.0.1".parse().unwrap();
        let report = Report::of_machine(machine, &addresses, host, 5);
        let mut object = (*pod.raw).clone();
        if let Some(patch) = patch(&report, pod, now) {
            assert_eq!(patch["metadata"], json!({"uid": "u"}));
            for (key, value) in patch["status"].as_object().unwrap() {
                object["status"][key.as_str()] = value.clone();
            }
        }
        object
    }

    fn brief(object: &Value) -> Vec<String> {
        list(object, "/status/conditions")
            .iter()
            .map(|c| format!("{}={} {}", text(c, "/type"), text(c, "/status"), text(c, "/reason")))
            .collect()
    }

    #[test]
    fn from_created_to_ready_to_ended() {
        let first = pod(json!({}));
        let mut machine = Machine::new(&first, RestartPacing::default());
        machine.advance(at(1));
        let object = status_of(&machine, &first, 10);
        assert_eq!(
            brief(&object),
            [
                "PodReadyToStartContainers=True ",
                "Initialized=True ",
                "Ready=False ContainersNotReady",
                "ContainersReady=False ContainersNotReady",
                "PodScheduled=True ",
            ]
        );
        assert_eq!(object["status"]["phase"], "Pending");
        assert_eq!(object["status"]["qosClass"], "BestEffort");
        assert_eq!(object["status"]["startTime"], "1970-01-01T00:00:05Z");
        assert_eq!(object["status"]["podIPs"], json!([{"ip": "127.10.0.7"}]));

        machine.started(0, 1, "portolan://x".into(), 7, at(11));
        machine.listens(0, 1, Listening::Fine, at(11));
        let ready = status_of(&machine, &Pod::of(Arc::new(object)), 12);
        assert!(object::is_condition_true(&ready, "Ready"));
        let when = |object: &Value, kind| {
            text(condition(object, kind).unwrap(), "/lastTransitionTime").to_owned()
        };
        assert_eq!(when(&ready, "Ready"), "1970-01-01T00:00:12Z");
        assert_eq!(when(&ready, "Initialized"), "1970-01-01T00:00:10Z", "kept");
        assert_eq!(
            ready["status"]["containerStatuses"],
            json!([{"name": "a", "state": {"running": {"startedAt": "1970-01-01T00:00:11Z"}},
                "lastState": {}, "ready": true, "restartCount": 0,
                "image": "portolan.dev/process:v1", "imageID": "portolan.dev/process",
                "containerID": "portolan://x", "started": true}])
        );
        let same = Pod::of(Arc::new(ready.clone()));
        let report = Report::of_machine(
            &machine,
            &["127.10.0.7".parse().unwrap()],
            "127.0.0.1".parse().unwrap(),
            5,
        );
        assert_eq!(patch(&report, &same, 99), None, "says the same");

        machine.exited(0, 1, 3, "last words".into(), at(13));
        machine.advance(at(13));
        machine.started(0, 2, "portolan://y".into(), 8, at(13));
        let again = status_of(&machine, &same, 14);
        let status = &again["status"]["containerStatuses"][0];
        assert_eq!(status["restartCount"], 1);
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(status["lastState"]["terminated"]["message"], "last words");
        assert!(!object::is_condition_true(&again, "Ready"));
    }

    #[test]
    fn conditions_of_others() {
        let gated = pod(json!({
            "spec": {"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/gate"}]},
            "status": {"conditions": [{"type": "x/other", "status": "True"}]}
        }));
        let mut machine = Machine::new(&gated, RestartPacing::default());
        machine.advance(at(1));
        machine.started(0, 1, "i".into(), 7, at(1));
        machine.listens(0, 1, Listening::Fine, at(1));
        let object = status_of(&machine, &gated, 2);
        assert_eq!(brief(&object)[2], "Ready=False ReadinessGatesNotReady");
        assert_eq!(brief(&object)[3], "ContainersReady=True ");
        assert_eq!(brief(&object)[5], "x/other=True ");
        let mut open = object;
        open["status"]["conditions"].as_array_mut().unwrap().push(json!({
            "type": "x/gate", "status": "True"}));
        let open = status_of(&machine, &Pod::of(Arc::new(open)), 3);
        assert!(object::is_condition_true(&open, "Ready"));
    }
}
