//! What holds of every reply, by the eyes of hickory-proto.

use hickory_proto::{
    op::{Message, OpCode},
    rr::{DNSClass, Record, RecordType},
};
use portolan_dns::{Offline, Proto, Reaction};

/// Bytes of a header.
pub(super) const HEADER: usize = 12;

/// What every client takes over UDP (RFC 1035, 4.2.1), and the most that we send.
pub(super) const UDP_PLAIN: usize = 512;
const UDP_MAX: usize = 1232;

/// The longest message over TCP.
pub(super) const TCP_MAX: usize = 65_535;

/// Result codes of queries that were not understood: FORMERR, NOTIMP.
const NOT_UNDERSTOOD: [u8; 2] = [1, 4];

/// The question of a packet as it stands: `None` where there is no whole one, written
/// without pointers.
pub(super) fn question(packet: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match *packet.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    packet.get(HEADER..at + 5)
}

/// Where a name ends that begins at a place.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Checks that a message is as long as its counts say, whatever is in its records.
pub(super) fn fills(message: &[u8]) {
    let word = |at: usize| usize::from(message[at]) << 8 | usize::from(message[at + 1]);
    let mut at = HEADER;
    for _ in 0..word(4) {
        at = name_end(message, at).expect("a name in the question") + 4;
    }
    for _ in 0..word(6) + word(8) + word(10) {
        at = name_end(message, at).expect("the owner of a record") + 10;
        at += word(at - 2);
        assert!(at <= message.len(), "a record is cut");
    }
    assert_eq!(at, message.len(), "bytes behind the last record");
}

/// The records of a message, in one order.
pub(super) fn records(message: &Message) -> Vec<String> {
    let all = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
    let mut all: Vec<String> = all.map(Record::to_string).collect();
    all.sort();
    all
}

/// Reads a reply, and checks what holds of all of them. `None`: what is in its records
/// cannot be read, and may be so.
fn reply(packet: &[u8], proto: Proto, reply: &[u8], manners: Manners) -> Option<Message> {
    assert!(reply.len() >= HEADER);
    assert_eq!(reply[..2], packet[..2], "the ID of the query");
    assert_eq!(reply[2] & 0x80, 0x80, "a response");
    assert_eq!((reply[2] ^ packet[2]) & 0x78, 0, "the opcode of the query");
    fills(reply);
    let read = match Message::from_vec(reply) {
        Ok(read) => read,
        Err(_) if manners.garbled => {
            assert_eq!(question(reply), question(packet), "the question in its very bytes");
            assert!(reply.len() <= if proto == Proto::Udp { UDP_MAX } else { TCP_MAX });
            return None;
        }
        Err(error) => panic!("others do not read the reply: {error}"),
    };
    let has_edns = read.edns.is_some();
    let limit = match (proto, query(packet)) {
        (Proto::Tcp, _) => TCP_MAX,
        (Proto::Udp, Ok(query)) if has_edns => {
            let offered = query.edns.map_or(0, |edns| usize::from(edns.max_payload()));
            offered.clamp(UDP_PLAIN, UDP_MAX)
        }
        (Proto::Udp, Err(_)) if has_edns => UDP_MAX,
        (Proto::Udp, _) => UDP_PLAIN,
    };
    assert!(reply.len() <= limit, "{} bytes where {limit} are taken", reply.len());
    let code = reply[3] & 0xf;
    let is_in = read.queries.iter().all(|query| query.query_class == DNSClass::IN);
    assert!(is_in || read.answers.is_empty(), "records of a class that nobody has");
    let asked = question(packet);
    match read.queries.len() {
        1 => assert_eq!(question(reply), asked, "the question in its very bytes"),
        0 => assert!(NOT_UNDERSTOOD.contains(&code), "{code} without the question"),
        more => panic!("{more} questions"),
    }
    if !NOT_UNDERSTOOD.contains(&code) {
        understood(packet, &read, manners);
    }
    Some(read)
}

/// A query as others read it. They look into EDNS options that are nothing to us (the
/// network of the client, say), so those are left out.
fn query(packet: &[u8]) -> Result<Message, String> {
    let behind = HEADER + question(packet).map_or(0, <[u8]>::len);
    let alone = packet.get(6..HEADER) == Some(&[0, 0, 0, 0, 0, 1]);
    let read = match packet.get(behind..) {
        Some([0, 0, 41, size @ .., _, _]) if alone && size.len() >= 6 => {
            let opt = [&packet[..behind], &[0, 0, 41], &size[..6], &[0, 0]].concat();
            Message::from_vec(&opt)
        }
        _ => Message::from_vec(packet),
    };
    read.map_err(|error| error.to_string())
}

/// Holds a query that we took for a good one against what others make of it.
fn understood(packet: &[u8], reply: &Message, manners: Manners) {
    // We step over records that no query needs, without looking into them.
    let odd = packet[6..10] != [0; 4] || packet[11] > 1;
    let query = match query(packet) {
        Ok(query) => query,
        Err(_) if odd || reply.edns.is_none() && packet[11] == 1 => return,
        Err(error) => panic!("others do not read the query: {error}"),
    };
    assert_eq!(query.queries.len(), 1, "one question");
    assert_eq!(query.queries[0].query_type, reply.queries[0].query_type);
    assert_eq!(query.queries[0].query_class, reply.queries[0].query_class);
    assert!(query.queries[0].name.eq_case(&reply.queries[0].name), "the same name");
    let (asked, said) = (&query.metadata, &reply.metadata);
    assert!(manners.flags || asked.recursion_desired == said.recursion_desired, "RD as asked");
    assert_eq!(asked.checking_disabled, said.checking_disabled);
    if asked.op_code == OpCode::Query && !odd {
        assert_eq!(query.edns.is_some(), reply.edns.is_some(), "EDNS for who has it");
    }
    if let (Some(asked), Some(said)) = (&query.edns, &reply.edns) {
        assert_eq!(asked.flags().dnssec_ok, said.flags().dnssec_ok);
        assert_eq!(said.version(), 0);
    }
}

/// How a face may differ from one that always answers, and always the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manners {
    /// There are rules by which a query gets no reply.
    pub(super) drops: bool,
    /// What is answered depends on what was asked before.
    pub(super) counts: bool,
    /// Flags are not those of the query.
    pub(super) flags: bool,
    /// There may be records that nobody can read.
    pub(super) garbled: bool,
}

/// Asks a face over both transports, and checks what holds of its replies, which it
/// returns: those that can be read.
pub(super) fn packet(
    face: &Offline,
    packet: &[u8],
    turn: usize,
    manners: Manners,
) -> [Option<Message>; 2] {
    let client = super::faces::CLIENT.into();
    let by_transport = [Proto::Udp, Proto::Tcp].map(|proto| {
        let reaction = face.react(proto, client, packet, turn);
        if !manners.counts {
            let general = face.react_in_general(proto, client, packet, turn);
            assert_eq!(reaction, general, "compiled and not, over {proto:?}");
        }
        match reaction {
            Reaction::Silence => {
                let no_query = packet.len() < HEADER || packet[2] & 0x80 != 0;
                assert!(no_query || manners.drops, "a query is met with silence");
                None
            }
            Reaction::Reply(bytes) => {
                assert!(packet.len() >= HEADER && packet[2] & 0x80 == 0, "a reply to no query");
                reply(packet, proto, &bytes, manners)
            }
            Reaction::Zone(messages) => {
                assert_eq!(proto, Proto::Tcp, "a zone in a packet");
                zone(packet, &messages, manners);
                None
            }
        }
    });
    if let [Some(udp), Some(tcp)] = &by_transport
        && !udp.metadata.truncation
        && !manners.counts
    {
        assert_eq!(udp.metadata.response_code, tcp.metadata.response_code);
        assert_eq!(records(udp), records(tcp), "the same records over UDP and TCP");
    }
    by_transport
}

/// A zone begins and ends with its SOA; that of an IXFR client who has it is the SOA alone.
fn zone(packet: &[u8], messages: &[Vec<u8>], manners: Manners) {
    let read = messages.iter().filter_map(|message| reply(packet, Proto::Tcp, message, manners));
    let records: Vec<Record> = read.flat_map(|message| message.answers).collect();
    let is_soa = |record: Option<&Record>| {
        record.is_some_and(|record| record.record_type() == RecordType::SOA)
    };
    assert!(is_soa(records.first()) && is_soa(records.last()), "SOA at both ends");
}
