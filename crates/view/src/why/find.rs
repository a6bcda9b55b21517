//! What there is under a target: instances, services, refused objects, and Pods
//! that are in front of a service or in front of none.

use std::{net::IpAddr, sync::Arc};

use portolan_catalog::{ServiceEntry, Snapshot};
use portolan_model::{Code, ObjectName, Placed, Reason, Rejection, Service, ServiceKey, Workload};

use crate::target::{Target, find_services};

/// What was found for a target.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) instances: Vec<(&'a Arc<ServiceEntry>, &'a Placed)>,
    pub(super) services: Vec<&'a Arc<ServiceEntry>>,
    pub(super) rejections: Vec<&'a Arc<Rejection>>,
    /// Pods that no service lists.
    pub(super) unplaced: Vec<&'a Arc<Workload>>,
    /// Pods that a service's selector matches and that are no endpoint of it yet.
    pub(super) waiting: Vec<(&'a Arc<Workload>, &'a ServiceKey)>,
    /// What is wrong with the question itself: a port that nobody offers.
    pub(super) reasons: Vec<Reason>,
}

impl<'a> Found<'a> {
    /// Everything under a target.
    pub(super) fn of(snapshot: &'a Snapshot, target: &Target) -> Self {
        let mut found = Self::default();
        match target {
            Target::Service { namespace, name } => found.add_named(snapshot, namespace, name),
            Target::DnsName(key) => {
                if let Some(entry) = snapshot.service(key) {
                    found.add_service(snapshot, entry);
                }
                found.add_rejections(snapshot, |object| {
                    object.namespace == key.namespace && object.name == key.name
                });
            }
            Target::Pod(pod) => found.add_pod(snapshot, pod),
            Target::Address(address, port) => found.add_address(snapshot, *address, *port),
            Target::Bare { namespace, name } => {
                found.add_named(snapshot, namespace, name);
                if found.services.is_empty() {
                    found.add_pod(snapshot, &ObjectName::new(namespace, name));
                }
            }
        }
        found
    }

    /// Every service that takes part in the answer.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a ServiceKey> + '_ {
        let owners = self.instances.iter().map(|(entry, _)| entry);
        self.services.iter().chain(owners).map(|entry| &entry.service.key)
    }

    /// Nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty()
            && self.services.is_empty()
            && self.rejections.is_empty()
            && self.unplaced.is_empty()
            && self.waiting.is_empty()
    }

    fn add_named(&mut self, snapshot: &'a Snapshot, namespace: &str, name: &str) {
        for entry in find_services(snapshot, namespace, name) {
            self.add_service(snapshot, entry);
        }
        self.add_rejections(snapshot, |object| {
            *object.namespace == *namespace && *object.name == *name
        });
        // A Pod of the service may have been refused before it became an
        // instance (its annotation does not decode): show it with the service.
        let services: Vec<_> = self.services.iter().map(|entry| entry.service.clone()).collect();
        self.add_rejections(snapshot, |object| {
            *object.namespace == *namespace
                && snapshot
                    .workload(object)
                    .is_some_and(|pod| services.iter().any(|service| selects(service, pod)))
        });
    }

    fn add_service(&mut self, snapshot: &'a Snapshot, entry: &'a Arc<ServiceEntry>) {
        if self.services.iter().any(|known| Arc::ptr_eq(known, entry)) {
            return;
        }
        self.services.push(entry);
        self.instances.extend(entry.endpoints.iter().map(|placed| (entry, placed)));
        // Pods that match and are no endpoint: without an address, or ended.
        let matching = snapshot.workloads().filter(|pod| selects(&entry.service, pod));
        let absent = matching.filter(|pod| !lists(entry, pod));
        self.waiting.extend(absent.map(|pod| (pod, &entry.service.key)));
    }

    fn add_pod(&mut self, snapshot: &'a Snapshot, pod: &ObjectName) {
        for entry in snapshot.services() {
            for placed in entry.endpoints.iter() {
                if placed.endpoint.target.as_ref() == Some(pod) {
                    self.instances.push((entry, placed));
                }
            }
        }
        self.add_rejections(snapshot, |object| object == pod);
        let Some(workload) = snapshot.workload(pod) else { return };
        for entry in snapshot.services() {
            if selects(&entry.service, workload) && !lists(entry, workload) {
                self.waiting.push((workload, &entry.service.key));
            }
        }
        if self.instances.is_empty() && self.waiting.is_empty() {
            self.unplaced.push(workload);
        }
    }

    fn add_address(&mut self, snapshot: &'a Snapshot, address: IpAddr, port: Option<u16>) {
        let node = address.is_loopback()
            || snapshot.nodes().values().any(|node| node.addresses.contains(&address));
        let (mut offered, mut elsewhere) = (Vec::new(), Vec::new());
        for entry in snapshot.services() {
            let service = &entry.service;
            let on_node = |wanted| service.ports.iter().any(|p| p.node_port == Some(wanted));
            if service.addresses.contains(&address) {
                self.add_service(snapshot, entry);
                offered.extend(service.ports.iter().map(|port| port.port));
            } else if node && port.is_some_and(on_node) {
                self.add_service(snapshot, entry);
                offered.extend(port);
            }
            for placed in entry.endpoints.iter().filter(|one| one.endpoint.address == address) {
                let ports: Vec<u16> =
                    placed.endpoint.ports.iter().filter_map(|port| port.port).collect();
                if port.is_none_or(|port| ports.contains(&port)) {
                    self.instances.push((entry, placed));
                    offered.extend(port);
                } else {
                    elsewhere.push((entry, placed));
                    offered.extend(ports);
                }
            }
        }
        if self.is_empty() {
            // Nobody on this port: show who has the address on others.
            self.instances = elsewhere;
        }
        if self.is_empty() {
            let pods = snapshot.workloads().filter(|pod| pod.addresses.contains(&address));
            for pod in pods {
                self.add_pod(snapshot, &pod.name);
            }
        }
        if let Some(port) = port
            && !self.is_empty()
            && !offered.contains(&port)
        {
            offered.sort_unstable();
            offered.dedup();
            let offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
            let detail = match offered.is_empty() {
                true => format!("{address} offers none."),
                false => format!("{address} offers {}, not {port}.", offered.join(", ")),
            };
            self.reasons.push(Reason::new(Code::PORT_UNKNOWN, detail));
        }
    }

    fn add_rejections(&mut self, snapshot: &'a Snapshot, accepts: impl Fn(&ObjectName) -> bool) {
        for rejection in snapshot.rejections() {
            let known = self.rejections.iter().any(|known| Arc::ptr_eq(known, rejection));
            if !known && accepts(&rejection.object) {
                self.rejections.push(rejection);
            }
        }
    }
}

/// Whether a service's selector chooses a Pod. An empty selector chooses none.
fn selects(service: &Service, pod: &Workload) -> bool {
    !service.selector.is_empty()
        && pod.name.namespace == service.key.namespace
        && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

/// Whether a Pod is an endpoint of a service.
fn lists(entry: &ServiceEntry, pod: &Workload) -> bool {
    entry.endpoints.iter().any(|placed| placed.endpoint.target.as_ref() == Some(&pod.name))
}
