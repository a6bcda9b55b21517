//! Choosing an instance for each call.
//!
//! ```text
//!  Subscription ── newest snapshot ──▶ Table ── policy ──▶ Pick ── outcome ──▶ load and health
//!                 (rebuilt when it changes)                                     of its Endpoint
//! ```
//!
//! [`table`] holds what can be chosen, [`policy`] and [`ring`] choose from it, [`endpoint`] keeps
//! what this process has seen of each instance: calls under way, latency, failures. Choosing takes
//! no I/O, no lock and no allocation, unless the snapshot has changed since the last choice.

mod calls;
mod endpoint;
mod policy;
mod ring;
mod table;

use std::{
    fmt,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use self::{
    calls::Budget,
    endpoint::{Endpoint, Nanos},
    table::Table,
};
pub use self::{calls::CallError, policy::Policy};
use crate::{Instance, Subscription};
use arc_swap::{ArcSwap, Guard};

/// Failures in a row that eject an instance (Envoy's `consecutive_5xx`).
const EJECTED_AFTER: u32 = 5;
/// How long the first ejection lasts; each further one lasts so much longer (Envoy's
/// `base_ejection_time`).
const EJECTION: Duration = Duration::from_secs(30);
/// The longest ejection (Envoy's `max_ejection_time`).
const EJECTION_MAX: Duration = Duration::from_secs(300);
/// Three quarters of what has been learned of an instance's latency are forgotten in this time.
const DECAY: Duration = Duration::from_secs(10);

/// What a balancer goes by beside the snapshot.
#[derive(Clone, Debug)]
struct Settings {
    policy: Policy,
    zone: Option<String>,
    slow_start: Duration,
    ejected_after: u32,
    ejection: Duration,
    decay: Duration,
}

/// Makes a [`Balancer`].
#[derive(Clone, Debug)]
pub struct BalancerBuilder {
    subscription: Subscription,
    settings: Settings,
}

impl BalancerBuilder {
    /// How to choose; [`Policy::PeakEwma`] unless told.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// The zone of this process. Calls stay in it as long as enough of its instances are
    /// available: if 72 % or more are, all of them, otherwise 1.4 times that share (the
    /// overprovisioning factor of Envoy's priorities). [`Policy::RingHash`] knows no zones, for
    /// a key belongs to one instance whoever asks.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.settings.zone = Some(zone.into()).filter(|zone: &String| !zone.is_empty());
        self
    }

    /// How long a new instance gets fewer calls than its weight says: a tenth at first, then
    /// more with time. None unless told. What was there when the balancer began is not new.
    #[must_use]
    pub fn slow_start(mut self, window: Duration) -> Self {
        self.settings.slow_start = window;
        self
    }

    /// After how many failures in a row an instance gets no calls for a while (5 unless told; 0:
    /// never), and for how long (30 s unless told, twice as long the second time, never more than
    /// five minutes). If that concerns more than half of all, it concerns none.
    #[must_use]
    pub fn ejection(mut self, after_failures: u32, base: Duration) -> Self {
        self.settings.ejected_after = after_failures;
        self.settings.ejection = base;
        self
    }

    /// The balancer.
    pub fn build(self) -> Balancer {
        let Self { subscription, settings } = self;
        let table = Table::first(&subscription.current(), &settings);
        Balancer {
            shared: Arc::new(Shared { began: Instant::now(), settings, budget: Budget::default() }),
            subscription,
            table: ArcSwap::from_pointee(table),
            rebuilding: Mutex::new(()),
        }
    }
}

/// Chooses an instance for each call, by what the instances say of themselves and by what this
/// process has seen of them. Share it between tasks behind an `Arc`.
///
/// ```
/// use portolan_sdk::{Balancer, Instance, Policy, Registration, Subscription};
///
/// let students = ["192.0.2.1:8081", "192.0.2.2:8081"]
///     .map(|at| Instance::fixed(Registration::new("student", "http", at.parse().unwrap())));
/// let students = Subscription::fixed("student", students);
/// let students = Balancer::builder(students).policy(Policy::RoundRobin).build();
///
/// let pick = students.pick().unwrap();
/// println!("calling {}", pick.socket_address());
/// pick.succeeded();
/// ```
pub struct Balancer {
    shared: Arc<Shared>,
    subscription: Subscription,
    table: ArcSwap<Table>,
    rebuilding: Mutex<()>,
}

/// What picks need of their balancer, which may be gone before they are.
#[derive(Debug)]
struct Shared {
    began: Instant,
    settings: Settings,
    budget: Budget,
}

impl Shared {
    fn now(&self) -> Nanos {
        nanos(self.began.elapsed())
    }

    /// A call ended.
    fn learn(&self, endpoint: &Endpoint, went_well: bool, took: Nanos, now: Nanos) {
        if went_well {
            endpoint.load.observe(took, now, self.settings.decay);
            endpoint.health.succeed();
            self.budget.succeed();
        } else {
            endpoint.load.fail(took, now, self.settings.decay);
            endpoint.health.fail(now, &self.settings);
            self.budget.fail();
        }
    }
}

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("settings", &self.shared.settings)
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

/// What is special about one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// For [`Policy::RingHash`]: calls of one key go to one instance. Without one, any key.
    pub key: Option<&'a [u8]>,
    /// Instances that this call has tried already: when one refuses the connection, the request
    /// was never sent, and another one may be asked at once.
    pub tried: &'a [SocketAddr],
}

impl Balancer {
    /// Balances over a subscription, by [`Policy::PeakEwma`].
    pub fn new(subscription: Subscription) -> Self {
        Self::builder(subscription).build()
    }

    /// Balances over a subscription, as told.
    pub fn builder(subscription: Subscription) -> BalancerBuilder {
        let settings = Settings {
            policy: Policy::default(),
            zone: None,
            slow_start: Duration::ZERO,
            ejected_after: EJECTED_AFTER,
            ejection: EJECTION,
            decay: DECAY,
        };
        BalancerBuilder { subscription, settings }
    }

    /// What it balances over.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// The instance for the next call. `None`: none is available.
    pub fn pick(&self) -> Option<Pick> {
        self.pick_for(&Call::default())
    }

    /// The instance for a call.
    pub fn pick_for(&self, call: &Call<'_>) -> Option<Pick> {
        self.pick_at(call, self.shared.now())
    }

    /// Tells how a call to an instance ended that was chosen elsewhere (by another balancer, or for
    /// another process), so that it counts here too. `false`: it takes no calls now.
    pub fn observe(&self, instance: SocketAddr, went_well: bool, took: Duration) -> bool {
        let now = self.shared.now();
        let table = self.table(now);
        let is_meant = |endpoint: &&Arc<Endpoint>| endpoint.instance.socket_address() == instance;
        let mut found = false;
        for endpoint in table.endpoints().filter(is_meant) {
            found = true;
            self.shared.learn(endpoint, went_well, nanos(took), now);
        }
        found
    }

    fn pick_at(&self, call: &Call<'_>, now: Nanos) -> Option<Pick> {
        let table = self.table(now);
        let endpoint = table.choose(&self.shared.settings, call, now, &mut rand::rng())?.clone();
        endpoint.load.begin();
        Some(Pick { endpoint, shared: self.shared.clone(), began: now })
    }

    /// The table of the newest snapshot.
    fn table(&self, now: Nanos) -> Guard<Arc<Table>> {
        let table = self.table.load();
        if self.subscription.is_current(table.source()) {
            return table;
        }
        drop(table);
        let _turn = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load();
        let snapshot = self.subscription.current();
        // Another thread may have been faster.
        if !snapshot.is_of(table.source()) {
            let next = table.next(&snapshot, &self.shared.settings, now);
            self.table.store(Arc::new(next));
        }
        drop(table);
        self.table.load()
    }
}

/// An instance that a call goes to. The call counts as under way until this is dropped; say how
/// it ended, so that the next choices are better. One that is dropped without a word (a call that
/// was given up) teaches nothing.
#[must_use = "the call counts as under way until this is dropped"]
pub struct Pick {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    began: Nanos,
}

impl Pick {
    /// The instance, to keep.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.endpoint.instance
    }

    /// The call went well.
    pub fn succeeded(self) {
        let now = self.shared.now();
        self.succeeded_at(now);
    }

    fn succeeded_at(self, now: Nanos) {
        self.shared.learn(&self.endpoint, true, now.saturating_sub(self.began), now);
    }

    /// The call ended, and took so long: where the time since the choice says little, as other
    /// processes make the calls.
    pub fn ended(self, went_well: bool, took: Duration) {
        self.shared.learn(&self.endpoint, went_well, nanos(took), self.shared.now());
    }

    /// The instance did not do what it should: no connection, no answer, or one that says so.
    pub fn failed(self) {
        let now = self.shared.now();
        self.failed_at(now);
    }

    fn failed_at(self, now: Nanos) {
        self.shared.learn(&self.endpoint, false, now.saturating_sub(self.began), now);
    }
}

impl Deref for Pick {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.endpoint.instance
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.endpoint.load.end();
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(&self.endpoint.instance).finish()
    }
}

#[cfg(test)]
mod tests;
