//! The DNS face: names for services, answered from the catalog.
//!
//! ```text
//!   Hub --diffs--> Names (snapshot, indexes, compiled answers), swapped whole
//!                    |
//!   packet --compiled--> packet                  most queries, on a thread per core
//!      |
//!      +--message--> Question --place--> Place --answer--> Answer --wire--> packet
//!                                 (what the name means)
//!                                  |  not ours, or an alias that leads out
//!                                  +--> forward (cache, upstreams)
//! ```
//!
//! What a name means ([`Place`]) and what a question is answered with
//! ([`Answer`]) are pure functions of [`Names`], so that the wire, the sockets
//! and `portolan dig` share one truth. The rules are those of the Kubernetes
//! DNS specification 1.1.0 and, beyond it, CoreDNS' where clients rely on them.
//!
//! Deliberately absent: a cache of our own names by TTL (the compiled answers of a
//! version are the cache). Names that are not ours go to the upstreams that are
//! configured, and are REFUSED where none is.

#![forbid(unsafe_code)]

mod address_book;
mod answer;
mod askers;
mod bearing;
mod chain;
mod compiled;
pub mod config;
pub mod corefile;
mod dot;
mod enabled;
mod folded;
mod forward;
mod histogram;
mod message;
mod metrics;
mod name;
mod names;
mod offline;
#[cfg(test)]
mod oracle;
mod place;
mod records;
mod reload;
mod responder;
mod server;
mod settings;
mod tcp;
mod trace;
mod transfer;
mod udp;
mod wire;

pub use answer::{Answer, Failure, Refusal, answer};
pub use bearing::Bearing;
pub use dot::{Tls, TlsError};
pub use forward::{Bounds, CacheSettings, Forwarding, Group, Server, StandIn, TlsServer};
pub use message::{Question, Rejection};
pub use metrics::Proto;
pub use name::{DnsName, Rr};
pub use names::Names;
pub use offline::{Offline, Reaction};
pub use place::{Absence, Hit, OutsideHit, Place};
pub use reload::{ConfigFile, ReadError, follow};
pub use server::{Config, Running, StartError, start};
pub use settings::{ExternalSettings, PodNames, Settings, TransferTo, Zone, ZoneKind};
pub use trace::{Step, trace};
pub use udp::UDP_THREAD;

/// Types of records and classes, as `domain` names them.
pub use domain::base::iana::{Class, Rtype};
