//! Reading `/proc`: which processes descend from one, and which sockets they hold.
//!
//! Processes come and go while it is read; what has vanished is simply not in
//! the answer.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

/// All processes below `root`, without it.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in processes() {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Every process with its parent.
fn processes() -> impl Iterator<Item = (i32, i32)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, parent_in_stat(&stat)?))
    })
}

/// The fourth field of `/proc/PID/stat` (proc(5)): `pid (name) state ppid ...`.
/// The name may hold anything, blanks and brackets too.
fn parent_in_stat(stat: &str) -> Option<i32> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The inodes of the sockets that these processes hold.
pub(crate) fn socket_inodes(pids: impl IntoIterator<Item = i32>) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for pid in pids {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for file in open {
            let target = fs::read_link(file.path()).ok();
            let inode = target.as_deref().and_then(|t| socket_inode(t.to_str()?));
            inodes.extend(inode);
        }
    }
    inodes
}

/// `socket:[123]`
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn parents_behind_odd_names() {
        for (stat, parent) in [
            ("12 (sh) S 7 12 12 0", Some(7)),
            ("12 (a b) c) d) R 9 1", Some(9)),
            ("12 sh S 7", None),
            ("12 (sh)", None),
            ("", None),
        ] {
            assert_eq!(parent_in_stat(stat), parent, "{stat}");
        }
    }

    #[test]
    fn finds_children_and_their_sockets() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(descendants(me).contains(&i32::try_from(child.id()).unwrap()));
        drop(child.stdin.take());
        child.wait().unwrap();

        let before = socket_inodes([me]);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let after = socket_inodes([me]);
        assert!(after.len() > before.len() || after != before);
        drop(socket);
    }

    #[test]
    fn links_of_sockets() {
        assert_eq!(socket_inode("socket:[42]"), Some(42));
        assert_eq!(socket_inode("pipe:[42]"), None);
        assert_eq!(socket_inode("socket:[x]"), None);
    }
}
