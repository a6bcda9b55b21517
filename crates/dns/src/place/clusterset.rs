//! Names in the zone of a cluster set (Multi-Cluster Services, DNS schema 1.0.0).
//!
//! As in a zone of the cluster, but from ServiceImports, and an endpoint is named
//! with its cluster: `HOSTNAME.CLUSTER.SERVICE.NAMESPACE.svc`. CLUSTER may be two
//! labels. `CLUSTER.SERVICE...` itself has no records and is denied, as the
//! specification wants it, though names lie below.

use std::sync::Arc;

use portolan_catalog::ServiceEntry;
use portolan_model::{Endpoint, Origin, ServiceKey};

use super::{
    Absence, Asked, Place,
    service::{endpoint_hits, in_service},
};
use crate::records::endpoint_label;

/// The place of a name in the zone of a cluster set.
pub(super) fn place(asked: &Asked<'_>, labels: &[&str]) -> Place {
    let rest = match labels {
        [] => return Place::Apex,
        ["dns-version"] => return Place::DnsVersion,
        ["dns"] => return Place::Empty,
        ["ns", "dns"] => return Place::NameServer,
        [rest @ .., "svc"] => rest,
        [.., branch] => return Place::Absent(Absence::NoBranch((*branch).to_owned())),
    };
    let names = asked.names;
    let [rest @ .., namespace] = rest else { return Place::Empty };
    if !names.has_namespace(namespace) {
        return Place::Absent(Absence::NoNamespace((*namespace).to_owned()));
    }
    let [below @ .., service] = rest else { return Place::Empty };
    let key = ServiceKey::new(Origin::clusterset(), namespace, service);
    match names.snapshot.service(&key) {
        Some(entry) if names.shows(entry) => in_import(asked, entry, below),
        _ => Place::Absent(Absence::NoService((*service).to_owned())),
    }
}

fn in_import(asked: &Asked<'_>, entry: &Arc<ServiceEntry>, below: &[&str]) -> Place {
    let named_port = |labels: &[&str]| labels.iter().any(|label| label.starts_with('_'));
    let key = &entry.service.key;
    match below {
        [label] if !label.starts_with('_') => Place::Absent(Absence::NoEndpoint(key.clone())),
        [] | [_] => in_service(asked, entry, below),
        [_, _] if named_port(below) => in_service(asked, entry, below),
        [hostname, cluster @ ..] if cluster.len() <= 2 && !named_port(below) => {
            let cluster = cluster.join(".");
            let pod_names = asked.names.settings.endpoint_pod_names;
            let named = |endpoint: &Endpoint| {
                let own = endpoint.particulars.discriminator.as_deref().unwrap_or_default();
                own.eq_ignore_ascii_case(&cluster)
                    && endpoint_label(endpoint, pod_names).eq_ignore_ascii_case(hostname)
            };
            match endpoint_hits(asked, entry, named, None) {
                hits if hits.is_empty() => Place::Absent(Absence::NoEndpoint(key.clone())),
                hits => Place::Service(entry.clone(), hits),
            }
        }
        _ => Place::Absent(Absence::TooDeep),
    }
}
