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
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::{
    Error, Snapshot,
    cache::{Cache, Changed},
    kept::{Kept, Lists},
    subscription::Observed,
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

impl Failure {
    /// Trying on will not help.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.status, Some((400 | 401 | 403 | 404, _)))
    }

    pub(crate) fn into_error(self, action: &str) -> Error {
        let action = action.to_owned();
        match self.status {
            Some((code, reason)) => Error::Refused { action, code, reason, message: self.detail },
            None => Error::Unreachable { action, detail: self.detail },
        }
    }
}

struct Inner {
    cache: Cache,
    channels: HashMap<String, watch::Sender<Arc<Snapshot>>>,
    version: u64,
    observed: Observed,
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
            observed: Observed::now(),
            trouble: None,
            ended: false,
        };
        Self { inner: Mutex::new(inner), first: watch::Sender::new(First::Waiting) }
    }

    /// Begins with what was known before the start, until something newer comes.
    pub(crate) fn begin_with(&self, kept: Kept) {
        let mut inner = self.lock();
        inner.cache.preload(kept.lists);
        inner.observed = Observed::ago(kept.age);
        inner.trouble = Some("not confirmed since the process began".into());
    }

    /// Why there is no news, if there is none.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.as_deref().map(str::to_owned)
    }

    /// Whether anything is known of an interface from before the start.
    pub(crate) fn has_begun_with(&self, interface: &str) -> bool {
        self.lock().cache.is_preloaded(interface)
    }

    /// A number that differs whenever anything has come.
    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    /// What should be kept for another start: what was subscribed to, and what there is from the
    /// last start as long as nothing newer has come. With [`version`](Self::version).
    pub(crate) fn export(&self) -> (u64, Duration, Lists) {
        let inner = self.lock();
        let names = inner.channels.keys().chain(inner.cache.preloaded());
        let lists = names.map(|name| (name.clone(), inner.cache.instances(name))).collect();
        (inner.version, inner.observed.age(), lists)
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

    /// Forgets an interface that nobody subscribes to; `false`: somebody does.
    pub(crate) fn forget(&self, interface: &str) -> bool {
        let mut inner = self.lock();
        if inner.channels.get(interface).is_some_and(|channel| channel.receiver_count() > 0) {
            return false;
        }
        inner.channels.remove(interface);
        inner.cache.set(interface, Vec::new());
        true
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
        inner.observed = Observed::now();
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
        inner.observed = Observed::now();
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

/// Tells the directory when the task that feeds it ends, however it ends.
pub(crate) struct End(pub(crate) Arc<Directory>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Waits for the first listing. `gives_up` tells which failures are waited out no longer.
pub(crate) async fn wait_first(
    directory: &Directory,
    action: &str,
    within: Duration,
    gives_up: impl Fn(&Failure) -> bool,
) -> Result<(), Error> {
    let mut first = directory.first();
    let decided = first.wait_for(|first| match first {
        First::Done | First::Ended => true,
        First::Failed(failure) => gives_up(failure),
        First::Waiting => false,
    });
    // Not in time: the last failure says why.
    drop(timeout(within, decided).await);
    match directory.first().borrow().clone() {
        First::Done => Ok(()),
        First::Failed(failure) => Err(failure.into_error(action)),
        First::Waiting => Err(Error::Unreachable {
            action: action.into(),
            detail: format!("no answer within {} s", within.as_secs()),
        }),
        First::Ended => Err(Error::Unreachable {
            action: action.into(),
            detail: "the runtime is shutting down".into(),
        }),
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
