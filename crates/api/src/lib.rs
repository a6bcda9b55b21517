//! The HTTP face: JSON, server-sent events, health and metrics.
//!
//! ```text
//!   Hub --snapshot--> view --wire--> routes --> curl, portolan get, dashboards
//!    '--subscriber--> watch (SSE)
//! ```
//!
//! Every route reads one snapshot and answers from it; nothing is cached and
//! nothing is written. The face acknowledges a version the moment it is
//! published, since each request takes the newest one.

#![forbid(unsafe_code)]

mod dns;
mod metrics;
pub mod plain;
mod problem;
mod query;
mod routes;
mod wait;
mod watch;

use std::{net::SocketAddr, sync::Arc};

use portolan_catalog::{Ack, Hub};
use portolan_model::{Face, FaceId, name};
use portolan_runtime::{Clock, Metrics, Problems, Readiness, Tasks};
use thiserror::Error;
use tokio::{net::TcpListener, sync::Semaphore};

/// How the face is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Loopback only, until the face has TLS and authentication.
    pub listen: SocketAddr,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The build, for `/v1/status`.
    pub program_version: String,
    /// Watches that may be open at once; [`WATCHES_MAX`] unless told. More are refused with 503.
    pub watches_max: usize,
    /// Where the xDS server listens, for those who ask.
    pub xds: Option<SocketAddr>,
}

/// The face could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Somebody else has the port, or the address is not this machine's.
    #[error("cannot listen on {address} for the HTTP API")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A page for probes cannot be served there.
    #[error("cannot listen on {address}, where the DNS configuration wants a page for probes")]
    Plain {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Off loopback the API would be open to everybody.
    #[error(
        "the HTTP API has no TLS and no authentication yet, so it does not listen on {address}; \
         choose a loopback address for --http-listen"
    )]
    NotLoopback {
        /// Where.
        address: SocketAddr,
    },
}

/// The face at work.
#[derive(Clone, Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
}

/// What every route needs.
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) problems: Problems,
    pub(crate) dns: Option<Arc<dyn DnsServer>>,
    pub(crate) config: Config,
    pub(crate) shutdown: portolan_runtime::Shutdown,
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) watch_counts: metrics::WatchCounts,
    pub(crate) waits: Semaphore,
    pub(crate) lists: Semaphore,
}

impl Shared {
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }
}

/// Everything the face is started with.
pub struct Parts {
    /// The catalog.
    pub hub: Arc<Hub>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/readyz` shows.
    pub readiness: Readiness,
    /// What other faces cannot show.
    pub problems: Problems,
    /// The DNS server of this process.
    pub dns: Option<Arc<dyn DnsServer>>,
}

/// Watches that may be open at once. Each process with the SDK holds one, however many services
/// it asks for; one that waits costs a socket and some KiB.
pub const WATCHES_MAX: usize = 4_096;

/// Requests that may wait for convergence at once; more are refused with 503.
/// Each is woken by every change and looks at the whole board.
pub const WAITS_MAX: usize = 256;

/// Lists that are made at once; more wait for their turn. Each may hold the
/// whole catalog as JSON.
pub const LISTS_MAX: usize = 4;

pub use dns::DnsServer;
pub use metrics::register as register_metrics;

/// Starts the face. The socket is bound when this returns.
pub async fn start(config: Config, parts: Parts, tasks: &Tasks) -> Result<Running, StartError> {
    if !config.listen.ip().is_loopback() {
        return Err(StartError::NotLoopback { address: config.listen });
    }
    let failed = |source| StartError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    metrics::register(&parts.metrics, parts.hub.clone(), parts.clock.clone());
    let hub = parts.hub.clone();
    let clock = parts.clock.clone();
    let watch_counts = metrics::WatchCounts::registered(&parts.metrics);
    let watches = Arc::new(Semaphore::new(config.watches_max));
    let shared = Arc::new(Shared {
        hub: parts.hub,
        clock: parts.clock,
        metrics: parts.metrics,
        readiness: parts.readiness,
        problems: parts.problems,
        dns: parts.dns,
        config,
        shutdown: tasks.shutdown().clone(),
        watches,
        watch_counts,
        waits: Semaphore::new(WAITS_MAX),
        lists: Semaphore::new(LISTS_MAX),
    });
    let router = routes::router(shared);
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("api", async move {
        let stop = shutdown.clone().cancelled_owned();
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
            // A process without its API must not go on looking healthy.
            tracing::error!(%error, "the HTTP API ended; ending the process");
            shutdown.cancel();
        }
    });
    tasks.spawn("api acknowledgement", acknowledge(hub, clock, tasks.shutdown().clone()));
    Ok(Running { address })
}

/// Posts each version as served.
async fn acknowledge(hub: Arc<Hub>, clock: Arc<dyn Clock>, shutdown: portolan_runtime::Shutdown) {
    let id = FaceId { face: Face::Api, member: name("http") };
    hub.board().join(id.clone());
    let mut subscriber = hub.subscribe();
    while let Some(Some(update)) = shutdown.run_until_cancelled(subscriber.next()).await {
        let version = update.snapshot().version();
        hub.board().acknowledge(&id, Ack { version, at_ms: clock.unix_ms(), residue_ms: 0 });
    }
    hub.board().leave(&id);
}
