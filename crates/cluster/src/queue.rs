//! What a controller has to look at next.
//!
//! Callbacks of informers add keys; workers take one key at a time. A key waits
//! at most once, and is never with two workers at the same time: what changes
//! while it is being worked on makes it wait again. Failures come back later
//! and later, so that one bad object costs little and hides no other.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Pause after the first failure (client-go `DefaultTypedControllerRateLimiter`).
pub const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(5);
/// Longest pause. client-go goes to 1000 s; nobody at a laptop waits that long.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to be put there when its worker is done.
    waiting: HashSet<K>,
    /// With a worker.
    active: HashSet<K>,
    later: BTreeSet<(Instant, K)>,
    /// The time of each key in `later`: a key is in it once.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    /// The earliest of several times counts.
    fn put_off(&mut self, key: &K, until: Instant) {
        if let Some(due) = self.due.get(key) {
            if *due <= until {
                return;
            }
            self.later.remove(&(*due, key.clone()));
        }
        self.due.insert(key.clone(), until);
        self.later.insert((until, key.clone()));
    }

    /// Makes ready what is due.
    fn wake_due(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.later.pop_first() else { return };
            self.due.remove(&key);
            if self.waiting.insert(key.clone()) && !self.active.contains(&key) {
                self.ready.push_back(key);
            }
        }
    }
}

/// A set of keys that waits for workers. It holds each key once, so that it
/// never outgrows the objects that its keys name.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            active: HashSet::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
        };
        Queue { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a key looked at, soon.
    pub fn add(&self, key: K) {
        let mut state = self.state();
        if !state.waiting.insert(key.clone()) {
            return;
        }
        if !state.active.contains(&key) {
            state.ready.push_back(key);
            self.wake.notify_one();
        }
    }

    /// Has a key looked at after a while, whatever else happens to it.
    pub fn add_after(&self, key: K, pause: Duration) {
        self.state().put_off(&key, Instant::now() + pause);
        self.wake.notify_one();
    }

    /// The next key. Dropping the future loses nothing. Every key taken must be
    /// given back with [`Queue::done`] or [`Queue::failed`].
    pub async fn next(&self) -> K {
        loop {
            let woken = self.wake.notified();
            let due = {
                let mut state = self.state();
                state.wake_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.waiting.remove(&key);
                    state.active.insert(key.clone());
                    // A wake-up may stand for several keys: pass it on.
                    if !state.ready.is_empty() || !state.later.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.later.first().map(|(at, _)| *at)
            };
            match due {
                // Either way there may be something now.
                Some(at) => drop(tokio::time::timeout_at(at, woken).await),
                None => woken.await,
            }
        }
    }

    fn give_back(&self, state: &mut State<K>, key: &K) {
        state.active.remove(key);
        if state.waiting.contains(key) {
            state.ready.push_back(key.clone());
            self.wake.notify_one();
        }
    }

    /// The key was dealt with.
    pub fn done(&self, key: &K) {
        let mut state = self.state();
        state.failures.remove(key);
        self.give_back(&mut state, key);
    }

    /// The key could not be dealt with: it comes back after a growing pause,
    /// which is returned, or earlier if it is added.
    pub fn failed(&self, key: &K) -> Duration {
        let mut state = self.state();
        let failures = state.failures.entry(key.clone()).or_default();
        let pause = RETRY_PAUSE_FIRST.saturating_mul(1 << (*failures).min(16)).min(RETRY_PAUSE_MAX);
        *failures = failures.saturating_add(1);
        state.put_off(key, Instant::now() + pause);
        self.give_back(&mut state, key);
        self.wake.notify_one();
        pause
    }

    /// How many keys wait, are worked on, or come back later, in this order.
    pub fn depth(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.ready.len(), state.active.len(), state.later.len())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn keys_wait_once_and_are_with_one_worker() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a"); // While it is being worked on.
        assert_eq!(queue.next().await, "b");
        assert_eq!(queue.depth(), (0, 2, 0));
        assert_eq!(queue.next().now_or_never(), None);
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(queue.depth(), (0, 0, 0));
    }

    #[tokio::test]
    async fn failures_come_back_later_and_later() {
        let queue = Queue::default();
        queue.add(1);
        let key = queue.next().await;
        let pauses: Vec<_> = (0..15).map(|_| queue.failed(&key)).collect();
        assert_eq!(pauses[..3], [5, 10, 20].map(Duration::from_millis));
        assert_eq!(pauses[14], RETRY_PAUSE_MAX);
        assert_eq!(queue.depth(), (0, 0, 1));
        assert_eq!(queue.next().await, 1); // At the earliest of those times.
        queue.done(&1);
        assert_eq!(queue.failed(&1), RETRY_PAUSE_FIRST);
    }

    #[tokio::test]
    async fn delayed_keys_come_when_due_even_among_waiting_workers() {
        let queue = std::sync::Arc::new(Queue::default());
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.add_after(3, Duration::from_millis(30));
        queue.add_after(1, Duration::from_millis(10));
        queue.add_after(1, Duration::from_millis(20));
        queue.add(0);
        let mut got = Vec::new();
        for worker in workers {
            got.push(worker.await.unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1, 3]);
        assert_eq!(queue.depth(), (0, 3, 0));
    }
}
