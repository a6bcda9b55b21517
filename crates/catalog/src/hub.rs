//! The hub: where the writer publishes and readers read.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use portolan_model::Version;
use tokio::sync::watch;

use crate::{board::Board, diff::Diff, snapshot::Snapshot};

/// Versions that subscribers can still catch up from. At 200 changes a second
/// this is five seconds of being asleep; after that a subscriber gets a reset.
pub(crate) const HISTORY_VERSIONS_MAX: usize = 1024;

/// Upper bound of what kept versions may hold beyond the current one, by the
/// catalog's own estimate.
pub(crate) const HISTORY_BYTES_MAX: usize = 64 << 20;

/// Publishes snapshots and remembers the last of them. Share it by `Arc`.
#[derive(Debug)]
pub struct Hub {
    current: ArcSwap<Snapshot>,
    history: Mutex<History>,
    wake: watch::Sender<Version>,
    board: Board,
}

#[derive(Debug, Default)]
struct History {
    /// Oldest first, with the estimated cost of having kept it.
    kept: VecDeque<(Arc<Snapshot>, usize)>,
    bytes: usize,
}

impl Hub {
    /// A hub that shows an empty catalog.
    pub fn new(first: Version) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Snapshot::empty(first)),
            history: Mutex::default(),
            wake: watch::Sender::new(first),
            board: Board::default(),
        })
    }

    /// The current snapshot. Takes no lock.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Who serves which version.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// A subscriber that has seen nothing: its first update is a reset.
    pub fn subscribe(self: &Arc<Self>) -> Subscriber {
        Subscriber { hub: self.clone(), wake: self.wake.subscribe(), seen: None }
    }

    /// A subscriber that has seen `version`, in this life or an earlier one.
    pub fn resume(self: &Arc<Self>, version: Version) -> Subscriber {
        Subscriber { seen: Some(version), ..self.subscribe() }
    }

    /// The snapshot of an earlier version, while it is kept.
    pub fn at(&self, version: Version) -> Option<Arc<Snapshot>> {
        let current = self.snapshot();
        if current.version() == version {
            return Some(current);
        }
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let place = history
            .kept
            .binary_search_by_key(&version.seq, |(snapshot, _)| snapshot.version().seq)
            .ok()?;
        let (snapshot, _) = history.kept.get(place)?;
        (snapshot.version() == version).then(|| snapshot.clone())
    }

    /// Versions that can be caught up from: oldest first, the current one last.
    pub fn versions(&self) -> Vec<Arc<Snapshot>> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = history.kept.iter().map(|(snapshot, _)| snapshot.clone()).collect();
        drop(history);
        let current = self.snapshot();
        if all.last().is_none_or(|last| !last.version().includes(current.version())) {
            all.push(current);
        }
        all
    }

    /// Shows a new snapshot. `cost` estimates the bytes that its predecessor
    /// alone holds.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>, cost: usize) {
        let version = snapshot.version();
        // History first: a subscriber that polls between the two steps must find
        // its version in one place or the other, or it would be reset for nothing.
        let mut forgotten = Vec::new();
        {
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.bytes += cost;
            history.kept.push_back((self.current.load_full(), cost));
            while history.kept.len() > HISTORY_VERSIONS_MAX || history.bytes > HISTORY_BYTES_MAX {
                let Some((snapshot, cost)) = history.kept.pop_front() else { break };
                history.bytes -= cost;
                forgotten.push(snapshot);
            }
        }
        self.current.store(snapshot);
        self.wake.send_replace(version);
        // Freed outside the lock: an old version may hold much.
        drop(forgotten);
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Update {
    /// Start anew from this snapshot: the subscriber's version is unknown here.
    Reset(Arc<Snapshot>),
    /// What changed since the version it had, and the snapshot it leads to.
    Diff(Arc<Diff>, Arc<Snapshot>),
}

impl Update {
    /// The snapshot that the update leads to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        match self {
            Self::Reset(snapshot) | Self::Diff(_, snapshot) => snapshot,
        }
    }
}

/// Follows the catalog. Holds the version it has seen and nothing else: being
/// slow costs a subscriber intermediate versions, never memory.
#[derive(Debug)]
pub struct Subscriber {
    hub: Arc<Hub>,
    wake: watch::Receiver<Version>,
    seen: Option<Version>,
}

impl Subscriber {
    /// Waits until there is something newer than what was seen. `None` when
    /// the hub is gone. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            self.wake.borrow_and_update();
            if let Some(update) = self.poll() {
                return Some(update);
            }
            self.wake.changed().await.ok()?;
        }
    }

    /// What is newer than what was seen, without waiting.
    pub fn poll(&mut self) -> Option<Update> {
        let now = self.hub.snapshot();
        let seen = self.seen.replace(now.version());
        if seen == Some(now.version()) {
            return None;
        }
        let before = seen.and_then(|version| self.hub.at(version));
        Some(match before {
            Some(before) => Update::Diff(Arc::new(before.diff(&now)), now),
            None => Update::Reset(now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Publishes versions 1.. of `cost` bytes each.
    fn hub(versions: u64, cost: usize) -> Arc<Hub> {
        let hub = Hub::new(Version::first(1));
        for seq in 1..=versions {
            hub.publish(Arc::new(Snapshot::empty(Version { epoch: 1, seq })), cost);
        }
        hub
    }

    fn resumes(hub: &Arc<Hub>, epoch: u32, seq: u64) -> bool {
        let update = hub.resume(Version { epoch, seq }).poll();
        match &update {
            Some(Update::Diff(diff, _)) => {
                assert_eq!(diff.from.seq, seq);
                true
            }
            Some(Update::Reset(_)) => false,
            None => true,
        }
    }

    #[test]
    fn history_is_bounded_by_number_and_by_bytes() {
        let max = HISTORY_VERSIONS_MAX as u64;
        let many = hub(max + 10, 1);
        assert!(resumes(&many, 1, max + 10) && resumes(&many, 1, 10));
        assert!(!resumes(&many, 1, 9), "the oldest is gone");
        assert_eq!(many.versions().len(), HISTORY_VERSIONS_MAX + 1);

        let heavy = hub(10, HISTORY_BYTES_MAX / 4);
        assert!(resumes(&heavy, 1, 6));
        assert!(!resumes(&heavy, 1, 5));
        let huge = hub(3, HISTORY_BYTES_MAX + 1);
        assert!(resumes(&huge, 1, 3) && !resumes(&huge, 1, 2));
        assert_eq!(huge.versions().len(), 1);
    }

    #[test]
    fn versions_of_another_life_or_of_the_future_are_reset() {
        let hub = hub(5, 1);
        assert!(!resumes(&hub, 2, 3));
        assert!(!resumes(&hub, 1, 6));
        assert!(resumes(&hub, 1, 3));
    }

    /// A subscriber that polls while versions are published is never reset: its
    /// version is to be found at every moment.
    #[test]
    fn no_moment_between_current_and_history() {
        let hub = hub(1, 1);
        let mut subscriber = hub.subscribe();
        subscriber.poll();
        let publisher = std::thread::spawn({
            let hub = hub.clone();
            move || {
                for seq in 2..800 {
                    hub.publish(Arc::new(Snapshot::empty(Version { epoch: 1, seq })), 1);
                }
            }
        });
        let mut seen = 1;
        while seen < 799 {
            match subscriber.poll() {
                Some(Update::Diff(diff, _)) => {
                    assert_eq!(diff.from.seq, seen);
                    seen = diff.to.seq;
                }
                Some(Update::Reset(_)) => panic!("reset at {seen}"),
                None => std::hint::spin_loop(),
            }
        }
        publisher.join().unwrap();
    }
}
