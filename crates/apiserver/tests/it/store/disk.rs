//! A disk whose plug can be pulled.
//!
//! Writes go to what a running system sees; only a sync makes them lasting.
//! When the power fails, of what was not synced each sector survives or not by
//! the throw of a seeded die, whatever the order in which it was written, and so
//! does a change of the file's length: lost, reordered and torn writes in one.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use redb::StorageBackend;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What the two files hold.
pub(super) type Contents = [Vec<u8>; 2];

/// Clones are handles on the same disk, and on the same file of it.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    inner: Arc<Mutex<Inner>>,
    file: usize,
}

#[derive(Debug, Default)]
struct File {
    /// What a running system reads.
    visible: Vec<u8>,
    /// What is surely there after a power failure.
    lasting: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
struct Inner {
    files: [File; 2],
    /// Writes and syncs until the power fails by itself.
    countdown: Option<u64>,
    off: bool,
    syncs: u64,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Disk {
    /// The store's file.
    pub(super) fn new(contents: Contents) -> Disk {
        let files = contents.map(|contents| File {
            visible: contents.clone(),
            lasting: contents,
            unsynced: Vec::new(),
        });
        let inner = Inner { files, countdown: None, off: false, syncs: 0 };
        Disk { inner: Arc::new(Mutex::new(inner)), file: 0 }
    }

    /// Its journal.
    pub(super) fn journal(&self) -> Disk {
        Disk { inner: self.inner.clone(), file: 1 }
    }

    /// How often what was written has been made lasting.
    pub(super) fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// It does nothing until what this gives is dropped: whoever asks waits.
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.inner()
    }

    /// The power fails after so many more writes and syncs, in the middle of one.
    pub(super) fn fail_after(&self, operations: u64) {
        self.inner().countdown = Some(operations);
    }

    /// Pulls the plug now, if it has not failed already; returns what is found
    /// on the disk when the power is back.
    pub(super) fn pull_the_plug(&self, dice: &mut StdRng) -> Contents {
        let mut inner = self.inner();
        inner.off = true;
        std::mem::take(&mut inner.files).map(|file| survivors(file.lasting, file.unsynced, dice))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

/// Applies some of the changes.
fn survivors(mut disk: Vec<u8>, changes: Vec<Change>, dice: &mut StdRng) -> Vec<u8> {
    // From "nothing had been written" to "all of it had, only the answer was lost".
    let chance = [0.0, 0.1, 0.5, 0.9, 1.0][dice.random_range(0..5)];
    let mut lengths = vec![disk.len()];
    let mut sectors = Vec::new();
    for change in changes {
        match change {
            Change::SetLen(len) => lengths.push(len),
            Change::Write(offset, data) => {
                let mut from = 0;
                while from < data.len() {
                    let into_sector = (offset + from) % SECTOR_BYTES;
                    let to = data.len().min(from + SECTOR_BYTES - into_sector);
                    sectors.push((offset + from, data[from..to].to_vec()));
                    from = to;
                }
            }
        }
    }
    disk.resize(lengths[dice.random_range(0..lengths.len())], 0);
    // Written in any order: of two writes to one sector either may be the last.
    sectors.shuffle(dice);
    for (offset, data) in sectors {
        if dice.random_bool(chance) && offset + data.len() <= disk.len() {
            disk[offset..offset + data.len()].copy_from_slice(&data);
        }
    }
    disk
}

impl Inner {
    /// Counts an operation; an error when the power fails before it is done.
    fn count(&mut self) -> io::Result<()> {
        if let Some(countdown) = &mut self.countdown {
            self.off |= *countdown == 0;
            *countdown = countdown.saturating_sub(1);
        }
        self.on()
    }

    fn on(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let inner = self.inner();
        inner.on()?;
        Ok(inner.files[self.file].visible.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        inner.on()?;
        let from = offset as usize;
        let found = inner.files[self.file].visible.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let done = inner.count();
        let file = &mut inner.files[self.file];
        file.visible.resize(len as usize, 0);
        file.unsynced.push(Change::SetLen(len as usize));
        done
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.count()?;
        inner.syncs += 1;
        let file = &mut inner.files[self.file];
        for change in std::mem::take(&mut file.unsynced) {
            match change {
                Change::SetLen(len) => file.lasting.resize(len, 0),
                Change::Write(offset, data) => {
                    let end = offset + data.len();
                    if file.lasting.len() < end {
                        file.lasting.resize(end, 0);
                    }
                    file.lasting[offset..end].copy_from_slice(&data);
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        // The write that the failure hits may still reach the disk, as any other.
        let was_on = inner.on();
        let done = inner.count();
        if was_on.is_ok() {
            let file = &mut inner.files[self.file];
            let (from, end) = (offset as usize, offset as usize + data.len());
            if file.visible.len() < end {
                file.visible.resize(end, 0);
            }
            file.visible[from..end].copy_from_slice(data);
            file.unsynced.push(Change::Write(from, data.to_vec()));
        }
        done
    }
}

#[test]
fn what_was_synced_lasts_and_the_rest_is_up_to_the_dice() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = Disk::new(Contents::default());
        disk.set_len(2048).unwrap();
        disk.write(0, &[1; 2048]).unwrap();
        disk.sync_data().unwrap();
        disk.write(512, &[2; 1024]).unwrap();
        disk.write(512, &[3; 512]).unwrap();
        let [found, _] = disk.pull_the_plug(&mut StdRng::seed_from_u64(seed));
        assert!(disk.write(0, &[4]).is_err() && disk.sync_data().is_err());
        assert_eq!(found[..512], [1; 512]);
        assert_eq!(found[1536..], [1; 512]);
        assert_eq!(found.len(), 2048);
        outcomes.insert((found[512], found[1024]));
    }
    let all = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)];
    assert_eq!(outcomes, all.into());
}
