//! The types that go over a wire: the HTTP API and `addresses.json`.
//!
//! Servers and clients share them, so that a field is named once. They are
//! plain data: what they mean is decided in `portolan-view`, where answers are
//! made from a snapshot. All names are camelCase in JSON; absent means unknown
//! or not applicable, never zero.

#![forbid(unsafe_code)]

mod addresses;
mod answers;
mod items;
mod query;
mod watch;

pub use addresses::Addresses;
pub use answers::{
    Convergence, Failure, Ladder, Member, Residue, Resolution, ResolutionStep, Step, StepState, Why,
};
pub use items::{
    Client, ClientState, ClientType, DnsClient, Endpoint, EndpointPort, Instance, Node, Page, Part,
    Port, Reason, Service, Source, Status, Version, Workload,
};
pub use query::with_query;
pub use watch::WatchEvent;

/// Default address of the HTTP API, as `portolan up` listens by default.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8500";
