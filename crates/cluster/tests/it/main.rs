//! The embedded cluster as a whole, in memory.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are part of it")]

mod controllers;
mod kubelet;
mod support;
mod workloads;
