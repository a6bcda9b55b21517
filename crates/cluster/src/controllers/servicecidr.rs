//! Ranges of Service addresses: ready at once, and kept while addresses are
//! in them.
//!
//! A ServiceCIDR gets a finalizer and the condition Ready; one on its way out
//! keeps the finalizer as long as an IPAddress lies in it and in no other
//! range (kubernetes `pkg/controller/servicecidrs`). Upstream waits ten seconds
//! more, for allocators in other processes; here there is none.

use std::{sync::Arc, time::Duration};

use portolan_apiserver::{
    Status, kinds,
    registry::{Cidr, Patch, Subresource, WriteOptions, object::now},
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

/// Who owns the condition.
const MANAGER: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// A range that is in use is looked at again this often, for another range may take its addresses.
const BLOCKED_PAUSE: Duration = Duration::from_secs(15);
/// Label of the IPAddresses that Services hold.
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// Looks after ServiceCIDRs.
pub(crate) struct ServiceCidrs {
    hands: Hands,
    ranges: Informer,
    addresses: Informer,
}

impl ServiceCidrs {
    /// Sees to it that a range is looked at when it changes, and every range on its way out when
    /// an address goes.
    pub(crate) fn start(hands: Hands, informers: &Informers) -> (Self, Arc<Queue<ObjectKey>>) {
        let queue: Arc<Queue<ObjectKey>> = Arc::default();
        let ranges = informers.of(&kinds::SERVICE_CIDRS);
        let addresses = informers.of(&kinds::IP_ADDRESSES);
        {
            let queue = queue.clone();
            ranges.on_change(move |change| queue.add(change.key.clone()));
        }
        {
            let (queue, ranges) = (queue.clone(), ranges.clone());
            addresses.on_change(move |change| {
                let leaving = ranges.cached_list(None).into_iter();
                let leaving = leaving.filter(|r| change.new.is_none() && object::is_deleting(r));
                leaving.for_each(|range| queue.add(ObjectKey::of(&range)));
            });
        }
        (ServiceCidrs { hands, ranges, addresses }, queue)
    }

    async fn patch(
        &self,
        name: &str,
        part: Option<Subresource>,
        patch: Patch,
    ) -> Result<(), Status> {
        let is_apply = matches!(patch, Patch::Apply(_));
        let options = WriteOptions {
            field_manager: is_apply.then(|| MANAGER.to_owned()),
            force: is_apply,
            ..WriteOptions::default()
        };
        let (registry, caller) = (&self.hands.registry, &self.hands.caller);
        let kind = &kinds::SERVICE_CIDRS;
        match registry.patch(caller, kind, "", name, part, patch, &options).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    async fn say(
        &self,
        name: &str,
        ready: &str,
        reason: Option<&str>,
        message: &str,
    ) -> Result<(), Status> {
        let mut condition = json!({
            "type": "Ready",
            "status": ready,
            "message": message,
            "lastTransitionTime": now(),
        });
        if let Some(reason) = reason {
            condition["reason"] = reason.into();
        }
        let applied = json!({
            "kind": kinds::SERVICE_CIDRS.kind,
            "apiVersion": kinds::SERVICE_CIDRS.api_version,
            "metadata": {"name": name},
            "status": {"conditions": [condition]},
        });
        self.patch(name, Some(Subresource::Status), Patch::Apply(applied)).await
    }

    async fn keep(&self, range: &Object) -> Result<(), Status> {
        let name = object::name(range);
        if !has_finalizer(range) {
            let patch = json!({"metadata": {"finalizers": [FINALIZER]}});
            self.patch(name, None, Patch::Strategic(patch)).await?;
        }
        if object::is_condition_true(range, "Ready") {
            return Ok(());
        }
        self.say(name, "True", None, "Kubernetes Service CIDR is ready").await
    }

    async fn release(&self, range: &Object) -> Result<Next, Status> {
        let name = object::name(range);
        if !has_finalizer(range) {
            return Ok(Next::Done);
        }
        if !is_free(range, &self.ranges.list(None), &self.addresses.list(None)) {
            if object::is_condition_true(range, "Ready") {
                self.say(name, "False", Some("Terminating"), IN_USE).await?;
            }
            return Ok(Next::After(BLOCKED_PAUSE));
        }
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        self.patch(name, None, Patch::Strategic(patch)).await?;
        Ok(Next::Done)
    }
}

const IN_USE: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or \
                      create a new ServiceCIDR";

fn has_finalizer(range: &Value) -> bool {
    object::list(range, "/metadata/finalizers").iter().any(|f| f.as_str() == Some(FINALIZER))
}

fn cidrs(range: &Value) -> Vec<Cidr> {
    let texts = object::list(range, "/spec/cidrs").iter().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Whether no address would be left without a range.
fn is_free(range: &Value, ranges: &[Object], addresses: &[Object]) -> bool {
    let others: Vec<Cidr> = ranges
        .iter()
        .filter(|other| object::name(other) != object::name(range))
        .flat_map(|other| cidrs(other))
        .collect();
    let own = cidrs(range);
    addresses
        .iter()
        .filter(|a| object::label(a, MANAGED_BY_LABEL) == Some(ALLOCATOR))
        .filter_map(|a| object::name(a).parse().ok())
        .all(|address| {
            !own.iter().any(|cidr| cidr.contains(address))
                || others.iter().any(|cidr| cidr.contains(address))
        })
}

impl Worker for ServiceCidrs {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        if let Some(range) = self.ranges.get("", &key.name) {
            if object::is_deleting(&range) {
                return self.release(&range).await;
            }
            self.keep(&range).await?;
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_kept_for_addresses_that_have_no_other() {
        let range = |name: &str, cidr: &str| -> Object {
            Arc::new(json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}}))
        };
        let address = |name: &str, owner: &str| -> Object {
            Arc::new(json!({"metadata": {"name": name, "labels": {MANAGED_BY_LABEL: owner}}}))
        };
        let (small, large) = (range("small", "10.97.0.0/24"), range("large", "10.96.0.0/12"));
        for (ranges, addresses, expected) in [
            (vec![small.clone()], vec![], true),
            (vec![small.clone()], vec![address("10.98.0.1", ALLOCATOR)], true),
            (vec![small.clone()], vec![address("10.97.0.1", ALLOCATOR)], false),
            (vec![small.clone()], vec![address("10.97.0.1", "somebody")], true),
            (vec![small.clone(), large.clone()], vec![address("10.97.0.1", ALLOCATOR)], true),
        ] {
            assert_eq!(is_free(&small, &ranges, &addresses), expected);
        }
    }
}
