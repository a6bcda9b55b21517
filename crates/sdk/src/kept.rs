//! What subscriptions knew last, on disk: a process that starts while nobody can be asked begins
//! with it.
//!
//! ```text
//!   Directory ── whenever something changed, once a second at most ──▶ file (new, then renamed)
//!   file ── at the start, if it is whole and of the same place ──▶ Directory, degraded, with its age
//! ```
//!
//! The first line names the format, the place that the rest is of, and its checksum; the rest is
//! JSON. What does not fit is ignored, with the reason in the log.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use portolan_model::State;
use portolan_runtime::{Clock, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::{task::AbortHandle, time::sleep};
use xxhash_rust::xxh64::xxh64;

use crate::{Instance, directory::Directory};

/// First word of the file, with the version of the format.
const FORMAT: &str = "portolan-sdk-1";
/// 100,000 instances with all they say are some 30 MB; more are not kept.
const FILE_BYTES_MAX: usize = 64 << 20;
/// What changes often is written as often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// That nothing has changed is worth writing too, since the age counts from it.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// Services with their instances.
pub(crate) type Lists = BTreeMap<String, Vec<Arc<Instance>>>;

/// A file, and what it must be of.
#[derive(Clone, Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    /// Server, or API and namespace.
    place: String,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) lists: Lists,
    pub(crate) age: Duration,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    /// Milliseconds of Unix time at which it was confirmed last.
    confirmed_ms: u64,
    services: BTreeMap<String, Vec<Record>>,
}

#[derive(Deserialize, Serialize)]
struct Record {
    pod: String,
    address: std::net::IpAddr,
    port: u16,
    interface: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    protocol: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    ready: bool,
    state: String,
}

impl Record {
    fn of(one: &Instance) -> Self {
        let one = one.clone();
        Self {
            pod: one.pod,
            address: one.address,
            port: one.port,
            interface: one.interface,
            group: one.group,
            version: one.version,
            protocol: one.protocol,
            path: one.path,
            methods: one.methods,
            weight: one.weight,
            zone: one.zone,
            metadata: one.metadata,
            ready: one.ready,
            state: one.state.as_str().to_owned(),
        }
    }

    fn into_instance(self) -> Arc<Instance> {
        Arc::new(Instance {
            pod: self.pod,
            address: self.address,
            port: self.port,
            interface: self.interface,
            group: self.group,
            version: self.version,
            protocol: self.protocol,
            path: self.path,
            methods: self.methods,
            weight: self.weight,
            zone: self.zone,
            metadata: self.metadata,
            ready: self.ready,
            state: State::parse(&self.state),
        })
    }
}

impl KeptFile {
    pub(crate) fn new(path: PathBuf, place: &str) -> Self {
        Self { path, place: place.to_owned() }
    }

    /// What the file says. `None`: there is none that can be used, and the log tells why.
    pub(crate) fn load(&self) -> Option<Kept> {
        let bytes = match std::fs::metadata(&self.path) {
            Ok(meta) if meta.len() > FILE_BYTES_MAX as u64 => {
                Err(format!("it has {} bytes; {FILE_BYTES_MAX} are the most", meta.len()))
            }
            Ok(_) => std::fs::read(&self.path).map_err(|error| error.to_string()),
            // A first start.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
        };
        let now_ms = SystemClock.unix_ms();
        match bytes.and_then(|bytes| decode(&bytes, &self.place, now_ms)) {
            Ok(kept) => Some(kept),
            Err(why) => {
                let path = self.path.display();
                tracing::warn!(%path, why, "what was known last cannot be used");
                None
            }
        }
    }

    /// Writes beside the file, then takes its place: a crash leaves the old one or the new one.
    fn save(&self, bytes: &[u8]) -> std::io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)?;
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let new = Path::new(&name);
        let written = std::fs::File::create(new)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(new, &self.path));
        if written.is_err() {
            // Not there, or of no use.
            std::fs::remove_file(new).ok();
        }
        written
    }
}

fn encode(lists: &Lists, place: &str, confirmed_ms: u64) -> Vec<u8> {
    let records = |all: &Vec<Arc<Instance>>| all.iter().map(|one| Record::of(one)).collect();
    let services = lists.iter().map(|(name, all)| (name.clone(), records(all))).collect();
    // Strings and numbers only: nothing that JSON cannot say.
    let json = serde_json::to_vec(&Content { confirmed_ms, services }).unwrap_or_default();
    let mut bytes = format!("{FORMAT} {place} {:016x}\n", xxh64(&json, 0)).into_bytes();
    bytes.extend(json);
    bytes
}

fn decode(bytes: &[u8], place: &str, now_ms: u64) -> Result<Kept, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let (line, json) = bytes.split_at(end);
    let json = json.get(1..).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| "its first line is no text")?;
    let (format, rest) = line.split_once(' ').unwrap_or((line, ""));
    if format != FORMAT {
        return Err(format!("it is no file of {FORMAT}"));
    }
    let (of, sum) = rest.rsplit_once(' ').unwrap_or((rest, ""));
    if of != place {
        return Err(format!("it is of {of}, not of {place}"));
    }
    if sum != format!("{:016x}", xxh64(json, 0)) {
        return Err("it is damaged: the checksum differs".to_owned());
    }
    let content: Content = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let records = |all: Vec<Record>| all.into_iter().map(Record::into_instance).collect();
    let lists = content.services.into_iter().map(|(name, all)| (name, records(all))).collect();
    // A clock that was set back makes it look newer, never older than it can be.
    let age = Duration::from_millis(now_ms.saturating_sub(content.confirmed_ms));
    Ok(Kept { lists, age })
}

/// Lets a directory begin with what the file has, and keeps the file up.
pub(crate) fn start(file: Option<&KeptFile>, directory: &Arc<Directory>) -> Option<AbortHandle> {
    let file = file?;
    if let Some(kept) = file.load() {
        directory.begin_with(kept);
    }
    Some(tokio::spawn(keep(file.clone(), directory.clone())).abort_handle())
}

/// Keeps the file up, until the task is aborted.
async fn keep(file: KeptFile, directory: Arc<Directory>) {
    let mut saved = None;
    let mut since = Duration::ZERO;
    loop {
        sleep(SAVE_EVERY).await;
        since += SAVE_EVERY;
        // The lists are copied only to be written.
        if saved == Some(directory.version()) && since < CONFIRM_EVERY {
            continue;
        }
        let (version, age, lists) = directory.export();
        // Nothing known is nothing to keep.
        if lists.is_empty() {
            continue;
        }
        (saved, since) = (Some(version), Duration::ZERO);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let confirmed_ms = SystemClock.unix_ms().saturating_sub(age_ms);
        let to = file.clone();
        let written = tokio::task::spawn_blocking(move || {
            let bytes = encode(&lists, &to.place, confirmed_ms);
            match bytes.len() {
                0..=FILE_BYTES_MAX => to.save(&bytes).map_err(|error| error.to_string()),
                more => Err(format!("{more} bytes; {FILE_BYTES_MAX} are the most")),
            }
        });
        if let Ok(Err(why)) = written.await {
            tracing::warn!(path = %file.path.display(), why, "what is known now was not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_dialects::Registration;

    use super::*;

    #[test]
    fn what_is_damaged_or_foreign_is_told_and_not_used() {
        let one = Registration {
            group: Some("g".into()),
            methods: vec!["m".into()],
            weight: 0,
            ..Registration::new("a", "http", "10.0.0.1:80".parse().unwrap())
        };
        let lists = Lists::from([("a".to_owned(), vec![Arc::new(Instance::fixed(one))])]);
        let bytes = encode(&lists, "here", 1_000);
        let read = |bytes: &[u8], place: &str, now_ms| {
            decode(bytes, place, now_ms).map(|kept| (kept.lists, kept.age.as_millis()))
        };
        assert_eq!(read(&bytes, "here", 4_000), Ok((lists.clone(), 3_000)));
        assert_eq!(read(&bytes, "here", 500), Ok((lists, 0)), "a clock that was set back");
        let damaged = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            bytes
        };
        for (bytes, place, why) in [
            (bytes.clone(), "there", "it is of here, not of there"),
            (bytes[..bytes.len() - 1].to_vec(), "here", "damaged"),
            (damaged(bytes.len() - 9), "here", "damaged"),
            (damaged(0), "here", "no file of"),
            (b"{}".to_vec(), "here", "no first line"),
            (b"\xff\n".to_vec(), "here", "no text"),
            (Vec::new(), "here", "no first line"),
        ] {
            let error = read(&bytes, place, 0).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        // Nothing that can be done to it makes it panic, or be taken for whole.
        for at in 0..bytes.len() {
            assert!(read(&damaged(at), "here", 0).is_err(), "byte {at}");
            assert!(read(&bytes[..at], "here", 0).is_err(), "cut at {at}");
        }
    }
}
