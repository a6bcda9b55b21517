//! Keeps a second process away from the data.
//!
//! The lock is the operating system's, on a file of its own beside the data: it
//! goes with the process however that ends, so that a lock left behind by a
//! crash does not exist. The file's text, the holder's process id, is only for
//! the error message. The file itself stays: to remove it would let two
//! processes lock two files of the same name.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::OpenError;

/// Longest process id that is read: far more digits than Linux's
/// `/proc/sys/kernel/pid_max` can give.
const PID_DIGITS_MAX: u64 = 16;

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing the file is not enough: a child that was just forked holds a copy
    /// of the descriptor until it executes its program, and the lock with it.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the store's lock is released only with the process");
        }
    }
}

/// The lock file that belongs to a data file.
pub(super) fn beside(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

impl Lock {
    /// Takes the lock of a data file, or names the process that has it.
    pub(super) fn take(data: &Path) -> Result<Lock, OpenError> {
        let path = beside(data);
        let io_error = |source| OpenError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(OpenError::Locked { path: data.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        sign(&mut file).map_err(io_error)?;
        Ok(Lock { file })
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// `None` when the holder has not signed yet.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_DIGITS_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = Lock::take(&data).unwrap();
        match Lock::take(&data) {
            Err(OpenError::Locked { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        Lock::take(&data).unwrap();
    }

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = Lock::take(&data).unwrap();
        // What a child has between its fork and its exec.
        let copy = first.file.try_clone().unwrap();
        drop(first);
        Lock::take(&data).unwrap();
        drop(copy);
    }

    #[test]
    fn a_lock_file_left_behind_is_not_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::write(beside(&data), "4194304999999\nnonsense").unwrap();
        Lock::take(&data).unwrap();
        let text = std::fs::read_to_string(beside(&data)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }
}
