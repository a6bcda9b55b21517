//! One question to one server: over UDP and, where that does not do, over TCP; or
//! over TLS.
//!
//! Each query over UDP has a socket of its own, so that its port is random (the kernel
//! draws it) beside its ID: two things that a forger has to guess (RFC 5452). What
//! does not match is passed over, as it may be forged, and the reply may still
//! come. What does match and is cut or does not parse is asked for over TCP.
//!
//! Connections are kept for the next question: one question at a time on each, which
//! every server can do. A kept one may have been closed meanwhile; then a new one is
//! made.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::base::iana::Rtype;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, UdpSocket},
    time::Instant,
};

use super::{
    Ask,
    reply::{FORMERR, NOTIMP, Reply, Unreadable},
    secure,
    upstream::Upstream,
};
use crate::wire::UDP_PAYLOAD_MAX;

/// Room for a datagram: servers may send more than we offer.
const DATAGRAM_MAX: usize = 4096;

/// Connections to one server that are kept. Questions over TCP are few.
const IDLE_MAX: usize = 16;

/// How long a connection is kept (CoreDNS: 10 s). Servers close theirs after 10 s to
/// 30 s.
const IDLE: Duration = Duration::from_secs(10);

/// A connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connections that wait for the next question.
#[derive(Default)]
pub(super) struct Idle(Mutex<Vec<(Instant, Box<dyn Stream>)>>);

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Idle")
    }
}

impl Idle {
    fn take(&self) -> Option<Box<dyn Stream>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, _)| since.elapsed() < IDLE);
        kept.pop().map(|(_, stream)| stream)
    }

    fn keep(&self, stream: Box<dyn Stream>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < IDLE_MAX {
            kept.push((Instant::now(), stream));
        }
    }
}

/// Asks, and waits for as long as the caller does.
pub(crate) async fn exchange(server: &Upstream, ask: &Ask) -> io::Result<Reply> {
    if server.force_tcp || server.tls.is_some() {
        return over_tcp(server, ask, true).await;
    }
    match over_udp(server, ask, true).await? {
        // A server from before EDNS (RFC 6891, 7).
        Some(reply) if matches!(reply.rcode, FORMERR | NOTIMP) => {
            match over_udp(server, ask, false).await? {
                Some(plain) if !plain.truncated => Ok(plain),
                _ => over_tcp(server, ask, false).await,
            }
        }
        Some(reply) if reply.truncated => {
            // Half an answer, that says so, is better than none.
            Ok(over_tcp(server, ask, true).await.unwrap_or(reply))
        }
        Some(reply) => Ok(reply),
        None => over_tcp(server, ask, true).await,
    }
}

/// Where we ask from.
fn source(server: &Upstream) -> SocketAddr {
    let any: IpAddr = match server.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(server.source.unwrap_or(any), 0)
}

/// `None`: a reply came that does not parse.
async fn over_udp(server: &Upstream, ask: &Ask, edns: bool) -> io::Result<Option<Reply>> {
    let socket = UdpSocket::bind(source(server)).await?;
    // Only what comes from this server is received.
    socket.connect(server.address).await?;
    let id = rand::random();
    socket.send(&query(ask, id, edns)).await?;
    let mut packet = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut packet).await?;
        match Reply::read(packet.get(..length).unwrap_or_default(), id, ask) {
            Ok(reply) => return Ok(Some(reply)),
            Err(Unreadable::Malformed) => return Ok(None),
            Err(Unreadable::NotOurs) => {}
        }
    }
}

async fn over_tcp(server: &Upstream, ask: &Ask, edns: bool) -> io::Result<Reply> {
    let [kept, made] = &server.connections;
    if let Some(stream) = server.idle.take() {
        kept.inc();
        if let Ok(reply) = on_stream(server, stream, ask, edns).await {
            return Ok(reply);
        }
    }
    made.inc();
    let stream = connect(server).await?;
    on_stream(server, stream, ask, edns).await
}

async fn connect(server: &Upstream) -> io::Result<Box<dyn Stream>> {
    let socket = if server.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if server.source.is_some() {
        socket.bind(source(server))?;
    }
    let stream = socket.connect(server.address).await?;
    stream.set_nodelay(true)?;
    Ok(match &server.tls {
        None => Box::new(stream),
        Some(tls) => Box::new(secure::connect(tls, stream).await?),
    })
}

async fn on_stream(
    server: &Upstream,
    mut stream: Box<dyn Stream>,
    ask: &Ask,
    edns: bool,
) -> io::Result<Reply> {
    let id = rand::random();
    let query = query(ask, id, edns);
    let mut message = u16::try_from(query.len()).unwrap_or_default().to_be_bytes().to_vec();
    message.extend(query);
    stream.write_all(&message).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    let reply = Reply::read(&packet, id, ask).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "the reply does not parse, over TCP either")
    })?;
    server.idle.keep(stream);
    Ok(reply)
}

/// The query as we send it. EDNS options of the client are for us, not for the
/// server (RFC 6891, 6.2.1): cookies would be wrong there, and a client subnet
/// tells what need not be told.
pub(super) fn query(ask: &Ask, id: u16, edns: bool) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let checking_disabled = if ask.checking_disabled { 0x10 } else { 0 };
    let mut packet = vec![high, low, 0x01, checking_disabled, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    ask.question(&mut packet);
    if edns {
        packet.push(0);
        packet.extend(Rtype::OPT.to_int().to_be_bytes());
        packet.extend(UDP_PAYLOAD_MAX.to_be_bytes());
        packet.extend([0, 0, if ask.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    }
    packet
}
