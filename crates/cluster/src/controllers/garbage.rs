//! The garbage collector: what an object owns goes when it goes.
//!
//! ```text
//!  every kind ─▶ index: owner's uid -> dependents ─▶ queue of objects ─▶ verdict -> act
//! ```
//!
//! An object is looked at when it comes with owners, when an owner goes, and
//! when it is leaving with the finalizer `orphan` or `foregroundDeletion`.
//! Owners are looked up by name and compared by uid, in the store as it is at
//! that moment (kubernetes `pkg/controller/garbagecollector`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use portolan_apiserver::{Kind, Status, kinds, registry::Propagation};
use serde_json::{Value, json};

use super::{
    action::{Action, Hands},
    runner::{Next, Worker},
};
use crate::{
    informer::{Change, Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Item {
    resource: &'static str,
    key: ObjectKey,
}

/// What is known about one owner of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It is there, or cannot be judged.
    Solid,
    /// It is there, and goes once its dependents have gone.
    Waiting,
    /// It is not there.
    Gone,
}

/// What becomes of an object with owners.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Without these owners (by uid).
    Disown(Vec<String>),
    Delete(Propagation),
}

/// The rule, for an object that is not leaving yet.
fn judge(object: &Value, owners: &[(String, Owner)], has_dependents: bool) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let all = |wanted: Owner| owners.iter().all(|(_, owner)| *owner == wanted);
    if owners.iter().any(|(_, owner)| *owner == Owner::Solid) {
        if all(Owner::Solid) {
            return Verdict::Keep;
        }
        let lost = owners.iter().filter(|(_, owner)| *owner != Owner::Solid);
        return Verdict::Disown(lost.map(|(uid, _)| uid.clone()).collect());
    }
    if has_dependents && owners.iter().any(|(_, owner)| *owner == Owner::Waiting) {
        return Verdict::Delete(Propagation::Foreground);
    }
    // What was asked for when it was made stays true.
    Verdict::Delete(if object::has_finalizer(object, ORPHAN) {
        Propagation::Orphan
    } else if object::has_finalizer(object, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    object::list(object, "/metadata/ownerReferences")
        .iter()
        .map(|owner| object::text(owner, "/uid"))
}

fn without_owners(kind: &'static Kind, object: Object, uids: &[String]) -> Action {
    let mut owners = object::list(&object, "/metadata/ownerReferences").to_vec();
    owners.retain(|owner| uids.iter().all(|uid| uid != object::text(owner, "/uid")));
    Action::Patch(kind, object, json!({"metadata": {"ownerReferences": owners}}))
}

fn without_finalizer(kind: &'static Kind, object: &Object, finalizer: &str) -> Action {
    let mut finalizers = object::list(object, "/metadata/finalizers").to_vec();
    finalizers.retain(|f| f.as_str() != Some(finalizer));
    Action::Patch(kind, object.clone(), json!({"metadata": {"finalizers": finalizers}}))
}

/// Dependents by the uid of their owner.
type Index = Arc<Mutex<HashMap<String, BTreeSet<Item>>>>;

fn lock(index: &Index) -> MutexGuard<'_, HashMap<String, BTreeSet<Item>>> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what nobody owns any more.
pub(crate) struct Garbage {
    hands: Hands,
    informers: HashMap<&'static str, Informer>,
    index: Index,
    queue: Arc<Queue<Item>>,
}

impl Garbage {
    /// Looks at every kind but Events, which own nothing and are owned by nothing.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<Item>>) {
        let queue: Arc<Queue<Item>> = Arc::default();
        let index = Index::default();
        let kinds = kinds::ALL.iter().copied().filter(|kind| **kind != kinds::EVENTS);
        let informers: HashMap<_, _> =
            kinds.map(|kind| (kind.resource, informers.of(kind))).collect();
        for (resource, informer) in &informers {
            let (index, queue) = (index.clone(), queue.clone());
            let resource: &'static str = resource;
            informer.on_change(move |change| note(resource, change, &index, &queue));
        }
        let garbage = Garbage { hands, informers, index, queue: queue.clone() };
        (garbage, queue)
    }

    fn find(&self, item: &Item) -> Option<Object> {
        self.informers.get(item.resource)?.get(&item.key.namespace, &item.key.name)
    }

    fn dependents(&self, uid: &str) -> Vec<(Item, Object)> {
        let items: Vec<Item> = lock(&self.index).get(uid).into_iter().flatten().cloned().collect();
        let found = items.into_iter().filter_map(|item| {
            let object = self.find(&item)?;
            let is_owned = owner_uids(&object).any(|owner| owner == uid);
            is_owned.then_some((item, object))
        });
        found.collect()
    }

    fn owner(&self, dependent: &Value, reference: &Value) -> Owner {
        let (api_version, kind) =
            (object::text(reference, "/apiVersion"), object::text(reference, "/kind"));
        // A kind that is not held here cannot be judged.
        let Some(kind) = kinds::find_by_kind(api_version, kind) else { return Owner::Solid };
        let Some(informer) = self.informers.get(kind.resource) else { return Owner::Solid };
        let namespace = if kind.namespaced { object::namespace(dependent) } else { "" };
        if kind.namespaced && namespace.is_empty() {
            return Owner::Solid; // A reference that no lookup can answer.
        }
        match informer.get(namespace, object::text(reference, "/name")) {
            Some(owner) if object::uid(&owner) == object::text(reference, "/uid") => {
                let waits =
                    object::is_deleting(&owner) && object::has_finalizer(&owner, FOREGROUND);
                if waits { Owner::Waiting } else { Owner::Solid }
            }
            _ => Owner::Gone,
        }
    }

    /// It leaves, and what it owns stays.
    async fn orphan(&self, kind: &'static Kind, leaving: &Object) -> Result<(), Status> {
        let uid = object::uid(leaving).to_owned();
        let mut actions = Vec::new();
        for (item, dependent) in self.dependents(&uid) {
            let Some(kind) = kinds::find_by_resource(item.resource) else { continue };
            actions.push(without_owners(kind, dependent, std::slice::from_ref(&uid)));
        }
        self.hands.apply(actions).await?;
        self.hands.apply(vec![without_finalizer(kind, leaving, ORPHAN)]).await
    }

    /// It leaves once what it owns, and blocks it, has left.
    async fn wait_for_dependents(
        &self,
        kind: &'static Kind,
        leaving: &Object,
    ) -> Result<(), Status> {
        let uid = object::uid(leaving);
        let dependents = self.dependents(uid);
        let blocks = |dependent: &Object| {
            object::list(dependent, "/metadata/ownerReferences").iter().any(|owner| {
                object::text(owner, "/uid") == uid && object::flag(owner, "/blockOwnerDeletion")
            })
        };
        if dependents.iter().any(|(_, dependent)| blocks(dependent)) {
            for (item, dependent) in dependents {
                if !object::is_deleting(&dependent) {
                    self.queue.add(item);
                }
            }
            return Ok(());
        }
        self.hands.apply(vec![without_finalizer(kind, leaving, FOREGROUND)]).await
    }
}

/// Keeps the index and queues what a change may concern.
fn note(resource: &'static str, change: &Change<'_>, index: &Index, queue: &Queue<Item>) {
    let item = Item { resource, key: change.key.clone() };
    let owners = |side: Option<&Object>| -> BTreeSet<String> {
        side.into_iter().flat_map(|object| owner_uids(object)).map(str::to_owned).collect()
    };
    let (before, after) = (owners(change.old), owners(change.new));
    {
        let mut index = lock(index);
        for uid in before.difference(&after) {
            if let Some(dependents) = index.get_mut(uid) {
                dependents.remove(&item);
                if dependents.is_empty() {
                    index.remove(uid);
                }
            }
        }
        for uid in after.difference(&before) {
            index.entry(uid.clone()).or_default().insert(item.clone());
        }
    }
    match change.new {
        Some(new) => {
            let finalizing = object::is_deleting(new)
                && (object::has_finalizer(new, ORPHAN) || object::has_finalizer(new, FOREGROUND));
            if finalizing || before != after {
                queue.add(item);
            }
        }
        None => {
            let uid = change.old.map(|old| object::uid(old)).unwrap_or_default();
            for dependent in lock(index).get(uid).into_iter().flatten() {
                queue.add(dependent.clone());
            }
        }
    }
    // An owner may wait for this one to go, or to be let go.
    if change.new.is_none() || before != after {
        for reference in
            change.old.into_iter().flat_map(|old| object::list(old, "/metadata/ownerReferences"))
        {
            let kind = kinds::find_by_kind(
                object::text(reference, "/apiVersion"),
                object::text(reference, "/kind"),
            );
            let Some(kind) = kind else { continue };
            let namespace = if kind.namespaced { &*change.key.namespace } else { "" };
            let key = ObjectKey::new(namespace, object::text(reference, "/name"));
            queue.add(Item { resource: kind.resource, key });
        }
    }
}

impl Worker for Garbage {
    type Key = Item;

    async fn reconcile(&self, item: &Item) -> Result<Next, Status> {
        let (Some(kind), Some(found)) = (kinds::find_by_resource(item.resource), self.find(item))
        else {
            return Ok(Next::Done);
        };
        if object::is_deleting(&found) {
            if object::has_finalizer(&found, ORPHAN) {
                self.orphan(kind, &found).await?;
            } else if object::has_finalizer(&found, FOREGROUND) {
                self.wait_for_dependents(kind, &found).await?;
            }
            return Ok(Next::Done);
        }
        let owners: Vec<(String, Owner)> = object::list(&found, "/metadata/ownerReferences")
            .iter()
            .map(|reference| {
                (object::text(reference, "/uid").to_owned(), self.owner(&found, reference))
            })
            .collect();
        let has_dependents = !self.dependents(object::uid(&found)).is_empty();
        let action = match judge(&found, &owners, has_dependents) {
            Verdict::Keep => return Ok(Next::Done),
            Verdict::Disown(uids) => without_owners(kind, found, &uids),
            Verdict::Delete(propagation) => Action::Delete(kind, found, Some(propagation), None),
        };
        self.hands.apply(vec![action]).await?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::{Owner::*, *};

    #[test]
    fn verdicts() {
        let plain = json!({"metadata": {}});
        let orphaning = json!({"metadata": {"finalizers": [ORPHAN]}});
        let delete = |propagation| Verdict::Delete(propagation);
        for (object, owners, has_dependents, expected) in [
            (&plain, vec![], false, Verdict::Keep),
            (&plain, vec![Solid], true, Verdict::Keep),
            (&plain, vec![Solid, Gone], true, Verdict::Disown(vec!["1".into()])),
            (&plain, vec![Waiting, Solid], true, Verdict::Disown(vec!["0".into()])),
            (&plain, vec![Gone, Gone], true, delete(Propagation::Background)),
            (&orphaning, vec![Gone], true, delete(Propagation::Orphan)),
            (&plain, vec![Waiting], false, delete(Propagation::Background)),
            (&plain, vec![Waiting, Gone], true, delete(Propagation::Foreground)),
        ] {
            let named: Vec<(String, Owner)> =
                owners.iter().enumerate().map(|(i, owner)| (i.to_string(), *owner)).collect();
            assert_eq!(judge(object, &named, has_dependents), expected, "{owners:?}");
        }
    }
}
