//! The clients that are connected: how far each is, for who waits and who asks.
//!
//! Nothing is posted when a client accepts something. Who wants to know asks, and each
//! client's stream is compared with what is shown: a change costs nothing for those
//! whom it does not concern.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use portolan_catalog::{Ack, Hub, Member, Roster};
use portolan_model::{ClientProgress, ClientStatus, Face, FaceId, Name, ObjectName, Version, name};
use portolan_runtime::Clock;

use crate::{
    interest::Listener,
    publisher::{Publisher, Reader},
    store::Kind,
    stream::{Progress, Stream},
};

/// Streams at once. Each keeps some kilobytes, and more while it is behind.
pub const STREAMS_MAX: usize = 16_384;

/// All clients.
pub(super) struct Clients {
    publisher: Arc<Publisher>,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    last_number: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
}

/// One stream with who is behind it.
pub(super) struct Client {
    id: FaceId,
    pub(super) node: Name,
    pub(super) agent: Name,
    peer: Name,
    since_ms: u64,
    /// What it is shown: known once the catalog is filled, which says who it is.
    pub(super) seen: OnceLock<Seen>,
    pub(super) listener: Listener,
    pub(super) state: Mutex<State>,
}

/// Who a client is, as the catalog knows it, and what it is shown for that.
pub(super) struct Seen {
    pub(super) pod: Option<ObjectName>,
    pub(super) reader: Reader,
}

/// What changes about it.
pub(super) struct State {
    pub(super) stream: Stream,
    /// When it was last told something of a type.
    pub(super) told_at_ms: BTreeMap<Kind, u64>,
    /// When it last accepted something.
    pub(super) accepted_at_ms: u64,
}

/// Takes the client off the list when it goes.
pub(super) struct Connected {
    clients: Arc<Clients>,
    number: u64,
    pub(super) client: Arc<Client>,
}

impl Clients {
    pub(super) fn new(
        publisher: Arc<Publisher>,
        hub: Arc<Hub>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            publisher,
            hub,
            clock,
            last_number: AtomicU64::new(0),
            connected: Mutex::default(),
        })
    }

    /// A client has said who it is. `None`: there are too many.
    pub(super) fn connect(
        self: &Arc<Self>,
        node: Name,
        agent: Name,
        peer: Name,
        stream: Stream,
    ) -> Option<Connected> {
        let now_ms = self.clock.unix_ms();
        let number = self.last_number.fetch_add(1, Relaxed) + 1;
        // One node may have many streams: gRPC opens one for each target.
        let member = name(&format!("{node}#{number}"));
        let client = Arc::new(Client {
            id: FaceId { face: Face::Xds, member },
            node,
            agent,
            peer,
            since_ms: now_ms,
            seen: OnceLock::new(),
            listener: self.publisher.interests.join(),
            state: Mutex::new(State {
                stream,
                told_at_ms: BTreeMap::new(),
                accepted_at_ms: now_ms,
            }),
        });
        let mut connected = self.connected();
        let is_full = connected.len() >= STREAMS_MAX;
        if !is_full {
            connected.insert(number, client.clone());
        }
        drop(connected);
        let connected = Connected { clients: self.clone(), number, client };
        self.changed();
        (!is_full).then_some(connected)
    }

    /// Wakes those who wait for clients.
    pub(super) fn changed(&self) {
        self.hub.board().touch();
    }

    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.connected().values().cloned().collect()
    }

    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.clients.connected().remove(&self.number);
        let Client { listener, seen, .. } = &*self.client;
        let interests = &self.clients.publisher.interests;
        let view = seen.get().map(|seen| seen.reader.view());
        interests.leave(listener, view, self.client.state().stream.interests());
        self.clients.changed();
    }
}

impl Client {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is with each type that it asked for.
    pub(super) fn progress(&self) -> Vec<(Kind, Progress)> {
        let state = self.state();
        let stream = &state.stream;
        let Some(seen) = self.seen.get() else {
            return stream.kinds().map(|kind| (kind, Progress::Stale)).collect();
        };
        seen.reader.show(|shown| {
            let of = |kind| Some((kind, stream.progress(kind, shown)?));
            stream.kinds().filter_map(of).collect()
        })
    }

    fn status(&self) -> ClientStatus {
        let progress = self.progress();
        let state = self.state();
        let types = progress.into_iter().map(|(kind, progress)| {
            let progress = match (progress, state.told_at_ms.get(&kind)) {
                (Progress::Synced, _) => ClientProgress::Synced,
                (Progress::Refused(text), _) => ClientProgress::Error { text: name(&text) },
                (Progress::Stale, Some(at)) => ClientProgress::Stale { since_ms: *at },
                (Progress::Stale, None) => ClientProgress::NotSent,
            };
            (name(kind.short()), progress)
        });
        ClientStatus {
            id: self.id.clone(),
            node: self.node.clone(),
            agent: self.agent.clone(),
            pod: self.seen.get().and_then(|seen| seen.pod.clone()),
            peer: self.peer.clone(),
            since_ms: self.since_ms,
            types: types.collect(),
        }
    }

    /// `now`: the version that was shown before this began; what is shown later is newer,
    /// never older.
    fn member(&self, publisher: &Publisher, now: Version) -> Member {
        let settled =
            self.progress().iter().all(|(_, progress)| matches!(progress, Progress::Synced));
        let state = self.state();
        let version = match state.stream.acknowledged() {
            // Who asks for nothing is not behind with anything.
            None => Some(now),
            Some(_) if settled => Some(now),
            Some(revision) => publisher.version_at(revision),
        };
        let at_ms = state.accepted_at_ms;
        Member {
            id: self.id.clone(),
            ack: version.map(|version| Ack { version, at_ms, residue_ms: 0 }),
        }
    }
}

impl Roster for Clients {
    fn members(&self) -> Vec<Member> {
        // What is published is a member of its own, so that a face without clients is at
        // work all the same.
        let now = self.publisher.version();
        let server = Member {
            id: FaceId { face: Face::Xds, member: name("server") },
            ack: Some(Ack { version: now, at_ms: self.clock.unix_ms(), residue_ms: 0 }),
        };
        let clients = self.all();
        let clients = clients.iter().map(|client| client.member(&self.publisher, now));
        [server].into_iter().chain(clients).collect()
    }

    fn clients(&self) -> Vec<ClientStatus> {
        self.all().iter().map(|client| client.status()).collect()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("connected", &self.connected().len())
            .finish_non_exhaustive()
    }
}
