//! The data directory: chosen, locked, and where `addresses.json` goes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use portolan_wire::Addresses;

/// Holds the process id of the Portolan that owns the directory.
const LOCK: &str = "lock";

/// Names of temporary data directories begin so.
const TEMPORARY_PREFIX: &str = "portolan-up-";

/// A directory that this process owns while the value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Dropped last: removes the folder of an ephemeral run.
    temporary: Option<tempfile::TempDir>,
    /// The lock lives as long as the file is open.
    _lock: File,
}

impl DataDir {
    /// Takes a directory: the one that was named, else a temporary one for
    /// ephemeral runs, else `.portolan` here.
    pub(crate) fn take(named: Option<&Path>, ephemeral: bool) -> Result<Self> {
        let (path, temporary) = match named {
            Some(path) => (path.to_path_buf(), None),
            None if ephemeral => {
                sweep_leftovers();
                let folder = tempfile::Builder::new()
                    .prefix(TEMPORARY_PREFIX)
                    .tempdir()
                    .context("cannot make a temporary folder")?;
                (folder.path().to_path_buf(), Some(folder))
            }
            None => (PathBuf::from(portolan_cli::DATA_DIR_DEFAULT), None),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let path = path.canonicalize().context("cannot resolve the data directory")?;
        let lock = lock(&path.join(LOCK))?;
        Ok(Self { path, temporary, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes away with the process.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Tells other commands where everything listens. Written beside and moved
    /// into place: a reader sees all of it or none.
    pub(crate) fn publish(&self, addresses: &Addresses) -> Result<()> {
        let text = serde_json::to_string_pretty(addresses)? + "\n";
        write_whole(&self.path.join(Addresses::FILE_NAME), text.as_bytes())
    }

    /// Takes `addresses.json` away: nothing listens there any more.
    pub(crate) fn withdraw(&self) {
        fs::remove_file(self.path.join(Addresses::FILE_NAME)).ok();
    }
}

/// Removes temporary directories of runs that were killed: those whose lock
/// nobody holds. What cannot be removed is somebody else's.
fn sweep_leftovers() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            continue;
        }
        let lock = OpenOptions::new().read(true).write(true).open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn lock(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if let Err(error) = file.try_lock() {
        let mut holder = String::new();
        file.read_to_string(&mut holder).ok();
        let folder = path.parent().unwrap_or(path).display().to_string();
        match error {
            fs::TryLockError::WouldBlock => bail!(
                "another Portolan (pid {}) uses the data directory {folder}; stop it, or choose \
                 another with --data-dir",
                holder.trim()
            ),
            fs::TryLockError::Error(error) => bail!("cannot lock {folder}: {error}"),
        }
    }
    file.rewind()?;
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}
