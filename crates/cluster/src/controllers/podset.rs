//! Pods as members of a set: who counts, who goes first, what is made.
//!
//! Shared by everything that owns Pods (kubernetes
//! `pkg/controller/controller_utils.go`).

use portolan_apiserver::{Kind, registry::object::parse_timestamp};
use serde_json::{Value, json};

use super::endpointslice::pods::{is_ended, is_ready};
use crate::{informer::Object, object};

/// Annotation by which a Pod says how much its removal costs.
pub(crate) const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Whether a Pod counts as one of its set.
pub(crate) fn is_active(pod: &Value) -> bool {
    !is_ended(pod) && !object::is_deleting(pod)
}

/// Since when a Pod has been ready, in Unix seconds; `None` when it is not.
pub(crate) fn ready_since(pod: &Value) -> Option<u64> {
    let condition = object::condition(pod, "Ready").filter(|_| is_ready(pod))?;
    Some(parse_timestamp(object::text(condition, "/lastTransitionTime")).unwrap_or(0))
}

/// Seconds until a ready Pod counts as available; 0 when it does, `None` when it is not ready.
pub(crate) fn available_in(pod: &Value, min_ready_seconds: i64, now: u64) -> Option<u64> {
    let since = ready_since(pod)?;
    let wait = u64::try_from(min_ready_seconds).unwrap_or(0);
    Some(if wait == 0 { 0 } else { (since + wait).saturating_sub(now) })
}

/// A new Pod from the template of its owner.
pub(crate) fn from_template(owner: &Value, kind: &Kind, template: &Value) -> Value {
    let metadata = |key: &str| object::at(template, &format!("/metadata/{key}")).cloned();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", object::name(owner)),
            "namespace": object::namespace(owner),
            "ownerReferences": [object::controller_reference(owner, kind.api_version, kind.kind)],
        },
        "spec": object::at(template, "/spec").cloned().unwrap_or_default(),
    });
    for key in ["labels", "annotations", "finalizers"] {
        if let Some(value) = metadata(key) {
            pod["metadata"][key] = value;
        }
    }
    pod
}

/// The order in which Pods are removed: those whose loss costs least come first
/// (`ActivePodsWithRanks`). `crowd` tells how many related Pods share a Node.
pub(crate) fn removal_order(pods: &mut [Object], crowd: impl Fn(&str) -> usize) {
    let phase = |pod: &Value| match object::text(pod, "/status/phase") {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let restarts = |pod: &Value| -> i64 {
        object::list(pod, "/status/containerStatuses")
            .iter()
            .filter_map(|c| object::int(c, "/restartCount"))
            .max()
            .unwrap_or(0)
    };
    let cost = |pod: &Value| {
        let text = object::annotation(pod, DELETION_COST_ANNOTATION);
        text.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0)
    };
    let created = |pod: &Value| {
        parse_timestamp(object::text(pod, "/metadata/creationTimestamp")).unwrap_or(0)
    };
    pods.sort_by_cached_key(|pod| {
        let node = object::text(pod, "/spec/nodeName");
        (
            !node.is_empty(),
            phase(pod),
            is_ready(pod),
            cost(pod),
            std::cmp::Reverse(crowd(node)),
            // The one that became ready last has the least to lose.
            std::cmp::Reverse(ready_since(pod).unwrap_or(0)),
            std::cmp::Reverse(restarts(pod)),
            std::cmp::Reverse(created(pod)),
            object::uid(pod).to_owned(),
        )
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_cheapest_loss_comes_first() {
        let pod = |name: &str, node: &str, phase: &str, ready: &str, more: Value| -> Object {
            let mut pod = json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": node},
                "status": {"phase": phase, "conditions":
                    [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:01:00Z"}]},
            });
            for (pointer, value) in more.as_object().unwrap() {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                pod.pointer_mut(parent).unwrap()[key] = value.clone();
            }
            Arc::new(pod)
        };
        let ready = |name: &str, more: Value| pod(name, "n1", "Running", "True", more);
        let mut pods = vec![
            ready("old", json!({})),
            ready("crowded", json!({"/spec/nodeName": "n2"})),
            ready("dear", json!({"/metadata/annotations": {DELETION_COST_ANNOTATION: "5"}})),
            ready("young", json!({"/metadata/creationTimestamp": "2026-01-01T00:00:30Z"})),
            ready("restarted", json!({"/status/containerStatuses": [{"restartCount": 3}]})),
            ready(
                "fresh",
                json!({"/status/conditions": [{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:02:00Z"}]}),
            ),
            pod("failing", "n1", "Running", "False", json!({})),
            pod("pending", "n1", "Pending", "False", json!({})),
            pod("unbound", "", "Pending", "False", json!({})),
        ];
        removal_order(&mut pods, |node| if node == "n2" { 9 } else { 1 });
        let names: Vec<&str> = pods.iter().map(|p| object::name(p)).collect();
        let expected = [
            "unbound",
            "pending",
            "failing",
            "crowded",
            "fresh",
            "restarted",
            "young",
            "old",
            "dear",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn availability_takes_its_time() {
        let pod = |status: &str| {
            json!({"status": {"conditions": [{"type": "Ready", "status": status,
                "lastTransitionTime": "1970-01-01T00:01:40Z"}]}})
        };
        for (status, min_ready, now, expected) in [
            ("False", 0, 200, None),
            ("True", 0, 100, Some(0)),
            ("True", 10, 104, Some(6)),
            ("True", 10, 110, Some(0)),
        ] {
            assert_eq!(available_in(&pod(status), min_ready, now), expected);
        }
    }
}
