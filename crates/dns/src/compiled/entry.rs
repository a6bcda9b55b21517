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

/// A service that has names.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its label and that of its namespace, in wire format.
    pub(super) key: Box<[u8]>,
    pub(super) content: Content,
}

/// What is known of a service here.
#[derive(Debug)]
pub(super) enum Content {
    /// It exists; its answers depend on more than its name.
    General,
    /// Its records.
    Plain { v4: Box<[u8]>, v6: Box<[u8]>, srv: Box<[Ready]> },
}

/// Records that answer one question in full.
#[derive(Debug)]
pub(super) struct Ready {
    /// The labels below the service, in wire format.
    pub(super) below: Box<[u8]>,
    /// Of the sections answer, authority and additional.
    pub(super) counts: [u16; 3],
    pub(super) records: Box<[u8]>,
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
    let content = match place {
        // Names below it do not exist either.
        Place::Absent(_) if service.exposure == Exposure::Headless => return None,
        Place::Absent(_) if service.exposure == Exposure::ClusterIp => return None,
        Place::Service(_, hits) if !is_near(entry) => {
            let ttl = names.settings().ttl_seconds;
            let run = |family| {
                let found = unique(family, hits.iter().map(|hit| hit.address));
                found.flat_map(|address| address_record(address, ttl)).collect()
            };
            let srv = match service.exposure {
                Exposure::ClusterIp => srv(names, &service.key, entry),
                _ => Box::default(),
            };
            Content::Plain { v4: run(Family::V4), v6: run(Family::V6), srv }
        }
        _ => Content::General,
    };
    Some(Entry { key, content })
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
fn srv(names: &Names, key: &ServiceKey, entry: &ServiceEntry) -> Box<[Ready]> {
    let zone = names.settings().primary().map(|zone| text(zone).to_ascii_lowercase());
    let Some(zone) = zone.and_then(|zone| parse(&zone)) else { return Box::default() };
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
        let count = |at: usize| Some(u16::from_be_bytes([*out.get(at)?, *out.get(at + 1)?]));
        Some(Ready {
            below: wire?.concat().into(),
            counts: [count(6)?, count(8)?, count(10)?],
            records: out.get(start..)?.into(),
        })
    };
    std::iter::once(Vec::new()).chain(labels).filter_map(ready).collect()
}
