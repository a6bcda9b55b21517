//! What a Deployment says about itself: counts, and the conditions `Available`
//! and `Progressing` by which `kubectl rollout status` tells done from stuck
//! (kubernetes `pkg/controller/deployment/progress.go`).

use std::time::Duration;

use portolan_apiserver::registry::object::parse_timestamp;
use serde_json::{Value, json};

use super::world::World;
use crate::{
    informer::Object,
    object::{self, same},
};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// Seconds after which a lack of progress is reported; `None` for never.
fn deadline(world: &World) -> Option<u64> {
    let seconds = object::int(&world.deployment, "/spec/progressDeadlineSeconds")?;
    u64::try_from(seconds).ok().filter(|seconds| *seconds < i32::MAX as u64)
}

fn condition(world: &World, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let now = world.now();
    json!({
        "type": kind,
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    })
}

/// Puts a condition in, unless one of the same status and reason is there;
/// `force` renews that too, and keeps only the time of the transition.
fn set(deployment: &mut Value, mut new: Value, force: bool) {
    let kind = object::text(&new, "/type").to_owned();
    if let Some(old) = object::condition(deployment, &kind) {
        let same_status = old["status"] == new["status"];
        if same_status && old["reason"] == new["reason"] && !force {
            return;
        }
        if same_status {
            new["lastTransitionTime"] = old["lastTransitionTime"].clone();
        }
    }
    remove(deployment, &kind);
    let conditions = &mut object::map_mut(deployment, "status")["conditions"];
    match conditions.as_array_mut() {
        Some(list) => list.push(new),
        None => *conditions = json!([new]),
    }
}

fn remove(deployment: &mut Value, kind: &str) {
    let status = object::map_mut(deployment, "status");
    let conditions = status.entry("conditions").or_insert(Value::Null);
    match conditions.as_array_mut() {
        Some(list) => list.retain(|condition| object::text(condition, "/type") != kind),
        None => *conditions = json!([]),
    }
}

/// Says that a rollout rests or goes on, so that the deadline does not count the pause.
pub(super) fn note_pause(world: &mut World) {
    if deadline(world).is_none() {
        return;
    }
    let reason =
        object::condition(&world.deployment, PROGRESSING).map(|c| object::text(c, "/reason"));
    if reason == Some(TIMED_OUT) {
        return;
    }
    let (reason, message) = match (world.is_paused(), reason == Some(PAUSED)) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let new = condition(world, PROGRESSING, "Unknown", reason, message);
    set(&mut world.deployment, new, false);
}

/// Says that the set for the template was there already.
pub(super) fn note_found(world: &mut World, name: &str) {
    if deadline(world).is_some() && object::condition(&world.deployment, PROGRESSING).is_none() {
        let message = format!("Found new replica set {name:?}");
        let new = condition(world, PROGRESSING, "True", "FoundNewReplicaSet", &message);
        set(&mut world.deployment, new, false);
    }
}

/// Says that the set for the template was made.
pub(super) fn note_created(world: &mut World, name: &str) {
    if deadline(world).is_some() {
        let message = format!("Created new replica set {name:?}");
        let new = condition(world, PROGRESSING, "True", "NewReplicaSetCreated", &message);
        set(&mut world.deployment, new, false);
    }
}

/// The Deployment, saying that the set for the template cannot be made; `None`
/// when it says so already.
pub(super) fn with_failure(deployment: &Object, failure: &str, now_unix: u64) -> Option<Value> {
    let mut world = World::new(deployment, &[], now_unix);
    let message = format!("Failed to create new replica set: {failure}");
    let new = condition(&world, PROGRESSING, "False", "ReplicaSetCreateError", &message);
    set(&mut world.deployment, new, false);
    (world.deployment != **deployment).then_some(world.deployment)
}

/// The counts, and whether enough Pods are available.
pub(super) fn sync(world: &mut World) {
    let available = world.total(|set| set.available());
    let total = world.total(|set| set.counted("replicas"));
    let updated = world.newest.map_or(0, |newest| world.sets[newest].counted("replicas"));
    let counts = [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", world.total(|set| set.counted("readyReplicas"))),
        ("availableReplicas", available),
        ("unavailableReplicas", (total - available).max(0)),
    ];
    let generation = object::int(&world.deployment, "/metadata/generation").unwrap_or(0);
    let status = object::map_mut(&mut world.deployment, "status");
    status.insert("observedGeneration".into(), generation.into());
    for (field, count) in counts {
        // Zero and absent are one, as upstream writes them.
        if count == 0 {
            status.shift_remove(field);
        } else {
            status.insert(field.into(), count.into());
        }
    }
    let new = if available >= world.replicas() - world.max_unavailable() {
        let message = "Deployment has minimum availability.";
        condition(world, "Available", "True", "MinimumReplicasAvailable", message)
    } else {
        let message = "Deployment does not have minimum availability.";
        condition(world, "Available", "False", "MinimumReplicasUnavailable", message)
    };
    set(&mut world.deployment, new, false);
}

fn count(deployment: &Value, field: &str) -> i64 {
    object::int(deployment, &format!("/status/{field}")).unwrap_or(0)
}

fn has_all(deployment: &Value, replicas: i64) -> bool {
    ["updatedReplicas", "replicas", "availableReplicas"]
        .iter()
        .all(|field| count(deployment, field) == replicas)
}

/// Whether the Deployment as last reported is rolled out.
pub(super) fn is_complete(world: &World) -> bool {
    let generation = object::int(&world.deployment, "/metadata/generation").unwrap_or(0);
    has_all(&world.before, world.replicas())
        && count(&world.before, "observedGeneration") >= generation
}

/// Whether the new counts are ahead of the old ones.
fn has_progressed(world: &World) -> bool {
    let (old, new) = (&*world.before, &world.deployment);
    let outdated = |d: &Value| count(d, "replicas") - count(d, "updatedReplicas");
    let grew = |field: &str| count(new, field) > count(old, field);
    grew("updatedReplicas")
        || grew("readyReplicas")
        || grew("availableReplicas")
        || outdated(new) < outdated(old)
}

/// Counts and conditions in the course of a rollout; tells when the deadline
/// has to be looked at.
pub(super) fn sync_rollout(world: &mut World) -> Option<Duration> {
    sync(world);
    let name = match world.newest {
        Some(newest) => format!("ReplicaSet {:?}", world.sets[newest].name()),
        None => format!("Deployment {:?}", object::name(&world.deployment)),
    };
    match deadline(world) {
        None => remove(&mut world.deployment, PROGRESSING),
        Some(seconds) => note_progress(world, &name, seconds),
    }
    let failure = world
        .sets
        .iter()
        .rev()
        .find_map(|set| object::condition(&set.object, "ReplicaFailure").cloned());
    match failure {
        Some(failure) => {
            let (reason, message) =
                (object::text(&failure, "/reason"), object::text(&failure, "/message"));
            let new = condition(world, "ReplicaFailure", "True", reason, message);
            set(&mut world.deployment, new, false);
        }
        None => remove(&mut world.deployment, "ReplicaFailure"),
    }
    // Nothing new: only the deadline can change something without an event.
    let unchanged = same(&world.before["status"], &world.deployment["status"]);
    if unchanged {
        world.deployment["status"] = world.before["status"].clone();
    }
    until_deadline(world)
}

fn note_progress(world: &mut World, name: &str, deadline: u64) {
    let current = object::condition(&world.deployment, PROGRESSING).cloned();
    let reason = current.as_ref().map(|c| object::text(c, "/reason").to_owned());
    let settled = count(&world.deployment, "replicas")
        == count(&world.deployment, "updatedReplicas")
        && reason.as_deref() == Some(AVAILABLE);
    if settled {
        return;
    }
    if has_all(&world.deployment, world.replicas()) {
        let message = format!("{name} has successfully progressed.");
        let new = condition(world, PROGRESSING, "True", AVAILABLE, &message);
        set(&mut world.deployment, new, false);
    } else if has_progressed(world) {
        let message = format!("{name} is progressing.");
        let new = condition(world, PROGRESSING, "True", "ReplicaSetUpdated", &message);
        set(&mut world.deployment, new, true);
    } else if is_timed_out(world, current.as_ref(), deadline) {
        let message = format!("{name} has timed out progressing.");
        let new = condition(world, PROGRESSING, "False", TIMED_OUT, &message);
        set(&mut world.deployment, new, false);
    }
}

fn last_update(condition: &Value) -> u64 {
    parse_timestamp(object::text(condition, "/lastUpdateTime")).unwrap_or(0)
}

fn is_timed_out(world: &World, current: Option<&Value>, deadline: u64) -> bool {
    let Some(current) = current else { return false };
    match object::text(current, "/reason") {
        AVAILABLE => false,
        TIMED_OUT => true,
        _ => world.now_unix > last_update(current) + deadline,
    }
}

fn until_deadline(world: &World) -> Option<Duration> {
    let deadline = deadline(world)?;
    let current = object::condition(&world.deployment, PROGRESSING)?;
    if matches!(object::text(current, "/reason"), AVAILABLE | TIMED_OUT | PAUSED) {
        return None;
    }
    // One second later than the deadline, because times are in whole seconds.
    let left = (last_update(current) + deadline).saturating_sub(world.now_unix) + 1;
    Some(Duration::from_secs(left))
}
