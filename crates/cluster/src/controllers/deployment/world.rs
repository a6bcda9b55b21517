//! A Deployment and its ReplicaSets as a plan works on them.
//!
//! A plan changes copies; what differs at the end becomes actions. So the rules
//! read as upstream's, which write as they go, and are pure all the same.

use portolan_apiserver::{
    kinds,
    registry::object::{parse_timestamp, timestamp},
};
use serde_json::Value;

use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS};
use crate::{
    controllers::action::{Action, Note},
    informer::Object,
    object,
};

/// One ReplicaSet.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// As it should be.
    pub(crate) object: Value,
    /// As it is; `None` for one to be made.
    before: Option<Object>,
    /// Whether it should go.
    pub(crate) removed: bool,
    /// What to tell about the change.
    message: Option<String>,
}

impl Set {
    pub(crate) fn new(object: Value) -> Set {
        Set { object, before: None, removed: false, message: None }
    }

    fn existing(before: &Object) -> Set {
        Set {
            object: Value::clone(before),
            before: Some(before.clone()),
            removed: false,
            message: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        object::name(&self.object)
    }

    /// The Pods that it should have.
    pub(crate) fn replicas(&self) -> i64 {
        object::int(&self.object, "/spec/replicas").unwrap_or(0)
    }

    /// A count of its status.
    pub(crate) fn counted(&self, field: &str) -> i64 {
        object::int(&self.object, &format!("/status/{field}")).unwrap_or(0)
    }

    pub(crate) fn available(&self) -> i64 {
        self.counted("availableReplicas")
    }

    pub(crate) fn created(&self) -> (u64, &str) {
        let text = object::text(&self.object, "/metadata/creationTimestamp");
        // One that is to be made is the youngest.
        let created = match self.before {
            Some(_) => parse_timestamp(text).unwrap_or(0),
            None => u64::MAX,
        };
        (created, self.name())
    }

    /// A number in an annotation.
    pub(crate) fn noted(&self, annotation: &str) -> Option<i64> {
        object::annotation(&self.object, annotation)?.parse().ok()
    }
}

/// Everything that a plan sees and changes.
pub(crate) struct World {
    /// The Deployment as it is.
    pub(crate) before: Object,
    /// Its `status` and annotations as they should be.
    pub(crate) deployment: Value,
    /// Its ReplicaSets, oldest first.
    pub(crate) sets: Vec<Set>,
    /// Index of the one with the Deployment's template, once known.
    pub(crate) newest: Option<usize>,
    pub(crate) now_unix: u64,
}

impl World {
    pub(crate) fn new(deployment: &Object, owned: &[Object], now_unix: u64) -> World {
        let mut sets: Vec<Set> = owned.iter().map(Set::existing).collect();
        sets.sort_by(|a, b| a.created().cmp(&b.created()));
        World {
            before: deployment.clone(),
            deployment: Value::clone(deployment),
            sets,
            newest: None,
            now_unix,
        }
    }

    pub(crate) fn now(&self) -> String {
        timestamp(self.now_unix)
    }

    pub(crate) fn replicas(&self) -> i64 {
        object::int(&self.deployment, "/spec/replicas").unwrap_or(1)
    }

    pub(crate) fn is_rolling(&self) -> bool {
        object::text(&self.deployment, "/spec/strategy/type") != "Recreate"
    }

    pub(crate) fn is_paused(&self) -> bool {
        object::flag(&self.deployment, "/spec/paused")
    }

    /// Pods above the replicas that a rolling update may have, and Pods below that may be missing.
    pub(crate) fn fenceposts(&self) -> (i64, i64) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let resolve = |field: &str, up: bool| {
            let value =
                object::at(&self.deployment, &format!("/spec/strategy/rollingUpdate/{field}"));
            resolve(value, self.replicas(), up)
        };
        match (resolve("maxSurge", true), resolve("maxUnavailable", false)) {
            // Both zero would never move.
            (0, 0) => (0, 1),
            fenceposts => fenceposts,
        }
    }

    pub(crate) fn max_surge(&self) -> i64 {
        self.fenceposts().0
    }

    pub(crate) fn max_unavailable(&self) -> i64 {
        let replicas = self.replicas();
        if !self.is_rolling() || replicas == 0 { 0 } else { self.fenceposts().1.min(replicas) }
    }

    /// Indices of the sets that are not the newest, oldest first.
    pub(crate) fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|i| Some(*i) != self.newest).collect()
    }

    /// Sum over all sets, or over some.
    pub(crate) fn sum(
        &self,
        of: impl IntoIterator<Item = usize>,
        count: impl Fn(&Set) -> i64,
    ) -> i64 {
        of.into_iter().map(|i| count(&self.sets[i])).sum()
    }

    /// Sum over all sets.
    pub(crate) fn total(&self, count: impl Fn(&Set) -> i64) -> i64 {
        self.sets.iter().map(count).sum()
    }

    /// Scales a set; tells whether that changed anything.
    pub(crate) fn scale(&mut self, index: usize, replicas: i64) -> bool {
        let desired = self.replicas().to_string();
        let max = (self.replicas() + self.max_surge()).to_string();
        let set = &mut self.sets[index];
        let before = set.replicas();
        let noted = object::set_annotation(&mut set.object, DESIRED_REPLICAS, &desired)
            | object::set_annotation(&mut set.object, MAX_REPLICAS, &max);
        if before == replicas {
            return noted;
        }
        let direction = if replicas > before { "up" } else { "down" };
        set.message = Some(format!(
            "Scaled {direction} replica set {} from {before} to {replicas}",
            set.name()
        ));
        set.object["spec"]["replicas"] = replicas.into();
        true
    }

    /// What must be written so that the world is as the plan left it.
    pub(crate) fn into_actions(self) -> Vec<Action> {
        let mut actions = Vec::new();
        let kind = &kinds::REPLICA_SETS;
        for set in self.sets {
            let note = set.message.map(|message| Note {
                about: self.before.clone(),
                reason: "ScalingReplicaSet",
                message,
                failure: None,
            });
            match set.before {
                None => actions.push(Action::Create(kind, set.object, note)),
                Some(before) if set.removed => {
                    actions.push(Action::Delete(kind, before, None, None));
                }
                Some(before) if *before != set.object => {
                    actions.push(Action::Update(kind, set.object, note));
                }
                Some(_) => {}
            }
        }
        if *self.before != self.deployment {
            actions.push(Action::UpdateStatus(&kinds::DEPLOYMENTS, self.deployment));
        }
        actions
    }

    /// Tells that a set was made with so many replicas.
    pub(crate) fn add_set(&mut self, object: Value) -> usize {
        let mut set = Set::new(object);
        if set.replicas() > 0 {
            set.message =
                Some(format!("Scaled up replica set {} from 0 to {}", set.name(), set.replicas()));
        }
        self.sets.push(set);
        self.sets.len() - 1
    }
}

/// A number, or a percentage of `total`.
pub(crate) fn resolve(value: Option<&Value>, total: i64, up: bool) -> i64 {
    match value {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(Value::String(text)) => {
            let Some(percent) = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) else {
                return text.parse().unwrap_or(0);
            };
            let product = percent.saturating_mul(total);
            if up { (product + 99) / 100 } else { product / 100 }
        }
        _ => 0,
    }
}
