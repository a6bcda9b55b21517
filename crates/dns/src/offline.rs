//! The face without sockets, at one version of the catalog: packets in, replies out.
//!
//! ```text
//!   configuration, snapshot --> Offline
//!   packet --compiled--> reply             as workers have it
//!      |
//!      +--responder--> reply
//!             |  not ours
//!             +--> a stand-in for upstream servers
//! ```
//!
//! It is built of the parts that serve, and nothing of them is left out but sockets,
//! waiting and the cache of upstream replies. So what holds of its replies (for any bytes
//! whatever, which is what fuzzers ask of it) holds of those that clients get.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use portolan_catalog::Snapshot;
use portolan_runtime::{Metrics, Shutdown, Tasks};

use crate::{
    chain::{self, Chain},
    config::FaceConfig,
    forward::{ForwardMetrics, StandIn},
    metrics::{DnsMetrics, Proto},
    names::Names,
    responder::{Met, Responder},
    settings::Settings,
};

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// There is no reply. Over TCP, the connection ends.
    Silence,
    /// The reply.
    Reply(Vec<u8>),
    /// A whole zone, message by message. Only over TCP.
    Zone(Vec<Vec<u8>>),
}

/// The face without sockets, at one version of the catalog.
#[derive(Clone, Debug)]
pub struct Offline {
    responder: Responder,
}

impl Offline {
    /// A face by server blocks, or, without them, by the settings alone, as
    /// [`crate::start`] has it. Files that are named are read. An error says what cannot be
    /// used.
    pub fn new(
        face: Option<&FaceConfig>,
        settings: &Settings,
        snapshot: Arc<Snapshot>,
        upstream: &StandIn,
    ) -> Result<Self, String> {
        let metrics = Metrics::new();
        let (tasks, earlier) = (Tasks::new(Shutdown::new()), Chain::default());
        let forward = ForwardMetrics::register(&metrics);
        let parts = chain::Parts {
            metrics: &forward,
            tasks: &tasks,
            earlier: &earlier,
            stand_in: Some(upstream),
        };
        let built = chain::build(face, settings, &parts)?;
        let names = Names::new(Arc::new(built.settings), snapshot);
        let responder = Responder::new(
            Arc::new(ArcSwap::from_pointee(names)),
            Arc::new(DnsMetrics::register(&metrics)),
            Arc::new(ArcSwap::from_pointee(built.chain)),
        );
        Ok(Self { responder })
    }

    /// What becomes of a packet, as the sockets would have it. `turn` is the number by
    /// which runs of addresses are rotated; sockets draw it.
    pub fn react(&self, proto: Proto, client: IpAddr, packet: &[u8], turn: usize) -> Reaction {
        let mut reply = Vec::new();
        let names = self.responder.names();
        match names.compiled.reply(packet, proto == Proto::Udp, turn, &mut reply) {
            Some(_) => Reaction::Reply(reply),
            None => self.react_in_general(proto, client, packet, turn),
        }
    }

    /// The same without compiled answers. What they say must be what this says.
    pub fn react_in_general(
        &self,
        proto: Proto,
        client: IpAddr,
        packet: &[u8],
        turn: usize,
    ) -> Reaction {
        let mut reply = Vec::new();
        match self.responder.respond(proto, client, packet, turn, &mut reply) {
            Met::Reply => Reaction::Reply(reply),
            Met::Transfer(mut zone) => {
                let mut messages = Vec::new();
                while zone.next(&mut reply) {
                    messages.push(std::mem::take(&mut reply));
                }
                Reaction::Zone(messages)
            }
            Met::Silence => Reaction::Silence,
            Met::Later(_) => {
                debug_assert!(false, "a stand-in is not waited for");
                Reaction::Silence
            }
        }
    }
}
