//! Names that are not ours: upstream servers and the cache of what they said.
//!
//! ```text
//!   lookup --hit--> reply, at once
//!     |  miss
//!     v
//!   flight (one per question, whoever asks) --race--> upstreams
//!     |                                                 first good reply wins;
//!     +--> cache, and all who wait                      a late one is hedged
//! ```
//!
//! A flight is a task of its own: it outlives the clients that wait for it, so
//! what they have given up on still fills the cache. Flights and those who wait
//! are counted, and beyond the limit the answer is SERVFAIL at once. When no
//! upstream answers in time, records past their TTL serve (RFC 8767), denials
//! never.

mod cache;
mod coredns;
mod exchange;
mod metrics;
mod probe;
mod reply;
mod secure;
mod settings;
mod stand_in;
mod upstream;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::base::iana::Rtype;
use futures_util::{StreamExt, stream::FuturesUnordered};
use portolan_runtime::Tasks;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

pub(crate) use self::{
    cache::Found,
    metrics::ForwardMetrics,
    reply::{NOERROR, NXDOMAIN, Reply, SERVFAIL, Told},
    settings::why_unusable,
};
use self::{
    cache::{Cache, Holding, Key, State},
    probe::Probes,
    reply::{FORMERR, Lifetime, NOTIMP, REFUSED},
    upstream::{Upstream, Upstreams},
};
pub use self::{
    secure::TlsServer,
    settings::{Bounds, CacheSettings, Forwarding, Group, Server},
    stand_in::StandIn,
};
use crate::name::DnsName;

/// Questions that are on their way upstream at one time (kubeadm's Corefile:
/// `max_concurrent 1000`).
const FLIGHTS_MAX: usize = 1000;

/// Clients that wait for them at one time.
const WAITING_MAX: usize = 10_000;

/// Queries that are sent for one question. With pauses that double, the last
/// goes out before the budget ends.
const ATTEMPTS_MAX: usize = 6;

/// How often a server is asked that cannot be: one that is being started again may be
/// there the second time.
const ERRORS_MAX: usize = 2;

/// The pause before servers are asked again of which none could be: far less than
/// a reply may take that is on its way.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long a client waits before it gets what is stale (RFC 8767, 5: 1.8 s).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// A question to be asked of others. The class is IN.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    pub(crate) name: DnsName,
    pub(crate) kind: Rtype,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

impl Ask {
    /// Appends the question as it stands in messages.
    pub(crate) fn question(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_slice());
        out.extend_from_slice(&self.kind.to_int().to_be_bytes());
        out.extend_from_slice(&[0, 1]);
    }

    fn key(&self) -> Key {
        let mut key = self.name.as_slice().to_ascii_lowercase();
        key.extend_from_slice(&self.kind.to_int().to_be_bytes());
        key.push(u8::from(self.dnssec_ok) << 1 | u8::from(self.checking_disabled));
        key.into()
    }
}

/// Why upstreams gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// None answered in time.
    Timeout,
    /// None could be reached.
    Network,
    /// All of them lead back to us.
    Loop,
    /// Too many questions are on their way.
    Busy,
}

impl Failed {
    /// As an extended error (RFC 8914, 4).
    pub(crate) fn extended(self) -> (u16, &'static str) {
        match self {
            Self::Timeout => (22, "no upstream server answered in time"),
            Self::Network => (23, "no upstream server could be reached"),
            Self::Loop => (0, "the upstream servers lead back to this server"),
            Self::Busy => (0, "too many questions wait for upstream servers"),
        }
    }
}

/// What a question came to.
pub(crate) type Outcome = Result<Found, Failed>;

/// What a lookup came to.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// It is known.
    Now(Outcome),
    /// It has to be waited for.
    Later(Box<Pending>),
}

/// A question that is on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    flight: Flight,
    stale: Option<Found>,
    _place: OwnedSemaphorePermit,
}

type Flight = watch::Receiver<Option<Result<Arc<Reply>, Failed>>>;

/// Asks others. Its tasks end when it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Forwarding,
    /// As in the settings.
    groups: Vec<Upstreams>,
    cache: Option<Cache>,
    /// What it held last.
    held: Mutex<Holding>,
    flights: Mutex<HashMap<Key, Flight>>,
    flying: Arc<Semaphore>,
    /// Of each group.
    flying_by_group: Vec<Option<Arc<Semaphore>>>,
    waiting: Arc<Semaphore>,
    probes: Probes,
    looks_for_loops: bool,
    /// Answers in place of all servers; then there are no flights.
    stand_in: Option<StandIn>,
    metrics: ForwardMetrics,
    started: Instant,
    tasks: Tasks,
}

impl Forwarder {
    /// `None`: nobody is to be asked. `probes`: whether servers that lead back to us are
    /// looked for. A stand-in takes the place of all servers.
    pub(crate) fn start(
        settings: &Forwarding,
        metrics: &ForwardMetrics,
        tasks: &Tasks,
        probes: bool,
        stand_in: Option<&StandIn>,
    ) -> Option<Self> {
        if settings.groups.is_empty() {
            return None;
        }
        let upstreams = |group: &Group| Upstreams::new(group, Some(&metrics.coredns));
        let flying = |group: &Group| group.max_concurrent.map(|max| Arc::new(Semaphore::new(max)));
        let cache = (settings.cache.bytes_max > 0).then(|| Cache::new(&settings.cache));
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            groups: settings.groups.iter().map(upstreams).collect(),
            cache,
            held: Mutex::default(),
            flights: Mutex::default(),
            flying: Arc::new(Semaphore::new(FLIGHTS_MAX)),
            flying_by_group: settings.groups.iter().map(flying).collect(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            probes: Probes::default(),
            looks_for_loops: probes,
            stand_in: stand_in.cloned(),
            metrics: metrics.clone(),
            started: Instant::now(),
            tasks: tasks.clone(),
        });
        if probes && stand_in.is_none() {
            let asked = Arc::downgrade(&shared);
            tasks.spawn("dns loop probes", probe::run(asked, tasks.shutdown().clone()));
        }
        Some(Self { shared })
    }

    /// What it was started with.
    pub(crate) fn settings(&self) -> &Forwarding {
        &self.shared.settings
    }

    /// Whether it looks for servers that lead back to us.
    pub(crate) fn probes(&self) -> bool {
        self.shared.looks_for_loops
    }

    /// Whether anybody is asked for a name.
    pub(crate) fn covers(&self, name: &DnsName) -> bool {
        self.shared.settings.covers(name)
    }

    /// Whether a query is one that we sent ourselves to find loops.
    pub(crate) fn came_back(&self, name: &DnsName) -> bool {
        self.shared.probes.came_back(name, &self.shared)
    }

    /// Looks a question up in the cache, or sets out to ask.
    pub(crate) fn lookup(&self, ask: &Ask) -> Lookup {
        let shared = &self.shared;
        if let Some(stand_in) = &shared.stand_in {
            let found = |reply: Reply| {
                let told = shared.told(&reply);
                Found { reply: Arc::new(reply), told, state: State::Fresh }
            };
            return Lookup::Now(stand_in.reply(ask).map(found).ok_or(Failed::Timeout));
        }
        let key = ask.key();
        let found = shared.cached(&key, &ask.name);
        shared.metrics.looked_up(found.as_ref());
        match found {
            Some(found) if found.state == State::Fresh => Lookup::Now(Ok(found)),
            Some(found) if found.state == State::Ending => {
                // Whoever finds no place for it leaves it be: it is still fresh.
                if shared.fly(&key, ask).is_some() {
                    shared.metrics.prefetched();
                }
                Lookup::Now(Ok(found))
            }
            Some(found) if shared.settings.cache.stale_at_once && found.state == State::Stale => {
                if shared.fly(&key, ask).is_some() {
                    shared.metrics.served_stale();
                }
                Lookup::Now(Ok(found))
            }
            stale => {
                let place = shared.waiting.clone().try_acquire_owned().ok();
                match place.and_then(|place| Some((place, shared.fly(&key, ask)?))) {
                    Some((place, flight)) => {
                        Lookup::Later(Box::new(Pending { flight, stale, _place: place }))
                    }
                    None => {
                        shared.metrics.rejected();
                        Lookup::Now(stale.ok_or(Failed::Busy))
                    }
                }
            }
        }
    }

    /// Waits for what is on its way.
    pub(crate) async fn wait(&self, pending: Pending) -> Outcome {
        let Pending { mut flight, stale, _place } = pending;
        let landed = async {
            match flight.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Err(Failed::Network)),
                // The flight was ended with the server.
                Err(_) => Err(Failed::Network),
            }
        };
        let outcome = match &stale {
            None => landed.await,
            Some(_) => timeout(STALE_AFTER, landed).await.unwrap_or(Err(Failed::Timeout)),
        };
        match (outcome, stale) {
            (Ok(reply), Some(stale)) if reply.rcode == SERVFAIL => {
                self.shared.metrics.served_stale();
                Ok(stale)
            }
            (Ok(reply), _) => {
                let told = self.shared.told(&reply);
                Ok(Found { reply, told, state: State::Fresh })
            }
            (Err(_), Some(stale)) => {
                self.shared.metrics.served_stale();
                Ok(stale)
            }
            (Err(failed), None) => Err(failed),
        }
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn cached(&self, key: &Key, name: &DnsName) -> Option<Found> {
        let cache = self.cache.as_ref().filter(|_| self.settings.cache.covers(name))?;
        cache.get(key, self.now_ms())
    }

    /// What clients are told of a reply that has just come.
    fn told(&self, reply: &Reply) -> Told {
        self.cache.as_ref().map_or(Told::AsItCame, |cache| cache.told(reply, 0))
    }

    /// Joins the flight for a question, or starts it. `None`: too many are up.
    fn fly(self: &Arc<Self>, key: &Key, ask: &Ask) -> Option<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            self.metrics.coalesced.inc();
            return Some(flight.clone());
        }
        let (group, _) = self.settings.group_of(&ask.name)?;
        let permit = self.flying.clone().try_acquire_owned().ok()?;
        let of_group = match self.flying_by_group.get(group) {
            Some(Some(flying)) => Some(flying.clone().try_acquire_owned().ok()?),
            _ => None,
        };
        let (land, flight) = watch::channel(None);
        flights.insert(key.clone(), flight.clone());
        let (shared, key, ask) = (self.clone(), key.clone(), ask.clone());
        let shutdown = self.tasks.shutdown().clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = shared.race(group, &ask) => outcome.map(Arc::new),
                () = shutdown.cancelled() => Err(Failed::Network),
            };
            if let Ok(reply) = &outcome {
                shared.keep(&key, &ask.name, reply);
            }
            // First out of the map: whoever comes now finds the cache.
            shared.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            land.send_replace(Some(outcome));
            drop((permit, of_group));
        });
        Some(flight)
    }

    /// A failure never takes the place of records, which may serve on stale.
    fn keep(&self, key: &Key, name: &DnsName, reply: &Arc<Reply>) {
        let Some(cache) = &self.cache else { return };
        let settings = &self.settings.cache;
        let now_ms = self.now_ms();
        let excepted = |zones: &[DnsName]| zones.iter().any(|zone| name.ends_with(zone));
        let keeps = match reply.lifetime() {
            Some(Lifetime::Records(_)) => !excepted(&settings.success_except),
            Some(Lifetime::Denial(_)) => !excepted(&settings.denial_except),
            Some(Lifetime::Failure) => cache.get(key, now_ms).is_none(),
            None => false,
        };
        if keeps && settings.covers(name) {
            cache.put(key, reply, now_ms);
        }
        let now = cache.holding();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.holds(std::mem::replace(&mut held, now), now);
    }

    /// Asks until the first good reply. A server that is late is not given up: the
    /// next one is asked beside it, or the same once more.
    async fn race(&self, group: usize, ask: &Ask) -> Result<Reply, Failed> {
        let Some(group) = self.groups.get(group) else { return Err(Failed::Network) };
        let servers = group.order(rand::random());
        let Some(first) = servers.first() else { return Err(Failed::Loop) };
        let deadline = Instant::now() + self.settings.budget;
        let mut pause = first.late_after();
        let mut hedge_at = Instant::now();
        let mut running = FuturesUnordered::new();
        let mut attempts: Vec<Attempt<'_>> = Vec::with_capacity(ATTEMPTS_MAX);
        let mut bad: Option<Reply> = None;
        let outcome = loop {
            if Instant::now() >= hedge_at
                && let Some(server) = servers.iter().cycle().nth(attempts.len())
                && attempts.len() < ATTEMPTS_MAX
            {
                if !attempts.is_empty() {
                    self.metrics.hedged.inc();
                }
                let number = attempts.len();
                attempts.push(Attempt { server, sent: Instant::now(), open: true });
                running.push(async move { (number, exchange::exchange(server, ask).await) });
                hedge_at = Instant::now() + pause;
                if attempts.len() >= servers.len() {
                    pause *= 2;
                }
            }
            let may_ask = attempts.len() < ATTEMPTS_MAX;
            let wake = if may_ask { hedge_at.min(deadline) } else { deadline };
            tokio::select! {
                Some((number, outcome)) = running.next() => {
                    let Some(attempt) = attempts.get_mut(number) else { continue };
                    attempt.open = false;
                    match self.judge(attempt, outcome) {
                        Some(reply) if is_good(&reply) => break Ok(reply),
                        reply => bad = reply.or(bad),
                    }
                    // Those that are left are asked at once.
                    if attempts.len() < servers.len() {
                        hedge_at = Instant::now();
                    } else if running.is_empty() {
                        if let Some(bad) = bad.take() {
                            break Ok(bad);
                        }
                        // Nobody is left to wait for.
                        if attempts.len() >= ATTEMPTS_MAX.min(ERRORS_MAX * servers.len()) {
                            break Err(Failed::Network);
                        }
                        hedge_at = hedge_at.min(Instant::now() + AGAIN_AFTER);
                    }
                }
                () = sleep_until(wake) => {
                    if wake == deadline {
                        break bad.take().ok_or(match running.is_empty() {
                            true => Failed::Network,
                            false => Failed::Timeout,
                        });
                    }
                }
            }
        };
        for attempt in attempts.iter().filter(|attempt| attempt.is_late()) {
            attempt.server.lost();
            self.metrics.answered(attempt.server.address, "lost");
        }
        outcome
    }

    /// Learns from what one server did.
    fn judge(&self, attempt: &Attempt<'_>, outcome: io::Result<Reply>) -> Option<Reply> {
        let address = attempt.server.address;
        match outcome {
            Ok(reply) => {
                attempt.server.heard(attempt.sent.elapsed());
                self.metrics.took(address, &reply, attempt.sent.elapsed());
                self.metrics.answered(address, if is_good(&reply) { "good" } else { "bad" });
                Some(reply)
            }
            Err(error) => {
                tracing::debug!(%address, %error, "an upstream server cannot be asked");
                attempt.server.lost();
                self.metrics.answered(address, "error");
                None
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let held = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // What was evicted was; the rest is gone with the cache.
        self.metrics.holds(held, Holding { evicted: held.evicted, ..Holding::default() });
    }
}

/// One query of a race.
struct Attempt<'u> {
    server: &'u Upstream,
    sent: Instant,
    open: bool,
}

impl Attempt<'_> {
    /// Whether it still had no reply when it should have had one long ago.
    fn is_late(&self) -> bool {
        self.open && self.sent.elapsed() > 2 * self.server.late_after()
    }
}

/// Whether another server need not be asked.
fn is_good(reply: &Reply) -> bool {
    !matches!(reply.rcode, FORMERR | SERVFAIL | NOTIMP | REFUSED)
}
