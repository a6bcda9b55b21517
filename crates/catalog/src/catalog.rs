//! The writer: reports in, versions out.

use std::{collections::BTreeSet, mem::size_of, sync::Arc};

use portolan_model::{
    Endpoint, Fact, FactKey, Name, ObjectName, Placed, ServiceKey, SourceId, SourceReport, Version,
};

use crate::{
    Hub, PartStatus, ServiceEntry, Snapshot, SourceStatus,
    facts::{Facts, Repair, Touched},
    merge,
    shards::copy_bytes,
};

/// Owns the next version. One task holds it; readers use the [`Hub`].
#[derive(Debug)]
pub struct Catalog {
    facts: Facts,
    hub: Arc<Hub>,
}

impl Catalog {
    /// A catalog that publishes on `hub`.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { facts: Facts::default(), hub }
    }

    /// Names a source and its parts before it speaks, so that the catalog is
    /// not taken for complete while a source has yet to begin.
    pub fn expect(&mut self, source: SourceId, parts: &[Name], now_ms: u64) {
        let expected = self.facts.sources.entry(source.clone()).or_default();
        expected.since_ms = now_ms;
        for part in parts {
            expected.parts.entry(part.clone()).or_default();
        }
        let touched = Touched { sources: [source].into(), ..Touched::default() };
        self.commit(touched, now_ms, now_ms);
    }

    /// Takes a batch of reports. Returns the new snapshot, or `None` when
    /// nothing that anybody could see has changed.
    pub fn apply(
        &mut self,
        reports: impl IntoIterator<Item = SourceReport>,
        now_ms: u64,
    ) -> Option<Arc<Snapshot>> {
        let mut touched = Touched::default();
        let mut observed_at_ms = 0;
        for report in reports {
            observed_at_ms = observed_at_ms.max(report.observed_at_ms);
            self.facts.take(
                &report.source,
                &report.revision,
                report.observed_at_ms,
                report.event,
                &mut touched,
            );
        }
        self.commit(touched, observed_at_ms, now_ms)
    }

    fn commit(
        &mut self,
        mut touched: Touched,
        observed_at_ms: u64,
        now_ms: u64,
    ) -> Option<Arc<Snapshot>> {
        if touched.is_empty() {
            return None;
        }
        let current = self.hub.snapshot();
        let mut next = Snapshot::clone(&current);
        next.version = current.version.next();
        next.at_ms = now_ms;
        let mut cost = 0;
        cost += self.commit_workloads(&mut next, &mut touched);
        cost += self.commit_services(&mut next, &touched.services, observed_at_ms);
        cost += self.commit_small(&mut next, &touched);
        cost += self.commit_sources(&mut next, &touched.sources);
        if cost == 0 {
            return None;
        }
        // What sources count changes with nearly every report; it goes along with
        // a version that there is anyway.
        cost += self.commit_sources(&mut next, &touched.heard);
        let next = Arc::new(next);
        self.hub.publish(next.clone(), cost);
        Some(next)
    }

    /// Pods first: verdicts on endpoints quote them. A Pod that changes touches
    /// the services that have an endpoint on it.
    fn commit_workloads(&self, next: &mut Snapshot, touched: &mut Touched) -> usize {
        let mut cost = 0;
        let mut explained = BTreeSet::new();
        for name in &touched.workloads {
            let key = FactKey::Workload(name.clone());
            let workload = self.facts.said(&key).find_map(|(_, fact)| match &**fact {
                Fact::Workload(workload) => Some(workload.clone()),
                _ => None,
            });
            let old = next.workload(name);
            if old == workload.as_ref() {
                continue;
            }
            // A Pod that says the same about its endpoints as before touches no
            // service: nearly all Pods of a first listing, and every label.
            if merge::explanation(old.map(|pod| &**pod)) != merge::explanation(workload.as_deref())
            {
                explained.insert(name.clone());
            }
            cost += 512 + next.put_workload(name, workload);
        }
        touch_services_of(next, &explained, &mut touched.services);
        cost
    }

    fn commit_services(
        &self,
        next: &mut Snapshot,
        services: &BTreeSet<ServiceKey>,
        observed_at_ms: u64,
    ) -> usize {
        let mut cost = 0;
        for key in services {
            let workloads = &next.workloads;
            let entry = merge::entry(
                &self.facts,
                key,
                |pod| workloads.get(&pod.namespace, &pod.name),
                next.version,
                observed_at_ms,
            );
            let shard = (key.origin.clone(), key.namespace.clone());
            match (next.services.get(&shard, &key.name), entry) {
                (None, None) => continue,
                (Some(old), Some(new)) if merge::same_content(old, &new) => continue,
                (old, Some(mut new)) => {
                    // The declaration is shared with the version before.
                    if let Some(old) = old
                        && old.service == new.service
                    {
                        new.service = old.service.clone();
                    }
                    cost += entry_cost(&new);
                    cost += next.services.insert(shard, key.name.clone(), Arc::new(new));
                }
                (Some(old), None) => {
                    cost += entry_cost(old);
                    cost += next.services.remove(&shard, &key.name);
                }
            }
        }
        cost
    }

    fn commit_small(&self, next: &mut Snapshot, touched: &Touched) -> usize {
        let mut cost = 0;
        for name in &touched.namespaces {
            let said = self.first(&FactKey::Namespace(name.clone()), |fact| match fact {
                Fact::Namespace(namespace) => Some(namespace.clone()),
                _ => None,
            });
            cost += put(&mut next.namespaces, name, said);
        }
        for name in &touched.nodes {
            let said = self.first(&FactKey::Node(name.clone()), |fact| match fact {
                Fact::Node(node) => Some(node.clone()),
                _ => None,
            });
            cost += put(&mut next.nodes, name, said);
        }
        for key in &touched.rejections {
            let said =
                self.first(&FactKey::Rejection(key.0.clone(), key.1.clone()), |fact| match fact {
                    Fact::Rejection(rejection) => Some(rejection.clone()),
                    _ => None,
                });
            cost += put(&mut next.rejections, key, said);
        }
        cost
    }

    fn commit_sources(&self, next: &mut Snapshot, sources: &BTreeSet<SourceId>) -> usize {
        let mut cost = 0;
        for id in sources {
            let status = self.facts.sources.get(id).map(|source| SourceStatus {
                parts: source
                    .parts
                    .iter()
                    .map(|(name, part)| {
                        let status = PartStatus {
                            complete: part.complete,
                            facts: part.facts,
                            repaired: part.repaired,
                            revision: part.revision.clone(),
                        };
                        (name.clone(), status)
                    })
                    .collect(),
                lost: source.lost.clone(),
                since_ms: source.since_ms,
            });
            cost += put(&mut next.sources, id, status);
        }
        cost
    }

    fn first<T>(&self, key: &FactKey, pick: impl Fn(&Fact) -> Option<T>) -> Option<T> {
        self.facts.said(key).find_map(|(_, fact)| pick(fact))
    }

    /// What listings that should have changed nothing have changed, since this was asked
    /// last: some of it, where it is much.
    pub fn take_repairs(&mut self) -> Vec<Repair> {
        std::mem::take(&mut self.facts.repairs)
    }

    /// The version that readers see.
    pub fn version(&self) -> Version {
        self.hub.snapshot().version()
    }
}

/// Notes the services that have an endpoint on one of the Pods. Services of the
/// Pods' own namespaces only: neither selectors nor registrations reach across.
/// One walk over a namespace serves all of its Pods, so that a storm of them
/// does not cost a walk each.
fn touch_services_of(
    snapshot: &Snapshot,
    pods: &BTreeSet<ObjectName>,
    touched: &mut BTreeSet<ServiceKey>,
) {
    let namespaces: BTreeSet<&Name> = pods.iter().map(|pod| &pod.namespace).collect();
    for origin in if pods.is_empty() { Vec::new() } else { snapshot.origins() } {
        for namespace in &namespaces {
            for entry in snapshot.services_in(&origin, namespace) {
                let mut targets =
                    entry.endpoints.iter().filter_map(|placed| placed.endpoint.target.as_ref());
                if targets.any(|target| pods.contains(target)) {
                    touched.insert(entry.service.key.clone());
                }
            }
        }
    }
}

/// Puts or removes a value; returns what keeping the old state costs, 0 when
/// nothing changed.
fn put<K: Ord + Clone, V: PartialEq>(
    map: &mut Arc<std::collections::BTreeMap<K, Arc<V>>>,
    key: &K,
    value: Option<V>,
) -> usize {
    if map.get(key).map(|old| &**old) == value.as_ref() {
        return 0;
    }
    let copied = copy_bytes(map);
    let map = Arc::make_mut(map);
    match value {
        Some(value) => map.insert(key.clone(), Arc::new(value)),
        None => map.remove(key),
    };
    256 + copied
}

/// Roughly what one kept entry holds: the list of endpoints, and the endpoints
/// themselves at worst.
fn entry_cost(entry: &ServiceEntry) -> usize {
    1024 + entry.endpoints.len() * (size_of::<Placed>() + size_of::<Endpoint>())
}
