//! Plans run to their end in a small world: every step is applied, and the
//! ReplicaSets answer as their controller would.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    plan::{View, plan},
    revision::REVISION,
};
use crate::{
    controllers::action::Action,
    informer::Object,
    object::{self, annotation},
};

/// A step more often than this is a loop.
const STEPS_MAX: usize = 200;

struct Sim {
    deployment: Value,
    sets: Vec<Value>,
    now: u64,
    events: Vec<String>,
    /// Whether new Pods become available.
    healthy: bool,
}

impl Sim {
    fn new(replicas: i64, strategy: Value) -> Sim {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "strategy": strategy, "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": "web"}},
                "template": template("v1"),
            },
        });
        Sim { deployment, sets: Vec::new(), now: 1000, events: Vec::new(), healthy: true }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.deployment["spec"]);
        let generation = object::int(&self.deployment, "/metadata/generation").unwrap() + 1;
        self.deployment["metadata"]["generation"] = generation.into();
    }

    fn image(&mut self, image: &str) {
        let image = image.to_owned();
        self.edit(move |spec| spec["template"] = template(&image));
    }

    /// One plan, applied; tells whether it did anything.
    fn step(&mut self) -> bool {
        let deployment: Object = Arc::new(self.deployment.clone());
        let sets: Vec<Object> = self.sets.iter().cloned().map(Arc::new).collect();
        let (actions, _) = plan(&View {
            deployment: &deployment,
            sets: &sets,
            pods: &|uid| {
                let set = sets.iter().find(|s| object::uid(s) == uid).unwrap();
                let count = object::int(set, "/status/replicas").unwrap_or(0);
                (0..count).map(|_| Arc::new(json!({"status": {"phase": "Running"}}))).collect()
            },
            now_unix: self.now,
        });
        let acted = !actions.is_empty();
        for action in actions {
            match action {
                Action::Create(_, mut set, note) => {
                    self.now += 1;
                    let at = portolan_apiserver::registry::object::timestamp(self.now);
                    set["metadata"]["creationTimestamp"] = at.into();
                    set["metadata"]["uid"] = format!("rs{}", self.now).into();
                    self.events.extend(note.map(|n| n.message));
                    self.sets.push(set);
                }
                Action::Update(_, new, note) => {
                    let name = object::name(&new).to_owned();
                    self.events.extend(note.map(|n| n.message));
                    *self.sets.iter_mut().find(|s| object::name(s) == name).unwrap() = new;
                }
                Action::UpdateStatus(_, new) => self.deployment = new,
                Action::Patch(..) | Action::PatchStatus(..) => panic!("no plan patches"),
                Action::Delete(_, old, _, _) => {
                    self.sets.retain(|s| object::name(s) != object::name(&old));
                }
            }
        }
        acted
    }

    /// The ReplicaSet controller and the kubelet: statuses follow specs.
    fn answer(&mut self) -> bool {
        let newest = annotation(&self.deployment, REVISION).map(str::to_owned);
        let mut changed = false;
        for set in &mut self.sets {
            let replicas = object::int(set, "/spec/replicas").unwrap();
            let sick = !self.healthy && annotation(set, REVISION) == newest.as_deref();
            let up = if sick { 0 } else { replicas };
            let status =
                json!({"replicas": replicas, "readyReplicas": up, "availableReplicas": up});
            changed |= set.get("status") != Some(&status);
            set["status"] = status;
        }
        changed
    }

    /// Until nothing happens any more; `check` sees every state on the way.
    fn run(&mut self, check: impl Fn(&Sim)) {
        for _ in 0..STEPS_MAX {
            let acted = self.step();
            check(self);
            if !self.answer() && !acted {
                return;
            }
        }
        panic!("no end in {STEPS_MAX} steps: {:?}", self.events);
    }

    fn sum(&self, pointer: &str) -> i64 {
        self.sets.iter().map(|s| object::int(s, pointer).unwrap_or(0)).sum()
    }

    /// Replicas by image.
    fn replicas(&self) -> Vec<(&str, i64)> {
        let image = |s| object::text(s, "/spec/template/spec/containers/0/image");
        self.sets.iter().map(|s| (image(s), object::int(s, "/spec/replicas").unwrap())).collect()
    }

    fn condition(&self, kind: &str) -> (&str, &str) {
        let condition = object::condition(&self.deployment, kind).unwrap_or(&Value::Null);
        (object::text(condition, "/status"), object::text(condition, "/reason"))
    }
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn rolls_within_the_fenceposts() {
    for (replicas, surge, unavailable, max, min) in [
        (10, json!("25%"), json!("25%"), 13, 8),
        (4, json!(1), json!(0), 5, 4),
        (4, json!(0), json!(1), 4, 3),
        (1, json!("25%"), json!("25%"), 2, 1),
        (3, json!("100%"), json!(0), 6, 3),
        (2, json!(0), json!(0), 2, 1), // Resolved to one unavailable.
        (0, json!(1), json!(1), 1, 0),
    ] {
        let mut sim = Sim::new(replicas, rolling(surge, unavailable));
        sim.run(|_| {});
        assert_eq!(sim.replicas(), [("v1", replicas)]);
        sim.image("v2");
        sim.run(|sim| {
            assert!(sim.sum("/spec/replicas") <= max, "{:?}", sim.replicas());
            // A Pod that the spec no longer wants is as good as gone.
            let up: i64 = (sim.sets.iter())
                .map(|s| {
                    let available = object::int(s, "/status/availableReplicas").unwrap_or(0);
                    available.min(object::int(s, "/spec/replicas").unwrap())
                })
                .sum();
            assert!(up >= min, "{up} of {min}: {:?}", sim.replicas());
        });
        assert_eq!(sim.replicas(), [("v1", 0), ("v2", replicas)]);
        let status = &sim.deployment["status"];
        assert_eq!(status["observedGeneration"], 2);
        assert_eq!(object::int(status, "/updatedReplicas").unwrap_or(0), replicas);
        assert_eq!(sim.condition("Available"), ("True", "MinimumReplicasAvailable"));
        assert_eq!(sim.condition("Progressing"), ("True", "NewReplicaSetAvailable"));
    }
}

#[test]
fn a_sick_template_stops_and_is_rolled_back() {
    let mut sim = Sim::new(4, rolling(json!(1), json!(1)));
    sim.run(|_| {});
    sim.healthy = false;
    sim.image("v2");
    sim.run(|_| {});
    assert_eq!(sim.replicas(), [("v1", 3), ("v2", 2)], "no more than may be missing");
    assert_eq!(sim.condition("Progressing"), ("True", "ReplicaSetUpdated"));
    sim.now += 700;
    sim.run(|_| {});
    assert_eq!(sim.condition("Progressing"), ("False", "ProgressDeadlineExceeded"));
    sim.healthy = true;
    sim.image("v1"); // What `kubectl rollout undo` does.
    sim.run(|_| {});
    assert_eq!(sim.replicas(), [("v1", 4), ("v2", 0)]);
    assert_eq!(annotation(&sim.deployment, REVISION), Some("3"));
    assert_eq!(annotation(&sim.sets[0], REVISION), Some("3"));
    assert_eq!(annotation(&sim.sets[0], "deployment.kubernetes.io/revision-history"), Some("1"));
    assert_eq!(sim.condition("Progressing"), ("True", "NewReplicaSetAvailable"));
}

#[test]
fn recreates_only_when_the_old_pods_are_gone() {
    let mut sim = Sim::new(3, json!({"type": "Recreate"}));
    sim.run(|_| {});
    sim.image("v2");
    sim.run(|sim| {
        if let [old, new] = sim.sets.as_slice() {
            let left = object::int(old, "/status/replicas").unwrap_or(0);
            assert!(left == 0 || object::int(new, "/spec/replicas") == Some(0));
        }
    });
    assert_eq!(sim.replicas(), [("v1", 0), ("v2", 3)]);
}

#[test]
fn history_is_limited() {
    let mut sim = Sim::new(1, rolling(json!(1), json!(0)));
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        sim.image(image);
        sim.run(|_| {});
    }
    assert_eq!(sim.replicas(), [("v3", 0), ("v4", 0), ("v5", 1)]);
    assert_eq!(annotation(&sim.deployment, REVISION), Some("5"));
}

#[test]
fn a_pause_holds_the_template_but_not_the_scale() {
    let mut sim = Sim::new(2, rolling(json!(1), json!(0)));
    sim.run(|_| {});
    sim.edit(|spec| spec["paused"] = true.into());
    sim.image("v2");
    sim.edit(|spec| spec["replicas"] = 5.into());
    sim.run(|_| {});
    assert_eq!(sim.replicas(), [("v1", 5)]);
    sim.edit(|spec| spec["paused"] = false.into());
    sim.run(|_| {});
    assert_eq!(sim.replicas(), [("v1", 0), ("v2", 5)]);
    assert_eq!(sim.condition("Progressing"), ("True", "NewReplicaSetAvailable"));
}

/// Upstream's example of proportional scaling: 10 replicas with a surge of 3
/// and 2 unavailable, stopped at 8 old and 5 new, scaled to 15.
#[test]
fn a_change_of_scale_is_spread_in_proportion() {
    for (replicas, expected) in [(15, [11, 7]), (5, [5, 3]), (0, [0, 0])] {
        let mut sim = Sim::new(10, rolling(json!(3), json!(2)));
        sim.run(|_| {});
        sim.healthy = false;
        sim.image("v2");
        sim.run(|_| {});
        assert_eq!(sim.replicas(), [("v1", 8), ("v2", 5)]);
        sim.edit(|spec| spec["replicas"] = replicas.into());
        sim.step();
        assert_eq!(sim.replicas().iter().map(|r| r.1).collect::<Vec<_>>(), expected);
        sim.healthy = true;
        sim.run(|_| {});
        assert_eq!(sim.replicas(), [("v1", 0), ("v2", replicas)]);
    }
}

#[test]
fn steps_are_told() {
    let mut sim = Sim::new(2, rolling(json!(1), json!(0)));
    sim.run(|_| {});
    let name = object::name(&sim.sets[0]).to_owned();
    assert_eq!(sim.events, [format!("Scaled up replica set {name} from 0 to 2")]);
    sim.edit(|spec| spec["replicas"] = 1.into());
    sim.run(|_| {});
    assert_eq!(sim.events[1], format!("Scaled down replica set {name} from 2 to 1"));
}

#[test]
fn a_set_that_cannot_be_made_is_told_once() {
    let sim = Sim::new(1, rolling(json!(1), json!(0)));
    let deployment: Object = Arc::new(sim.deployment);
    let told = super::status::with_failure(&deployment, "no", 1000).unwrap();
    let condition = object::condition(&told, "Progressing").unwrap();
    assert_eq!(condition["reason"], "ReplicaSetCreateError");
    assert_eq!(condition["message"], "Failed to create new replica set: no");
    assert_eq!(super::status::with_failure(&Arc::new(told), "no", 1001), None);
}
