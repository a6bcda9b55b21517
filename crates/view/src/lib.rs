//! Questions that people ask, answered from a snapshot.
//!
//! ```text
//!   Snapshot, Board, Problems --> list · why · convergence --> wire types --> api, console, cli
//! ```
//!
//! Every answer is a function of a snapshot and of who has acknowledged what.
//! Nothing here waits, reads a clock or writes: the same question on the same
//! snapshot has the same answer, wherever it is asked.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod codes;
mod convergence;
mod list;
mod target;
mod why;

pub use codes::{Explanation, all_codes, explain};
pub use convergence::{Wanted, convergence};
pub use list::{
    Filter, InstanceChanges, PortChoice, Process, Which, clients, endpoints, instance_changes,
    instances, instances_of, instances_where, nodes, one_service, reason, service, services,
    sources, status, versions, workloads,
};
pub use portolan_model::Selector;
pub use target::{Target, find_services, reverse_name};
pub use why::{Aspect, why};
