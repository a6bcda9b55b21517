//! A file as a source: a static list of services, read again when it changes.
//!
//! Polled once a second instead of watched: editors replace files, ConfigMap
//! volumes swap symbolic links, network file systems send no notice; looking is
//! the one way that works for all of them, and a second is soon enough for a
//! list that people write. A text that does not parse changes nothing: the last
//! good list stays, and a rejection says where the text is wrong.

mod convert;
mod format;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use portolan_model::{Code, Event, Name, ObjectName, Origin, Reason, SourceId};
use portolan_runtime::{Clock, Tasks};
use tokio::{io::AsyncReadExt, time::MissedTickBehavior};
use tracing::{info, warn};

use self::{convert::rejection, format::Document};
use crate::{Reports, Sink, report::Closed};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file this young may change again without its time stamp showing it: stamps
/// are as coarse as a second on some file systems.
const STAMP_SETTLES_AFTER: Duration = Duration::from_secs(2);
/// Some 100,000 endpoints; more is no list that people write.
const BYTES_MAX: u64 = 16 << 20;
/// The one part of the source.
const PART: &str = "services";

/// Which file, under which name.
#[derive(Clone, Debug)]
pub struct Config {
    /// The origin of its services, and the name of the source.
    pub origin: Origin,
    /// YAML, or JSON where the name ends in `.json`.
    pub path: PathBuf,
}

/// The file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong, with line and column where it is a matter of text.
    pub message: String,
}

/// The source with its part, for `Catalog::expect`.
pub fn parts(config: &Config) -> (SourceId, Vec<Name>) {
    (source(config), vec![portolan_model::name(PART)])
}

/// Reads the file once and says whether it can be used: a bad configuration is
/// told before anything starts, a file that breaks later only keeps its last
/// good state.
pub async fn check(config: &Config) -> Result<(), FileError> {
    let failed = |message| FileError { path: config.path.clone(), message };
    let text = read(&config.path).await.map_err(failed)?;
    Document::parse(&text, is_json(&config.path)).map(drop).map_err(failed)
}

/// Reads the file now and whenever it changes, until the tasks' shutdown.
pub fn start(config: Config, sink: Sink, clock: Arc<dyn Clock>, tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    let follower = Follower { config, sink, clock, seen: None, shown: None };
    tasks.spawn("watch file", async move {
        shutdown.run_until_cancelled(follower.run()).await;
    });
}

fn source(config: &Config) -> SourceId {
    SourceId(config.origin.shared())
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

async fn read(path: &Path) -> Result<String, String> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let mut text = String::new();
    let taken = file.take(BYTES_MAX + 1).read_to_string(&mut text).await;
    taken.map_err(|error| error.to_string())?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// What tells that a file may have changed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Stamp {
    async fn of(path: &Path) -> Option<Self> {
        let metadata = tokio::fs::metadata(path).await.ok()?;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len() })
    }

    fn has_settled(&self) -> bool {
        self.modified
            .and_then(|modified| modified.elapsed().ok())
            .is_some_and(|age| age > STAMP_SETTLES_AFTER)
    }
}

/// What was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Good(u64),
    Bad(String),
}

struct Follower {
    config: Config,
    sink: Sink,
    clock: Arc<dyn Clock>,
    /// The stamp of the last text that was read, once it had settled.
    seen: Option<Stamp>,
    shown: Option<Shown>,
}

impl Follower {
    async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.look().await.is_err() {
                return;
            }
        }
    }

    async fn look(&mut self) -> Result<(), Closed> {
        let stamp = Stamp::of(&self.config.path).await;
        if stamp.is_some() && stamp == self.seen {
            return Ok(());
        }
        let outcome = read(&self.config.path).await;
        // A stamp taken before the text was read can only be too old.
        self.seen = stamp.filter(Stamp::has_settled);
        let parsed = outcome.and_then(|text| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            Ok((hasher.finish(), Document::parse(&text, is_json(&self.config.path))?))
        });
        let shown = match &parsed {
            Ok((hash, _)) => Shown::Good(*hash),
            Err(message) => Shown::Bad(message.clone()),
        };
        if self.shown.as_ref() == Some(&shown) {
            return Ok(());
        }
        match parsed {
            Ok((_, document)) => self.show(&document).await?,
            Err(message) => self.refuse(&message).await?,
        }
        self.shown = Some(shown);
        Ok(())
    }

    async fn show(&self, document: &Document) -> Result<(), Closed> {
        let facts = convert::convert(document, &self.config.origin);
        info!(path = %self.config.path.display(), facts = facts.len(), "file read");
        let (source, part) = (source(&self.config), portolan_model::name(PART));
        let none = portolan_model::name("");
        let mut reports = Reports::now(&self.clock);
        reports.push(&source, &none, Event::Begin { part: part.clone() });
        for (key, fact) in facts {
            let event = Event::Sighting { part: part.clone(), key, fact: Box::new(fact) };
            reports.push(&source, &none, event);
        }
        reports.push(&source, &none, Event::Complete { part });
        reports.send(&self.sink).await
    }

    async fn refuse(&self, message: &str) -> Result<(), Closed> {
        let path = self.config.path.display().to_string();
        warn!(path, error = message, "file cannot be used; its last good state stays");
        let (source, part) = (source(&self.config), portolan_model::name(PART));
        let none = portolan_model::name("");
        let mut reports = Reports::now(&self.clock);
        let reason = Reason::new(Code::FILE_UNREADABLE, format!("{path}: {message}"));
        let (key, fact) = rejection(ObjectName::new("", &path), vec![reason]);
        let event = Event::Sighting { part: part.clone(), key, fact: Box::new(fact) };
        reports.push(&source, &none, event);
        // Last, because any other word of a part says that it is not lost.
        let error = portolan_model::name(message);
        reports.push(&source, &none, Event::Lost { part, error });
        reports.send(&self.sink).await
    }
}
