//! Questions, and what a right reply to them is.

use std::net::Ipv4Addr;

/// Bytes of a header.
const HEADER: usize = 12;

/// Type A.
const A: u16 = 1;

/// Code of a reply: the server failed.
const SERVFAIL: u8 = 2;

/// Type OPT.
const OPT: u16 = 41;

/// A question with its answer.
#[derive(Clone, Debug)]
pub struct Question {
    pub(crate) packet: Vec<u8>,
    expect: Expect,
}

/// What a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// SERVFAIL: it says that it does not know.
    Failed,
    Wrong,
}

/// What a right reply holds.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Whatever comes back with our ID: for a server that only echoes.
    Anything,
    /// The name does not exist.
    NxDomain,
    /// The name exists, without such records.
    NoData,
    /// All of these addresses and no others.
    Addresses(Vec<Ipv4Addr>),
    /// Some of these addresses and no others, and the reply says that it is cut.
    Cut(Vec<Ipv4Addr>),
}

impl Question {
    /// A question about a name, with an EDNS record that offers 1,232 bytes, or
    /// without. `None`: it is no name.
    pub fn new(name: &str, kind: u16, edns: bool, mut expect: Expect) -> Option<Self> {
        let mut packet = vec![0, 0, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        for label in name.trim_end_matches('.').split('.') {
            packet.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        if edns {
            let [high, low] = 1232_u16.to_be_bytes();
            packet.extend_from_slice(&[0, 0, OPT as u8, high, low, 0, 0, 0, 0, 0, 0]);
        }
        if let Expect::Addresses(addresses) | Expect::Cut(addresses) = &mut expect {
            addresses.sort_unstable();
        }
        Some(Self { packet, expect })
    }

    /// The same question, of which any reply is right.
    pub fn without_check(&self) -> Self {
        Self { packet: self.packet.clone(), expect: Expect::Anything }
    }

    /// What a reply to it is.
    pub(crate) fn judge(&self, reply: &[u8]) -> Verdict {
        if self.accepts(reply) {
            return Verdict::Right;
        }
        let failed = matches!(reply, [_, _, flags, codes, ..]
            if reply.len() >= HEADER && flags & 0x80 != 0 && codes & 0x0f == SERVFAIL);
        if failed { Verdict::Failed } else { Verdict::Wrong }
    }

    fn accepts(&self, reply: &[u8]) -> bool {
        let Some([_, _, flags, codes, ..]) = reply.get(..HEADER) else { return false };
        let (response, cut, code) = (flags & 0x80 != 0, flags & 0x02 != 0, codes & 0x0f);
        let expected = match &self.expect {
            Expect::Anything => return true,
            Expect::NxDomain => (3, false, &[][..]),
            Expect::NoData => (0, false, &[][..]),
            Expect::Addresses(addresses) => (0, false, addresses.as_slice()),
            Expect::Cut(addresses) => (0, true, addresses.as_slice()),
        };
        let (expected_code, expected_cut, addresses) = expected;
        if !response || code != expected_code || cut != expected_cut {
            return false;
        }
        let Some(found) = addresses_of(reply) else { return false };
        let known = found.iter().all(|one| addresses.binary_search(one).is_ok());
        known && if cut { found.len() <= addresses.len() } else { found.len() == addresses.len() }
    }
}

/// The A records of the answer section.
fn addresses_of(reply: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let count = u16::from_be_bytes(*reply.get(6..)?.first_chunk()?);
    let mut at = skip_name(reply, HEADER)? + 4;
    let mut found = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        at = skip_name(reply, at)?;
        let fixed: [u8; 10] = *reply.get(at..)?.first_chunk()?;
        let (kind, length) = (
            u16::from_be_bytes([fixed[0], fixed[1]]),
            usize::from(u16::from_be_bytes([fixed[8], fixed[9]])),
        );
        let data = reply.get(at + 10..at + 10 + length)?;
        if kind == A {
            found.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    Some(found)
}

fn skip_name(reply: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *reply.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply to `a.b` with so many addresses 10.0.0.x.
    fn reply(flags: u8, code: u8, addresses: &[u8]) -> Vec<u8> {
        let count = u8::try_from(addresses.len()).unwrap();
        let mut reply = vec![0, 0, flags, code, 0, 1, 0, count, 0, 0, 0, 0];
        reply.extend([1, b'a', 1, b'b', 0, 0, 1, 0, 1]);
        for last in addresses {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, *last]);
        }
        reply
    }

    #[test]
    fn wrong_replies_are_told_apart() {
        let two = || vec![Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1)];
        let (right, wrong, failed) = (Verdict::Right, Verdict::Wrong, Verdict::Failed);
        for (what, expect, reply, verdict) in [
            ("both", Expect::Addresses(two()), reply(0x84, 0, &[1, 2]), right),
            ("one is missing", Expect::Addresses(two()), reply(0x84, 0, &[1]), wrong),
            ("a strange one", Expect::Addresses(two()), reply(0x84, 0, &[1, 3]), wrong),
            ("no response", Expect::Addresses(two()), reply(0x04, 0, &[1, 2]), wrong),
            ("cut", Expect::Cut(two()), reply(0x86, 0, &[1]), right),
            ("not cut", Expect::Cut(two()), reply(0x84, 0, &[1]), wrong),
            ("denied", Expect::NxDomain, reply(0x84, 3, &[]), right),
            ("not denied", Expect::NxDomain, reply(0x84, 0, &[]), wrong),
            ("nothing", Expect::NoData, reply(0x84, 0, &[]), right),
            ("something", Expect::NoData, reply(0x84, 0, &[1]), wrong),
            ("too short", Expect::NoData, vec![0; 5], wrong),
            ("failed", Expect::Addresses(two()), reply(0x84, 2, &[]), failed),
            ("no failure", Expect::NxDomain, vec![0, 0, 0x80, 2], wrong),
        ] {
            let question = Question::new("a.b", 1, false, expect).unwrap();
            assert_eq!(question.judge(&reply), verdict, "{what}");
        }
    }
}
