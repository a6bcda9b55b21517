//! `kubectl port-forward`: connections to the ports of a Pod, over one WebSocket.
//!
//! ```text
//!  client ─▶ WebSocket ─▶ SPDY frames ─▶ streams ─▶ a pair per connection
//!         ◀───────── send ◀─ frames ◀───────────── forward ◀──▶ the Pod's port
//! ```
//!
//! For every connection the client opens two streams with the same `requestid`:
//! `error`, on which we say what went wrong, and `data` (k8s.io/client-go
//! `tools/portforward`). The client resets the data stream when it is done, and
//! then waits for the end of the error stream.
//!
//! Receiving and sending are apart, so that a Pod that reads slowly can hold back
//! the client but not what it prints itself.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use portolan_runtime::Shutdown;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};

use super::spdy::{self, Decoder, Encoder, Frame};
use crate::registry::{Connection, PodSessions, object};

/// The subprotocol: the bytes of an SPDY connection that forwards ports.
pub(super) const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// Connections at a time over one WebSocket.
const CONNECTIONS_MAX: usize = 256;
/// Pieces that wait for a Pod that does not read; then the client waits.
const QUEUED_MAX: usize = 16;
/// How long it waits before that connection is given up, because all others wait with it.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Frames that wait for the client.
const FRAMES_MAX: usize = 32;
/// Bytes of a Pod in one frame.
const FRAME_BYTES: usize = 32 << 10;
/// Without a sign of life of the client for this long it has gone (client-go pings every 10 s).
const SILENCE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// Forwards until the client leaves.
pub(super) async fn run<S>(
    socket: WebSocketStream<S>,
    pod: Value,
    sessions: Arc<dyn PodSessions>,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, messages) = socket.split();
    let (frames, queue) = mpsc::channel(FRAMES_MAX);
    let streams = Streams {
        pod: Arc::new(pod),
        sessions,
        frames,
        encoder: Encoder::default(),
        pairs: HashMap::new(),
        open: HashMap::new(),
        tasks: JoinSet::new(),
    };
    tokio::select! {
        outcome = streams.receive(messages) => if let Err(why) = outcome {
            tracing::debug!(why, "a port-forward ended");
        },
        () = send(sink, queue) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn send(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut queue: mpsc::Receiver<Bytes>,
) {
    while let Some(frame) = queue.recv().await {
        if sink.send(Message::Binary(frame)).await.is_err() {
            return;
        }
    }
}

/// Streams of one request that have come so far.
#[derive(Default)]
struct Pair {
    error: Option<u32>,
    data: Option<u32>,
}

/// A data stream that is connected.
struct Open {
    /// Closed when the client has said all; `None` then.
    input: Option<mpsc::Sender<Bytes>>,
    /// Cancelled when the client wants no more.
    reset: Shutdown,
}

struct Streams {
    pod: Arc<Value>,
    sessions: Arc<dyn PodSessions>,
    frames: mpsc::Sender<Bytes>,
    encoder: Encoder,
    pairs: HashMap<String, Pair>,
    open: HashMap<u32, Open>,
    /// Ended with this.
    tasks: JoinSet<u32>,
}

impl Streams {
    async fn receive(
        mut self,
        mut messages: impl Stream<Item = Result<Message, Error>> + Unpin,
    ) -> Result<(), String> {
        let mut decoder = Decoder::new();
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(SILENCE_MAX, messages.next()) => message,
                Some(done) = self.tasks.join_next() => {
                    if let Ok(stream) = done {
                        self.open.remove(&stream);
                    }
                    continue;
                }
            };
            match message {
                Ok(Some(Ok(Message::Binary(bytes)))) => decoder.push(&bytes),
                Ok(Some(Ok(Message::Close(_))) | None) => return Ok(()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Err(_) => return Err("the client says nothing".to_owned()),
            }
            while let Some(frame) = decoder.next()? {
                if frame == Frame::GoAway {
                    return Ok(());
                }
                self.take(frame).await;
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Open { stream, headers, fin } => self.opened(stream, &headers, fin).await,
            Frame::Data { stream, data, fin } => self.data(stream, data, fin).await,
            Frame::Reset { stream } => {
                if let Some(open) = self.open.remove(&stream) {
                    open.reset.cancel();
                }
                self.pairs.retain(|_, pair| ![pair.error, pair.data].contains(&Some(stream)));
            }
            // Even ids would be answers to pings of ours; there are none.
            Frame::Ping { id } if id % 2 == 1 => self.say(spdy::ping(id)).await,
            Frame::Ping { .. } | Frame::GoAway | Frame::Other => {}
        }
    }

    async fn say(&self, frame: Bytes) {
        // The other end goes only with all of this.
        self.frames.send(frame).await.ok();
    }

    async fn opened(&mut self, stream: u32, headers: &[(String, String)], fin: bool) {
        let header = |name| headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        let port = header("port").parse::<u16>().ok().filter(|port| *port != 0);
        let kind = header("streamtype");
        let full = self.pairs.len() + self.open.len() >= CONNECTIONS_MAX;
        let (Some(port), "error" | "data", false) = (port, kind, full) else {
            tracing::debug!(?headers, full, "a stream of a port-forward is refused");
            return self.say(spdy::reset(stream)).await;
        };
        let reply = self.encoder.reply(stream);
        self.say(reply).await;
        let request = header("requestid").to_owned();
        let pair = self.pairs.entry(request.clone()).or_default();
        let place = if kind == "error" { &mut pair.error } else { &mut pair.data };
        if place.replace(stream).is_some() {
            tracing::debug!(request, kind, "a stream of a port-forward came twice");
        }
        if let Pair { error: Some(error), data: Some(data) } = *pair {
            self.pairs.remove(&request);
            self.connect(port, error, data);
            if fin && kind == "data" {
                self.data(data, Bytes::new(), true).await;
            }
        }
    }

    fn connect(&mut self, port: u16, error: u32, data: u32) {
        let (input, queue) = mpsc::channel(QUEUED_MAX);
        let reset = Shutdown::new();
        self.open.insert(data, Open { input: Some(input), reset: reset.clone() });
        let (sessions, pod, frames) =
            (self.sessions.clone(), self.pod.clone(), self.frames.clone());
        self.tasks.spawn(async move {
            let forwarded = async {
                match sessions.connect(Value::clone(&pod), port).await {
                    Ok(connection) => {
                        forward(connection, data, queue, &frames).await;
                        None
                    }
                    Err(why) => Some(format!(
                        "error forwarding port {port} to pod {}, uid {}: {why}",
                        object::name(&pod),
                        object::uid(&pod)
                    )),
                }
            };
            let failure = tokio::select! {
                failure = forwarded => failure,
                () = reset.cancelled() => None,
            };
            let text = failure.as_deref().unwrap_or_default();
            frames.send(spdy::data(error, text.as_bytes(), true)).await.ok();
            if failure.is_some() {
                frames.send(spdy::reset(data)).await.ok();
            }
            data
        });
    }

    async fn data(&mut self, stream: u32, data: Bytes, fin: bool) {
        let Some(open) = self.open.get_mut(&stream) else { return };
        if let (Some(input), false) = (&open.input, data.is_empty()) {
            match tokio::time::timeout(STALL_MAX, input.send(data)).await {
                Ok(Ok(())) => {}
                // The Pod reads no more.
                Ok(Err(_)) => open.input = None,
                Err(_) => {
                    open.reset.cancel();
                    self.open.remove(&stream);
                    return self.say(spdy::reset(stream)).await;
                }
            }
        }
        if fin {
            open.input = None;
        }
    }
}

/// Copies both ways until the Pod has said all and heard all.
async fn forward(
    connection: Pin<Box<dyn Connection>>,
    stream: u32,
    mut queue: mpsc::Receiver<Bytes>,
    frames: &mpsc::Sender<Bytes>,
) {
    let (mut from_pod, mut to_pod) = tokio::io::split(connection);
    let up = async {
        while let Some(data) = queue.recv().await {
            if to_pod.write_all(&data).await.is_err() {
                return;
            }
        }
        // The Pod may have closed its side already.
        to_pod.shutdown().await.ok();
    };
    let down = async {
        let mut buffer = vec![0; FRAME_BYTES];
        // A connection that breaks off has ended; the client sees no difference.
        while let Ok(count @ 1..) = from_pod.read(&mut buffer).await {
            if frames.send(spdy::data(stream, &buffer[..count], false)).await.is_err() {
                return;
            }
        }
        frames.send(spdy::data(stream, &[], true)).await.ok();
    };
    tokio::join!(up, down);
}
