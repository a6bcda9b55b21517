//! `/v1/watch`: services and their instances as server-sent events.
//!
//! The stream holds a catalog version and nothing else. A client that reads
//! slowly gets fewer, larger steps; one that comes back with the version it had
//! gets what changed since, or a reset when that version is no longer known.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

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
use portolan_model::{Origin, ServiceKey};
use portolan_view::{self as view, Filter};
use portolan_wire::WatchEvent;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Shared, WATCHES_MAX,
    problem::Refusal,
    routes::{Checked, query},
};

/// What the watch takes in its query.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WatchQuery {
    /// `[origin:]namespace/name`; all services when absent.
    service: Option<String>,
    namespace: Option<String>,
    origin: Option<String>,
    /// The version that the client has.
    version: Option<String>,
}

impl WatchQuery {
    fn filter(&self) -> Result<Filter, Refusal> {
        let Some(service) = &self.service else {
            return Ok(Filter {
                origin: self.origin.clone(),
                namespace: self.namespace.clone(),
                ..Filter::default()
            });
        };
        let (origin, rest) = match service.split_once(':') {
            Some((origin, rest)) => (Some(origin.to_owned()), rest),
            None => (self.origin.clone(), service.as_str()),
        };
        let (namespace, name) = rest.split_once('/').ok_or_else(|| {
            Refusal::bad_request(format!("{service:?} is no service"))
                .hint("write service=NAMESPACE/NAME or service=ORIGIN:NAMESPACE/NAME")
        })?;
        Ok(Filter {
            origin,
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..Filter::default()
        })
    }
}

pub(crate) async fn watch(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    checked: Checked<WatchQuery>,
) -> Result<impl IntoResponse, Refusal> {
    let query = query(checked)?;
    let filter = query.filter()?;
    let known = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .map(ToOwned::to_owned)
        .or(query.version);
    let permit = shared.watches.clone().try_acquire_owned().map_err(|_| {
        Refusal::too_many(format!("{WATCHES_MAX} watches are open already"))
            .hint("close one, or subscribe with the SDK")
    })?;
    let subscriber = match known.and_then(|version| version.parse().ok()) {
        Some(version) => shared.hub.resume(version),
        None => shared.hub.subscribe(),
    };
    let follower = Follower { subscriber, filter, queue: VecDeque::new(), shared, _permit: permit };
    Ok(Sse::new(stream::unfold(follower, Follower::step)).keep_alive(KeepAlive::default()))
}

/// One open watch. `queue` holds the events of one update at most.
struct Follower {
    subscriber: Subscriber,
    filter: Filter,
    queue: VecDeque<WatchEvent>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn step(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while self.queue.is_empty() {
            let shutdown = self.shared.shutdown.clone();
            let update = shutdown.run_until_cancelled(self.subscriber.next()).await??;
            self.queue = events(&update, &self.filter);
        }
        let event = self.queue.pop_front()?;
        let sent = Event::default()
            .event(event.kind())
            .id(event.version())
            .json_data(&event)
            // The types serialise by construction; say so in the stream if one ever does not.
            .unwrap_or_else(|error| Event::default().event("error").data(error.to_string()));
        Some((Ok(sent), self))
    }
}

/// What an update means for one watcher.
fn events(update: &Update, filter: &Filter) -> VecDeque<WatchEvent> {
    let snapshot = update.snapshot();
    let version = snapshot.version().to_string();
    let mut events = VecDeque::new();
    match update {
        Update::Reset(_) => {
            events.push_back(WatchEvent::Reset { version: version.clone() });
            let chosen = snapshot.services().filter(|entry| filter.accepts(entry));
            events.extend(chosen.map(|entry| upsert(snapshot, entry)));
            events.push_back(WatchEvent::Synced { version });
        }
        Update::Diff(diff, _) => {
            for change in &diff.services {
                match (&change.before, &change.after) {
                    (_, Some(after)) if filter.accepts(after) => {
                        events.push_back(upsert(snapshot, after));
                    }
                    (Some(before), _) if filter.accepts(before) => {
                        events.push_back(remove(&version, &before.service.key));
                    }
                    _ => {}
                }
            }
            // A watcher resumes from the last id it saw: versions that did not
            // concern it would otherwise be sent again as a reset one day.
            if !events.is_empty() {
                events.push_back(WatchEvent::Synced { version });
            }
        }
    }
    events
}

fn upsert(snapshot: &Snapshot, entry: &ServiceEntry) -> WatchEvent {
    WatchEvent::Upsert {
        version: snapshot.version().to_string(),
        service: view::service(entry),
        instances: view::instances_of(snapshot, entry).collect(),
    }
}

fn remove(version: &str, key: &ServiceKey) -> WatchEvent {
    let origin: &Origin = &key.origin;
    WatchEvent::Remove {
        version: version.to_owned(),
        origin: origin.to_string(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    }
}
