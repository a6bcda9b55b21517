//! The names that programs have asked for, each followed once.
//!
//! ```text
//!   ask ──▶ Slot (by namespace and name) ── first time: subscribe ──▶ Followed
//!            │  nobody asked in a while: let go                        │ snapshot ─▶ View
//!            ▼                                                         └ (index, tag)
//! ```
//!
//! An index is a number that grows with each change of what a name has. It begins with the time
//! of day in milliseconds, so that one that was given by another agent, or for a subscription that
//! was let go since, is not taken for one of now.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use portolan_runtime::{Clock, Shutdown, SystemClock};
use portolan_sdk::{
    Discovery, Error, Instance, Registration, Registry, ServiceQuery, Snapshot, Subscription,
};
use tokio::{sync::OnceCell, time::sleep};

use crate::{problem::Problem, services::Shown};

/// As many services as one watch of the server may name.
pub(crate) const NAMES_MAX: usize = 1_000;

/// A name is let go that nobody asked for so long. Programs that poll do so within minutes, and a
/// subscription that nobody reads costs the server and the agent each change of it.
pub(crate) const IDLE: Duration = Duration::from_secs(600);

/// Where instances are learnt from.
pub(crate) enum Source {
    Server(Discovery),
    Direct(Registry),
}

/// A name in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// All that are followed.
pub(crate) struct Names {
    source: Source,
    namespace: String,
    began: Instant,
    slots: Mutex<HashMap<Name, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    followed: OnceCell<Arc<Followed>>,
    /// Milliseconds after the beginning.
    asked_ms: AtomicU64,
}

impl Slot {
    fn is_in_use(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
            || self.followed.get().is_some_and(|followed| Arc::strong_count(followed) > 1)
    }
}

impl Names {
    pub(crate) fn new(source: Source, namespace: &str) -> Self {
        let (namespace, began) = (namespace.to_owned(), Instant::now());
        Self { source, namespace, began, slots: Mutex::default() }
    }

    /// The name that a request means.
    pub(crate) fn named(&self, name: &str, namespace: Option<&str>) -> Result<Name, Problem> {
        let any = Registration::new(name, "any", ([127, 0, 0, 1], 1).into());
        if let Some(reason) = any.problem() {
            return Err(Problem::field("service", reason.detail.to_string())
                .fix("give the name that the service registered"));
        }
        let namespace = namespace.unwrap_or(&self.namespace);
        if matches!(self.source, Source::Direct(_)) && namespace != self.namespace {
            let detail = format!("with --direct only namespace {} is known", self.namespace);
            return Err(Problem::field("namespace", detail)
                .fix("leave it out, or run the agent against a Portolan server"));
        }
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if namespace.is_empty() || namespace.len() > 63 || !namespace.bytes().all(is_name) {
            let detail = format!("{namespace:?} is no name of a namespace");
            return Err(Problem::field("namespace", detail).fix("give a DNS label"));
        }
        Ok(Name { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Follows a name, or goes on with it.
    pub(crate) async fn follow(&self, name: &Name) -> Result<Arc<Followed>, Problem> {
        let slot = self.slot(name)?;
        let followed = slot.followed.get_or_try_init(async || {
            let Name { namespace, name } = name;
            let subscription = match &self.source {
                Source::Server(server) => server.subscribe(namespace, name).await?,
                Source::Direct(registry) => registry.subscribe(name).await?,
            };
            Ok::<_, Error>(Arc::new(Followed::new(subscription)))
        });
        match followed.await {
            Ok(followed) => Ok(followed.clone()),
            Err(error) => {
                drop(slot);
                self.sweep(self.now_ms(), Duration::MAX);
                Err(error.into())
            }
        }
    }

    fn slot(&self, name: &Name) -> Result<Arc<Slot>, Problem> {
        let now_ms = self.now_ms();
        let is_new = |slots: &HashMap<_, _>| !slots.contains_key(name) && slots.len() >= NAMES_MAX;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if is_new(&slots) {
            sweep(&mut slots, now_ms, IDLE);
        }
        if is_new(&slots) {
            return Err(Problem::unavailable(format!("{NAMES_MAX} names are followed already"))
                .fix(format!("ask for fewer; a name is let go {} s later", IDLE.as_secs())));
        }
        let slot = slots.entry(name.clone()).or_default();
        slot.asked_ms.store(now_ms, Relaxed);
        Ok(slot.clone())
    }

    /// The names that are registered in a namespace.
    pub(crate) async fn list(&self, namespace: &str) -> Result<Vec<String>, Error> {
        match &self.source {
            Source::Direct(registry) => registry.interfaces().await,
            Source::Server(server) => {
                let (origin, namespace) = (Some("registry".into()), Some(namespace.into()));
                let query = ServiceQuery { origin, namespace, ..ServiceQuery::default() };
                let services = server.services(&query).await?;
                Ok(services.into_iter().map(|service| service.name).collect())
            }
        }
    }

    /// How many are followed.
    pub(crate) fn len(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What is followed at present and cannot be confirmed, with why.
    pub(crate) fn trouble(&self) -> Option<String> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut followed = slots.values().filter_map(|slot| slot.followed.get());
        followed.find_map(|one| one.subscription.current().trouble().map(str::to_owned))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn sweep(&self, now_ms: u64, idle: Duration) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(&mut slots, now_ms, idle);
    }

    /// Lets go of what nobody asks for, until the end.
    pub(crate) async fn let_go(&self, shutdown: &Shutdown) {
        while shutdown.run_until_cancelled(sleep(IDLE / 10)).await.is_some() {
            self.sweep(self.now_ms(), IDLE);
        }
    }
}

/// Takes out what could not be followed, and what nobody uses and asked for so long.
fn sweep(slots: &mut HashMap<Name, Arc<Slot>>, now_ms: u64, idle: Duration) {
    let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
    slots.retain(|_, slot| {
        let is_recent = now_ms.saturating_sub(slot.asked_ms.load(Relaxed)) < idle_ms;
        slot.is_in_use() || (is_recent && slot.followed.initialized())
    });
}

/// A name that is followed.
pub(crate) struct Followed {
    pub(crate) subscription: Subscription,
    seen: Mutex<View>,
}

/// What a name has at a time.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Grows with each change.
    pub(crate) index: u64,
    /// Of the instances: equal where they are.
    pub(crate) tag: u64,
    pub(crate) snapshot: Arc<Snapshot>,
}

impl View {
    fn new(index: u64, snapshot: Arc<Snapshot>) -> Self {
        // The types serialise by construction.
        let text = serde_json::to_vec(&Shown::all(snapshot.instances())).unwrap_or_default();
        Self { index, tag: xxhash_rust::xxh64::xxh64(&text, 0), snapshot }
    }
}

impl Followed {
    fn new(subscription: Subscription) -> Self {
        let view = View::new(SystemClock.unix_ms(), subscription.current());
        Self { subscription, seen: Mutex::new(view) }
    }

    /// What there is now.
    pub(crate) fn view(&self) -> View {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken in turn: who comes later never sees less.
        let snapshot = self.subscription.current();
        if are_equal(seen.snapshot.instances(), snapshot.instances()) {
            seen.snapshot = snapshot;
        } else {
            *seen = View::new(SystemClock.unix_ms().max(seen.index + 1), snapshot);
        }
        seen.clone()
    }
}

fn are_equal(one: &[Arc<Instance>], other: &[Arc<Instance>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(asked_ms: &[u64]) -> HashMap<Name, Arc<Slot>> {
        let slot = |asked_ms: u64| {
            let followed = Followed::new(Subscription::fixed("a", []));
            let followed = OnceCell::new_with(Some(Arc::new(followed)));
            Arc::new(Slot { followed, asked_ms: asked_ms.into() })
        };
        let named = |at: &u64| Name { namespace: "shop".into(), name: at.to_string() };
        asked_ms.iter().map(|at| (named(at), slot(*at))).collect()
    }

    fn names(slots: &HashMap<Name, Arc<Slot>>) -> Vec<&str> {
        let mut names: Vec<&str> = slots.keys().map(|name| name.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_nobody_asks_for_is_let_go() {
        let mut slots = slots(&[1_000, 2_000, 3_000]);
        let second = Duration::from_secs(1);
        let key = |name: &str| Name { namespace: "shop".into(), name: name.into() };
        // Somebody still reads the oldest.
        let reader = slots[&key("1000")].followed.get().cloned();
        sweep(&mut slots, 3_500, second);
        assert_eq!(names(&slots), ["1000", "3000"]);
        drop(reader);
        sweep(&mut slots, 3_500, second);
        assert_eq!(names(&slots), ["3000"]);
        // One that could not be followed goes at once.
        slots.insert(key("new"), Arc::new(Slot { asked_ms: 3_500.into(), ..Slot::default() }));
        sweep(&mut slots, 3_500, Duration::MAX);
        assert_eq!(names(&slots), ["3000"]);
    }
}
