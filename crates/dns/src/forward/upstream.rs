//! What is known of upstream servers, and which one is asked first.
//!
//! Each server has an estimate of its round-trip time and of its loss, both
//! moving averages. Their sum, loss counted as the time that it costs, orders the
//! servers. A few queries go to another one than the best, or an old bad
//! impression would last for ever. There are no health checks: queries are the
//! check, and a server that lost everything is still asked when it is the last.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

use super::{
    coredns::CoreDns,
    exchange::Idle,
    secure::TlsServer,
    settings::{Group, Server},
};
use crate::config::Policy;

/// Weight of a new round-trip time (RFC 6298: 1/8).
const RTT_GAIN: f64 = 0.125;

/// Weight of a new deviation (RFC 6298: 1/4).
const DEVIATION_GAIN: f64 = 0.25;

/// Weight of a new loss or success.
const LOSS_GAIN: f64 = 0.2;

/// What a lost query costs, in milliseconds: about what waiting for it does.
const LOSS_COST_MS: f64 = 2000.0;

/// The first impression, in milliseconds: better than a slow server, so that
/// each new one is tried.
const FIRST_RTT_MS: f64 = 30.0;

/// Bounds of the pause before a second query. Below, jitter alone would double
/// the load; above, the client has begun to wait.
const HEDGE_MIN: Duration = Duration::from_millis(10);
const HEDGE_MAX: Duration = Duration::from_millis(800);

/// One in so many queries goes to another server first.
const EXPLORE_PART: u32 = 32;

/// A server that loses more than this is asked last, whatever the policy.
const LOSS_BAD: f64 = 0.5;

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    rtt_ms: f64,
    deviation_ms: f64,
    loss: f64,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { rtt_ms: FIRST_RTT_MS, deviation_ms: FIRST_RTT_MS, loss: 0.0 }
    }
}

impl Estimate {
    pub(crate) fn heard(&mut self, rtt: Duration) {
        let rtt_ms = rtt.as_secs_f64() * 1000.0;
        let off = (rtt_ms - self.rtt_ms).abs();
        self.deviation_ms += DEVIATION_GAIN * (off - self.deviation_ms);
        self.rtt_ms += RTT_GAIN * (rtt_ms - self.rtt_ms);
        self.loss -= LOSS_GAIN * self.loss;
    }

    pub(crate) fn lost(&mut self) {
        self.loss += LOSS_GAIN * (1.0 - self.loss);
    }

    fn cost(&self) -> f64 {
        self.rtt_ms + self.loss * LOSS_COST_MS
    }

    /// After how long a reply is late: mean and two deviations, which 19 of 20
    /// replies keep.
    fn late_after(&self) -> Duration {
        let late = Duration::from_secs_f64((self.rtt_ms + 2.0 * self.deviation_ms) / 1000.0);
        late.clamp(HEDGE_MIN, HEDGE_MAX)
    }
}

/// A server that is asked.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(super) tls: Option<TlsServer>,
    pub(super) force_tcp: bool,
    pub(super) source: Option<IpAddr>,
    pub(super) idle: Idle,
    /// Connections that were kept, and that were made.
    pub(super) connections: [Counter; 2],
    estimate: Mutex<Estimate>,
    loops: AtomicBool,
}

impl Upstream {
    fn new(group: &Group, server: &Server, metrics: Option<&CoreDns>) -> Self {
        let counters =
            |metrics: &CoreDns| metrics.connections(server.address, server.tls.is_some());
        Self {
            connections: metrics.map(counters).unwrap_or_default(),
            address: server.address,
            tls: server.tls.clone(),
            force_tcp: group.force_tcp,
            source: group.source,
            idle: Idle::default(),
            estimate: Mutex::default(),
            loops: AtomicBool::new(false),
        }
    }

    fn estimate(&self) -> Estimate {
        *self.estimate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn heard(&self, rtt: Duration) {
        self.estimate.lock().unwrap_or_else(PoisonError::into_inner).heard(rtt);
    }

    pub(crate) fn lost(&self) {
        self.estimate.lock().unwrap_or_else(PoisonError::into_inner).lost();
    }

    pub(crate) fn late_after(&self) -> Duration {
        self.estimate().late_after()
    }

    /// Whether what is sent there comes back to us.
    pub(crate) fn loops(&self) -> bool {
        self.loops.load(Ordering::Relaxed)
    }

    /// Returns what was known before.
    pub(crate) fn set_loops(&self, loops: bool) -> bool {
        self.loops.swap(loops, Ordering::Relaxed)
    }
}

/// Servers of one group, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(crate) list: Vec<Upstream>,
    policy: Policy,
    turn: AtomicUsize,
}

impl Upstreams {
    pub(crate) fn new(group: &Group, metrics: Option<&CoreDns>) -> Self {
        let servers = group.servers.iter();
        Self {
            list: servers.map(|server| Upstream::new(group, server, metrics)).collect(),
            policy: group.policy,
            turn: AtomicUsize::new(0),
        }
    }

    /// The servers in the order in which they are asked; none that leads back to us.
    /// `random` is a random number.
    pub(crate) fn order(&self, random: u32) -> Vec<&Upstream> {
        let mut list: Vec<&Upstream> =
            self.list.iter().filter(|upstream| !upstream.loops()).collect();
        let first = match self.policy {
            Policy::Fastest => return by_cost(list, random),
            Policy::Sequential => 0,
            Policy::Random => random as usize,
            Policy::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let length = list.len().max(1);
        list.rotate_left(first % length);
        list.sort_by_key(|upstream| upstream.estimate().loss > LOSS_BAD);
        list
    }
}

fn by_cost(list: Vec<&Upstream>, random: u32) -> Vec<&Upstream> {
    let mut list: Vec<(f64, &Upstream)> =
        list.into_iter().map(|upstream| (upstream.estimate().cost(), upstream)).collect();
    list.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    if random.is_multiple_of(EXPLORE_PART) && list.len() > 1 {
        let other = 1 + (random / EXPLORE_PART) as usize % (list.len() - 1);
        list.swap(0, other);
    }
    list.into_iter().map(|(_, upstream)| upstream).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(policy: Policy) -> Upstreams {
        let servers = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let group = Group::new(crate::name::DnsName::root_bytes(), servers);
        Upstreams::new(&Group { policy, ..group }, None)
    }

    fn ports(upstreams: &Upstreams, random: u32) -> Vec<u16> {
        upstreams.order(random).iter().map(|upstream| upstream.address.port()).collect()
    }

    #[test]
    fn policies_choose_who_is_first() {
        for (policy, expected) in [
            (Policy::Sequential, ["123", "123", "123", "123"]),
            (Policy::RoundRobin, ["123", "231", "312", "123"]),
            (Policy::Random, ["123", "231", "312", "123"]),
        ] {
            let group = group(policy);
            let orders = [0, 1, 2, 3].map(|random| {
                ports(&group, random).iter().map(ToString::to_string).collect::<String>()
            });
            assert_eq!(orders, expected, "{policy:?}");
            for _ in 0..20 {
                group.list[0].lost();
            }
            assert_eq!(ports(&group, 0)[2], 1, "{policy:?}: lossy ones last");
        }
    }

    #[test]
    fn fast_servers_first_and_lossy_ones_last() {
        let group = group(Policy::Fastest);
        for _ in 0..50 {
            group.list[0].heard(Duration::from_millis(80));
            group.list[1].heard(Duration::from_millis(2));
            group.list[2].heard(Duration::from_millis(1));
            group.list[2].lost();
        }
        assert_eq!(ports(&group, 1), [2, 1, 3]);
        // Exploring asks another one first, whoever it is.
        assert_eq!(ports(&group, 0), [1, 2, 3]);
        assert_eq!(ports(&group, EXPLORE_PART), [3, 1, 2]);
    }

    #[test]
    fn a_server_that_is_back_is_forgiven() {
        let group = group(Policy::Fastest);
        for _ in 0..20 {
            group.list[0].lost();
        }
        assert_eq!(ports(&group, 1)[2], 1);
        for _ in 0..60 {
            group.list[0].heard(Duration::from_millis(1));
        }
        assert_eq!(ports(&group, 1)[0], 1);
    }

    #[test]
    fn a_server_that_loops_is_not_asked() {
        let group = group(Policy::Fastest);
        assert!(!group.list[1].set_loops(true));
        assert_eq!(ports(&group, 1), [1, 3]);
        assert!(group.list[1].set_loops(false));
        assert_eq!(ports(&group, 1), [1, 2, 3]);
    }

    #[test]
    fn lateness_follows_what_was_seen() {
        let mut estimate = Estimate::default();
        for _ in 0..100 {
            estimate.heard(Duration::from_micros(100));
        }
        assert_eq!(estimate.late_after(), HEDGE_MIN);
        for _ in 0..100 {
            estimate.heard(Duration::from_secs(9));
        }
        assert_eq!(estimate.late_after(), HEDGE_MAX);
    }
}
