//! Which objects belong to an owner: those that it controls and that match its
//! selector. Matching ones without a controller are adopted, controlled ones
//! that no longer match are released
//! (kubernetes `pkg/controller/controller_ref_manager.go`).

use portolan_apiserver::{Kind, registry::LabelSelector};
use serde_json::{Value, json};

use super::action::Action;
use crate::{informer::Object, object};

/// The outcome of looking through the candidates.
#[derive(Default)]
pub(crate) struct Claim {
    /// What belongs to the owner.
    pub(crate) owned: Vec<Object>,
    /// Adoptions and releases; once they are written, the owner is looked at again.
    pub(crate) actions: Vec<Action>,
}

/// Sorts out candidates: objects of the owner's namespace that it controls or that nobody does.
pub(crate) fn claim(
    owner: &Value,
    owner_kind: &'static Kind,
    selector: &LabelSelector,
    kind: &'static Kind,
    candidates: Vec<Object>,
) -> Claim {
    let mut claim = Claim::default();
    let owner_is_leaving = object::is_deleting(owner);
    for candidate in candidates {
        let matches = selector.matches_object(&candidate);
        match object::controller_uid(&candidate) {
            uid if uid == object::uid(owner) => {
                if matches {
                    claim.owned.push(candidate);
                } else if !owner_is_leaving {
                    let owners = others(owner, &candidate);
                    claim.actions.push(with_owners(kind, candidate, owners));
                }
            }
            "" if matches && !owner_is_leaving && !object::is_deleting(&candidate) => {
                let (version, name) = (owner_kind.api_version, owner_kind.kind);
                let mut owners = others(owner, &candidate);
                owners.push(object::controller_reference(owner, version, name));
                claim.actions.push(with_owners(kind, candidate, owners));
            }
            _ => {}
        }
    }
    claim
}

fn with_owners(kind: &'static Kind, candidate: Object, owners: Vec<Value>) -> Action {
    Action::Patch(kind, candidate, json!({"metadata": {"ownerReferences": owners}}))
}

fn others(owner: &Value, candidate: &Value) -> Vec<Value> {
    object::list(candidate, "/metadata/ownerReferences")
        .iter()
        .filter(|reference| object::text(reference, "/uid") != object::uid(owner))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portolan_apiserver::kinds;

    use super::*;

    /// Per candidate: label, controller, leaving; and what should come of it.
    #[test]
    fn keeps_adopts_releases() {
        let selector = LabelSelector::from_map(&json!({"app": "web"}));
        for (label, controller, leaving, owner_leaving, expected) in [
            ("web", "me", false, false, "owned"),
            ("web", "me", true, false, "owned"),
            ("web", "me", false, true, "owned"),
            ("web", "other", false, false, "ignored"),
            ("web", "", false, false, "adopted"),
            ("web", "", true, false, "ignored"),
            ("web", "", false, true, "ignored"),
            ("db", "", false, false, "ignored"),
            ("db", "me", false, false, "released"),
            ("db", "me", false, true, "ignored"),
        ] {
            let stamp = |is: bool| if is { json!("now") } else { Value::Null };
            let owner = json!({"metadata": {"name": "o", "uid": "me", "deletionTimestamp": stamp(owner_leaving)}});
            let mut candidate = json!({"metadata": {"name": "c", "labels": {"app": label},
                "deletionTimestamp": stamp(leaving), "ownerReferences": [{"uid": "friend"}]}});
            if !controller.is_empty() {
                let owners = &mut candidate["metadata"]["ownerReferences"];
                owners.as_array_mut().unwrap().push(json!({"uid": controller, "controller": true}));
            }
            let claim = claim(
                &owner,
                &kinds::REPLICA_SETS,
                &selector,
                &kinds::PODS,
                vec![Arc::new(candidate)],
            );
            let found = match (claim.owned.len(), claim.actions.as_slice()) {
                (1, []) => "owned",
                (0, []) => "ignored",
                (0, [Action::Patch(_, _, new)]) => {
                    let owners = object::list(new, "/metadata/ownerReferences");
                    assert_eq!(owners[0]["uid"], "friend");
                    if object::controller_uid(new) == "me" { "adopted" } else { "released" }
                }
                _ => "odd",
            };
            assert_eq!(found, expected, "{label} {controller} {leaving} {owner_leaving}");
        }
    }
}
