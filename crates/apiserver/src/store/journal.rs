//! What was written since the file was: batches, one behind the other.
//!
//! A commit of the database touches pages all over the file, which costs a disk several times
//! what the same bytes cost in one piece. So a batch is made durable here, and the database gets
//! what came together when the journal is full, and at the end.
//!
//! ```text
//! entry = id of the journal, first and last revision, length and checksum of the body, checksum
//!         of this (6 x u64 LE), then the body; begins at a multiple of 4 KiB
//! body  = for each object: length of its row's key (u32), the key; length of the row (u32), the
//!         row as the database has it; a row without length is a removal
//! ```
//!
//! The journal is not emptied: it is written from the start again, and whatever has not the id
//! that the database knows, or does not follow its revision without a gap, is old. Entries never share a sector, so that writing
//! one cannot tear another. The last entry may be torn, which means that nobody was told of it;
//! one that is broken before others is damage.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use redb::{StorageBackend, backends::FileBackend};

use super::disk::checksum;

/// When the journal is as long as this, the database gets it all: some 500 writes of small
/// objects. More would make that pause longer, and less would make it more frequent.
pub(super) const JOURNAL_BYTES: u64 = 2 << 20;

/// No sector of a disk is larger, nor a page of the system's cache.
const ALIGN_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 48;

/// Where the journal of a store is.
pub(super) enum Place {
    /// In a file beside the store's, which is made when it is needed.
    Beside(PathBuf),
    /// On storage of a test.
    Storage(Box<dyn StorageBackend>),
}

impl Place {
    /// Beside a store's file.
    pub(super) fn beside(data: &Path) -> Place {
        let mut name = data.as_os_str().to_owned();
        name.push(".journal");
        Place::Beside(PathBuf::from(name))
    }

    /// The journal, if there is one.
    pub(super) fn find(self) -> io::Result<Found> {
        let path = match self {
            Place::Storage(storage) => return Ok(Found::There(Journal::of(storage))),
            Place::Beside(path) => path,
        };
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Found::There(Journal::of(Box::new(backend(file)?)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Missing(path)),
            Err(error) => Err(error),
        }
    }
}

/// What there is of a journal.
pub(super) enum Found {
    There(Journal),
    /// To be made under this name.
    Missing(PathBuf),
}

impl Found {
    pub(super) fn or_make(self) -> io::Result<Journal> {
        let path = match self {
            Found::There(journal) => return Ok(journal),
            Found::Missing(path) => path,
        };
        // Secrets are in it: nobody else's to read.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path)?;
        // Whole from the start: a sync that need not tell of a new length costs half.
        file.write_all(&vec![0; JOURNAL_BYTES as usize])?;
        file.sync_all()?;
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            File::open(folder)?.sync_all()?;
        }
        Ok(Journal::of(Box::new(backend(file)?)))
    }
}

fn backend(file: File) -> io::Result<FileBackend> {
    FileBackend::new(file).map_err(io::Error::other)
}

/// Removes the journal of a store that is made anew.
pub(super) fn remove_beside(data: &Path) -> io::Result<()> {
    let Place::Beside(path) = Place::beside(data) else { return Ok(()) };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An object in an entry: its row's key, and the row unless it was removed.
pub(super) type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// A batch on its way into the journal.
pub(super) struct Draft {
    bytes: Vec<u8>,
}

impl Draft {
    pub(super) fn new() -> Draft {
        Draft { bytes: vec![0; HEADER_BYTES] }
    }

    /// Adds an object; the row comes in parts.
    pub(super) fn put(&mut self, key: &[u8], row: &[&[u8]]) {
        let length = |parts: usize| u32::try_from(parts).unwrap_or(u32::MAX).to_le_bytes();
        self.bytes.extend(length(key.len()));
        self.bytes.extend(key);
        self.bytes.extend(length(row.iter().map(|part| part.len()).sum()));
        row.iter().for_each(|part| self.bytes.extend(*part));
    }

    fn finish(mut self, id: u64, first: u64, last: u64) -> Vec<u8> {
        let (header, body) = self.bytes.split_at_mut(HEADER_BYTES);
        let sum = checksum(b"journal", first, body);
        for (place, number) in
            header.chunks_exact_mut(8).zip([id, first, last, body.len() as u64, sum])
        {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(b"journal", 0, &header[..HEADER_BYTES - 8]);
        header[HEADER_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
        self.bytes
    }
}

/// A batch from the journal.
pub(super) struct Entry {
    pub(super) first: u64,
    pub(super) last: u64,
    body: Vec<u8>,
}

impl Entry {
    /// Its objects; `None` stands for what makes no sense, behind a checksum that does.
    pub(super) fn changes(&self) -> impl Iterator<Item = Option<Change<'_>>> {
        let mut rest = &self.body[..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let change = (|| Some((part(&mut rest)?, part(&mut rest)?)))();
            if change.is_none() {
                rest = &[];
            }
            Some(change.map(|(key, row)| (key, (!row.is_empty()).then_some(row))))
        })
    }
}

/// Text behind its length.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(part)
}

/// An open journal.
pub(super) struct Journal {
    storage: Box<dyn StorageBackend>,
    /// Where the next entry goes.
    at: u64,
}

impl Journal {
    fn of(storage: Box<dyn StorageBackend>) -> Journal {
        Journal { storage, at: 0 }
    }

    /// The entries of an id that follow a revision. `Ok(Err)` says what is damaged.
    pub(super) fn entries(&self, id: u64, revision: u64) -> io::Result<Result<Vec<Entry>, String>> {
        let mut entries: Vec<Entry> = Vec::new();
        let (mut at, mut next) = (0, revision + 1);
        while let Some(entry) = self.entry(id, at)?.filter(|entry| entry.first == next) {
            next = entry.last + 1;
            at += aligned(HEADER_BYTES + entry.body.len());
            entries.push(entry);
        }
        // Old ones are not newer than the database.
        let len = self.storage.len()?;
        let mut rest = at;
        while rest < len {
            if let Some(later) = self.entry(id, rest)?.filter(|entry| entry.first >= next) {
                return Ok(Err(format!(
                    "its journal goes from revision {} on to {}",
                    next - 1,
                    later.first
                )));
            }
            rest += ALIGN_BYTES;
        }
        Ok(Ok(entries))
    }

    /// The entry at a place, if a whole one is there.
    fn entry(&self, id: u64, at: u64) -> io::Result<Option<Entry>> {
        let len = self.storage.len()?;
        if at + HEADER_BYTES as u64 > len {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.storage.read(at, &mut header)?;
        let mut numbers = [0; HEADER_BYTES / 8];
        for (number, bytes) in numbers.iter_mut().zip(header.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        let [found, first, last, length, sum, header_sum] = numbers;
        let begin = at + HEADER_BYTES as u64;
        if found != id
            || checksum(b"journal", 0, &header[..HEADER_BYTES - 8]) != header_sum
            || length > len.saturating_sub(begin)
            || last < first
        {
            return Ok(None);
        }
        let mut body = vec![0; length as usize];
        self.storage.read(begin, &mut body)?;
        let whole = checksum(b"journal", first, &body) == sum;
        Ok(whole.then_some(Entry { first, last, body }))
    }

    /// Appends a batch; `Ok(false)` if there is no room for it.
    pub(super) fn append(
        &mut self,
        draft: Draft,
        id: u64,
        (first, last): (u64, u64),
        fsync: bool,
    ) -> io::Result<bool> {
        let end = self.at + aligned(draft.bytes.len());
        if end > JOURNAL_BYTES {
            return Ok(false);
        }
        if self.storage.len()? < JOURNAL_BYTES {
            self.storage.set_len(JOURNAL_BYTES)?;
        }
        self.storage.write(self.at, &draft.finish(id, first, last))?;
        if fsync {
            self.storage.sync_data()?;
        }
        self.at = end;
        Ok(true)
    }

    /// The database has it all.
    pub(super) fn restart(&mut self) {
        self.at = 0;
    }
}

fn aligned(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(ALIGN_BYTES)
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    const ID: u64 = 77;

    fn journal() -> Journal {
        Journal::of(Box::new(InMemoryBackend::new()))
    }

    fn put(journal: &mut Journal, revisions: (u64, u64), changes: &[Change<'_>]) -> bool {
        let mut draft = Draft::new();
        for (key, row) in changes {
            draft.put(key, &[row.unwrap_or_default()]);
        }
        journal.append(draft, ID, revisions, true).unwrap()
    }

    fn revisions(journal: &Journal, from: u64) -> Result<Vec<(u64, u64)>, String> {
        let entries = journal.entries(ID, from).unwrap()?;
        Ok(entries.iter().map(|entry| (entry.first, entry.last)).collect())
    }

    #[test]
    fn what_follows_the_database_is_read_back() {
        let mut journal = journal();
        assert_eq!(revisions(&journal, 1), Ok(vec![]));
        let long = vec![7; 10_000];
        let changes: [Change<'_>; 3] =
            [(b"pods\0a\0b", Some(b"row")), (b"c", None), (b"d", Some(&long))];
        assert!(put(&mut journal, (2, 4), &changes));
        assert!(put(&mut journal, (5, 5), &[(b"e", Some(b"f"))]));
        assert_eq!(revisions(&journal, 1), Ok(vec![(2, 4), (5, 5)]));
        let entries = journal.entries(ID, 1).unwrap().unwrap();
        let read: Vec<_> = entries[0].changes().map(Option::unwrap).collect();
        assert_eq!(read, changes);
        // The database has the first already, or all, or lacks what came before.
        assert_eq!(revisions(&journal, 5), Ok(vec![]));
        assert!(revisions(&journal, 0).is_err());
        // Of another store, or of an earlier life of this one.
        assert!(journal.entries(ID + 1, 1).unwrap().unwrap().is_empty());
        // Written from the start again: the old entry behind it is old.
        journal.restart();
        assert!(put(&mut journal, (6, 6), &[(b"g", None)]));
        assert_eq!(revisions(&journal, 5), Ok(vec![(6, 6)]));
    }

    #[test]
    fn the_last_entry_may_be_torn_and_no_other() {
        for (place, expected) in [
            (0, Err("its journal goes from revision 1 on to 3".to_owned())),
            (60, Err("its journal goes from revision 1 on to 3".to_owned())),
            (4096, Err("its journal goes from revision 2 on to 4".to_owned())),
            (8192, Ok(vec![(2, 2), (3, 3)])),
            (8192 + 50, Ok(vec![(2, 2), (3, 3)])),
        ] {
            let mut journal = journal();
            for revision in 2..=4 {
                put(&mut journal, (revision, revision), &[(b"a", Some(&[9; 100]))]);
            }
            let mut byte = [0];
            journal.storage.read(place, &mut byte).unwrap();
            journal.storage.write(place, &[byte[0] ^ 1]).unwrap();
            assert_eq!(revisions(&journal, 1), expected, "{place}");
        }
    }

    #[test]
    fn a_full_journal_says_so() {
        let mut journal = journal();
        let row = vec![1; 1 << 20];
        assert!(put(&mut journal, (2, 2), &[(b"a", Some(&row))]));
        assert!(!put(&mut journal, (3, 3), &[(b"a", Some(&row))]));
        assert!(put(&mut journal, (3, 3), &[(b"a", Some(b"small"))]));
        assert_eq!(revisions(&journal, 1), Ok(vec![(2, 2), (3, 3)]));
    }
}
