//! What upstream's admission refuses of new Pods: names of things that are not there.
//!
//! Counterpart of its plugins ServiceAccount, Priority and RuntimeClass, in this order. Classes
//! are no kinds here, so there are the two of the system, and no others.

use serde_json::{Value, json};

use super::{Registry, object};
use crate::{Status, kinds};

/// The account of Pods that name none. It is not asked for: a controller gives one to each
/// Namespace, and Pods may come before it.
const DEFAULT_ACCOUNT: &str = "default";
/// PriorityClasses that every cluster has.
const PRIORITY_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const PREEMPTION: &str = "PreemptLowerPriority";

impl Registry {
    /// Refuses a new Pod that names what is not there; gives it the priority of its class.
    pub(super) fn admit_pod(&self, pod: &mut Value) -> Result<(), Status> {
        self.check_account(pod)?;
        prioritise(pod)?;
        match text(pod, "runtimeClassName") {
            "" => Ok(()),
            class => Err(refused(pod, &format!("pod rejected: RuntimeClass {class:?} not found"))),
        }
    }

    fn check_account(&self, pod: &Value) -> Result<(), Status> {
        let account = text(pod, "serviceAccountName");
        let namespace = object::namespace(pod);
        if matches!(account, "" | DEFAULT_ACCOUNT)
            || self.get(&kinds::SERVICE_ACCOUNTS, namespace, account).is_ok()
        {
            return Ok(());
        }
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} \
             not found"
        );
        Err(refused(pod, &why))
    }
}

fn prioritise(pod: &mut Value) -> Result<(), Status> {
    let class = text(pod, "priorityClassName");
    let known = PRIORITY_CLASSES.iter().find(|(name, _)| *name == class);
    let computed = match known {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => {
            return Err(refused(pod, &format!("no PriorityClass with name {class} was found")));
        }
    };
    let given = pod.pointer("/spec/priority").and_then(Value::as_i64);
    if let Some(given) = given.filter(|given| *given != computed) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {computed} from the given PriorityClass name"
        );
        return Err(refused(pod, &why));
    }
    let policy = text(pod, "preemptionPolicy");
    if !matches!(policy, "" | PREEMPTION) {
        let why = format!(
            "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; \
             priority admission controller computed {PREEMPTION} from the given PriorityClass name"
        );
        return Err(refused(pod, &why));
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("priority".into(), json!(computed));
    }
    Ok(())
}

fn text<'a>(pod: &'a Value, key: &str) -> &'a str {
    pod.get("spec").and_then(|spec| spec.get(key)).and_then(Value::as_str).unwrap_or_default()
}

fn refused(pod: &Value, why: &str) -> Status {
    Status::forbidden(&kinds::PODS, object::name(pod), why)
}
