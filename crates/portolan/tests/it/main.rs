//! Black-box tests: the real binary, driven by kubectl, dig and curl.
//!
//! Each test runs a Portolan of its own, in memory, on free ports and in
//! loopback ranges that no other test uses, so that all of them run side by side.

// A test that cannot go on should panic where it stands.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod abuse;
mod agent;
mod api;
mod bad_input;
mod cli;
mod corefile;
mod demo;
mod dns_faults;
mod exec;
mod harness;
mod kubectl;
mod netns;
mod processes;
mod reasons;
mod resolvers;
mod restart;
mod serve;
mod sources;
mod torture;
mod wait;
mod web;
