//! What tests share: worlds to put in front of a face, fixtures, and what fuzzers need.
//!
//! ```text
//!   World (a list of facts) --reports--> Catalog --> Hub, Snapshot --> the face under test
//! ```
//!
//! Used as a dev-dependency only.

#![forbid(unsafe_code)]

pub mod fixture;
pub mod fuzz;
mod world;

pub use world::{Live, World, cluster_ip, endpoint, external_name, headless, port};
