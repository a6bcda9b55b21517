//! Controllers: each keeps one promise of the API by writing to the API.
//!
//! ```text
//!  informers ─▶ queue of keys ─▶ plan(view) -> actions ─▶ hands ─▶ registry
//!                                pure, table-tested
//! ```
//!
//! A plan sees the world as the store has it at that moment
//! ([`crate::informer`]), so that none needs to remember what it did before.

pub(crate) mod action;
#[cfg(test)]
mod cases;
mod claim;
mod deployment;
mod endpoints;
pub(crate) mod endpointslice;
pub mod events;
mod podset;
mod replicaset;
mod runner;
