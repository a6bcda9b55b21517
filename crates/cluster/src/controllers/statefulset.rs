//! StatefulSets: Pods with names that stay, one after the other.
//!
//! Volumes of `volumeClaimTemplates` are not made: the cluster holds no storage
//! (kubernetes `pkg/controller/statefulset`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use portolan_apiserver::{Status, kinds};
use serde_json::{Value, json};

use super::{
    action::{Action, Hands, Note},
    claim::{Claim, claim},
    endpointslice::pods::{is_ended, is_ready},
    podset,
    replicaset::{queue_owners, selector},
    revisions::{self, HASH_LABEL},
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

/// All that a step follows from.
pub(crate) struct View<'a> {
    pub(crate) set: &'a Object,
    pub(crate) pods: &'a [Object],
    /// The revision of the present template.
    pub(crate) update: &'a Value,
    /// The revision that is rolled out; the same when there is no other.
    pub(crate) current: &'a Value,
    pub(crate) now_unix: u64,
}

impl View<'_> {
    fn start(&self) -> i64 {
        object::int(self.set, "/spec/ordinals/start").unwrap_or(0)
    }

    fn replicas(&self) -> i64 {
        object::int(self.set, "/spec/replicas").unwrap_or(1)
    }

    fn is_rolling(&self) -> bool {
        object::text(self.set, "/spec/updateStrategy/type") != "OnDelete"
    }

    /// The first ordinal that gets the new template.
    fn first_updated(&self) -> i64 {
        let partition = object::int(self.set, "/spec/updateStrategy/rollingUpdate/partition");
        self.start() + partition.filter(|_| self.is_rolling()).unwrap_or(0)
    }

    fn ordinal(&self, pod: &Value) -> Option<i64> {
        let rest = object::name(pod).strip_prefix(object::name(self.set))?;
        rest.strip_prefix('-')?.parse().ok()
    }

    fn is_updated(&self, pod: &Value) -> bool {
        object::label(pod, HASH_LABEL) == Some(object::name(self.update))
    }

    fn is_available(&self, pod: &Value) -> bool {
        let min_ready = object::int(self.set, "/spec/minReadySeconds").unwrap_or(0);
        podset::available_in(pod, min_ready, self.now_unix) == Some(0)
    }

    fn is_healthy(&self, pod: &Value) -> bool {
        self.is_available(pod) && !object::is_deleting(pod)
    }
}

/// The next step.
pub(crate) fn plan(view: &View<'_>) -> Vec<Action> {
    if object::is_deleting(view.set) {
        return Vec::new();
    }
    let one_by_one = object::text(view.set, "/spec/podManagementPolicy") != "Parallel";
    let wanted = view.start()..view.start() + view.replicas();
    let mut by_ordinal: BTreeMap<i64, &Object> = BTreeMap::new();
    for pod in view.pods {
        if let Some(ordinal) = view.ordinal(pod) {
            by_ordinal.insert(ordinal, pod);
        }
    }
    let mut actions = Vec::new();
    for ordinal in wanted.clone() {
        let healthy = match by_ordinal.get(&ordinal) {
            None => {
                actions.push(create(view, ordinal));
                false
            }
            Some(pod) if is_ended(pod) && !object::is_deleting(pod) => {
                actions.push(delete(view, pod));
                false
            }
            Some(pod) => view.is_healthy(pod),
        };
        if one_by_one && !healthy {
            return actions;
        }
    }
    for (_, pod) in by_ordinal.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal)) {
        if !object::is_deleting(pod) {
            actions.push(delete(view, pod));
        }
        if one_by_one {
            return actions;
        }
    }
    if view.is_rolling() {
        actions.extend(replace_one(view, &by_ordinal, wanted));
    }
    actions
}

/// The highest Pod of an old template, if those above it are well.
fn replace_one(
    view: &View<'_>,
    by_ordinal: &BTreeMap<i64, &Object>,
    wanted: std::ops::Range<i64>,
) -> Option<Action> {
    for (_, pod) in by_ordinal.range(view.first_updated().min(wanted.end)..wanted.end).rev() {
        if !view.is_updated(pod) && !object::is_deleting(pod) {
            return Some(delete(view, pod));
        }
        if !view.is_healthy(pod) {
            return None;
        }
    }
    None
}

fn create(view: &View<'_>, ordinal: i64) -> Action {
    let revision = if ordinal < view.first_updated() { view.current } else { view.update };
    let template = revisions::template(revision);
    let kind = &kinds::STATEFUL_SETS;
    let mut pod = podset::from_template(view.set, kind, &template);
    let name = format!("{}-{ordinal}", object::name(view.set));
    let metadata = object::map_mut(&mut pod, "metadata");
    metadata.shift_remove("generateName");
    metadata.insert("name".into(), name.as_str().into());
    let labels = object::map_mut(&mut pod["metadata"], "labels");
    labels.insert(HASH_LABEL.into(), object::name(revision).into());
    labels.insert("statefulset.kubernetes.io/pod-name".into(), name.as_str().into());
    labels.insert("apps.kubernetes.io/pod-index".into(), ordinal.to_string().into());
    let spec = object::map_mut(&mut pod, "spec");
    spec.insert("hostname".into(), name.as_str().into());
    spec.insert("subdomain".into(), object::text(view.set, "/spec/serviceName").into());
    let note = Note {
        about: view.set.clone(),
        reason: "SuccessfulCreate",
        message: format!("create Pod {name} in StatefulSet {} successful", object::name(view.set)),
        failure: Some(("FailedCreate", "create Pod failed error: ")),
    };
    Action::Create(&kinds::PODS, pod, Some(note))
}

fn delete(view: &View<'_>, pod: &Object) -> Action {
    let (pod_name, set_name) = (object::name(pod), object::name(view.set));
    let note = Note {
        about: view.set.clone(),
        reason: "SuccessfulDelete",
        message: format!("delete Pod {pod_name} in StatefulSet {set_name} successful"),
        failure: Some(("FailedDelete", "delete Pod failed error: ")),
    };
    Action::Delete(&kinds::PODS, pod.clone(), None, Some(note))
}

/// The status that follows from the Pods.
pub(crate) fn status(view: &View<'_>) -> Value {
    let count = |test: &dyn Fn(&Value) -> bool| -> i64 {
        let found = view.pods.iter().filter(|pod| !is_ended(pod) && test(pod)).count();
        i64::try_from(found).unwrap_or(i64::MAX)
    };
    let of = |revision: &Value| {
        let name = object::name(revision).to_owned();
        move |pod: &Value| {
            object::label(pod, HASH_LABEL) == Some(&name) && !object::is_deleting(pod)
        }
    };
    let (ready, updated) = (count(&|pod| is_ready(pod)), count(&of(view.update)));
    let replicas = count(&|_| true);
    let done =
        view.is_rolling() && [replicas, ready, updated].iter().all(|n| *n == view.replicas());
    let current = if done { view.update } else { view.current };
    let mut status = json!({
        "observedGeneration": object::int(view.set, "/metadata/generation").unwrap_or(0),
        "replicas": replicas,
        "availableReplicas": count(&|pod| view.is_available(pod)),
        "currentRevision": object::name(current),
        "updateRevision": object::name(view.update),
        "collisionCount": object::int(view.set, "/status/collisionCount").unwrap_or(0),
    });
    // Zero and absent are one, as upstream writes them.
    for (field, count) in [
        ("readyReplicas", ready),
        ("currentReplicas", if done { updated } else { count(&of(view.current)) }),
        ("updatedReplicas", updated),
    ] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    status
}

/// Keeps the Pods of StatefulSets.
pub(crate) struct StatefulSets {
    hands: Hands,
    sets: Informer,
    pods: Informer,
    revisions: Informer,
}

impl StatefulSets {
    /// Sees to it that every change that matters puts its set into the queue.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let sets = informers.of(&kinds::STATEFUL_SETS);
        let pods = informers.of(&kinds::PODS);
        let revisions = informers.of(&kinds::CONTROLLER_REVISIONS);
        {
            let queue = queue.clone();
            sets.on_change(move |change| queue.add(change.key.clone()));
        }
        queue_owners(&pods, &sets, "StatefulSet", &queue);
        (StatefulSets { hands, sets, pods, revisions }, queue)
    }

    fn claim(&self, set: &Object) -> Result<Claim, Status> {
        let selector = selector(set)?;
        let namespace = object::namespace(set);
        let mut candidates = self.pods.controlled_by(namespace, object::uid(set));
        candidates.extend(self.pods.controlled_by(namespace, ""));
        Ok(claim(set, &kinds::STATEFUL_SETS, &selector, &kinds::PODS, candidates))
    }

    /// Seconds until a Pod that is ready counts as available.
    fn wait(view: &View<'_>) -> Option<Duration> {
        let min_ready = object::int(view.set, "/spec/minReadySeconds").unwrap_or(0);
        let waits = view.pods.iter();
        let waits = waits.filter_map(|p| podset::available_in(p, min_ready, view.now_unix));
        waits.filter(|wait| *wait > 0).min().map(Duration::from_secs)
    }
}

impl Worker for StatefulSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::Done) };
        let claim = self.claim(&set)?;
        if !claim.actions.is_empty() {
            self.hands.apply(claim.actions).await?;
            return Ok(Next::After(Duration::ZERO));
        }
        let owned = self.revisions.controlled_by(&key.namespace, object::uid(&set));
        let planned = revisions::plan(&set, &kinds::STATEFUL_SETS, &owned);
        self.hands.apply(planned.actions).await?;
        let current_name = object::text(&set, "/status/currentRevision");
        let current = owned.iter().find(|revision| object::name(revision) == current_name);
        let view = View {
            set: &set,
            pods: &claim.owned,
            update: &planned.update,
            current: current.map_or(&planned.update, |current| current),
            now_unix: self.hands.now_unix(),
        };
        let status = status(&view);
        if !object::same(&status, object::at(&set, "/status").unwrap_or(&Value::Null)) {
            let mut new = Value::clone(&set);
            new["status"] = status;
            self.hands.apply(vec![Action::UpdateStatus(&kinds::STATEFUL_SETS, new)]).await?;
        }
        let wait = Self::wait(&view);
        let mut actions = plan(&view);
        let used = [revisions::hash(&planned.update), revisions::hash(view.current)];
        actions.extend(revisions::clean_up(&set, &owned, &used));
        self.hands.apply(actions).await?;
        Ok(wait.map_or(Next::Done, Next::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str) -> Value {
        json!({"metadata": {"name": name}, "data": {"spec": {"template":
            {"metadata": {"labels": {"app": "db"}}, "spec": {"image": name}}}}})
    }

    /// `NUMBER[!][-][+old]`: not ready, leaving, of the old template.
    fn pod(text: &str) -> Object {
        let number: String = text.chars().take_while(char::is_ascii_digit).collect();
        let ready = if text.contains('!') { "False" } else { "True" };
        let hash = if text.contains("old") { "old" } else { "new" };
        let mut pod = json!({
            "metadata": {"name": format!("db-{number}"), "labels": {HASH_LABEL: hash}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        });
        if text.contains('-') {
            pod["metadata"]["deletionTimestamp"] = "now".into();
        }
        if text.contains('x') {
            pod["status"]["phase"] = "Failed".into();
        }
        Arc::new(pod)
    }

    fn check(spec: Value, pods: &[&str], expected: &[&str]) {
        let mut set = json!({"metadata": {"name": "db", "uid": "u", "namespace": "default"},
            "spec": {"replicas": 3, "serviceName": "db", "template": {}}});
        for (key, value) in spec.as_object().unwrap() {
            set["spec"][key] = value.clone();
        }
        let pods: Vec<Object> = pods.iter().map(|text| pod(text)).collect();
        let view = View {
            set: &Arc::new(set),
            pods: &pods,
            update: &revision("new"),
            current: &revision("old"),
            now_unix: 100,
        };
        let found: Vec<String> = plan(&view)
            .iter()
            .map(|action| match action {
                Action::Create(_, pod, _) => {
                    assert_eq!(pod["spec"]["hostname"], pod["metadata"]["name"]);
                    let image = object::text(pod, "/spec/image");
                    format!("+{}{}", object::name(pod), if image == "old" { " old" } else { "" })
                }
                Action::Delete(_, pod, _, _) => format!("-{}", object::name(pod)),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, expected, "{spec} {:?}", pods.len());
    }

    #[test]
    fn one_after_the_other() {
        check(json!({}), &[], &["+db-0"]);
        check(json!({}), &["0!"], &[]);
        check(json!({}), &["0"], &["+db-1"]);
        check(json!({}), &["0", "2"], &["+db-1"]);
        check(json!({}), &["0", "1-", "2"], &[]);
        check(json!({}), &["0", "1x", "2"], &["-db-1"]);
        check(json!({}), &["0", "1", "2", "3", "4"], &["-db-4"]);
        check(json!({}), &["0", "1", "2", "3", "4-"], &[]);
        check(json!({"ordinals": {"start": 5}}), &["5"], &["+db-6"]);
        let parallel = json!({"podManagementPolicy": "Parallel"});
        check(parallel.clone(), &["1!"], &["+db-0", "+db-2"]);
        check(parallel, &["0!", "1", "2", "3", "4"], &["-db-4", "-db-3"]);
    }

    #[test]
    fn a_new_template_comes_from_the_top() {
        check(json!({}), &["0 old", "1 old", "2 old"], &["-db-2"]);
        check(json!({}), &["0 old", "1 old", "2 old -"], &[]);
        check(json!({}), &["0 old", "1 old", "2!"], &[]);
        check(json!({}), &["0 old", "1 old", "2"], &["-db-1"]);
        let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}});
        check(partition.clone(), &["0 old", "1 old", "2"], &[]);
        check(partition, &["0 old"], &["+db-1 old"]);
        check(json!({"updateStrategy": {"type": "OnDelete"}}), &["0 old", "1 old", "2 old"], &[]);
    }

    #[test]
    fn the_rollout_is_done_when_all_are_new_and_ready() {
        let set: Object = Arc::new(json!({"metadata": {"name": "db"}, "spec": {"replicas": 2}}));
        let (old, new) = (revision("old"), revision("new"));
        for (pods, expected) in [
            (["0 old", "1"], ("old", json!(1), json!(1))),
            (["0!", "1"], ("old", json!(null), json!(2))),
            (["0", "1"], ("new", json!(2), json!(2))),
        ] {
            let pods: Vec<Object> = pods.iter().map(|text| pod(text)).collect();
            let view = View { set: &set, pods: &pods, update: &new, current: &old, now_unix: 100 };
            let status = status(&view);
            let count = |field: &str| status.get(field).cloned().unwrap_or_default();
            let found = (
                object::text(&status, "/currentRevision"),
                count("currentReplicas"),
                count("updatedReplicas"),
            );
            assert_eq!((found.0, &found.1, &found.2), (expected.0, &expected.1, &expected.2));
        }
    }
}
