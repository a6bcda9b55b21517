//! What the shim does before it starts a command that runs apart from the machine.
//!
//! ```text
//!  Enclosure (JSON, written by the kubelet) ──▶ enter
//!     1. the network and host name of the Pod   (setns; its holder made them)
//!     2. a mount namespace of the container's own
//!     3. a root that shows the machine's files, with the Pod's mounts over them
//! ```
//!
//! There is no image, so a container sees the files of this machine. Its root
//! is a small file system in memory that *mirrors* the machine's: each entry of
//! `/` appears in it, bound or as the symlink that it is. That is what lets a
//! mount point be made that the machine does not have (`/data`, or the folders
//! of the ServiceAccount's files) without a trace on the machine; a folder
//! deeper down that lacks the mount point is mirrored the same way. When the
//! last process of the container ends, the kernel takes all of it away.
//!
//! Rejected: an overlay over `/` (it hides what is mounted beneath, and user
//! namespaces may not make one everywhere).

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
        mount_move, mount_remount, unmount,
    },
    process::{chdir, pivot_root},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};

/// Where sources are kept at hand inside the new root while it is set up.
const AT_HAND: &str = "/.portolan";

/// Symlinks that are followed on the way to one mount point (the kernel's own MAXSYMLINKS).
const SYMLINKS_MAX: usize = 40;

/// A mount of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// A file or folder of the machine.
    pub(crate) source: PathBuf,
    /// Where the container sees it.
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// What a command runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enclosure {
    /// The process that holds the Pod's namespaces; none for the node's own.
    pub(crate) holder: Option<u32>,
    /// An empty folder, over which the root is set up.
    pub(crate) root: PathBuf,
    /// In the order of making.
    pub(crate) mounts: Vec<Mount>,
    /// Where the command begins.
    pub(crate) dir: PathBuf,
}

/// Makes namespaces for the calling process.
///
/// rustix deprecates the function because it could also unshare the table of
/// files, which would break its notion of owned descriptors; the flags passed
/// here are namespaces only, and the process has one thread.
#[expect(deprecated, reason = "without CLONE_FILES it is safe; the other form is `unsafe`")]
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flags - UnshareFlags::FILES)?)
}

/// Moves the calling process, which must have one thread, into an enclosure.
/// The error says which step failed.
pub(crate) fn enter(enclosure: &Enclosure) -> Result<(), String> {
    if let Some(holder) = enclosure.holder {
        for (name, kind) in [
            ("net", LinkNameSpaceType::Network),
            ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
        ] {
            let path = format!("/proc/{holder}/ns/{name}");
            let entered = fs::File::open(&path).and_then(|link| {
                Ok(move_into_link_name_space(std::os::fd::AsFd::as_fd(&link), Some(kind))?)
            });
            entered.map_err(|error| format!("cannot enter {path}: {error}"))?;
        }
    }
    unshare(UnshareFlags::NEWNS).map_err(|e| format!("cannot make a mount namespace: {e}"))?;
    set_up_root(enclosure).map_err(|(path, error)| format!("{}: {error}", path.display()))?;
    chdir(&enclosure.dir)
        .map_err(|error| format!("workingDir {}: {error}", enclosure.dir.display()))
}

/// Moves the calling process, which must have one thread, to where another one
/// is: its network, host name and files.
pub(crate) fn join(pid: &str, dir: &Path) -> Result<(), String> {
    let told = |error: io::Error| format!("cannot enter the namespaces of process {pid}: {error}");
    let kinds = [
        ("net", LinkNameSpaceType::Network),
        ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
        ("mnt", LinkNameSpaceType::Mount),
    ];
    // All before the first step: behind the last one, /proc may be another.
    let links = kinds.map(|(name, kind)| {
        fs::File::open(format!("/proc/{pid}/ns/{name}")).map(|link| (link, kind))
    });
    for link in links {
        let (link, kind) = link.map_err(told)?;
        let moved = move_into_link_name_space(std::os::fd::AsFd::as_fd(&link), Some(kind));
        moved.map_err(|error| told(error.into()))?;
    }
    chdir(dir).map_err(|error| format!("workingDir {}: {error}", dir.display()))
}

/// What failed, and where.
type Failure = (PathBuf, io::Error);

trait At<T> {
    fn at(self, path: &Path) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, Failure> {
        self.map_err(|error| (path.to_owned(), error.into()))
    }
}

fn set_up_root(enclosure: &Enclosure) -> Result<(), Failure> {
    let top = Path::new("/");
    mount_change(top, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(top)?;
    let root = enclosure.root.as_path();
    memory(root).at(root)?;
    // Else the folder that holds the new root would show it again inside.
    mount_change(root, MountPropagationFlags::UNBINDABLE).at(root)?;
    let at_hand = root.join(AT_HAND.trim_start_matches('/'));
    fs::create_dir(&at_hand).at(&at_hand)?;
    for (number, mount) in enclosure.mounts.iter().enumerate() {
        let place = at_hand.join(number.to_string());
        bind(&mount.source, &place).at(&mount.source)?;
    }
    mirror(top, root)?;
    chdir(root).at(root)?;
    pivot_root(".", ".").at(root)?;
    unmount(".", UnmountFlags::DETACH).at(top)?;
    chdir(top).at(top)?;
    let mut own = Own(BTreeSet::from([top.to_owned()]));
    for (number, mount) in enclosure.mounts.iter().enumerate() {
        let place = Path::new(AT_HAND).join(number.to_string());
        let target = own.mount_point(&mount.target, place.is_dir())?;
        mount_bind_recursive(&place, &target).at(&mount.target)?;
        if mount.read_only {
            make_read_only(&target).at(&mount.target)?;
        } else {
            own.0.insert(target);
        }
        unmount(&place, UnmountFlags::DETACH).at(&place)?;
    }
    fs::remove_dir_all(AT_HAND).at(Path::new(AT_HAND))
}

fn memory(folder: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("portolan", folder, "tmpfs", flags, Some(c"mode=755"))?)
}

/// Binds a file or a folder to a place that is made for it.
fn bind(source: &Path, place: &Path) -> io::Result<()> {
    if fs::metadata(source)?.is_dir() {
        fs::create_dir(place)?;
    } else {
        fs::File::create(place)?;
    }
    Ok(mount_bind_recursive(source, place)?)
}

/// Makes each entry of `from` appear in `to`.
fn mirror(from: &Path, to: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(from).at(from)? {
        let entry = entry.at(from)?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().at(&path)?;
        let done = if kind.is_symlink() {
            fs::read_link(&path).and_then(|goal| std::os::unix::fs::symlink(goal, &place))
        } else {
            bind(&path, &place)
        };
        match done {
            // It went while we looked, or its mount is dead: not there, then.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.at(&path)?,
        }
    }
    Ok(())
}

/// In a user namespace, what the machine's owner has forbidden must stay forbidden.
fn make_read_only(target: &Path) -> io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    match mount_remount(target, flags, "") {
        Err(Errno::PERM) => {
            let flags = flags | MountFlags::NOSUID | MountFlags::NODEV;
            Ok(mount_remount(target, flags, "")?)
        }
        other => Ok(other?),
    }
}

/// Folders in which entries can be made without a trace on the machine.
struct Own(BTreeSet<PathBuf>);

impl Own {
    /// The place for a mount, made if it is not there.
    fn mount_point(&mut self, target: &Path, is_dir: bool) -> Result<PathBuf, Failure> {
        let mut parent = PathBuf::from("/");
        let target = resolve(target).at(target)?;
        let mut missing = Vec::new();
        for part in target.components().filter(|part| matches!(part, Component::Normal(_))) {
            if missing.is_empty() && parent.join(part).symlink_metadata().is_ok() {
                parent.push(part);
            } else {
                missing.push(part);
            }
        }
        if missing.is_empty() {
            return Ok(target);
        }
        if !self.holds(&parent) {
            let draft = Path::new(AT_HAND).join("mirror");
            fs::create_dir_all(&draft).at(&draft)?;
            memory(&draft).at(&draft)?;
            mirror(&parent, &draft)?;
            mount_move(&draft, &parent).at(&parent)?;
            self.0.insert(parent.clone());
        }
        let mut path = parent;
        for (number, part) in missing.iter().enumerate() {
            path.push(part);
            if is_dir || number + 1 < missing.len() {
                fs::create_dir(&path).at(&path)?;
                self.0.insert(path.clone());
            } else {
                fs::File::create(&path).at(&path)?;
            }
        }
        Ok(path)
    }

    fn holds(&self, folder: &Path) -> bool {
        self.0.contains(folder)
    }
}

/// The path without symlinks, also where its end does not exist yet.
fn resolve(target: &Path) -> io::Result<PathBuf> {
    let mut done = PathBuf::from("/");
    let mut rest: Vec<PathBuf> = vec![target.to_owned()];
    let mut links = 0;
    while let Some(next) = rest.pop() {
        let mut parts = next.components();
        let Some(part) = parts.next() else { continue };
        let behind = parts.as_path().to_owned();
        if !behind.as_os_str().is_empty() {
            rest.push(behind);
        }
        match part {
            Component::RootDir => done = PathBuf::from("/"),
            Component::ParentDir => {
                done.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(name) => {
                let path = done.join(name);
                match rustix::fs::readlinkat(CWD, &path, Vec::new()) {
                    Ok(goal) => {
                        links += 1;
                        if links > SYMLINKS_MAX {
                            return Err(Errno::LOOP.into());
                        }
                        use std::os::unix::ffi::OsStrExt;
                        rest.push(std::ffi::OsStr::from_bytes(goal.as_bytes()).into());
                    }
                    Err(_) => done = path,
                }
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_without_symlinks() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        fs::create_dir(dir.join("run")).unwrap();
        fs::create_dir(dir.join("var")).unwrap();
        std::os::unix::fs::symlink(dir.join("run"), dir.join("var/run")).unwrap();
        std::os::unix::fs::symlink("../run/x", dir.join("var/near")).unwrap();
        std::os::unix::fs::symlink("round", dir.join("round")).unwrap();
        for (target, expected) in [
            ("run", "run"),
            ("var/run/secrets/a", "run/secrets/a"),
            ("var/near/y", "run/x/y"),
            ("no/such/../thing", "no/thing"),
            ("var/./run/", "run"),
        ] {
            assert_eq!(resolve(&dir.join(target)).unwrap(), dir.join(expected), "{target}");
        }
        assert!(resolve(&dir.join("round/x")).is_err());
    }
}
