//! TCP fronts: accept, connect to an endpoint, copy both ways.
//!
//! A connection that finds no endpoint is reset, never left hanging: until a
//! byte has flowed nothing is lost by trying elsewhere, afterwards nothing may
//! be tried again. A connection outlives its front and its endpoint's place in
//! the service; only the two ends decide when it is over.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use portolan_runtime::Shutdown;
use socket2::{SockRef, Socket};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tracing::debug;

use crate::{
    balancer::{Balancer, CONNECT, TRIES_MAX},
    bind::{self, BACKLOG},
    plan::Front,
    server::Shared,
};

/// Pause after accept fails for want of file descriptors: the cause does not go
/// away by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound front. It listens while there are endpoints.
#[derive(Debug)]
pub(crate) struct TcpFront {
    socket: Socket,
    listening: Option<Shutdown>,
    shared: Arc<Shared>,
}

impl TcpFront {
    pub(crate) fn open(front: Front, shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self { socket: bind::tcp(front)?, listening: None, shared })
    }

    /// Begins to listen, if it does not yet.
    pub(crate) fn listen(&mut self, balancer: &Arc<Balancer>) -> io::Result<()> {
        if self.listening.is_some() {
            return Ok(());
        }
        self.socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(self.socket.try_clone()?.into())?;
        let stop = self.shared.shutdown.child_token();
        tokio::spawn(accept(listener, balancer.clone(), self.shared.clone(), stop.clone()));
        self.listening = Some(stop);
        Ok(())
    }

    /// Stops listening and keeps the port: from now on the kernel refuses.
    pub(crate) fn refuse(&mut self) {
        if let Some(stop) = self.listening.take() {
            stop.cancel();
            // On a listening socket this ends the listening at once; waiting
            // for the accepting task to drop its handle would leave a gap.
            if let Err(error) = self.socket.shutdown(std::net::Shutdown::Read) {
                debug!(%error, "a front could not be shut");
            }
        }
    }
}

impl Drop for TcpFront {
    fn drop(&mut self) {
        self.refuse();
    }
}

async fn accept(
    listener: TcpListener,
    balancer: Arc<Balancer>,
    shared: Arc<Shared>,
    stop: Shutdown,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                tokio::spawn(carry(stream, client, balancer.clone(), shared.clone()));
            }
            Err(error) => {
                if stop.is_cancelled() {
                    return;
                }
                debug!(%error, "accepting failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection from its first byte to its last.
async fn carry(
    mut client: TcpStream,
    address: SocketAddr,
    balancer: Arc<Balancer>,
    shared: Arc<Shared>,
) {
    let Ok(_permit) = shared.connections.try_acquire() else {
        shared.metrics.refused("limit");
        reset(&client);
        return;
    };
    let mut endpoint = match connect(address, &balancer, &shared).await {
        Ok(endpoint) => endpoint,
        Err(reason) => {
            shared.metrics.refused(reason);
            reset(&client);
            return;
        }
    };
    shared.metrics.connections.inc();
    let _open = Open::new(&shared);
    for stream in [&client, &endpoint] {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY");
        }
    }
    let copied = tokio::select! {
        copied = copy_bidirectional(&mut client, &mut endpoint) => copied,
        () = shared.shutdown.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if copied.is_err() {
        // One end was reset. A plain close would look to the other end like the
        // regular end of the stream.
        reset(&client);
        reset(&endpoint);
    }
}

/// Connects to the first endpoint that takes the connection.
async fn connect(
    client: SocketAddr,
    balancer: &Balancer,
    shared: &Shared,
) -> Result<TcpStream, &'static str> {
    let order = balancer.order(client.ip(), shared.clock.unix_ms());
    if order.is_empty() {
        return Err("no_endpoints");
    }
    for endpoint in order.into_iter().take(TRIES_MAX) {
        match timeout(CONNECT, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => {
                balancer.reached(client.ip(), endpoint, shared.clock.unix_ms());
                return Ok(stream);
            }
            Ok(Err(error)) => {
                debug!(%endpoint, %error, "an endpoint does not take a connection");
                let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                shared.metrics.connect_failed(if refused { "refused" } else { "error" });
            }
            Err(_) => {
                debug!(%endpoint, "an endpoint does not answer");
                shared.metrics.connect_failed("timeout");
            }
        }
    }
    Err("all_failed")
}

/// Makes the coming close a reset.
fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        debug!(%error, "SO_LINGER");
    }
}

/// Counts an open connection while it lives.
struct Open<'s>(&'s Shared);

impl<'s> Open<'s> {
    fn new(shared: &'s Shared) -> Self {
        shared.metrics.connections_open.inc();
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections_open.dec();
    }
}
