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

pub use cpu::{CpuTime, cpu_time, resident_kib};
pub use echo::echo;
pub use question::{Expect, Question};
pub use tcp::run as run_tcp;
pub use udp::{run as run_udp, run_while as run_udp_while};

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use question::Verdict;

/// What is offered to which server.
#[derive(Clone, Copy, Debug)]
pub struct Load<'q> {
    /// Where the server listens.
    pub server: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// Questions a second.
    pub rate: u32,
    /// For how long, at most.
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
    /// Replies that say that the server failed, where it should not have.
    pub failed: u64,
    /// Replies that say something else than is so.
    pub wrong: u64,
    /// CPU time that the server used meanwhile.
    pub cpu: CpuTime,
    /// Times to reply, in microseconds, ascending.
    pub waits_us: Vec<u32>,
}

impl Outcome {
    /// Replies that came.
    pub fn replies(&self) -> u64 {
        self.right + self.failed + self.wrong
    }

    /// Microseconds of the server's CPU per reply.
    pub fn cpu_us(&self) -> f64 {
        self.by_reply_us(self.cpu.total())
    }

    /// The same, of the threads of a name alone.
    pub fn thread_us(&self, name: &str) -> f64 {
        self.by_reply_us(self.cpu.thread(name))
    }

    fn by_reply_us(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.replies().max(1) as f64
    }

    /// The share of questions without a reply.
    pub fn lost(&self) -> f64 {
        1.0 - self.replies() as f64 / self.sent.max(1) as f64
    }

    /// The time within which so many percent of the replies came.
    pub fn percentile_us(&self, percent: f64) -> u32 {
        let last = self.waits_us.len().saturating_sub(1) as f64;
        let place = (last * percent / 100.0).round() as usize;
        self.waits_us.get(place).copied().unwrap_or_default()
    }

    /// Counts what a reply was.
    pub(crate) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Right => self.right += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Wrong => self.wrong += 1,
        }
    }
}

/// How many questions are due by now.
pub(crate) fn due(load: &Load<'_>, started: Instant) -> u64 {
    let passed = started.elapsed().min(load.time);
    (passed.as_secs_f64() * f64::from(load.rate)) as u64
}
