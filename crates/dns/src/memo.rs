//! What a UDP worker has answered already, as bytes.
//!
//! Most queries are the same few packets over and over. A reply that is made of
//! our names alone is a function of the packet and the names, so a worker keeps
//! it under the packet's bytes and answers the next one by a copy: no parsing, no
//! allocation, no lock. The key is exact, case and flags included; only the ID is
//! left out, which is copied.
//!
//! All of it is thrown away with the names that it was made of: nothing in here
//! is older than the catalog. Answers that are shuffled, and what upstreams said,
//! are not kept. Rejected: precompiling every name at once, as most are never
//! asked for, and a change would have to compile what nobody reads.

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{message::HEADER, metrics::Tally, names::Names, responder::Responder};

/// Replies that one worker keeps. A client that never asks twice alike fills it,
/// and it starts anew: about 1 MiB.
const REPLIES_MAX: usize = 4096;

/// The longest packet that is kept: header, name, question and an OPT record
/// without options. Options, cookies above all, differ each time.
const PACKET_MAX: usize = HEADER + 255 + 4 + 11;

/// The longest reply that is kept.
const REPLY_MAX: usize = 512;

#[derive(Debug)]
struct Remembered {
    reply: Box<[u8]>,
    tally: Tally,
}

/// Replies by packet.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    /// Whose replies these are. Held, so that no others can take their place in
    /// memory.
    names: Option<Arc<Names>>,
    replies: HashMap<Box<[u8]>, Remembered>,
}

impl Memo {
    /// Writes the reply to a packet that was answered before. Must be asked before
    /// the packet is answered anew: it takes note of the names.
    pub(crate) fn reply(
        &mut self,
        responder: &Responder,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let now = responder.names();
        if !self.names.as_ref().is_some_and(|names| Arc::ptr_eq(names, &now)) {
            self.replies.clear();
            self.names = Some(now.clone());
            return false;
        }
        let started = Instant::now();
        let Some((id, rest)) = packet.split_at_checked(2) else { return false };
        let Some(known) = self.replies.get(rest) else { return false };
        out.clear();
        out.extend_from_slice(id);
        out.extend_from_slice(&known.reply);
        known.tally.count(started.elapsed());
        true
    }

    /// Keeps a reply. Should it be made of newer names than were noted, it is thrown
    /// away before it is used, as names never come back.
    pub(crate) fn remember(&mut self, packet: &[u8], reply: &[u8], tally: Tally) {
        if packet.len() > PACKET_MAX || reply.len() > REPLY_MAX || has_options(packet) {
            return;
        }
        let (Some((_, rest)), Some((_, reply))) =
            (packet.split_at_checked(2), reply.split_at_checked(2))
        else {
            return;
        };
        if self.replies.len() >= REPLIES_MAX {
            self.replies.clear();
        }
        self.replies.insert(rest.into(), Remembered { reply: reply.into(), tally });
    }
}

/// Whether there is more behind the question than an empty OPT record, which ends
/// with its length of 0.
fn has_options(packet: &[u8]) -> bool {
    let counts = packet.get(6..HEADER).unwrap_or_default();
    match counts {
        [0, 0, 0, 0, 0, 0] => false,
        [0, 0, 0, 0, 0, 1] => !packet.ends_with(&[0, 0]),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use domain::base::iana::Rtype;
    use portolan_model::{ServiceKey, Transport};
    use portolan_runtime::Metrics;
    use portolan_testkit::{World, cluster_ip, endpoint, headless, port};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        message::tests::{opt, packet},
        metrics::{DnsMetrics, Proto},
        responder::Met,
        settings::Settings,
    };

    /// A world in which the services of a mask exist.
    fn names(mask: u8) -> Arc<Names> {
        let db = ServiceKey::kubernetes("demo", "db");
        let mut world = World::new().namespace("demo");
        for last in 0..4_u8 {
            if mask & 1 << last != 0 {
                let address = [10, 0, 0, last.wrapping_add(mask)].into();
                let ports = vec![port("http", Transport::Tcp, 80)];
                world = world.service(cluster_ip("demo", &format!("s{last}"), &[address], ports));
            }
        }
        // Two endpoints are shuffled, one is not.
        let endpoints =
            (1..=1 + (mask >> 4) % 3).map(|last| endpoint([10, 1, 0, last].into(), &[]));
        world = world.service(headless("demo", "db", vec![]));
        world = world.endpoints("db-1", &db, endpoints.collect());
        Arc::new(Names::new(Arc::new(Settings::default()), world.snapshot()))
    }

    struct Worker {
        names: Arc<ArcSwap<Names>>,
        responder: Responder,
        memo: Memo,
    }

    impl Worker {
        fn new(mask: u8) -> Self {
            let names = Arc::new(ArcSwap::new(names(mask)));
            let metrics = Arc::new(DnsMetrics::register(&Metrics::new()));
            let responder = Responder::new(names.clone(), metrics, None);
            Self { names, responder, memo: Memo::default() }
        }

        fn fresh(&self, packet: &[u8], turn: usize) -> (Vec<u8>, Option<Tally>) {
            let mut out = Vec::new();
            let client = [127, 0, 0, 1].into();
            match self.responder.respond(Proto::Udp, client, packet, turn, &mut out) {
                Met::Silence => (Vec::new(), None),
                Met::Reply(tally) => (out, tally),
                Met::Later(_) | Met::Transfer(_) => panic!("nobody else is asked"),
            }
        }

        /// As the worker does it, and whether it was remembered.
        fn work(&mut self, packet: &[u8], turn: usize) -> (Vec<u8>, bool) {
            let mut out = Vec::new();
            if self.memo.reply(&self.responder, packet, &mut out) {
                return (out, true);
            }
            let (reply, tally) = self.fresh(packet, turn);
            if let Some(tally) = tally {
                self.memo.remember(packet, &reply, tally);
            }
            (reply, false)
        }
    }

    fn ask(name: &str, kind: Rtype, edns: Option<&[u8]>) -> Vec<u8> {
        let mut packet = packet(&format!("{name}.demo.svc.cluster.local"), kind);
        if let Some(options) = edns {
            packet[11] = 1;
            packet.extend(opt(1232, 0, options));
        }
        packet
    }

    #[test]
    fn what_is_remembered() {
        let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        for (what, mask, packet, expected) in [
            ("an address", 1, ask("s0", Rtype::A, None), true),
            ("with EDNS", 1, ask("s0", Rtype::A, Some(&[])), true),
            ("with a cookie", 1, ask("s0", Rtype::A, Some(&cookie)), false),
            ("SRV", 1, ask("s0", Rtype::SRV, None), true),
            ("a denial", 0, ask("s0", Rtype::A, None), true),
            ("one endpoint", 0, ask("db", Rtype::A, None), true),
            ("two, which are shuffled", 0x10, ask("db", Rtype::A, None), false),
            ("a refusal of all", 0, packet("example.org", Rtype::A), true),
        ] {
            let mut worker = Worker::new(mask);
            let found: Vec<bool> = (0..3).map(|_| worker.work(&packet, 0).1).collect();
            // The first look notes the names, the first answer is kept.
            assert_eq!(found, [false, expected, expected], "{what}");
            worker.names.store(names(mask));
            assert!(!worker.work(&packet, 0).1, "{what}: after a change");
        }
    }

    #[test]
    fn a_flood_of_names_stays_within_bounds() {
        let mut worker = Worker::new(1);
        for number in 0..2 * REPLIES_MAX + 7 {
            worker.work(&ask(&format!("n{number}"), Rtype::A, None), 0);
            assert!(worker.memo.replies.len() <= REPLIES_MAX);
        }
    }

    proptest! {
        /// Bytes that were remembered are those that would be made now.
        #[test]
        fn remembered_equals_fresh(
            steps in prop::collection::vec(
                (0..8_u8, 0..6_usize, 0..3_usize, any::<u16>(), any::<bool>(), any::<u8>()),
                1..60,
            ),
        ) {
            let mut worker = Worker::new(0);
            for (change, name, kind, id, edns, mask) in steps {
                if change == 0 {
                    worker.names.store(names(mask));
                }
                let name = ["s0", "S0", "s1", "_http._tcp.s2", "db", "none"][name];
                let kind = [Rtype::A, Rtype::SRV, Rtype::TXT][kind];
                let mut packet = ask(name, kind, edns.then_some(&[]));
                packet[..2].copy_from_slice(&id.to_be_bytes());
                let (fresh, _) = worker.fresh(&packet, 1);
                prop_assert_eq!(worker.work(&packet, 1).0, fresh);
            }
        }
    }
}
