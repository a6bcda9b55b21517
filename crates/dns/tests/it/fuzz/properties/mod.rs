//! What holds of the DNS face whatever it is given, as functions of bytes.
//!
//! The fuzzers of `fuzz/` and the smoke tests of the usual run call the same
//! functions. Bytes are choices ([`portolan_testkit::fuzz::Choices`]): most of them grow
//! something that is nearly right ([`grow`]), so that inputs get past the first checks; the
//! rest is taken as it comes. Nothing here opens a socket: packets go to
//! [`portolan_dns::Offline`], and replies are read by hickory-proto ([`judge`]).

// Each fuzzer uses one of them.
#![allow(dead_code)]

mod configs;
mod faces;
mod grow;
mod judge;
mod packets;
mod upstream;

pub(crate) use configs::{corefile, native};
pub(crate) use packets::packets;
use portolan_testkit::fuzz::Property;
pub(crate) use upstream::upstream_replies;

pub(crate) const ALL: [Property; 4] = [
    ("dns_corefile", corefile),
    ("dns_native", native),
    ("dns_packets", packets),
    ("dns_upstream_replies", upstream_replies),
];
