//! ClusterRoles that gather the rules of others (kubernetes
//! `pkg/controller/clusterroleaggregation`).
//!
//! A ClusterRole with an `aggregationRule` gets the rules of all others that its
//! selectors select, those of the first name first and each rule once. What it had
//! before is replaced: whoever wants another rule gives it to a role of the label.

use std::sync::Arc;

use portolan_apiserver::{
    Status, kinds,
    registry::{LabelSelector, Patch, WriteOptions},
};
use serde_json::{Value, json};

use super::{
    action::Hands,
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

/// Who owns the rules of roles that gather.
const MANAGER: &str = "clusterrole-aggregation-controller";

/// Keeps gathered rules.
pub(crate) struct Aggregation {
    hands: Hands,
    roles: Informer,
}

impl Aggregation {
    /// Sees to it that every role that gathers is looked at when any role changes.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let roles = informers.of(&kinds::CLUSTER_ROLES);
        {
            let (queue, roles) = (queue.clone(), roles.clone());
            informers.of(&kinds::CLUSTER_ROLES).on_change(move |_| {
                let gathering = roles.cached_list(None).into_iter().filter(|r| gathers(r));
                gathering.for_each(|role| queue.add(ObjectKey::of(&role)));
            });
        }
        (Aggregation { hands, roles }, queue)
    }
}

impl Worker for Aggregation {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let Some(role) = self.roles.get("", &key.name).filter(|role| gathers(role)) else {
            return Ok(Next::Done);
        };
        let rules = gathered(&role, &self.roles.list(None)).map_err(Status::bad_request)?;
        if object::list(&role, "/rules") == rules {
            return Ok(Next::Done);
        }
        let kind = &kinds::CLUSTER_ROLES;
        let applied = json!({
            "kind": kind.kind,
            "apiVersion": kind.api_version,
            "metadata": {"name": &*key.name},
            "rules": rules,
        });
        let options = WriteOptions {
            field_manager: Some(MANAGER.to_owned()),
            force: true,
            ..WriteOptions::default()
        };
        let (registry, caller) = (&self.hands.registry, &self.hands.caller);
        let patch = Patch::Apply(applied);
        registry.patch(caller, kind, "", &key.name, None, patch, &options).await?;
        Ok(Next::Done)
    }
}

fn gathers(role: &Value) -> bool {
    object::at(role, "/aggregationRule").is_some()
}

/// The rules of all roles that a role selects, by the order of their names.
fn gathered(role: &Value, roles: &[Object]) -> Result<Vec<Value>, String> {
    let selectors = object::list(role, "/aggregationRule/clusterRoleSelectors");
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        let selector = LabelSelector::from_object(selector)?;
        let others = roles.iter().filter(|other| object::name(other) != object::name(role));
        for other in others.filter(|other| selector.matches_object(other)) {
            for rule in object::list(other, "/rules") {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_gathered_once_each() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let role = |name: &str, label: &str, verbs: &[&str]| -> Object {
            let rules: Vec<Value> = verbs.iter().map(|verb| rule(verb)).collect();
            let labels = json!({label: "true"});
            Arc::new(json!({"metadata": {"name": name, "labels": labels}, "rules": rules}))
        };
        let roles = [
            role("a", "to-view", &["get", "list"]),
            role("b", "to-edit", &["update"]),
            role("c", "to-view", &["list", "watch"]),
            // Itself, whatever its labels.
            role("view", "to-view", &["delete"]),
        ];
        let selecting = |labels: Value| {
            let rule = json!({"clusterRoleSelectors": labels});
            json!({"metadata": {"name": "view"}, "aggregationRule": rule})
        };
        for (selectors, expected) in [
            (json!([{"matchLabels": {"to-view": "true"}}]), Ok(vec!["get", "list", "watch"])),
            (
                json!([{"matchLabels": {"to-edit": "true"}}, {"matchLabels": {"to-view": "true"}}]),
                Ok(vec!["update", "get", "list", "watch"]),
            ),
            (json!([{"matchLabels": {"nobody": "true"}}]), Ok(vec![])),
            (json!([]), Ok(vec![])),
        ] {
            let found = gathered(&selecting(selectors.clone()), &roles);
            let expected = expected.map(|verbs: Vec<&str>| verbs.into_iter().map(rule).collect());
            assert_eq!(found, expected, "{selectors}");
        }
    }
}
