//! Namespaces: what a new one gets, and how one goes.
//!
//! A Namespace on its way out is emptied kind by kind; when nothing is left its
//! finalizer is taken off, and it is gone (kubernetes `pkg/controller/namespace`).
//! A write that was let in just before can land after the last look; so the
//! place is swept once more when the Namespace is gone.

use std::{sync::Arc, time::Duration};

use portolan_apiserver::{
    Kind, Status, kinds,
    registry::{Subresource, WriteOptions, object::now},
};
use serde_json::{Value, json};

use super::{
    action::{Action, Hands},
    runner::{Next, Worker},
};
use crate::{
    informer::{Informer, Informers, Object, ObjectKey},
    object,
    queue::Queue,
};

/// What upstream's `root-ca-certificate-publisher` says about its ConfigMap.
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
     guaranteed across distributions of Kubernetes clusters.";
/// What a Namespace holds back until it is empty.
const FINALIZER: &str = "kubernetes";
/// Objects with finalizers of others are looked at again this often, although
/// their end queues the Namespace: somebody may be waiting for it.
const REMAINING_PAUSE: Duration = Duration::from_secs(15);

/// Empties Namespaces that are on their way out.
pub(crate) struct Namespaces {
    hands: Hands,
    namespaces: Informer,
    content: Vec<Informer>,
}

impl Namespaces {
    /// Sees to it that a Namespace is looked at when it changes and when something in it goes.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let namespaces = informers.of(&kinds::NAMESPACES);
        {
            let queue = queue.clone();
            namespaces.on_change(move |change| {
                if change.new.is_none_or(|new| object::is_deleting(new)) {
                    queue.add(change.key.clone());
                }
            });
        }
        let content: Vec<Informer> = kinds::ALL
            .iter()
            .filter(|kind| kind.namespaced)
            .map(|kind| informers.of(kind))
            .collect();
        for informer in &content {
            let (namespaces, queue) = (namespaces.clone(), queue.clone());
            informer.on_change(move |change| {
                let leaving = |namespace: Object| object::is_deleting(&namespace);
                if change.new.is_none()
                    && namespaces.cached("", &change.key.namespace).is_some_and(leaving)
                {
                    queue.add(ObjectKey::new("", &change.key.namespace));
                }
            });
        }
        (Namespaces { hands, namespaces, content }, queue)
    }

    /// Deletes what is there; tells what stays for now.
    async fn empty(&self, namespace: &str) -> Result<Vec<(&'static Kind, Object)>, Status> {
        let mut deletions = Vec::new();
        for informer in &self.content {
            for object in informer.list(Some(namespace)) {
                if !object::is_deleting(&object) {
                    deletions.push(Action::Delete(informer.kind(), object, None, None));
                }
            }
        }
        self.hands.apply(deletions).await?;
        let rest = self.content.iter().flat_map(|informer| {
            informer.list(Some(namespace)).into_iter().map(|object| (informer.kind(), object))
        });
        Ok(rest.collect())
    }

    async fn release(&self, namespace: &Object) -> Result<(), Status> {
        let mut new = Value::clone(namespace);
        if let Some(finalizers) = new.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut)
        {
            finalizers.retain(|f| f.as_str() != Some(FINALIZER));
        }
        let name = object::name(namespace).to_owned();
        let (registry, caller) = (&self.hands.registry, &self.hands.caller);
        let (sub, options) = (Some(Subresource::Finalize), WriteOptions::default());
        registry.update(caller, &kinds::NAMESPACES, "", &name, sub, new, &options).await?;
        Ok(())
    }
}

/// The conditions that tell what a Namespace waits for.
fn remaining(rest: &[(&'static Kind, Object)]) -> Value {
    let mut kinds: Vec<String> = Vec::new();
    let mut finalizers: Vec<String> = Vec::new();
    for (kind, object) in rest {
        kinds.push(kind.group_resource());
        let own = object::list(object, "/metadata/finalizers").iter();
        finalizers.extend(own.filter_map(Value::as_str).map(str::to_owned));
    }
    let counted = |mut names: Vec<String>, what: &str| -> String {
        names.sort();
        let mut counts: Vec<(String, usize)> = Vec::new();
        for name in names {
            match counts.last_mut() {
                Some((last, count)) if *last == name => *count += 1,
                _ => counts.push((name, 1)),
            }
        }
        let texts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {what} {count}")).collect();
        texts.join(", ")
    };
    let condition = |kind: &str, is: bool, reason: &str, message: String| {
        json!({
            "type": kind,
            "status": if is { "True" } else { "False" },
            "lastTransitionTime": now(),
            "reason": reason,
            "message": message,
        })
    };
    let has_finalizers = !finalizers.is_empty();
    json!([
        condition(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", counted(kinds, "has resource instances:")),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            has_finalizers,
            if has_finalizers { "SomeFinalizersRemain" } else { "ContentHasNoFinalizers" },
            if has_finalizers {
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted(finalizers, "in resource instances:")
                )
            } else {
                "All content-preserving finalizers finished".into()
            },
        ),
    ])
}

/// Whether two lists of conditions say the same, whenever they say it since.
fn say_the_same(left: &Value, right: &Value) -> bool {
    let texts = |conditions: &Value| -> Vec<(String, String)> {
        let list = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(|c| (object::text(c, "/type").to_owned(), object::text(c, "/message").to_owned()))
            .collect()
    };
    texts(left) == texts(right)
}

impl Worker for Namespaces {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let found = self.namespaces.get("", &key.name);
        let Some(namespace) = found else {
            self.empty(&key.name).await?;
            return Ok(Next::Done);
        };
        if !object::is_deleting(&namespace) {
            return Ok(Next::Done);
        }
        let rest = self.empty(&key.name).await?;
        if rest.is_empty() {
            self.release(&namespace).await?;
            return Ok(Next::Done);
        }
        let conditions = remaining(&rest);
        if !say_the_same(
            &conditions,
            namespace.pointer("/status/conditions").unwrap_or(&Value::Null),
        ) {
            let mut new = Value::clone(&namespace);
            object::map_mut(&mut new, "status").insert("conditions".into(), conditions);
            self.hands.apply(vec![Action::UpdateStatus(&kinds::NAMESPACES, new)]).await?;
        }
        Ok(Next::After(REMAINING_PAUSE))
    }
}

/// Gives every Namespace its ServiceAccount `default` and the certificate that
/// its Pods check the API by (kubernetes `pkg/controller/serviceaccount`,
/// `pkg/controller/certificates/rootcacertpublisher`).
pub(crate) struct Furnishing {
    hands: Hands,
    namespaces: Informer,
    accounts: Informer,
    config_maps: Informer,
    ca_pem: String,
}

const DEFAULT_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

impl Furnishing {
    /// Looks at a Namespace when it comes and when a piece of furniture is touched.
    pub(crate) fn start(
        hands: Hands,
        informers: &Informers,
        ca_pem: String,
    ) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let namespaces = informers.of(&kinds::NAMESPACES);
        let accounts = informers.of(&kinds::SERVICE_ACCOUNTS);
        let config_maps = informers.of(&kinds::CONFIG_MAPS);
        {
            let queue = queue.clone();
            namespaces.on_change(move |change| queue.add(change.key.clone()));
        }
        for (informer, name) in [(&accounts, DEFAULT_ACCOUNT), (&config_maps, ROOT_CA)] {
            let queue = queue.clone();
            informer.on_change(move |change| {
                if change.old.is_some() && *change.key.name == *name {
                    queue.add(ObjectKey::new("", &change.key.namespace));
                }
            });
        }
        (Furnishing { hands, namespaces, accounts, config_maps, ca_pem }, queue)
    }
}

impl Worker for Furnishing {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let is_there = self.namespaces.get("", &key.name).is_some_and(|n| !object::is_deleting(&n));
        if !is_there {
            return Ok(Next::Done);
        }
        let mut actions = Vec::new();
        if self.accounts.get(&key.name, DEFAULT_ACCOUNT).is_none() {
            let account = json!({"metadata": {"name": DEFAULT_ACCOUNT, "namespace": &*key.name}});
            actions.push(Action::Create(&kinds::SERVICE_ACCOUNTS, account, None));
        }
        let wanted = json!({"ca.crt": self.ca_pem});
        match self.config_maps.get(&key.name, ROOT_CA) {
            None => {
                let map = json!({
                    "metadata": {"name": ROOT_CA, "namespace": &*key.name, "annotations": {
                        "kubernetes.io/description":
                            ROOT_CA_DESCRIPTION}},
                    "data": wanted,
                });
                actions.push(Action::Create(&kinds::CONFIG_MAPS, map, None));
            }
            Some(map) if map.get("data") != Some(&wanted) => {
                let mut map = Value::clone(&map);
                map["data"] = wanted;
                actions.push(Action::Update(&kinds::CONFIG_MAPS, map, None));
            }
            Some(_) => {}
        }
        match self.hands.apply(actions).await {
            Err(status) if status.is_already_exists() => Ok(Next::After(Duration::ZERO)),
            outcome => outcome.map(|()| Next::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_remains() {
        let pod = |finalizers: Value| {
            let object = json!({"metadata": {"finalizers": finalizers}});
            (&kinds::PODS as &'static Kind, Arc::new(object))
        };
        let found = remaining(&[pod(json!([])), pod(json!(["a.b/c"]))]);
        assert_eq!(
            found[0]["message"],
            "Some resources are remaining: pods has resource instances: 2"
        );
        assert_eq!(
            found[1]["message"],
            "Some content in the namespace has finalizers remaining: a.b/c in resource instances: 1"
        );
        assert!(say_the_same(&found, &found));
        assert!(!say_the_same(&found, &remaining(&[pod(json!([]))])));
    }
}
