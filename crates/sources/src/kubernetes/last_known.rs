//! The last listing of a kind, kept in a file: what a restart without an API answers from.
//!
//! ```text
//!   list --pages--> Draft (beside the file) --whole list: fsync, rename--> file
//!   first list fails --> file --> reports, marked lost since the file was written
//! ```
//!
//! The file is a copy of what was listed, trimmed to what is read of an object, one a line
//! between a header and a footer; a file without its footer, of another format or kind, is
//! none. It is written with each whole listing, so it is as old as the last verification
//! at most; a change does not write it.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::kinds::Kind;

/// Raised when a file of before can no longer be read as it was meant.
const FORMAT: u32 = 1;

/// The longest file: some 200,000 EndpointSlices of three endpoints, or 100,000 Pods. What
/// is longer is not kept.
const BYTES_MAX: u64 = 128 << 20;

/// What drafts are called after the file. Each has a name of its own: the end of a listing
/// is still written by another thread when the next one begins.
const DRAFT: &str = ".new-";

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    kind: String,
    at_ms: u64,
}

/// The last line. The revision of a listing is known with its first page, but that it is
/// whole only with its last.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Footer {
    revision: String,
    objects: usize,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Kept<K> {
    /// When it was listed, in milliseconds of Unix time.
    pub(super) at_ms: u64,
    pub(super) revision: String,
    pub(super) items: Vec<K>,
}

/// Where the listings of one kind are kept.
#[derive(Clone, Debug)]
pub(super) struct LastKnown(PathBuf);

impl LastKnown {
    /// `part`: the kind, and the namespace where only one is watched. What a process that
    /// was killed had begun to write is removed.
    pub(super) fn new(folder: &Path, part: &str) -> Self {
        let file = Self(folder.join(format!("{}.jsonl", part.replace('/', "."))));
        let prefix = file.draft_prefix();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_file(entry.path()).ok();
            }
        }
        file
    }

    fn draft_prefix(&self) -> String {
        let name = self.0.file_name().unwrap_or_default();
        format!("{}{DRAFT}", name.to_string_lossy())
    }

    /// A file beside it that is removed unless it takes its place. Only who runs Portolan
    /// reads it (that is how temporary files are made): annotations of Pods may tell
    /// anything.
    fn open(&self, header: &Header) -> io::Result<BufWriter<NamedTempFile>> {
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let draft = tempfile::Builder::new().prefix(&self.draft_prefix()).tempfile_in(folder)?;
        let mut writer = BufWriter::new(draft);
        writeln!(writer, "{}", serde_json::to_string(header)?)?;
        Ok(writer)
    }

    /// Begins a listing.
    pub(super) fn draft<K: Kind>(&self, at_ms: u64) -> Draft {
        let header = Header { format: FORMAT, kind: K::KIND.to_owned(), at_ms };
        let path = self.0.clone();
        let mut draft = Draft { writer: None, path, objects: 0, bytes: 0 };
        match self.open(&header) {
            Ok(writer) => draft.writer = Some(writer),
            Err(error) => draft.give_up(&error),
        }
        draft
    }

    /// What was listed last, if anything was.
    pub(super) async fn read<K: Kind>(&self) -> Option<Kept<K>> {
        let path = self.0.clone();
        let read = spawn_blocking(move || match read(&path) {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "the last listing cannot be read");
                None
            }
        });
        read.await.ok().flatten()
    }
}

fn read<K: Kind>(path: &Path) -> io::Result<Kept<K>> {
    let file = File::open(path)?;
    let mut lines = BufReader::new(file.take(BYTES_MAX)).lines();
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let first = lines.next().ok_or_else(|| broken("it is empty"))??;
    let header: Header = serde_json::from_str(&first)?;
    if header.format != FORMAT || header.kind != K::KIND {
        return Err(broken("it is of another format"));
    }
    let mut items = Vec::new();
    let mut before: Option<String> = None;
    for line in lines {
        if let Some(object) = before.replace(line?) {
            items.push(serde_json::from_str(&object)?);
        }
    }
    let last = before.ok_or_else(|| broken("its end is missing"))?;
    let footer: Footer = serde_json::from_str(&last)?;
    if footer.objects != items.len() {
        return Err(broken("objects are missing"));
    }
    Ok(Kept { at_ms: header.at_ms, revision: footer.revision, items })
}

/// A listing that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    /// `None`: writing has failed, or it has become too long.
    writer: Option<BufWriter<NamedTempFile>>,
    path: PathBuf,
    objects: usize,
    bytes: u64,
}

impl Draft {
    /// Adds objects.
    pub(super) async fn add<'k, K: Kind>(&mut self, items: impl Iterator<Item = &'k K>) {
        let Some(mut writer) = self.writer.take() else { return };
        let mut text = Vec::new();
        for item in items {
            if let Err(error) = serde_json::to_writer(&mut text, item) {
                return self.give_up(&error.into());
            }
            text.push(b'\n');
            self.objects += 1;
        }
        self.bytes += text.len() as u64;
        if self.bytes > BYTES_MAX {
            return self.give_up(&io::Error::other("it is too long to be kept"));
        }
        let written = spawn_blocking(move || writer.write_all(&text).map(|()| writer)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => self.give_up(&error),
        }
    }

    /// Puts it in the place of the listing before: it is whole.
    pub(super) async fn finish(mut self, revision: &str) {
        let Some(mut writer) = self.writer.take() else { return };
        let footer = Footer { revision: revision.to_owned(), objects: self.objects };
        let path = self.path.clone();
        let finished = spawn_blocking(move || -> io::Result<()> {
            writeln!(writer, "{}", serde_json::to_string(&footer)?)?;
            let draft = writer.into_inner()?;
            draft.as_file().sync_all()?;
            draft.persist(&path)?;
            // The name is as durable as the bytes.
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        });
        match finished.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => debug!(path = %self.path.display(), objects = self.objects, "listing kept"),
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&self, error: &io::Error) {
        warn!(path = %self.path.display(), %error, "the listing is not kept for a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::{EndpointSlice, Service};

    fn slice(name: &str) -> EndpointSlice {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "demo", "resourceVersion": "7",
                         "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}],
            "ports": [{"name": "", "port": 80, "protocol": null}],
        }))
        .unwrap()
    }

    async fn keep(file: &LastKnown, names: &[&str]) {
        let mut draft = file.draft::<EndpointSlice>(5);
        let slices: Vec<_> = names.iter().map(|name| slice(name)).collect();
        draft.add(slices.iter()).await;
        draft.finish("9").await;
    }

    #[tokio::test]
    async fn what_is_kept_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = LastKnown::new(&folder.path().join("new"), "endpointslices/demo");
        assert!(file.read::<EndpointSlice>().await.is_none());
        keep(&file, &["a", "b"]).await;
        let kept = file.read::<EndpointSlice>().await.unwrap();
        assert_eq!((kept.at_ms, &*kept.revision), (5, "9"));
        assert_eq!(kept.items, [slice("a"), slice("b")]);
        // A listing that breaks off changes nothing.
        let mut draft = file.draft::<EndpointSlice>(6);
        draft.add([slice("c")].iter()).await;
        drop(draft);
        assert_eq!(file.read::<EndpointSlice>().await.unwrap().items.len(), 2);
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
        // One that ends while the next is under way is whole all the same.
        let mut ending = file.draft::<EndpointSlice>(7);
        ending.add([slice("d")].iter()).await;
        let mut next = file.draft::<EndpointSlice>(8);
        ending.finish("10").await;
        assert_eq!(file.read::<EndpointSlice>().await.unwrap().items, [slice("d")]);
        next.add([slice("e")].iter()).await;
        next.finish("11").await;
        assert_eq!(file.read::<EndpointSlice>().await.unwrap().items, [slice("e")]);
        keep(&file, &[]).await;
        assert_eq!(file.read::<EndpointSlice>().await.unwrap().items, []);
    }

    #[tokio::test]
    async fn what_a_killed_process_began_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let left = |name: &str| fs::write(folder.path().join(name), "{").unwrap();
        left("services.jsonl.new-a1b2c3");
        left("services.shop.jsonl.new-a1b2c3");
        LastKnown::new(folder.path(), "services");
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["services.shop.jsonl.new-a1b2c3"]);
    }

    #[tokio::test]
    async fn what_is_broken_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = LastKnown::new(folder.path(), "endpointslices");
        keep(&file, &["a", "b"]).await;
        let whole = fs::read_to_string(&file.0).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        assert!(file.read::<Service>().await.is_none(), "another kind");
        for broken in [
            String::new(),
            lines[..3].join("\n"),
            [lines[0], lines[1], lines[3]].join("\n"),
            whole.replace("\"format\":1", "\"format\":2"),
            whole.replace("10.0.0.1\"", "10.0.0.1"),
            whole[1..].to_owned(),
        ] {
            fs::write(&file.0, &broken).unwrap();
            assert!(file.read::<EndpointSlice>().await.is_none(), "{broken}");
        }
    }
}
