//! The proxy as clients meet it: over loopback sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod bench;
mod problems;
mod tcp;
mod udp;
