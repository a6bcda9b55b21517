//! Adapters: each watches one part of the world and reports what it sees.
//!
//! ```text
//!   Kubernetes API --list, watch--> kubernetes --+-- services, endpointslices, pods, ...
//!                                       |        |
//!                                       +-- pods +-- registrations (registry on Pods)
//!   a YAML or JSON file ----read------> file ----+-- services
//!                                                |
//!                                                v
//!                              Vec<SourceReport>, bounded channel --> the catalog's writer
//! ```
//!
//! What all adapters keep to:
//! - a full listing is bracketed by `Begin` and `Complete`, so that a listing
//!   which breaks off takes nothing away;
//! - loss of the world is a report (`Lost`) like any other, and never removes;
//! - one object that cannot be used becomes a rejection with a reason code; its
//!   neighbours are not touched;
//! - conversion is a pure function of one object, tested without any server.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod file;
pub mod kubernetes;
mod names;
mod report;

pub use report::{Reports, Sink};
