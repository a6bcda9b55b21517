//! What the watch has brought, and who waits for it.
//!
//! ```text
//!   watch ── apply(Cache -> Changed) ──▶ Directory ── one channel per interface ──▶ Subscription
//!         ── alive, lose, end ─────────▶
//! ```
//!
//! A subscriber holds the newest [`Snapshot`], not a queue: slow ones miss
//! states in between, never the last one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, time::Instant};

use crate::{
    Snapshot,
    cache::{Cache, Changed},
};

/// The cache with its channels.
pub(crate) struct Directory {
    inner: Mutex<Inner>,
    first: watch::Sender<First>,
}

/// How far the first listing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Not tried yet.
    Waiting,
    /// It failed, and will be tried again.
    Failed(Failure),
    /// It is there: answers are complete.
    Done,
    /// It will never come.
    Ended,
}

/// Why the API could not be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The API's status, where it answered.
    pub(crate) status: Option<(u16, String)>,
    /// What was said, or what broke.
    pub(crate) detail: String,
}

struct Inner {
    cache: Cache,
    channels: HashMap<String, watch::Sender<Arc<Snapshot>>>,
    version: u64,
    observed: Instant,
    trouble: Option<Arc<str>>,
    ended: bool,
}

impl Inner {
    fn snapshot(&self, interface: &str) -> Arc<Snapshot> {
        let instances = self.cache.instances(interface);
        Arc::new(Snapshot::new(self.version, instances, self.observed, self.trouble.clone()))
    }

    /// Gives every channel the present health; wakes subscribers if asked to.
    fn tell_health(&self, wake: bool) {
        for channel in self.channels.values() {
            channel.send_if_modified(|snapshot| {
                *snapshot = Arc::new(snapshot.with_health(self.observed, self.trouble.clone()));
                wake
            });
        }
    }
}

impl Directory {
    pub(crate) fn new(cache: Cache) -> Self {
        let inner = Inner {
            cache,
            channels: HashMap::new(),
            version: 0,
            observed: Instant::now(),
            trouble: None,
            ended: false,
        };
        Self { inner: Mutex::new(inner), first: watch::Sender::new(First::Waiting) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that holds the lock can leave half a change behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel of an interface, which holds its present state.
    pub(crate) fn subscribe(&self, interface: &str) -> watch::Receiver<Arc<Snapshot>> {
        let mut inner = self.lock();
        if inner.ended {
            return watch::Sender::new(inner.snapshot(interface)).subscribe();
        }
        if let Some(channel) = inner.channels.get(interface) {
            return channel.subscribe();
        }
        let channel = watch::Sender::new(inner.snapshot(interface));
        let receiver = channel.subscribe();
        inner.channels.insert(interface.to_owned(), channel);
        receiver
    }

    /// How far the first listing is.
    pub(crate) fn first(&self) -> watch::Receiver<First> {
        self.first.subscribe()
    }

    /// A whole listing has come.
    pub(crate) fn complete(&self, change: impl FnOnce(&mut Cache) -> Changed) {
        self.apply(change);
        self.first.send_replace(First::Done);
    }

    /// Something has come: changes the cache and tells those whom it concerns.
    pub(crate) fn apply(&self, change: impl FnOnce(&mut Cache) -> Changed) {
        let mut inner = self.lock();
        let changed = change(&mut inner.cache);
        inner.observed = Instant::now();
        let was_lost = inner.trouble.take().is_some();
        inner.version += 1;
        // Nobody listens there any more; whoever subscribes again gets a new one.
        inner.channels.retain(|_, channel| channel.receiver_count() > 0);
        for interface in &changed {
            if let Some(channel) = inner.channels.get(interface) {
                channel.send_replace(inner.snapshot(interface));
            }
        }
        inner.tell_health(was_lost);
    }

    /// The API has confirmed that nothing else has changed.
    pub(crate) fn alive(&self) {
        let mut inner = self.lock();
        inner.observed = Instant::now();
        let was_lost = inner.trouble.take().is_some();
        inner.tell_health(was_lost);
    }

    /// The API cannot be reached, or refuses. What was known stays.
    pub(crate) fn lose(&self, failure: &Failure) {
        let mut inner = self.lock();
        let was_fine = inner.trouble.replace(failure.detail.as_str().into()).is_none();
        inner.tell_health(was_fine);
        drop(inner);
        self.first.send_if_modified(|first| {
            let waits = *first != First::Done;
            if waits {
                *first = First::Failed(failure.clone());
            }
            waits
        });
    }

    /// Nothing will come any more: the runtime that followed the API is gone.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.trouble = Some("the task that followed the API has ended".into());
        inner.tell_health(true);
        inner.ended = true;
        inner.channels.clear();
        drop(inner);
        self.first.send_replace(First::Ended);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn failure() -> Failure {
        Failure { status: None, detail: "refused".into() }
    }

    #[tokio::test]
    async fn wakes_only_whom_it_concerns() {
        let directory = Directory::new(Cache::default());
        let (a, b) = (directory.subscribe("a"), directory.subscribe("b"));
        directory.apply(|_| BTreeSet::from(["a".to_owned()]));
        assert_eq!((a.has_changed().unwrap(), b.has_changed().unwrap()), (true, false));
        directory.alive();
        assert!(!b.has_changed().unwrap());
    }

    #[tokio::test]
    async fn loss_is_told_once_and_taken_back() {
        let directory = Directory::new(Cache::default());
        let mut a = directory.subscribe("a");
        for _ in 0..2 {
            directory.lose(&failure());
        }
        assert!(a.has_changed().unwrap());
        assert_eq!(a.borrow_and_update().trouble(), Some("refused"));
        directory.lose(&failure());
        assert!(!a.has_changed().unwrap());
        directory.apply(|_| BTreeSet::new());
        assert!(a.has_changed().unwrap());
        assert!(!a.borrow_and_update().is_degraded());
    }

    #[tokio::test]
    async fn the_end_keeps_the_last_state_and_says_so() {
        let directory = Directory::new(Cache::default());
        let a = directory.subscribe("a");
        directory.end();
        assert!(a.has_changed().is_err());
        assert!(a.borrow().is_degraded());
        assert!(directory.subscribe("a").borrow().is_degraded());
    }

    #[tokio::test]
    async fn channels_without_subscribers_go() {
        let directory = Directory::new(Cache::default());
        drop(directory.subscribe("a"));
        let kept = directory.subscribe("b");
        directory.apply(|_| BTreeSet::new());
        assert_eq!(directory.lock().channels.keys().collect::<Vec<_>>(), ["b"]);
        drop(kept);
    }
}
