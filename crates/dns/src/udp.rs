//! DNS over UDP: one socket per worker on the same address (SO_REUSEPORT), each
//! read and answered by one task from start to end.
//!
//! The kernel spreads clients over the sockets; a worker shares nothing with the
//! others but the names it loads, and remembers what it has answered by them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use portolan_runtime::Shutdown;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tracing::debug;

use crate::{
    memo::Memo,
    metrics::Proto,
    responder::{Later, Met, Responder},
};

/// What a socket may hold while its worker is busy: about 20,000 queries. The
/// kernel gives less where `net.core.rmem_max` says so.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The longest query that is read. Larger ones are no DNS queries: a name has at
/// most 255 bytes, and EDNS options of clients are small.
const QUERY_MAX: usize = 4096;

/// Pause after receiving fails: the cause does not go away by trying at once.
const RECEIVE_PAUSE: Duration = Duration::from_millis(10);

/// Binds one socket per worker. SO_REUSEPORT lets a second server share the
/// address unnoticed, so a first bind without it looks whether it is free.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    let probe = socket(address, false)?;
    drop(probe);
    (0..workers).map(|_| UdpSocket::from_std(socket(address, true)?.into())).collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
            debug!(%error, "the receive buffer stays as it is");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Answers what comes in until shutdown. What has to be asked of others is waited
/// for in a task of its own, of which the forwarder allows only so many.
pub(crate) async fn work(socket: UdpSocket, responder: Responder, shutdown: Shutdown) {
    let mut random = SmallRng::from_os_rng();
    let own = socket.local_addr().ok();
    let socket = Arc::new(socket);
    let mut memo = Memo::default();
    let mut packet = vec![0; QUERY_MAX];
    let mut reply = Vec::with_capacity(QUERY_MAX);
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut packet) => received,
            () = shutdown.cancelled() => return,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "receiving failed");
                responder.metrics.dropped("receive_error");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                continue;
            }
        };
        // Port 0 is no client, and our own address is a forged one: a reply
        // would come back to us.
        if client.port() == 0 || Some(client) == own {
            responder.metrics.dropped("bad_source");
            continue;
        }
        let Some(query) = packet.get(..length) else { continue };
        if memo.reply(&responder, query, &mut reply) {
            send(&socket, &responder, &reply, client).await;
            continue;
        }
        let turn = random.random_range(0..1 << 16);
        match responder.respond(Proto::Udp, client.ip(), query, turn, &mut reply) {
            Met::Silence | Met::Transfer(_) => {}
            Met::Reply(tally) => {
                if let Some(tally) = tally {
                    memo.remember(query, &reply, tally);
                }
                send(&socket, &responder, &reply, client).await;
            }
            Met::Later(later) => {
                let waiting = wait(socket.clone(), responder.clone(), later, client);
                let shutdown = shutdown.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = waiting => {}
                        () = shutdown.cancelled() => {}
                    }
                });
            }
        }
    }
}

async fn wait(socket: Arc<UdpSocket>, responder: Responder, later: Box<Later>, client: SocketAddr) {
    let mut reply = Vec::new();
    responder.finish(*later, &mut reply).await;
    send(&socket, &responder, &reply, client).await;
}

async fn send(socket: &UdpSocket, responder: &Responder, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        debug!(%error, %client, "sending failed");
        responder.metrics.dropped("send_error");
    }
}
