//! One stream from its first request to its last response.
//!
//! ```text
//!   requests --------> Client (its Stream) --pieces--> response body, as hyper asks for it
//!   a change of what it asked for --wake--^
//! ```
//!
//! There is no task and no queue: the session is the body of the response. While the
//! client does not read, nobody asks the body, and nothing is made for the client.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use portolan_envoy_proto::config::core::v3::Node;
use portolan_model::{Name, name};
use portolan_runtime::{Clock, Shutdown};
use tokio::sync::watch;
use tonic::{Code, Status, Streaming, body::Body};
use tracing::{debug, info, warn};

use super::{
    clients::{Clients, Connected, Seen},
    metrics::Counters,
    node,
    requests::{Asked, DiscoveryMessage},
    responses,
};
use crate::{
    publisher::Publisher,
    store::Kind,
    stream::{NAMES_MAX, Names, Request, Stream},
};

/// How long a client may take for its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(15);

/// What all sessions share.
pub(super) struct Parts {
    pub(super) publisher: Arc<Publisher>,
    pub(super) clients: Arc<Clients>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) shutdown: Shutdown,
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address, unless it came over a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// For people.
    pub(super) text: Name,
}

/// The body of the response to a stream of requests.
pub(super) fn body<T: DiscoveryMessage>(
    parts: Arc<Parts>,
    peer: Peer,
    requests: Streaming<T>,
) -> Body {
    let synced = parts.publisher.synced();
    let session = Session {
        parts,
        peer,
        requests,
        synced,
        client: None,
        node: None,
        pieces: VecDeque::new(),
        over: false,
    };
    let frames = stream::unfold(session, |mut session| async move {
        let frame = session.frame().await?;
        Some((Ok::<_, Status>(frame), session))
    });
    Body::new(StreamBody::new(frames))
}

struct Session<T> {
    parts: Arc<Parts>,
    peer: Peer,
    requests: Streaming<T>,
    synced: watch::Receiver<bool>,
    client: Option<Connected>,
    /// Who it says it is, until it is known what it is shown for that.
    node: Option<Node>,
    pieces: VecDeque<Bytes>,
    over: bool,
}

impl<T: DiscoveryMessage> Session<T> {
    /// The next piece of the body; the last one says how it ended.
    async fn frame(&mut self) -> Option<Frame<Bytes>> {
        if self.over {
            return None;
        }
        match self.piece().await {
            Ok(Some(piece)) => Some(Frame::data(piece)),
            Ok(None) => Some(self.end(&Status::new(Code::Ok, ""))),
            Err(status) => {
                info!(peer = %self.peer.text, %status, "a stream of xDS is refused");
                Some(self.end(&status))
            }
        }
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.over = true;
        self.client = None;
        let mut trailers = http::HeaderMap::new();
        // The message is ours or the client's, percent-encoded: it fits into a header.
        status.add_header(&mut trailers).ok();
        Frame::trailers(trailers)
    }

    /// `None`: the client has no more to say.
    async fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            let is_synced = *self.synced.borrow_and_update();
            // Half a catalog would look as if the other half were gone, and might not know
            // who asks.
            if is_synced {
                self.see()?;
                if self.tell() {
                    continue;
                }
            }
            let first = self.client.is_none();
            let pause = match first {
                true => Some(FIRST_REQUEST),
                false => self.pause(),
            };
            let later = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            let woken = async {
                match &self.client {
                    Some(connected) => connected.client.listener.wake.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.parts.shutdown.cancelled() => {
                    return Err(Status::unavailable("the control plane ends; connect again"));
                }
                request = self.requests.message() => match request.map_err(refused)? {
                    Some(request) => self.take(request.into_asked())?,
                    None => return Ok(None),
                },
                () = woken => {}
                changed = self.synced.changed(), if !is_synced => if changed.is_err() {
                    return Ok(None);
                },
                () = later => if first {
                    return Err(Status::deadline_exceeded("no request came"));
                },
            }
        }
    }

    /// Until something is due that nobody says.
    fn pause(&self) -> Option<Duration> {
        let due = self.client.as_ref()?.client.state().stream.due_at_ms()?;
        Some(Duration::from_millis(due.saturating_sub(self.parts.clock.unix_ms()) + 1))
    }

    /// Makes the next response, if there is anything to say.
    fn tell(&mut self) -> bool {
        let Some(Connected { client, .. }) = &self.client else { return false };
        let Some(seen) = client.seen.get() else { return false };
        let now_ms = self.parts.clock.unix_ms();
        let mut state = client.state();
        let stream = &mut state.stream;
        let Some(response) = seen.reader.show(|shown| stream.next(shown, now_ms)) else {
            return false;
        };
        state.told_at_ms.insert(response.kind, now_ms);
        self.pieces.extend(responses::pieces(&response, T::VARIANT));
        self.parts.counters.told(&response);
        true
    }

    fn take(&mut self, asked: Asked) -> Result<(), Status> {
        let Asked { node, type_url, nonce, error, names } = asked;
        self.meet(node)?;
        let Some(connected) = &self.client else { return Ok(()) };
        if type_url.is_empty() {
            return Err(Status::invalid_argument(
                "a request on this stream must name its type_url",
            ));
        }
        let Some(kind) = Kind::of_type_url(&type_url) else {
            self.not_served(&type_url, &names);
            return Ok(());
        };
        if let Some(text) = &error {
            let node = &connected.client.node;
            warn!(%node, kind = kind.short(), %text, "a client of xDS refused what it was told");
            self.parts.counters.refused(kind);
        }
        let mut state = connected.client.state();
        let before = state.stream.acknowledged();
        let taken = state.stream.take(Request { kind, nonce, error, names });
        if state.stream.acknowledged() != before {
            state.accepted_at_ms = self.parts.clock.unix_ms();
        }
        // Before anything is looked up for it: what changes from now on wakes it.
        let (interests, client) = (state.stream.take_interest(), &connected.client);
        if let Some(seen) = client.seen.get() {
            let view = seen.reader.view();
            self.parts.publisher.interests.change(&client.listener, view, interests);
        }
        drop(state);
        if nonce.is_some() {
            self.parts.clients.changed();
        }
        taken.map_err(|_| {
            Status::resource_exhausted(format!("more than {NAMES_MAX} names on one stream"))
        })
    }

    /// The first request says who asks.
    fn meet(&mut self, node: Option<Node>) -> Result<(), Status> {
        if self.client.is_some() {
            return Ok(());
        }
        let Some(node) = node else {
            return Err(Status::invalid_argument("the first request of a stream must have a node"));
        };
        if node.id.is_empty() {
            return Err(Status::invalid_argument("the node must have an id"));
        }
        let (id, agent) = node::names(&node);
        debug!(node = %id, %agent, peer = %self.peer.text, "a client of xDS");
        let (peer, stream) = (self.peer.text.clone(), Stream::new(T::VARIANT));
        let connected = self.parts.clients.connect(id, agent, peer, stream);
        self.client = Some(connected.ok_or_else(|| {
            Status::resource_exhausted(format!("{} streams are open", super::STREAMS_MAX))
        })?);
        self.node = Some(node);
        Ok(())
    }

    /// Decides what the client is shown, by what the catalog knows of it.
    fn see(&mut self) -> Result<(), Status> {
        let (Some(node), Some(connected)) = (self.node.take(), &self.client) else {
            return Ok(());
        };
        let publisher = &self.parts.publisher;
        let node::Client { pod, view } =
            node::read(&node, self.peer.address, &publisher.snapshot());
        let reader = publisher.read(view);
        let reader = reader.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let client = &connected.client;
        let interests = client.state().stream.interests().collect();
        publisher.interests.change(&client.listener, reader.view(), interests);
        // It was empty: this is the only place that fills it, once.
        client.seen.set(Seen { pod, reader }).ok();
        Ok(())
    }

    /// A type that is not ours has no resources. Delta has words for that; in state of
    /// the world silence says it.
    fn not_served(&mut self, type_url: &str, names: &Names) {
        self.parts.counters.unknown_type();
        let Names::Differently { subscribe, .. } = names else { return };
        let wanted = subscribe.iter().filter(|wanted| &***wanted != "*");
        let removed: Vec<Name> = wanted.cloned().collect();
        debug!(type_url, names = removed.len(), "a type that is not served");
        if !removed.is_empty() {
            self.pieces.push_back(responses::nothing_there(type_url, &removed));
        }
    }
}

/// What the decoder says becomes what people expect: a message that is too large
/// exhausts a resource.
fn refused(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::resource_exhausted(status.message()),
        _ => status,
    }
}

impl Peer {
    pub(super) fn tcp(address: std::net::SocketAddr) -> Self {
        Self { address: Some(address.ip().to_canonical()), text: name(&address.to_string()) }
    }
}
