//! The store on disk: a redb database with a row per object, and what came after its last commit
//! in the [`journal`](super::journal).
//!
//! | table     | key                              | value                                       |
//! |-----------|----------------------------------|---------------------------------------------|
//! | `objects` | resource `\0` namespace `\0` name | revision, checksum (both u64 LE), then bytes |
//! | `meta`    | `format`                         | [`FORMAT`]                                  |
//! |           | `revision`                       | the newest revision, also of a removal      |
//! |           | `rows`, `fingerprint`            | how many objects, and which (see [`Census`]) |
//! |           | `journal`                        | id of a journal that may hold more, else 0  |
//!
//! redb guards a commit against a crash, but does not look at every page again
//! after a clean shutdown. Everything is read at start anyway, so that the
//! checksums and the census are verified then: a file that rotted or was copied
//! half is refused, not served. Until that is done nothing is written ([`Gate`]).
//!
//! A new file is made under another name and renamed when it is whole: what
//! carries the store's name is never half made.

use std::{
    any::Any,
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    num::NonZeroU64,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    TableDefinition, TableError, backends::FileBackend,
};

use super::{
    Event, EventKind, Key, OpenError, Record,
    gate::Gate,
    journal::{self, Draft, Entry, Journal, Place},
    lock::Lock,
    state::FIRST_REVISION,
};

/// Version of the layout above. A release reads its own and older ones; before 2 there was no
/// journal.
const FORMAT: u64 = 2;
const FORMAT_WITH_JOURNAL: u64 = 2;

/// Version of redb's own file format, the first byte of each of the two commit
/// slots (redb `docs/design.md`, "Commit slot").
const REDB_FORMAT: u8 = 3;

/// redb's magic number and where it keeps its commit slots (same document).
const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
const REDB_SLOT_OFFSETS: [u64; 2] = [64, 192];

const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// redb's page cache. Objects are served from our own memory; only the pages
/// that commits walk through need to be kept (redb's default is 1 GiB).
const CACHE_BYTES: usize = 16 << 20;

/// A file is compacted at start when it is larger than this, and than so many times the
/// objects in it. redb uses free pages again but gives few of them back, so that a file stays
/// as large as it ever was; what is written again in the next busy hour is not worth the time.
const COMPACT_BYTES_MIN: u64 = 16 << 20;
const COMPACT_FACTOR: u64 = 4;

/// Bytes of a row before the object's.
const ROW_HEADER_BYTES: usize = 16;

/// An open file.
pub(super) struct Disk {
    database: Database,
    journal: Journal,
    fsync: bool,
    /// The id by which the database knows the journal. `None`: it does not count, and the next
    /// batch goes into the database.
    journal_id: Option<NonZeroU64>,
    /// What the database does not have yet: objects, and the newest revision.
    pending: BTreeMap<Key, Option<Arc<Record>>>,
    revision: u64,
    census: Census,
    /// Nobody knows what the disk holds.
    failed: bool,
    // After the database: the file is closed before another process may have it.
    _lock: Option<Lock>,
}

/// Which rows there are, as a sum over their revisions (each has its own): a
/// row lost, doubled or replaced by an older one changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Census {
    rows: u64,
    fingerprint: u64,
}

impl Census {
    fn add(&mut self, revision: u64) {
        self.rows = self.rows.wrapping_add(1);
        self.fingerprint = self.fingerprint.wrapping_add(scatter(revision));
    }

    fn remove(&mut self, revision: u64) {
        self.rows = self.rows.wrapping_sub(1);
        self.fingerprint = self.fingerprint.wrapping_sub(scatter(revision));
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014), so that sums of
/// neighbouring revisions do not collide.
fn scatter(revision: u64) -> u64 {
    let mut z = revision.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits (draft-eastlake-fnv). Any single changed byte changes it.
pub(super) fn checksum(key: &[u8], revision: u64, bytes: &[u8]) -> u64 {
    let mut sum = 0xCBF2_9CE4_8422_2325_u64;
    for part in [key, &revision.to_le_bytes(), bytes] {
        for byte in part {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    sum
}

/// Why a file was not accepted, before its path is known.
enum Refusal {
    Newer { found: String, supported: String },
    Damaged(String),
    Io(io::Error),
}

impl Refusal {
    fn of(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Refusal::Newer { found, supported } => OpenError::Newer { path, found, supported },
            Refusal::Damaged(reason) => OpenError::Damaged { path, reason },
            Refusal::Io(source) => OpenError::Io { path, source },
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // How redb and the gate report contents, not the device.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Refusal::Damaged(error.to_string())
            }
            _ => Refusal::Io(error),
        }
    }
}

impl From<redb::Error> for Refusal {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            other => Refusal::Damaged(other.to_string()),
        }
    }
}

macro_rules! refuse_as_redb_error {
    ($($error:ty),+) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })+
    };
}
refuse_as_redb_error!(
    DatabaseError,
    StorageError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError
);

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        match error {
            TableError::TableDoesNotExist(table) => {
                Refusal::Damaged(format!("it has no table {table:?}"))
            }
            other => redb::Error::from(other).into(),
        }
    }
}

/// What was found in a file.
pub(super) struct Found {
    pub(super) disk: Disk,
    pub(super) revision: u64,
    pub(super) records: Vec<Record>,
}

impl Disk {
    /// Opens a file, or makes it where there is none.
    pub(super) fn open_file(path: &Path, fsync: bool) -> Result<Found, OpenError> {
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder).map_err(refused(folder))?;
        let lock = Lock::take(path)?;
        // By the name itself: a link that leads nowhere is not a free name.
        match fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Left by a store of this name that somebody has removed.
                journal::remove_beside(path).map_err(refused(path))?;
                make(path, folder)?;
            }
            Err(error) => return Err(refused(path)(error)),
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(refused(path))?;
        if file.metadata().map_err(refused(path))?.len() == 0 {
            return Err(Refusal::Damaged("it is empty".to_owned()).of(path));
        }
        let storage = FileBackend::new(file).map_err(|error| Refusal::from(error).of(path))?;
        let journal = Place::beside(path);
        let mut found = Disk::open_storage(Box::new(storage), journal, fsync, path)?;
        found.disk._lock = Some(lock);
        Ok(found)
    }

    /// Opens any storage, and makes a store in it when it is empty. `name` is for errors.
    pub(super) fn open_storage(
        storage: Box<dyn StorageBackend>,
        journal: Place,
        fsync: bool,
        name: &Path,
    ) -> Result<Found, OpenError> {
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let gate = Gate::shut(storage, fsync)?;
            let empty = gate.len()? == 0;
            if !empty {
                check_redb_format(&gate)?;
            }
            let mut database = builder().create_with_backend(gate.clone())?;
            if empty {
                initialise(&database)?;
            }
            let mut records = Vec::new();
            let head = read_all(&database, &mut records)?;
            let journal = journal.find()?;
            let entries = match head.journal_id {
                Some(id) => entries(&journal, id, head.revision)?,
                None => Vec::new(),
            };
            let replayed = replay(&entries, &mut records, head)?;
            gate.open()?;
            compact_if_worthwhile(&mut database, gate.len()?, &records)?;
            let mut disk = Disk {
                database,
                journal: journal.or_make()?,
                fsync,
                journal_id: head.journal_id,
                pending: replayed.pending,
                revision: replayed.revision,
                census: replayed.census,
                failed: false,
                _lock: None,
            };
            if !disk.pending.is_empty() {
                disk.checkpoint(disk.journal_id).map_err(Refusal::from)?;
            }
            Ok(Found { revision: disk.revision, disk, records })
        }));
        // redb may panic over a page that makes no sense; for us that is a damaged file.
        opened
            .unwrap_or_else(|panic| Err(Refusal::Damaged(panic_text(&*panic))))
            .map_err(|refusal| refusal.of(name))
    }

    /// Makes a batch durable: `after` is what its objects are in the end, and
    /// `events` how they got there.
    pub(super) fn commit(
        &mut self,
        after: &BTreeMap<Key, Option<Arc<Record>>>,
        events: &[Arc<Event>],
    ) -> io::Result<()> {
        let committed = catch_unwind(AssertUnwindSafe(|| self.try_commit(after, events)));
        let outcome = match committed {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(redb::Error::Io(error))) => error,
            Ok(Err(error)) => io::Error::other(error),
            Err(panic) => io::Error::other(panic_text(&*panic)),
        };
        self.failed = true;
        Err(outcome)
    }

    fn try_commit(
        &mut self,
        after: &BTreeMap<Key, Option<Arc<Record>>>,
        events: &[Arc<Event>],
    ) -> Result<(), redb::Error> {
        for event in events {
            if let Some(previous) = &event.previous {
                self.census.remove(previous.revision);
            }
            if event.kind != EventKind::Deleted {
                self.census.add(event.record.revision);
            }
        }
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let revisions = (first.record.revision, last.record.revision);
        self.revision = revisions.1;
        self.pending.extend(after.iter().map(|(key, record)| (key.clone(), record.clone())));
        if let Some(id) = self.journal_id
            && self.journal.append(draft(after), id.get(), revisions, self.fsync)?
        {
            return Ok(());
        }
        self.checkpoint(self.journal_id.or_else(|| NonZeroU64::new(rand::random())))
    }

    /// Gives the database what it does not have. Then the journal begins anew.
    fn checkpoint(&mut self, journal_id: Option<NonZeroU64>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (key, record) in &self.pending {
                let key = row_key(key);
                match record {
                    Some(record) => put(&mut objects, &key, record)?,
                    None => drop(objects.remove(&*key)?),
                }
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("revision", self.revision)?;
            meta.insert("journal", journal_id.map_or(0, NonZeroU64::get))?;
            write_census(&mut meta, self.census)?;
        }
        transaction.commit()?;
        self.pending.clear();
        self.journal.restart();
        self.journal_id = journal_id;
        Ok(())
    }
}

impl Drop for Disk {
    /// A file that was closed is whole without its journal.
    fn drop(&mut self) {
        if self.failed || self.journal_id.is_none() {
            return;
        }
        let closed = catch_unwind(AssertUnwindSafe(|| self.checkpoint(None)));
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the store's last writes are in its journal only, until the next start");
        }
    }
}

/// The batch, as the journal has it.
fn draft(after: &BTreeMap<Key, Option<Arc<Record>>>) -> Draft {
    let mut draft = Draft::new();
    for (key, record) in after {
        let key = row_key(key);
        match record {
            Some(record) => draft.put(&key, &[&row_header(&key, record), &record.bytes]),
            None => draft.put(&key, &[]),
        }
    }
    draft
}

/// What follows a revision in the journal.
fn entries(journal: &journal::Found, id: NonZeroU64, revision: u64) -> Result<Vec<Entry>, Refusal> {
    match journal {
        journal::Found::There(journal) => {
            journal.entries(id.get(), revision)?.map_err(Refusal::Damaged)
        }
        journal::Found::Missing(path) => {
            Err(Refusal::Damaged(format!("its journal {} is missing", path.display())))
        }
    }
}

/// What the journal adds to the database.
struct Replayed {
    pending: BTreeMap<Key, Option<Arc<Record>>>,
    revision: u64,
    census: Census,
}

/// Brings the records up to the end of the journal.
fn replay(entries: &[Entry], records: &mut Vec<Record>, head: Head) -> Result<Replayed, Refusal> {
    let Head { mut revision, mut census, .. } = head;
    let mut pending = BTreeMap::new();
    if entries.is_empty() {
        return Ok(Replayed { pending, revision, census });
    }
    let mut objects: BTreeMap<Key, Record> =
        records.drain(..).map(|record| (record.key.clone(), record)).collect();
    for entry in entries {
        for change in entry.changes() {
            let damaged = || {
                Refusal::Damaged(format!("its journal makes no sense at revision {}", entry.first))
            };
            let (row_key, row) = change.ok_or_else(damaged)?;
            let record =
                row.map(|row| decode(row_key, row, None).ok_or_else(damaged)).transpose()?;
            let key = match &record {
                Some(record) => record.key.clone(),
                None => key_of(row_key, None).ok_or_else(damaged)?,
            };
            let before = match &record {
                Some(record) => objects.insert(key.clone(), record.clone()),
                None => objects.remove(&key),
            };
            if let Some(before) = before {
                census.remove(before.revision);
            }
            if let Some(record) = &record {
                census.add(record.revision);
            }
            pending.insert(key, record.map(Arc::new));
        }
        revision = entry.last;
    }
    records.extend(objects.into_values());
    Ok(Replayed { pending, revision, census })
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the database gave up: {}", text.unwrap_or("unknown panic"))
}

/// Makes an empty store under another name, and renames it.
fn make(path: &Path, folder: &Path) -> Result<(), OpenError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let made = || -> Result<(), Refusal> {
        // Left by a process that was killed at this; the lock is ours now.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        // Secrets are in it: nobody else's to read.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        initialise(&builder().create_with_backend(FileBackend::new(file)?)?)?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()?;
        Ok(())
    };
    made().map_err(|refusal| refusal.of(path))
}

/// Gives the file's free space back, when most of it is that. Nothing else has the database
/// open, so that nothing is in the way.
fn compact_if_worthwhile(
    database: &mut Database,
    file_bytes: u64,
    records: &[Record],
) -> Result<(), Refusal> {
    let live: u64 = records.iter().map(|record| record.bytes.len() as u64).sum();
    if file_bytes <= COMPACT_BYTES_MIN.max(live.saturating_mul(COMPACT_FACTOR)) {
        return Ok(());
    }
    tracing::info!(file_bytes, live, "compacting the store's file");
    database.compact().map_err(redb::Error::from)?;
    Ok(())
}

/// Writes an empty store to a new database.
fn initialise(database: &Database) -> Result<(), Refusal> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(OBJECTS)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("revision", FIRST_REVISION)?;
        meta.insert("journal", 0)?;
        write_census(&mut meta, Census::default())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Tells a newer redb's file from a torn one, which redb itself does not.
fn check_redb_format(storage: &Gate) -> Result<(), Refusal> {
    let mut magic = [0; REDB_MAGIC.len()];
    storage.read(0, &mut magic)?;
    if magic != REDB_MAGIC {
        return Err(Refusal::Damaged("it is another kind of file".to_owned()));
    }
    let mut formats = [[0]; 2];
    for (format, offset) in formats.iter_mut().zip(REDB_SLOT_OFFSETS) {
        storage.read(offset, format)?;
    }
    if formats[0] == formats[1] && formats[0][0] > REDB_FORMAT {
        return Err(Refusal::Newer {
            found: format!("redb {}", formats[0][0]),
            supported: format!("redb {REDB_FORMAT}"),
        });
    }
    Ok(())
}

/// What the database says of itself.
#[derive(Clone, Copy)]
struct Head {
    revision: u64,
    census: Census,
    /// There may be more in the journal of this id.
    journal_id: Option<NonZeroU64>,
}

/// Reads and verifies every row.
fn read_all(database: &Database, records: &mut Vec<Record>) -> Result<Head, Refusal> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name: &str| -> Result<u64, Refusal> {
        let missing = || Refusal::Damaged(format!("it does not say its {name}"));
        Ok(meta.get(name)?.ok_or_else(missing)?.value())
    };
    let format = number("format")?;
    if format > FORMAT {
        return Err(Refusal::Newer { found: format.to_string(), supported: FORMAT.to_string() });
    }
    let journal_id = match format >= FORMAT_WITH_JOURNAL {
        true => NonZeroU64::new(number("journal")?),
        false => None,
    };
    let revision = number("revision")?;
    let expected = Census { rows: number("rows")?, fingerprint: number("fingerprint")? };
    let mut census = Census::default();
    for row in transaction.open_table(OBJECTS)?.iter()? {
        let (key, value) = row?;
        let record = decode(key.value(), value.value(), records.last().map(|record| &record.key))
            .filter(|record| record.revision <= revision)
            .ok_or_else(|| {
                let key = String::from_utf8_lossy(key.value()).replace('\0', "/");
                Refusal::Damaged(format!("the row of {key} does not match its checksum"))
            })?;
        census.add(record.revision);
        records.push(record);
    }
    if census != expected {
        let (rows, expected) = (census.rows, expected.rows);
        return Err(Refusal::Damaged(format!(
            "it has {rows} rows, which are not the {expected} that were written"
        )));
    }
    Ok(Head { revision, census, journal_id })
}

fn write_census(meta: &mut redb::Table<'_, &str, u64>, census: Census) -> Result<(), StorageError> {
    meta.insert("rows", census.rows)?;
    meta.insert("fingerprint", census.fingerprint)?;
    Ok(())
}

/// `\0` sorts below everything that names hold, so that rows sort as keys do.
fn row_key(key: &Key) -> Vec<u8> {
    [key.resource.as_bytes(), key.namespace.as_bytes(), key.name.as_bytes()].join(&0)
}

fn row_header(key: &[u8], record: &Record) -> [u8; ROW_HEADER_BYTES] {
    let mut header = [0; ROW_HEADER_BYTES];
    header[..8].copy_from_slice(&record.revision.to_le_bytes());
    header[8..].copy_from_slice(&checksum(key, record.revision, &record.bytes).to_le_bytes());
    header
}

fn put(
    objects: &mut redb::Table<'_, &[u8], &[u8]>,
    key: &[u8],
    record: &Record,
) -> Result<(), StorageError> {
    let mut row = objects.insert_reserve(key, ROW_HEADER_BYTES + record.bytes.len())?;
    let row = row.as_mut();
    row[..ROW_HEADER_BYTES].copy_from_slice(&row_header(key, record));
    row[ROW_HEADER_BYTES..].copy_from_slice(&record.bytes);
    Ok(())
}

/// `None` when the row is not what was written. Strings that are those of the
/// row before are shared with it.
fn decode(key: &[u8], row: &[u8], before: Option<&Key>) -> Option<Record> {
    let (revision, rest) = row.split_first_chunk::<8>()?;
    let (sum, bytes) = rest.split_first_chunk::<8>()?;
    let revision = u64::from_le_bytes(*revision);
    if checksum(key, revision, bytes) != u64::from_le_bytes(*sum) {
        return None;
    }
    let key = key_of(key, before)?;
    Some(Record { key, revision, bytes: Bytes::copy_from_slice(bytes) })
}

/// The key of a row.
fn key_of(key: &[u8], before: Option<&Key>) -> Option<Key> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '\0');
    let (resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let shared = |text: &str, before: Option<&Arc<str>>| match before {
        Some(before) if **before == *text => before.clone(),
        _ => Arc::from(text),
    };
    Some(Key {
        resource: shared(resource, before.map(|key| &key.resource)),
        namespace: shared(namespace, before.map(|key| &key.namespace)),
        name: Arc::from(name),
    })
}
