//! Zone transfers (AXFR, and IXFR answered by one: RFC 5936, RFC 1995).
//!
//! A [`Transfer`] is a zone being written: it holds the names of one version and
//! makes one message at a time, so that a zone of a hundred thousand records never
//! stands in memory as a whole. The content is CoreDNS': SOA, name servers, the
//! services by name, SOA. Names of Pods, reverse names and `dns-version` are not
//! part of it.

use std::{sync::Arc, vec::IntoIter};

use domain::{
    base::iana::Rtype,
    rdata::{Cname, Srv},
};
use portolan_catalog::ServiceEntry;
use portolan_model::{ClientView, Exposure, Origin, ServiceKey};

use crate::{
    message::Query,
    name::{DnsName, Rr, join, record, suffix},
    names::Names,
    place::{Asked, Hit, alias_target, endpoint_hits},
    records::{self, Naming, weight},
    settings::ZoneKind,
    wire::{self, MESSAGE_MAX, Parts},
};

/// Records of one message. The longest record has an owner of 255 bytes and data
/// of 261, so these always fit.
const RECORDS_MAX: usize = 100;

/// Weight of the ports of a virtual IP: in a transfer CoreDNS gives each its own.
const WEIGHT_VIRTUAL: u16 = 100;

/// A zone on its way to a client.
pub(crate) struct Transfer {
    names: Arc<Names>,
    query: Query,
    kind: ZoneKind,
    suffix: DnsName,
    services: IntoIter<ServiceKey>,
    /// Records that wait for the next message.
    pending: Vec<Rr>,
    last: Option<Rr>,
}

impl Transfer {
    /// Begins a transfer. `None`: the name is not the top of a zone that can be
    /// transferred, or not everything is known yet.
    pub(crate) fn begin(names: Arc<Names>, query: Query) -> Option<Self> {
        let zone = names.settings.zone_of(&query.question.name)?;
        let origin = match zone.kind {
            ZoneKind::Cluster => Origin::kubernetes(),
            ZoneKind::ClusterSet => Origin::clusterset(),
            _ => return None,
        };
        if zone.apex != query.question.name || !names.snapshot.is_synced() {
            return None;
        }
        let kind = zone.kind;
        let apex = suffix(&query.question.name, crate::name::depth(&zone.apex));
        let naming = Naming { kind, suffix: &apex };
        let soa = records::authority(&names, naming, false)?;
        let up_to_date = query.question.kind == Rtype::IXFR && query.serial == Some(names.serial);
        let mut pending = vec![soa.clone()];
        let mut services: Vec<ServiceKey> = Vec::new();
        if !up_to_date {
            let (servers, glue) = records::delegation(&names, naming);
            pending.extend(servers.into_iter().chain(glue));
            let all = names.snapshot.services().map(|entry| &entry.service.key);
            services = all.filter(|key| key.origin == origin).cloned().collect();
            services.sort_by(|a, b| (&a.name, &a.namespace).cmp(&(&b.name, &b.namespace)));
        }
        let last = (!up_to_date).then_some(soa);
        let services = services.into_iter();
        Some(Self { names, query, kind, suffix: apex, services, pending, last })
    }

    /// Writes the next message. False: all of it is written.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> bool {
        while self.pending.len() < RECORDS_MAX {
            let Some(key) = self.services.next() else {
                self.pending.extend(self.last.take());
                break;
            };
            let names = self.names.clone();
            if let Some(entry) = names.snapshot.service(&key).filter(|_| names.shows_key(&key)) {
                self.service(entry);
            }
        }
        if self.pending.is_empty() {
            return false;
        }
        let rest = self.pending.split_off(self.pending.len().min(RECORDS_MAX));
        let parts = Parts { answer: &self.pending, authoritative: true, ..Parts::default() };
        wire::reply_with(&self.query, &parts, MESSAGE_MAX, 0, out);
        self.pending = rest;
        true
    }

    fn service(&mut self, entry: &Arc<ServiceEntry>) {
        let suffix = self.suffix.clone();
        let naming = Naming { kind: self.kind, suffix: &suffix };
        let ttl = self.names.settings.ttl_in(self.kind);
        let service = &entry.service;
        let Some(owner) = naming.service(&service.key, None) else { return };
        match &service.exposure {
            Exposure::ExternalName(target) => {
                let alias =
                    alias_target(target).map(|target| record(&owner, ttl, Cname::new(target)));
                self.pending.extend(alias);
            }
            Exposure::ClusterIp => {
                let addresses = service.addresses.iter();
                self.pending.extend(addresses.map(|one| records::address(&owner, ttl, *one)));
                for port in &service.ports {
                    let target = Srv::new(0, WEIGHT_VIRTUAL, port.port, owner.clone());
                    self.pending.push(record(&owner, ttl, target.clone()));
                    let named = port_name(&port.name, port.transport, &owner);
                    self.pending.extend(named.map(|name| record(&name, ttl, target)));
                }
            }
            Exposure::Headless => self.endpoints(entry, &owner, naming, ttl),
        }
    }

    /// The endpoints of a service without virtual IP. CoreDNS shares the weight out
    /// within an EndpointSlice; slices are of one family, and rarely more than one.
    fn endpoints(
        &mut self,
        entry: &Arc<ServiceEntry>,
        owner: &DnsName,
        naming: Naming<'_>,
        ttl: u32,
    ) {
        if !self.names.settings.endpoints {
            return;
        }
        let names = self.names.clone();
        let asked = Asked { names: &names, view: &ClientView::default() };
        let family =
            |v4: bool| entry.served().filter(move |one| one.endpoint.address.is_ipv4() == v4);
        let weights = [false, true].map(|v4| weight(family(v4).count()));
        for placed in entry.served() {
            let endpoint = &placed.endpoint;
            let one = |other: &portolan_model::Endpoint| std::ptr::eq(other, &**endpoint);
            let hits: Vec<Hit> = endpoint_hits(&asked, entry, one, None);
            let Some(label) = hits.first().and_then(|hit| hit.endpoint.clone()) else { continue };
            let Some(name) = naming.service(&entry.service.key, Some(&label)) else { continue };
            self.pending.push(records::address(owner, ttl, endpoint.address));
            self.pending.push(records::address(&name, ttl, endpoint.address));
            let weight = weights[usize::from(endpoint.address.is_ipv4())];
            for port in endpoint.ports.iter() {
                let (Some(number), Some(owner)) =
                    (port.port, port_name(&port.name, port.transport, owner))
                else {
                    continue;
                };
                self.pending.push(record(&owner, ttl, Srv::new(0, weight, number, name.clone())));
            }
        }
    }
}

/// `_port._protocol` before a service; unnamed ports have no name.
fn port_name(port: &str, transport: portolan_model::Transport, owner: &DnsName) -> Option<DnsName> {
    if port.is_empty() {
        return None;
    }
    let labels = [format!("_{port}"), format!("_{}", transport.as_str())];
    let [port, transport] = labels.map(|label| label.to_ascii_lowercase());
    join(&[&port, &transport], owner)
}
