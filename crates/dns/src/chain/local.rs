//! `local`: names that never leave the machine (RFC 6761, 6303), as CoreDNS answers
//! them.

use std::net::{Ipv4Addr, Ipv6Addr};

use domain::{
    base::{Serial, Ttl, iana::Rtype},
    rdata::{A, Aaaa, Ns, Ptr, Soa},
};

use super::{Body, Request, Response, Stage, Step};
use crate::{
    bearing::Bearing,
    name::{DnsName, Rr, parse, record},
    names::Names,
    wire::Rcode,
};

/// TTL of the answers, in seconds (CoreDNS: a week).
const TTL_SECONDS: u32 = 604_800;

const ZONES: [&str; 4] =
    ["localhost.", "0.in-addr.arpa.", "127.in-addr.arpa.", "255.in-addr.arpa."];

/// The stage.
#[derive(Debug)]
pub(crate) struct Local;

impl Stage for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn bearing(&self, _: &DnsName) -> Bearing {
        Bearing::LOCALHOST
    }

    fn enter(&self, request: &mut Request, _: &Names) -> Step {
        let name = request.name_text();
        let below =
            name.ends_with(".localhost.") || name.starts_with("localhost.") && name.len() > 10;
        let zone = ZONES.iter().find(|zone| {
            name == **zone || name.strip_suffix(**zone).is_some_and(|rest| rest.ends_with('.'))
        });
        if !below && zone.is_none() {
            return Step::Next("no local name");
        }
        answer(&name, zone.copied(), below, request)
            .map_or(Step::Next("no local name"), Step::Answer)
    }
}

fn answer(name: &str, zone: Option<&str>, below: bool, request: &Request) -> Option<Response> {
    let owner = &request.question.name;
    let localhost = parse("localhost.")?;
    let kind = request.question.kind;
    let is_host = below || name == "localhost.";
    let is_apex = zone == Some(name);
    let found = match kind {
        Rtype::A if is_host => Some(record(owner, TTL_SECONDS, A::new(Ipv4Addr::LOCALHOST))),
        Rtype::AAAA if is_host => Some(record(owner, TTL_SECONDS, Aaaa::new(Ipv6Addr::LOCALHOST))),
        Rtype::SOA if is_apex => soa(owner),
        Rtype::NS if is_apex => Some(record(owner, TTL_SECONDS, Ns::new(localhost))),
        Rtype::PTR if name == "1.0.0.127.in-addr.arpa." => {
            Some(record(owner, TTL_SECONDS, Ptr::new(localhost)))
        }
        _ => None,
    };
    let mut response = Response::records("local", found.into_iter().collect());
    response.authoritative = false;
    if let Body::Records { answer, authority, .. } = &mut response.body
        && answer.is_empty()
    {
        let exists = is_host || is_apex || name == "1.0.0.127.in-addr.arpa.";
        let apex = if is_host || is_apex { owner.clone() } else { parse(zone?)? };
        authority.extend(soa(&apex));
        if !exists {
            response.rcode = Rcode::NxDomain as u16;
        }
    }
    Some(response)
}

fn soa(apex: &DnsName) -> Option<Rr> {
    let zero = Ttl::from_secs(0);
    let soa = Soa::new(
        parse("localhost.")?,
        parse("root.localhost.")?,
        Serial::from(1),
        zero,
        zero,
        zero,
        Ttl::from_secs(TTL_SECONDS),
    );
    Some(record(apex, TTL_SECONDS, soa))
}
