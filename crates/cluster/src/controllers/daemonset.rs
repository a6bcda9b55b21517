//! DaemonSets: one Pod on every Node that is run here and fits
//! (kubernetes `pkg/controller/daemon`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use portolan_apiserver::{Status, kinds};
use serde_json::{Value, json};

use super::{
    action::{Action, Hands, Note},
    claim::{Claim, claim},
    deployment::resolve,
    endpointslice::pods::{is_ended, is_ready},
    podset,
    replicaset::{queue_owners, selector},
    revisions::{self, HASH_LABEL},
    runner::{Next, Worker},
    scheduler,
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

/// Taints under which the Pods of DaemonSets go on (`AddOrUpdateDaemonPodTolerations`).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// All that a step follows from.
pub(crate) struct View<'a> {
    pub(crate) set: &'a Object,
    pub(crate) pods: &'a [Object],
    pub(crate) nodes: &'a [Object],
    /// The revision of the present template.
    pub(crate) update: &'a Value,
    pub(crate) now_unix: u64,
}

impl View<'_> {
    fn template(&self) -> Value {
        revisions::template(self.update)
    }

    /// The Nodes that should have a Pod.
    fn wanted(&self) -> Vec<&str> {
        let pod = json!({"spec": with_tolerations(&self.template())});
        let fits = self.nodes.iter().filter(|node| scheduler::may_ever_run(&pod, node));
        fits.map(|node| object::name(node)).collect()
    }

    fn is_updated(&self, pod: &Value) -> bool {
        object::label(pod, HASH_LABEL) == Some(revisions::hash(self.update))
    }

    fn is_available(&self, pod: &Value) -> bool {
        let min_ready = object::int(self.set, "/spec/minReadySeconds").unwrap_or(0);
        podset::available_in(pod, min_ready, self.now_unix) == Some(0)
    }

    /// The Pods of each Node, oldest first.
    fn by_node(&self) -> BTreeMap<&str, Vec<&Object>> {
        let mut by_node: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
        for pod in self.pods {
            by_node.entry(node_of(pod)).or_default().push(pod);
        }
        for pods in by_node.values_mut() {
            pods.sort_by_key(|pod| {
                let created = object::text(pod, "/metadata/creationTimestamp");
                (object::text(pod, "/spec/nodeName").is_empty(), created, object::name(pod))
            });
        }
        by_node
    }
}

/// The Node that a Pod runs on or is meant for.
fn node_of(pod: &Value) -> &str {
    let bound = object::text(pod, "/spec/nodeName");
    if !bound.is_empty() {
        return bound;
    }
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                 /nodeSelectorTerms/0/matchFields/0/values/0";
    object::text(pod, terms)
}

fn with_tolerations(template: &Value) -> Value {
    let mut spec = object::at(template, "/spec").cloned().unwrap_or_else(|| json!({}));
    let mut tolerations = object::list(&spec, "/tolerations").to_vec();
    tolerations.extend(
        TOLERATED
            .iter()
            .map(|(key, effect)| json!({"key": key, "operator": "Exists", "effect": effect})),
    );
    spec["tolerations"] = tolerations.into();
    spec
}

/// The next step.
pub(crate) fn plan(view: &View<'_>) -> Vec<Action> {
    if object::is_deleting(view.set) {
        return Vec::new();
    }
    let wanted = view.wanted();
    let by_node = view.by_node();
    let (mut create, mut remove) = (Vec::new(), Vec::new());
    for node in &wanted {
        let there = by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        let live: Vec<&&Object> = there.iter().filter(|pod| !is_ended(pod)).collect();
        remove.extend(there.iter().filter(|pod| is_ended(pod)).copied());
        remove.extend(live.iter().skip(1).map(|pod| **pod));
        // One that leaves still has the Node's place.
        if there.is_empty() {
            create.push(self::create(view, node));
        }
    }
    let misplaced = by_node.iter().filter(|(node, _)| !wanted.contains(node));
    remove.extend(misplaced.flat_map(|(_, pods)| pods.iter().copied()));
    if object::text(view.set, "/spec/updateStrategy/type") != "OnDelete" {
        remove.extend(outdated(view, &wanted, &by_node));
    }
    let mut actions: Vec<Action> = Vec::new();
    for pod in remove {
        let known =
            actions.iter().any(|a| matches!(a, Action::Delete(_, p, _, _) if Arc::ptr_eq(p, pod)));
        if !known && !object::is_deleting(pod) {
            actions.push(delete(view, pod));
        }
    }
    actions.extend(create);
    actions
}

/// The Pods of old templates that may go now: those that do not serve anyway,
/// and as many others as may be missing.
fn outdated<'p>(
    view: &View<'_>,
    wanted: &[&str],
    by_node: &BTreeMap<&str, Vec<&'p Object>>,
) -> Vec<&'p Object> {
    let total = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    let field = object::at(view.set, "/spec/updateStrategy/rollingUpdate/maxUnavailable");
    let allowed = field.map_or(1, |field| resolve(Some(field), total, true)).max(1);
    let mut missing = 0;
    let (mut useless, mut serving) = (Vec::new(), Vec::new());
    for node in wanted {
        let live = by_node.get(node).into_iter().flatten().find(|pod| !is_ended(pod));
        match live {
            Some(pod) if view.is_available(pod) && !object::is_deleting(pod) => {
                if !view.is_updated(pod) {
                    serving.push(*pod);
                }
            }
            Some(pod) => {
                missing += 1;
                if !view.is_updated(pod) {
                    useless.push(*pod);
                }
            }
            None => missing += 1,
        }
    }
    let room = usize::try_from((allowed - missing).max(0)).unwrap_or(0);
    useless.extend(serving.into_iter().take(room));
    useless
}

fn create(view: &View<'_>, node: &str) -> Action {
    let template = view.template();
    let mut pod = podset::from_template(view.set, &kinds::DAEMON_SETS, &template);
    let labels = object::map_mut(&mut pod["metadata"], "labels");
    labels.insert(HASH_LABEL.into(), revisions::hash(view.update).into());
    pod["spec"] = with_tolerations(&template);
    // Replaces node affinity of the template: it was judged when the Node was chosen.
    let affinity = object::map_mut(&mut pod["spec"], "affinity");
    affinity.insert(
        "nodeAffinity".into(),
        json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}),
    );
    let note = Note {
        about: view.set.clone(),
        reason: "SuccessfulCreate",
        message: "Created pod: {name}".into(),
        failure: Some(("FailedCreate", "Error creating: ")),
    };
    Action::Create(&kinds::PODS, pod, Some(note))
}

fn delete(view: &View<'_>, pod: &Object) -> Action {
    let note = Note {
        about: view.set.clone(),
        reason: "SuccessfulDelete",
        message: "Deleted pod: {name}".into(),
        failure: Some(("FailedDelete", "Error deleting: ")),
    };
    Action::Delete(&kinds::PODS, pod.clone(), None, Some(note))
}

/// The status that follows from the Pods and the Nodes.
pub(crate) fn status(view: &View<'_>) -> Value {
    let wanted = view.wanted();
    let by_node = view.by_node();
    let live = |node: &&str| -> Option<&Object> {
        by_node.get(*node)?.iter().copied().find(|pod| !is_ended(pod) && !object::is_deleting(pod))
    };
    let there: Vec<&Object> = wanted.iter().filter_map(live).collect();
    let count = |test: &dyn Fn(&Value) -> bool| there.iter().filter(|pod| test(pod)).count();
    let available = count(&|pod| view.is_available(pod));
    let mut status = json!({
        "currentNumberScheduled": there.len(),
        "numberMisscheduled":
            by_node.iter().filter(|(node, _)| !wanted.contains(node) && !node.is_empty()).count(),
        "desiredNumberScheduled": wanted.len(),
        "numberReady": count(&|pod| is_ready(pod)),
        "observedGeneration": object::int(view.set, "/metadata/generation").unwrap_or(0),
    });
    // Zero and absent are one, as upstream writes them.
    for (field, count) in [
        ("updatedNumberScheduled", count(&|pod| view.is_updated(pod))),
        ("numberAvailable", available),
        ("numberUnavailable", wanted.len() - available),
    ] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    status
}

/// Keeps the Pods of DaemonSets.
pub(crate) struct DaemonSets {
    hands: Hands,
    sets: Informer,
    pods: Informer,
    nodes: Informer,
    revisions: Informer,
}

impl DaemonSets {
    /// Sees to it that every change that matters puts its set into the queue.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let sets = informers.of(&kinds::DAEMON_SETS);
        let pods = informers.of(&kinds::PODS);
        let nodes = informers.of(&kinds::NODES);
        let revisions = informers.of(&kinds::CONTROLLER_REVISIONS);
        {
            let queue = queue.clone();
            sets.on_change(move |change| queue.add(change.key.clone()));
        }
        queue_owners(&pods, &sets, "DaemonSet", &queue);
        {
            let (sets, queue) = (sets.clone(), queue.clone());
            nodes.on_change(move |change| {
                if scheduler::what_counts(change.old) != scheduler::what_counts(change.new) {
                    for set in sets.cached_list(None) {
                        queue.add(ObjectKey::of(&set));
                    }
                }
            });
        }
        (DaemonSets { hands, sets, pods, nodes, revisions }, queue)
    }

    fn claim(&self, set: &Object) -> Result<Claim, Status> {
        let selector = selector(set)?;
        let namespace = object::namespace(set);
        let mut candidates = self.pods.controlled_by(namespace, object::uid(set));
        candidates.extend(self.pods.controlled_by(namespace, ""));
        Ok(claim(set, &kinds::DAEMON_SETS, &selector, &kinds::PODS, candidates))
    }
}

impl Worker for DaemonSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::Done) };
        let claim = self.claim(&set)?;
        if !claim.actions.is_empty() {
            self.hands.apply(claim.actions).await?;
            return Ok(Next::After(Duration::ZERO));
        }
        let owned = self.revisions.controlled_by(&key.namespace, object::uid(&set));
        let planned = revisions::plan(&set, &kinds::DAEMON_SETS, &owned);
        self.hands.apply(planned.actions).await?;
        let nodes = self.nodes.list(None);
        let view = View {
            set: &set,
            pods: &claim.owned,
            nodes: &nodes,
            update: &planned.update,
            now_unix: self.hands.now_unix(),
        };
        let status = status(&view);
        if !object::same(&status, object::at(&set, "/status").unwrap_or(&Value::Null)) {
            let mut new = Value::clone(&set);
            new["status"] = status;
            self.hands.apply(vec![Action::UpdateStatus(&kinds::DAEMON_SETS, new)]).await?;
        }
        let mut actions = plan(&view);
        let mut used = vec![revisions::hash(&planned.update)];
        used.extend(claim.owned.iter().filter_map(|pod| object::label(pod, HASH_LABEL)));
        actions.extend(revisions::clean_up(&set, &owned, &used));
        self.hands.apply(actions).await?;
        let min_ready = object::int(&set, "/spec/minReadySeconds").unwrap_or(0);
        let waits = view.pods.iter();
        let waits = waits.filter_map(|p| podset::available_in(p, min_ready, view.now_unix));
        let wait = waits.filter(|wait| *wait > 0).min().map(Duration::from_secs);
        Ok(wait.map_or(Next::Done, Next::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NODE[!][-][ old]`: not ready, leaving, of the old template.
    fn pod(text: &str) -> Object {
        let node: String = text.chars().take_while(char::is_ascii_lowercase).collect();
        let ready = if text.contains('!') { "False" } else { "True" };
        let hash = if text.contains("old") { "old" } else { "new" };
        let mut pod = json!({
            "metadata": {"name": format!("p-{text}"), "labels": {HASH_LABEL: hash}},
            "spec": {"nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        });
        if text.contains('-') {
            pod["metadata"]["deletionTimestamp"] = "now".into();
        }
        Arc::new(pod)
    }

    fn nodes() -> Vec<Object> {
        let node = |name: &str, runner: bool| -> Object {
            let labels = if runner { json!({scheduler::RUNNER_LABEL: "true"}) } else { json!({}) };
            Arc::new(json!({"metadata": {"name": name, "labels": labels}}))
        };
        vec![node("a", true), node("b", true), node("c", true), node("external", false)]
    }

    fn check(spec: Value, pods: &[&str], expected: &[&str]) {
        let set = Arc::new(json!({"metadata": {"name": "log", "uid": "u", "namespace": "default"},
            "spec": spec}));
        let update = json!({"metadata": {"name": "log-new", "labels": {HASH_LABEL: "new"}},
            "data": {"spec": {"template": {"spec": {"containers": []}}}}});
        let pods: Vec<Object> = pods.iter().map(|text| pod(text)).collect();
        let nodes = nodes();
        let view = View { set: &set, pods: &pods, nodes: &nodes, update: &update, now_unix: 100 };
        let mut found: Vec<String> = plan(&view)
            .iter()
            .map(|action| match action {
                Action::Create(_, pod, _) => format!("+{}", node_of(pod)),
                Action::Delete(_, pod, _, _) => format!("-{}", &object::name(pod)[2..]),
                other => panic!("{other:?}"),
            })
            .collect();
        found.sort();
        assert_eq!(found, expected, "{}", pods.len());
    }

    #[test]
    fn one_on_every_node_that_is_run() {
        check(json!({}), &[], &["+a", "+b", "+c"]);
        check(json!({}), &["a", "b!"], &["+c"]);
        check(json!({}), &["a", "b", "c-"], &[]);
        check(json!({}), &["a", "b", "c", "gone"], &["-gone"]);
    }

    #[test]
    fn a_new_template_comes_as_far_as_pods_may_be_missing() {
        check(json!({}), &["a old", "b old", "c old"], &["-a old"]);
        check(json!({}), &["a!", "b old", "c old"], &[]);
        check(json!({}), &["a", "b! old", "c old"], &["-b! old"]);
        let two = json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}});
        check(two, &["a old", "b old", "c old"], &["-a old", "-b old"]);
        let never = json!({"updateStrategy": {"type": "OnDelete"}});
        check(never, &["a old", "b old", "c old"], &[]);
    }
}
