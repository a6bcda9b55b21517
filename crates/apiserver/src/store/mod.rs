//! One ordered log of object revisions: what etcd is to the real API server.
//!
//! Data flows one way. A request handler asks for a [`Write`] with the revision
//! it expects to replace; the single writer thread checks the expectation,
//! assigns the next revision, encodes the object once, makes the batch durable
//! (one entry of a journal and one fsync for all writes that waited), and only
//! then publishes: every reader sees it, then the waiting caller hears of it, and
//! watchers are woken. Lists
//! and watchers share the encoded bytes of a [`Record`]; nothing here parses
//! JSON.
//!
//! ```text
//! write() ─▶ queue ─▶ writer thread ─▶ disk ─▶ state (index + history) ─▶ reply
//!            bounded   expectation     journal   │            │
//!                      revision, bytes  fsync    ▼            ▼
//!                                             get, list    Watcher
//! ```
//!
//! The history is a window over the newest events, held once for all watchers:
//! a watcher is a position in it, not a queue, so that a slow reader costs
//! nothing and finds out by itself ([`Compacted`]) that it was too slow. Lists
//! at an older revision are the present index with the window's later events
//! taken back. The window does not outlive the process.

mod disk;
mod gate;
mod journal;
mod lock;
mod state;
mod watcher;
mod writer;

use std::{
    cmp::Ordering,
    fmt, io,
    path::PathBuf,
    sync::{Arc, atomic},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use self::watcher::Watcher;
use self::{
    disk::Disk,
    state::{Shared, State},
    writer::{Command, Writer},
};

/// Events that the history keeps. Long enough for a client that was away for a
/// while: at 300 writes/s this is the five minutes after which the real API
/// server has etcd compacted (`--etcd-compaction-interval`).
pub const HISTORY_EVENTS_DEFAULT: usize = 100_000;

/// Bytes of objects that the history may keep alive. Twice what 10,000 Pods of
/// 3 KiB take, so that a full rollout of them stays within the window.
pub const HISTORY_BYTES_DEFAULT: usize = 64 << 20;

/// Largest object: etcd's `--max-request-bytes`, to which the real API server
/// holds every object too.
pub const OBJECT_BYTES_MAX: usize = 3 << 19;

/// Writes that wait for the writer thread before callers wait to be let in.
/// Several batches' worth, so that the writer never idles under load.
pub const QUEUE_WRITES_MAX: usize = 1024;

/// Names one stored object. Keys sort by resource, namespace, name: the order
/// of lists and of `continue` tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// `group/resource`, or the bare resource for the core group: `pods`, `apps/deployments`.
    pub resource: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.resource, &self.namespace, &self.name).cmp(&(
            &other.resource,
            &other.namespace,
            &other.name,
        ))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.resource, self.namespace, self.name)
    }
}

/// One revision of one object, in the bytes that clients receive.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which object.
    pub key: Key,
    /// The revision that wrote it; equals `metadata.resourceVersion` inside `bytes`.
    pub revision: u64,
    /// The object as JSON.
    pub bytes: Bytes,
}

/// What must hold for a [`Write`] to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The object does not exist.
    Absent,
    /// The object exists and this revision wrote it.
    Revision(u64),
}

/// Turns the assigned revision into the object's bytes.
pub type Encoder = Box<dyn FnOnce(u64) -> Bytes + Send>;

/// What a [`Write`] does. The encoder is called once, on the writer thread, and
/// only if the expectation holds; it should do no more than fill in the
/// revision, because every other write waits for it.
pub enum Encode {
    /// Store these bytes.
    Put(Encoder),
    /// Remove the object. The bytes go out with the event: the object as it was
    /// last, with the revision of its removal.
    Delete(Encoder),
}

impl fmt::Debug for Encode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encode::Put(_) => "Put",
            Encode::Delete(_) => "Delete",
        })
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Write {
    /// Which object.
    pub key: Key,
    /// What the caller believes to be stored.
    pub expect: Expect,
    /// What to store instead.
    pub encode: Encode,
}

impl Write {
    /// Creates or replaces an object.
    pub fn put(
        key: Key,
        expect: Expect,
        encode: impl FnOnce(u64) -> Bytes + Send + 'static,
    ) -> Write {
        Write { key, expect, encode: Encode::Put(Box::new(encode)) }
    }

    /// Removes the object that `revision` wrote.
    pub fn delete(
        key: Key,
        revision: u64,
        encode: impl FnOnce(u64) -> Bytes + Send + 'static,
    ) -> Write {
        let expect = Expect::Revision(revision);
        Write { key, expect, encode: Encode::Delete(Box::new(encode)) }
    }
}

/// Why a [`Write`] was not carried out. After each of these nothing of it is visible.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The expectation did not hold.
    #[error("the object is not what the write expected ({})", match current {
        Some(record) => format!("it is at revision {}", record.revision),
        None => "it does not exist".to_owned(),
    })]
    Conflict {
        /// What is stored.
        current: Option<Arc<Record>>,
    },
    /// The encoded object exceeds [`OBJECT_BYTES_MAX`].
    #[error("the object has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A part of the key holds a NUL, which separates the parts on the disk.
    #[error("the name {0:?} holds a NUL character")]
    BadKey(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The disk failed. Whether the write is on it is unknown, so that the store
    /// takes no further writes until it is opened again; reads go on. (Also
    /// the answer to an encoder that panics; that concerns no other write.)
    #[error("cannot write to the store: {0}")]
    Io(#[source] Arc<io::Error>),
}

/// The revision asked for is outside the history: before `oldest` (the caller
/// lists again), or after `current` (it comes from another store).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} is outside the history of revisions {oldest} to {current}")]
pub struct Compacted {
    /// The revision asked for, or the one that a watcher had reached.
    pub requested: u64,
    /// The oldest revision that can be asked for.
    pub oldest: u64,
    /// The newest revision.
    pub current: u64,
}

/// Why a store cannot be opened. Whatever is on the disk was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by {}", path.display(), match holder {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    })]
    Locked {
        /// The data file.
        path: PathBuf,
        /// The process that has it, when its lock file says so.
        holder: Option<u32>,
    },
    /// Written by a later release.
    #[error(
        "{} has format {found}, and this release reads up to format {supported}; \
         use the release that wrote it, or another data directory", path.display()
    )]
    Newer {
        /// The data file.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The newest format known here.
        supported: String,
    },
    /// Torn, overwritten, or no store at all.
    #[error(
        "{} is not a whole store: {reason}; restore it from a copy, or move it away to start empty",
        path.display()
    )]
    Damaged {
        /// The data file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system said no.
    #[error("cannot open {}: {source}", path.display())]
    Io {
        /// The data file, its folder or its lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Limits and durability.
#[derive(Clone, Debug)]
pub struct Options {
    /// Events in the history window; the newest is always kept.
    pub history_events: usize,
    /// Bytes of objects, old and new, that the window may hold.
    pub history_bytes: usize,
    /// Whether a write waits for the disk. Without, a killed process loses
    /// nothing, but a power failure may leave a file that is refused.
    pub fsync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history_events: HISTORY_EVENTS_DEFAULT,
            history_bytes: HISTORY_BYTES_DEFAULT,
            fsync: true,
        }
    }
}

/// Where the objects are kept.
#[derive(Debug)]
pub enum Backend {
    /// Nowhere: they go with the process.
    Memory,
    /// In this file. Its folder is made when missing; `<file>.lock` beside it
    /// keeps a second process out.
    File(PathBuf),
    /// On any other storage; tests pull the plug on it.
    Storage {
        /// The objects.
        objects: Box<dyn redb::StorageBackend>,
        /// What came after them.
        journal: Box<dyn redb::StorageBackend>,
    },
}

/// What an [`Event`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The object did not exist before.
    Added,
    /// It did.
    Modified,
    /// It does not any more.
    Deleted,
}

/// One change, as watchers see it.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; for a removal, its final bytes.
    pub record: Arc<Record>,
    /// The object before it, so that a selector can tell who enters and who leaves.
    pub previous: Option<Arc<Record>>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Listing {
    /// The revision at which the list was exactly this.
    pub revision: u64,
    /// In the order of their keys.
    pub items: Vec<Arc<Record>>,
    /// How many more follow the last item.
    pub remaining: usize,
}

/// A handle on the store; clones are cheap and show the same store. When the
/// last one is gone the store closes by itself, soon; [`Store::close`] waits for it.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    writes: mpsc::Sender<Command>,
}

impl Store {
    /// Opens a store, or makes a new one where there is none. It starts one thread,
    /// and needs no async runtime.
    pub fn open(backend: Backend, options: Options) -> Result<Store, OpenError> {
        let (path, found) = match backend {
            Backend::Memory => (PathBuf::from("(memory)"), None),
            Backend::File(path) => {
                let found = Disk::open_file(&path, options.fsync)?;
                (path, Some(found))
            }
            Backend::Storage { objects, journal } => {
                let name = PathBuf::from("(storage)");
                let journal = journal::Place::Storage(journal);
                let found = Disk::open_storage(objects, journal, options.fsync, &name)?;
                (name, Some(found))
            }
        };
        let revision = found.as_ref().map_or(state::FIRST_REVISION, |found| found.revision);
        let mut state = State::new(revision, options.history_events, options.history_bytes);
        let disk = found.map(|found| {
            found.records.into_iter().for_each(|record| state.load(record));
            found.disk
        });
        let shared = Arc::new(Shared::new(state));
        let (writes, queue) = mpsc::channel(QUEUE_WRITES_MAX);
        Writer::new(shared.clone(), queue, disk)
            .spawn()
            .map_err(|source| OpenError::Io { path, source })?;
        Ok(Store { shared, writes })
    }

    /// The object as it is now.
    pub fn get(&self, key: &Key) -> Option<Arc<Record>> {
        self.shared.read().get(key)
    }

    /// One page of a resource's objects in the order of their keys, starting
    /// behind `after` (of which only namespace and name count).
    ///
    /// `at` asks for the list as it was at that revision: `None` is now.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&Key>,
        limit: Option<usize>,
        at: Option<u64>,
    ) -> Result<Listing, Compacted> {
        self.shared.read().list(resource, namespace, after, limit, at)
    }

    /// Carries out one write, and returns what it stored (for a removal, the
    /// final bytes) once that is durable and every reader sees it.
    ///
    /// A write that was let into the queue is carried out even if nobody waits
    /// for it any more.
    pub async fn write(&self, write: Write) -> Result<Arc<Record>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Write { write, reply };
        self.writes.send(command).await.map_err(|_| WriteError::Closed)?;
        answer.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Every event of a resource after revision `since`, in order.
    pub fn watch(&self, resource: &str, since: u64) -> Result<Watcher, Compacted> {
        Watcher::new(self.shared.clone(), resource, since)
    }

    /// The newest revision that readers can see.
    pub fn revision(&self) -> u64 {
        self.shared.read().revision()
    }

    /// The resources of which there are objects, sorted.
    pub fn resources(&self) -> Vec<Arc<str>> {
        self.shared.read().resources()
    }

    /// How many objects a resource has.
    pub fn count(&self, resource: &str) -> usize {
        self.shared.read().count(resource)
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.shared.watchers.load(atomic::Ordering::Relaxed)
    }

    /// What the history window holds.
    pub fn history(&self) -> History {
        self.shared.read().history()
    }

    /// Carries out the writes that were queued before, then closes the file and
    /// gives up its lock. Later writes get [`WriteError::Closed`], watchers end,
    /// reads go on.
    pub async fn close(&self) {
        let mut closed = self.shared.closed.subscribe();
        // An error means that the writer has left already, or is about to.
        if self.writes.send(Command::Close).await.is_err() {
            tracing::trace!("the store was closed before");
        }
        if closed.wait_for(|closed| *closed).await.is_err() {
            tracing::trace!("the store's state is gone");
        }
    }
}

/// How full the history window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Events held.
    pub events: usize,
    /// Bytes of the objects in them.
    pub bytes: usize,
}
