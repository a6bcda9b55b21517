//! Our names as bytes: what most queries are answered from.
//!
//! ```text
//!   diff --> service entry --compile--> Table (by service and namespace)
//!                                          |
//!   packet --RawQuery--> name, type, EDNS --+--> reply, byte for byte that of the
//!               |                                general path
//!               +-- anything unusual: the general path
//! ```
//!
//! [`Compiled`] holds for each service of the cluster its address records (and the
//! SRV records of virtual IPs) as they go onto the wire. Addresses name the question
//! by pointer, so they fit every spelling of it and every zone; targets of SRV are
//! never compressed (RFC 2782), so those fit one spelling of one zone. A query costs one hash,
//! one lookup and the copy; nothing is allocated and no lock is taken. A change of
//! one service makes one entry anew and copies the two small lists on the way to
//! it; versions share the rest. Denials need no entry: a name of which no service
//! stands in the table does not exist.
//!
//! What is not here is answered by [`crate::answer`], which also makes the bytes of
//! SRV records: there is one truth, and the tests hold the two together. Left out on
//! purpose: endpoints' own names and SRV records of headless services (they would
//! multiply the memory of large clusters for names that few ask for), aliases,
//! nearness, other origins, reverse zones.

mod entry;
mod query;
mod table;

use std::sync::Arc;

use domain::base::iana::Rtype;
use portolan_catalog::{Diff, ServiceEntry};
use portolan_model::Exposure;

use self::{
    entry::{Content, compile, key_of},
    query::RawQuery,
    table::Table,
};
use crate::{
    address_book::is_declared,
    bearing::Bearing,
    message::HEADER,
    name::depth,
    names::Names,
    records::{SOA_EXPIRE_SECONDS, SOA_REFRESH_SECONDS, SOA_RETRY_SECONDS, SOA_TTL_SECONDS_MAX},
    settings::{Zone, ZoneKind},
    wire::{MESSAGE_MAX, Rcode, UDP_PAYLOAD_MAX},
};

/// Labels right below a zone that the general path is asked about, beside those of
/// other origins. `hostmaster` is here for its bytes: the SOA could point to it.
const BRANCHES: [&[u8]; 4] = [b"pod", b"dns", b"dns-version", b"hostmaster"];

/// The label of names that `local` answers, in wire format.
const LOCALHOST: &[u8] = b"\x09localhost";

/// A pointer to the question's name (RFC 1035, 4.1.4).
const TO_QUESTION: u16 = 0xc000 | HEADER as u16;

/// What a reply was, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replied {
    /// The place of the zone in the settings.
    pub(crate) zone: usize,
    pub(crate) kind: Rtype,
    pub(crate) rcode: Rcode,
}

/// Our names as bytes, at one version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    /// Zones whose names are answered from here, with their place in the settings.
    /// Empty: none is, as while not everything is known yet.
    zones: Arc<[HotZone]>,
    services: Table,
    /// Origins that have services, in lower case.
    origins: Arc<[Box<[u8]>]>,
    /// Records of SOA type behind their owner; its names are cut off, they end in
    /// pointers.
    soa: Soa,
    /// What has to go through stages.
    stages: Bearing,
}

#[derive(Debug)]
struct HotZone {
    /// In wire format, in lower case.
    apex: Box<[u8]>,
    place: usize,
    /// SRV records are compiled for this zone: their targets are written out.
    primary: bool,
}

/// The numbers of the SOA of a denial.
#[derive(Clone, Copy, Debug, Default)]
struct Soa {
    ttl: u32,
    serial: u32,
}

impl Compiled {
    /// Compiles all of the names.
    pub(crate) fn new(names: &Names) -> Self {
        let mut compiled = Self { zones: hot_zones(names), ..Self::default() };
        for entry in names.snapshot().services() {
            compiled.put(names, None, Some(entry));
        }
        compiled.refresh(names);
        compiled
    }

    /// Follows the names to their next version.
    pub(crate) fn step(&mut self, names: &Names, diff: &Diff) {
        let by_labels = names.settings().namespace_labels.is_some();
        if by_labels && !diff.namespaces.is_empty() {
            *self = Self::new(names);
            return;
        }
        for change in &diff.services {
            self.put(names, change.before.as_deref(), change.after.as_ref());
        }
        self.zones = hot_zones(names);
        self.refresh(names);
    }

    fn put(
        &mut self,
        names: &Names,
        before: Option<&ServiceEntry>,
        after: Option<&Arc<ServiceEntry>>,
    ) {
        if before.zip(after).is_some_and(|(before, after)| answers_alike(names, before, after)) {
            return;
        }
        let after = after.and_then(|entry| compile(names, entry));
        if let Some(key) = before.and_then(|entry| key_of(&entry.service.key))
            && after.as_ref().is_none_or(|entry| *entry.key() != *key)
        {
            self.services.remove(&key);
        }
        if let Some(entry) = after {
            self.services.insert(entry);
        }
    }

    fn refresh(&mut self, names: &Names) {
        self.origins = names.folded.origins().map(|origin| origin.as_bytes().into()).collect();
        self.stages = names.settings().stages;
        self.soa = Soa { ttl: names.settings().negative_ttl_seconds, serial: names.serial };
    }

    /// Whether no stage has to see a query.
    fn may_reply(&self, query: &RawQuery<'_>) -> bool {
        if self.stages == Bearing::NOTHING {
            return true;
        }
        !(self.stages.has(Bearing::ANY) && query.kind == Rtype::ANY
            || self.stages.has(Bearing::ADDITIONAL) && query.kind == Rtype::SRV
            || self.stages.has(Bearing::OPTIONS) && query.has_options
            || self.stages.has(Bearing::LOCALHOST) && query.name().starts_with(LOCALHOST))
    }

    /// Writes the reply to a packet, if its answer is here. `turn` rotates runs of
    /// addresses. `udp`: the client says how long a reply may be.
    pub(crate) fn reply(
        &self,
        packet: &[u8],
        udp: bool,
        turn: usize,
        out: &mut Vec<u8>,
    ) -> Option<Replied> {
        let query = RawQuery::read(packet)?;
        self.may_reply(&query).then_some(())?;
        let turn = if self.stages.has(Bearing::ORDER) { 0 } else { turn };
        let denies = !self.stages.has(Bearing::DENIALS);
        let name = query.name();
        let zone = self.zones.iter().find(|zone| query.is_in(&zone.apex))?;
        let prefix = name.len() - zone.apex.len();
        let labels = query.labels_before(prefix);
        let limit = match udp {
            true => query.udp_limit(UDP_PAYLOAD_MAX),
            false => MESSAGE_MAX,
        };
        let mut writer = Reply { query: &query, zone_at: HEADER + prefix, limit, out };
        let [rest @ .., branch] = labels else { return None };
        let replied = |rcode| Some(Replied { zone: zone.place, kind: query.kind, rcode });
        let branch = query.label(*branch);
        if branch != b"svc" {
            let known = BRANCHES.contains(&branch) || self.origins.iter().any(|o| **o == *branch);
            if known || !denies {
                return None;
            }
            writer.denial(Rcode::NxDomain, self.soa);
            return replied(Rcode::NxDomain);
        }
        let [below @ .., service, _] = rest else { return None };
        let service = usize::from(*service);
        let key = name.get(service..prefix - b"\x03svc".len())?;
        let Some(entry) = self.services.get(key) else {
            denies.then_some(())?;
            writer.denial(Rcode::NxDomain, self.soa);
            return replied(Rcode::NxDomain);
        };
        let Content::Plain { v4, v6, mut srv } = entry.content() else { return None };
        let done = match (below, query.kind) {
            ([], Rtype::A) => writer.addresses(v4, entry::RECORD_A, turn),
            ([], Rtype::AAAA) => writer.addresses(v6, entry::RECORD_AAAA, turn),
            ([], Rtype::SRV) | ([_, _], Rtype::SRV) if zone.primary && query.is_lower() => {
                let asked = name.get(..service)?;
                let ready = srv.find(|ready| ready.below == asked)?;
                writer.ready(ready).then_some(true)?
            }
            ([], kind) if kind != Rtype::SRV => false,
            _ => return None,
        };
        if !done {
            writer.denial(Rcode::NoError, self.soa);
        }
        replied(Rcode::NoError)
    }
}

/// Whether two versions of a service have the same answers here: a virtual IP stays what it
/// is while endpoints come and go, and those are most changes by far.
fn answers_alike(names: &Names, before: &ServiceEntry, after: &ServiceEntry) -> bool {
    let serves = |entry: &ServiceEntry| entry.served().next().is_some();
    Arc::ptr_eq(&before.service, &after.service)
        && after.service.exposure == Exposure::ClusterIp
        && is_declared(before) == is_declared(after)
        && (names.settings().empty_services || serves(before) == serves(after))
}

/// Zones of the cluster in which nothing else lies: neither another zone of ours
/// nor one that others are asked about.
fn hot_zones(names: &Names) -> Arc<[HotZone]> {
    let settings = names.settings();
    let alone = |zone: &Zone| {
        let nested = settings.zones.iter().any(|other| {
            depth(&other.apex) > depth(&zone.apex) && other.apex.ends_with(&zone.apex)
        });
        let mut groups = settings.forwarding.groups.iter();
        let stubbed = groups.any(|group| group.zone.ends_with(&zone.apex));
        !nested && !stubbed && !zone.apex.is_root()
    };
    if !names.snapshot().is_synced() || settings.stages == Bearing::EVERYTHING {
        return Arc::default();
    }
    settings
        .zones
        .iter()
        .enumerate()
        .filter(|(_, zone)| zone.kind == ZoneKind::Cluster && alone(zone))
        .map(|(place, zone)| HotZone {
            apex: zone.apex.as_slice().to_ascii_lowercase().into(),
            place,
            primary: settings.primary() == Some(&zone.apex),
        })
        .collect()
}

/// A reply under construction.
struct Reply<'a> {
    query: &'a RawQuery<'a>,
    /// Where in the message the zone's part of the name begins.
    zone_at: usize,
    limit: usize,
    out: &'a mut Vec<u8>,
}

impl Reply<'_> {
    fn begin(&mut self, rcode: Rcode, cut: bool, counts: [u16; 3]) {
        let out = &mut *self.out;
        out.clear();
        let [high, low] = self.query.flags;
        let first = 0x84 | (high & 0x01) | if cut { 0x02 } else { 0 };
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&self.query.id);
        header[2] = first;
        header[3] = (low & 0x10) | rcode as u8;
        header[5] = 1;
        let [answers, authorities, additionals] = counts;
        let additionals = additionals + u16::from(self.query.edns.is_some());
        let counts = [answers, authorities, additionals];
        for (place, count) in header[6..].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        out.extend_from_slice(&header);
        out.extend_from_slice(self.query.question());
    }

    fn end(&mut self) {
        let Some(edns) = self.query.edns else { return };
        let [high, low] = UDP_PAYLOAD_MAX.to_be_bytes();
        let flags = if edns.dnssec_ok { 0x80 } else { 0 };
        self.out.extend_from_slice(&[0, 0, 41, high, low, 0, 0, flags, 0, 0, 0]);
    }

    /// Room for records.
    fn room(&self) -> usize {
        let taken = HEADER + self.query.question().len();
        let reserved = if self.query.edns.is_some() { 11 } else { 0 };
        self.limit.saturating_sub(taken + reserved)
    }

    /// Copies addresses, as many as there is room for, beginning anywhere. False:
    /// there is none.
    fn addresses(&mut self, run: &[u8], record: usize, turn: usize) -> bool {
        let all = run.len() / record;
        if all == 0 {
            return false;
        }
        let some = all.min(self.room() / record);
        let first = turn % all;
        let count = u16::try_from(some).unwrap_or(u16::MAX);
        self.begin(Rcode::NoError, some < all, [count, 0, 0]);
        let (before, after) = run.split_at(first * record);
        let bytes = some * record;
        let head = bytes.min(after.len());
        self.out.extend_from_slice(&after[..head]);
        self.out.extend_from_slice(&before[..bytes - head]);
        self.end();
        true
    }

    /// Copies records that are ready. False: they do not fit.
    fn ready(&mut self, ready: entry::Ready<'_>) -> bool {
        if ready.records.len() > self.room() {
            return false;
        }
        self.begin(Rcode::NoError, false, ready.counts);
        self.out.extend_from_slice(ready.records);
        self.end();
        true
    }

    /// Says that there is nothing, for so long.
    fn denial(&mut self, rcode: Rcode, soa: Soa) {
        self.begin(rcode, false, [0, 1, 0]);
        let zone = 0xc000 | u16::try_from(self.zone_at).unwrap_or(TO_QUESTION);
        let [high, low] = zone.to_be_bytes();
        let out = &mut *self.out;
        out.extend_from_slice(&[high, low, 0, 6, 0, 1]);
        out.extend_from_slice(&soa.ttl.min(SOA_TTL_SECONDS_MAX).to_be_bytes());
        out.extend_from_slice(&[0, 42]);
        out.extend_from_slice(&[2, b'n', b's', 3, b'd', b'n', b's', high, low]);
        out.extend_from_slice(b"\x0ahostmaster");
        out.extend_from_slice(&[high, low]);
        let numbers =
            [soa.serial, SOA_REFRESH_SECONDS, SOA_RETRY_SECONDS, SOA_EXPIRE_SECONDS, soa.ttl];
        for number in numbers {
            out.extend_from_slice(&number.to_be_bytes());
        }
        self.end();
    }
}

#[cfg(test)]
mod tests;
