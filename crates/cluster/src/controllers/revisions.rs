//! The history of a StatefulSet or DaemonSet: a ControllerRevision per template.
//!
//! `kubectl rollout history` and `undo` read them; the controllers tell by them
//! which Pods are of an old template (kubernetes `pkg/controller/history`).

use portolan_apiserver::{Kind, kinds};
use serde_json::{Value, json};

use super::{action::Action, deployment::template_hash};
use crate::{
    informer::Object,
    object::{self, same},
};

/// Label of Pods and revisions that names the template.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// The revision of the owner's present template, and what must be written for it.
pub(crate) struct Revisions {
    /// The revision of the present template.
    pub(crate) update: Value,
    /// Makes it, or gives it the highest number again after a rollback.
    pub(crate) actions: Vec<Action>,
}

fn data(owner: &Value) -> Value {
    let mut template = object::at(owner, "/spec/template").cloned().unwrap_or_default();
    object::map_mut(&mut template, "metadata").shift_remove("creationTimestamp");
    // What undo sends back is the template as a whole.
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

fn number(revision: &Value) -> i64 {
    object::int(revision, "/revision").unwrap_or(0)
}

/// The hash of a revision's template.
pub(crate) fn hash(revision: &Value) -> &str {
    object::label(revision, HASH_LABEL).unwrap_or_default()
}

/// The template of a revision.
pub(crate) fn template(revision: &Value) -> Value {
    let mut template = object::at(revision, "/data/spec/template").cloned().unwrap_or_default();
    if let Some(map) = template.as_object_mut() {
        map.shift_remove("$patch");
    }
    template
}

/// Finds or makes the revision of the owner's template among those it owns.
pub(crate) fn plan(owner: &Value, kind: &'static Kind, owned: &[Object]) -> Revisions {
    let data = data(owner);
    let highest = owned.iter().map(|revision| number(revision)).max().unwrap_or(0);
    let revisions = &kinds::CONTROLLER_REVISIONS;
    let empty = Value::Null;
    let equal = owned
        .iter()
        .filter(|revision| same(object::at(revision, "/data").unwrap_or(&empty), &data))
        .max_by_key(|revision| number(revision));
    if let Some(found) = equal {
        let mut update = Value::clone(found);
        if number(found) == highest {
            return Revisions { update, actions: Vec::new() };
        }
        update["revision"] = (highest + 1).into();
        let actions = vec![Action::Update(revisions, update.clone(), None)];
        return Revisions { update, actions };
    }
    let template = &data["spec"]["template"];
    let hash = template_hash(template, object::int(owner, "/status/collisionCount"));
    let mut labels = template["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[HASH_LABEL] = hash.as_str().into();
    let update = json!({
        "apiVersion": revisions.api_version,
        "kind": revisions.kind,
        "metadata": {
            "name": format!("{}-{hash}", object::name(owner)),
            "namespace": object::namespace(owner),
            "labels": labels,
            "ownerReferences": [object::controller_reference(owner, kind.api_version, kind.kind)],
        },
        "data": data,
        "revision": highest + 1,
    });
    let actions = vec![Action::Create(revisions, update.clone(), None)];
    Revisions { update, actions }
}

/// Removes the oldest revisions beyond the limit of history; those that are `used` stay.
pub(crate) fn clean_up(owner: &Value, owned: &[Object], used: &[&str]) -> Vec<Action> {
    let limit = object::int(owner, "/spec/revisionHistoryLimit").unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(0);
    let mut old: Vec<&Object> =
        owned.iter().filter(|revision| !used.contains(&hash(revision))).collect();
    old.sort_by_key(|revision| number(revision));
    let extra = old.len().saturating_sub(limit);
    let gone = old.into_iter().take(extra).cloned();
    gone.map(|r| Action::Delete(&kinds::CONTROLLER_REVISIONS, r, None, None)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_template_has_one_revision_and_a_rollback_renumbers_it() {
        let owner = |image: &str| {
            json!({"metadata": {"name": "db", "namespace": "default", "uid": "u"},
                "spec": {"revisionHistoryLimit": 1, "template":
                    {"metadata": {"labels": {"app": "db"}}, "spec": {"image": image}}}})
        };
        let mut owned: Vec<Object> = Vec::new();
        for (image, number, writes) in [("v1", 1, 1), ("v1", 1, 0), ("v2", 2, 1), ("v1", 3, 1)] {
            let planned = plan(&owner(image), &kinds::STATEFUL_SETS, &owned);
            assert_eq!(planned.actions.len(), writes, "{image}");
            assert_eq!(planned.update["revision"], number);
            assert_eq!(template(&planned.update), owner(image)["spec"]["template"]);
            let name = object::name(&planned.update).to_owned();
            owned.retain(|revision| object::name(revision) != name);
            owned.push(Arc::new(planned.update));
        }
        assert_eq!(owned.len(), 2);
        let newest = hash(&owned[1]).to_owned();
        assert_eq!(clean_up(&owner("v1"), &owned, &[&newest]), []);
        let third = plan(&owner("v3"), &kinds::STATEFUL_SETS, &owned).update;
        owned.push(Arc::new(third));
        let newest = hash(&owned[2]).to_owned();
        let gone = clean_up(&owner("v3"), &owned, &[&newest]);
        assert!(matches!(gone.as_slice(), [Action::Delete(_, old, _, _)] if old["revision"] == 2));
    }
}
