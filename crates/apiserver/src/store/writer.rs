//! The one thread that changes the store.
//!
//! It takes what waits in the queue as one batch, decides each write against
//! the state with the batch's earlier writes applied, makes the batch durable,
//! publishes it, and only then answers, and wakes the watchers last: whoever wrote waits for
//! nobody else. While the disk works the next batch
//! gathers by itself; nothing is ever delayed to make a batch larger.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    Encode, Event, EventKind, Expect, Key, OBJECT_BYTES_MAX, Record, Write, WriteError, disk::Disk,
    state::Shared,
};

/// Writes in one batch. At a disk that syncs in 2 ms this is 128,000 writes/s,
/// far above what encoding allows; the bound keeps the answer to the first
/// write of a batch from waiting on too many others.
const BATCH_WRITES_MAX: usize = 256;

/// Bytes at which a batch is closed: what a modest disk writes in about 50 ms.
const BATCH_BYTES_MAX: usize = 4 << 20;

type Reply = oneshot::Sender<Result<Arc<Record>, WriteError>>;

#[derive(Debug)]
pub(super) enum Command {
    Write { write: Write, reply: Reply },
    Close,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Command>,
    /// `None` in memory, and once the store is closed.
    disk: Option<Disk>,
    /// The disk's first failure, after which nothing is written any more.
    failed: Option<Arc<io::Error>>,
}

/// A batch on its way.
#[derive(Default)]
struct Batch {
    /// What each object is after the batch.
    after: BTreeMap<Key, Option<Arc<Record>>>,
    events: Vec<Arc<Event>>,
    answers: Vec<(Reply, Result<Arc<Record>, WriteError>)>,
    bytes: usize,
    /// The store is to be closed behind this batch.
    last: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Command>,
        disk: Option<Disk>,
    ) -> Self {
        Writer { shared, queue, disk, failed: None }
    }

    pub(super) fn spawn(self) -> io::Result<()> {
        thread::Builder::new().name("store-writer".to_owned()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let batch = self.gather(first);
            let last = batch.last;
            self.finish(batch);
            if last {
                break;
            }
        }
    }

    /// Decides every write that waits.
    fn gather(&mut self, first: Command) -> Batch {
        let mut batch = Batch::default();
        let mut revision = self.shared.read().revision();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Close => {
                    batch.last = true;
                    break;
                }
                Command::Write { write, reply } => {
                    let decided = self.decide(&mut batch, revision + 1, write);
                    revision += u64::from(decided.is_ok());
                    batch.answers.push((reply, decided));
                }
            }
            let full = batch.answers.len() >= BATCH_WRITES_MAX || batch.bytes >= BATCH_BYTES_MAX;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        batch
    }

    /// Adds one write to the batch, under the revision given if its expectation holds.
    fn decide(
        &self,
        batch: &mut Batch,
        revision: u64,
        write: Write,
    ) -> Result<Arc<Record>, WriteError> {
        if let Some(error) = &self.failed {
            return Err(WriteError::Io(error.clone()));
        }
        let Write { mut key, expect, encode } = write;
        if [&key.resource, &key.namespace, &key.name].iter().any(|part| part.contains('\0')) {
            return Err(WriteError::BadKey(key.to_string()));
        }
        let current = match batch.after.get(&key) {
            Some(record) => record.clone(),
            None => self.shared.read().get(&key),
        };
        let kind = match (expect, &current, &encode) {
            (Expect::Absent, None, Encode::Put(_)) => EventKind::Added,
            (Expect::Revision(expected), Some(current), _) if current.revision == expected => {
                match encode {
                    Encode::Put(_) => EventKind::Modified,
                    Encode::Delete(_) => EventKind::Deleted,
                }
            }
            _ => return Err(WriteError::Conflict { current }),
        };
        let bytes = encoded(encode, revision)?;
        batch.bytes += bytes.len();
        // The strings of the stored key, so that each is in memory once.
        if let Some(current) = &current {
            key = current.key.clone();
        }
        let record = Arc::new(Record { key: key.clone(), revision, bytes });
        batch.after.insert(key, (kind != EventKind::Deleted).then(|| record.clone()));
        batch.events.push(Arc::new(Event { kind, record: record.clone(), previous: current }));
        Ok(record)
    }

    /// Makes a batch durable, visible and known, in this order.
    fn finish(&mut self, mut batch: Batch) {
        let mut published = None;
        if !batch.events.is_empty() {
            match self.commit(&batch) {
                Ok(()) => published = Some(self.shared.write().publish(batch.events)),
                Err(error) => batch.fail(&error),
            }
        }
        for (reply, answer) in batch.answers {
            // The caller may have gone; its write stands.
            drop(reply.send(answer));
        }
        if let Some(published) = published {
            published.wake();
        }
    }

    /// After a failed sync nobody knows what the disk holds, and a second sync
    /// would succeed without having written it. So the first failure is the end
    /// of writing; to open the store anew reads what there really is.
    fn commit(&mut self, batch: &Batch) -> Result<(), Arc<io::Error>> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        disk.commit(&batch.after, &batch.events).map_err(|error| {
            tracing::error!(%error, "cannot write to the store; it is read-only until a restart");
            let error = Arc::new(error);
            self.failed = Some(error.clone());
            error
        })
    }
}

impl Batch {
    /// None of the batch took place. Its conflicts saw writes that did not
    /// either, so that they fail as well.
    fn fail(&mut self, error: &Arc<io::Error>) {
        for (_, answer) in &mut self.answers {
            *answer = Err(WriteError::Io(error.clone()));
        }
    }
}

impl Drop for Writer {
    /// However the thread ends, nobody is left waiting for it.
    fn drop(&mut self) {
        self.queue.close();
        while self.queue.try_recv().is_ok() {}
        // Closes the file and gives up the lock, before anybody hears of it.
        self.disk = None;
        self.shared.closed.send_replace(true);
        self.shared.read().wake_all();
    }
}

fn encoded(encode: Encode, revision: u64) -> Result<Bytes, WriteError> {
    let (Encode::Put(encoder) | Encode::Delete(encoder)) = encode;
    // The encoder is the caller's; its panic must not stop everybody's writes.
    let bytes = catch_unwind(AssertUnwindSafe(|| encoder(revision)))
        .map_err(|_| WriteError::Io(Arc::new(io::Error::other("the encoder panicked"))))?;
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(WriteError::TooLarge { bytes: bytes.len(), limit: OBJECT_BYTES_MAX });
    }
    Ok(bytes)
}
