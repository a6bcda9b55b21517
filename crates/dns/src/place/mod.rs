//! What a name means, whatever type of record is asked for.
//!
//! A name is read from the right: the zone, then `svc`, `pod` or an origin, the
//! namespace, the service, and below it an endpoint or `_port._protocol`. The
//! outcome is a [`Place`]; whether a question about it is answered with records
//! or with NODATA is decided later, by type. A name that means nothing carries
//! the reason ([`Absence`]), so that `dig +trace` and `why` need no second way of
//! finding out.

mod cluster;
mod clusterset;
mod external;
mod reverse;
mod service;

use std::{net::IpAddr, sync::Arc};

pub(crate) use service::{alias_target, endpoint_hits, in_service};

use portolan_catalog::ServiceEntry;
use portolan_model::{ClientView, Name, ServiceKey};

use crate::{
    name::{DnsName, depth, folded_labels, suffix},
    names::Names,
    records::Naming,
    settings::{Zone, ZoneKind},
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
    /// A service as it is reached from outside: by addresses, by names of its load
    /// balancer, or by both.
    Outside(Arc<ServiceEntry>, Vec<OutsideHit>),
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
    /// The endpoint's label below the service (in a cluster set with the id of its
    /// cluster behind a dot); `None` for a virtual IP.
    pub endpoint: Option<Name>,
}

/// One way into a service from outside, with one port.
#[derive(Clone, Debug, PartialEq)]
pub enum OutsideHit {
    /// An address.
    Address(Hit),
    /// A name of its load balancer.
    Balancer(DnsName, Option<u16>),
}

impl Place {
    /// The name that this place is an alias of, for questions of a type. A service
    /// whose load balancer has names alone is one, but for SRV, which names them.
    pub(crate) fn alias(&self, kind: domain::base::iana::Rtype) -> Option<&DnsName> {
        match self {
            Self::Alias(_, target) => Some(target),
            Self::Outside(_, hits) if kind != domain::base::iana::Rtype::SRV => {
                let address = hits.iter().any(|hit| matches!(hit, OutsideHit::Address(_)));
                hits.iter().filter(|_| !address).find_map(|hit| match hit {
                    OutsideHit::Balancer(name, _) => Some(name),
                    OutsideHit::Address(_) => None,
                })
            }
            _ => None,
        }
    }
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
    /// The service is not reached from outside, or not that way.
    NotOutside(ServiceKey),
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

impl Located<'_> {
    /// How names of its zone are formed.
    pub(crate) fn naming(&self) -> Naming<'_> {
        Naming { kind: self.zone.kind, suffix: &self.suffix }
    }
}

/// Who asks, and what is answered from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'n> {
    pub(crate) names: &'n Names,
    pub(crate) view: &'n ClientView,
}

/// Finds the place of a name. `None`: it is in no zone of ours.
pub(crate) fn locate<'n>(
    names: &'n Names,
    view: &ClientView,
    name: &DnsName,
) -> Option<Located<'n>> {
    let zone = names.settings.zone_of(name)?;
    let asked = Asked { names, view };
    let zone_labels = depth(&zone.apex);
    let labels = folded_labels(name);
    let own: Vec<&str> =
        labels.iter().take(labels.len().saturating_sub(zone_labels)).map(String::as_str).collect();
    let place = match zone.kind {
        ZoneKind::Cluster => cluster::place(&asked, &own),
        ZoneKind::ClusterSet => clusterset::place(&asked, &own),
        ZoneKind::External => external::place(&asked, &own),
        ZoneKind::Reverse | ZoneKind::ReverseKnown if own.is_empty() => Place::Apex,
        ZoneKind::Reverse | ZoneKind::ReverseKnown => reverse::place(names, &labels),
    };
    let known = matches!(place, Place::Address(_));
    (zone.kind != ZoneKind::ReverseKnown || known).then(|| Located {
        zone,
        suffix: suffix(name, zone_labels),
        place,
    })
}
