//! One service as bytes.

use std::{net::IpAddr, sync::Arc};

use domain::base::iana::{Class, Rtype};
use portolan_catalog::ServiceEntry;
use portolan_model::{ClientView, Exposure, Origin, ServiceKey};

use super::TO_QUESTION;
use crate::{
    answer::answer,
    message::{HEADER, Head, Query, Question},
    name::{join, parse, text},
    names::{Names, is_near},
    place::{Asked, Place, in_service},
    records::{Family, unique},
    wire::{self, MESSAGE_MAX},
};

/// Bytes of an A record whose owner is a pointer.
pub(super) const RECORD_A: usize = 16;

/// Bytes of an AAAA record whose owner is a pointer.
pub(super) const RECORD_AAAA: usize = 28;

/// Ports of a service whose SRV records are kept as bytes; more are rare.
const PORTS_MAX: usize = 8;

/// A service that has names, as one piece of memory: a query that finds it has all that
/// it needs in the lines of the cache that it has just touched.
///
/// ```text
///   length of key, of v4, of v6 (4 bytes each), what it is (1) | key | v4 | v6 | ready ...
///   ready: length of below, of records (4 each), counts (2 x 3) | below | records
/// ```
#[derive(Clone, Debug)]
pub(super) struct Entry(Arc<[u8]>);

/// Bytes before the key.
const HEAD: usize = 13;

/// Bytes before what a ready answer holds.
const READY_HEAD: usize = 14;

/// In the last byte of a head: answers depend on more than the name.
const GENERAL: u8 = 0;

/// In the last byte of a head: the records are here.
const PLAIN: u8 = 1;

/// What is known of a service here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'e> {
    /// It exists; its answers depend on more than its name.
    General,
    /// Its records.
    Plain { v4: &'e [u8], v6: &'e [u8], srv: AllReady<'e> },
}

/// Records that answer one question in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready<'e> {
    /// The labels below the service, in wire format.
    pub(super) below: &'e [u8],
    /// Of the sections answer, authority and additional.
    pub(super) counts: [u16; 3],
    pub(super) records: &'e [u8],
}

/// Ready answers one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AllReady<'e>(&'e [u8]);

impl<'e> Iterator for AllReady<'e> {
    type Item = Ready<'e>;

    fn next(&mut self) -> Option<Ready<'e>> {
        let (head, rest) = self.0.split_at_checked(READY_HEAD)?;
        let (below, rest) = rest.split_at_checked(length(head, 0)?)?;
        let (records, rest) = rest.split_at_checked(length(head, 4)?)?;
        self.0 = rest;
        let count = |at: usize| Some(u16::from_be_bytes(*head.get(at..)?.first_chunk()?));
        Some(Ready { below, counts: [count(8)?, count(10)?, count(12)?], records })
    }
}

/// A length in a head.
fn length(head: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*head.get(at..)?.first_chunk()?)).ok()
}

/// Writes a length into a head. What does not fit in 32 bits is no part of any reply.
fn push_length(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or_default().to_be_bytes());
}

impl Entry {
    fn general(key: &[u8]) -> Self {
        Self::write(GENERAL, key, [&[], &[]], &[])
    }

    fn write(what: u8, key: &[u8], [v4, v6]: [&[u8]; 2], srv: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEAD + key.len() + v4.len() + v6.len() + srv.len());
        for part in [key, v4, v6] {
            push_length(&mut bytes, part);
        }
        bytes.push(what);
        for part in [key, v4, v6, srv] {
            bytes.extend_from_slice(part);
        }
        Self(bytes.into())
    }

    /// Its label and that of its namespace, in wire format.
    pub(super) fn key(&self) -> &[u8] {
        let end = length(&self.0, 0).map_or(HEAD, |key| HEAD + key);
        self.0.get(HEAD..end).unwrap_or_default()
    }

    /// What is known of it.
    pub(super) fn content(&self) -> Content<'_> {
        self.plain().unwrap_or(Content::General)
    }

    fn plain(&self) -> Option<Content<'_>> {
        let (head, rest) = self.0.split_at_checked(HEAD)?;
        if head.last() != Some(&PLAIN) {
            return None;
        }
        let (_, rest) = rest.split_at_checked(length(head, 0)?)?;
        let (v4, rest) = rest.split_at_checked(length(head, 4)?)?;
        let (v6, srv) = rest.split_at_checked(length(head, 8)?)?;
        Some(Content::Plain { v4, v6, srv: AllReady(srv) })
    }
}

/// The key of a service of the cluster. `None`: no name can lead to it.
pub(super) fn key_of(key: &ServiceKey) -> Option<Box<[u8]>> {
    if key.origin.as_str() != Origin::KUBERNETES {
        return None;
    }
    Some([wire_label(&key.name)?, wire_label(&key.namespace)?].concat().into())
}

fn wire_label(text: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(text.len()).ok().filter(|length| (1..=63).contains(length))?;
    let fine = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
    fine.then(|| [&[length], text.as_bytes()].concat())
}

/// Compiles a service. `None`: it has no names.
pub(super) fn compile(names: &Names, entry: &Arc<ServiceEntry>) -> Option<Entry> {
    let service = &entry.service;
    let key = key_of(&service.key)?;
    if !names.exposes(&service.key.namespace) || !names.shows(entry) {
        return None;
    }
    let view = ClientView::default();
    let place = in_service(&Asked { names, view: &view }, entry, &[]);
    match place {
        // Names below it do not exist either.
        Place::Absent(_) if service.exposure == Exposure::Headless => None,
        Place::Absent(_) if service.exposure == Exposure::ClusterIp => None,
        Place::Service(_, hits) if !is_near(entry) => {
            let ttl = names.settings().ttl_seconds;
            let run = |family| -> Vec<u8> {
                let found = unique(family, hits.iter().map(|hit| hit.address));
                found.flat_map(|address| address_record(address, ttl)).collect()
            };
            let srv = match service.exposure {
                Exposure::ClusterIp => srv(names, &service.key, entry),
                _ => Vec::new(),
            };
            Some(Entry::write(PLAIN, &key, [&run(Family::V4), &run(Family::V6)], &srv))
        }
        _ => Some(Entry::general(&key)),
    }
}

fn address_record(address: IpAddr, ttl: u32) -> Vec<u8> {
    let (kind, octets) = match address {
        IpAddr::V4(v4) => (Rtype::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (Rtype::AAAA, v6.octets().to_vec()),
    };
    let length = u16::try_from(octets.len()).unwrap_or_default();
    let mut record = Vec::with_capacity(RECORD_AAAA);
    for number in [TO_QUESTION, kind.to_int(), Class::IN.to_int()] {
        record.extend_from_slice(&number.to_be_bytes());
    }
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(&octets);
    record
}

/// SRV records at the service and at its named ports, as the general path writes
/// them for a question in lower case.
fn srv(names: &Names, key: &ServiceKey, entry: &ServiceEntry) -> Vec<u8> {
    let zone = names.settings().primary().map(|zone| text(zone).to_ascii_lowercase());
    let Some(zone) = zone.and_then(|zone| parse(&zone)) else { return Vec::new() };
    let ports = entry.service.ports.iter().filter(|port| !port.name.is_empty());
    let labels = ports.take(PORTS_MAX).map(|port| {
        let labels = [format!("_{}", port.name), format!("_{}", port.transport.as_str())];
        labels.map(|label| label.to_ascii_lowercase()).to_vec()
    });
    let ready = |below: Vec<String>| {
        let wire: Option<Vec<Vec<u8>>> = below.iter().map(|label| wire_label(label)).collect();
        let below: Vec<&str> = below.iter().map(String::as_str).collect();
        let name = join(&[&below[..], &[&*key.name, &*key.namespace, "svc"]].concat(), &zone)?;
        let question = Question { name, kind: Rtype::SRV, class: Class::IN };
        let found = answer(names, &ClientView::default(), &question);
        if wire::turns(&found) || !matches!(found, crate::answer::Answer::Records { .. }) {
            return None;
        }
        let start = HEADER + question.name.as_slice().len() + 4;
        let query = Query { head: Head::default(), question, edns: None, serial: None, nsid: None };
        let mut out = Vec::new();
        wire::reply(&query, &found, MESSAGE_MAX, 0, &mut out);
        let (below, records) = (wire?.concat(), out.get(start..)?);
        let mut ready = Vec::with_capacity(READY_HEAD + below.len() + records.len());
        push_length(&mut ready, &below);
        push_length(&mut ready, records);
        // The counts of the sections, as they stand in a message.
        ready.extend_from_slice(out.get(6..HEADER)?);
        ready.extend_from_slice(&below);
        ready.extend_from_slice(records);
        Some(ready)
    };
    std::iter::once(Vec::new()).chain(labels).filter_map(ready).flatten().collect()
}
