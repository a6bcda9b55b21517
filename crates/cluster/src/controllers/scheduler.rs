//! Binds Pods to Nodes that are run here.
//!
//! There is one such Node as a rule, so the scheduler filters more than it
//! weighs: labels, required node affinity, taints. What it cannot place stays
//! Pending and says why, and is looked at again when a Node changes.

use std::sync::Arc;

use portolan_apiserver::{
    Status, kinds,
    registry::{LabelSelector, object::now},
};
use serde_json::{Value, json};

use super::{
    action::{Action, Hands},
    endpointslice::pods::is_ended,
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

/// Label of the Nodes whose Pods a kubelet of this process runs.
pub const RUNNER_LABEL: &str = "portolan.dev/runner";
/// The scheduler that Pods mean when they name none.
const SCHEDULER: &str = "default-scheduler";

/// Why a Node does not take a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    NotRun,
    Affinity,
    Taint,
    Unschedulable,
    NotReady,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Refusal::NotRun => "node(s) that nothing here runs",
            Refusal::Unschedulable => "node(s) were unschedulable",
            Refusal::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Refusal::Taint => "node(s) had untolerated taint",
            Refusal::NotReady => "node(s) were not ready",
        }
    }
}

/// Whether a Pod waits to be bound by us.
fn is_waiting(pod: &Value) -> bool {
    let scheduler = object::text(pod, "/spec/schedulerName");
    object::text(pod, "/spec/nodeName").is_empty()
        && !object::is_deleting(pod)
        && !is_ended(pod)
        && object::list(pod, "/spec/schedulingGates").is_empty()
        && matches!(scheduler, "" | SCHEDULER)
}

/// The Node for a Pod: of those that take it the one with the fewest Pods, or
/// why there is none. `load` counts the Pods of a Node, and is asked only if there is a choice.
fn choose<'n>(
    pod: &Value,
    nodes: &'n [Object],
    load: impl Fn(&str) -> usize,
) -> Result<&'n str, String> {
    let mut refusals: Vec<Refusal> = Vec::new();
    let mut takers: Vec<&str> = Vec::new();
    for node in nodes {
        match refusal(pod, node) {
            None => takers.push(object::name(node)),
            Some(refusal) => refusals.push(refusal),
        }
    }
    if let [only] = takers.as_slice() {
        return Ok(only);
    }
    takers.into_iter().min_by_key(|name| (load(name), *name)).ok_or_else(|| {
        refusals.sort();
        let mut texts: Vec<String> = Vec::new();
        for group in refusals.chunk_by(|a, b| a == b) {
            texts.push(format!("{} {}", group.len(), group[0].text()));
        }
        format!("0/{} nodes are available: {}.", nodes.len(), texts.join(", "))
    })
}

fn refusal(pod: &Value, node: &Value) -> Option<Refusal> {
    let not_ready = object::condition(node, "Ready")
        .is_some_and(|condition| object::text(condition, "/status") != "True");
    // What lasts comes before what passes.
    if object::label(node, RUNNER_LABEL) != Some("true") {
        Some(Refusal::NotRun)
    } else if !matches_affinity(pod, node) {
        Some(Refusal::Affinity)
    } else if object::list(node, "/spec/taints").iter().any(|taint| !tolerates(pod, taint)) {
        Some(Refusal::Taint)
    } else if object::flag(node, "/spec/unschedulable") {
        Some(Refusal::Unschedulable)
    } else {
        not_ready.then_some(Refusal::NotReady)
    }
}

/// Whether a Node may run a Pod once it is ready and open to Pods: what DaemonSets ask.
pub(crate) fn may_ever_run(pod: &Value, node: &Value) -> bool {
    matches!(refusal(pod, node), None | Some(Refusal::Unschedulable | Refusal::NotReady))
}

/// What a Pod may wait for in a Node; heartbeats change none of it.
pub(crate) fn what_counts(node: Option<&Object>) -> impl PartialEq + use<> {
    node.map(|node| {
        let ready = object::is_condition_true(node, "Ready");
        (node.pointer("/metadata/labels").cloned(), node.get("spec").cloned(), ready)
    })
}

fn matches_affinity(pod: &Value, node: &Value) -> bool {
    let selector = object::at(pod, "/spec/nodeSelector").unwrap_or(&Value::Null);
    if !LabelSelector::from_map(selector).matches_object(node) {
        return false;
    }
    let required = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let Some(required) = object::at(pod, required) else { return true };
    // Terms are alternatives; the expressions of a term must all hold.
    object::list(required, "/nodeSelectorTerms").iter().any(|term| {
        let fields = object::list(term, "/matchFields");
        let by_labels = LabelSelector::from_object(&json!({
            "matchExpressions": object::at(term, "/matchExpressions"),
        }));
        let by_name = fields.iter().all(|field| {
            let names = object::list(field, "/values").iter().filter_map(Value::as_str);
            let is_named = names.into_iter().any(|name| name == object::name(node));
            object::text(field, "/key") == "metadata.name"
                && (object::text(field, "/operator") == "In") == is_named
        });
        let is_empty = fields.is_empty() && object::list(term, "/matchExpressions").is_empty();
        !is_empty && by_name && by_labels.is_ok_and(|selector| selector.matches_object(node))
    })
}

fn tolerates(pod: &Value, taint: &Value) -> bool {
    let effect = object::text(taint, "/effect");
    if effect == "PreferNoSchedule" {
        return true;
    }
    object::list(pod, "/spec/tolerations").iter().any(|toleration| {
        let of = |field: &str| object::text(toleration, field);
        let key = of("/key");
        let same_value =
            of("/operator") == "Exists" || of("/value") == object::text(taint, "/value");
        matches!(of("/effect"), "" | "NoSchedule" | "NoExecute")
            && (of("/effect").is_empty() || of("/effect") == effect)
            && (key.is_empty() || key == object::text(taint, "/key"))
            && same_value
    })
}

/// What the Pod is to say when nothing takes it; `None` when it says so already.
fn unschedulable(pod: &Value, message: &str) -> Option<Value> {
    let before = object::condition(pod, "PodScheduled");
    if before.is_some_and(|c| {
        object::text(c, "/reason") == "Unschedulable" && object::text(c, "/message") == message
    }) {
        return None;
    }
    let since = before
        .filter(|c| object::text(c, "/status") == "False")
        .and_then(|c| c.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| now().into());
    let mut conditions = object::list(pod, "/status/conditions").to_vec();
    conditions.retain(|c| object::text(c, "/type") != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": null,
        "lastTransitionTime": since,
        "reason": "Unschedulable",
        "message": message,
    }));
    Some(json!({"status": {"conditions": conditions}}))
}

/// Binds Pods.
pub(crate) struct Scheduler {
    hands: Hands,
    pods: Informer,
    nodes: Informer,
}

impl Scheduler {
    /// Sees to it that waiting Pods are looked at when they or the Nodes change.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let pods = informers.of(&kinds::PODS);
        let nodes = informers.of(&kinds::NODES);
        {
            let queue = queue.clone();
            pods.on_change(move |change| {
                if change.new.is_some_and(|pod| is_waiting(pod)) {
                    queue.add(change.key.clone());
                }
            });
        }
        {
            let (pods, queue) = (pods.clone(), queue.clone());
            nodes.on_change(move |change| {
                if what_counts(change.old) != what_counts(change.new) {
                    for pod in pods.cached_list(None).iter().filter(|pod| is_waiting(pod)) {
                        queue.add(ObjectKey::of(pod));
                    }
                }
            });
        }
        (Scheduler { hands, pods, nodes }, queue)
    }
}

impl Worker for Scheduler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let pod = self.pods.get(&key.namespace, &key.name).filter(|pod| is_waiting(pod));
        let Some(pod) = pod else { return Ok(Next::Done) };
        let nodes = self.nodes.list(None);
        let load = |name: &str| {
            let all = self.pods.cached_list(None);
            all.iter().filter(|pod| object::text(pod, "/spec/nodeName") == name).count()
        };
        match choose(&pod, &nodes, load) {
            Ok(node) => {
                let (registry, caller) = (&self.hands.registry, &self.hands.caller);
                registry.bind(caller, &key.namespace, &key.name, node).await?;
                let message = format!("Successfully assigned {key} to {node}");
                self.hands.report(&pod, "Normal", "Scheduled", &message);
            }
            Err(message) => {
                if let Some(told) = unschedulable(&pod, &message) {
                    self.hands.report(&pod, "Warning", "FailedScheduling", &message);
                    self.hands.apply(vec![Action::PatchStatus(&kinds::PODS, pod, told)]).await?;
                }
            }
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, labels: Value, spec: Value, ready: &str) -> Object {
        Arc::new(json!({
            "metadata": {"name": name, "labels": labels}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    #[test]
    fn takes_a_node_that_fits() {
        let run = |more: Value| {
            let mut labels = json!({RUNNER_LABEL: "true"});
            for (key, value) in more.as_object().unwrap() {
                labels[key] = value.clone();
            }
            labels
        };
        let taint = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        let nodes = [
            node("external", json!({}), json!({}), "True"),
            node("a", run(json!({"disk": "ssd"})), json!({}), "True"),
            node("b", run(json!({})), json!({}), "True"),
            node("cordoned", run(json!({})), json!({"unschedulable": true}), "True"),
            node("down", run(json!({"disk": "ssd"})), json!({}), "False"),
            node("tainted", run(json!({"disk": "tape"})), taint, "True"),
        ];
        let affinity = |operator: &str, key: &str, field: &str| {
            json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {field: [{"key": key, "operator": operator, "values": ["a"]}]}]}}}})
        };
        for (spec, expected) in [
            (json!({}), Ok("b")), // "a" is loaded.
            (json!({"nodeSelector": {"disk": "ssd"}}), Ok("a")),
            (affinity("In", "metadata.name", "matchFields"), Ok("a")),
            (affinity("NotIn", "metadata.name", "matchFields"), Ok("b")),
            (affinity("In", "disk", "matchExpressions"), Err("6 nodes")),
            (json!({"nodeSelector": {"disk": "tape"}}), Err("1 node(s) had untolerated taint")),
            (
                json!({"nodeSelector": {"disk": "tape"},
                    "tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]}),
                Ok("tainted"),
            ),
            (
                json!({"nodeSelector": {"disk": "tape"},
                    "tolerations": [{"key": "k", "operator": "Equal", "value": "w"}]}),
                Err("0/6 nodes are available: 1 node(s) that nothing here runs, \
                     4 node(s) didn't match Pod's node affinity/selector, 1 node(s) had \
                     untolerated taint."),
            ),
            (
                json!({"nodeSelector": {"disk": "tape"}, "tolerations": [{"operator": "Exists"}]}),
                Ok("tainted"),
            ),
        ] {
            let found = choose(&json!({"spec": spec}), &nodes, |name| usize::from(name == "a"));
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{spec}"),
                (Err(found), Err(part)) if part != "6 nodes" => {
                    assert!(found.contains(part), "{spec}: {found}");
                }
                (Err(_), Err(_)) => {}
                _ => panic!("{spec}: {found:?}"),
            }
        }
    }

    #[test]
    fn says_once_that_nothing_fits() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let told = unschedulable(&pod, "0/1").unwrap();
        let condition = object::condition(&told, "PodScheduled").unwrap();
        assert_eq!(condition["reason"], "Unschedulable");
        assert!(object::condition(&told, "Ready").is_some());
        assert_eq!(unschedulable(&told, "0/1"), None);
        assert!(unschedulable(&told, "0/2").is_some());
    }

    #[test]
    fn binds_only_what_waits_for_it() {
        for (pod, expected) in [
            (json!({"spec": {}}), true),
            (json!({"spec": {"schedulerName": "default-scheduler"}}), true),
            (json!({"spec": {"schedulerName": "mine"}}), false),
            (json!({"spec": {"nodeName": "a"}}), false),
            (json!({"spec": {"schedulingGates": [{"name": "g"}]}}), false),
            (json!({"spec": {}, "metadata": {"deletionTimestamp": "now"}}), false),
            (json!({"spec": {}, "status": {"phase": "Failed"}}), false),
        ] {
            assert_eq!(is_waiting(&pod), expected, "{pod}");
        }
    }
}
