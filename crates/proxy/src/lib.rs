//! The proxy face in userspace: virtual IPs and node ports that work without root.
//!
//! ```text
//!   Hub --diffs--> desk --plans--> fronts (one bound socket each)
//!                   |                 |
//!                   +-- problems      +-- balancer --> endpoint
//! ```
//!
//! A *front* is an address, a port and a transport that clients connect to; a
//! *plan* says which service stands behind it and which endpoints take its
//! traffic. Plans are a pure function of the catalog ([`plan`]); the desk keeps
//! the open fronts equal to the plans and touches only those that changed.
//! Which endpoints take traffic is decided by `portolan_catalog::choose` alone.
//!
//! Deliberately absent: packets. Connections are accepted and made anew, so the
//! client's address is not seen by the endpoint; the kernel mode of `portolan
//! node` is for those who need it.

#![forbid(unsafe_code)]

mod balancer;
mod bind;
mod desk;
mod metrics;
mod plan;
mod server;
mod tcp;
mod udp;

pub use plan::{Front, Plan, Rules, plans};
pub use server::{Config, Limits, Running, StartError, start};
