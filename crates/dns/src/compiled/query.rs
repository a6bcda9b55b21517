//! Reading the usual query from raw bytes, without a copy on the heap.
//!
//! Usual is: opcode QUERY, one question of class IN with a name of printable
//! bytes (no transfer), and behind it nothing or one OPT record of version 0. Whatever differs is
//! the general path's to judge; here it is no query at all.

use domain::base::iana::Rtype;

use crate::message::{Edns, HEADER, Reader};

/// The longest name (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;

/// Labels of the longest name.
const LABELS_MAX: usize = 128;

/// An OPT record without options.
const OPT_BARE: usize = 11;

/// A query in place.
pub(super) struct RawQuery<'p> {
    packet: &'p [u8],
    pub(super) id: [u8; 2],
    pub(super) flags: [u8; 2],
    pub(super) kind: Rtype,
    pub(super) edns: Option<Edns>,
    /// Whether the client sent EDNS options.
    pub(super) has_options: bool,
    /// The name in lower case.
    lower: [u8; NAME_MAX],
    length: usize,
    /// Where in the name each label begins.
    starts: [u8; LABELS_MAX],
    labels: usize,
}

impl<'p> RawQuery<'p> {
    /// Reads a packet. `None`: it is not usual.
    pub(super) fn read(packet: &'p [u8]) -> Option<Self> {
        let header: &[u8; HEADER] = packet.first_chunk()?;
        let [id0, id1, high, low, 0, 1, 0, 0, 0, 0, 0, additionals @ 0..=1] = *header else {
            return None;
        };
        // No response, opcode QUERY.
        if high & 0xf8 != 0 {
            return None;
        }
        let mut query = Self {
            packet,
            id: [id0, id1],
            flags: [high, low],
            kind: Rtype::A,
            edns: None,
            has_options: false,
            lower: [0; NAME_MAX],
            length: 0,
            starts: [0; LABELS_MAX],
            labels: 0,
        };
        query.read_name()?;
        let behind = HEADER + query.length;
        let [kind_high, kind_low, 0, 1] = *packet.get(behind..)?.first_chunk()? else {
            return None;
        };
        query.kind = Rtype::from_int(u16::from_be_bytes([kind_high, kind_low]));
        if matches!(query.kind, Rtype::AXFR | Rtype::IXFR) {
            return None;
        }
        let rest = packet.get(behind + 4..)?;
        match (additionals, rest) {
            (0, []) => {}
            (1, rest) => {
                query.edns = Some(read_opt(rest)?);
                query.has_options = rest.len() > OPT_BARE;
            }
            _ => return None,
        }
        Some(query)
    }

    fn read_name(&mut self) -> Option<()> {
        let name = self.packet.get(HEADER..)?;
        let mut at = 0;
        loop {
            let length = usize::from(*name.get(at)?);
            if length == 0 {
                break;
            }
            // 255 bytes with the root; pointers and unknown kinds of label are above 63.
            if length > 63 || at + 1 + length >= NAME_MAX {
                return None;
            }
            *self.starts.get_mut(self.labels)? = u8::try_from(at).ok()?;
            self.labels += 1;
            let label = name.get(at + 1..at + 1 + length)?;
            let lower = self.lower.get_mut(at..at + 1 + length)?;
            lower[0] = u8::try_from(length).ok()?;
            for (to, from) in lower[1..].iter_mut().zip(label) {
                if !from.is_ascii_graphic() || *from == b'.' {
                    return None;
                }
                *to = from.to_ascii_lowercase();
            }
            at += 1 + length;
        }
        self.length = at + 1;
        Some(())
    }

    /// The name in lower case, in wire format.
    pub(super) fn name(&self) -> &[u8] {
        self.lower.get(..self.length).unwrap_or_default()
    }

    /// The question as it was asked.
    pub(super) fn question(&self) -> &[u8] {
        self.packet.get(HEADER..HEADER + self.length + 4).unwrap_or_default()
    }

    /// Whether the name is an apex or lies below it.
    pub(super) fn is_in(&self, apex: &[u8]) -> bool {
        let Some(start) = self.length.checked_sub(apex.len()) else { return false };
        let whole = || self.own_starts().iter().any(|label| usize::from(*label) == start);
        self.name().get(start..) == Some(apex) && whole()
    }

    fn own_starts(&self) -> &[u8] {
        self.starts.get(..self.labels).unwrap_or_default()
    }

    /// Where the labels begin that stand before a place in the name.
    pub(super) fn labels_before(&self, end: usize) -> &[u8] {
        let starts = self.own_starts();
        let count = starts.partition_point(|start| usize::from(*start) < end);
        starts.get(..count).unwrap_or_default()
    }

    /// The label that begins at a place, in lower case.
    pub(super) fn label(&self, start: u8) -> &[u8] {
        let start = usize::from(start);
        let length = usize::from(self.lower.get(start).copied().unwrap_or_default());
        self.lower.get(start + 1..start + 1 + length).unwrap_or_default()
    }

    /// Whether the name was asked for in lower case.
    pub(super) fn is_lower(&self) -> bool {
        self.packet.get(HEADER..HEADER + self.length) == Some(self.name())
    }

    /// How long a reply over UDP may be.
    pub(super) fn udp_limit(&self, payload_max: u16) -> usize {
        Edns::udp_limit(self.edns.as_ref(), payload_max)
    }
}

/// An OPT record of version 0 at the end of the packet.
fn read_opt(rest: &[u8]) -> Option<Edns> {
    let ([0, 0, 41, size_high, size_low, _, 0, flags, _, _, _], _) = rest.split_first_chunk()?
    else {
        return None;
    };
    let mut reader = Reader::new(rest);
    let record = reader.record()?;
    let whole = reader.at == rest.len() && crate::message::options_parse(record.data);
    whole.then_some(Edns::new(u16::from_be_bytes([*size_high, *size_low]), flags & 0x80 != 0))
}
