//! What happens to a name, as server-sent events: `snapshot` once, then `upsert` and `remove`.
//!
//! The stream compares what it told last with what there is, so whoever reads slowly gets fewer
//! events and never loses a removal. Of one change, additions come first: whoever keeps a list by
//! these events is never left with an empty one in between. A stream that is opened again begins
//! with a snapshot.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Path, State},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use portolan_sdk::{Instance, Subscription};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Shared,
    names::{Followed, Name, View},
    problem::Problem,
    read::{Checked, query},
    services::{Shown, too_many},
};

/// A comment is sent when nothing happened for so long, as the server does.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    namespace: Option<String>,
}

/// `GET /agent/v1/services/{name}/events`
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    checked: Checked<EventsQuery>,
) -> Result<impl IntoResponse, Problem> {
    let EventsQuery { namespace } = query(checked)?;
    let name = shared.names.named(&name, namespace.as_deref())?;
    let permit = shared.waits.clone().try_acquire_owned().map_err(|_| too_many())?;
    let followed = shared.names.follow(&name).await?;
    let changes = followed.subscription.clone();
    let told = followed.view();
    let first = told_whole(&name, &told);
    let follower = Follower {
        name,
        followed,
        changes,
        told,
        pending: VecDeque::from([first]),
        shared,
        _permit: permit,
    };
    let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    Ok(Sse::new(stream::unfold(follower, Follower::step)).keep_alive(heartbeat))
}

/// One open stream.
struct Follower {
    name: Name,
    followed: Arc<Followed>,
    changes: Subscription,
    told: View,
    pending: VecDeque<(&'static str, u64, Value)>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn step(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while self.pending.is_empty() {
            let shutdown = self.shared.shutdown.clone();
            shutdown.run_until_cancelled(self.changes.changed()).await??;
            let now = self.followed.view();
            if now.index != self.told.index {
                self.pending = changes(&self.name, &self.told, &now);
                self.told = now;
            }
        }
        let (kind, index, data) = self.pending.pop_front()?;
        let mut event = Event::default().event(kind).data(data.to_string());
        // A list is that of an index when all of a change was told.
        if self.pending.is_empty() {
            event = event.id(index.to_string());
        }
        Some((Ok(event), self))
    }
}

fn told_whole(name: &Name, view: &View) -> (&'static str, u64, Value) {
    let data = json!({
        "service": name.name,
        "namespace": name.namespace,
        "index": view.index,
        "degraded": view.snapshot.trouble(),
        "items": Shown::all(view.snapshot.instances()),
    });
    ("snapshot", view.index, data)
}

/// What makes two sightings the same instance.
type Key<'a> = (&'a str, IpAddr, u16, &'a str, Option<&'a str>, Option<&'a str>);

fn by_key(instances: &[Arc<Instance>]) -> BTreeMap<Key<'_>, &Arc<Instance>> {
    instances.iter().map(|one| (key(one), one)).collect()
}

fn key(one: &Instance) -> Key<'_> {
    let Instance { pod, address, port, protocol, group, version, .. } = one;
    (pod, *address, *port, protocol, group.as_deref(), version.as_deref())
}

fn changes(name: &Name, before: &View, now: &View) -> VecDeque<(&'static str, u64, Value)> {
    let (old, new) = (by_key(before.snapshot.instances()), by_key(now.snapshot.instances()));
    let event = |kind: &'static str, one: &Arc<Instance>| {
        let data = json!({
            "service": name.name,
            "namespace": name.namespace,
            "index": now.index,
            "instance": Shown::of(one),
        });
        (kind, now.index, data)
    };
    let is_other = |(key, one): &(&Key<'_>, &&Arc<Instance>)| old.get(*key) != Some(*one);
    let put = new.iter().filter(is_other).map(|(_, one)| event("upsert", one));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    put.chain(gone.map(|(_, one)| event("remove", one))).collect()
}
