//! The face as a running thing: sockets, workers, and the follower.
//!
//! ```text
//!   Hub --update--> follower --Names--> ArcSwap <--load-- udp workers, tcp connections
//!                      |
//!                      +-- acknowledges the version for every worker
//! ```
//!
//! The follower is the only one that makes [`Names`]; a worker loads them anew
//! for each packet, so from the moment of the swap every worker serves the new
//! version and the follower may acknowledge for all of them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use domain::base::iana::{Class, Rtype};
use portolan_catalog::{Ack, Hub, Subscriber};
use portolan_model::{Asker, Face, FaceId, name};
use portolan_runtime::{BlockReady, Clock, Metrics, Readiness, Shutdown, Tasks};
use thiserror::Error;
use tokio::sync::watch;
use tracing::info;

use crate::{
    chain::{self, Built, Chain, HostsFile},
    config::FaceConfig,
    dot::{Tls, TlsError},
    enabled,
    forward::ForwardMetrics,
    message::Question,
    metrics::DnsMetrics,
    names::Names,
    responder::Responder,
    settings::Settings,
    tcp,
    trace::Step,
    udp,
};

/// Where `portolan up` listens: above the privileged ports, as 53 needs root.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1053);

/// How the face is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, UDP and TCP. Port 0 picks a free one, the same for both.
    pub listen: Vec<SocketAddr>,
    /// UDP workers for each address; `None`: one per core.
    pub workers: Option<NonZeroUsize>,
    /// DNS over TLS beside it, where, and with which certificates.
    pub tls: Vec<Tls>,
    /// What is answered. `own_addresses` is filled in when empty.
    pub settings: Settings,
    /// Server blocks; `None`: one for all names, by the settings alone. What blocks say
    /// goes before the settings.
    pub face: Option<FaceConfig>,
}

impl Default for Config {
    fn default() -> Self {
        let settings = Settings::default();
        Self { listen: vec![LISTEN], workers: None, tls: Vec::new(), settings, face: None }
    }
}

/// Why the face did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No address was given.
    #[error("the DNS face has no address to listen on")]
    NoAddress,
    /// An upstream server cannot be asked.
    #[error("the upstream server {address} cannot be used: {why}")]
    Upstream {
        /// Which.
        address: SocketAddr,
        /// Why not.
        why: &'static str,
    },
    /// DNS over TLS cannot be offered.
    #[error("DNS over TLS cannot be offered")]
    Tls(#[source] TlsError),
    /// The configuration names something that cannot be used.
    #[error("the DNS configuration cannot be used: {0}")]
    Config(String),
    /// An address cannot be listened on.
    #[error("cannot listen for DNS on {address} ({transport})")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// `UDP`, `TCP` or `TLS`.
        transport: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A face that serves.
#[derive(Clone, Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    names: Arc<ArcSwap<Names>>,
    base: Arc<Settings>,
    chain: Arc<ArcSwap<Chain>>,
    metrics: Arc<DnsMetrics>,
    forward_metrics: ForwardMetrics,
    tasks: Tasks,
    settings: watch::Sender<Arc<Settings>>,
    /// Ends the tasks of the configuration that runs.
    generation: Arc<Mutex<Shutdown>>,
}

impl Running {
    /// Where it listens for DNS over TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it answers from now.
    pub fn names(&self) -> Arc<Names> {
        self.names.load_full()
    }

    /// What becomes of a question of a client, step by step, without asking anybody.
    /// `None`: the text is no domain name.
    pub fn explain(&self, name: &str, kind: Rtype, client: IpAddr) -> Option<Vec<Step>> {
        let question = Question { name: crate::name::parse(name)?, kind, class: Class::IN };
        let (chain, names) = (self.chain.load_full(), self.names.load_full());
        if chain.block_of(&question).is_some_and(chain::Block::is_direct) {
            return Some(crate::trace::trace(&names, &question, &names.view_of(client)));
        }
        let mut steps = Vec::new();
        chain::Walk { chain, names, dry: true }.explain(question, client, &mut steps);
        Some(steps)
    }

    /// The clients that ask most, the loudest first: over the last minute or two.
    pub fn loudest(&self, count: usize) -> Vec<Asker> {
        self.metrics.askers.loudest(std::time::Instant::now(), count)
    }

    /// Takes other server blocks into use, between two queries. No socket and no
    /// readiness is touched, and what cannot be used changes nothing.
    pub fn reconfigure(&self, face: &FaceConfig) -> Result<(), String> {
        let earlier = self.chain.load();
        let parts = chain::Parts {
            metrics: &self.forward_metrics,
            tasks: &self.tasks,
            earlier: &earlier,
            stand_in: None,
        };
        let Built { chain, settings, hosts } = chain::build(Some(face), &self.base, &parts)?;
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        generation.cancel();
        *generation = self.tasks.shutdown().child_token();
        self.chain.store(Arc::new(chain));
        self.settings.send_replace(Arc::new(settings));
        watch_hosts(hosts, &self.tasks, &generation, &self.chain, &self.settings);
        Ok(())
    }
}

/// Looks at lists of hosts again and again. Names of ours in them switch compiled answers
/// off.
fn watch_hosts(
    files: Vec<HostsFile>,
    tasks: &Tasks,
    until: &Shutdown,
    chain: &Arc<ArcSwap<Chain>>,
    settings: &watch::Sender<Arc<Settings>>,
) {
    for file in files.into_iter().filter(|file| !file.reload.is_zero()) {
        let (until, chain, settings) = (until.clone(), chain.clone(), settings.clone());
        tasks.spawn("dns hosts", async move {
            let mut seen = None;
            while until.run_until_cancelled(tokio::time::sleep(file.reload)).await.is_some() {
                let state = tokio::fs::metadata(&file.path).await.ok();
                let state = state.map(|found| (found.modified().ok(), found.len()));
                if state == seen {
                    continue;
                }
                seen = state;
                let file = file.clone();
                // Its only failure is a panic, which is logged where it happens.
                tokio::task::spawn_blocking(move || file.refresh()).await.ok();
                settings.send_if_modified(|settings| {
                    let stages = chain.load().bearing(&settings.zones);
                    let changed = stages != settings.stages;
                    if changed {
                        *settings = Arc::new(Settings { stages, ..(**settings).clone() });
                    }
                    changed
                });
            }
        });
    }
}

/// Binds the sockets and starts to serve. Returns once queries are answered.
pub async fn start(
    config: Config,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    metrics: &Metrics,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<Running, StartError> {
    let Config { listen, workers, tls, mut settings, face } = config;
    if listen.is_empty() {
        return Err(StartError::NoAddress);
    }
    if let Some((address, why)) = settings.forwarding.unusable() {
        return Err(StartError::Upstream { address, why });
    }
    let workers =
        workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let mut bound = Vec::with_capacity(listen.len());
    for address in listen {
        bound.push(bind(address, workers)?);
    }
    let secure = tls.iter().map(bind_tls).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<SocketAddr> = bound.iter().map(|sockets| sockets.address).collect();
    if settings.own_addresses.is_empty() {
        settings.own_addresses =
            addresses.iter().copied().filter(|address| !address.ip().is_unspecified()).collect();
    }

    let base = Arc::new(settings);
    let forward_metrics = ForwardMetrics::register(metrics);
    let earlier = Chain::default();
    let parts =
        chain::Parts { metrics: &forward_metrics, tasks, earlier: &earlier, stand_in: None };
    let built = chain::build(face.as_ref(), &base, &parts).map_err(StartError::Config)?;
    let generation = tasks.shutdown().child_token();
    let settings = Arc::new(built.settings);
    let (reconfigured, settings_now) = watch::channel(settings.clone());
    let chain = Arc::new(ArcSwap::from_pointee(built.chain));
    watch_hosts(built.hosts, tasks, &generation, &chain, &reconfigured);
    enabled::register(metrics, chain.clone());

    let mut subscriber = hub.subscribe();
    let snapshot =
        subscriber.poll().map_or_else(|| hub.snapshot(), |update| update.snapshot().clone());
    let names = Arc::new(ArcSwap::from_pointee(Names::new(settings, snapshot)));
    let metrics = Arc::new(DnsMetrics::register(metrics));
    let responder = Responder::new(names.clone(), metrics.clone(), chain.clone());

    let mut members = Vec::new();
    for sockets in bound {
        for socket in sockets.udp {
            members
                .push(FaceId { face: Face::Dns, member: name(&format!("udp-{}", members.len())) });
            tasks.spawn("dns udp", udp::work(socket, responder.clone(), tasks.shutdown().clone()));
        }
        let connections = tcp::Connections::new(responder.clone(), tasks.shutdown().clone());
        tasks.spawn("dns tcp", tcp::accept(sockets.tcp, None, connections));
    }
    let tls_addresses = secure.iter().map(|secure| secure.address).collect();
    for SecureListener { listener, acceptor, .. } in secure {
        let connections = tcp::Connections::new(responder.clone(), tasks.shutdown().clone());
        tasks.spawn("dns tls", tcp::accept(listener, Some(acceptor), connections));
    }
    members.push(FaceId { face: Face::Dns, member: name("tcp") });

    let follower = Follower {
        subscriber,
        hub,
        clock,
        names: names.clone(),
        members,
        residue: Residue::default(),
        not_synced: Some(readiness.block("dns: the sources have not told all they know yet")),
    };
    follower.join();
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("dns follower", async move {
        let mut follower = follower;
        follower.taken_into_use();
        let mut settings = settings_now;
        loop {
            let next = tokio::select! {
                update = follower.subscriber.next() => match update {
                    Some(update) => follower.names.load().follow(&update),
                    None => break,
                },
                Ok(()) = settings.changed() => {
                    let settings = settings.borrow_and_update().clone();
                    follower.names.load().by(settings)
                }
                () = shutdown.cancelled() => break,
            };
            follower.names.store(Arc::new(next));
            follower.taken_into_use();
        }
        follower.leave();
    });
    info!(?addresses, "DNS is served");
    Ok(Running {
        addresses,
        tls_addresses,
        names,
        base,
        chain,
        metrics,
        forward_metrics,
        tasks: tasks.clone(),
        settings: reconfigured,
        generation: Arc::new(Mutex::new(generation)),
    })
}

struct SecureListener {
    address: SocketAddr,
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

/// Reads the certificate, then binds.
fn bind_tls(tls: &Tls) -> Result<SecureListener, StartError> {
    let acceptor = tls.acceptor().map_err(StartError::Tls)?;
    let address = tls.listen;
    let refused = |source| StartError::Listen { address, transport: "TLS", source };
    let listener = tcp::bind(address).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok(SecureListener { address, listener, acceptor })
}

struct Bound {
    address: SocketAddr,
    tcp: tokio::net::TcpListener,
    udp: Vec<std::net::UdpSocket>,
}

/// Binds one address for both transports. With port 0 the port that TCP got may
/// be taken for UDP; then another one is tried.
fn bind(address: SocketAddr, workers: usize) -> Result<Bound, StartError> {
    const TRIES: usize = 16;
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let refused = |transport| move |source| StartError::Listen { address, transport, source };
        let tcp = tcp::bind(address).map_err(refused("TCP"))?;
        let actual = tcp.local_addr().map_err(refused("TCP"))?;
        match udp::bind(actual, workers) {
            Ok(udp) => return Ok(Bound { address: actual, tcp, udp }),
            Err(_) if tries > 0 => {}
            Err(source) => return Err(refused("UDP")(source)),
        }
    }
}

/// Keeps the names up to date, and says so.
struct Follower {
    subscriber: Subscriber,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    names: Arc<ArcSwap<Names>>,
    members: Vec<FaceId>,
    residue: Residue,
    not_synced: Option<BlockReady>,
}

/// How long clients may go on with what they were told, across changes of the TTL.
#[derive(Clone, Copy, Debug, Default)]
struct Residue {
    ttl_ms: u64,
    /// When the last answer with an earlier, longer TTL is worth nothing any more.
    /// Unix time.
    earlier_until_ms: u64,
    earlier_ttl_ms: u64,
}

impl Residue {
    /// The residue of an acknowledgement at a time, from which on answers have a
    /// TTL. Up to then they had that of the call before.
    fn at(&mut self, ttl_ms: u64, now_ms: u64) -> u64 {
        // An answer cannot be held for longer than its TTL, whatever the clock does.
        let left = self.earlier_until_ms.saturating_sub(now_ms).min(self.earlier_ttl_ms);
        if self.ttl_ms > ttl_ms && self.ttl_ms >= left {
            self.earlier_ttl_ms = self.ttl_ms;
            self.earlier_until_ms = now_ms.saturating_add(self.ttl_ms);
        }
        self.ttl_ms = ttl_ms;
        let left = self.earlier_until_ms.saturating_sub(now_ms).min(self.earlier_ttl_ms);
        ttl_ms.max(left)
    }
}

impl Follower {
    fn join(&self) {
        for member in &self.members {
            self.hub.board().join(member.clone());
        }
    }

    fn taken_into_use(&mut self) {
        let names = self.names.load();
        let (at_ms, ttl) = (self.clock.unix_ms(), names.settings().ttl_seconds_max());
        let residue_ms = self.residue.at(u64::from(ttl) * 1000, at_ms);
        let ack = Ack { version: names.snapshot().version(), at_ms, residue_ms };
        for member in &self.members {
            self.hub.board().acknowledge(member, ack);
        }
        if names.snapshot().is_synced() {
            self.not_synced = None;
        }
    }

    fn leave(&self) {
        for member in &self.members {
            self.hub.board().leave(member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_ttl_does_not_shorten_what_was_told() {
        let mut residue = Residue::default();
        // TTL and time of each acknowledgement, and the residue of it.
        for (ttl_ms, now_ms, expected) in [
            (5_000, 1_000, 5_000),
            (300_000, 2_000, 300_000),
            (5_000, 10_000, 300_000),
            (5_000, 110_000, 200_000),
            // A TTL in between adds nothing to what is out longer.
            (30_000, 120_000, 190_000),
            (5_000, 121_000, 189_000),
            // The clock may be set back.
            (5_000, 1_000, 300_000),
            (5_000, 309_000, 5_000),
            (5_000, 400_000, 5_000),
        ] {
            assert_eq!(residue.at(ttl_ms, now_ms), expected, "{ttl_ms} at {now_ms}");
        }
    }
}
