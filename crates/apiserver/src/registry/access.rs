//! Who may do what.
//!
//! Four grants, asked in this order: `system:masters` may everything; a
//! ServiceAccount may read everything but Secrets (and not enter Pods); what [`super::rbac`]
//! finds granted; and a Pod-bound token may PATCH its own Pod, where only registration keys may
//! change. So a workload needs no permission to write what it does
//! not own, and somebody who wants more says so in Roles as everywhere.

use serde_json::{Value, json};

use super::{Caller, Registry, Subresource, caller::MASTERS, object};
use crate::{Kind, Status, kinds};

/// Keys of labels and annotations that belong to the registry on Pods. A prefix covers the
/// domain itself and its subdomains' slash form: `app.io/label`, `registry.portolan.dev/web`.
const REGISTRATION_PREFIXES: [&str; 6] =
    ["app.io/", "dubbo.io/", "io.dubbo/", "micro.mu/", "registry.portolan.dev/", "portolan.dev/"];

/// Below those, what operators say of a Pod: it must not be able to take that back.
const OPERATOR_KEYS: [&str; 1] = ["portolan.dev/override"];

/// The verbs that change nothing.
const READING: [&str; 3] = ["get", "list", "watch"];

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource name.
    pub resource: &'a str,
    /// Part of the object; empty for all of it.
    pub subresource: &'a str,
    /// Namespace; empty for all, or for cluster-scoped objects.
    pub namespace: &'a str,
    /// Object; empty for all, and for creation.
    pub name: &'a str,
    /// A path that is no resource, instead of all of the above.
    pub path: &'a str,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allowed(String),
    /// Yes, for the caller's own Pod and its registration keys.
    OwnPod,
    /// No rule says yes.
    Denied,
}

impl Registry {
    /// What the rules say to a request.
    pub fn decide(&self, caller: &Caller, action: &Action<'_>) -> Decision {
        if caller.is_master() {
            return Decision::Allowed(format!("group {MASTERS}"));
        }
        let reads = action.path.is_empty() && READING.contains(&action.verb);
        if caller.service_account().is_some() && reads && !is_guarded(action) {
            return Decision::Allowed("ServiceAccounts may read".into());
        }
        let granted = self.grants(caller, action.namespace).find(|grant| grant.allows(action));
        if let Some(grant) = granted {
            return Decision::Allowed(grant.to_string());
        }
        let own = caller.bound_pod().is_some_and(|pod| {
            action.verb == "patch"
                && action.group.is_empty()
                && action.resource == "pods"
                && action.subresource.is_empty()
                && (action.namespace, action.name) == (pod.namespace, pod.name)
        });
        if own { Decision::OwnPod } else { Decision::Denied }
    }

    /// Refuses what no rule allows.
    pub fn authorize(&self, caller: &Caller, action: &Action<'_>) -> Result<(), Status> {
        if self.decide(caller, action) == Decision::Denied {
            return Err(denied(caller, action));
        }
        Ok(())
    }

    /// Holds a Pod-bound token to the registration keys of its own Pod.
    pub(crate) fn check_change(
        &self,
        caller: &Caller,
        kind: &Kind,
        subresource: Option<Subresource>,
        old: &Value,
        new: &Value,
    ) -> Result<(), Status> {
        if caller.is_master() || *kind != kinds::PODS {
            return Ok(());
        }
        let action = Action {
            verb: "patch",
            resource: "pods",
            subresource: subresource.map_or("", Subresource::name),
            namespace: object::namespace(old),
            name: object::name(old),
            ..Action::default()
        };
        if self.decide(caller, &action) != Decision::OwnPod {
            return Ok(());
        }
        let refused = |why: &str| Err(Status::forbidden(kind, object::name(old), why));
        if caller.bound_pod().is_none_or(|pod| pod.uid != object::uid(old)) {
            return refused("the token belongs to an earlier Pod of this name");
        }
        if let Some(field) = changed_outside_registration(old, new) {
            return refused(&format!(
                "User {:?} may change only the registration keys of its own Pod ({}), not {field}",
                &*caller.user,
                REGISTRATION_PREFIXES.join(", "),
            ));
        }
        Ok(())
    }
}

/// What a GET may not do for everybody: read Secrets, or act inside a Pod (a WebSocket begins
/// with GET).
fn is_guarded(action: &Action<'_>) -> bool {
    let acts = ["exec", "attach", "portforward", "proxy"];
    action.group.is_empty()
        && (action.resource == "secrets"
            || action.resource == "pods" && acts.contains(&action.subresource))
}

/// What every ServiceAccount may read, as rules of a role.
pub(crate) fn readable_rules() -> Vec<Value> {
    let mut groups: Vec<&str> = kinds::ALL.iter().map(|kind| kind.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let rule = |group: &str| {
        let action = |resource| Action { group, resource, ..Action::default() };
        let held = kinds::ALL.iter().filter(|kind| kind.group == group).map(|kind| kind.plural);
        let resources: Vec<&str> = held.filter(|plural| !is_guarded(&action(plural))).collect();
        json!({"verbs": READING, "apiGroups": [group], "resources": resources})
    };
    groups.into_iter().map(rule).collect()
}

/// The first thing that differs and is no registration key.
fn changed_outside_registration(old: &Value, new: &Value) -> Option<String> {
    let keys = |a: &Value, b: &Value| -> Vec<String> {
        let mut keys: Vec<String> = [a, b]
            .into_iter()
            .filter_map(Value::as_object)
            .flat_map(|m| m.keys().cloned())
            .collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let null = Value::Null;
    for key in keys(old, new) {
        if key != "metadata" && old.get(&key) != new.get(&key) {
            return Some(key);
        }
    }
    let (before, after) =
        (old.get("metadata").unwrap_or(&null), new.get("metadata").unwrap_or(&null));
    for key in keys(before, after) {
        // What the server itself writes down about who changed what.
        if key == "managedFields" || before.get(&key) == after.get(&key) {
            continue;
        }
        if key != "labels" && key != "annotations" {
            return Some(format!("metadata.{key}"));
        }
        let (before, after) = (before.get(&key).unwrap_or(&null), after.get(&key).unwrap_or(&null));
        for name in keys(before, after) {
            let registration = REGISTRATION_PREFIXES.iter().any(|p| name.starts_with(p))
                && !OPERATOR_KEYS.contains(&name.as_str());
            if !registration && before.get(&name) != after.get(&name) {
                return Some(format!("metadata.{key}[{name}]"));
            }
        }
    }
    None
}

/// The refusal, in upstream's words.
pub fn denied(caller: &Caller, action: &Action<'_>) -> Status {
    let user = &*caller.user;
    if !action.path.is_empty() {
        return Status::new(
            403,
            "Forbidden",
            format!("forbidden: User {user:?} cannot {} path {:?}", action.verb, action.path),
        );
    }
    let resource = match action.subresource {
        "" => action.resource.to_owned(),
        sub => format!("{}/{sub}", action.resource),
    };
    let scope = match action.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let grouped = match action.group {
        "" => action.resource.to_owned(),
        group => format!("{}.{group}", action.resource),
    };
    let subject = match action.name {
        "" => grouped,
        name => format!("{grouped} {name:?}"),
    };
    let message = format!(
        "{subject} is forbidden: User {user:?} cannot {} resource {resource:?} in API group {:?} {scope}",
        action.verb, action.group
    );
    let details = crate::status::Details {
        name: action.name.to_owned(),
        group: action.group.to_owned(),
        kind: action.resource.to_owned(),
        ..Default::default()
    };
    Status { details: Some(Box::new(details)), ..Status::new(403, "Forbidden", message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registration_keys() {
        let pod = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {}});
        let with = |path: &str, value: Value| {
            let mut pod = pod.clone();
            *pod.pointer_mut(path).unwrap() = value;
            pod
        };
        for (new, expected) in [
            (pod.clone(), None),
            (with("/metadata/labels", json!({"x": "y", "app.io/label": "z"})), None),
            (
                with(
                    "/metadata",
                    json!({"name": "a", "labels": {"x": "y"}, "annotations": {"registry.portolan.dev/a": "1"}}),
                ),
                None,
            ),
            (
                with(
                    "/metadata",
                    json!({"name": "a", "labels": {"x": "y"}, "annotations": {"portolan.dev/override": "draining"}}),
                ),
                Some("metadata.annotations[portolan.dev/override]"),
            ),
            (with("/metadata/labels", json!({"x": "z"})), Some("metadata.labels[x]")),
            (with("/metadata/labels", json!({})), Some("metadata.labels[x]")),
            (
                with("/metadata/labels", json!({"x": "y", "app.iox/label": ""})),
                Some("metadata.labels[app.iox/label]"),
            ),
            (
                with(
                    "/metadata",
                    json!({"name": "a", "labels": {"x": "y"}, "finalizers": ["a/b"]}),
                ),
                Some("metadata.finalizers"),
            ),
            (with("/spec", json!({"a": 1})), Some("spec")),
        ] {
            assert_eq!(changed_outside_registration(&pod, &new).as_deref(), expected, "{new}");
        }
    }
}
