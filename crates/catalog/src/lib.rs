//! The catalog: one versioned truth behind every face.
//!
//! ```text
//!   SourceReport --> facts --> merge --> Snapshot v1842 --> Hub --> faces
//!                    (who said what)      (a value)          |
//!                                                            +-- Board: which face serves which version
//! ```
//!
//! [`Catalog`] is owned by one task. It takes reports in batches, keeps what
//! each source has said, and merges the services that a batch touched into the
//! next [`Snapshot`]. A snapshot never changes; it shares with its predecessor
//! all that stayed the same, so that a commit costs as much as what it changed
//! and two snapshots are compared by pointer.
//!
//! Readers take the current snapshot from the [`Hub`] without a lock. A
//! [`Subscriber`] holds a version, not a queue: it asks for the difference
//! between its version and now, however many commits lie between.
//!
//! Nothing here reads a clock or a socket: time comes in with the reports.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod board;
mod catalog;
pub mod choose;
mod diff;
mod facts;
mod hub;
mod intern;
mod merge;
mod shards;
mod shared_map;
mod snapshot;

pub use board::{Ack, Board, Convergence, Member, Roster};
pub use catalog::Catalog;
pub use diff::{Change, Diff, ServicePlace};
pub use facts::{Repair, Repaired};
pub use hub::{Hub, Subscriber, Update};
pub use shards::Shards;
pub use shared_map::{Iter, SharedMap};
pub use snapshot::{PartStatus, ServiceEntry, Snapshot, SourceStatus};
