//! Names in a zone of the cluster: `svc`, `pod`, and other origins.

use std::net::IpAddr;

use portolan_model::ServiceKey;

use super::{Absence, Asked, Place, service::in_service};
use crate::{names::Names, settings::PodNames};

/// The place of a name in a zone of the cluster.
pub(super) fn place(asked: &Asked<'_>, labels: &[&str]) -> Place {
    match labels {
        [] => Place::Apex,
        ["dns-version"] => Place::DnsVersion,
        ["dns"] => Place::Empty,
        ["ns", "dns"] => Place::NameServer,
        [rest @ .., "svc"] => in_services(asked, rest),
        [rest @ .., "pod"] => in_pods(asked.names, rest),
        [rest @ .., origin] => in_origin(asked, origin, rest),
    }
}

fn in_services(asked: &Asked<'_>, labels: &[&str]) -> Place {
    let names = asked.names;
    let [rest @ .., namespace] = labels else { return Place::Empty };
    if !names.has_namespace(namespace) {
        return Place::Absent(Absence::NoNamespace((*namespace).to_owned()));
    }
    let [below @ .., service] = rest else { return Place::Empty };
    match names.snapshot.service(&ServiceKey::kubernetes(namespace, service)) {
        Some(entry) if names.shows(entry) => in_service(asked, entry, below),
        _ => Place::Absent(Absence::NoService((*service).to_owned())),
    }
}

/// `NAME.NS.ORIGIN`, where NAME may hold dots: the longest name that is a
/// service counts, what is left of it is an endpoint or a port.
fn in_origin(asked: &Asked<'_>, origin: &str, labels: &[&str]) -> Place {
    let names = asked.names;
    if !names.folded.has_origin(origin) {
        return Place::Absent(Absence::NoBranch(origin.to_owned()));
    }
    let [rest @ .., namespace] = labels else { return Place::Empty };
    if !names.exposes(namespace) || !names.folded.has_namespace(origin, namespace) {
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
                Some(entry) => in_service(asked, entry, below),
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

fn in_pods(names: &Names, labels: &[&str]) -> Place {
    let [rest @ .., namespace] = labels else { return Place::Empty };
    if names.settings.pods == PodNames::Disabled {
        return Place::Absent(Absence::PodsDisabled);
    }
    if !names.has_namespace(namespace) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
