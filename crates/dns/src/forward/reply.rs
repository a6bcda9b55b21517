//! A reply of an upstream server: its bytes as they came, and where in them the
//! TTLs and the records begin.
//!
//! ```text
//!   bytes --read--> Reply { bytes without OPT, marks } --write--> bytes for a client
//!                     |                                  (ID, flags, question, TTLs, cut)
//!                     +--lifetime--> how long the cache may keep it
//! ```
//!
//! Records are not taken apart and put together again: types that we have never
//! heard of pass unharmed. OPT belongs to one hop, so it is left out, with what
//! stands behind it (nothing but TSIG does).

use bytes::Bytes;
use domain::base::iana::Rtype;

use super::{Ask, Bounds};
use crate::{
    message::{HEADER, Query, Question, Reader},
    wire::{ExtendedError, MESSAGE_MAX, OPTION_EDE, OptRecord, header_code},
};

/// The most text of an upstream's extended error that is passed on.
const EDE_TEXT_MAX: usize = 128;

pub(crate) const NOERROR: u16 = 0;
pub(crate) const FORMERR: u16 = 1;
pub(crate) const SERVFAIL: u16 = 2;
pub(crate) const NXDOMAIN: u16 = 3;
pub(crate) const NOTIMP: u16 = 4;
pub(crate) const REFUSED: u16 = 5;

/// A reply that can be handed to clients.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    bytes: Bytes,
    /// Where the question ends.
    question_end: usize,
    marks: Box<[Mark]>,
    pub(crate) rcode: u16,
    pub(crate) truncated: bool,
    pub(crate) error: Option<ExtendedError>,
    lifetime: Option<Lifetime>,
}

/// Where one record stands.
#[derive(Clone, Copy, Debug)]
struct Mark {
    start: u16,
    ttl_at: u16,
    /// 1 answer, 2 authority, 3 additional.
    section: u8,
}

impl Mark {
    /// Behind the TTL and the length.
    fn data_at(&self) -> usize {
        usize::from(self.ttl_at) + 6
    }
}

/// What kind of reply it is, by how long it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Records, for so many seconds. Only these may be served when they are stale, as a
    /// name that was missing may have come to be.
    Records(u32),
    /// A denial, for so many seconds.
    Denial(u32),
    /// The server failed.
    Failure,
}

/// Why bytes are no reply to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They answer something else, or nothing: whoever sent them, the reply may
    /// still come.
    NotOurs,
    /// They are the reply, and do not parse.
    Malformed,
}

impl Reply {
    /// Reads what came for a question that was sent with an ID.
    pub(crate) fn read(packet: &[u8], id: u16, ask: &Ask) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(packet);
        let [own_id, flags, questions, answers, authorities, additionals] =
            reader.header().ok_or(Unreadable::NotOurs)?;
        if own_id != id || flags & 0x8000 == 0 {
            return Err(Unreadable::NotOurs);
        }
        if questions != 1 {
            // Servers that do not understand a query leave its question out.
            return match (questions, flags & 0xf) {
                (0, rcode @ (FORMERR | NOTIMP)) => Ok(Self::bare(ask, rcode)),
                _ => Err(Unreadable::Malformed),
            };
        }
        let question = reader.question().ok_or(Unreadable::Malformed)?;
        if question.name != ask.name || question.kind != ask.kind || question.class.to_int() != 1 {
            return Err(Unreadable::NotOurs);
        }
        let counts = [answers, authorities, additionals];
        let body = Body::read(&mut reader, packet, counts, flags & 0x0200 != 0)
            .ok_or(Unreadable::Malformed)?;
        Ok(Self::of(packet, flags, &body, ask))
    }

    fn of(packet: &[u8], flags: u16, body: &Body, ask: &Ask) -> Self {
        let mut bytes = packet.get(..body.end).unwrap_or(packet).to_vec();
        if let Some(header) = bytes.get_mut(..HEADER) {
            for (section, place) in [(1, 6), (2, 8), (3, 10)] {
                let count = body.marks.iter().filter(|mark| mark.section == section).count();
                let count = u16::try_from(count).unwrap_or_default();
                header[place..place + 2].copy_from_slice(&count.to_be_bytes());
            }
        }
        let rcode = body.rcode_high << 4 | (flags & 0xf);
        let truncated = flags & 0x0200 != 0;
        let lifetime = if truncated { None } else { body.lifetime(rcode, ask.kind) };
        Self {
            question_end: HEADER + ask.name.len() + 4,
            bytes: bytes.into(),
            marks: body.marks.clone().into(),
            rcode,
            truncated,
            error: body.error.clone(),
            lifetime,
        }
    }

    /// A reply with a result code and the question.
    fn bare(ask: &Ask, rcode: u16) -> Self {
        let mut bytes = vec![0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        ask.question(&mut bytes);
        Self {
            question_end: bytes.len(),
            bytes: bytes.into(),
            marks: Box::default(),
            rcode,
            truncated: false,
            error: None,
            lifetime: None,
        }
    }

    /// Whether it is the reply to a question, whatever the case of its name.
    pub(crate) fn is_about(&self, question: &Question) -> bool {
        let mut reader = Reader::new(&self.bytes);
        reader.at = HEADER;
        reader.question().is_some_and(|own| own == *question)
    }

    /// AA, as the upstream said.
    pub(crate) fn is_authoritative(&self) -> bool {
        self.bytes.get(2).is_some_and(|byte| byte & 0x04 != 0)
    }

    /// RA, as the upstream said.
    pub(crate) fn is_recursive(&self) -> bool {
        self.bytes.get(3).is_some_and(|byte| byte & 0x80 != 0)
    }

    /// Whether there are records in the answer section.
    pub(crate) fn has_answer(&self) -> bool {
        self.marks.iter().any(|mark| mark.section == 1)
    }

    /// How long it may be kept; `None`: not at all.
    pub(crate) fn lifetime(&self) -> Option<Lifetime> {
        self.lifetime
    }

    /// Bytes that it holds on to.
    pub(crate) fn cost(&self) -> usize {
        let text = self.error.as_ref().map_or(0, |(_, text)| text.len());
        self.bytes.len() + self.marks.len() * size_of::<Mark>() + size_of::<Self>() + text
    }

    /// The message as it came, without OPT.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Writes the reply for a client: under its ID and question, aged, cut to
    /// what it takes. Nothing is allocated once `out` has grown.
    /// `turn` is a random number: addresses of one name are rotated by it, so that
    /// clients which take the first spread over all.
    pub(crate) fn write(
        &self,
        query: &Query,
        told: Told,
        limit: usize,
        turn: usize,
        out: &mut Vec<u8>,
    ) {
        let nsid = query.nsid.as_deref();
        let opt = query.edns.map(|edns| OptRecord { edns, rcode: self.rcode, nsid });
        let room = limit.min(MESSAGE_MAX).saturating_sub(opt.map_or(0, |opt| opt.length()));
        let (end, kept) = self.cut(room);
        out.clear();
        out.extend_from_slice(self.bytes.get(..end).unwrap_or_default());
        let mut counts = [0_u16; 3];
        for mark in self.marks.iter().take(kept) {
            told.apply(out, usize::from(mark.ttl_at));
            if let Some(count) = counts.get_mut(usize::from(mark.section) - 1) {
                *count += 1;
            }
        }
        self.rotate(kept, turn, out);
        // The question in the case of this client; names that point to it follow.
        let name = query.question.name.as_slice();
        if let Some(asked) = out.get_mut(HEADER..HEADER + name.len()) {
            asked.copy_from_slice(name);
        }
        let cut = self.truncated || kept < self.marks.len();
        self.header(query, cut, counts, out);
        if let Some(opt) = opt {
            opt.write(self.error.as_ref(), room, out);
        }
    }

    /// Moves the data of addresses on within runs of one owner, type and TTL, which all
    /// have one length.
    fn rotate(&self, kept: usize, turn: usize, out: &mut [u8]) {
        let kept = self.marks.get(..kept).unwrap_or_default();
        let alike = |a: &Mark, b: &Mark| a.section == b.section && self.head(a) == self.head(b);
        for run in kept.chunk_by(alike).filter(|run| run.len() > 1) {
            let Some(length) = run.first().and_then(|mark| self.address_length(mark)) else {
                continue;
            };
            for (to, from) in run.iter().zip(run.iter().cycle().skip(turn % run.len())) {
                let (to, from) = (to.data_at(), from.data_at());
                if let (Some(to), Some(from)) =
                    (out.get_mut(to..to + length), self.bytes.get(from..from + length))
                {
                    to.copy_from_slice(from);
                }
            }
        }
    }

    /// Owner, type, class and TTL of a record, as they stand.
    fn head(&self, mark: &Mark) -> &[u8] {
        self.bytes.get(usize::from(mark.start)..usize::from(mark.ttl_at) + 4).unwrap_or_default()
    }

    /// Owner, type and class of a record, as they stand.
    fn kind(&self, mark: &Mark) -> &[u8] {
        self.bytes.get(usize::from(mark.start)..usize::from(mark.ttl_at)).unwrap_or_default()
    }

    /// The bytes of an address; `None`: the record holds none.
    fn address_length(&self, mark: &Mark) -> Option<usize> {
        match self.kind(mark) {
            [.., 0, 1, 0, 1] => Some(4),
            [.., 0, 28, 0, 1] => Some(16),
            _ => None,
        }
    }

    /// Where to stop so that all fits, and how many records are left.
    fn cut(&self, room: usize) -> (usize, usize) {
        if self.bytes.len() <= room {
            return (self.bytes.len(), self.marks.len());
        }
        let kept = self.marks.iter().rposition(|mark| usize::from(mark.start) <= room);
        match kept {
            Some(kept) => (self.marks.get(kept).map_or(0, |mark| usize::from(mark.start)), kept),
            None => (self.question_end, 0),
        }
    }

    fn header(&self, query: &Query, cut: bool, counts: [u16; 3], out: &mut [u8]) {
        let Some(header) = out.get_mut(..HEADER) else { return };
        header[..2].copy_from_slice(&query.head.id.to_be_bytes());
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        // AA as the upstream said; RD as asked.
        header[2] =
            0x80 | header[2] & 0x04 | flag(cut, 0x02) | flag(query.head.recursion_desired, 0x01);
        // RA as the upstream said; AD only for who asked for DNSSEC (RFC 6840, 5.7).
        let secure = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let authentic = if secure { header[3] & 0x20 } else { 0 };
        let code = header_code(self.rcode, query.edns.is_some());
        header[3] = header[3] & 0x80 | authentic | flag(query.head.checking_disabled, 0x10) | code;
        for (place, count) in header[6..].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// A TTL as it is meant: with its first bit set it is 0 (RFC 2181, 8).
fn meant(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

/// Which TTL a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// What is left after so many seconds of a TTL within bounds.
    Aged(u32, Bounds),
    /// The same for all: the reply is stale.
    Fixed(u32),
    /// As it came, however old it is.
    AsItCame,
}

impl Told {
    /// A TTL as it is told.
    pub(crate) fn ttl(self, ttl: u32) -> u32 {
        let ttl = meant(ttl);
        match self {
            Self::AsItCame => ttl,
            // Whoever keeps it for less need not be told of more at first.
            Self::Aged(0, bounds) => ttl.min(bounds.max),
            // Kept for longer than it says, a record still has the time that is left.
            Self::Aged(age, bounds) => bounds.apply(ttl).saturating_sub(age),
            Self::Fixed(seconds) => seconds,
        }
    }

    fn apply(self, message: &mut [u8], at: usize) {
        let Some(place) = message.get_mut(at..at + 4) else { return };
        let ttl = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
        place.copy_from_slice(&self.ttl(ttl).to_be_bytes());
    }
}

/// What the records of a reply say.
#[derive(Debug, Default)]
struct Body {
    marks: Vec<Mark>,
    /// Where the records that are kept end.
    end: usize,
    rcode_high: u16,
    error: Option<ExtendedError>,
    ttl_min: Option<u32>,
    /// Types in the answer section.
    answered: Vec<Rtype>,
    /// How long a denial may be remembered (RFC 2308, 5).
    denial_ttl: Option<u32>,
}

impl Body {
    /// A cut reply may end in the middle of a record; what is whole counts.
    fn read(
        reader: &mut Reader<'_>,
        packet: &[u8],
        counts: [u16; 3],
        truncated: bool,
    ) -> Option<Self> {
        let mut body = Self { end: reader.at, ..Self::default() };
        for (section, count) in (1..).zip(counts) {
            for _ in 0..count {
                let start = reader.at;
                let Some(record) = reader.record() else {
                    return truncated.then_some(body);
                };
                if record.kind == Rtype::OPT {
                    body.rcode_high = u16::from(record.ttl.to_be_bytes()[0]);
                    body.error = extended_error(record.data);
                    return Some(body);
                }
                let fits = match record.kind {
                    Rtype::A => record.data.len() == 4,
                    Rtype::AAAA => record.data.len() == 16,
                    _ => true,
                };
                if !fits && record.class == 1 {
                    return None;
                }
                let ttl_at = reader.at - record.data.len() - 6;
                body.marks.push(Mark {
                    start: u16::try_from(start).ok()?,
                    ttl_at: u16::try_from(ttl_at).ok()?,
                    section,
                });
                body.end = reader.at;
                let ttl = meant(record.ttl);
                body.ttl_min = Some(body.ttl_min.map_or(ttl, |least| least.min(ttl)));
                if section == 1 {
                    body.answered.push(record.kind);
                }
                if section == 2 && record.kind == Rtype::SOA {
                    let minimum = record.data.last_chunk::<4>().copied().map(u32::from_be_bytes)?;
                    body.denial_ttl = Some(ttl.min(minimum));
                }
            }
        }
        (reader.at == packet.len() || truncated).then_some(body)
    }

    fn lifetime(&self, rcode: u16, kind: Rtype) -> Option<Lifetime> {
        let answers = |wanted: Rtype| self.answered.contains(&wanted);
        let positive = rcode == NOERROR
            && (answers(kind) || (kind == Rtype::ANY && !self.answered.is_empty()));
        match rcode {
            NOERROR if positive => Some(Lifetime::Records(self.ttl_min?)),
            // A denial without SOA does not say for how long (RFC 2308, 5); so too
            // one at the end of aliases.
            NOERROR | NXDOMAIN => {
                let least = self.ttl_min.unwrap_or(u32::MAX);
                Some(Lifetime::Denial(self.denial_ttl?.min(least)))
            }
            SERVFAIL => Some(Lifetime::Failure),
            _ => None,
        }
    }
}

/// The first extended error among EDNS options.
fn extended_error(options: &[u8]) -> Option<ExtendedError> {
    let mut reader = Reader::new(options);
    loop {
        let code = reader.u16()?;
        let length = reader.u16()?;
        let data = reader.take(usize::from(length))?;
        if code == OPTION_EDE {
            let (number, text) = data.split_first_chunk::<2>()?;
            let text = text.get(..text.len().min(EDE_TEXT_MAX))?;
            let text: String =
                String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
            return Some((u16::from_be_bytes(*number), text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Incoming, parse, tests::opt};

    const NAME: &str = "www.example.org";

    const BOUNDS: Bounds = Bounds { min: 5, max: 3600 };

    #[test]
    fn ttls_that_clients_are_told() {
        for (told, ttl, expected) in [
            (Told::Aged(0, BOUNDS), 300, 300),
            (Told::Aged(10, BOUNDS), 300, 290),
            (Told::Aged(0, BOUNDS), 0, 0),
            (Told::Aged(3, BOUNDS), 0, 2),
            (Told::Aged(0, BOUNDS), 86_400, 3600),
            (Told::Aged(0, BOUNDS), u32::MAX, 0),
            (Told::Aged(600, BOUNDS), 86_400, 3000),
            (Told::Fixed(30), 300, 30),
            (Told::AsItCame, 300, 300),
        ] {
            assert_eq!(told.ttl(ttl), expected, "{told:?} of {ttl}");
        }
    }

    fn ask(kind: Rtype) -> Ask {
        Ask {
            name: crate::name::parse(NAME).unwrap(),
            kind,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    /// A record that points to the question's name.
    fn record(kind: Rtype, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0xc0, 12];
        record.extend(kind.to_int().to_be_bytes());
        record.extend([0, 1]);
        record.extend(ttl.to_be_bytes());
        record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        record.extend(data);
        record
    }

    fn a(ttl: u32) -> Vec<u8> {
        record(Rtype::A, ttl, &[192, 0, 2, 1])
    }

    fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
        let mut data = vec![0, 0];
        data.extend([0; 16]);
        data.extend(minimum.to_be_bytes());
        record(Rtype::SOA, ttl, &data)
    }

    fn alias(ttl: u32) -> Vec<u8> {
        record(Rtype::CNAME, ttl, &[0xc0, 12])
    }

    fn packet(flags: u16, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
        let mut packet = vec![0x11, 0x22];
        packet.extend(flags.to_be_bytes());
        packet.extend([0, 1]);
        for section in sections {
            packet.extend(u16::try_from(section.len()).unwrap().to_be_bytes());
        }
        ask(Rtype::A).question(&mut packet);
        packet.extend(sections.concat().concat());
        packet
    }

    fn read(packet: &[u8]) -> Result<Reply, Unreadable> {
        Reply::read(packet, 0x1122, &ask(Rtype::A))
    }

    #[test]
    fn how_long_replies_are_kept() {
        let positive = |seconds| Some(Lifetime::Records(seconds));
        let negative = |seconds| Some(Lifetime::Denial(seconds));
        for (what, packet, expected) in [
            ("records", packet(0x8180, [&[a(300)], &[], &[]]), positive(300)),
            ("the least TTL", packet(0x8180, [&[alias(30), a(300)], &[], &[]]), positive(30)),
            ("none at all", packet(0x8180, [&[a(0)], &[], &[]]), positive(0)),
            ("long", packet(0x8180, [&[a(86_400)], &[], &[]]), positive(86_400)),
            ("a negative TTL", packet(0x8180, [&[a(u32::MAX)], &[], &[]]), positive(0)),
            ("NODATA", packet(0x8180, [&[], &[soa(900, 60)], &[]]), negative(60)),
            ("NXDOMAIN", packet(0x8183, [&[], &[soa(40, 60)], &[]]), negative(40)),
            ("long NXDOMAIN", packet(0x8183, [&[], &[soa(9000, 9000)], &[]]), negative(9000)),
            ("NXDOMAIN without SOA", packet(0x8183, [&[], &[], &[]]), None),
            ("NODATA without SOA", packet(0x8180, [&[], &[], &[]]), None),
            ("an alias of nothing", packet(0x8180, [&[alias(30)], &[], &[]]), None),
            (
                "the same with SOA",
                packet(0x8180, [&[alias(30)], &[soa(90, 60)], &[]]),
                negative(30),
            ),
            ("SERVFAIL", packet(0x8182, [&[], &[], &[]]), Some(Lifetime::Failure)),
            ("REFUSED", packet(0x8185, [&[], &[], &[]]), None),
            ("cut", packet(0x8380, [&[a(300)], &[], &[]]), None),
        ] {
            assert_eq!(read(&packet).unwrap().lifetime(), expected, "{what}");
        }
    }

    #[test]
    fn what_is_no_reply() {
        let fine = packet(0x8180, [&[a(300)], &[], &[]]);
        let bent = |bend: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = fine.clone();
            bend(&mut packet);
            packet
        };
        for (what, packet, expected) in [
            ("fine", fine.clone(), None),
            ("nothing", vec![], Some(Unreadable::NotOurs)),
            ("a query", bent(&|p| p[2] = 1), Some(Unreadable::NotOurs)),
            ("another ID", bent(&|p| p[1] = 1), Some(Unreadable::NotOurs)),
            ("another name", bent(&|p| p[14] = b'x'), Some(Unreadable::NotOurs)),
            ("another case", bent(&|p| p[14] = b'W'), None),
            ("cut off", bent(&|p| p.truncate(p.len() - 1)), Some(Unreadable::Malformed)),
            ("longer than it says", bent(&|p| p.push(0)), Some(Unreadable::Malformed)),
            ("more than it holds", bent(&|p| p[7] = 9), Some(Unreadable::Malformed)),
            (
                "cut off, and says so",
                bent(&|p| {
                    p[2] |= 2;
                    p.truncate(p.len() - 1);
                }),
                None,
            ),
        ] {
            assert_eq!(read(&packet).err(), expected, "{what}");
        }
    }

    /// An alias, three addresses, and one in another section.
    fn packet_of_addresses() -> Vec<u8> {
        let address = |last| record(Rtype::A, 60, &[192, 0, 2, last]);
        let text = record(Rtype::TXT, 60, &[3, 0, 0, 0]);
        packet(0x8180, [&[text, address(1), address(2), address(3)], &[], &[address(9)]])
    }

    #[test]
    fn written_for_a_client() {
        let ede = [0, 15, 0, 4, 0, 22, b'n', b'o'];
        let packet = packet(0x85a0, [&[a(300), a(4)], &[], &[a(60), opt(1232, 0, &ede)]]);
        let reply = read(&packet).unwrap();
        assert_eq!(reply.error, Some((22, "no".to_owned())));
        let mut query = vec![0xab, 0xcd, 0x01, 0x10, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(crate::name::parse("wWw.Example.ORG").unwrap().as_slice());
        query.extend([0, 1, 0, 1]);
        let Incoming::Query(query) = parse(&query) else { panic!() };
        let mut out = Vec::new();
        reply.write(&query, Told::Aged(3, BOUNDS), 512, 0, &mut out);
        // ID, then QR AA RD, then RA CD: AD is for those who ask for DNSSEC.
        assert_eq!(out[..4], [0xab, 0xcd, 0x85, 0x90]);
        assert_eq!(&out[13..16], b"wWw");
        assert_eq!(out[4..12], [0, 1, 0, 2, 0, 0, 0, 1]);
        let ttls: Vec<u32> = reply
            .marks
            .iter()
            .map(|mark| usize::from(mark.ttl_at))
            .map(|at| u32::from_be_bytes(out[at..at + 4].try_into().unwrap()))
            .collect();
        assert_eq!(ttls, [297, 2, 57]);
        let reply = read(&packet_of_addresses()).unwrap();
        for (turn, expected) in [(0, [1, 2, 3]), (1, [2, 3, 1]), (5, [3, 1, 2])] {
            reply.write(&query, Told::Aged(0, BOUNDS), 512, turn, &mut out);
            let last = reply.marks.iter().map(|mark| out[mark.data_at() + 3]);
            assert_eq!(last.collect::<Vec<_>>(), [&[0][..], &expected, &[9]].concat());
        }
        let reply = read(&packet).unwrap();
        // Room for the first record only.
        reply.write(&query, Told::Fixed(30), reply.question_end + 16, 0, &mut out);
        assert_eq!(out.len(), reply.question_end + 16);
        assert_eq!((out[2] & 0x02, &out[4..12]), (0x02, &[0, 1, 0, 1, 0, 0, 0, 0][..]));
    }
}
