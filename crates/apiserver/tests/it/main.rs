//! The embedded API from outside, one module per room.
#![allow(clippy::unwrap_used, reason = "a test may panic, and its helpers are part of it")]

mod allocation;
mod fuzz;
mod http;
mod kubectl;
mod limits;
mod logs;
mod registry;
mod store;
mod streams;
mod support;
