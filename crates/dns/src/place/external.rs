//! Names in an external zone: services as they are reached from outside the
//! cluster (CoreDNS' `k8s_external`).
//!
//! `SERVICE.NAMESPACE` has the external addresses of a Service and those of its
//! load balancer; where that has a name only, it is an alias. Headless services
//! without external addresses show their endpoints where the operator wants it.

use std::{net::IpAddr, sync::Arc};

use portolan_catalog::ServiceEntry;
use portolan_model::{Endpoint, Exposure, Outside, ServiceKey, Transport};

use super::{
    Absence, Asked, Hit, OutsideHit, Place,
    service::{alias_target, bare, endpoint_hits, named_port},
};
use crate::records::endpoint_label;

/// The place of a name in an external zone.
pub(super) fn place(asked: &Asked<'_>, labels: &[&str]) -> Place {
    let names = asked.names;
    let apex = names.settings.external.apex.as_str();
    let (rest, namespace) = match labels {
        [] => return Place::Apex,
        [label] if *label == apex => return Place::Empty,
        ["ns1", label] if *label == apex => return Place::NameServer,
        [.., label] if *label == apex => return Place::Absent(Absence::TooDeep),
        [rest @ .., namespace] => (rest, namespace),
    };
    if !names.has_namespace(namespace) {
        return Place::Absent(Absence::NoNamespace((*namespace).to_owned()));
    }
    let [below @ .., service] = rest else { return Place::Empty };
    match names.snapshot.service(&ServiceKey::kubernetes(namespace, service)) {
        Some(entry) if names.shows(entry) => at_service(asked, entry, below),
        _ => Place::Absent(Absence::NoService((*service).to_owned())),
    }
}

fn at_service(asked: &Asked<'_>, entry: &Arc<ServiceEntry>, below: &[&str]) -> Place {
    let key = &entry.service.key;
    let (endpoint, port) = match below {
        [] => (None, None),
        [label] => (Some(bare(label)), None),
        [port, protocol] => match named_port(port, protocol) {
            None => return Place::Absent(Absence::NoPort(key.clone())),
            port => (None, port),
        },
        _ => return Place::Absent(Absence::TooDeep),
    };
    let headless = entry.service.exposure == Exposure::Headless;
    let hits = match &entry.service.outside {
        // A single label below a service is not looked at, as in CoreDNS.
        Some(outside) => outside_hits(entry, outside, port),
        None if asked.names.settings.external.headless && (headless || endpoint.is_some()) => {
            let pod_names = asked.names.settings.endpoint_pod_names;
            let named = |one: &Endpoint| {
                endpoint
                    .is_none_or(|label| endpoint_label(one, pod_names).eq_ignore_ascii_case(label))
            };
            let hits = endpoint_hits(asked, entry, named, port);
            hits.into_iter().map(OutsideHit::Address).collect()
        }
        None => Vec::new(),
    };
    match hits.is_empty() {
        true => Place::Absent(Absence::NotOutside(key.clone())),
        false => Place::Outside(entry.clone(), hits),
    }
}

fn outside_hits(
    entry: &ServiceEntry,
    outside: &Outside,
    wanted: Option<(&str, Transport)>,
) -> Vec<OutsideHit> {
    let ports: Vec<u16> = entry
        .service
        .ports
        .iter()
        .filter(|port| {
            wanted.is_none_or(|(name, transport)| {
                port.transport == transport && port.name.eq_ignore_ascii_case(name)
            })
        })
        .map(|port| port.port)
        .collect();
    let address = |address: &IpAddr, port| {
        OutsideHit::Address(Hit { address: *address, port: Some(port), endpoint: None })
    };
    let addresses = outside.addresses.iter().chain(&outside.balancers);
    let names = outside.balancer_names.iter().filter_map(|name| alias_target(name));
    let by_address = addresses.flat_map(|one| ports.iter().map(move |port| address(one, *port)));
    let by_name = names.flat_map(|name| {
        ports.iter().map(move |port| OutsideHit::Balancer(name.clone(), Some(*port)))
    });
    by_address.chain(by_name).collect()
}
