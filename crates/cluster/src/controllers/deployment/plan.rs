//! The next step of a Deployment towards its template and its replicas.
//!
//! One plan takes one step: makes the new ReplicaSet, or moves Pods from old
//! ones to it within the fenceposts, or spreads a change of scale. The changes
//! it causes bring the Deployment back for the next step
//! (kubernetes `pkg/controller/deployment/{sync,rolling,recreate}.go`).

use std::time::Duration;

use portolan_apiserver::kinds;
use serde_json::{Value, json};

use super::{
    revision::{self, DESIRED_REPLICAS, HASH_LABEL, MAX_REPLICAS, REVISION},
    status,
    world::World,
};
use crate::{
    controllers::{action::Action, endpointslice::pods::is_ended},
    informer::Object,
    object,
};

/// All that a step follows from.
pub(crate) struct View<'a> {
    pub(crate) deployment: &'a Object,
    /// The ReplicaSets that it controls.
    pub(crate) sets: &'a [Object],
    /// The Pods of a ReplicaSet, by its uid; only asked for by `Recreate`.
    pub(crate) pods: &'a dyn Fn(&str) -> Vec<Object>,
    pub(crate) now_unix: u64,
}

/// The next step, and when to look again without anything having happened.
pub(crate) fn plan(view: &View<'_>) -> (Vec<Action>, Option<Duration>) {
    let mut world = World::new(view.deployment, view.sets, view.now_unix);
    let mut again = None;
    if object::is_deleting(view.deployment) {
        find_newest(&mut world);
        status::sync(&mut world);
    } else {
        status::note_pause(&mut world);
        if world.is_paused() || is_scaling(&world) {
            sync_scale(&mut world);
        } else {
            if world.is_rolling() {
                roll(&mut world);
            } else {
                recreate(&mut world, view.pods);
            }
            again = status::sync_rollout(&mut world);
        }
    }
    (world.into_actions(), again)
}

/// Whether the replicas were changed since the sets were scaled last.
fn is_scaling(world: &World) -> bool {
    world
        .sets
        .iter()
        .filter(|set| set.replicas() > 0)
        .filter_map(|set| set.noted(DESIRED_REPLICAS))
        .any(|desired| desired != world.replicas())
}

/// Finds the set with the Deployment's template and numbers it.
fn find_newest(world: &mut World) {
    let template = object::at(&world.deployment, "/spec/template").unwrap_or(&Value::Null);
    // The oldest match: there may be several if the template was defaulted anew.
    world.newest = world.sets.iter().position(|set| {
        let own = object::at(&set.object, "/spec/template").unwrap_or(&Value::Null);
        revision::same_template(template, own)
    });
    let Some(newest) = world.newest else { return };
    let number = next_revision(world);
    let World { deployment, sets, .. } = world;
    let set = &mut sets[newest];
    revision::annotate(deployment, set, number);
    let min_ready = object::int(deployment, "/spec/minReadySeconds").unwrap_or(0);
    if object::int(&set.object, "/spec/minReadySeconds").unwrap_or(0) != min_ready {
        set.object["spec"]["minReadySeconds"] = min_ready.into();
    }
    let name = set.name().to_owned();
    adopt_revision(world, newest);
    status::note_found(world, &name);
}

fn next_revision(world: &World) -> i64 {
    let old = world.old();
    old.into_iter().map(|i| revision::number(&world.sets[i].object)).max().unwrap_or(0) + 1
}

/// The Deployment is at the revision of its newest set.
fn adopt_revision(world: &mut World, newest: usize) {
    let number = object::annotation(&world.sets[newest].object, REVISION).map(str::to_owned);
    if let Some(number) = number {
        object::set_annotation(&mut world.deployment, REVISION, &number);
    }
}

/// Makes the set of the Deployment's template if there is none.
fn make_newest(world: &mut World) {
    find_newest(world);
    if world.newest.is_some() {
        return;
    }
    let number = next_revision(world);
    let collisions = object::int(&world.deployment, "/status/collisionCount");
    let mut object = new_set(&world.deployment, collisions);
    let name = object::name(&object).to_owned();
    object["spec"]["replicas"] = replicas_of_newest(world, 0).into();
    let newest = world.add_set(object);
    world.newest = Some(newest);
    let max = world.replicas() + world.max_surge();
    let desired = world.replicas();
    let World { deployment, sets, .. } = world;
    revision::annotate(deployment, &mut sets[newest], number);
    object::set_annotation(&mut sets[newest].object, DESIRED_REPLICAS, &desired.to_string());
    object::set_annotation(&mut sets[newest].object, MAX_REPLICAS, &max.to_string());
    adopt_revision(world, newest);
    status::note_created(world, &name);
}

fn new_set(deployment: &Value, collisions: Option<i64>) -> Value {
    let mut template = object::at(deployment, "/spec/template").cloned().unwrap_or_default();
    let hash = revision::hash(&template, collisions);
    if !template.is_object() {
        template = json!({});
    }
    object::map_mut(&mut template, "metadata").shift_remove("creationTimestamp");
    let metadata = &mut template["metadata"];
    object::map_mut(metadata, "labels").insert(HASH_LABEL.into(), hash.as_str().into());
    let mut selector = object::at(deployment, "/spec/selector").cloned().unwrap_or_default();
    object::map_mut(&mut selector, "matchLabels").insert(HASH_LABEL.into(), hash.as_str().into());
    json!({
        "apiVersion": kinds::REPLICA_SETS.api_version,
        "kind": kinds::REPLICA_SETS.kind,
        "metadata": {
            "name": format!("{}-{hash}", object::name(deployment)),
            "namespace": object::namespace(deployment),
            "labels": template["metadata"]["labels"],
            "ownerReferences": [object::controller_reference(
                deployment, kinds::DEPLOYMENTS.api_version, kinds::DEPLOYMENTS.kind)],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": object::int(deployment, "/spec/minReadySeconds").unwrap_or(0),
            "selector": selector,
            "template": template,
        },
    })
}

/// How many Pods the newest set may have now, which has `own` so far.
fn replicas_of_newest(world: &World, own: i64) -> i64 {
    let wanted = world.replicas();
    if !world.is_rolling() {
        return wanted;
    }
    let room = wanted + world.max_surge() - world.total(|set| set.replicas());
    if room <= 0 { own } else { own + room.min(wanted - own) }
}

fn roll(world: &mut World) {
    make_newest(world);
    let Some(newest) = world.newest else { return };
    let own = world.sets[newest].replicas();
    let wanted = world.replicas();
    let next = if own > wanted { wanted } else { replicas_of_newest(world, own) };
    if own != wanted && world.scale(newest, next) {
        return;
    }
    if shrink_old(world, newest) {
        return;
    }
    if status::is_complete(world) {
        clean_up(world);
    }
}

/// Takes Pods from old sets: first those that do not serve anyway, then as many
/// as the available ones allow.
fn shrink_old(world: &mut World, newest: usize) -> bool {
    let old = world.old();
    if world.sum(old.clone(), |set| set.replicas()) == 0 {
        return false;
    }
    let min_available = world.replicas() - world.max_unavailable();
    let newest_set = &world.sets[newest];
    let newest_unavailable = newest_set.replicas() - newest_set.available();
    let budget = world.total(|set| set.replicas()) - min_available - newest_unavailable;
    if budget <= 0 {
        return false;
    }
    let mut changed = false;
    let mut left = budget;
    for index in &old {
        let set = &world.sets[*index];
        let (replicas, available) = (set.replicas(), set.available());
        let step = (replicas - available).min(left);
        if replicas > 0 && step > 0 {
            left -= step;
            changed |= world.scale(*index, replicas - step);
        }
    }
    let mut surplus = world.total(|set| set.available()) - min_available;
    for index in &old {
        let replicas = world.sets[*index].replicas();
        let step = replicas.min(surplus);
        if replicas > 0 && step > 0 {
            surplus -= step;
            changed |= world.scale(*index, replicas - step);
        }
    }
    changed
}

fn recreate(world: &mut World, pods: &dyn Fn(&str) -> Vec<Object>) {
    find_newest(world);
    let old = world.old();
    let mut scaled = false;
    for index in &old {
        if world.sets[*index].replicas() > 0 {
            scaled |= world.scale(*index, 0);
        }
    }
    // A Pod that is leaving still holds what the new ones may need.
    let still_there = |index: &usize| {
        let set = &world.sets[*index];
        set.counted("replicas") > 0
            || pods(object::uid(&set.object)).iter().any(|pod| !is_ended(pod))
    };
    if scaled || old.iter().any(still_there) {
        return;
    }
    make_newest(world);
    if let Some(newest) = world.newest {
        world.scale(newest, world.replicas());
    }
    if status::is_complete(world) {
        clean_up(world);
    }
}

/// Removes old sets beyond the limit of history, lowest revision first.
fn clean_up(world: &mut World) {
    let limit = object::int(&world.deployment, "/spec/revisionHistoryLimit");
    let Some(limit) = limit.filter(|limit| *limit < i64::from(i32::MAX)) else { return };
    let limit = usize::try_from(limit).unwrap_or(0);
    let mut old: Vec<usize> = world.old();
    old.retain(|i| !object::is_deleting(&world.sets[*i].object));
    old.sort_by_key(|i| revision::number(&world.sets[*i].object));
    let extra = old.len().saturating_sub(limit);
    for index in old.into_iter().take(extra) {
        let set = &mut world.sets[index];
        let generation = object::int(&set.object, "/metadata/generation").unwrap_or(0);
        let is_idle = set.replicas() == 0
            && set.counted("replicas") == 0
            && generation <= set.counted("observedGeneration");
        set.removed = is_idle;
    }
}

/// Paused, or scaled in the middle of a rollout: no Pod changes its template now.
fn sync_scale(world: &mut World) {
    find_newest(world);
    spread(world);
    if world.is_paused() {
        clean_up(world);
    }
    status::sync(world);
}

/// Spreads the replicas over the sets there are.
fn spread(world: &mut World) {
    let active: Vec<usize> =
        (0..world.sets.len()).filter(|i| world.sets[*i].replicas() > 0).collect();
    let wanted = world.replicas();
    let only = match active.as_slice() {
        [] => world.newest.or_else(|| world.old().last().copied()),
        [only] => Some(*only),
        _ => None,
    };
    if let Some(only) = only {
        // Even if the number is right: the annotations say what it is right for.
        world.scale(only, wanted);
        return;
    }
    if active.is_empty() {
        return;
    }
    if world.newest.is_some_and(|newest| is_saturated(world, newest)) {
        for index in world.old() {
            if world.sets[index].replicas() > 0 {
                world.scale(index, 0);
            }
        }
    } else if world.is_rolling() {
        spread_in_proportion(world, active);
    }
}

fn is_saturated(world: &World, newest: usize) -> bool {
    let set = &world.sets[newest];
    let wanted = world.replicas();
    set.replicas() == wanted
        && set.noted(DESIRED_REPLICAS) == Some(wanted)
        && set.available() == wanted
}

/// Each set gets its share of what is to be added or taken away; what rounding
/// leaves goes to the largest.
fn spread_in_proportion(world: &mut World, mut active: Vec<usize>) {
    let wanted = world.replicas();
    let allowed = if wanted > 0 { wanted + world.max_surge() } else { 0 };
    let to_add = allowed - world.sum(active.clone(), |set| set.replicas());
    // Larger sets first; among equals the younger when growing, the older when shrinking.
    active.sort_by(|a, b| {
        let (a, b) = (&world.sets[*a], &world.sets[*b]);
        let by_age =
            if to_add > 0 { b.created().cmp(&a.created()) } else { a.created().cmp(&b.created()) };
        b.replicas().cmp(&a.replicas()).then(by_age)
    });
    let mut added = 0;
    let mut sizes: Vec<(usize, i64)> = Vec::new();
    for index in active {
        let share = share(world, index, to_add, added);
        added += share;
        sizes.push((index, world.sets[index].replicas() + share));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (index, size) in sizes {
        world.scale(index, size);
    }
}

fn share(world: &World, index: usize, to_add: i64, added: i64) -> i64 {
    let set = &world.sets[index];
    if set.replicas() == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let own = fraction(world, index);
    let left = to_add - added;
    if to_add > 0 { own.min(left) } else { own.max(left) }
}

fn fraction(world: &World, index: usize) -> i64 {
    let set = &world.sets[index];
    let replicas = set.replicas();
    if world.replicas() == 0 {
        return -replicas;
    }
    let max = world.replicas() + world.max_surge();
    let status = object::int(&world.deployment, "/status/replicas");
    let before = set.noted(MAX_REPLICAS).filter(|max| *max > 0).or(status).unwrap_or(0);
    if before == 0 {
        return 0;
    }
    // Rounded half away from zero, as upstream's float arithmetic does.
    (2 * replicas * max + before) / (2 * before) - replicas
}
