//! A second opinion: what we read and write, held against hickory-proto.
//!
//! Whatever we write must read there as what we meant; a reply that hickory made must
//! come through us unchanged but for its TTLs. What needs no insight into this crate, and
//! what must hold of any bytes whatever, is in `tests/it/fuzz`.

use domain::{
    base::iana::Rtype,
    rdata::{A, Aaaa, Cname, Ptr, Srv},
};
use hickory_proto::{
    op::{Edns as OtherEdns, Message, MessageType, OpCode, Query as OtherQuery},
    rr::{Name as OtherName, RData, Record, RecordType, rdata},
};
use proptest::prelude::*;

use crate::{
    forward::{Ask, Bounds, Reply, Told},
    message::{Incoming, Query, parse, tests::opt},
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
}
