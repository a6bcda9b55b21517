//! What this process has seen of an instance: calls under way, latency, failures.
//!
//! All of it is read without a lock while other calls write it. A choice that saw one of two
//! numbers a moment too early is as good a choice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{EJECTION_MAX, Settings};
use crate::Instance;

/// Nanoseconds since the balancer began.
pub(super) type Nanos = u64;

/// What a failed call counts as, if it took less: an instance that fails at once must not look
/// like the fastest of all.
const FAILURE_LATENCY: Duration = Duration::from_secs(1);
/// The cost of an instance of which nothing is known while its first call is under way: it gets
/// one call to show itself, not all of them (Finagle's `PeakEwma` has the same).
const UNKNOWN_COST: f64 = 1e15;
/// The share of its weight that a new instance begins with (Envoy's `min_weight_percent`).
const SLOW_START_MIN: f64 = 0.1;

/// An instance that can be chosen.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) instance: Arc<Instance>,
    pub(super) load: Arc<Load>,
    pub(super) health: Arc<Health>,
    /// When it came; `None` if it was there when the balancer began.
    pub(super) since: Option<Nanos>,
}

impl Endpoint {
    /// How much of its weight it gets, of 1.
    pub(super) fn warmth(&self, now: Nanos, window: Duration) -> f64 {
        let Some(since) = self.since.filter(|_| !window.is_zero()) else { return 1.0 };
        let share = now.saturating_sub(since) as f64 / window.as_nanos() as f64;
        share.clamp(SLOW_START_MIN, 1.0)
    }
}

/// Calls under way, and how long they take: the moving average of tower and Finagle that
/// follows a rise at once and a fall slowly (peak EWMA).
#[derive(Debug, Default)]
pub(super) struct Load {
    under_way: AtomicU32,
    /// An `f64` of nanoseconds, by its bits; 0: nothing is known.
    latency: AtomicU64,
    observed: AtomicU64,
}

impl Load {
    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.under_way.fetch_sub(1, Relaxed);
    }

    pub(super) fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    /// How long one more call would probably have to wait. What is known loses its weight with
    /// time, so that an instance which was slow once is tried again.
    pub(super) fn cost(&self, now: Nanos, decay: Duration) -> f64 {
        let under_way = f64::from(self.under_way());
        let latency = f64::from_bits(self.latency.load(Relaxed));
        if latency == 0.0 && under_way > 0.0 {
            return UNKNOWN_COST + under_way;
        }
        latency * self.kept(now, decay) * (under_way + 1.0)
    }

    /// A call took so long.
    pub(super) fn observe(&self, took: Nanos, now: Nanos, decay: Duration) {
        let took = took as f64;
        let kept = self.kept(now, decay);
        self.observed.store(now, Relaxed);
        let learn = |bits: u64| {
            let before = f64::from_bits(bits);
            let after = if took > before { took } else { before * kept + took * (1.0 - kept) };
            // Nothing takes no time at all, which would mean that nothing is known.
            Some(after.max(1.0).to_bits())
        };
        self.latency.fetch_update(Relaxed, Relaxed, learn).ok();
    }

    /// A call failed after so long.
    pub(super) fn fail(&self, took: Nanos, now: Nanos, decay: Duration) {
        let least = u64::try_from(FAILURE_LATENCY.as_nanos()).unwrap_or(u64::MAX);
        self.observe(took.max(least), now, decay);
    }

    /// The part of what is known that counts, of 1: a quarter after the decay time. (Others take
    /// the exponential, which falls much the same and costs as much as all the rest of a choice.)
    fn kept(&self, now: Nanos, decay: Duration) -> f64 {
        let age = now.saturating_sub(self.observed.load(Relaxed)) as f64;
        let root = 1.0 / (1.0 + age / decay.as_nanos() as f64);
        root * root
    }
}

/// Failures in a row, and the ejection that follows from them.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until: AtomicU64,
}

impl Health {
    pub(super) fn is_ejected(&self, now: Nanos) -> bool {
        now < self.ejected_until.load(Relaxed)
    }

    pub(super) fn succeed(&self) {
        self.failures.store(0, Relaxed);
        // A call that goes well shortens the next ejection, not below the first.
        if self.ejected_until.load(Relaxed) != 0 {
            self.ejected_until.store(0, Relaxed);
            let less = |count: u32| count.checked_sub(1);
            self.ejections.fetch_update(Relaxed, Relaxed, less).ok();
        }
    }

    pub(super) fn fail(&self, now: Nanos, settings: &Settings) {
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        if settings.ejected_after == 0 || failures < settings.ejected_after {
            return;
        }
        self.failures.store(0, Relaxed);
        let ejections = self.ejections.fetch_add(1, Relaxed) + 1;
        let time = settings.ejection.saturating_mul(ejections).min(EJECTION_MAX);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.ejected_until.store(now.saturating_add(time), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Balancer, Subscription};

    const MS: Nanos = 1_000_000;
    const DECAY: Duration = Duration::from_secs(10);

    #[test]
    fn a_rise_counts_at_once_and_a_fall_slowly() {
        let load = Load::default();
        assert_eq!(load.cost(0, DECAY), 0.0, "the unknown is tried first");
        load.begin();
        assert!(load.cost(0, DECAY) >= UNKNOWN_COST, "and with one call only");
        load.observe(10 * MS, 0, DECAY);
        load.end();
        assert_eq!(load.cost(0, DECAY), (10 * MS) as f64);
        load.observe(100 * MS, MS, DECAY);
        assert_eq!(load.cost(MS, DECAY), (100 * MS) as f64);
        load.observe(10 * MS, 2 * MS, DECAY);
        let cost = load.cost(2 * MS, DECAY);
        assert!(cost > (99 * MS) as f64 && cost < (100 * MS) as f64, "{cost}");
        // Two decay times later most of it is forgotten.
        assert!(load.cost(20_002 * MS, DECAY) < (14 * MS) as f64);
        load.begin();
        assert!(load.cost(2 * MS, DECAY) > 1.9 * cost, "each call under way is waited for");
    }

    #[test]
    fn failing_fast_is_not_being_fast() {
        let load = Load::default();
        load.fail(MS, 0, DECAY);
        assert_eq!(load.cost(0, DECAY), FAILURE_LATENCY.as_nanos() as f64);
    }

    #[test]
    fn ejections_grow_and_end() {
        let builder = Balancer::builder(Subscription::fixed("a", []));
        let settings = builder.ejection(2, Duration::from_secs(30)).settings;
        let second = 1_000 * MS;
        let health = Health::default();
        health.fail(0, &settings);
        health.succeed();
        health.fail(0, &settings);
        assert!(!health.is_ejected(0), "not in a row");
        health.fail(0, &settings);
        assert!(health.is_ejected(29 * second) && !health.is_ejected(30 * second));
        let later = 40 * second;
        for _ in 0..2 {
            health.fail(later, &settings);
        }
        assert!(health.is_ejected(later + 59 * second) && !health.is_ejected(later + 60 * second));
        for _ in 0..2 * 20 {
            health.fail(later, &settings);
        }
        assert!(!health.is_ejected(later + 300 * second), "never beyond the longest");
        health.succeed();
        assert!(!health.is_ejected(later), "who answers is let in at once");
    }
}
