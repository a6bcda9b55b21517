//! The face as a running thing: it follows the catalog and acknowledges.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use portolan_catalog::{Ack, Hub, Snapshot, Subscriber, Update};
use portolan_model::{ClientView, Face, FaceId, Name, Problem, name};
use portolan_runtime::{BlockReady, Clock, FaceProblems, Metrics, Readiness, Shutdown, Tasks};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval_at},
};
use tracing::info;

use crate::{
    desk::{Desk, ProblemList},
    metrics::ProxyMetrics,
    plan::Rules,
};

/// How often fronts that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// In every so many of these rounds, addresses that are not local are tried,
/// too: they seldom become so, and on a machine without the IPv6 range every
/// service has one.
const RETRY_ROUNDS_NOT_LOCAL: u64 = 30;

/// TCP connections at once. Each holds two sockets and 16 KiB.
const CONNECTIONS_MAX: usize = 16_384;

/// UDP flows at once. Each holds one socket.
const UDP_FLOWS_MAX: usize = 8_192;

/// Limits on what clients can make the proxy hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at once; more are reset.
    pub connections_max: usize,
    /// UDP flows at once; the oldest of a front make room.
    pub udp_flows_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: CONNECTIONS_MAX, udp_flows_max: UDP_FLOWS_MAX }
    }
}

/// How the face is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node that this proxy stands on: decides what is local, and its zone
    /// what is near.
    pub node: Option<Name>,
    /// Addresses that node ports are bound on.
    pub node_port_addresses: Vec<IpAddr>,
    /// Limits.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            node_port_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            limits: Limits::default(),
        }
    }
}

/// Why the face did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A limit that would let nothing through, or that no semaphore can hold.
    #[error("{limit} must be between 1 and {max}, not {value}")]
    Limit {
        /// Which.
        limit: &'static str,
        /// As given.
        value: usize,
        /// The most.
        max: usize,
    },
}

/// A face that serves.
#[derive(Clone, Debug)]
pub struct Running {
    problems: Arc<ProblemList>,
}

impl Running {
    /// Ports that clients cannot reach, and why.
    pub fn problems(&self) -> Vec<Problem> {
        self.problems.problems()
    }

    /// The same, to be shared with whoever shows problems.
    pub fn face_problems(&self) -> Arc<dyn FaceProblems> {
        self.problems.clone()
    }
}

/// What all fronts share.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: ProxyMetrics,
    pub(crate) connections: Semaphore,
    pub(crate) flows: Arc<Semaphore>,
    pub(crate) shutdown: Shutdown,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Binds the fronts of the current catalog and follows it. A front that cannot
/// be bound is a problem, not an error: the rest goes on.
pub async fn start(
    config: Config,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    metrics: &Metrics,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<Running, StartError> {
    let Config { node, node_port_addresses, limits } = config;
    for (limit, value) in
        [("connections_max", limits.connections_max), ("udp_flows_max", limits.udp_flows_max)]
    {
        let max = Semaphore::MAX_PERMITS;
        if value == 0 || value > max {
            return Err(StartError::Limit { limit, value, max });
        }
    }
    let shared = Arc::new(Shared {
        clock: clock.clone(),
        metrics: ProxyMetrics::register(metrics),
        connections: Semaphore::new(limits.connections_max),
        flows: Arc::new(Semaphore::new(limits.udp_flows_max)),
        shutdown: tasks.shutdown().clone(),
    });
    let problems = Arc::new(ProblemList::default());
    let member =
        FaceId { face: Face::Proxy, member: node.clone().unwrap_or_else(|| name("local")) };
    hub.board().join(member.clone());
    let mut follower = Follower {
        desk: Desk::new(shared.clone(), Rules::default(), problems.clone()),
        shared,
        subscriber: hub.subscribe(),
        hub,
        member,
        node,
        node_port_addresses,
        not_synced: Some(readiness.block("proxy: the sources have not told all they know yet")),
    };
    if let Some(update) = follower.subscriber.poll() {
        follower.apply(&update).await;
    }
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("proxy", async move {
        follower.run(&shutdown).await;
    });
    info!(problems = problems.problems().len(), "virtual IPs are served");
    Ok(Running { problems })
}

struct Follower {
    desk: Desk,
    shared: Arc<Shared>,
    subscriber: Subscriber,
    hub: Arc<Hub>,
    member: FaceId,
    node: Option<Name>,
    node_port_addresses: Vec<IpAddr>,
    not_synced: Option<BlockReady>,
}

impl Follower {
    async fn run(mut self, shutdown: &Shutdown) {
        // The first try has just been made.
        let mut retry = interval_at(tokio::time::Instant::now() + RETRY, RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds = 0_u64;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                update = self.subscriber.next() => match update {
                    Some(update) => self.apply(&update).await,
                    None => break,
                },
                _ = retry.tick() => {
                    rounds += 1;
                    self.desk.retry(rounds.is_multiple_of(RETRY_ROUNDS_NOT_LOCAL)).await;
                }
            }
        }
        self.hub.board().leave(&self.member);
    }

    async fn apply(&mut self, update: &Update) {
        let started = Instant::now();
        let snapshot = update.snapshot();
        let rules = self.rules(snapshot);
        match update {
            // Where the proxy stands decides over every service.
            Update::Diff(diff, _) if rules == *self.desk.rules() => {
                self.shared.metrics.service_changes.inc_by(diff.services.len() as u64);
                let changes = diff
                    .services
                    .iter()
                    .map(|change| (change.before.as_deref(), change.after.as_deref()));
                self.desk.change(changes).await;
            }
            Update::Diff(..) | Update::Reset(_) => {
                self.desk.reset(rules, snapshot.services().map(|entry| &**entry)).await;
            }
        }
        let now_ms = self.shared.clock.unix_ms();
        self.shared.metrics.sync_duration.observe(started.elapsed().as_secs_f64());
        self.shared.metrics.sync_last.set(now_ms as f64 / 1000.0);
        let ack = Ack { version: snapshot.version(), at_ms: now_ms, residue_ms: 0 };
        self.hub.board().acknowledge(&self.member, ack);
        if snapshot.is_synced() {
            self.not_synced = None;
        }
    }

    fn rules(&self, snapshot: &Snapshot) -> Rules {
        let node = self.node.as_ref().and_then(|node| snapshot.nodes().get(node));
        Rules {
            view: ClientView {
                node: self.node.clone(),
                zone: node.and_then(|node| node.zone.clone()),
                ..ClientView::default()
            },
            node_port_addresses: self.node_port_addresses.clone(),
        }
    }
}
