//! ReplicaSets: as many Pods as asked for.
//!
//! A plan counts the active Pods of the set and creates or removes the
//! difference; the status is counted from the same Pods
//! (kubernetes `pkg/controller/replicaset`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use portolan_apiserver::{
    Status, kinds,
    registry::{LabelSelector, object::now},
};
use serde_json::{Value, json};

use super::{
    action::{Action, Hands, Note},
    claim::{Claim, claim},
    podset,
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

/// Pods created or removed in one go (`BurstReplicas`).
const BURST: usize = 500;

/// What to do about the Pods of a set. `owned` are the Pods that it controls;
/// `crowd` tells how many related Pods a Node has.
pub(crate) fn plan(set: &Object, owned: &[Object], crowd: impl Fn(&str) -> usize) -> Vec<Action> {
    if object::is_deleting(set) {
        return Vec::new();
    }
    let mut active: Vec<Object> =
        owned.iter().filter(|pod| podset::is_active(pod)).cloned().collect();
    let wanted = wanted(set);
    let pods = &kinds::PODS;
    if active.len() < wanted {
        let template = object::at(set, "/spec/template").unwrap_or(&Value::Null);
        let pod = podset::from_template(set, &kinds::REPLICA_SETS, template);
        let note = Note {
            about: set.clone(),
            reason: "SuccessfulCreate",
            message: "Created pod: {name}".into(),
            failure: Some(("FailedCreate", "Error creating: ")),
        };
        let missing = (wanted - active.len()).min(BURST);
        return vec![Action::Create(pods, pod, Some(note)); missing];
    }
    let extra = (active.len() - wanted).min(BURST);
    if extra > 0 {
        podset::removal_order(&mut active, crowd);
    }
    let note = Note {
        about: set.clone(),
        reason: "SuccessfulDelete",
        message: "Deleted pod: {name}".into(),
        failure: Some(("FailedDelete", "Error deleting: ")),
    };
    let remove = active.into_iter().take(extra);
    remove.map(|pod| Action::Delete(pods, pod, None, Some(note.clone()))).collect()
}

fn wanted(set: &Value) -> usize {
    usize::try_from(object::int(set, "/spec/replicas").unwrap_or(1)).unwrap_or(0)
}

/// The status that follows from the Pods, and when it will change by time alone.
pub(crate) fn status(
    set: &Value,
    owned: &[Object],
    failure: Option<&str>,
    now_unix: u64,
) -> (Value, Option<Duration>) {
    let active = || owned.iter().filter(|pod| podset::is_active(pod));
    let labels: Vec<(&str, &str)> = object::texts(set, "/spec/template/metadata/labels").collect();
    let labelled = active()
        .filter(|pod| labels.iter().all(|(key, value)| object::label(pod, key) == Some(*value)));
    let min_ready = object::int(set, "/spec/minReadySeconds").unwrap_or(0);
    let waits: Vec<u64> =
        active().filter_map(|pod| podset::available_in(pod, min_ready, now_unix)).collect();
    let mut status = json!({
        "replicas": active().count(),
        "fullyLabeledReplicas": labelled.count(),
        "readyReplicas": waits.len(),
        "availableReplicas": waits.iter().filter(|wait| **wait == 0).count(),
        "observedGeneration": object::int(set, "/metadata/generation").unwrap_or(0),
    });
    // Zero and absent are one, as upstream writes them.
    for count in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if status[count] == json!(0)
            && let Some(map) = status.as_object_mut()
        {
            map.shift_remove(count);
        }
    }
    if let Some(message) = failure {
        let before = object::condition(set, "ReplicaFailure");
        let condition = before.cloned().unwrap_or_else(|| {
            json!({
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": now(),
                "reason": "FailedCreate",
                "message": message,
            })
        });
        status["conditions"] = json!([condition]);
    }
    let soonest = waits.into_iter().filter(|wait| *wait > 0).min();
    (status, soonest.map(Duration::from_secs))
}

/// Keeps the Pods of ReplicaSets.
pub(crate) struct ReplicaSets {
    hands: Hands,
    sets: Informer,
    pods: Informer,
}

impl ReplicaSets {
    /// Sees to it that every change that matters puts its set into the queue.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let sets = informers.of(&kinds::REPLICA_SETS);
        let pods = informers.of(&kinds::PODS);
        {
            let queue = queue.clone();
            sets.on_change(move |change| queue.add(change.key.clone()));
        }
        queue_owners(&pods, &sets, "ReplicaSet", &queue);
        (ReplicaSets { hands, sets, pods }, queue)
    }

    /// How many active Pods each Node has of the sets with the same controller.
    fn crowds(&self, set: &Value) -> HashMap<String, usize> {
        let mut crowds = HashMap::new();
        let owner = object::controller_uid(set);
        let namespace = object::namespace(set);
        let siblings = if owner.is_empty() {
            vec![Arc::new(set.clone())]
        } else {
            self.sets.controlled_by(namespace, owner)
        };
        for sibling in siblings {
            for pod in self.pods.controlled_by(namespace, object::uid(&sibling)) {
                if podset::is_active(&pod) {
                    *crowds.entry(object::text(&pod, "/spec/nodeName").to_owned()).or_default() +=
                        1;
                }
            }
        }
        crowds
    }

    fn claim(&self, set: &Object) -> Result<Claim, Status> {
        let selector = selector(set)?;
        let namespace = object::namespace(set);
        let mut candidates = self.pods.controlled_by(namespace, object::uid(set));
        candidates.extend(self.pods.controlled_by(namespace, ""));
        Ok(claim(set, &kinds::REPLICA_SETS, &selector, &kinds::PODS, candidates))
    }
}

/// The selector of a workload; one that selects everything is refused, as a mistake.
pub(crate) fn selector(workload: &Value) -> Result<LabelSelector, Status> {
    let found = object::at(workload, "/spec/selector").unwrap_or(&Value::Null);
    let selector = LabelSelector::from_object(found).map_err(Status::bad_request)?;
    if selector.is_empty() {
        return Err(Status::bad_request("a non-empty selector is required"));
    }
    Ok(selector)
}

/// Puts the owner of everything that comes, changes or goes into the queue; for
/// what has no owner, everything that might adopt it.
pub(crate) fn queue_owners(
    owned: &Informer,
    owners: &Informer,
    owner_kind: &'static str,
    queue: &Arc<Queue<ObjectKey>>,
) {
    let (owners, queue) = (owners.clone(), queue.clone());
    owned.on_change(move |change| {
        let namespace = &change.key.namespace;
        for side in change.sides() {
            if let Some(owner) = object::controller(side) {
                if object::text(owner, "/kind") == owner_kind {
                    queue.add(ObjectKey::new(namespace, object::text(owner, "/name")));
                }
            } else if change.new.is_some() {
                for owner in owners.cached_list(Some(namespace)) {
                    if selector(&owner).is_ok_and(|s| s.matches_object(side)) {
                        queue.add(ObjectKey::of(&owner));
                    }
                }
            }
        }
    });
}

impl Worker for ReplicaSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::Done) };
        let claim = self.claim(&set)?;
        if !claim.actions.is_empty() {
            self.hands.apply(claim.actions).await?;
            return Ok(Next::After(Duration::ZERO));
        }
        let crowds = self.crowds(&set);
        let actions = plan(&set, &claim.owned, |node| crowds.get(node).copied().unwrap_or(0));
        let outcome = self.hands.apply(actions).await;
        let failure = outcome.as_ref().err().map(ToString::to_string);
        let now_unix = self.hands.now_unix();
        let (status, wait) = status(&set, &claim.owned, failure.as_deref(), now_unix);
        if !object::same(&status, object::at(&set, "/status").unwrap_or(&Value::Null)) {
            let mut new = Value::clone(&set);
            new["status"] = status;
            self.hands.apply(vec![Action::UpdateStatus(&kinds::REPLICA_SETS, new)]).await?;
        }
        outcome?;
        Ok(wait.map_or(Next::Done, Next::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64) -> Object {
        Arc::new(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "rs", "generation": 2},
            "spec": {"replicas": replicas, "minReadySeconds": 5, "template":
                {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
        }))
    }

    fn pod(name: &str, phase: &str, ready_at: Option<u64>) -> Object {
        let (status, at) = match ready_at {
            Some(at) => ("True", portolan_apiserver::registry::object::timestamp(at)),
            None => ("False", String::new()),
        };
        Arc::new(json!({
            "metadata": {"name": name, "uid": name, "labels": {"app": "web"}},
            "status": {"phase": phase, "conditions":
                [{"type": "Ready", "status": status, "lastTransitionTime": at}]},
        }))
    }

    fn leaving(name: &str) -> Object {
        let mut pod = Value::clone(&pod(name, "Running", Some(1)));
        pod["metadata"]["deletionTimestamp"] = "now".into();
        Arc::new(pod)
    }

    #[test]
    fn makes_and_removes_the_difference() {
        let running = |name| pod(name, "Running", Some(1));
        for (replicas, owned, created, deleted) in [
            (2, vec![], 2, vec![]),
            (0, vec![], 0, vec![]),
            (2, vec![running("a"), running("b")], 0, vec![]),
            // Those that ended or leave do not count.
            (2, vec![running("a"), pod("b", "Failed", None), leaving("c")], 1, vec![]),
            (1, vec![running("a"), pod("b", "Pending", None)], 0, vec!["b"]),
            (0, vec![running("a"), leaving("c")], 0, vec!["a"]),
            (2000, vec![], BURST, vec![]),
        ] {
            let actions = plan(&set(replicas), &owned, |_| 0);
            let mut found = (0, Vec::new());
            for action in &actions {
                match action {
                    Action::Create(_, pod, _) => {
                        assert_eq!(object::controller_uid(pod), "rs");
                        assert_eq!(object::text(pod, "/metadata/generateName"), "web-");
                        assert_eq!(object::label(pod, "app"), Some("web"));
                        found.0 += 1;
                    }
                    Action::Delete(_, pod, _, _) => found.1.push(object::name(pod)),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(found, (created, deleted), "{replicas}");
        }
        let mut leaving = Value::clone(&set(3));
        leaving["metadata"]["deletionTimestamp"] = "now".into();
        assert_eq!(plan(&Arc::new(leaving), &[], |_| 0), []);
    }

    #[test]
    fn counts_what_is_there() {
        let owned = [
            pod("old", "Running", Some(100)),
            pod("young", "Running", Some(108)),
            pod("starting", "Pending", None),
            leaving("leaving"),
        ];
        let (found, wait) = status(&set(3), &owned, None, 110);
        let expected = json!({"replicas": 3, "fullyLabeledReplicas": 3, "readyReplicas": 2,
            "availableReplicas": 1, "observedGeneration": 2});
        assert_eq!(found, expected);
        assert_eq!(wait, Some(Duration::from_secs(3)));
        let (found, wait) = status(&set(3), &[], Some("no"), 110);
        assert_eq!(found["conditions"][0]["message"], "no");
        assert_eq!((found["replicas"].clone(), wait), (json!(0), None));
    }
}
