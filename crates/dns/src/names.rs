//! Everything that answers are made from, at one version.
//!
//! [`Names`] is a snapshot with the indexes that DNS needs beside it, and what
//! is answered as bytes. It is
//! a value: the follower makes the next one from a diff, workers keep reading
//! the one they loaded. What has not changed is shared, so a step costs as much
//! as what it changes.

use std::{net::IpAddr, sync::Arc};

use portolan_catalog::{Diff, ServiceEntry, Snapshot, Update};
use portolan_model::{
    ClientView, Exposure, Name, Origin, Selector, ServiceKey, TrafficDistribution,
};

use crate::{
    address_book::{AddressBook, is_declared},
    compiled::Compiled,
    folded::FoldedNames,
    settings::Settings,
};

/// Everything that answers are made from, at one version.
#[derive(Clone, Debug)]
pub struct Names {
    pub(crate) settings: Arc<Settings>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) addresses: AddressBook,
    pub(crate) folded: FoldedNames,
    pub(crate) serial: u32,
    /// Services whose endpoints are handed out by nearness.
    near_services: usize,
    pub(crate) compiled: Compiled,
}

impl Names {
    /// Reads a whole snapshot.
    pub fn new(settings: Arc<Settings>, snapshot: Arc<Snapshot>) -> Self {
        let mut addresses = AddressBook::default();
        let mut folded = FoldedNames::default();
        for entry in snapshot.services() {
            addresses.replace(None, Some(entry));
            folded.replace(None, Some(entry));
        }
        let near_services = snapshot.services().filter(|entry| is_near(entry)).count();
        let serial = serial(&snapshot, 0);
        let compiled = Compiled::default();
        let mut names =
            Self { serial, settings, snapshot, addresses, folded, near_services, compiled };
        names.compiled = Compiled::new(&names);
        names
    }

    /// The names after an update of the catalog.
    #[must_use]
    pub fn follow(&self, update: &Update) -> Self {
        match update {
            Update::Diff(diff, snapshot) if diff.from == self.snapshot.version() => {
                self.step(diff, snapshot)
            }
            Update::Reset(snapshot) | Update::Diff(_, snapshot) => {
                let mut next = Self::new(self.settings.clone(), snapshot.clone());
                next.serial = next.serial.max(self.serial);
                next.compiled = Compiled::new(&next);
                next
            }
        }
    }

    fn step(&self, diff: &Diff, snapshot: &Arc<Snapshot>) -> Self {
        let mut next = Self { snapshot: snapshot.clone(), ..self.clone() };
        for change in &diff.services {
            let (before, after) = (change.before.as_deref(), change.after.as_deref());
            next.addresses.replace(before, after);
            next.folded.replace(before, after);
            let count = |entry: Option<&ServiceEntry>| usize::from(entry.is_some_and(is_near));
            next.near_services = (next.near_services + count(after)).saturating_sub(count(before));
        }
        if !diff.services.is_empty() || !diff.namespaces.is_empty() {
            next.serial = serial(snapshot, self.serial);
        }
        let mut compiled = std::mem::take(&mut next.compiled);
        compiled.step(&next, diff);
        next.compiled = compiled;
        next
    }

    /// Whether a namespace may have names.
    pub(crate) fn exposes(&self, namespace: &str) -> bool {
        let settings = &self.settings;
        let labels = |selector: &Selector| {
            let known = self.snapshot.namespaces().get(namespace);
            known.is_some_and(|namespace| selector.accepts(&namespace.labels))
        };
        settings.namespaces.as_ref().is_none_or(|exposed| exposed.contains(namespace))
            && settings.namespace_labels.as_ref().is_none_or(labels)
    }

    /// Whether a namespace exists and may have names. A source may tell of services
    /// without listing namespaces.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        let shared = Name::from(namespace);
        let has_service =
            |origin| self.snapshot.services_in(&origin, &shared).any(|entry| is_declared(entry));
        self.exposes(namespace)
            && (self.snapshot.namespaces().contains_key(namespace)
                || has_service(Origin::kubernetes())
                || has_service(Origin::clusterset()))
    }

    /// Whether a service may have names. Does not look at its namespace.
    pub(crate) fn shows(&self, entry: &ServiceEntry) -> bool {
        let labels = self.settings.labels.as_ref();
        let service = &entry.service;
        is_declared(entry)
            && (!service.key.origin.is_declarative()
                || labels.is_none_or(|selector| selector.accepts(&service.labels)))
    }

    /// Whether a service and its namespace may have names.
    pub(crate) fn shows_key(&self, key: &ServiceKey) -> bool {
        self.exposes(&key.namespace)
            && self.snapshot.service(key).is_some_and(|entry| self.shows(entry))
    }

    /// What of a client may change its answers: where it runs, as far as any
    /// service asks for nearness.
    pub(crate) fn view_of(&self, client: IpAddr) -> ClientView {
        if self.near_services == 0 {
            return ClientView::default();
        }
        let client = client.to_canonical();
        let nodes = self.snapshot.nodes();
        let zone_of = |node: &Name| nodes.get(node).and_then(|node| node.zone.clone());
        if let Some(node) = self.snapshot.workload_at(client).and_then(|pod| pod.node.clone()) {
            return ClientView { zone: zone_of(&node), node: Some(node), ..ClientView::default() };
        }
        // Pods on the network of their node; and where no Pods are watched, the
        // client may be an endpoint itself, which tells of its node and zone.
        if let Some(node) = nodes.values().find(|node| node.addresses.contains(&client)) {
            let (name, zone) = (node.name.clone(), node.zone.clone());
            return ClientView { node: Some(name), zone, ..ClientView::default() };
        }
        let mut own = self.addresses.endpoint_of(client).filter_map(|key| {
            let entry = self.snapshot.service(key)?;
            let mut served = entry.served().map(|placed| &placed.endpoint);
            served.find(|endpoint| endpoint.address == client).cloned()
        });
        own.next().map_or_else(ClientView::default, |endpoint| ClientView {
            zone: endpoint.zone.clone(),
            node: endpoint.node.clone(),
            ..ClientView::default()
        })
    }

    /// The same names by other settings.
    #[must_use]
    pub(crate) fn by(&self, settings: Arc<Settings>) -> Self {
        let next = Self::new(settings, self.snapshot.clone());
        Self { serial: next.serial.max(self.serial), ..next }
    }

    /// The snapshot behind the names.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What the operator chose.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Whether answers about a service depend on where the client is.
pub(crate) fn is_near(entry: &ServiceEntry) -> bool {
    let service = &entry.service;
    service.exposure == Exposure::Headless && service.distribution != TrafficDistribution::Any
}

/// Unix time of the change, as CoreDNS has it; never backwards when the clock
/// is set back, which secondaries would take for the distant future.
fn serial(snapshot: &Snapshot, last: u32) -> u32 {
    u32::try_from(snapshot.at_ms() / 1000).unwrap_or(u32::MAX).max(last)
}
