//! Reading queries from the wire.
//!
//! Only what a server needs: header, question, OPT. What is wrong with a packet
//! decides how it is met, and nothing of it is looked at twice:
//!
//! | packet | meets |
//! |---|---|
//! | shorter than a header, or itself a response | silence |
//! | opcode other than QUERY | NOTIMP (NOTIFY: REFUSED, we are nobody's secondary) |
//! | counts that no query has; a question or record that does not parse | FORMERR |
//! | OPT twice, before other records than TSIG, or not at the root | FORMERR |
//! | an EDNS version above 0 | BADVERS |
//! | signed by TSIG | NOTAUTH, as no key is known |
//!
//! Responses are never answered: two servers would send each other errors for
//! ever.

use std::sync::Arc;

use bytes::Bytes;
use domain::base::iana::{Class, Rtype};

use crate::name::DnsName;

/// Bytes of a header.
pub(crate) const HEADER: usize = 12;

/// What every client takes over UDP (RFC 1035, 4.2.1).
const UDP_PLAIN: u16 = 512;

/// The EDNS option that asks for the server's name, and tells it (RFC 5001, 2.3).
pub(crate) const OPTION_NSID: u16 = 3;

const OPCODE_QUERY: u8 = 0;
const OPCODE_NOTIFY: u8 = 4;

/// A name, a type and a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// As it was asked, in its case.
    pub name: DnsName,
    /// The type of record.
    pub kind: Rtype,
    /// The class.
    pub class: Class,
}

/// What a reply repeats of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: u16,
    pub(crate) opcode: u8,
    pub(crate) recursion_desired: bool,
    pub(crate) checking_disabled: bool,
}

/// What a client says of itself by EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    /// What it takes over UDP, never less than 512.
    pub(crate) udp_size: u16,
    pub(crate) dnssec_ok: bool,
    /// Who answers, it wants to know (RFC 5001).
    pub(crate) wants_nsid: bool,
}

impl Edns {
    /// What a client offers, which is never less than every client takes.
    pub(crate) fn new(udp_size: u16, dnssec_ok: bool) -> Self {
        Self { udp_size: udp_size.max(UDP_PLAIN), dnssec_ok, wants_nsid: false }
    }

    /// How long a reply over UDP may be, to a client with or without EDNS.
    pub(crate) fn udp_limit(edns: Option<&Self>, payload_max: u16) -> usize {
        let offered = edns.map_or(UDP_PLAIN, |edns| edns.udp_size.min(payload_max.max(UDP_PLAIN)));
        usize::from(offered)
    }
}

/// A query that can be answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    pub(crate) head: Head,
    pub(crate) question: Question,
    pub(crate) edns: Option<Edns>,
    /// The serial that an IXFR client has.
    pub(crate) serial: Option<u32>,
    /// What we call ourselves to who wants to know.
    pub(crate) nsid: Option<Arc<str>>,
}

/// Why a packet is not answered with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It does not parse.
    FormErr,
    /// An opcode that we do not know.
    NotImp,
    /// NOTIFY.
    Refused,
    /// An EDNS version that we do not speak.
    BadVers,
    /// Signed with a key that we do not know.
    NotAuth,
}

/// How a packet is met.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Incoming {
    /// No reply at all.
    Silence,
    /// A reply that only says what is wrong. The question is repeated where it
    /// could be read.
    Reject { head: Head, question: Option<Question>, edns: Option<Edns>, why: Rejection },
    /// An answer.
    Query(Query),
}

/// Reads a packet.
pub(crate) fn parse(packet: &[u8]) -> Incoming {
    let mut reader = Reader::new(packet);
    let Some([id, flags, questions, answers, authorities, additionals]) = reader.header() else {
        return Incoming::Silence;
    };
    if flags & 0x8000 != 0 {
        return Incoming::Silence;
    }
    let head = Head {
        id,
        opcode: u8::try_from((flags >> 11) & 0xf).unwrap_or_default(),
        recursion_desired: flags & 0x0100 != 0,
        checking_disabled: flags & 0x0010 != 0,
    };
    let reject = |question, edns, why| Incoming::Reject { head, question, edns, why };
    if !matches!(head.opcode, OPCODE_QUERY | OPCODE_NOTIFY) {
        return reject(None, None, Rejection::NotImp);
    }
    // A query holds one question; IXFR brings an SOA, EDNS and TSIG a record each.
    if questions != 1 || answers > 1 || authorities > 1 || additionals > 2 {
        return reject(None, None, Rejection::FormErr);
    }
    let Some(question) = reader.question() else {
        return reject(None, None, Rejection::FormErr);
    };
    let extras = match reader.extras(answers + authorities, additionals) {
        Some(extras) if reader.at == packet.len() => extras,
        _ => return reject(Some(question), None, Rejection::FormErr),
    };
    let edns = extras.edns;
    match () {
        () if extras.version > 0 => reject(Some(question), edns, Rejection::BadVers),
        () if extras.signed => reject(Some(question), edns, Rejection::NotAuth),
        () if head.opcode == OPCODE_NOTIFY => reject(Some(question), edns, Rejection::Refused),
        () => Incoming::Query(Query { head, question, edns, serial: extras.serial, nsid: None }),
    }
}

/// What the records behind the question say.
#[derive(Default)]
struct Extras {
    edns: Option<Edns>,
    version: u8,
    signed: bool,
    serial: Option<u32>,
}

/// Walks over a packet; each step is `None` when the packet ends too early or
/// holds what it must not.
pub(crate) struct Reader<'p> {
    packet: &'p [u8],
    pub(crate) at: usize,
}

impl<'p> Reader<'p> {
    pub(crate) fn new(packet: &'p [u8]) -> Self {
        Self { packet, at: 0 }
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'p [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.packet.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn header(&mut self) -> Option<[u16; 6]> {
        if self.packet.len() < HEADER {
            return None;
        }
        Some([self.u16()?, self.u16()?, self.u16()?, self.u16()?, self.u16()?, self.u16()?])
    }

    /// The question. Its name is written out: nothing stands before it that a
    /// pointer could lead to.
    pub(crate) fn question(&mut self) -> Option<Question> {
        let start = self.at;
        loop {
            let length = self.u8()?;
            if length == 0 {
                break;
            }
            if length > 63 {
                return None;
            }
            self.take(usize::from(length))?;
        }
        let octets = Bytes::copy_from_slice(self.packet.get(start..self.at)?);
        // Refuses names longer than 255 bytes.
        let name = DnsName::from_octets(octets).ok()?;
        let kind = Rtype::from_int(self.u16()?);
        let class = Class::from_int(self.u16()?);
        Some(Question { name, kind, class })
    }

    /// Steps over a name that may end in a pointer. Returns whether it is the
    /// root.
    pub(crate) fn skip_name(&mut self) -> Option<bool> {
        let start = self.at;
        loop {
            let length = self.u8()?;
            match length {
                0 => return Some(self.at == start + 1),
                1..=63 => {
                    self.take(usize::from(length))?;
                }
                // A pointer must lead back.
                192..=255 => {
                    let low = self.u8()?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    return (target < start && target >= HEADER).then_some(false);
                }
                _ => return None,
            }
            if self.at - start > 255 {
                return None;
            }
        }
    }

    /// Steps over an EDNS option: its number.
    fn option(&mut self) -> Option<u16> {
        let number = self.u16()?;
        let length = self.u16()?;
        self.take(usize::from(length)).map(|_| number)
    }

    fn extras(&mut self, skipped: u16, additionals: u16) -> Option<Extras> {
        let mut extras = Extras::default();
        for _ in 0..skipped {
            let record = self.record()?;
            if record.kind == Rtype::SOA {
                extras.serial = serial_of(record.data);
            }
        }
        for _ in 0..additionals {
            let record = self.record()?;
            if extras.signed {
                // TSIG is the last record (RFC 8945, 5.1).
                return None;
            }
            match record.kind {
                Rtype::OPT => {
                    if extras.edns.is_some() || !record.at_root || !options_parse(record.data) {
                        return None;
                    }
                    let [_, version, flags, _] = record.ttl.to_be_bytes();
                    extras.version = version;
                    extras.edns = Some(Edns {
                        wants_nsid: has_option(record.data, OPTION_NSID),
                        ..Edns::new(record.class, flags & 0x80 != 0)
                    });
                }
                Rtype::TSIG => extras.signed = true,
                // OPT is the last record but for TSIG.
                _ if extras.edns.is_some() => return None,
                _ => {}
            }
        }
        Some(extras)
    }

    pub(crate) fn record(&mut self) -> Option<RawRecord<'p>> {
        let at_root = self.skip_name()?;
        let kind = Rtype::from_int(self.u16()?);
        let class = self.u16()?;
        let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let length = self.u16()?;
        Some(RawRecord { at_root, kind, class, ttl, data: self.take(usize::from(length))? })
    }
}

pub(crate) struct RawRecord<'p> {
    pub(crate) at_root: bool,
    pub(crate) kind: Rtype,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: &'p [u8],
}

/// The serial of an SOA whose names may be compressed: five numbers end it.
fn serial_of(data: &[u8]) -> Option<u32> {
    let numbers = data.get(data.len().checked_sub(20)?..)?;
    Some(u32::from_be_bytes(numbers.get(..4)?.try_into().ok()?))
}

/// Whether EDNS options fill their record exactly.
pub(crate) fn options_parse(data: &[u8]) -> bool {
    let mut reader = Reader::new(data);
    while reader.at < data.len() {
        if reader.option().is_none() {
            return false;
        }
    }
    true
}

/// Whether there is such an option among them.
fn has_option(data: &[u8], wanted: u16) -> bool {
    let mut reader = Reader::new(data);
    while let Some(number) = reader.option() {
        if number == wanted {
            return true;
        }
    }
    false
}

impl Query {
    /// How long a reply over UDP may be.
    pub(crate) fn udp_limit(&self, payload_max: u16) -> usize {
        Edns::udp_limit(self.edns.as_ref(), payload_max)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A query as bytes, to be bent by tests.
    pub(crate) fn packet(name: &str, kind: Rtype) -> Vec<u8> {
        let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend_from_slice(crate::name::parse(name).unwrap().as_slice());
        packet.extend_from_slice(&kind.to_int().to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    }

    /// An OPT record at the root.
    pub(crate) fn opt(size: u16, version: u8, options: &[u8]) -> Vec<u8> {
        let mut record = vec![0, 0, 41];
        record.extend_from_slice(&size.to_be_bytes());
        record.extend_from_slice(&[0, version, 0x80, 0]);
        record.extend_from_slice(&u16::try_from(options.len()).unwrap().to_be_bytes());
        record.extend_from_slice(options);
        record
    }

    fn bent(bend: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = packet("svc1.testns.svc.cluster.local", Rtype::A);
        bend(&mut packet);
        packet
    }

    fn with(additionals: &[&[u8]]) -> Vec<u8> {
        bent(|packet| {
            packet[11] = u8::try_from(additionals.len()).unwrap();
            packet.extend(additionals.concat());
        })
    }

    #[derive(Debug, PartialEq)]
    enum Met {
        Silence,
        Answer,
        Reject(Rejection),
    }

    #[test]
    fn how_packets_are_met() {
        let plain_a = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4];
        let forward = [0xc0, 200, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0];
        let tsig = [0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0];
        let opt_below = [[1, b'x'].as_slice(), &opt(1232, 0, &[])].concat();
        let form_err = || Met::Reject(Rejection::FormErr);
        for (what, packet, expected) in [
            ("nothing", vec![], Met::Silence),
            ("half a header", vec![0; 11], Met::Silence),
            ("a response", bent(|p| p[2] |= 0x80), Met::Silence),
            (
                "a response that does not parse",
                bent(|p| {
                    p[2] |= 0x80;
                    p.truncate(14);
                }),
                Met::Silence,
            ),
            ("a query", bent(|_| {}), Met::Answer),
            (
                "TC and Z set",
                bent(|p| {
                    p[2] |= 0x02;
                    p[3] |= 0x70;
                }),
                Met::Answer,
            ),
            ("IQUERY", bent(|p| p[2] |= 0x08), Met::Reject(Rejection::NotImp)),
            ("UPDATE", bent(|p| p[2] |= 0x28), Met::Reject(Rejection::NotImp)),
            ("NOTIFY", bent(|p| p[2] |= 0x20), Met::Reject(Rejection::Refused)),
            ("no question", bent(|p| p[5] = 0), form_err()),
            ("two questions", bent(|p| p[5] = 2), form_err()),
            ("two answers", bent(|p| p[7] = 2), form_err()),
            ("two authorities", bent(|p| p[9] = 2), form_err()),
            ("three additionals", bent(|p| p[11] = 3), form_err()),
            ("65535 questions", bent(|p| p[4..6].fill(0xff)), form_err()),
            ("a promised record that is missing", bent(|p| p[11] = 1), form_err()),
            ("a header alone", bent(|p| p.truncate(12)), form_err()),
            ("half a name", bent(|p| p.truncate(15)), form_err()),
            (
                "no class",
                bent(|p| {
                    p.pop();
                }),
                form_err(),
            ),
            ("something behind the end", bent(|p| p.push(0)), form_err()),
            (
                "a pointer to itself",
                bent(|p| {
                    p.truncate(12);
                    p.extend([0xc0, 12, 0, 1, 0, 1]);
                }),
                form_err(),
            ),
            (
                "a pointer to the header",
                bent(|p| {
                    p.truncate(12);
                    p.extend([0xc0, 0, 0, 1, 0, 1]);
                }),
                form_err(),
            ),
            ("a label of 64", bent(|p| p[12] = 64), form_err()),
            ("a label of the old kind", bent(|p| p[12] = 0x80), form_err()),
            (
                "a name of 256 bytes",
                bent(|p| {
                    p.truncate(12);
                    for _ in 0..4 {
                        p.push(63);
                        p.extend([b'x'; 63]);
                    }
                    p.extend([0, 0, 1, 0, 1]);
                }),
                form_err(),
            ),
            ("EDNS", with(&[&opt(1232, 0, &[])]), Met::Answer),
            (
                "EDNS with an unknown option",
                with(&[&opt(1232, 0, &[0xff, 0, 0, 1, 7])]),
                Met::Answer,
            ),
            ("EDNS with half an option", with(&[&opt(1232, 0, &[0, 10, 0, 8, 1])]), form_err()),
            ("EDNS version 1", with(&[&opt(1232, 1, &[])]), Met::Reject(Rejection::BadVers)),
            ("EDNS twice", with(&[&opt(1232, 0, &[]), &opt(1232, 0, &[])]), form_err()),
            ("EDNS below the root", with(&[&opt_below]), form_err()),
            ("EDNS before another record", with(&[&opt(1232, 0, &[]), &plain_a]), form_err()),
            ("EDNS behind another record", with(&[&plain_a, &opt(1232, 0, &[])]), Met::Answer),
            ("a pointer forward", with(&[&forward]), form_err()),
            ("TSIG", with(&[&opt(1232, 0, &[]), &tsig]), Met::Reject(Rejection::NotAuth)),
            ("TSIG before EDNS", with(&[&tsig, &opt(1232, 0, &[])]), form_err()),
        ] {
            let met = match parse(&packet) {
                Incoming::Silence => Met::Silence,
                Incoming::Reject { head, why, .. } => {
                    assert_eq!(head.id, 0x1234, "{what}");
                    Met::Reject(why)
                }
                Incoming::Query(_) => Met::Answer,
            };
            assert_eq!(met, expected, "{what}");
        }
    }

    #[test]
    fn sizes_of_replies() {
        for (packet, expected) in [
            (bent(|_| {}), 512),
            (with(&[&opt(100, 0, &[])]), 512),
            (with(&[&opt(800, 0, &[])]), 800),
            (with(&[&opt(65_535, 0, &[])]), 1232),
        ] {
            let Incoming::Query(query) = parse(&packet) else { panic!("no query") };
            assert_eq!(query.udp_limit(1232), expected);
        }
    }
}
