//! Backends: the ports of services as any client of this face sees them, before a
//! dialect says it in its own resources.
//!
//! A backend is one port of one service with the endpoints that take its traffic.
//! Which those are is decided by `portolan_catalog::choose` alone; here they get the
//! form that balancers want: one address family, grouped by locality, with weights
//! that no client refuses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use portolan_catalog::{
    ServiceEntry,
    choose::{Traffic, choose_among},
};
use portolan_model::{ClientView, Endpoint, Exposure, Name, ServiceKey, ServicePort, Transport};

use crate::{names, protocol::Protocol};

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Of which service.
    pub key: ServiceKey,
    /// Its full name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the port is treated.
    pub protocol: Protocol,
    /// Virtual IPs. Empty for headless services.
    pub addresses: Vec<IpAddr>,
    /// Where its traffic goes, by locality.
    pub localities: BTreeMap<Locality, Vec<Destination>>,
}

/// Where an endpoint runs. Empty: nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// The zone of its node.
    pub zone: Option<Name>,
}

/// An endpoint that takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Where to connect to.
    pub address: SocketAddr,
    /// Its share; at least 1, and the shares of a backend fit into 32 bits together.
    pub weight: u32,
}

impl Backend {
    /// The name of its cluster.
    pub fn cluster(&self) -> String {
        names::cluster(&self.host, self.port)
    }

    /// Whether names resolve to its endpoints themselves.
    pub fn is_headless(&self) -> bool {
        self.addresses.is_empty()
    }
}

/// The backends of a service, in order of their ports. None for an alias: its name
/// stands with the service that it means ([`crate::aliases`]).
pub fn backends(entry: &ServiceEntry, cluster_domain: &str, view: &ClientView) -> Vec<Backend> {
    with(entry, cluster_domain, |port, addresses| destinations(entry, port, addresses, view))
}

/// The same without their endpoints: what of a service changes seldom.
pub fn shapes(entry: &ServiceEntry, cluster_domain: &str) -> Vec<Backend> {
    with(entry, cluster_domain, |_, _| BTreeMap::new())
}

fn with(
    entry: &ServiceEntry,
    cluster_domain: &str,
    localities: impl Fn(&ServicePort, &[IpAddr]) -> BTreeMap<Locality, Vec<Destination>>,
) -> Vec<Backend> {
    let service = &entry.service;
    if matches!(service.exposure, Exposure::ExternalName(_)) {
        return Vec::new();
    }
    let Some(host) = names::host(&service.key, cluster_domain) else { return Vec::new() };
    let addresses = match service.exposure {
        Exposure::ClusterIp => service.addresses.clone(),
        _ => Vec::new(),
    };
    // A number stands for one port here; the first that declares it has it.
    let mut by_number = BTreeMap::new();
    for port in ports(entry) {
        let Some(protocol) = Protocol::of(&port) else { continue };
        by_number.entry(port.port).or_insert_with(|| Backend {
            key: service.key.clone(),
            host: host.clone(),
            port: port.port,
            protocol,
            addresses: addresses.clone(),
            localities: localities(&port, &addresses),
        });
    }
    by_number.into_values().collect()
}

/// The declared ports, or those that the endpoints of a service without a
/// declaration listen on: clients reach them there.
fn ports(entry: &ServiceEntry) -> Vec<ServicePort> {
    if !entry.service.ports.is_empty() {
        return entry.service.ports.clone();
    }
    let mut found = BTreeMap::new();
    for port in entry.endpoints.iter().flat_map(|placed| placed.endpoint.ports.iter()) {
        let Some(number) = port.port else { continue };
        let app_protocol = port
            .app_protocol
            .clone()
            .unwrap_or_else(|| portolan_model::AppProtocol::of(None, &port.name, port.transport));
        // By name first, as the endpoints of one port may listen on several numbers:
        // the lowest is the port's.
        let slot = found.entry((port.name.clone(), port.transport)).or_insert(ServicePort {
            name: port.name.clone(),
            transport: port.transport,
            port: number,
            node_port: None,
            app_protocol,
        });
        slot.port = slot.port.min(number);
    }
    found.into_values().collect()
}

fn destinations(
    entry: &ServiceEntry,
    port: &ServicePort,
    addresses: &[IpAddr],
    view: &ClientView,
) -> BTreeMap<Locality, Vec<Destination>> {
    // One family: a Pod with an address of each would else count twice. It is that
    // of the virtual IP; endpoints are in order of address, IPv4 first.
    let families: &[bool] = match addresses.first() {
        Some(address) => &[address.is_ipv4()],
        None => &[true, false],
    };
    let chosen = families.iter().find_map(|is_ipv4| {
        let can = |endpoint: &Endpoint| {
            endpoint.address.is_ipv4() == *is_ipv4 && is_behind(endpoint, port)
        };
        let chosen = choose_among(entry, view, Traffic::Internal, can).endpoints;
        (!chosen.is_empty()).then_some(chosen)
    });
    let mut found: BTreeMap<SocketAddr, (Locality, u32)> = BTreeMap::new();
    for endpoint in chosen.iter().flatten().map(|placed| &placed.endpoint) {
        // An endpoint that takes any port is met on the service's own.
        let number = endpoint.port(&port.name, port.transport).unwrap_or(port.port);
        let locality = Locality { zone: endpoint.zone.clone() };
        // Clients refuse an address that comes twice.
        found
            .entry((endpoint.address, number).into())
            .or_insert((locality, endpoint.particulars.weight.max(1)));
    }
    let shrink = shrink(found.values().map(|(_, weight)| *weight));
    let mut localities: BTreeMap<Locality, Vec<Destination>> = BTreeMap::new();
    for (address, (locality, weight)) in found {
        let weight = (weight / shrink).max(1);
        localities.entry(locality).or_default().push(Destination { address, weight });
    }
    localities
}

fn is_behind(endpoint: &Endpoint, port: &ServicePort) -> bool {
    let mut ports = endpoint.ports.iter();
    ports.any(|own| own.name == port.name && own.transport == Transport::Tcp)
}

/// What weights have to be divided by, so that their sum fits into 32 bits: clients
/// refuse the whole service otherwise.
fn shrink(weights: impl ExactSizeIterator<Item = u32>) -> u32 {
    let count = weights.len() as u64;
    let sum: u64 = weights.map(u64::from).sum();
    // Those that would vanish stay at 1, hence the room for all of them.
    let room = u64::from(u32::MAX).saturating_sub(count).max(1);
    u32::try_from(sum.div_ceil(room).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
