//! The DNS face as programs meet it: over sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod cases;
mod client;
mod dig;
mod dot;
mod face;
mod forward;
mod fuzz;
mod sockets;
mod stages;
mod transfer;
mod upstream;
