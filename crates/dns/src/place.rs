//! What a name means, whatever type of record is asked for.
//!
//! A name is read from the right: the zone, then `svc`, `pod` or an origin, the
//! namespace, the service, and below it an endpoint or `_port._protocol`. The
//! outcome is a [`Place`]; whether a question about it is answered with records
//! or with NODATA is decided later, by type. A name that means nothing carries
//! the reason ([`Absence`]), so that `dig +trace` and `why` need no second way of
//! finding out.

use std::{net::IpAddr, sync::Arc};

use portolan_catalog::ServiceEntry;
use portolan_model::{Endpoint, Exposure, Name, Origin, ServiceKey, Transport};

use crate::{
    address_book::is_declared,
    name::{DnsName, depth, folded_labels, suffix},
    names::Names,
    records::endpoint_label,
    settings::{PodNames, Zone, ZoneKind},
};

/// What a name means.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// The top of a zone.
    Apex,
    /// Nothing stands here, but names below do.
    Empty,
    /// `dns-version`.
    DnsVersion,
    /// `ns.dns`, the name of this server.
    NameServer,
    /// A service, one of its ports, or endpoints of it.
    Service(Arc<ServiceEntry>, Vec<Hit>),
    /// A service that is an alias, with the name it stands for.
    Alias(Arc<ServiceEntry>, DnsName),
    /// A Pod by its address.
    Pod(IpAddr),
    /// An address in a reverse zone that belongs to somebody.
    Address(IpAddr),
    /// Services whose names differ in case only: none of them can answer.
    Ambiguous(Vec<ServiceKey>),
    /// The name does not exist.
    Absent(Absence),
}

/// One address behind a name, with one port; a service without ports has hits
/// without a port, which answer for addresses only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The address.
    pub address: IpAddr,
    /// The port, for SRV.
    pub port: Option<u16>,
    /// The endpoint's label below the service; `None` for a virtual IP.
    pub endpoint: Option<Name>,
}

/// Why a name does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Right of the namespace stands neither `svc` nor `pod` nor an origin that
    /// has services.
    NoBranch(String),
    /// No such namespace, or it is not exposed.
    NoNamespace(String),
    /// The namespace has no such service.
    NoService(String),
    /// The service has no endpoint that is handed out, of so many.
    NoReadyEndpoint(ServiceKey, usize),
    /// The service has no such port.
    NoPort(ServiceKey),
    /// No endpoint that is handed out has this name.
    NoEndpoint(ServiceKey),
    /// An alias has no names below it, and none at all when its target is an
    /// address or no name.
    BadAlias(ServiceKey),
    /// More labels than any name has.
    TooDeep,
    /// Names of Pods are switched off.
    PodsDisabled,
    /// The label is no address, or (when verified) no Pod of the namespace has it.
    NoPod,
    /// No service has the address, or the name is no address.
    NoAddress,
}

/// A name in its zone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located<'n> {
    pub(crate) zone: &'n Zone,
    /// The zone's part of the name, in the case in which it was asked: answers
    /// repeat it, as clients that mix case on purpose expect.
    pub(crate) suffix: DnsName,
    pub(crate) place: Place,
}

/// Finds the place of a name. `None`: it is in no zone of ours.
pub(crate) fn locate<'n>(names: &'n Names, name: &DnsName) -> Option<Located<'n>> {
    let zone = names.settings.zone_of(name)?;
    let zone_labels = depth(&zone.apex);
    let labels = folded_labels(name);
    let own: Vec<&str> =
        labels.iter().take(labels.len().saturating_sub(zone_labels)).map(String::as_str).collect();
    let place = match zone.kind {
        ZoneKind::Cluster => in_cluster(names, &own),
        ZoneKind::Reverse | ZoneKind::ReverseKnown if own.is_empty() => Place::Apex,
        ZoneKind::Reverse | ZoneKind::ReverseKnown => in_reverse(names, &labels),
    };
    let known = matches!(place, Place::Address(_));
    (zone.kind != ZoneKind::ReverseKnown || known).then(|| Located {
        zone,
        suffix: suffix(name, zone_labels),
        place,
    })
}

fn in_cluster(names: &Names, labels: &[&str]) -> Place {
    match labels {
        [] => Place::Apex,
        ["dns-version"] => Place::DnsVersion,
        ["dns"] => Place::Empty,
        ["ns", "dns"] => Place::NameServer,
        [rest @ .., "svc"] => in_services(names, rest),
        [rest @ .., "pod"] => in_pods(names, rest),
        [rest @ .., origin] => in_origin(names, origin, rest),
    }
}

fn in_services(names: &Names, labels: &[&str]) -> Place {
    let [rest @ .., namespace] = labels else { return Place::Empty };
    if !namespace_exists(names, namespace) {
        return Place::Absent(Absence::NoNamespace((*namespace).to_owned()));
    }
    let [below @ .., service] = rest else { return Place::Empty };
    match names.snapshot.service(&ServiceKey::kubernetes(namespace, service)) {
        Some(entry) if is_declared(entry) => in_service(names, entry, below),
        _ => Place::Absent(Absence::NoService((*service).to_owned())),
    }
}

/// `NAME.NS.ORIGIN`, where NAME may hold dots: the longest name that is a
/// service counts, what is left of it is an endpoint or a port.
fn in_origin(names: &Names, origin: &str, labels: &[&str]) -> Place {
    if !names.folded.has_origin(origin) {
        return Place::Absent(Absence::NoBranch(origin.to_owned()));
    }
    let [rest @ .., namespace] = labels else { return Place::Empty };
    if !names.settings.exposes(namespace) || !names.folded.has_namespace(origin, namespace) {
        return Place::Absent(Absence::NoNamespace((*namespace).to_owned()));
    }
    if rest.is_empty() {
        return Place::Empty;
    }
    // At most two labels can stand left of a service: port and protocol.
    let mut absence = Absence::NoService(rest.join("."));
    for below in 0..rest.len().min(3) {
        let (below, service) = rest.split_at(below);
        let Some(folded) = names.folded.get(origin, namespace, &service.join(".")) else {
            continue;
        };
        let place = match &folded.keys[..] {
            [] if below.is_empty() => return Place::Empty,
            [] => continue,
            [key] => match names.snapshot.service(key) {
                Some(entry) => in_service(names, entry, below),
                None => continue,
            },
            keys => Place::Ambiguous(keys.to_vec()),
        };
        match place {
            Place::Absent(_) if below.is_empty() && folded.below > 0 => return Place::Empty,
            Place::Absent(why) => absence = why,
            place => return place,
        }
    }
    Place::Absent(absence)
}

/// What stands at a service, or below it.
fn in_service(names: &Names, entry: &Arc<ServiceEntry>, below: &[&str]) -> Place {
    let service = &entry.service;
    if let Exposure::ExternalName(target) = &service.exposure {
        let target = alias_target(target).filter(|_| below.is_empty());
        return match target {
            Some(target) => Place::Alias(entry.clone(), target),
            None => Place::Absent(Absence::BadAlias(service.key.clone())),
        };
    }
    let virtual_ip = service.exposure == Exposure::ClusterIp;
    let serving = entry.served().next().is_some();
    // A virtual IP has a name before it has endpoints; without one, the
    // endpoints are all there is.
    let answers = match service.exposure {
        Exposure::ClusterIp => serving || names.settings.empty_services,
        _ => serving && names.settings.endpoints,
    };
    if !answers {
        let known = entry.endpoints.len();
        return Place::Absent(Absence::NoReadyEndpoint(service.key.clone(), known));
    }
    let (hits, absence) = match below {
        [] if virtual_ip => return Place::Service(entry.clone(), virtual_hits(entry, None)),
        [] => return Place::Service(entry.clone(), endpoint_hits(names, entry, |_| true, None)),
        [label] if *label != "_zone" || !names.settings.zonal || virtual_ip => {
            if let Some(transport) = label.strip_prefix('_').and_then(transport) {
                return if has_named_port(entry, transport) {
                    Place::Empty
                } else {
                    Place::Absent(Absence::NoPort(service.key.clone()))
                };
            }
            let named = |endpoint: &Endpoint| {
                endpoint_label(endpoint, names.settings.endpoint_pod_names)
                    .eq_ignore_ascii_case(label)
            };
            let hits = if names.settings.endpoints {
                endpoint_hits(names, entry, named, None)
            } else {
                Vec::new()
            };
            (hits, Absence::NoEndpoint(service.key.clone()))
        }
        [nearness @ .., "_zone"] if names.settings.zonal && !virtual_ip => {
            return in_zone(names, entry, nearness);
        }
        [port, protocol] => {
            let port = port.strip_prefix('_').unwrap_or(port);
            let wanted = transport(protocol.strip_prefix('_').unwrap_or(protocol))
                .filter(|_| !port.is_empty())
                .map(|transport| (port, transport));
            let hits = match wanted {
                None => Vec::new(),
                Some(_) if virtual_ip => virtual_hits(entry, wanted),
                Some(_) => endpoint_hits(names, entry, |_| true, wanted),
            };
            (hits, Absence::NoPort(service.key.clone()))
        }
        _ => (Vec::new(), Absence::TooDeep),
    };
    if hits.is_empty() { Place::Absent(absence) } else { Place::Service(entry.clone(), hits) }
}

/// `ZONE.pin._zone` and `ZONE.prefer._zone` below a headless service: the
/// endpoints of one zone of the cluster's nodes. Pinned to a zone without
/// endpoints, the name is there and empty; where the zone is only preferred, all
/// endpoints take its place.
fn in_zone(names: &Names, entry: &Arc<ServiceEntry>, nearness: &[&str]) -> Place {
    let (zone, pinned) = match nearness {
        [] | ["pin" | "prefer"] => return Place::Empty,
        [zone, "pin"] => (zone, true),
        [zone, "prefer"] => (zone, false),
        [_] => return Place::Absent(Absence::NoEndpoint(entry.service.key.clone())),
        _ => return Place::Absent(Absence::TooDeep),
    };
    let near = |endpoint: &Endpoint| {
        endpoint.zone.as_ref().is_some_and(|near| near.eq_ignore_ascii_case(zone))
    };
    let hits = endpoint_hits(names, entry, near, None);
    match hits.is_empty() {
        true if pinned => Place::Empty,
        true => Place::Service(entry.clone(), endpoint_hits(names, entry, |_| true, None)),
        false => Place::Service(entry.clone(), hits),
    }
}

/// Virtual IP by port, all ports or one.
fn virtual_hits(entry: &ServiceEntry, wanted: Option<(&str, Transport)>) -> Vec<Hit> {
    let service = &entry.service;
    let ports: Vec<Option<u16>> = match wanted {
        None if service.ports.is_empty() => vec![None],
        None => service.ports.iter().map(|port| Some(port.port)).collect(),
        Some((name, transport)) => service
            .ports
            .iter()
            .filter(|port| port.transport == transport && port.name.eq_ignore_ascii_case(name))
            .map(|port| Some(port.port))
            .collect(),
    };
    let hit = |port, address: &IpAddr| Hit { address: *address, port, endpoint: None };
    ports
        .into_iter()
        .flat_map(|port| service.addresses.iter().map(move |address| hit(port, address)))
        .collect()
}

/// Endpoints that are handed out, by port, all ports or one.
fn endpoint_hits(
    names: &Names,
    entry: &ServiceEntry,
    named: impl Fn(&Endpoint) -> bool,
    wanted: Option<(&str, Transport)>,
) -> Vec<Hit> {
    let mut hits = Vec::new();
    for placed in entry.served() {
        let endpoint = &*placed.endpoint;
        if !named(endpoint) {
            continue;
        }
        let label: Name = endpoint_label(endpoint, names.settings.endpoint_pod_names).into();
        let hit = |port| Hit { address: endpoint.address, port, endpoint: Some(label.clone()) };
        if wanted.is_none() && endpoint.ports.is_empty() {
            hits.push(hit(None));
        }
        hits.extend(
            endpoint
                .ports
                .iter()
                .filter(|port| {
                    wanted.is_none_or(|(name, transport)| {
                        port.transport == transport && port.name.eq_ignore_ascii_case(name)
                    })
                })
                .map(|port| hit(port.port)),
        );
    }
    hits
}

fn has_named_port(entry: &ServiceEntry, transport: Transport) -> bool {
    if entry.service.exposure == Exposure::ClusterIp {
        entry.service.ports.iter().any(|port| port.transport == transport && !port.name.is_empty())
    } else {
        entry
            .served()
            .flat_map(|placed| placed.endpoint.ports.iter())
            .any(|port| port.transport == transport && !port.name.is_empty())
    }
}

fn transport(label: &str) -> Option<Transport> {
    match label {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        "sctp" => Some(Transport::Sctp),
        _ => None,
    }
}

/// The target of an alias. An address is none: a CNAME to `1.2.3.4.` would send
/// resolvers to the root for a top-level domain `4`.
fn alias_target(text: &str) -> Option<DnsName> {
    if text.parse::<IpAddr>().is_ok() {
        return None;
    }
    crate::name::parse(text).filter(|name| !name.is_root())
}

fn in_pods(names: &Names, labels: &[&str]) -> Place {
    let [rest @ .., namespace] = labels else { return Place::Empty };
    if names.settings.pods == PodNames::Disabled {
        return Place::Absent(Absence::PodsDisabled);
    }
    if !namespace_exists(names, namespace) {
        return Place::Absent(Absence::NoNamespace((*namespace).to_owned()));
    }
    let label = match rest {
        [] => return Place::Empty,
        [label] => label,
        _ => return Place::Absent(Absence::TooDeep),
    };
    let Some(address) = dashed_address(label) else { return Place::Absent(Absence::NoPod) };
    let verified = names
        .snapshot
        .workload_at(address)
        .is_some_and(|workload| &*workload.name.namespace == *namespace);
    if names.settings.pods == PodNames::Verified && !verified {
        return Place::Absent(Absence::NoPod);
    }
    Place::Pod(address)
}

/// Reads `10-1-2-3`, or an IPv6 address with dashes for colons.
fn dashed_address(label: &str) -> Option<IpAddr> {
    let v4 = label.bytes().filter(|byte| *byte == b'-').count() == 3 && !label.contains("--");
    label.replace('-', if v4 { "." } else { ":" }).parse().ok()
}

fn namespace_exists(names: &Names, namespace: &str) -> bool {
    if !names.settings.exposes(namespace) {
        return false;
    }
    // A source may tell of services without listing namespaces.
    names.snapshot.namespaces().contains_key(namespace)
        || names
            .snapshot
            .services_in(&Origin::kubernetes(), &Name::from(namespace))
            .any(|entry| is_declared(entry))
}

fn in_reverse(names: &Names, labels: &[String]) -> Place {
    let Some((first, last)) = reverse_range(labels) else {
        return Place::Absent(Absence::NoAddress);
    };
    if first != last {
        return if names.addresses.any_in(first..=last) {
            Place::Empty
        } else {
            Place::Absent(Absence::NoAddress)
        };
    }
    let owned = names.addresses.owners(first).is_some_and(|owners| {
        let mut keys = owners.virtual_of.iter().chain(&owners.endpoint_of);
        keys.any(|key| names.settings.exposes(&key.namespace))
    });
    if owned { Place::Address(first) } else { Place::Absent(Absence::NoAddress) }
}

/// The range of addresses that a reverse name stands for: one address for a
/// whole name, more for a part of one. `None` when it is no reverse name.
fn reverse_range(labels: &[String]) -> Option<(IpAddr, IpAddr)> {
    let (digits, family) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    let digits = digits.iter().rev();
    match family {
        [in_addr, arpa] if in_addr == "in-addr" && arpa == "arpa" => {
            let mut address = 0_u32;
            let mut rest = 32_u32;
            for digit in digits {
                let plain = digit == "0" || !digit.starts_with(['0', '+']);
                let value: u8 = digit.parse().ok().filter(|_| plain)?;
                rest = rest.checked_sub(8)?;
                address |= u32::from(value) << rest;
            }
            let last = address | u32::MAX.checked_shr(32 - rest).unwrap_or(0);
            Some((IpAddr::V4(address.into()), IpAddr::V4(last.into())))
        }
        [ip6, arpa] if ip6 == "ip6" && arpa == "arpa" => {
            let mut address = 0_u128;
            let mut rest = 128_u32;
            for digit in digits {
                let value = match digit.as_bytes() {
                    [byte] => char::from(*byte).to_digit(16)?,
                    _ => return None,
                };
                rest = rest.checked_sub(4)?;
                address |= u128::from(value) << rest;
            }
            let last = address | u128::MAX.checked_shr(128 - rest).unwrap_or(0);
            Some((IpAddr::V6(address.into()), IpAddr::V6(last.into())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_ranges() {
        for (name, expected) in [
            ("4.3.2.1.in-addr.arpa", Some(("1.2.3.4", "1.2.3.4"))),
            ("2.1.in-addr.arpa", Some(("1.2.0.0", "1.2.255.255"))),
            ("in-addr.arpa", Some(("0.0.0.0", "255.255.255.255"))),
            (
                "8.b.d.0.1.0.0.2.ip6.arpa",
                Some(("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")),
            ),
            ("5.4.3.2.1.in-addr.arpa", None),
            ("256.in-addr.arpa", None),
            ("01.in-addr.arpa", None),
            ("+1.in-addr.arpa", None),
            ("x.in-addr.arpa", None),
            ("10.ip6.arpa", None),
            ("g.ip6.arpa", None),
            ("arpa", None),
        ] {
            let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
            let range =
                reverse_range(&labels).map(|(first, last)| (first.to_string(), last.to_string()));
            let expected = expected.map(|(first, last)| (first.to_owned(), last.to_owned()));
            assert_eq!(range, expected, "{name}");
        }
    }

    #[test]
    fn dashed_addresses() {
        for (label, expected) in [
            ("10-1-2-3", Some("10.1.2.3")),
            ("fd00-10--7", Some("fd00:10::7")),
            ("1-2-3", None),
            ("10-1-2-300", None),
            ("a--b--c", None),
            ("", None),
        ] {
            let address = dashed_address(label).map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{label}");
        }
    }
}
