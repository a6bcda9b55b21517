//! A query on its way through the stages, and what becomes of it.

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use domain::{
    base::{Message, ParsedName, Ttl, message::RecordSection, name::FlattenInto},
    rdata::ZoneRecordData,
};

use super::rewrite::Reverts;
use crate::{
    answer::{Answer, Refusal},
    config::{Flag, LogConfig},
    forward::Found,
    message::{Head, Query, Question},
    metrics::Proto,
    name::Rr,
    wire::{self, ExtendedError, Parts, Rcode},
};

/// A query on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// As it came.
    pub(crate) query: Query,
    /// As it is asked now.
    pub(crate) question: Question,
    pub(crate) client: IpAddr,
    pub(crate) proto: Proto,
    /// `None`: not told.
    pub(crate) client_port: Option<u16>,
    /// When it came.
    pub(crate) at: Instant,
    /// Bytes of the packet.
    pub(crate) size: usize,
    /// The longest reply.
    pub(crate) limit: usize,
    /// What `rewrite` changes back.
    pub(crate) reverts: Reverts,
    /// By which rule it is logged, and the question as it stood there.
    pub(crate) log: Option<(Arc<LogConfig>, Question)>,
}

impl Request {
    /// A question that did not come in a packet.
    pub(crate) fn new(question: Question, client: IpAddr) -> Self {
        Self {
            query: Query {
                head: Head::default(),
                question: question.clone(),
                edns: None,
                serial: None,
                nsid: None,
            },
            question,
            client,
            client_port: None,
            at: Instant::now(),
            proto: Proto::Udp,
            size: 0,
            limit: usize::from(wire::UDP_PAYLOAD_MAX),
            reverts: Reverts::default(),
            log: None,
        }
    }

    /// The name as rules see it: in lower case, with its last dot.
    pub(crate) fn name_text(&self) -> String {
        crate::name::text(&self.question.name).to_ascii_lowercase()
    }
}

/// What a reply holds.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Records that we made.
    Records { answer: Vec<Rr>, authority: Vec<Rr>, additional: Vec<Rr> },
    /// What an upstream server said, as it came.
    Found(Found),
}

/// An answer on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) rcode: u16,
    pub(crate) authoritative: bool,
    pub(crate) recursion_available: bool,
    pub(crate) truncated: bool,
    pub(crate) error: Option<ExtendedError>,
    pub(crate) body: Body,
    /// Which stage it is from.
    pub(crate) by: &'static str,
    /// Whether addresses are told in a random order.
    pub(crate) shuffled: bool,
    /// Flags that are set or cleared at last.
    pub(crate) flags: Vec<(Flag, bool)>,
}

impl Response {
    /// Records of ours.
    pub(crate) fn records(by: &'static str, answer: Vec<Rr>) -> Self {
        Self {
            rcode: Rcode::NoError as u16,
            authoritative: true,
            recursion_available: false,
            truncated: false,
            error: None,
            body: Body::Records { answer, authority: Vec::new(), additional: Vec::new() },
            by,
            shuffled: false,
            flags: Vec::new(),
        }
    }

    /// A result code alone.
    pub(crate) fn bare(by: &'static str, rcode: u16, error: Option<ExtendedError>) -> Self {
        Self { rcode, error, authoritative: false, ..Self::records(by, Vec::new()) }
    }

    /// What an upstream server said.
    pub(crate) fn found(by: &'static str, found: Found) -> Self {
        Self {
            rcode: found.reply.rcode,
            truncated: found.reply.truncated,
            error: found.reply.error.clone(),
            authoritative: found.reply.is_authoritative(),
            recursion_available: found.reply.is_recursive(),
            body: Body::Found(found),
            ..Self::records(by, Vec::new())
        }
    }

    /// What the names say. Its aliases that lead out are the caller's.
    pub(crate) fn of(by: &'static str, answer: Answer) -> Self {
        let rcode = Rcode::of(&answer) as u16;
        let error = wire::extended_error(&answer);
        let authoritative = !matches!(answer, Answer::Refused(_));
        let (answer, authority, additional) = match answer {
            Answer::Records { answer, additional, .. } => (answer, None, additional),
            Answer::NoData { aliases, authority } | Answer::NxDomain { aliases, authority, .. } => {
                (aliases, authority, Vec::new())
            }
            Answer::ServFail { authority, .. } => (Vec::new(), authority, Vec::new()),
            Answer::Refused(Refusal::OutsideZones | Refusal::Class | Refusal::Transfer) => {
                (Vec::new(), None, Vec::new())
            }
        };
        let authority = authority.into_iter().collect();
        let body = Body::Records { answer, authority, additional };
        Self { rcode, error, authoritative, body, ..Self::records(by, Vec::new()) }
    }

    /// Whether it can be written under a question: bytes of an upstream server only under
    /// the one that they answer. Rewriting and search paths ask others.
    pub(crate) fn is_about(&self, question: &Question) -> bool {
        match &self.body {
            Body::Records { .. } => true,
            Body::Found(found) => found.reply.is_about(question),
        }
    }

    /// The records, to be changed; what came as bytes is taken apart. `None`: it
    /// cannot be.
    pub(crate) fn parts(&mut self) -> Option<[&mut Vec<Rr>; 3]> {
        if let Body::Found(found) = &self.body {
            let [answer, authority, additional] = sections(found)?;
            self.body = Body::Records { answer, authority, additional };
        }
        match &mut self.body {
            Body::Records { answer, authority, additional } => {
                Some([answer, authority, additional])
            }
            Body::Found(_) => None,
        }
    }

    /// Whether there are records in the answer section.
    pub(crate) fn has_answer(&self) -> bool {
        match &self.body {
            Body::Records { answer, .. } => !answer.is_empty(),
            Body::Found(found) => found.reply.has_answer(),
        }
    }

    /// Writes the reply.
    pub(crate) fn write(&self, request: &Request, turn: usize, out: &mut Vec<u8>) {
        let turn = if self.shuffled { turn } else { 0 };
        match &self.body {
            Body::Records { answer, authority, additional } => {
                let parts = Parts {
                    answer,
                    authority,
                    additional,
                    rcode: self.rcode,
                    authoritative: self.authoritative,
                    recursion_available: self.recursion_available,
                    truncated: self.truncated,
                    error: self.error.clone(),
                };
                wire::reply_with(&request.query, &parts, request.limit, turn, out);
            }
            Body::Found(found) => {
                found.reply.write(&request.query, found.told, request.limit, turn, out);
            }
        }
        for (flag, set) in &self.flags {
            let (byte, bit) = match flag {
                Flag::Aa => (2, 0x04),
                Flag::Rd => (2, 0x01),
                Flag::Ra => (3, 0x80),
            };
            if let Some(byte) = out.get_mut(byte) {
                *byte = if *set { *byte | bit } else { *byte & !bit };
            }
        }
    }
}

/// The records of a reply, taken apart.
pub(crate) fn sections(found: &Found) -> Option<[Vec<Rr>; 3]> {
    let message = Message::from_octets(found.reply.bytes().clone()).ok()?;
    let records = |section: RecordSection<'_, Bytes>| {
        section
            .map(|record| {
                let record =
                    record.ok()?.to_record::<ZoneRecordData<Bytes, ParsedName<Bytes>>>().ok()??;
                let mut record: Rr = record.try_flatten_into().ok()?;
                record.set_ttl(Ttl::from_secs(found.told.ttl(record.ttl().as_secs())));
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
