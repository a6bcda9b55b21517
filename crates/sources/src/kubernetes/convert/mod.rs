//! From API objects to facts: pure functions of one object.
//!
//! A list of facts comes back, because one object may say several things: a
//! Service with one bad port is a service *and* a rejection of that port.

mod endpoint_slice;
mod node;
mod pod;
mod registration;
mod service;

use std::net::IpAddr;

pub(crate) use endpoint_slice::endpoint_slice;
pub(crate) use node::{namespace, node};
pub(crate) use pod::{addresses, workload};
pub(crate) use registration::registrations;
pub(crate) use service::{service, service_import};

use portolan_model::{Fact, FactKey, ObjectName, Reason, Rejection};

/// What one object says.
pub(crate) type Facts = Vec<(FactKey, Fact)>;

/// The label of a node's zone (well-known labels of the Kubernetes reference).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A rejection of an object, or nothing when there is no reason.
pub(crate) fn rejection(
    kind: &str,
    object: ObjectName,
    reasons: Vec<Reason>,
) -> Option<(FactKey, Fact)> {
    if reasons.is_empty() {
        return None;
    }
    let kind = portolan_model::name(kind);
    Some((
        FactKey::Rejection(kind.clone(), object.clone()),
        Fact::Rejection(Rejection { kind, object, reasons }),
    ))
}

/// A port from 1 to 65535.
fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// A name that may stand before `.namespace.svc` (RFC 1123 label).
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Not empty.
fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Addresses that parse; each once.
fn parse_addresses<'a>(texts: impl Iterator<Item = &'a str>) -> (Vec<IpAddr>, Vec<&'a str>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for text in texts.filter(|text| !text.is_empty()) {
        match text.parse::<IpAddr>() {
            Ok(address) if good.contains(&address) => {}
            Ok(address) => good.push(address),
            Err(_) => bad.push(text),
        }
    }
    (good, bad)
}

#[cfg(test)]
mod tests;
