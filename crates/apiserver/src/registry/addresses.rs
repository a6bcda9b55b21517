//! IPAddress objects: who holds which cluster IP, for people to look at.
//!
//! Upstream allocates by creating these objects (KEP-1880); here the
//! allocators are derived from Services, and so are these, right after the
//! Service was stored: a second account that could not disagree for long. An
//! IPAddress that somebody else made is left alone.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_runtime::Shutdown;
use serde_json::{Value, json};

use super::{
    Caller, DeleteOptions, Registry, WriteOptions, allocators, allocators::Holding, object, service,
};
use crate::{
    kinds,
    store::{Event, EventKind},
};

const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
/// Upstream's name for its allocator.
const MANAGER: &str = "ipallocator.k8s.io";

/// Address and its object, for one Service.
fn addresses_of(service: &Value) -> BTreeMap<IpAddr, Value> {
    let parent = json!({
        "group": "",
        "resource": "services",
        "namespace": object::namespace(service),
        "name": object::name(service),
    });
    let held = service::holdings(service).into_iter().filter_map(|holding| match holding {
        Holding::Address(address) => Some(address),
        Holding::Port(_) => None,
    });
    held.map(|address| {
        let labels = json!({FAMILY_LABEL: allocators::family(address), MANAGED_BY_LABEL: MANAGER});
        let metadata = json!({"name": address.to_string(), "labels": labels});
        (address, json!({"metadata": metadata, "spec": {"parentRef": parent}}))
    })
    .collect()
}

fn is_ours(address: &Value) -> bool {
    let label = object::metadata(address).get("labels").and_then(|l| l.get(MANAGED_BY_LABEL));
    label.is_some_and(|l| l == MANAGER)
}

impl Registry {
    /// Keeps IPAddress objects in step with Services, until shutdown.
    pub async fn publish_addresses(self, shutdown: Shutdown) {
        while !shutdown.is_cancelled() {
            let (revision, services) = self.list(&kinds::SERVICES, None);
            let Ok(mut changes) = self.watch(&kinds::SERVICES, revision) else { continue };
            self.publish_all(&services).await;
            loop {
                let next = tokio::select! {
                    () = shutdown.cancelled() => return,
                    next = changes.next() => next,
                };
                match next {
                    Some(Ok(event)) => self.publish_change(&event).await,
                    Some(Err(_)) => break,
                    None => return,
                }
            }
        }
    }

    async fn publish_all(&self, services: &[Value]) {
        let wanted: BTreeMap<IpAddr, Value> = services.iter().flat_map(addresses_of).collect();
        for stored in self.list(&kinds::IP_ADDRESSES, None).1 {
            let address = object::name(&stored).parse().ok();
            if is_ours(&stored) && address.is_none_or(|a: IpAddr| !wanted.contains_key(&a)) {
                self.unpublish(object::name(&stored)).await;
            }
        }
        for (address, object) in wanted {
            self.publish(address, object).await;
        }
    }

    async fn publish_change(&self, event: &Event) {
        let parsed = |record| object::parse(record).map(|s| addresses_of(&s)).unwrap_or_default();
        let before = event.previous.as_deref().map(parsed).unwrap_or_default();
        let after = match event.kind {
            EventKind::Deleted => BTreeMap::new(),
            EventKind::Added | EventKind::Modified => parsed(&event.record),
        };
        for address in before.keys().filter(|a| !after.contains_key(*a)) {
            self.unpublish(&address.to_string()).await;
        }
        for (address, object) in after {
            if !before.contains_key(&address) {
                self.publish(address, object).await;
            }
        }
    }

    async fn publish(&self, address: IpAddr, wanted: Value) {
        let name = address.to_string();
        if let Ok(stored) = self.get(&kinds::IP_ADDRESSES, "", &name) {
            if stored.get("spec") == wanted.get("spec") || !is_ours(&stored) {
                return;
            }
            // Its parent cannot change: it is another Service's address now.
            self.unpublish(&name).await;
        }
        let (caller, options) =
            (Caller::system("apiserver").within("kube-apiserver"), WriteOptions::default());
        let made = self.create(&caller, &kinds::IP_ADDRESSES, "", wanted, &options).await;
        if let Err(status) = made {
            tracing::warn!(name, %status, "no IPAddress for a cluster IP");
        }
    }

    async fn unpublish(&self, name: &str) {
        if !self.get(&kinds::IP_ADDRESSES, "", name).is_ok_and(|stored| is_ours(&stored)) {
            return;
        }
        let (caller, options) =
            (Caller::system("apiserver").within("kube-apiserver"), DeleteOptions::default());
        if let Err(status) = self.delete(&caller, &kinds::IP_ADDRESSES, "", name, &options).await {
            tracing::warn!(name, %status, "an IPAddress stays");
        }
    }
}
