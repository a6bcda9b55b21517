//! Turning a packet into a reply where no compiled answer is: what UDP and TCP share.
//!
//! ```text
//!   packet --parse--> query --block--> a direct one
//!                                        |--answer--> ours: written at once
//!                                        |              |  an alias that leads out
//!                                        |  not ours    v
//!                                        +---------> forwarder --known--> written at once
//!                                                       |  unknown
//!                       any other: chain::Walk          +--> Later, finished by a task
//! ```
//!
//! A block that is direct has Services and upstream servers and nothing else; its two
//! stages are written out here. All others are walked.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use arc_swap::{ArcSwap, Guard};
use domain::base::iana::{Class, Rtype};

use crate::{
    answer::{Answer, Refusal, answer},
    chain::{self, Block, Chain, Request, Walk, sections},
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
// It is always boxed.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Later {
    /// In a direct block.
    Direct(Asked, Forwarder, Pending),
    /// On its walk through stages, with the random number for its reply.
    Walk(Walking, usize),
}

type Walking = Pin<Box<dyn Future<Output = (Request, chain::Outcome)> + Send>>;

/// A query, with what its reply needs to know.
pub(crate) struct Asked {
    query: Query,
    /// Aliases of ours that led out.
    aliases: Vec<Rr>,
    limit: usize,
    turn: usize,
    proto: Proto,
    client: IpAddr,
    zone: String,
    /// Bytes of the query.
    size: usize,
    started: Instant,
}

/// Turns packets into replies.
#[derive(Clone, Debug)]
pub(crate) struct Responder {
    names: Arc<ArcSwap<Names>>,
    pub(crate) metrics: Arc<DnsMetrics>,
    chain: Arc<ArcSwap<Chain>>,
}

impl Responder {
    pub(crate) fn new(
        names: Arc<ArcSwap<Names>>,
        metrics: Arc<DnsMetrics>,
        chain: Arc<ArcSwap<Chain>>,
    ) -> Self {
        Self { names, metrics, chain }
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
                    plugin: "",
                    took: started.elapsed(),
                    size: packet.len(),
                    reply: Some(out.len()),
                });
                return Met::Reply;
            }
            Incoming::Query(query) => query,
        };
        let mut query = query;
        let names = self.names.load();
        let zone = names.settings().zone_of(&query.question.name);
        if let Some(transfer) = self.transfer(&names, proto, client, &query, packet.len()) {
            return Met::Transfer(Box::new(transfer));
        }
        let limit = match proto {
            Proto::Udp => query.udp_limit(UDP_PAYLOAD_MAX),
            Proto::Tcp => MESSAGE_MAX,
        };
        let chain = self.chain.load();
        let block = chain.block_of(&query.question);
        if query.edns.is_some_and(|edns| edns.wants_nsid) {
            query.nsid = block.and_then(Block::nsid);
        }
        let block = match block {
            Some(block) if block.is_direct() => block,
            _ => {
                let request = Request {
                    question: query.question.clone(),
                    query,
                    client,
                    client_port: None,
                    at: started,
                    proto,
                    size: packet.len(),
                    limit,
                    reverts: Vec::new(),
                    log: None,
                };
                return self.walk(request, turn, out);
            }
        };
        let answer = self.answer(&names, block, zone, client, &query);
        let zone = zone.map_or_else(|| OUTSIDE.to_owned(), |zone| text(&zone.apex));
        let (aliases, size) = (Vec::new(), packet.len());
        let mut asked = Asked { query, aliases, limit, turn, proto, client, zone, size, started };
        let Some((forwarder, target)) = leads_out(&chain, block, &asked.query, &answer) else {
            wire::reply(&asked.query, &answer, limit, turn, out);
            if let Answer::ServFail { failure, .. } = &answer {
                block.failed(&asked.query.question, &failure.text());
            }
            self.seen(&asked, Rcode::of(&answer).as_str(), false, out.len());
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
            Lookup::Later(pending) => {
                Met::Later(Box::new(Later::Direct(asked, forwarder.clone(), *pending)))
            }
        }
    }

    /// The zone that is asked for as a whole, by one who may have it.
    fn transfer(
        &self,
        names: &Arc<Names>,
        proto: Proto,
        client: IpAddr,
        query: &Query,
        size: usize,
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
            plugin: "transfer",
            took: std::time::Duration::ZERO,
            size,
            reply: None,
        });
        Some(transfer)
    }

    /// Takes a query through the stages of its block, as far as it goes without
    /// waiting.
    fn walk(&self, mut request: Request, turn: usize, out: &mut Vec<u8>) -> Met {
        let walk =
            Walk { chain: self.chain.load_full(), names: self.names.load_full(), dry: false };
        let mut walking: Walking = Box::pin(async move {
            let outcome = walk.run(&mut request, None).await;
            (request, outcome)
        });
        match walking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Met::Later(Box::new(Later::Walk(walking, turn))),
            Poll::Ready((request, outcome)) => match self.walked(&request, &outcome, turn, out) {
                true => Met::Reply,
                false => Met::Silence,
            },
        }
    }

    /// Writes what a walk came to. False: there is no reply.
    fn walked(
        &self,
        request: &Request,
        outcome: &chain::Outcome,
        turn: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let response = match outcome {
            chain::Outcome::Reply(response) => response,
            chain::Outcome::Silence(why) => {
                self.metrics.dropped(why, 1);
                chain::write_log(request, &[]);
                return false;
            }
        };
        response.write(request, turn, out);
        chain::write_log(request, out);
        let chain = self.chain.load();
        let block = chain.block_of(&request.query.question);
        if let Some(block) = block.filter(|_| response.rcode == Rcode::ServFail as u16) {
            let why = response.error.as_ref().map_or("", |(_, text)| text.as_str());
            block.failed(&request.query.question, why);
        }
        let zone = block.and_then(|block| block.zone_of(&request.query.question.name));
        self.metrics.seen(&Seen {
            proto: request.proto,
            client: request.client,
            kind: Some(request.query.question.kind),
            zone: &zone.map_or_else(|| OUTSIDE.to_owned(), ToString::to_string),
            rcode: rcode_text(response.rcode),
            plugin: response.by,
            took: request.at.elapsed(),
            size: request.size,
            reply: Some(out.len()),
        });
        true
    }

    /// Waits for others, and writes the reply. False: there is none.
    pub(crate) async fn finish(&self, later: Later, out: &mut Vec<u8>) -> bool {
        match later {
            Later::Direct(asked, forwarder, pending) => {
                let outcome = forwarder.wait(pending).await;
                self.write(&asked, &outcome, out);
                true
            }
            Later::Walk(walking, turn) => {
                let (request, outcome) = walking.await;
                self.walked(&request, &outcome, turn, out)
            }
        }
    }

    /// What we say ourselves. A group of servers whose zone lies deeper than ours takes
    /// its names from us, but not addresses that we know.
    fn answer(
        &self,
        names: &Names,
        block: &Block,
        zone: Option<&Zone>,
        client: IpAddr,
        query: &Query,
    ) -> Answer {
        let name = &query.question.name;
        let group = block.forwarder().and_then(|forwarder| forwarder.settings().group_of(name));
        if let (Some((_, group)), Some(zone)) = (group, zone)
            && zone.kind != ZoneKind::ReverseKnown
            && depth(&group.zone) > depth(&zone.apex)
        {
            return Answer::Refused(Refusal::OutsideZones);
        }
        answer(names, &names.view_of(client), &query.question)
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
                let question = &asked.query.question;
                if let Some(block) = self.chain.load().block_of(question) {
                    block.failed(question, text);
                }
                (write_failure(asked, Some((number, text.to_owned())), out), false)
            }
        };
        self.seen(asked, rcode_text(rcode), forwarded, out.len());
    }

    fn seen(&self, asked: &Asked, rcode: &'static str, forwarded: bool, reply: usize) {
        self.metrics.seen(&Seen {
            proto: asked.proto,
            client: asked.client,
            kind: Some(asked.query.question.kind),
            zone: &asked.zone,
            rcode,
            plugin: match (asked.zone == OUTSIDE, forwarded) {
                (false, _) => "kubernetes",
                (true, true) => "forward",
                (true, false) => "",
            },
            took: asked.started.elapsed(),
            size: asked.size,
            reply: Some(reply),
        });
    }
}

/// Whether others are to be asked, and for which name.
fn leads_out<'b>(
    chain: &Chain,
    block: &'b Block,
    query: &Query,
    answer: &Answer,
) -> Option<(&'b Forwarder, DnsName)> {
    let forwarder = block.forwarder()?;
    let name = match answer {
        Answer::Refused(Refusal::OutsideZones) => &query.question.name,
        Answer::Records { elsewhere: Some(target), .. } => target,
        _ => return None,
    };
    let ours_back = chain.came_back(name);
    (!ours_back && forwarder.covers(name)).then(|| (forwarder, name.clone()))
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
