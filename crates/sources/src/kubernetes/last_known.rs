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
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::kinds::Kind;

/// Raised when a file of before can no longer be read as it was meant.
const FORMAT: u32 = 1;

/// The longest file: some 200,000 EndpointSlices of three endpoints, or 100,000 Pods. What
/// is longer is not kept.
const BYTES_MAX: u64 = 128 << 20;

/// Only who runs Portolan reads it: annotations of Pods may tell anything.
const MODE: u32 = 0o600;

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
    /// `part`: the kind, and the namespace where only one is watched.
    pub(super) fn new(folder: &Path, part: &str) -> Self {
        Self(folder.join(format!("{}.jsonl", part.replace('/', "."))))
    }

    /// Begins a listing.
    pub(super) fn draft<K: Kind>(&self, at_ms: u64) -> Draft {
        let header = Header { format: FORMAT, kind: K::KIND.to_owned(), at_ms };
        let path = self.0.clone();
        let mut draft = Draft { writer: None, path, objects: 0, bytes: 0 };
        match draft.open(&header) {
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
    writer: Option<BufWriter<File>>,
    path: PathBuf,
    objects: usize,
    bytes: u64,
}

impl Draft {
    fn beside(&self) -> PathBuf {
        self.path.with_extension("jsonl.new")
    }

    fn open(&self, header: &Header) -> io::Result<BufWriter<File>> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(MODE);
        let mut writer = BufWriter::new(options.open(self.beside())?);
        writeln!(writer, "{}", serde_json::to_string(header)?)?;
        Ok(writer)
    }

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
        let (path, beside) = (self.path.clone(), self.beside());
        let finished = spawn_blocking(move || -> io::Result<()> {
            writeln!(writer, "{}", serde_json::to_string(&footer)?)?;
            writer.into_inner()?.sync_all()?;
            fs::rename(&beside, &path)?;
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
        fs::remove_file(self.beside()).ok();
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
        keep(&file, &[]).await;
        assert_eq!(file.read::<EndpointSlice>().await.unwrap().items, []);
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
