//! `--pod-network netns`: what people on this machine reach of a Portolan that
//! is on a network of its own.
//!
//! ```text
//!  before the runtime:   bind API, DNS, xDS, HTTP ─▶ enter the node's network
//!  while it runs:        machine 127.0.0.1:7443 ─▶ node 127.0.0.1:7443   (same port inside)
//! ```
//!
//! A socket stays in the network where it was made. So the listeners of the
//! machine are bound first, with all that can go wrong with them, and then only
//! pass on what comes to the real ones, which bind the same ports inside, where
//! nobody else is. Where the proxy or a face is left out, the virtual IPs that
//! Pods cannot do without are passed on here too.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use portolan_cli::args::{Command, Part, PodNetwork};
use portolan_cluster::kubelet::netns::{self, Node};
use portolan_runtime::{Shutdown, Tasks};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::config;

/// Connections and queries under way at once, each about 20 KiB; as many as the
/// proxy's flows. More wait to be accepted, or are not answered.
const FLOWS_MAX: usize = 8_192;

/// The largest UDP payload.
const DATAGRAM_MAX: usize = 65_535;

/// How long an answer to a datagram is waited for: resolvers ask again after
/// five seconds (resolv.conf(5), `timeout`).
const ANSWER: Duration = Duration::from_secs(5);

/// Pause after accept fails for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sockets of the machine, and the network that the process is on.
pub(crate) struct Outside {
    /// The node's network.
    pub(crate) node: Arc<Node>,
    tcp: Vec<(std::net::TcpListener, SocketAddr)>,
    udp: Vec<(std::net::UdpSocket, SocketAddr)>,
}

/// Enters the node's network if the command asks for it. Ports that were left
/// to the system are set in the flags then. Must run before there are threads.
pub(crate) fn enter(command: &mut Command) -> Result<Option<Outside>> {
    let (flags, faces) = match command {
        Command::Up(up) => {
            let dns = (!up.without.contains(&Part::Dns)).then_some(&mut up.faces.dns_listen);
            let http = (!up.without.contains(&Part::Api)).then_some(&mut up.faces.http_listen);
            let xds = (!up.without.contains(&Part::Xds)).then_some(&mut up.faces.xds_listen);
            let domain = up.faces.cluster_domain.clone();
            (&mut up.cluster, Some((dns, http, xds, domain)))
        }
        Command::Cluster(cluster) => (&mut cluster.cluster, None),
        _ => return Ok(None),
    };
    if flags.pod_network != PodNetwork::Netns {
        return Ok(None);
    }
    let (pods, services) = config::ranges(flags)?;
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    let (dns, http, xds, domain) = faces.unwrap_or((None, None, None, CLUSTER_DOMAIN.to_owned()));
    bind("--api-listen", &mut flags.api_listen, &mut tcp, None)?;
    if let Some(http) = http {
        bind("--http-listen", http, &mut tcp, None)?;
    }
    if let Some(xds) = xds {
        bind("--xds-listen", xds, &mut tcp, None)?;
    }
    if let Some(dns) = dns {
        bind("--dns-listen", dns, &mut tcp, Some(&mut udp))?;
    }
    let node = netns::enter(netns::Plan { pods, services, cluster_domain: domain })?;
    Ok(Some(Outside { node, tcp, udp }))
}

/// The domain where no flag names it.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// How often another port is tried when the one that TCP got is taken for UDP.
const BIND_TRIES: usize = 16;

fn bind(
    flag: &str,
    address: &mut SocketAddr,
    tcp: &mut Vec<(std::net::TcpListener, SocketAddr)>,
    udp: Option<&mut Vec<(std::net::UdpSocket, SocketAddr)>>,
) -> Result<()> {
    config::loopback(flag, *address)?;
    let told = || format!("{flag} {address}");
    let mut listener = std::net::TcpListener::bind(*address).with_context(told)?;
    if let Some(udp) = udp {
        let mut tries = 0;
        let socket = loop {
            match std::net::UdpSocket::bind(listener.local_addr()?) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && address.port() == 0
                        && tries < BIND_TRIES =>
                {
                    tries += 1;
                    listener = std::net::TcpListener::bind(*address)?;
                }
                other => break other.with_context(told)?,
            }
        };
        socket.set_nonblocking(true)?;
        udp.push((socket, listener.local_addr()?));
    }
    listener.set_nonblocking(true)?;
    *address = listener.local_addr()?;
    tcp.push((listener, *address));
    Ok(())
}

impl Outside {
    /// Passes on what comes from the machine, until shutdown.
    pub(crate) fn serve(&mut self, tasks: &Tasks) -> Result<()> {
        let flows = Arc::new(Semaphore::new(FLOWS_MAX));
        for (listener, inside) in self.tcp.drain(..) {
            pass_tcp(TcpListener::from_std(listener)?, inside, &flows, tasks);
        }
        for (socket, inside) in self.udp.drain(..) {
            pass_udp(UdpSocket::from_std(socket)?, inside, &flows, tasks);
        }
        Ok(())
    }

    /// What goes before a command that is to run on the node's network.
    pub(crate) fn prefix(&self) -> String {
        let user = if self.node.has_users() { "-U --preserve-credentials " } else { "" };
        format!("nsenter {user}-n -t {} ", std::process::id())
    }

    /// Stands in for the proxy: the API and DNS at their virtual IPs.
    pub(crate) fn stand_in(
        &self,
        api: SocketAddr,
        dns: Option<SocketAddr>,
        tasks: &Tasks,
    ) -> Result<()> {
        let flows = Arc::new(Semaphore::new(FLOWS_MAX));
        let bind = |at: SocketAddr| {
            let listener = std::net::TcpListener::bind(at).with_context(|| at.to_string())?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(TcpListener::from_std(listener)?)
        };
        let port = portolan_cluster::fixed::API_PORT;
        pass_tcp(bind((self.node.api(), port).into())?, api, &flows, tasks);
        if let Some(dns) = dns {
            let at = SocketAddr::new(self.node.dns(), DNS_PORT);
            pass_tcp(bind(at)?, dns, &flows, tasks);
            let socket = std::net::UdpSocket::bind(at).with_context(|| at.to_string())?;
            socket.set_nonblocking(true)?;
            pass_udp(UdpSocket::from_std(socket)?, dns, &flows, tasks);
        }
        Ok(())
    }
}

/// The port of Service kube-dns.
pub(crate) const DNS_PORT: u16 = 53;

fn pass_tcp(listener: TcpListener, inside: SocketAddr, flows: &Arc<Semaphore>, tasks: &Tasks) {
    let (flows, shutdown) = (flows.clone(), tasks.shutdown().clone());
    tasks.spawn("outside", async move {
        while let Some(accepted) = shutdown.run_until_cancelled(accept(&listener, &flows)).await {
            let Some((mut client, permit)) = accepted else { return };
            let shutdown: Shutdown = shutdown.clone();
            tokio::spawn(async move {
                let _permit = permit;
                let carry = async {
                    let mut server = TcpStream::connect(inside).await?;
                    client.set_nodelay(true)?;
                    server.set_nodelay(true)?;
                    copy_bidirectional(&mut client, &mut server).await
                };
                if let Some(Err(error)) = shutdown.run_until_cancelled(carry).await {
                    tracing::debug!(%inside, %error, "a connection from outside ended");
                }
            });
        }
    });
}

async fn accept(
    listener: &TcpListener,
    flows: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = flows.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((client, _)) => return Some((client, permit)),
            Err(error) => {
                tracing::debug!(%error, "accepting failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn pass_udp(socket: UdpSocket, inside: SocketAddr, flows: &Arc<Semaphore>, tasks: &Tasks) {
    let (flows, shutdown, socket) = (flows.clone(), tasks.shutdown().clone(), Arc::new(socket));
    tasks.spawn("outside", async move {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while let Some(received) = shutdown.run_until_cancelled(socket.recv_from(&mut buffer)).await
        {
            let (length, client) = match received {
                Ok(received) => received,
                Err(error) => {
                    // An answer of before found nobody; or no memory.
                    tracing::debug!(%error, "receiving failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = flows.clone().try_acquire_owned() else { continue };
            let (query, socket) = (buffer[..length].to_vec(), socket.clone());
            tokio::spawn(async move {
                let _permit = permit;
                if let Ok(Err(error)) = timeout(ANSWER, ask(&socket, client, &query, inside)).await
                {
                    tracing::debug!(%inside, %error, "a datagram has no answer");
                }
            });
        }
    });
}

/// One question, one answer: all that DNS needs.
async fn ask(
    socket: &UdpSocket,
    client: SocketAddr,
    query: &[u8],
    inside: SocketAddr,
) -> io::Result<()> {
    let any = if inside.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
    let server = UdpSocket::bind(any).await?;
    server.connect(inside).await?;
    server.send(query).await?;
    let mut answer = vec![0; DATAGRAM_MAX];
    let length = server.recv(&mut answer).await?;
    socket.send_to(&answer[..length], client).await.map(drop)
}
