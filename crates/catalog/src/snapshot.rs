//! A snapshot: the whole catalog at one version, as a value.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use portolan_model::{
    Name, Namespace, Node, ObjectName, Origin, Placed, Reason, Rejection, Service, ServiceKey,
    SourceId, Version, Workload,
};

use crate::{
    diff::{Change, Diff},
    shards::{Shards, diff_map},
};

/// A service with its endpoints, and what follows from them.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    /// As declared, or [`Service::bare`] where only endpoints tell of it.
    pub service: Arc<Service>,
    /// Every known endpoint with the verdict on it, ordered by address.
    pub endpoints: Arc<[Placed]>,
    /// Why the service as a whole is not what it should be.
    pub reasons: Arc<[Reason]>,
    /// A hash of all that faces may show of it: equal content, equal etag, on
    /// every replica of one build.
    pub etag: u64,
    /// The version that brought this content.
    pub changed: Version,
    /// When the newest observation behind this content was made, in
    /// milliseconds of Unix time.
    pub observed_at_ms: u64,
}

impl ServiceEntry {
    /// The endpoints that faces hand out.
    pub fn served(&self) -> impl Iterator<Item = &Placed> {
        self.endpoints.iter().filter(|placed| placed.verdict.is_served())
    }
}

/// How far one part of a source (one watched kind) has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartStatus {
    /// It has been listed whole at least once.
    pub complete: bool,
    /// Facts it tells.
    pub facts: usize,
    /// Facts that had been wrong when they were verified, since the start.
    pub repaired: usize,
    /// The source's revision of its last event.
    pub revision: Name,
}

/// How a source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its parts.
    pub parts: BTreeMap<Name, PartStatus>,
    /// Parts that are not connected, and why.
    pub lost: BTreeMap<Name, Name>,
    /// Since when it has been connected, or not, in milliseconds of Unix time.
    pub since_ms: u64,
}

impl SourceStatus {
    /// Every part has been listed.
    pub fn is_synced(&self) -> bool {
        self.parts.values().all(|part| part.complete)
    }
}

/// The catalog at one version. Never changes once made.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) version: Version,
    pub(crate) at_ms: u64,
    pub(crate) services: Shards<(Origin, Name), Name, ServiceEntry>,
    pub(crate) workloads: Shards<Name, Name, Workload>,
    pub(crate) by_address: Shards<u8, IpAddr, ObjectName>,
    pub(crate) namespaces: Arc<BTreeMap<Name, Arc<Namespace>>>,
    pub(crate) nodes: Arc<BTreeMap<Name, Arc<Node>>>,
    pub(crate) rejections: Arc<BTreeMap<(Name, ObjectName), Arc<Rejection>>>,
    pub(crate) sources: Arc<BTreeMap<SourceId, Arc<SourceStatus>>>,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        // `by_address` follows from `workloads`.
        self.version == other.version
            && self.at_ms == other.at_ms
            && self.services == other.services
            && self.workloads == other.workloads
            && self.namespaces == other.namespaces
            && self.nodes == other.nodes
            && self.rejections == other.rejections
            && self.sources == other.sources
    }
}

impl Snapshot {
    /// A catalog that knows nothing.
    pub fn empty(version: Version) -> Self {
        Self {
            version,
            at_ms: 0,
            services: Shards::default(),
            workloads: Shards::default(),
            by_address: Shards::default(),
            namespaces: Arc::default(),
            nodes: Arc::default(),
            rejections: Arc::default(),
            sources: Arc::default(),
        }
    }

    /// Which version this is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// When it was committed, in milliseconds of Unix time.
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Whether every source has told all it knows at least once. Before that,
    /// absence proves nothing: DNS answers SERVFAIL, readiness is false.
    pub fn is_synced(&self) -> bool {
        !self.sources.is_empty() && self.sources.values().all(|source| source.is_synced())
    }

    /// One service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<ServiceEntry>> {
        self.services.get(&(key.origin.clone(), key.namespace.clone()), &key.name)
    }

    /// All services, by origin, namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.services.iter().map(|(_, _, entry)| entry)
    }

    /// The services of one namespace and origin.
    pub fn services_in(
        &self,
        origin: &Origin,
        namespace: &Name,
    ) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.services.shard(&(origin.clone(), namespace.clone())).map(|(_, entry)| entry)
    }

    /// How many services.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// Origins that have a service, in order.
    pub fn origins(&self) -> Vec<Origin> {
        let mut origins: Vec<Origin> =
            self.services.keys().map(|(origin, _)| origin.clone()).collect();
        origins.dedup();
        origins
    }

    /// One Pod.
    pub fn workload(&self, name: &ObjectName) -> Option<&Arc<Workload>> {
        self.workloads.get(&name.namespace, &name.name)
    }

    /// All Pods.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter().map(|(_, _, workload)| workload)
    }

    /// The Pod that has an address.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workload(self.by_address.get(&address_shard(address), &address)?)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> &BTreeMap<Name, Arc<Namespace>> {
        &self.namespaces
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<Name, Arc<Node>> {
        &self.nodes
    }

    /// Objects that were seen and could not be used.
    pub fn rejections(&self) -> impl Iterator<Item = &Arc<Rejection>> {
        self.rejections.values()
    }

    /// The sources and how they are.
    pub fn sources(&self) -> &BTreeMap<SourceId, Arc<SourceStatus>> {
        &self.sources
    }

    /// What turns this snapshot into `newer`. What both share is skipped.
    pub fn diff(&self, newer: &Self) -> Diff {
        Diff {
            from: self.version,
            to: newer.version,
            at_ms: newer.at_ms,
            services: self.services.diff(&newer.services),
            workloads: self.workloads.diff(&newer.workloads),
            namespaces: diff_shared(&self.namespaces, &newer.namespaces),
            nodes: diff_shared(&self.nodes, &newer.nodes),
            rejections: diff_shared(&self.rejections, &newer.rejections),
            sources: diff_shared(&self.sources, &newer.sources),
        }
    }

    /// The snapshot that a difference leads to.
    pub fn apply(&self, diff: &Diff) -> Self {
        let mut next = self.clone();
        next.version = diff.to;
        next.at_ms = diff.at_ms;
        next.services.apply(&diff.services);
        for change in &diff.workloads {
            let (namespace, name) = &change.key;
            next.put_workload(
                &ObjectName { namespace: namespace.clone(), name: name.clone() },
                change.after.clone(),
            );
        }
        apply_shared(&mut next.namespaces, &diff.namespaces);
        apply_shared(&mut next.nodes, &diff.nodes);
        apply_shared(&mut next.rejections, &diff.rejections);
        apply_shared(&mut next.sources, &diff.sources);
        next
    }

    /// Puts or removes a Pod and keeps the index of addresses true. Returns how
    /// many bytes were copied for that.
    pub(crate) fn put_workload(
        &mut self,
        name: &ObjectName,
        workload: Option<Arc<Workload>>,
    ) -> usize {
        let mut copied = 0;
        if let Some(old) = self.workload(name).cloned() {
            copied += self.workloads.remove(&name.namespace, &name.name);
            for address in &old.addresses {
                let shard = address_shard(*address);
                if self.by_address.get(&shard, address).is_some_and(|owner| **owner == *name) {
                    copied += self.by_address.remove(&shard, address);
                }
            }
        }
        if let Some(workload) = workload {
            // A Pod that has ended no longer owns its address.
            if !matches!(&*workload.phase, "Succeeded" | "Failed") {
                for address in &workload.addresses {
                    copied += self.by_address.insert(
                        address_shard(*address),
                        *address,
                        Arc::new(name.clone()),
                    );
                }
            }
            copied += self.workloads.insert(name.namespace.clone(), name.name.clone(), workload);
        }
        copied
    }
}

/// Spreads addresses over shards by their fastest-changing byte.
fn address_shard(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

type Shared<K, V> = Arc<BTreeMap<K, Arc<V>>>;

fn diff_shared<K: Ord + Clone, V: PartialEq>(
    before: &Shared<K, V>,
    after: &Shared<K, V>,
) -> Vec<Change<K, V>> {
    let mut changes = Vec::new();
    if !Arc::ptr_eq(before, after) {
        diff_map(before, after, K::clone, &mut changes);
    }
    changes
}

fn apply_shared<K: Ord + Clone, V>(map: &mut Shared<K, V>, changes: &[Change<K, V>]) {
    if changes.is_empty() {
        return;
    }
    let map = Arc::make_mut(map);
    for change in changes {
        match &change.after {
            Some(value) => {
                map.insert(change.key.clone(), value.clone());
            }
            None => {
                map.remove(&change.key);
            }
        }
    }
}
