//! Turning a packet into a reply where no compiled answer is: what UDP and TCP share.
//!
//! ```text
//!   packet --parse--> query --answer--> ours: written at once
//!                       |                 |  an alias that leads out
//!                       |  not ours       v
//!                       +------------> forwarder --known--> written at once
//!                                         |  unknown
//!                                         +--> Later, finished by a task
//! ```

use std::{net::IpAddr, sync::Arc, time::Instant};

use arc_swap::{ArcSwap, Guard};
use domain::{
    base::{
        Message, ParsedName,
        iana::{Class, Rtype},
        name::FlattenInto,
    },
    rdata::ZoneRecordData,
};

use crate::{
    answer::{Answer, Refusal, answer},
    forward::{Ask, Forwarder, Found, Lookup, NOERROR, NXDOMAIN, Outcome, Pending},
    message::{Incoming, Query, parse},
    metrics::{DnsMetrics, OUTSIDE, Proto, Seen},
    name::{DnsName, Rr, depth, text},
    names::Names,
    settings::{Zone, ZoneKind},
    transfer::Transfer,
    wire::{self, MESSAGE_MAX, Parts, Rcode, UDP_PAYLOAD_MAX, rcode_text},
};

/// How a packet was met.
pub(crate) enum Met {
    /// It gets no reply.
    Silence,
    /// The reply is written.
    Reply,
    /// Others have to be asked first.
    Later(Box<Later>),
    /// A whole zone, message by message.
    Transfer(Box<Transfer>),
}

/// A query that waits for others.
pub(crate) struct Later {
    asked: Asked,
    pending: Pending,
}

/// A query, with what its reply needs to know.
struct Asked {
    query: Query,
    /// Aliases of ours that led out.
    aliases: Vec<Rr>,
    limit: usize,
    turn: usize,
    proto: Proto,
    client: IpAddr,
    zone: String,
    started: Instant,
}

/// Turns packets into replies.
#[derive(Clone, Debug)]
pub(crate) struct Responder {
    names: Arc<ArcSwap<Names>>,
    pub(crate) metrics: Arc<DnsMetrics>,
    forwarder: Option<Forwarder>,
}

impl Responder {
    pub(crate) fn new(
        names: Arc<ArcSwap<Names>>,
        metrics: Arc<DnsMetrics>,
        forwarder: Option<Forwarder>,
    ) -> Self {
        Self { names, metrics, forwarder }
    }

    /// What is answered from now.
    pub(crate) fn names(&self) -> Guard<Arc<Names>> {
        self.names.load()
    }

    /// Writes the reply into `out`, or says why not: for what is not compiled. `turn` is a random number.
    pub(crate) fn respond(
        &self,
        proto: Proto,
        client: IpAddr,
        packet: &[u8],
        turn: usize,
        out: &mut Vec<u8>,
    ) -> Met {
        let started = Instant::now();
        let incoming = parse(packet);
        let query = match incoming {
            Incoming::Silence => {
                self.metrics.dropped("no_query", 1);
                return Met::Silence;
            }
            Incoming::Reject { ref question, .. } => {
                let Some(rcode) = wire::reject(&incoming, out) else { return Met::Silence };
                self.metrics.seen(&Seen {
                    proto,
                    client,
                    kind: question.as_ref().map(|question| question.kind),
                    zone: OUTSIDE,
                    rcode: rcode.as_str(),
                    forwarded: false,
                    took: started.elapsed(),
                });
                return Met::Reply;
            }
            Incoming::Query(query) => query,
        };
        let names = self.names.load();
        let zone = names.settings().zone_of(&query.question.name);
        if let Some(transfer) = self.transfer(&names, proto, client, &query) {
            return Met::Transfer(Box::new(transfer));
        }
        let limit = match proto {
            Proto::Udp => query.udp_limit(UDP_PAYLOAD_MAX),
            Proto::Tcp => MESSAGE_MAX,
        };
        let answer = self.answer(&names, zone, client, &query);
        let zone = zone.map_or_else(|| OUTSIDE.to_owned(), |zone| text(&zone.apex));
        let mut asked =
            Asked { query, aliases: Vec::new(), limit, turn, proto, client, zone, started };
        let Some((forwarder, target)) = self.leads_out(&asked.query, &answer) else {
            wire::reply(&asked.query, &answer, limit, turn, out);
            self.seen(&asked, Rcode::of(&answer).as_str(), false);
            return Met::Reply;
        };
        let edns = asked.query.edns;
        let ask = Ask {
            name: target,
            kind: asked.query.question.kind,
            dnssec_ok: edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: asked.query.head.checking_disabled,
        };
        if let Answer::Records { answer, .. } = answer {
            asked.aliases = answer;
        }
        match forwarder.lookup(&ask) {
            Lookup::Now(outcome) => {
                self.write(&asked, &outcome, out);
                Met::Reply
            }
            Lookup::Later(pending) => Met::Later(Box::new(Later { asked, pending: *pending })),
        }
    }

    /// The zone that is asked for as a whole, by one who may have it.
    fn transfer(
        &self,
        names: &Arc<Names>,
        proto: Proto,
        client: IpAddr,
        query: &Query,
    ) -> Option<Transfer> {
        let question = &query.question;
        let asked =
            matches!(question.kind, Rtype::AXFR | Rtype::IXFR) && question.class == Class::IN;
        if !asked || proto == Proto::Udp || !names.settings().transfer_to.allows(client) {
            return None;
        }
        let transfer = Transfer::begin(names.clone(), query.clone())?;
        let zone = text(&question.name);
        self.metrics.seen(&Seen {
            proto,
            client,
            kind: Some(question.kind),
            zone: &zone,
            rcode: Rcode::NoError.as_str(),
            forwarded: false,
            took: std::time::Duration::ZERO,
        });
        Some(transfer)
    }

    /// Waits for others, and writes the reply.
    pub(crate) async fn finish(&self, later: Later, out: &mut Vec<u8>) {
        let Some(forwarder) = &self.forwarder else { return };
        let outcome = forwarder.wait(later.pending).await;
        self.write(&later.asked, &outcome, out);
    }

    /// What we say ourselves. A stub that lies deeper than our zone takes its
    /// names from us, but not addresses that we know.
    fn answer(&self, names: &Names, zone: Option<&Zone>, client: IpAddr, query: &Query) -> Answer {
        let stub = names.settings().forwarding.stub_of(&query.question.name);
        if let (Some((_, stub)), Some(zone)) = (stub, zone)
            && zone.kind != ZoneKind::ReverseKnown
            && depth(&stub.zone) > depth(&zone.apex)
        {
            return Answer::Refused(Refusal::OutsideZones);
        }
        answer(names, &names.view_of(client), &query.question)
    }

    /// Whether others are to be asked, and for which name.
    fn leads_out(&self, query: &Query, answer: &Answer) -> Option<(&Forwarder, DnsName)> {
        let forwarder = self.forwarder.as_ref()?;
        let name = match answer {
            Answer::Refused(Refusal::OutsideZones) => &query.question.name,
            Answer::Records { elsewhere: Some(target), .. } => target,
            _ => return None,
        };
        let ours_back = forwarder.came_back(name);
        (!ours_back && forwarder.covers(name)).then(|| (forwarder, name.clone()))
    }

    fn write(&self, asked: &Asked, outcome: &Outcome, out: &mut Vec<u8>) {
        let (rcode, forwarded) = match outcome {
            Ok(found) if asked.aliases.is_empty() => {
                found.reply.write(&asked.query, found.told, asked.limit, asked.turn, out);
                (found.reply.rcode, true)
            }
            Ok(found) => (write_chain(asked, found, out), true),
            Err(failed) => {
                let (number, text) = failed.extended();
                (write_failure(asked, Some((number, text.to_owned())), out), false)
            }
        };
        self.seen(asked, rcode_text(rcode), forwarded);
    }

    fn seen(&self, asked: &Asked, rcode: &'static str, forwarded: bool) {
        self.metrics.seen(&Seen {
            proto: asked.proto,
            client: asked.client,
            kind: Some(asked.query.question.kind),
            zone: &asked.zone,
            rcode,
            forwarded,
            took: asked.started.elapsed(),
        });
    }
}

/// Our aliases, and what others say of the name that they lead to. The result
/// code is that of the end of the chain (RFC 6604, 3), and it is cut when their
/// part is.
fn write_chain(asked: &Asked, found: &Found, out: &mut Vec<u8>) -> u16 {
    let reply = &found.reply;
    let sections = match reply.rcode {
        NOERROR | NXDOMAIN => sections(found),
        _ => None,
    };
    let Some([answer, authority, additional]) = sections else {
        return write_failure(asked, reply.error.clone(), out);
    };
    let chain = [asked.aliases.clone(), answer].concat();
    let parts = Parts {
        answer: &chain,
        authority: &authority,
        additional: &additional,
        rcode: reply.rcode,
        authoritative: true,
        truncated: reply.truncated,
        error: reply.error.clone(),
        ..Parts::default()
    };
    wire::reply_with(&asked.query, &parts, asked.limit, asked.turn, out);
    reply.rcode
}

fn write_failure(asked: &Asked, error: Option<wire::ExtendedError>, out: &mut Vec<u8>) -> u16 {
    let ours = !asked.aliases.is_empty();
    let parts = Parts {
        rcode: Rcode::ServFail as u16,
        authoritative: ours,
        recursion_available: !ours,
        error,
        ..Parts::default()
    };
    wire::reply_with(&asked.query, &parts, asked.limit, asked.turn, out);
    parts.rcode
}

/// The records of a reply, taken apart.
fn sections(found: &Found) -> Option<[Vec<Rr>; 3]> {
    let message = Message::from_octets(found.reply.bytes().clone()).ok()?;
    let records = |section: domain::base::message::RecordSection<'_, bytes::Bytes>| {
        section
            .map(|record| {
                let record = record
                    .ok()?
                    .to_record::<ZoneRecordData<bytes::Bytes, ParsedName<bytes::Bytes>>>()
                    .ok()??;
                let mut record: Rr = record.try_flatten_into().ok()?;
                record
                    .set_ttl(domain::base::Ttl::from_secs(found.told.ttl(record.ttl().as_secs())));
                Some(record)
            })
            .collect::<Option<Vec<Rr>>>()
    };
    Some([
        records(message.answer().ok()?)?,
        records(message.authority().ok()?)?,
        records(message.additional().ok()?)?,
    ])
}
