//! The records of a place.
//!
//! Pure builders: from hits to A, AAAA and SRV, from an address to PTR, from the
//! server's own addresses to NS, and the SOA of a zone. A name that cannot be
//! built (a label too long for DNS) leaves its record out, never the answer.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use domain::{
    base::{Serial, Ttl},
    rdata::{A, Aaaa, Ns, Ptr, Soa, Srv, Txt, ZoneRecordData},
};
use portolan_catalog::ServiceEntry;
use portolan_model::{Endpoint, Exposure, Origin, ServiceKey};

use crate::{
    address_book::is_declared,
    name::{DnsName, Rr, join, record},
    names::Names,
    place::{Hit, OutsideHit},
    settings::{CLUSTERSET_VERSION, DNS_VERSION, DNS_VERSION_TTL_SECONDS, ZoneKind},
};

/// SOA timers, as CoreDNS has them. Nobody transfers the zone by them.
pub(crate) const SOA_REFRESH_SECONDS: u32 = 7200;
pub(crate) const SOA_RETRY_SECONDS: u32 = 1800;
pub(crate) const SOA_EXPIRE_SECONDS: u32 = 86_400;
/// The longest TTL of the record itself, and so of any denial (RFC 2308, 5).
pub(crate) const SOA_TTL_SECONDS_MAX: u32 = 300;

/// The longest label that DNS takes (RFC 1035, 2.3.4).
const LABEL_MAX: usize = 63;

/// A or AAAA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// One address record.
pub(crate) fn address(owner: &DnsName, ttl: u32, address: IpAddr) -> Rr {
    match address {
        IpAddr::V4(v4) => record(owner, ttl, A::new(v4)),
        IpAddr::V6(v6) => record(owner, ttl, Aaaa::new(v6)),
    }
}

/// The addresses of hits, each once.
pub(crate) fn addresses(
    owner: &DnsName,
    ttl: u32,
    family: Family,
    found: impl IntoIterator<Item = IpAddr>,
) -> Vec<Rr> {
    unique(family, found).map(|found| address(owner, ttl, found)).collect()
}

/// The addresses of a family, each once.
pub(crate) fn unique(
    family: Family,
    found: impl IntoIterator<Item = IpAddr>,
) -> impl Iterator<Item = IpAddr> {
    let mut seen = BTreeSet::new();
    found.into_iter().filter(move |address| family.has(*address) && seen.insert(*address))
}

/// SRV records, and the addresses of their targets.
///
/// The weight is shared out over all ports and addresses before targets that
/// occur twice are dropped (CoreDNS' `backend_lookup.go`); it is never 0, which
/// would all but exclude a target.
pub(crate) fn services(
    owner: &DnsName,
    naming: Naming<'_>,
    ttl: u32,
    key: &ServiceKey,
    hits: &[Hit],
) -> (Vec<Rr>, Vec<Rr>) {
    let weight = weight(hits.len());
    let (mut answer, mut additional) = (Vec::new(), Vec::new());
    let (mut targets, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for hit in hits {
        let Some(port) = hit.port else { continue };
        let Some(target) = naming.service(key, hit.endpoint.as_deref()) else { continue };
        if targets.insert((hit.endpoint.as_deref(), port)) {
            answer.push(record(owner, ttl, Srv::new(0, weight, port, target.clone())));
        }
        if addresses.insert((hit.endpoint.as_deref(), hit.address)) {
            additional.push(address(&target, ttl, hit.address));
        }
    }
    (answer, additional)
}

/// The share of each of so many targets.
pub(crate) fn weight(targets: usize) -> u16 {
    u16::try_from((100 / targets.max(1)).max(1)).unwrap_or(1)
}

/// SRV records of a service as it is reached from outside. A name of its load
/// balancer is a target as it stands.
pub(crate) fn outside_services(
    owner: &DnsName,
    naming: Naming<'_>,
    ttl: u32,
    key: &ServiceKey,
    hits: &[OutsideHit],
) -> (Vec<Rr>, Vec<Rr>) {
    let addresses: Vec<Hit> = hits
        .iter()
        .filter_map(|hit| match hit {
            OutsideHit::Address(hit) => Some(hit.clone()),
            OutsideHit::Balancer(..) => None,
        })
        .collect();
    let (mut answer, additional) = services(owner, naming, ttl, key, &addresses);
    let weight = weight(hits.len());
    for record in &mut answer {
        if let ZoneRecordData::Srv(srv) = record.data() {
            let srv = Srv::new(srv.priority(), weight, srv.port(), srv.target().clone());
            *record = self::record(owner, ttl, srv);
        }
    }
    for hit in hits {
        let OutsideHit::Balancer(target, Some(port)) = hit else { continue };
        let target = record(owner, ttl, Srv::new(0, weight, *port, target.clone()));
        if !answer.contains(&target) {
            answer.push(target);
        }
    }
    (answer, additional)
}

/// The names of an address: of the services that are reached there from outside,
/// where such names are served; of the Service whose virtual IP it is, else of each
/// Service that hands it out, else of services of other origins.
pub(crate) fn pointers(names: &Names, owner: &DnsName, address: IpAddr) -> Vec<Rr> {
    let exposed = |key: &&ServiceKey| names.shows_key(key);
    if let Some(zone) = names.settings.external_zone() {
        let naming = Naming { kind: ZoneKind::External, suffix: zone };
        let keys = names.addresses.outside_of(address).filter(exposed);
        let targets: Vec<DnsName> = keys.filter_map(|key| naming.service(key, None)).collect();
        if !targets.is_empty() {
            let ttl = names.settings.external.ttl_seconds;
            return targets.into_iter().map(|name| record(owner, ttl, Ptr::new(name))).collect();
        }
    }
    let Some(zone) = names.settings.primary() else { return Vec::new() };
    let naming = Naming { kind: ZoneKind::Cluster, suffix: zone };
    if let Some(key) = names.addresses.virtual_of(address).find(exposed) {
        return naming
            .service(key, None)
            .map(|target| pointer(names, owner, target))
            .into_iter()
            .collect();
    }
    let (kubernetes, others): (Vec<_>, Vec<_>) = names
        .addresses
        .endpoint_of(address)
        .filter(|key| names.settings.endpoints && exposed(key))
        .partition(|key| key.origin.as_str() == Origin::KUBERNETES);
    let keys = if kubernetes.is_empty() { others } else { kubernetes };
    let mut seen: Vec<DnsName> = Vec::new();
    for key in keys {
        let Some(entry) = names.snapshot.service(key) else { continue };
        for label in labels_of(names, entry, address) {
            if let Some(target) = naming.service(key, Some(&label))
                && !seen.contains(&target)
            {
                seen.push(target);
            }
        }
    }
    seen.into_iter().map(|target| pointer(names, owner, target)).collect()
}

fn pointer(names: &Names, owner: &DnsName, target: DnsName) -> Rr {
    record(owner, names.settings.ttl_seconds, Ptr::new(target))
}

/// The labels that endpoints of one address have below a service.
fn labels_of(names: &Names, entry: &ServiceEntry, address: IpAddr) -> BTreeSet<String> {
    let served = entry.served().filter(|placed| placed.endpoint.address == address);
    served
        .map(|placed| endpoint_label(&placed.endpoint, names.settings.endpoint_pod_names))
        .collect()
}

/// The names of this server with their addresses: the Services that stand
/// before it, or else `ns.dns` of the zone.
pub(crate) fn name_servers(names: &Names, naming: Naming<'_>) -> Vec<(DnsName, Vec<IpAddr>)> {
    let suffix = naming.suffix;
    if naming.kind == ZoneKind::External {
        let apex = names.settings.external.apex.as_str();
        let name = join(&["ns1", apex], suffix);
        return name.map(|name| (name, outside_addresses(names))).into_iter().collect();
    }
    let mut found: Vec<(DnsName, Vec<IpAddr>)> = Vec::new();
    let own = &names.settings.own_addresses;
    for socket in own {
        for key in names.addresses.endpoint_of(socket.ip()) {
            let Some(entry) = names.snapshot.service(key) else { continue };
            if key.origin.as_str() != Origin::KUBERNETES || !leads_to(entry, *socket) {
                continue;
            }
            let virtual_ip = entry.service.exposure == Exposure::ClusterIp;
            let (labels, addresses) = if virtual_ip {
                (vec![None], entry.service.addresses.clone())
            } else {
                let labels = labels_of(names, entry, socket.ip());
                (labels.into_iter().map(Some).collect(), vec![socket.ip()])
            };
            for label in labels {
                if let Some(name) = naming.service(key, label.as_deref())
                    && found.iter().all(|(other, _)| *other != name)
                {
                    found.push((name, addresses.clone()));
                }
            }
        }
    }
    if found.is_empty()
        && let Some(name) = join(&["ns", "dns"], suffix)
    {
        let mut addresses: Vec<IpAddr> = own.iter().map(SocketAddr::ip).collect();
        addresses.dedup();
        found.push((name, addresses));
    }
    found
}

/// Whether an endpoint of the service is this server. On a loopback network an
/// address alone proves nothing, so the port must agree where one is told.
fn leads_to(entry: &ServiceEntry, own: SocketAddr) -> bool {
    is_declared(entry)
        && entry.served().any(|placed| {
            let ports = &placed.endpoint.ports;
            placed.endpoint.address == own.ip()
                && (ports.is_empty()
                    || ports.iter().any(|port| port.port.is_none_or(|port| port == own.port())))
        })
}

/// NS records with the addresses of their targets.
pub(crate) fn delegation(names: &Names, naming: Naming<'_>) -> (Vec<Rr>, Vec<Rr>) {
    let (suffix, ttl) = (naming.suffix, names.settings.ttl_in(naming.kind));
    let (mut answer, mut additional) = (Vec::new(), Vec::new());
    for (name, addresses) in name_servers(names, naming) {
        additional.extend(addresses.into_iter().map(|found| address(&name, ttl, found)));
        answer.push(record(suffix, ttl, Ns::new(name)));
    }
    (answer, additional)
}

/// The SOA of a zone. In a denial its TTL and its minimum say how long others
/// may remember the denial (RFC 2308, 5).
pub(crate) fn authority(names: &Names, naming: Naming<'_>, denial: bool) -> Option<Rr> {
    let settings = &names.settings;
    let suffix = naming.suffix;
    let minimum = settings.negative_ttl_seconds;
    let ttl = if denial { minimum } else { settings.ttl_in(naming.kind) };
    let server = match naming.kind {
        ZoneKind::External => join(&["ns1", settings.external.apex.as_str()], suffix)?,
        _ => join(&["ns", "dns"], suffix)?,
    };
    let soa = Soa::new(
        server,
        join(&["hostmaster"], suffix)?,
        Serial::from(names.serial),
        Ttl::from_secs(SOA_REFRESH_SECONDS),
        Ttl::from_secs(SOA_RETRY_SECONDS),
        Ttl::from_secs(SOA_EXPIRE_SECONDS),
        Ttl::from_secs(minimum),
    );
    Some(record(suffix, ttl.min(SOA_TTL_SECONDS_MAX), soa))
}

/// `dns-version`.
pub(crate) fn dns_version(owner: &DnsName, kind: ZoneKind) -> Vec<Rr> {
    let version = if kind == ZoneKind::ClusterSet { CLUSTERSET_VERSION } else { DNS_VERSION };
    Txt::<Bytes>::build_from_slice(version.as_bytes())
        .map(|text| record(owner, DNS_VERSION_TTL_SECONDS, ZoneRecordData::Txt(text)))
        .into_iter()
        .collect()
}

/// How names in a zone are formed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming<'a> {
    pub(crate) kind: ZoneKind,
    /// The zone, in the case in which it was asked for.
    pub(crate) suffix: &'a DnsName,
}

impl Naming<'_> {
    /// The name of a service or of an endpoint below it.
    pub(crate) fn service(&self, key: &ServiceKey, endpoint: Option<&str>) -> Option<DnsName> {
        let branch = match key.origin.as_str() {
            _ if self.kind == ZoneKind::External => None,
            Origin::KUBERNETES | Origin::CLUSTERSET => Some("svc"),
            other => Some(other),
        };
        let parts = [endpoint, Some(&key.name), Some(&key.namespace), branch];
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        join(&parts, self.suffix)
    }
}

/// The addresses at which this server is reached from outside: those of the
/// Services that stand before it, or else its own.
fn outside_addresses(names: &Names) -> Vec<IpAddr> {
    let own = &names.settings.own_addresses;
    let (mut found, mut stands_before) = (Vec::new(), false);
    for socket in own {
        for key in names.addresses.endpoint_of(socket.ip()) {
            let Some(entry) = names.snapshot.service(key) else { continue };
            if key.origin.as_str() != Origin::KUBERNETES || !leads_to(entry, *socket) {
                continue;
            }
            stands_before = true;
            match &entry.service.outside {
                Some(outside) => found.extend(outside.addresses.iter().chain(&outside.balancers)),
                None if names.settings.external.headless
                    && entry.service.exposure == Exposure::Headless =>
                {
                    found.push(socket.ip());
                }
                None => {}
            }
        }
    }
    if !stands_before {
        found.extend(own.iter().map(SocketAddr::ip));
    }
    let mut seen = BTreeSet::new();
    found.retain(|address| seen.insert(*address));
    found
}

/// The label of an endpoint below its service: its hostname; where Pods name
/// endpoints, its Pod; else its address with dashes. A label must not end in a
/// dash, so `2001::` becomes `2001--0`.
pub(crate) fn endpoint_label(endpoint: &Endpoint, pod_names: bool) -> String {
    if let Some(hostname) = &endpoint.particulars.hostname {
        return hostname.to_string();
    }
    if pod_names
        && let Some(target) = &endpoint.target
        && target.name.len() <= LABEL_MAX
    {
        return target.name.to_string();
    }
    let mut label = endpoint.address.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

#[cfg(test)]
mod tests {
    use portolan_testkit::endpoint;

    use super::*;

    #[test]
    fn labels_of_endpoints() {
        for (address, hostname, expected) in [
            ("10.0.0.1", None, "10-0-0-1"),
            ("10.0.0.1", Some("db-0"), "db-0"),
            ("2001:db8::a", None, "2001-db8--a"),
            ("2001:db8::", None, "2001-db8--0"),
        ] {
            let mut endpoint = endpoint(address.parse().unwrap(), &[]);
            endpoint.particulars.hostname = hostname.map(Into::into);
            assert_eq!(endpoint_label(&endpoint, false), expected);
        }
    }
}
