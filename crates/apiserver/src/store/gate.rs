//! Storage that stays untouched until its contents have been accepted.
//!
//! To open a database is to write to it: redb marks the file as in use, and
//! repairs it after a crash. A file that turns out to be torn, foreign or of a
//! newer release must be left as it was, though, so that the gate keeps what
//! redb writes in memory, shows it back, and lets it through in the same order,
//! syncs included, once the store has read every row. A refused file sees none
//! of it. (The alternative, redb's read-only mode, cannot open a file that a
//! crash left.)

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

/// A handle on gated storage: redb owns one, the store keeps another to open the gate.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Box<dyn StorageBackend>,
    fsync: bool,
    held: Mutex<Option<Held>>,
}

/// What was written while the gate is shut. A repair writes a few pages, not the file.
#[derive(Debug)]
struct Held {
    /// Length of the storage beneath.
    below: u64,
    /// Length that redb believes in.
    len: u64,
    operations: Vec<Operation>,
}

#[derive(Debug)]
enum Operation {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
    Sync,
}

impl Gate {
    /// Storage behind a shut gate. Without `fsync` nothing ever waits for the disk.
    pub(super) fn shut(storage: Box<dyn StorageBackend>, fsync: bool) -> io::Result<Gate> {
        let len = storage.len()?;
        let held = Some(Held { below: len, len, operations: Vec::new() });
        Ok(Gate(Arc::new(Inner { storage, fsync, held: Mutex::new(held) })))
    }

    /// Lets through what was held, and everything later at once.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut held = self.held();
        // Taken only at the end: after an error the gate stays shut.
        for operation in held.iter().flat_map(|held| &held.operations) {
            match operation {
                Operation::Write { offset, data } => self.0.storage.write(*offset, data)?,
                Operation::SetLen(len) => self.0.storage.set_len(*len)?,
                Operation::Sync => self.0.sync()?,
            }
        }
        *held = None;
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sync(&self) -> io::Result<()> {
        if self.fsync { self.storage.sync_data() } else { Ok(()) }
    }
}

impl StorageBackend for Gate {
    fn len(&self) -> io::Result<u64> {
        match &*self.held() {
            Some(held) => Ok(held.len),
            None => self.0.storage.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.held() {
            Some(held) => held.read(&*self.0.storage, offset, out),
            None => self.0.storage.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.held() {
            Some(held) => {
                held.len = len;
                held.operations.push(Operation::SetLen(len));
                Ok(())
            }
            None => self.0.storage.set_len(len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match &mut *self.held() {
            Some(held) => {
                held.operations.push(Operation::Sync);
                Ok(())
            }
            None => self.0.sync(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.held() {
            Some(held) => {
                held.len = held.len.max(offset.saturating_add(data.len() as u64));
                held.operations.push(Operation::Write { offset, data: data.to_vec() });
                Ok(())
            }
            None => self.0.storage.write(offset, data),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.0.storage.close()
    }
}

impl Held {
    fn read(&self, storage: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        out.fill(0);
        if let Some(part) = overlap((offset, end), (0, self.below)) {
            storage.read(part.0, slice(out, offset, part))?;
        }
        for operation in &self.operations {
            match operation {
                Operation::Write { offset: at, data } => {
                    let written = (*at, at + data.len() as u64);
                    if let Some(part) = overlap((offset, end), written) {
                        let from = index(part.0 - at);
                        let source = &data[from..from + index(part.1 - part.0)];
                        slice(out, offset, part).copy_from_slice(source);
                    }
                }
                // What is cut off comes back as zeros, should the file grow again.
                Operation::SetLen(len) => {
                    if let Some(part) = overlap((offset, end), (*len, u64::MAX)) {
                        slice(out, offset, part).fill(0);
                    }
                }
                Operation::Sync => {}
            }
        }
        Ok(())
    }
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> Option<(u64, u64)> {
    let part = (a.0.max(b.0), a.1.min(b.1));
    (part.0 < part.1).then_some(part)
}

/// The bytes of `out`, which begins at `offset`, that a range covers.
fn slice(out: &mut [u8], offset: u64, part: (u64, u64)) -> &mut [u8] {
    &mut out[index(part.0 - offset)..index(part.1 - offset)]
}

/// A distance inside a buffer, which fits in memory.
fn index(distance: u64) -> usize {
    distance as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    fn contents(storage: &dyn StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; storage.len().unwrap() as usize];
        storage.read(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_shut_gate_shows_what_it_holds_and_an_open_one_passes_it_on() {
        let below = InMemoryBackend::new();
        below.set_len(8).unwrap();
        below.write(0, b"abcdefgh").unwrap();
        let below = Arc::new(below);

        #[derive(Debug)]
        struct Below(Arc<InMemoryBackend>);
        impl StorageBackend for Below {
            fn len(&self) -> io::Result<u64> {
                self.0.len()
            }
            fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
                self.0.read(offset, out)
            }
            fn set_len(&self, len: u64) -> io::Result<()> {
                self.0.set_len(len)
            }
            fn sync_data(&self) -> io::Result<()> {
                self.0.sync_data()
            }
            fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
                self.0.write(offset, data)
            }
        }

        let gate = Gate::shut(Box::new(Below(below.clone())), true).unwrap();
        gate.write(1, b"BC").unwrap();
        gate.set_len(4).unwrap();
        gate.set_len(10).unwrap();
        gate.write(8, b"XY").unwrap();
        gate.sync_data().unwrap();
        assert_eq!(contents(&gate), b"aBCd\0\0\0\0XY");
        let mut middle = [0; 3];
        gate.read(2, &mut middle).unwrap();
        assert_eq!(&middle, b"Cd\0");
        assert!(gate.read(8, &mut middle).is_err(), "reads past the end are refused");
        assert_eq!(contents(&*below), b"abcdefgh", "nothing has passed the gate");

        gate.open().unwrap();
        assert_eq!(contents(&*below), b"aBCd\0\0\0\0XY");
        gate.write(0, b"Z").unwrap();
        assert_eq!(contents(&*below), b"ZBCd\0\0\0\0XY");
    }
}
