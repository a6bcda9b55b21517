//! Roles and bindings: what they grant to somebody (`pkg/registry/rbac/validation`).

use std::fmt;

use serde_json::{Value, json};

use super::{Caller, Registry, access::Action, object};
use crate::{Kind, kinds};

/// A binding that names somebody, and the role that it binds.
pub(crate) struct Grant {
    binding_kind: &'static Kind,
    binding: Value,
    role_kind: &'static Kind,
    role: Value,
}

impl Registry {
    /// What is granted to a caller in a namespace (empty: in all of them).
    pub(crate) fn grants<'a>(
        &'a self,
        caller: &'a Caller,
        namespace: &'a str,
    ) -> impl Iterator<Item = Grant> + 'a {
        let everywhere = self.list(&kinds::CLUSTER_ROLE_BINDINGS, None).1;
        let here = match namespace {
            "" => Vec::new(),
            namespace => self.list(&kinds::ROLE_BINDINGS, Some(namespace)).1,
        };
        let everywhere = everywhere.into_iter().map(|b| (&kinds::CLUSTER_ROLE_BINDINGS, "", b));
        let here = here.into_iter().map(move |b| (&kinds::ROLE_BINDINGS, namespace, b));
        everywhere.chain(here).filter_map(move |(binding_kind, namespace, binding)| {
            if !array(&binding, "/subjects").any(|s| is_subject(caller, s, namespace)) {
                return None;
            }
            let text = |path| binding.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let role_kind = match text("/roleRef/kind") {
                "Role" => &kinds::ROLES,
                _ => &kinds::CLUSTER_ROLES,
            };
            // A binding of nothing grants nothing.
            let role = self.get(role_kind, namespace, text("/roleRef/name")).ok()?;
            Some(Grant { binding_kind, binding, role_kind, role })
        })
    }
}

impl Grant {
    /// Whether one of its rules says yes.
    pub(crate) fn allows(&self, action: &Action<'_>) -> bool {
        self.rules().any(|rule| rule_allows(rule, action))
    }

    fn rules(&self) -> impl Iterator<Item = &Value> {
        array(&self.role, "/rules")
    }

    /// Rules on resources, as a SelfSubjectRulesReview tells them.
    pub(crate) fn resource_rules(&self) -> Vec<Value> {
        let keys = ["verbs", "apiGroups", "resources", "resourceNames"];
        self.rules().filter(|rule| !is_empty(rule, "resources")).map(|r| pick(r, &keys)).collect()
    }

    /// Rules on paths. Those of a Role mean nothing: a namespace has no paths.
    pub(crate) fn path_rules(&self) -> Vec<Value> {
        if *self.binding_kind != kinds::CLUSTER_ROLE_BINDINGS {
            return Vec::new();
        }
        let keys = ["verbs", "nonResourceURLs"];
        let rules = self.rules().filter(|rule| !is_empty(rule, "nonResourceURLs"));
        rules.map(|rule| pick(rule, &keys)).collect()
    }
}

impl fmt::Display for Grant {
    /// In upstream's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (binding, role) = (object::name(&self.binding), object::name(&self.role));
        let (binding_kind, role_kind) = (self.binding_kind.kind, self.role_kind.kind);
        write!(f, "RBAC: allowed by {binding_kind} {binding:?} of {role_kind} {role:?}")
    }
}

fn array<'a>(object: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

fn texts<'a>(rule: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    let list = rule.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str)
}

fn is_empty(rule: &Value, key: &str) -> bool {
    texts(rule, key).next().is_none()
}

fn pick(rule: &Value, keys: &[&str]) -> Value {
    let found = keys.iter().filter_map(|key| Some((*key, rule.get(*key)?)));
    found.fold(json!({}), |mut picked, (key, value)| {
        picked[key] = value.clone();
        picked
    })
}

fn is_subject(caller: &Caller, subject: &Value, binding_namespace: &str) -> bool {
    let text = |key: &str| subject.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("kind") {
        "User" => text("name") == &*caller.user,
        "Group" => caller.groups.iter().any(|g| &**g == text("name")),
        "ServiceAccount" => {
            let namespace = match text("namespace") {
                "" => binding_namespace,
                namespace => namespace,
            };
            caller.service_account() == Some((namespace, text("name")))
        }
        _ => false,
    }
}

fn rule_allows(rule: &Value, action: &Action<'_>) -> bool {
    let has = |key: &str, wanted: &str| texts(rule, key).any(|v| v == "*" || v == wanted);
    if !action.path.is_empty() {
        let is_like = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => action.path.starts_with(prefix),
            None => action.path == pattern,
        };
        return has("verbs", action.verb) && texts(rule, "nonResourceURLs").any(is_like);
    }
    let resource = match action.subresource {
        "" => action.resource.to_owned(),
        sub => format!("{}/{sub}", action.resource),
    };
    let any_sub = format!("*/{}", action.subresource);
    has("verbs", action.verb)
        && has("apiGroups", action.group)
        && (has("resources", &resource)
            || (!action.subresource.is_empty() && has("resources", &any_sub)))
        && (is_empty(rule, "resourceNames")
            || texts(rule, "resourceNames").any(|name| name == action.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let rule = json!({"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get"], "resourceNames": ["a"]});
        let action = Action { verb: "get", resource: "pods", name: "a", ..Action::default() };
        assert!(rule_allows(&rule, &action));
        assert!(rule_allows(&rule, &Action { subresource: "log", ..action }));
        assert!(!rule_allows(&rule, &Action { subresource: "status", ..action }));
        assert!(!rule_allows(&rule, &Action { name: "b", ..action }));
        assert!(!rule_allows(&rule, &Action { verb: "list", ..action }));
        assert!(!rule_allows(&rule, &Action { group: "apps", ..action }));
        let logs = json!({"nonResourceURLs": ["/logs/*", "/x"], "verbs": ["get"]});
        for (path, allowed) in [("/logs/a", true), ("/logsa", false), ("/x", true), ("/x/y", false)]
        {
            let action = Action { verb: "get", path, ..Action::default() };
            assert_eq!(rule_allows(&logs, &action), allowed, "{path}");
        }
        let all = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        assert!(rule_allows(&all, &Action { subresource: "status", ..action }));
    }
}
