//! DNS over UDP: one socket per worker on the same address (SO_REUSEPORT), each
//! read and answered by one thread of its own.
//!
//! ```text
//!   recvmmsg --up to 32 packets--> compiled names --reply--> sendmmsg
//!                                     |  not there
//!                                     +--> responder --ours--> sendmmsg
//!                                             |  others have to be asked
//!                                             +--> a task, which sends by itself
//! ```
//!
//! The kernel spreads clients over the sockets; a worker shares nothing with the
//! others but the names, which it loads once for each batch. A batch is answered
//! from start to end before the next is read, so a flood fills the socket's buffer,
//! where the kernel drops the newest, and never the memory of the process.

use std::{
    ffi::CString,
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::{
    prctl::set_name,
    socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, recvmmsg, sendmmsg},
};
use portolan_runtime::Shutdown;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::runtime::Handle;
use tracing::debug;

use crate::{
    askers::Sample,
    metrics::{Proto, Tallies},
    responder::{Later, Met, Responder},
};

/// What threads are called that answer over UDP (`top -H`): what queries cost, apart from
/// what it costs to follow changes.
pub const UDP_THREAD: &str = "dns-udp";

/// What a socket may hold while its worker is busy: about 20,000 queries. The
/// kernel gives less where `net.core.rmem_max` says so.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Packets of one batch. Beyond 8 to 32 there is little left to win (the system
/// call's share of a packet is down to a few percent), and a client of a full batch
/// waits for the whole of it.
const BATCH: usize = 32;

/// The longest query that is read. Larger ones are no DNS queries: a name has at
/// most 255 bytes, and EDNS options of clients are small. A little more than a page,
/// so that the buffers of a batch do not all fall on the same lines of the cache.
const QUERY_MAX: usize = 4096 + 64;

/// Room for a reply at first; that of a batch grows once where it has to.
const REPLY: usize = 1280;

/// Pause after receiving fails: the cause does not go away by trying at once.
const RECEIVE_PAUSE: Duration = Duration::from_millis(10);

/// How long a worker sleeps at most before it looks whether it should end, should
/// nobody wake it.
const NAP: Duration = Duration::from_secs(1);

/// Binds one socket per worker. SO_REUSEPORT lets a second server share the
/// address unnoticed, so a first bind without it looks whether it is free.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    let probe = socket(address, false)?;
    drop(probe);
    (0..workers).map(|_| Ok(socket(address, true)?.into())).collect()
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
    socket.set_read_timeout(Some(NAP))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Answers what comes in until shutdown, on a thread of its own. The thread ends also
/// when nobody waits for this any more, as when its runtime ends with a panic: a runtime
/// waits for its threads, and would for ever.
pub(crate) async fn work(socket: UdpSocket, responder: Responder, shutdown: Shutdown) {
    let socket = Arc::new(socket);
    let end = EndOfWorker { socket: socket.clone(), shutdown: shutdown.child_token() };
    let worker = {
        let (shutdown, handle) = (end.shutdown.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let common = Common { socket, responder, shutdown, handle };
            match common.socket.local_addr() {
                Ok(SocketAddr::V6(_)) => Worker::<SockaddrIn6>::new(common).run(),
                _ => Worker::<SockaddrIn>::new(common).run(),
            }
        })
    };
    shutdown.cancelled().await;
    drop(end);
    if let Err(failure) = worker.await
        && failure.is_panic()
    {
        std::panic::resume_unwind(failure.into_panic());
    }
}

/// Asks a worker to end when it is dropped.
struct EndOfWorker {
    socket: Arc<UdpSocket>,
    shutdown: Shutdown,
}

impl Drop for EndOfWorker {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // Wakes the thread; a socket that is not connected says so, and wakes it still.
        if let Err(error) = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Read) {
            debug!(%error, "shutting a UDP socket down");
        }
    }
}

/// An address of a family, as the kernel writes it.
trait Peer: SockaddrLike + Copy {
    fn address(self) -> SocketAddr;
}

impl Peer for SockaddrIn {
    fn address(self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::from(self))
    }
}

impl Peer for SockaddrIn6 {
    fn address(self) -> SocketAddr {
        SocketAddr::V6(SocketAddrV6::from(self))
    }
}

struct Common {
    socket: Arc<UdpSocket>,
    responder: Responder,
    shutdown: Shutdown,
    handle: Handle,
}

/// One socket with all that its thread needs, allocated once.
struct Worker<P: Peer> {
    common: Common,
    own: Option<SocketAddr>,
    random: SmallRng,
    tallies: Tallies,
    sample: Sample,
    receive: MultiHeaders<P>,
    send: MultiHeaders<P>,
    packets: Box<[[u8; QUERY_MAX]; BATCH]>,
    received: [Option<(usize, P)>; BATCH],
    replies: [Vec<u8>; BATCH],
    /// Who gets which reply; the first of them are in use.
    clients: [Option<P>; BATCH],
    ready: usize,
}

impl<P: Peer> Worker<P> {
    fn new(common: Common) -> Self {
        Self {
            own: common.socket.local_addr().ok(),
            random: SmallRng::from_os_rng(),
            tallies: Tallies::default(),
            sample: Sample::default(),
            receive: MultiHeaders::preallocate(BATCH, None),
            send: MultiHeaders::preallocate(BATCH, None),
            packets: Box::new([[0; QUERY_MAX]; BATCH]),
            received: [None; BATCH],
            replies: std::array::from_fn(|_| Vec::with_capacity(REPLY)),
            clients: [None; BATCH],
            ready: 0,
            common,
        }
    }

    fn run(mut self) {
        // Beside its name nothing depends on it.
        if let Err(error) = set_name(&CString::new(UDP_THREAD).unwrap_or_default()) {
            debug!(%error, "the thread keeps its name");
        }
        while !self.common.shutdown.is_cancelled() {
            match self.receive() {
                Ok(count) => self.answer(count),
                Err(error) if is_nap(&error) => {}
                Err(error) => {
                    debug!(%error, "receiving failed");
                    self.common.responder.metrics.dropped("receive_error", 1);
                    std::thread::sleep(RECEIVE_PAUSE);
                }
            }
        }
    }

    /// Waits for a packet, and takes those that are there with it.
    fn receive(&mut self) -> io::Result<usize> {
        let mut slices = self.packets.each_mut().map(|packet| [IoSliceMut::new(packet)]);
        let fd = self.common.socket.as_raw_fd();
        let flags = MsgFlags::MSG_WAITFORONE;
        let messages = recvmmsg(fd, &mut self.receive, slices.iter_mut(), flags, None)?;
        let mut count = 0;
        for (place, message) in self.received.iter_mut().zip(messages) {
            *place = message.address.map(|client| (message.bytes, client));
            count += 1;
        }
        Ok(count)
    }

    fn answer(&mut self, count: usize) {
        let started = Instant::now();
        // Loaded anew for each batch: from the moment of a swap on, nobody begins
        // to answer from older names.
        let names = self.common.responder.names();
        self.ready = 0;
        for place in 0..count {
            let Some((length, client)) = self.received.get(place).copied().flatten() else {
                continue;
            };
            let Some(packet) = self.packets.get(place).and_then(|packet| packet.get(..length))
            else {
                continue;
            };
            let address = client.address();
            // Port 0 is no client, and our own address is a forged one: a reply
            // would come back to us.
            if address.port() == 0 || Some(address) == self.own {
                self.common.responder.metrics.dropped("bad_source", 1);
                continue;
            }
            let Some(reply) = self.replies.get_mut(self.ready) else { continue };
            let turn = self.random.random_range(0..1 << 16);
            let done = match names.compiled.reply(packet, true, turn, reply) {
                Some(replied) => {
                    self.sample.note(turn, || address.ip(), replied.rcode);
                    self.tallies.note(replied, packet.len(), reply.len());
                    true
                }
                None => respond(&self.common, packet, address, turn, reply),
            };
            if done && let Some(to) = self.clients.get_mut(self.ready) {
                *to = Some(client);
                self.ready += 1;
            }
        }
        self.send();
        self.sample.flush(&self.common.responder.metrics.askers, started);
        if let Some(own) = self.own {
            let over = (Proto::Udp, own.ip());
            self.tallies.flush(&self.common.responder.metrics, &names, over, started.elapsed());
        }
    }

    /// Sends what is ready. A client that cannot be reached costs nobody else
    /// their reply.
    fn send(&mut self) {
        let (fd, ready) = (self.common.socket.as_raw_fd(), self.ready);
        let slices = self.replies.each_ref().map(|reply| [IoSlice::new(reply)]);
        let mut sent = 0;
        while sent < ready {
            let (Some(slices), Some(clients)) =
                (slices.get(sent..ready), self.clients.get(sent..ready))
            else {
                return;
            };
            let flags = MsgFlags::MSG_DONTWAIT;
            match sendmmsg(fd, &mut self.send, slices, clients, [], flags) {
                Ok(done) => sent += done.count().max(1),
                Err(error) => {
                    debug!(%error, "sending failed");
                    self.common.responder.metrics.dropped("send_error", 1);
                    sent += 1;
                }
            }
        }
    }
}

fn is_nap(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Asks the general path. True: the reply is ready to be sent.
fn respond(
    common: &Common,
    packet: &[u8],
    client: SocketAddr,
    turn: usize,
    reply: &mut Vec<u8>,
) -> bool {
    match common.responder.respond(Proto::Udp, client.ip(), packet, turn, reply) {
        Met::Silence | Met::Transfer(_) => false,
        Met::Reply => true,
        Met::Later(later) => {
            let waiting = wait(common.socket.clone(), common.responder.clone(), later, client);
            let shutdown = common.shutdown.clone();
            // The forwarder allows only so many of these.
            common.handle.spawn(async move {
                tokio::select! {
                    () = waiting => {}
                    () = shutdown.cancelled() => {}
                }
            });
            false
        }
    }
}

async fn wait(socket: Arc<UdpSocket>, responder: Responder, later: Box<Later>, client: SocketAddr) {
    let mut reply = Vec::new();
    if !responder.finish(*later, &mut reply).await {
        return;
    }
    let flags = MsgFlags::MSG_DONTWAIT.bits();
    if let Err(error) = SockRef::from(&*socket).send_to_with_flags(&reply, &client.into(), flags) {
        debug!(%error, %client, "sending failed");
        responder.metrics.dropped("send_error", 1);
    }
}
