//! Power failures at any moment: during commits, during start, during the
//! repair after the failure before. What must hold when the power is back:
//!
//! - the store is exactly what it was at one revision, bytes and all;
//! - that revision is not before any that was acknowledged.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{future::join_all, poll};
use portolan_apiserver::store::{
    Backend, Expect, Key, OpenError, Options, Record, Store, Write, WriteError,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::unconstrained;

use super::{
    disk::{Contents, Disk},
    key,
};

/// Seeds tried in one run of the test; more with `PORTOLAN_POWER_SEEDS`.
const SEEDS: u64 = 200;

/// Power failures that one disk goes through.
const FAILURES: u64 = 4;

/// What encoders did: for each revision the key, and the bytes unless it was a removal.
type Log = BTreeMap<u64, (Key, Option<Bytes>)>;

/// Names of a small store, in which every write meets others.
const NAMES: u32 = 8;

pub(super) struct History {
    log: Arc<Mutex<Log>>,
    /// Objects are called by so many names in each of two namespaces of two resources.
    names: u32,
    pub(super) acknowledged: u64,
    /// Failures that caught a commit after it reached the disk, but before its answer.
    pub(super) unacknowledged: u64,
    /// Failures that took an unfinished commit away.
    pub(super) lost: u64,
}

impl History {
    pub(super) fn new(names: u32) -> History {
        History { log: Arc::default(), names, acknowledged: 1, unacknowledged: 0, lost: 0 }
    }

    /// The objects as they were at a revision.
    fn at(&self, revision: u64) -> BTreeMap<Key, (u64, Bytes)> {
        let mut objects = BTreeMap::new();
        for (revision, (key, bytes)) in self.log.lock().unwrap().range(..=revision) {
            match bytes {
                Some(bytes) => objects.insert(key.clone(), (*revision, bytes.clone())),
                None => objects.remove(key),
            };
        }
        objects
    }

    /// Makes one write to an object, which expects what is there, and says in
    /// the log what it encoded.
    fn write(&self, store: &Store, dice: &mut StdRng) -> Write {
        let (namespace, name) = (dice.random_range(0..2), dice.random_range(0..self.names));
        let resource = if dice.random() { "pods" } else { "apps/deployments" };
        let key = key(resource, &format!("ns{namespace}"), &format!("name{name}"));
        let current = store.get(&key).map(|record: Arc<Record>| record.revision);
        let remove = current.is_some() && dice.random_ratio(1, 4);
        // From less than a page to more than redb's largest leaf.
        let size = [10, 500, 3000, 20_000][dice.random_range(0..4)];
        let text = vec![b'a' + dice.random_range(0..26u8); size];
        let (log, about) = (self.log.clone(), key.clone());
        let encode = move |revision: u64| {
            let bytes: Bytes = [format!("{revision} ").as_bytes(), &text].concat().into();
            log.lock().unwrap().insert(revision, (about, (!remove).then(|| bytes.clone())));
            bytes
        };
        match current {
            None => Write::put(key, Expect::Absent, encode),
            Some(revision) if remove => Write::delete(key, revision, encode),
            Some(revision) => Write::put(key, Expect::Revision(revision), encode),
        }
    }

    /// Some writes at once; how many were acknowledged, or `None` when the power failed.
    pub(super) async fn write_together(
        &mut self,
        store: &Store,
        together: u64,
        dice: &mut StdRng,
    ) -> Option<u64> {
        let writes: Vec<_> = (0..together).map(|_| self.write(store, dice)).collect();
        let (mut acknowledged, mut power) = (0, true);
        for answer in join_all(writes.into_iter().map(|write| store.write(write))).await {
            match answer {
                Ok(record) => {
                    acknowledged += 1;
                    self.acknowledged = self.acknowledged.max(record.revision);
                }
                Err(WriteError::Conflict { .. }) => {}
                Err(WriteError::Io(_)) => power = false,
                Err(other) => panic!("{other}"),
            }
        }
        power.then_some(acknowledged)
    }

    /// Writes until the power fails, or for a while.
    async fn live(&mut self, store: &Store, dice: &mut StdRng) {
        for _ in 0..20 {
            let together = dice.random_range(1..10);
            if self.write_together(store, together, dice).await.is_none() {
                return;
            }
        }
    }

    /// `Err` says what is wrong with a store that was opened after a failure.
    pub(super) fn check(&mut self, store: &Store) -> Result<(), String> {
        let revision = store.revision();
        if revision < self.acknowledged {
            return Err(format!("at revision {revision}, {} was acknowledged", self.acknowledged));
        }
        let mut found = BTreeMap::new();
        for resource in store.resources() {
            for record in store.list(&resource, None, None, None, None).unwrap().items {
                found.insert(record.key.clone(), (record.revision, record.bytes.clone()));
            }
        }
        if found != self.at(revision) {
            let keys: Vec<_> = found.keys().map(Key::to_string).collect();
            return Err(format!("not what it was at revision {revision}: {keys:?}"));
        }
        // What came after was lost before anybody was told; its revisions are given again.
        let lost = self.log.lock().unwrap().split_off(&(revision + 1));
        self.lost += u64::from(!lost.is_empty());
        self.unacknowledged += u64::from(revision > self.acknowledged);
        self.acknowledged = revision;
        Ok(())
    }
}

pub(super) fn open(disk: &Disk, fsync: bool) -> Result<Store, OpenError> {
    let options = Options { fsync, ..Options::default() };
    let (objects, journal) = (Box::new(disk.clone()), Box::new(disk.journal()));
    Store::open(Backend::Storage { objects, journal }, options)
}

/// An empty store that was closed. (A file gets its name only when it is that.)
pub(super) async fn empty() -> Contents {
    let disk = Disk::new(Contents::default());
    open(&disk, true).unwrap().close().await;
    disk.pull_the_plug(&mut StdRng::seed_from_u64(0))
}

/// Lives through some power failures.
async fn go_through(empty: &Contents, seed: u64, fsync: bool) -> Result<History, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut history = History::new(NAMES);
    let mut contents = empty.clone();
    for failure in 0..FAILURES {
        let disk = Disk::new(contents);
        // A start alone takes some ten operations, a commit about as many.
        let operations = if dice.random_ratio(1, 4) { 20 } else { 400 };
        disk.fail_after(dice.random_range(0..operations));
        match open(&disk, fsync) {
            Ok(store) => {
                history.check(&store).map_err(|wrong| format!("failure {failure}: {wrong}"))?;
                history.live(&store, &mut dice).await;
                contents = disk.pull_the_plug(&mut dice);
                store.close().await;
            }
            Err(OpenError::Io { .. }) => contents = disk.pull_the_plug(&mut dice),
            Err(other) => return Err(format!("failure {failure}: {other}")),
        }
    }
    let store = open(&Disk::new(contents), fsync).map_err(|error| error.to_string())?;
    history.check(&store)?;
    store.close().await;
    Ok(history)
}

fn seeds() -> u64 {
    std::env::var("PORTOLAN_POWER_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap())
}

#[tokio::test]
async fn no_acknowledged_write_is_lost() {
    let empty = empty().await;
    let (mut unacknowledged, mut lost) = (0, 0);
    for seed in 0..seeds() {
        match go_through(&empty, seed, true).await {
            Ok(history) => {
                unacknowledged += history.unacknowledged;
                lost += history.lost;
            }
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    // The dice fell on both sides, or the failures came at no interesting time.
    assert!(unacknowledged > 10 && lost > 10, "{unacknowledged} kept, {lost} lost");
}

/// The control: without syncs the same failures do harm, or the test above
/// proves nothing.
#[tokio::test]
async fn without_fsync_writes_are_lost() {
    let empty = empty().await;
    let mut harmed = 0;
    for seed in 0..20 {
        harmed += u64::from(go_through(&empty, seed, false).await.is_err());
    }
    assert!(harmed > 10, "{harmed} of 20");
}

/// After a failed commit nothing is taken any more, nothing of it shows, and
/// what was there can still be read.
#[tokio::test]
async fn a_failed_disk_makes_the_store_read_only() {
    let disk = Disk::new(Contents::default());
    let store = open(&disk, true).unwrap();
    let (pod, other) = (key("pods", "default", "a"), key("pods", "default", "b"));
    let write = |key: &Key| Write::put(key.clone(), Expect::Absent, |_| "x".into());
    store.write(write(&pod)).await.unwrap();
    let mut watcher = store.watch("pods", 2).unwrap();
    disk.fail_after(1);
    for _ in 0..2 {
        let failed = store.write(write(&other)).await;
        assert!(matches!(failed, Err(WriteError::Io(_))), "{failed:?}");
    }
    assert_eq!((store.revision(), store.count("pods")), (2, 1));
    assert!(store.get(&pod).is_some() && store.get(&other).is_none());
    store.close().await;
    assert!(watcher.next().await.is_none(), "no event of what did not happen");
}

/// A write alone is synced before its answer; writes that wait together share a sync.
#[tokio::test]
async fn a_batch_is_synced_once() {
    let disk = Disk::new(Contents::default());
    let store = open(&disk, true).unwrap();
    let write = |number: u64| {
        let key = key("pods", "default", &format!("{number}"));
        store.write(Write::put(key, Expect::Absent, |_| "x".into()))
    };
    for number in 0..10 {
        let before = disk.syncs();
        write(number).await.unwrap();
        assert!(disk.syncs() > before, "write {number} was acknowledged without a sync");
    }
    let before = disk.syncs();
    // While the disk is busy with the first, the others gather: one look at them puts all into
    // the queue, as the runtime is not asked whether it is somebody else's turn.
    let busy = disk.hold();
    let mut answers = pin!(unconstrained(join_all((10..510).map(write))));
    assert!(poll!(&mut answers).is_pending());
    drop(busy);
    for answer in answers.await {
        answer.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!((1..=10).contains(&syncs), "{syncs} syncs for 500 writes at once");
    store.close().await;
}

/// A start that finds a file of free space gives it back, and the power may fail at that.
#[tokio::test]
async fn compaction_loses_nothing() {
    let disk = Disk::new(Contents::default());
    let store = open(&disk, true).unwrap();
    let large = |number: u64| key("secrets", "default", &format!("{number}"));
    for number in 0..20 {
        let write = Write::put(large(number), Expect::Absent, |_| vec![b'x'; 1 << 20].into());
        store.write(write).await.unwrap();
    }
    let kept = key("pods", "default", "kept");
    store.write(Write::put(kept.clone(), Expect::Absent, |_| "kept".into())).await.unwrap();
    for number in 0..20 {
        let revision = store.get(&large(number)).unwrap().revision;
        store.write(Write::delete(large(number), revision, |_| "".into())).await.unwrap();
    }
    let revision = store.revision();
    // Killed: an orderly end gives some back by itself.
    let grown = disk.pull_the_plug(&mut StdRng::seed_from_u64(1));
    assert!(grown[0].len() > 16 << 20, "{} bytes", grown[0].len());
    store.close().await;

    for seed in 0..15 {
        let mut dice = StdRng::seed_from_u64(seed);
        let disk = Disk::new(grown.clone());
        disk.fail_after(dice.random_range(0..120));
        if let Ok(store) = open(&disk, true) {
            store.close().await;
        }
        let disk = Disk::new(disk.pull_the_plug(&mut dice));
        let store = open(&disk, true).unwrap();
        assert_eq!((store.revision(), store.resources()), (revision, vec!["pods".into()]));
        assert_eq!(store.get(&kept).unwrap().bytes, "kept");
        store.close().await;
        // A compaction that was cut off half way may have done enough.
        let bytes = disk.pull_the_plug(&mut dice)[0].len();
        assert!(bytes <= 16 << 20, "seed {seed}: {bytes} bytes for one object");
    }
}
