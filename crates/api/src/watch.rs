//! `/v1/watch`: services and their instances as server-sent events.
//!
//! The stream holds a catalog version and nothing else. A client that reads
//! slowly gets fewer, larger steps; one that comes back with the version it had
//! gets what changed since, or a reset when that version is no longer known.
//!
//! ```text
//!   update --steps--> [reset] upsert... change... remove... synced --one at a time--> JSON --> client
//! ```
//!
//! A step of an update points at its service; it becomes JSON when the client has
//! read all before it. Only `synced` carries an `id:`. A client that is cut off
//! between two upserts of one version has not got that version: were it to resume
//! from there, the rest would be lost to it.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use portolan_catalog::{ServiceEntry, Snapshot, Subscriber, Update};
use portolan_model::{ServiceKey, Version};
use portolan_view as view;
use portolan_wire::WatchEvent;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};

use crate::{
    Shared,
    problem::Refusal,
    query::{Checked, WatchQuery, query},
};

/// A watcher that nothing concerned is told the version after so many, so that
/// what it resumes from stays well within the 1,024 versions that are kept.
const BOOKMARK_VERSIONS: u64 = 256;

/// A watcher of changes hears of one at once, and of what comes right behind it together, so much
/// later: a restart of many processes is some large steps and not thousands of small ones. (istiod
/// waits 100 ms before the first, too.)
const PACE: Duration = Duration::from_millis(50);

pub(crate) async fn watch(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    checked: Checked<Vec<(String, String)>>,
) -> Result<impl IntoResponse, Refusal> {
    let mut query = WatchQuery::read(query(checked)?)?;
    let asked = query
        .version
        .take()
        .map(|version| version.parse::<Version>())
        .transpose()
        .map_err(|bad| Refusal::bad_request(format!("version: {bad}")))?;
    // What a browser sends by itself is a hint: one that is no version, of another
    // server perhaps, gets everything anew.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let permit = shared.watches.clone().try_acquire_owned().map_err(|_| {
        Refusal::too_many(format!("{} watches are open already", shared.config.watches_max))
            .hint("close one, or subscribe with the SDK")
    })?;
    let known: Option<Version> = last.or(asked);
    let subscriber = match known {
        Some(version) => shared.hub.resume(version),
        None => shared.hub.subscribe(),
    };
    let follower = Follower {
        subscriber,
        query,
        steps: VecDeque::new(),
        next_at: None,
        told: known,
        shared,
        _permit: permit,
    };
    Ok(Sse::new(stream::unfold(follower, Follower::step)).keep_alive(KeepAlive::default()))
}

/// One event to come.
#[derive(Debug)]
enum Step {
    Reset(Version),
    Upsert(Arc<Snapshot>, Arc<ServiceEntry>),
    /// From one to the other.
    Change(Arc<Snapshot>, Arc<ServiceEntry>, Arc<ServiceEntry>),
    Remove(Version, ServiceKey),
    Synced(Version),
}

/// One open watch. `steps` holds those of one update at most, each a pointer.
struct Follower {
    subscriber: Subscriber,
    query: WatchQuery,
    steps: VecDeque<Step>,
    /// Not before then.
    next_at: Option<Instant>,
    /// The version that the client would resume from.
    told: Option<Version>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn step(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while self.steps.is_empty() {
            let shutdown = self.shared.shutdown.clone();
            if let Some(at) = self.next_at.take() {
                shutdown.run_until_cancelled(sleep_until(at)).await?;
            }
            let update = shutdown.run_until_cancelled(self.subscriber.next()).await??;
            self.steps = steps(&update, &self.query, self.told);
            if self.query.changes && !self.steps.is_empty() {
                self.next_at = Some(Instant::now() + PACE);
            }
        }
        let mut event = self.steps.pop_front()?.event();
        if self.query.brief {
            leave_out_reasons(&mut event);
        }
        let mut sent = Event::default().event(event.kind());
        if let WatchEvent::Synced { version } = &event {
            sent = sent.id(version);
            self.told = version.parse().ok();
        }
        // The types serialise by construction; say so in the stream if one ever does not.
        let sent = match serde_json::to_string(&event) {
            Ok(json) => {
                self.shared.watch_counts.events.inc();
                self.shared.watch_counts.bytes.inc_by(json.len() as u64);
                sent.data(json)
            }
            Err(error) => Event::default().event("error").data(error.to_string()),
        };
        Some((Ok(sent), self))
    }
}

/// What an update means for one watcher, who was last told of version `told`.
fn steps(update: &Update, query: &WatchQuery, told: Option<Version>) -> VecDeque<Step> {
    let snapshot = update.snapshot();
    let version = snapshot.version();
    let mut steps = VecDeque::new();
    match update {
        Update::Reset(_) => {
            steps.push_back(Step::Reset(version));
            let chosen = snapshot.services().filter(|entry| query.accepts(entry));
            steps.extend(chosen.map(|entry| Step::Upsert(snapshot.clone(), entry.clone())));
            steps.push_back(Step::Synced(version));
        }
        Update::Diff(diff, _) => {
            for change in &diff.services {
                match (&change.before, &change.after) {
                    (Some(before), Some(after))
                        if query.changes && query.accepts(before) && query.accepts(after) =>
                    {
                        let (before, after) = (before.clone(), after.clone());
                        steps.push_back(Step::Change(snapshot.clone(), before, after));
                    }
                    (_, Some(after)) if query.accepts(after) => {
                        steps.push_back(Step::Upsert(snapshot.clone(), after.clone()));
                    }
                    (Some(before), _) if query.accepts(before) => {
                        steps.push_back(Step::Remove(version, before.service.key.clone()));
                    }
                    _ => {}
                }
            }
            let old =
                told.is_none_or(|told| version.seq.saturating_sub(told.seq) >= BOOKMARK_VERSIONS);
            if !steps.is_empty() || old {
                steps.push_back(Step::Synced(version));
            }
        }
    }
    steps
}

impl Step {
    fn event(self) -> WatchEvent {
        match self {
            Self::Reset(version) => WatchEvent::Reset { version: version.to_string() },
            Self::Synced(version) => WatchEvent::Synced { version: version.to_string() },
            Self::Upsert(snapshot, entry) => upsert(&snapshot, &entry),
            Self::Change(snapshot, before, after) => {
                let changes = view::instance_changes(&snapshot, &before, &after);
                let Some(changes) = changes else { return upsert(&snapshot, &after) };
                let key = &after.service.key;
                WatchEvent::Change {
                    version: snapshot.version().to_string(),
                    origin: key.origin.to_string(),
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    put: changes.put,
                    gone: changes.gone,
                }
            }
            Self::Remove(version, key) => WatchEvent::Remove {
                version: version.to_string(),
                origin: key.origin.to_string(),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            },
        }
    }
}

fn leave_out_reasons(event: &mut WatchEvent) {
    let instances = match event {
        WatchEvent::Upsert { instances, .. } | WatchEvent::Change { put: instances, .. } => {
            instances
        }
        _ => return,
    };
    instances.iter_mut().for_each(|one| one.reasons.clear());
}

fn upsert(snapshot: &Snapshot, entry: &ServiceEntry) -> WatchEvent {
    WatchEvent::Upsert {
        version: snapshot.version().to_string(),
        service: view::service(entry),
        instances: view::instances_of(snapshot, entry).collect(),
    }
}
