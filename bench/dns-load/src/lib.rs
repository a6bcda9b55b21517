//! Load for DNS servers: a fixed number of questions a second, every reply checked,
//! and what each costs the server.
//!
//! ```text
//!   questions --sendmmsg--> server --recvmmsg--> check (code, count, addresses)
//!                             |
//!                             +-- CPU time of its threads, before and after
//! ```
//!
//! On a machine that others use, the rate that a server can take says little; the
//! CPU time that one query costs it at a given rate says much. So the rate is
//! offered, not searched for, and the figure is microseconds of the server's CPU per
//! reply. Packets go out and come in by batches, as dnsperf's own cost per query is
//! above that of a fast server.

#![forbid(unsafe_code)]

mod cpu;
mod echo;
mod question;
mod tcp;
mod udp;

pub use cpu::{cpu_time, resident_kib};
pub use echo::echo;
pub use question::{Expect, Question};
pub use tcp::run as run_tcp;
pub use udp::run as run_udp;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What is offered to which server.
#[derive(Clone, Copy, Debug)]
pub struct Load<'q> {
    /// Where the server listens.
    pub server: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// Questions a second.
    pub rate: u32,
    /// For how long.
    pub time: Duration,
    /// Asked in turn.
    pub questions: &'q [Question],
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Questions that were sent.
    pub sent: u64,
    /// Replies that were as expected.
    pub right: u64,
    /// Replies that were not.
    pub wrong: u64,
    /// CPU time that the server used meanwhile.
    pub cpu: Duration,
    /// Times to reply, in microseconds, ascending.
    pub waits_us: Vec<u32>,
}

impl Outcome {
    /// Microseconds of the server's CPU per reply.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / (self.right + self.wrong).max(1) as f64
    }

    /// The share of questions without a reply.
    pub fn lost(&self) -> f64 {
        1.0 - (self.right + self.wrong) as f64 / self.sent.max(1) as f64
    }

    /// The time within which so many percent of the replies came.
    pub fn percentile_us(&self, percent: f64) -> u32 {
        let last = self.waits_us.len().saturating_sub(1) as f64;
        let place = (last * percent / 100.0).round() as usize;
        self.waits_us.get(place).copied().unwrap_or_default()
    }
}

/// How many questions are due by now.
pub(crate) fn due(load: &Load<'_>, started: Instant) -> u64 {
    let passed = started.elapsed().min(load.time);
    (passed.as_secs_f64() * f64::from(load.rate)) as u64
}
