//! DNS over TCP, with TLS or without: messages with a length in front, many on one
//! connection.
//!
//! Queries that arrive together are answered together, in their order but for
//! those that others have to be asked for: they come as they are ready. Limits
//! keep slow and greedy clients from taking what others need: connections in
//! all and per client, time for a message to arrive whole, time for a reply to
//! be taken.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use portolan_runtime::Shutdown;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::{
    askers::Sample,
    metrics::{Proto, Tallies},
    responder::{Met, Responder},
};

/// Connections in all. With [`PER_CLIENT_MAX`] it takes more than ten clients to
/// use them up.
const CONNECTIONS_MAX: usize = 1024;

/// Connections of one address; Pods behind one address are rare, and one
/// resolver needs a handful.
const PER_CLIENT_MAX: usize = 100;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long a connection may be silent between queries (CoreDNS: 10 s).
const IDLE: Duration = Duration::from_secs(10);

/// How long a query may take to arrive whole (CoreDNS: 3 s).
const READ: Duration = Duration::from_secs(3);

/// How long the client may take to make room for a reply (CoreDNS: 5 s).
const WRITE: Duration = Duration::from_secs(5);

/// Replies that are gathered before they are written.
const BATCH: usize = 64 << 10;

/// Pause after accept fails for want of file descriptors: the cause does not go
/// away by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Only past connections in TIME_WAIT are passed over by this, not listeners.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What connections share.
#[derive(Clone)]
pub(crate) struct Connections {
    responder: Responder,
    shutdown: Shutdown,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Connections {
    pub(crate) fn new(responder: Responder, shutdown: Shutdown) -> Self {
        Self { responder, shutdown, open: Arc::default() }
    }

    /// A place for one more connection of a client, or `None` at a limit.
    fn admit(&self, client: IpAddr) -> Option<Admitted> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= CONNECTIONS_MAX {
            return None;
        }
        let own = open.entry(client).or_default();
        if *own >= PER_CLIENT_MAX {
            return None;
        }
        *own += 1;
        self.responder.metrics.tcp_connections.inc();
        Some(Admitted { connections: self.clone(), client })
    }
}

/// One open connection; its drop makes room for another.
struct Admitted {
    connections: Connections,
    client: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.client);
            }
        }
        self.connections.responder.metrics.tcp_connections.dec();
    }
}

/// Accepts connections until shutdown; with `tls`, each begins with a handshake.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: Connections,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.shutdown.cancelled() => return,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accepting failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admitted) = connections.admit(client.ip().to_canonical()) else {
            connections.responder.metrics.tcp_refused.inc();
            continue;
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            let shutdown = admitted.connections.shutdown.clone();
            tokio::select! {
                () = greet(stream, tls, &admitted) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

async fn greet(stream: TcpStream, tls: Option<TlsAcceptor>, admitted: &Admitted) {
    // Replies are small and must not wait for acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY");
    }
    let Some(tls) = tls else { return serve(stream, admitted).await };
    match timeout(READ, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, admitted).await,
        Ok(Err(error)) => debug!(%error, "a handshake failed"),
        Err(_) => debug!("a handshake took too long"),
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, admitted: &Admitted) {
    let responder = &admitted.connections.responder;
    let mut random = SmallRng::from_os_rng();
    let mut input = BytesMut::with_capacity(4096);
    let mut reply = Vec::new();
    let mut output = Vec::new();
    let mut waiting = FuturesUnordered::new();
    let (mut tallies, mut sample) = (Tallies::default(), Sample::default());
    loop {
        let started = Instant::now();
        while let Some(length) = whole_message(&input) {
            input.advance(2);
            let query = input.split_to(length);
            let turn = random.random_range(0..1 << 16);
            let names = responder.names();
            if let Some(replied) = names.compiled.reply(&query, false, turn, &mut reply) {
                sample.note(turn, || admitted.client, replied.rcode);
                tallies.note(replied, query.len(), reply.len());
                frame(&reply, &mut output);
            } else {
                drop(names);
                match responder.respond(Proto::Tcp, admitted.client, &query, turn, &mut reply) {
                    // What is no query over TCP has no excuse: the stream is lost.
                    Met::Silence => return,
                    Met::Reply => frame(&reply, &mut output),
                    Met::Transfer(mut zone) => {
                        while zone.next(&mut reply) {
                            frame(&reply, &mut output);
                            if output.len() >= BATCH && !write(&mut stream, &mut output).await {
                                return;
                            }
                        }
                    }
                    Met::Later(later) => waiting.push(async move {
                        let mut reply = Vec::new();
                        responder.finish(*later, &mut reply).await.then_some(reply)
                    }),
                }
            }
            if output.len() >= BATCH && !write(&mut stream, &mut output).await {
                return;
            }
        }
        let over = (Proto::Tcp, admitted.client);
        tallies.flush(&responder.metrics, &responder.names(), over, started.elapsed());
        sample.hand_over(&responder.metrics.askers, started);
        if !write(&mut stream, &mut output).await {
            return;
        }
        // No more is read before these are done: a client that asks faster than
        // others answer is slowed down.
        while let Some(reply) = waiting.next().await {
            if let Some(reply) = reply {
                frame(&reply, &mut output);
            }
            if !write(&mut stream, &mut output).await {
                return;
            }
        }
        if !read_on(&mut stream, &mut input).await {
            return;
        }
    }
}

/// Appends a message with its length; it is never longer than 65,535 bytes.
fn frame(message: &[u8], output: &mut Vec<u8>) {
    let Ok(length) = u16::try_from(message.len()) else { return };
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(message);
}

/// The length of the first message, once it is whole.
fn whole_message(input: &[u8]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes(input.get(..2)?.try_into().ok()?));
    (input.len() >= 2 + length).then_some(length)
}

/// Reads until a message is whole. A client may be silent for [`IDLE`] before
/// one begins, and has [`READ`] for all of it once it has begun, however it
/// doles out the bytes. False: the connection is over.
async fn read_on<S: AsyncRead + Unpin>(stream: &mut S, input: &mut BytesMut) -> bool {
    if input.is_empty() {
        match timeout(IDLE, stream.read_buf(input)).await {
            Ok(Ok(length)) if length > 0 => {}
            _ => return false,
        }
    }
    let rest = async {
        while whole_message(input).is_none() {
            match stream.read_buf(input).await {
                Ok(length) if length > 0 => {}
                _ => return false,
            }
        }
        true
    };
    timeout(READ, rest).await.unwrap_or(false)
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, output: &mut Vec<u8>) -> bool {
    if output.is_empty() {
        return true;
    }
    // TLS keeps what is written until it is flushed.
    let all = async {
        stream.write_all(output).await?;
        stream.flush().await
    };
    let written = matches!(timeout(WRITE, all).await, Ok(Ok(())));
    output.clear();
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_with_their_last_byte() {
        for (input, expected) in [
            (&[][..], None),
            (&[0], None),
            (&[0, 2, 7], None),
            (&[0, 2, 7, 7], Some(2)),
            (&[0, 2, 7, 7, 0], Some(2)),
            (&[0, 0], Some(0)),
        ] {
            assert_eq!(whole_message(input), expected, "{input:?}");
        }
    }
}
