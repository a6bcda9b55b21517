//! A second opinion: what we read and write, held against hickory-proto.
//!
//! Packets are generated, then bent at random. Whatever we take for a query must
//! be the same query to hickory; whatever we write must read there as what we
//! meant; a reply that hickory made must come through us unchanged but for its
//! TTLs. Nothing may panic, whatever the bytes.

use domain::{
    base::iana::Rtype,
    rdata::{A, Aaaa, Cname, Ptr, Srv},
};
use hickory_proto::{
    op::{Edns as OtherEdns, Message, MessageType, OpCode, Query as OtherQuery},
    rr::{Name as OtherName, RData, Record, RecordType, rdata},
};
use proptest::{prelude::*, sample::Index};

use crate::{
    forward::{Ask, Bounds, Reply, Told},
    message::{HEADER, Incoming, Query, parse, tests::opt},
    name::{DnsName, Rr, record},
    wire::{self, MESSAGE_MAX, Parts},
};

/// A record in both tongues.
#[derive(Clone, Debug)]
enum Data {
    A(u32),
    Aaaa(u128),
    Srv(u16, u16, u16, String),
    Cname(String),
    Ptr(String),
}

#[derive(Clone, Debug)]
struct Spec {
    owner: String,
    ttl: u32,
    data: Data,
}

impl Spec {
    fn ours(&self) -> Rr {
        let owner = ours(&self.owner);
        match &self.data {
            Data::A(bits) => record(&owner, self.ttl, A::new((*bits).into())),
            Data::Aaaa(bits) => record(&owner, self.ttl, Aaaa::new((*bits).into())),
            Data::Srv(priority, weight, port, target) => {
                record(&owner, self.ttl, Srv::new(*priority, *weight, *port, ours(target)))
            }
            Data::Cname(target) => record(&owner, self.ttl, Cname::new(ours(target))),
            Data::Ptr(target) => record(&owner, self.ttl, Ptr::new(ours(target))),
        }
    }

    fn theirs(&self) -> Record {
        let data = match &self.data {
            Data::A(bits) => RData::A(rdata::A((*bits).into())),
            Data::Aaaa(bits) => RData::AAAA(rdata::AAAA((*bits).into())),
            Data::Srv(priority, weight, port, target) => {
                RData::SRV(rdata::SRV::new(*priority, *weight, *port, theirs(target)))
            }
            Data::Cname(target) => RData::CNAME(rdata::CNAME(theirs(target))),
            Data::Ptr(target) => RData::PTR(rdata::PTR(theirs(target))),
        };
        Record::from_rdata(theirs(&self.owner), self.ttl, data)
    }
}

fn ours(name: &str) -> DnsName {
    crate::name::parse(name).unwrap()
}

fn theirs(name: &str) -> OtherName {
    OtherName::from_ascii(name).unwrap()
}

/// Names that share their ends, in mixed case, some of them long.
fn names() -> impl Strategy<Value = String> {
    let label = prop_oneof!["[a-cA-C]", "[a-z0-9]{1,20}", "_[a-z]{1,4}", "[a-z]{63}"];
    let zone = prop_oneof!["cluster\\.local\\.", "cLuster\\.LOCAL\\.", "svc\\.cluster\\.local\\."];
    (prop::collection::vec(label, 0..3), zone)
        .prop_map(|(labels, zone)| labels.into_iter().chain([zone]).collect::<Vec<_>>().join("."))
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let data = prop_oneof![
        any::<u32>().prop_map(Data::A),
        any::<u128>().prop_map(Data::Aaaa),
        (any::<u16>(), any::<u16>(), any::<u16>(), names())
            .prop_map(|(priority, weight, port, target)| Data::Srv(priority, weight, port, target)),
        names().prop_map(Data::Cname),
        names().prop_map(Data::Ptr),
    ];
    let spec =
        (names(), 0..100_000_u32, data).prop_map(|(owner, ttl, data)| Spec { owner, ttl, data });
    prop::collection::vec(spec, 0..30)
}

/// A query for any name of any bytes.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let labels = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..6);
    let edns = prop::option::of((any::<u16>(), prop_oneof![9 => Just(0_u8), 1 => any::<u8>()]));
    (any::<u16>(), any::<u16>(), labels, 0..300_u16, edns).prop_map(
        |(id, flags, labels, kind, edns)| {
            let mut packet = id.to_be_bytes().to_vec();
            // Queries of opcode QUERY, mostly; the rest is for the bending.
            packet.extend((flags & 0x07ff).to_be_bytes());
            packet.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
            for label in labels {
                packet.push(u8::try_from(label.len()).unwrap());
                packet.extend(label);
            }
            packet.push(0);
            packet.extend(kind.to_be_bytes());
            packet.extend([0, 1]);
            if let Some((size, version)) = edns {
                packet.extend(opt(size, version, &[]));
            }
            packet
        },
    )
}

/// Bytes that are set, then a length to cut to.
type Bends = (Vec<(Index, u8)>, Option<Index>);

fn bends() -> impl Strategy<Value = Bends> {
    let set = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    (set, prop::option::weighted(0.2, any::<Index>()))
}

fn bend(packet: &mut Vec<u8>, (set, cut): &Bends) {
    for (place, byte) in set {
        if !packet.is_empty() {
            let place = place.index(packet.len());
            packet[place] = *byte;
        }
    }
    if let Some(cut) = cut {
        packet.truncate(cut.index(packet.len() + 1));
    }
}

/// A query that asks for a name, with what it offers over UDP.
fn query(name: &str, size: Option<u16>) -> Query {
    let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(size.is_some())];
    packet.extend(ours(name).as_slice());
    packet.extend([0, 1, 0, 1]);
    if let Some(size) = size {
        packet.extend(opt(size, 0, &[]));
    }
    match parse(&packet) {
        Incoming::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_query_means_the_same_to_others(packet in packets(), bends in bends()) {
        let mut packet = packet;
        bend(&mut packet, &bends);
        let incoming = parse(&packet);
        let mut out = Vec::new();
        if let Incoming::Reject { .. } = &incoming {
            prop_assert!(wire::reject(&incoming, &mut out).is_some());
            let reply = Message::from_vec(&out);
            prop_assert!(reply.is_ok(), "{:?} of {:?}", reply, incoming);
        }
        let Incoming::Query(query) = incoming else { return Ok(()) };
        // We step over records that no query needs, without looking into them.
        if packet[6..10] != [0; 4] || (packet[11] > 0 && query.edns.is_none()) || packet[11] > 1 {
            return Ok(());
        }
        let other = Message::from_vec(&packet);
        prop_assert!(other.is_ok(), "we take it for {:?}, others say {:?}", query, other);
        let other = other.unwrap();
        prop_assert_eq!(other.metadata.id, query.head.id);
        prop_assert_eq!(other.metadata.message_type, MessageType::Query);
        prop_assert_eq!(other.metadata.op_code, OpCode::Query);
        prop_assert_eq!(other.metadata.recursion_desired, query.head.recursion_desired);
        prop_assert_eq!(other.metadata.checking_disabled, query.head.checking_disabled);
        let [question] = &other.queries[..] else { panic!("{} questions", other.queries.len()) };
        let ours: Vec<&[u8]> = query.question.name.iter().map(|label| label.as_slice()).collect();
        let theirs: Vec<&[u8]> = question.name.iter().chain([&[][..]]).collect();
        prop_assert_eq!(ours, theirs);
        prop_assert_eq!(u16::from(question.query_type), query.question.kind.to_int());
        prop_assert_eq!(u16::from(question.query_class), query.question.class.to_int());
        prop_assert_eq!(
            other.edns.as_ref().map(|edns| (edns.max_payload().max(512), edns.flags().dnssec_ok)),
            query.edns.map(|edns| (edns.udp_size, edns.dnssec_ok))
        );
    }

    #[test]
    fn a_reply_reads_as_it_was_meant(
        asked in names(),
        answer in specs(),
        additional in specs(),
        size in prop::option::of(512..4096_u16),
        limit in 512..4096_usize,
    ) {
        let query = query(&asked, size);
        let records = |specs: &[Spec]| -> Vec<Rr> { specs.iter().map(Spec::ours).collect() };
        let parts = Parts {
            answer: &records(&answer),
            additional: &records(&additional),
            authoritative: true,
            ..Parts::default()
        };
        let mut out = Vec::new();
        wire::reply_with(&query, &parts, limit, 0, &mut out);
        prop_assert!(out.len() <= limit);
        let read = Message::from_vec(&out).unwrap();
        prop_assert_eq!(&read.queries[0].name, &theirs(&asked));
        prop_assert_eq!(read.edns.is_some(), size.is_some());
        let meant: Vec<Record> =
            answer.iter().chain(&additional).map(Spec::theirs).collect();
        let found: Vec<Record> =
            read.answers.iter().chain(&read.additionals).cloned().collect();
        prop_assert_eq!(read.metadata.truncation, found.len() < meant.len());
        prop_assert_eq!(&found[..], &meant[..found.len()]);
        prop_assert!(read.answers.len() <= answer.len());
        for (found, meant) in found.iter().zip(&meant) {
            // Comparing names ignores case, and we keep it.
            prop_assert_eq!(found.to_string(), meant.to_string());
        }
    }

    #[test]
    fn a_forwarded_reply_comes_through(
        asked in names(),
        answer in specs(),
        age in 1..400_u32,
        limit in prop_oneof![Just(MESSAGE_MAX), 512..2000_usize],
        edns in any::<bool>(),
    ) {
        let ask = Ask {
            name: ours(&asked),
            kind: Rtype::A,
            dnssec_ok: false,
            checking_disabled: false,
        };
        let mut upstream = Message::new(7, MessageType::Response, OpCode::Query);
        upstream.add_query(OtherQuery::query(theirs(&asked), RecordType::A));
        upstream.add_answers(answer.iter().map(Spec::theirs));
        if edns {
            upstream.edns = Some(OtherEdns::new());
        }
        let reply = Reply::read(&upstream.to_vec().unwrap(), 7, &ask).unwrap();
        let mut out = Vec::new();
        reply.write(&query(&asked, None), Told::Aged(age, Bounds { min: 5, max: u32::MAX }), limit, 0, &mut out);
        prop_assert!(out.len() <= limit);
        let read = Message::from_vec(&out).unwrap();
        prop_assert_eq!(read.metadata.id, 0x1234);
        prop_assert!(read.edns.is_none());
        let cut = read.answers.len() < answer.len();
        prop_assert_eq!(read.metadata.truncation, cut);
        prop_assert!(!cut || limit < MESSAGE_MAX);
        for (found, meant) in read.answers.iter().zip(&answer) {
            let ttl = meant.ttl.max(5).saturating_sub(age);
            prop_assert_eq!(found, &Spec { ttl, ..meant.clone() }.theirs());
            prop_assert_eq!(found.ttl, ttl);
        }
    }

    #[test]
    fn a_bent_reply_harms_nobody(
        asked in names(),
        answer in specs(),
        bends in bends(),
        limit in 512..2000_usize,
    ) {
        let ask = Ask {
            name: ours(&asked),
            kind: Rtype::A,
            dnssec_ok: false,
            checking_disabled: false,
        };
        let mut upstream = Message::new(7, MessageType::Response, OpCode::Query);
        upstream.add_query(OtherQuery::query(theirs(&asked), RecordType::A));
        upstream.add_answers(answer.iter().map(Spec::theirs));
        upstream.edns = Some(OtherEdns::new());
        let mut packet = upstream.to_vec().unwrap();
        bend(&mut packet, &bends);
        if let Ok(reply) = Reply::read(&packet, 7, &ask) {
            let mut out = Vec::new();
            reply.write(&query(&asked, Some(1232)), Told::Fixed(30), limit, 3, &mut out);
            prop_assert!((HEADER..=limit).contains(&out.len()));
            prop_assert_eq!(out[..2].to_vec(), vec![0x12, 0x34]);
            prop_assert!(out[2] & 0x80 != 0);
        }
    }
}
