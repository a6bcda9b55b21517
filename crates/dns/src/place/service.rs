//! What stands at a service, and below it.

use std::{net::IpAddr, sync::Arc};

use portolan_catalog::{ServiceEntry, choose};
use portolan_model::{Endpoint, Exposure, Name, Origin, Transport};

use super::{Absence, Asked, Hit, Place};
use crate::{name::DnsName, records::endpoint_label};

/// What stands at a service, or below it.
pub(crate) fn in_service(asked: &Asked<'_>, entry: &Arc<ServiceEntry>, below: &[&str]) -> Place {
    let names = asked.names;
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
        [] => return Place::Service(entry.clone(), endpoint_hits(asked, entry, |_| true, None)),
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
                endpoint_hits(asked, entry, named, None)
            } else {
                Vec::new()
            };
            (hits, Absence::NoEndpoint(service.key.clone()))
        }
        [nearness @ .., "_zone"] if names.settings.zonal && !virtual_ip => {
            return in_zone(asked, entry, nearness);
        }
        [port, protocol] => {
            let wanted = named_port(port, protocol);
            let hits = match wanted {
                None => Vec::new(),
                Some(_) if virtual_ip => virtual_hits(entry, wanted),
                Some(_) => endpoint_hits(asked, entry, |_| true, wanted),
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
fn in_zone(asked: &Asked<'_>, entry: &Arc<ServiceEntry>, nearness: &[&str]) -> Place {
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
    let hits = endpoint_hits(asked, entry, near, None);
    match hits.is_empty() {
        true if pinned => Place::Empty,
        true => Place::Service(entry.clone(), endpoint_hits(asked, entry, |_| true, None)),
        false => Place::Service(entry.clone(), hits),
    }
}

/// A port by its name and protocol; the underscores may be left out.
pub(super) fn named_port<'a>(port: &'a str, protocol: &str) -> Option<(&'a str, Transport)> {
    let port = bare(port);
    transport(bare(protocol)).filter(|_| !port.is_empty()).map(|transport| (port, transport))
}

/// A label without its underscore.
pub(super) fn bare(label: &str) -> &str {
    label.strip_prefix('_').unwrap_or(label)
}

/// Virtual IP by port, all ports or one.
pub(super) fn virtual_hits(entry: &ServiceEntry, wanted: Option<(&str, Transport)>) -> Vec<Hit> {
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
pub(crate) fn endpoint_hits(
    asked: &Asked<'_>,
    entry: &ServiceEntry,
    named: impl Fn(&Endpoint) -> bool,
    wanted: Option<(&str, Transport)>,
) -> Vec<Hit> {
    let pod_names = asked.names.settings.endpoint_pod_names;
    let mut hits = Vec::new();
    for placed in choose::nearest(entry, asked.view) {
        let endpoint = &*placed.endpoint;
        if !named(endpoint) {
            continue;
        }
        let label: Name = endpoint_path(entry, endpoint, pod_names).into();
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

/// The labels of an endpoint below its service: in a cluster set, those of its
/// cluster stand behind its own.
fn endpoint_path(entry: &ServiceEntry, endpoint: &Endpoint, pod_names: bool) -> String {
    let label = endpoint_label(endpoint, pod_names);
    let imported = entry.service.key.origin.as_str() == Origin::CLUSTERSET;
    match &endpoint.particulars.discriminator {
        Some(cluster) if imported => format!("{label}.{cluster}"),
        _ => label,
    }
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

pub(super) fn transport(label: &str) -> Option<Transport> {
    match label {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        "sctp" => Some(Transport::Sctp),
        _ => None,
    }
}

/// The target of an alias. An address is none: a CNAME to `1.2.3.4.` would send
/// resolvers to the root for a top-level domain `4`.
pub(crate) fn alias_target(text: &str) -> Option<DnsName> {
    if text.parse::<IpAddr>().is_ok() {
        return None;
    }
    crate::name::parse(text).filter(|name| !name.is_root())
}
