//! Writing replies to the wire.
//!
//! `domain` composes the records; this module is the buffer that it composes
//! into: it compresses names, drops whole records that do not fit (and then sets
//! TC), rotates addresses, and adds the OPT that belongs to a query with one.
//!
//! Names are compressed only where they agree byte by byte. `domain`'s own
//! compressors ignore case, and would turn `svc1.testns.svc.cLuStEr.LoCaL` into
//! whatever case the question had in its first labels.

use std::convert::Infallible;

use domain::{
    base::{Record, ToName, iana::Rtype, name::ToLabelIter, wire::Composer},
    dep::octseq::{OctetsBuilder, Truncate},
    rdata::ZoneRecordData,
};

use crate::{
    answer::{Answer, Refusal},
    message::{Edns, HEADER, Head, Incoming, OPTION_NSID, Query, Question, Rejection},
    name::Rr,
};

/// What we take over UDP, and the most that we send: fits every path without
/// fragments (DNS flag day 2020).
pub(crate) const UDP_PAYLOAD_MAX: u16 = 1232;

/// The longest message: TCP's length has two bytes.
pub(crate) const MESSAGE_MAX: usize = 65_535;

/// Name suffixes that are remembered for compression. The question's come
/// first, and nearly all names of an answer end in one of them; a limit keeps
/// long answers linear.
const SUFFIXES_MAX: usize = 48;

/// The EDNS option of an extended error (RFC 8914, 2).
pub(crate) const OPTION_EDE: u16 = 15;

/// Extended DNS errors (RFC 8914, 4).
const EDE_OTHER: u16 = 0;
const EDE_NOT_READY: u16 = 14;
const EDE_NOT_AUTHORITATIVE: u16 = 20;
const EDE_NOT_SUPPORTED: u16 = 21;

/// Result codes that we send (RFC 1035, 4.1.1; RFC 6891, 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    NotAuth = 9,
    BadVers = 16,
}

impl Rcode {
    /// As `dig` and metrics write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::NotAuth => "NOTAUTH",
            Self::BadVers => "BADVERS",
        }
    }

    /// The code of an answer.
    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Records { .. } | Answer::NoData { .. } => Self::NoError,
            Answer::NxDomain { .. } => Self::NxDomain,
            Answer::ServFail { .. } => Self::ServFail,
            Answer::Refused(_) => Self::Refused,
        }
    }

    /// The code of a rejection.
    pub(crate) fn of_rejection(why: Rejection) -> Self {
        match why {
            Rejection::FormErr => Self::FormErr,
            Rejection::NotImp => Self::NotImp,
            Rejection::Refused => Self::Refused,
            Rejection::BadVers => Self::BadVers,
            Rejection::NotAuth => Self::NotAuth,
        }
    }
}

/// The name of any code, for metrics.
pub(crate) fn rcode_text(code: u16) -> &'static str {
    const KNOWN: [Rcode; 8] = [
        Rcode::NoError,
        Rcode::FormErr,
        Rcode::ServFail,
        Rcode::NxDomain,
        Rcode::NotImp,
        Rcode::Refused,
        Rcode::NotAuth,
        Rcode::BadVers,
    ];
    KNOWN.iter().find(|known| **known as u16 == code).map_or("OTHER", |known| known.as_str())
}

/// The part of a result code that stands in the header. Who has no EDNS cannot be told a
/// code beyond four bits (RFC 6891, 6.1.3), and must not take its lower half for the whole:
/// that of BADVERS is NOERROR.
pub(crate) fn header_code(rcode: u16, has_edns: bool) -> u8 {
    let rcode = if rcode > 0xf && !has_edns { Rcode::ServFail as u16 } else { rcode };
    (rcode & 0xf) as u8
}

/// An extended error: its number and what it adds (RFC 8914).
pub(crate) type ExtendedError = (u16, String);

/// A reply, before it is bytes.
#[derive(Debug, Default)]
pub(crate) struct Parts<'a> {
    pub(crate) answer: &'a [Rr],
    pub(crate) authority: &'a [Rr],
    pub(crate) additional: &'a [Rr],
    pub(crate) rcode: u16,
    pub(crate) authoritative: bool,
    pub(crate) recursion_available: bool,
    /// Something is missing already.
    pub(crate) truncated: bool,
    pub(crate) error: Option<ExtendedError>,
}

/// Writes the reply to a packet that gets no answer. `None`: it gets silence.
pub(crate) fn reject(incoming: &Incoming, out: &mut Vec<u8>) -> Option<Rcode> {
    let Incoming::Reject { head, question, edns, why } = incoming else { return None };
    let rcode = Rcode::of_rejection(*why);
    let opt = edns.map(|edns| OptRecord { edns, rcode: rcode as u16, nsid: None });
    let mut writer = Writer::new(out, MESSAGE_MAX, opt);
    writer.begin(question.as_ref());
    let parts = Parts { rcode: rcode as u16, ..Parts::default() };
    writer.finish(*head, &parts);
    Some(rcode)
}

/// Writes the reply with an answer, at most `limit` bytes long. `turn` rotates
/// runs of addresses: hand in a random number.
pub(crate) fn reply(query: &Query, answer: &Answer, limit: usize, turn: usize, out: &mut Vec<u8>) {
    let (records, authority, additional): (&[Rr], &Option<Rr>, &[Rr]) = match answer {
        Answer::Records { answer, additional, .. } => (answer, &None, additional),
        Answer::NoData { aliases, authority } | Answer::NxDomain { aliases, authority, .. } => {
            (aliases, authority, &[])
        }
        Answer::ServFail { authority, .. } => (&[], authority, &[]),
        Answer::Refused(_) => (&[], &None, &[]),
    };
    let parts = Parts {
        answer: records,
        authority: authority.as_slice(),
        additional,
        rcode: Rcode::of(answer) as u16,
        authoritative: !matches!(answer, Answer::Refused(_)),
        error: extended_error(answer),
        ..Parts::default()
    };
    reply_with(query, &parts, limit, turn, out);
}

/// Writes a reply from its parts.
pub(crate) fn reply_with(
    query: &Query,
    parts: &Parts<'_>,
    limit: usize,
    turn: usize,
    out: &mut Vec<u8>,
) {
    let nsid = query.nsid.as_deref();
    let opt = query.edns.map(|edns| OptRecord { edns, rcode: parts.rcode, nsid });
    let mut writer = Writer::new(out, limit, opt);
    writer.begin(Some(&query.question));
    let sections = [
        (Section::Answer, parts.answer),
        (Section::Authority, parts.authority),
        (Section::Additional, parts.additional),
    ];
    for (section, records) in sections {
        for record in rotated(records, turn) {
            writer.record(section, record);
        }
    }
    writer.finish(query.head, parts);
}

/// Whether the bytes of an answer depend on `turn`.
pub(crate) fn turns(answer: &Answer) -> bool {
    let Answer::Records { answer, additional, .. } = answer else { return false };
    [answer, additional].into_iter().any(|records| records.chunk_by(same).any(|run| run.len() > 1))
}

/// Whether two records belong to one run of addresses.
fn same(a: &Rr, b: &Rr) -> bool {
    matches!(a.rtype(), Rtype::A | Rtype::AAAA) && a.rtype() == b.rtype() && a.owner() == b.owner()
}

/// The records with each run of addresses of one owner and type rotated, so that
/// clients which take the first spread over all. What is no address (aliases
/// above all) stays in its place.
fn rotated(records: &[Rr], turn: usize) -> impl Iterator<Item = &Rr> {
    records.chunk_by(same).flat_map(move |run| {
        let (before, after) = run.split_at(turn % run.len().max(1));
        after.iter().chain(before)
    })
}

pub(crate) fn extended_error(answer: &Answer) -> Option<ExtendedError> {
    use crate::answer::Failure;
    match answer {
        Answer::ServFail { failure: Failure::NotSynced, .. } => {
            Some((EDE_NOT_READY, String::new()))
        }
        Answer::ServFail { failure, .. } => Some((EDE_OTHER, failure.text())),
        Answer::Refused(Refusal::OutsideZones) => Some((EDE_NOT_AUTHORITATIVE, String::new())),
        Answer::Refused(_) => Some((EDE_NOT_SUPPORTED, String::new())),
        _ => None,
    }
}

/// The OPT record of a reply (RFC 6891, 6.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptRecord<'n> {
    pub(crate) edns: Edns,
    pub(crate) rcode: u16,
    /// What we call ourselves, for who asked.
    pub(crate) nsid: Option<&'n str>,
}

impl OptRecord<'_> {
    /// Bytes of one without options.
    pub(crate) const LENGTH: usize = 11;

    /// Bytes of it, without an extended error.
    pub(crate) fn length(&self) -> usize {
        Self::LENGTH + self.nsid.map_or(0, |nsid| 4 + nsid.len())
    }

    /// Appends it to a message and counts it. Room for it is set aside; an
    /// extended error is added where `limit` leaves room for that too.
    pub(crate) fn write(&self, error: Option<&ExtendedError>, limit: usize, out: &mut Vec<u8>) {
        let error = error.filter(|(_, text)| out.len() + 6 + text.len() <= limit);
        let length = error.map_or(0, |(_, text)| 6 + text.len()) + self.length() - Self::LENGTH;
        let flags = if self.edns.dnssec_ok { 0x80 } else { 0 };
        out.push(0);
        out.extend_from_slice(&Rtype::OPT.to_int().to_be_bytes());
        out.extend_from_slice(&UDP_PAYLOAD_MAX.to_be_bytes());
        out.extend_from_slice(&[(self.rcode >> 4) as u8, 0, flags, 0]);
        out.extend_from_slice(&u16::try_from(length).unwrap_or_default().to_be_bytes());
        if let Some(nsid) = self.nsid {
            out.extend_from_slice(&OPTION_NSID.to_be_bytes());
            out.extend_from_slice(&u16::try_from(nsid.len()).unwrap_or_default().to_be_bytes());
            out.extend_from_slice(nsid.as_bytes());
        }
        if let Some((number, text)) = error {
            out.extend_from_slice(&OPTION_EDE.to_be_bytes());
            let length = u16::try_from(2 + text.len()).unwrap_or_default();
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        if let Some([high, low]) = out.get_mut(10..HEADER) {
            let count = u16::from_be_bytes([*high, *low]) + 1;
            [*high, *low] = count.to_be_bytes();
        }
    }
}

#[derive(Clone, Copy)]
enum Section {
    Answer = 1,
    Authority = 2,
    Additional = 3,
}

/// A message under construction.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
    opt: Option<OptRecord<'o>>,
    /// Room for records; what OPT needs is set aside.
    limit: usize,
    /// Where names begin that later names may point to.
    suffixes: Vec<u16>,
    counts: [u16; 4],
    truncated: bool,
}

impl<'o> Writer<'o> {
    fn new(out: &'o mut Vec<u8>, limit: usize, opt: Option<OptRecord<'o>>) -> Self {
        out.clear();
        out.resize(HEADER, 0);
        let reserved = opt.map_or(0, |opt| opt.length());
        Self {
            out,
            opt,
            limit: limit.min(MESSAGE_MAX).saturating_sub(reserved),
            suffixes: Vec::with_capacity(SUFFIXES_MAX),
            counts: [0; 4],
            truncated: false,
        }
    }

    fn begin(&mut self, question: Option<&Question>) {
        let Some(question) = question else { return };
        let Ok(()) = self.append_compressed_name(&question.name);
        self.out.extend_from_slice(&question.kind.to_int().to_be_bytes());
        self.out.extend_from_slice(&question.class.to_int().to_be_bytes());
        self.counts[0] = 1;
    }

    /// Adds a record if it fits, else drops it and all that would come later: a
    /// reply that is cut has a beginning, not holes.
    fn record(&mut self, section: Section, record: &Rr) {
        if self.truncated {
            return;
        }
        let before = self.out.len();
        let Ok(()) = Record::compose(record, self);
        if self.out.len() > self.limit {
            self.truncate(before);
            self.truncated = true;
        } else {
            self.counts[section as usize] += 1;
            self.remember_target(record);
        }
    }

    /// The target of an SRV record stands whole (RFC 2782); its addresses, which come
    /// behind it, may point there.
    fn remember_target(&mut self, record: &Rr) {
        let ZoneRecordData::Srv(srv) = record.data() else { return };
        let start = self.out.len() - usize::from(srv.target().compose_len());
        if let Ok(start) = u16::try_from(start)
            && start < 0x4000
            && self.suffixes.len() < SUFFIXES_MAX
            && self.earlier(srv.target().as_slice()).is_none()
        {
            self.suffixes.push(start);
        }
    }

    fn finish(mut self, head: Head, parts: &Parts<'_>) {
        self.truncated |= parts.truncated;
        let [high, low] = head.id.to_be_bytes();
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let first = 0x80
            | (head.opcode & 0xf) << 3
            | flag(parts.authoritative, 0x04)
            | flag(self.truncated, 0x02)
            | flag(head.recursion_desired, 0x01);
        // RA stays clear where we answer ourselves, as CoreDNS has it.
        let second = flag(parts.recursion_available, 0x80)
            | flag(head.checking_disabled, 0x10)
            | header_code(parts.rcode, self.opt.is_some());
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&[high, low, first, second]);
        for (place, count) in header[4..].chunks_exact_mut(2).zip(self.counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        self.out[..HEADER].copy_from_slice(&header);
        if let Some(opt) = self.opt {
            opt.write(parts.error.as_ref(), self.limit, self.out);
        }
    }

    /// Finds an earlier place where exactly these labels stand.
    fn earlier(&self, suffix: &[u8]) -> Option<u16> {
        self.suffixes.iter().copied().find(|start| self.stands_at(usize::from(*start), suffix))
    }

    fn stands_at(&self, mut at: usize, mut suffix: &[u8]) -> bool {
        loop {
            let (Some(here), Some(wanted)) = (self.out.get(at), suffix.first()) else {
                return false;
            };
            if *here >= 0xc0 {
                let Some(low) = self.out.get(at + 1) else { return false };
                at = usize::from(*here & 0x3f) << 8 | usize::from(*low);
                continue;
            }
            let length = usize::from(*wanted) + 1;
            let (Some(label), Some(asked)) = (self.out.get(at..at + length), suffix.get(..length))
            else {
                return false;
            };
            if label != asked {
                return false;
            }
            if *wanted == 0 {
                return true;
            }
            at += length;
            suffix = &suffix[length..];
        }
    }
}

impl OctetsBuilder for Writer<'_> {
    type AppendError = Infallible;

    fn append_slice(&mut self, slice: &[u8]) -> Result<(), Infallible> {
        self.out.extend_from_slice(slice);
        Ok(())
    }
}

impl AsRef<[u8]> for Writer<'_> {
    fn as_ref(&self) -> &[u8] {
        self.out
    }
}

impl AsMut<[u8]> for Writer<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.out
    }
}

impl Truncate for Writer<'_> {
    fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
        self.suffixes.retain(|start| usize::from(*start) < len);
    }
}

impl Composer for Writer<'_> {
    fn append_compressed_name<N: ToName + ?Sized>(&mut self, name: &N) -> Result<(), Infallible> {
        let plain = name.to_vec();
        let mut rest = plain.as_slice();
        while let Some(length) = rest.first().copied().filter(|length| *length > 0) {
            if let Some(earlier) = self.earlier(rest) {
                return self.append_slice(&(0xc000 | earlier).to_be_bytes());
            }
            // A pointer has 14 bits.
            if let Ok(start) = u16::try_from(self.out.len())
                && start < 0x4000
                && self.suffixes.len() < SUFFIXES_MAX
            {
                self.suffixes.push(start);
            }
            let (label, others) = rest.split_at(usize::from(length) + 1);
            self.out.extend_from_slice(label);
            rest = others;
        }
        self.append_slice(&[0])
    }

    fn can_compress(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use domain::{base::Message, rdata::Srv};

    use super::*;
    use crate::{
        message::{
            parse,
            tests::{opt, packet},
        },
        name::{self, record},
        records::address,
    };

    fn query(name: &str, kind: Rtype, edns_size: Option<u16>) -> Query {
        let mut bytes = packet(name, kind);
        if let Some(size) = edns_size {
            bytes[11] = 1;
            bytes.extend(opt(size, 0, &[]));
        }
        match parse(&bytes) {
            Incoming::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    fn addresses(owner: &str, count: u8) -> Vec<Rr> {
        let owner = name::parse(owner).unwrap();
        (1..=count).map(|last| address(&owner, 5, [10, 0, 0, last].into())).collect()
    }

    fn records(answer: Vec<Rr>, additional: Vec<Rr>) -> Answer {
        Answer::Records { answer, additional, elsewhere: None }
    }

    #[test]
    fn addresses_point_to_the_targets_of_srv() {
        let target = name::parse("web-0.db.demo.svc.cluster.local").unwrap();
        let query = query("db.demo.svc.cluster.local", Rtype::SRV, None);
        let answer = records(
            vec![record(&query.question.name, 5, Srv::new(0, 100, 80, target.clone()))],
            vec![address(&target, 5, [10, 0, 0, 1].into())],
        );
        let mut out = Vec::new();
        reply(&query, &answer, MESSAGE_MAX, 0, &mut out);
        let message = Message::from_slice(&out).unwrap();
        // The record: a pointer, type, class, TTL, length, four bytes.
        let last = &out[out.len() - 16..];
        assert_eq!(last[0] & 0xc0, 0xc0, "{last:?}");
        let record = message.additional().unwrap().next().unwrap().unwrap();
        assert_eq!(record.owner().to_string(), "web-0.db.demo.svc.cluster.local");
    }

    #[test]
    fn an_owner_like_the_question_becomes_a_pointer_and_others_keep_their_case() {
        let query = query("_HtTp._TcP.sVc1.TeSt.SvC.cLuStEr.LoCaL", Rtype::SRV, None);
        let target = name::parse("svc1.test.svc.cLuStEr.LoCaL").unwrap();
        let owner = query.question.name.clone();
        let answer = records(
            vec![record(&owner, 5, Srv::new(0, 100, 80, target.clone()))],
            vec![address(&target, 5, [10, 0, 0, 1].into())],
        );
        let mut out = Vec::new();
        reply(&query, &answer, 512, 0, &mut out);
        let question_end = HEADER + owner.len() + 4;
        assert_eq!(out[question_end..question_end + 2], [0xc0, 12]);
        let message = Message::from_octets(out).unwrap();
        let text: Vec<String> = message
            .additional()
            .unwrap()
            .map(|record| record.unwrap().owner().to_string())
            .collect();
        assert_eq!(text, ["svc1.test.svc.cLuStEr.LoCaL"]);
    }

    #[test]
    fn what_does_not_fit_is_cut_whole_and_told() {
        for (edns, count, fits, truncated) in [
            (None, 20, 20, false),
            (None, 60, 29, true),
            (Some(1232), 60, 60, false),
            (Some(1232), 100, 73, true),
        ] {
            let query = query("a.b.svc.cluster.local", Rtype::A, edns);
            let answer = records(addresses("a.b.svc.cluster.local", count), vec![]);
            let mut out = Vec::new();
            reply(&query, &answer, query.udp_limit(UDP_PAYLOAD_MAX), 0, &mut out);
            assert!(out.len() <= query.udp_limit(UDP_PAYLOAD_MAX));
            let message = Message::from_octets(out).unwrap();
            assert_eq!(message.header_counts().ancount(), fits, "{edns:?} {count}");
            assert_eq!(message.header().tc(), truncated, "{edns:?} {count}");
            assert_eq!(message.opt().is_some(), edns.is_some());
        }
    }

    #[test]
    fn addresses_rotate_and_aliases_stay() {
        let alias = record(
            &name::parse("x.y").unwrap(),
            5,
            domain::rdata::Cname::new(name::parse("a.b").unwrap()),
        );
        let list: Vec<Rr> = [vec![alias.clone()], addresses("a.b", 3)].concat();
        for turn in 0..7 {
            let order: Vec<&Rr> = rotated(&list, turn).collect();
            assert_eq!(order[0], &alias);
            assert_eq!(order[1], &list[1 + turn % 3]);
            assert_eq!(order.len(), 4);
        }
    }
}
