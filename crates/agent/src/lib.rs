//! The SDK as a sidecar: a program of any language registers and finds others over HTTP on
//! loopback.
//!
//! ```text
//!                       ┌─ PUT, DELETE instances/{owner} ─▶ owners ── one record each ──▶ own Pod
//!   program ─▶ routes ──┤
//!                       └─ services, events ─▶ names ── one subscription each ──▶ server or API
//! ```
//!
//! One agent belongs to one Pod, and listens where only that Pod comes: on loopback or on a Unix
//! socket. A name is followed when it is first asked for, and let go when nobody has asked for it
//! in a while; whoever asks again in between is answered from memory. What a program sends is
//! checked whole before anything is written.

#![forbid(unsafe_code)]

mod events;
mod listen;
mod metrics;
mod names;
mod owners;
mod problem;
mod read;
mod registration;
mod routes;
mod services;

use std::{net::IpAddr, sync::Arc, time::Duration};

use portolan_runtime::{Metrics, Readiness, Shutdown, Tasks};
use portolan_sdk::{Dialect, Discovery, Registry};
use thiserror::Error;
use tokio::sync::Semaphore;

pub use self::listen::Listen;
use self::{
    metrics::Counts,
    names::{Names, Source},
    owners::Owners,
};

/// Where the agent listens unless told.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:8501";

/// How long callers get to hear that a process drains, unless told.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// Requests that may wait for a change at once, and streams of events that may be open: both
/// cost a socket and little else. A Pod has some programs, and each some services.
pub const WAITS_MAX: usize = 4_096;

/// Where instances are learnt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learn {
    /// From a Portolan server at this URL.
    Server(String),
    /// From the Kubernetes API itself.
    Direct,
}

/// How the agent is set up. What concerns the own Pod beside (its name, the way to the API) is
/// taken from the environment, as [`portolan_sdk::Builder`] tells.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Where instances are learnt from.
    pub learn: Learn,
    /// The namespace to register and to look in; from the environment unless told.
    pub namespace: Option<String>,
    /// The own Pod's addresses: a service that names none gets the first, and none may name
    /// others. Empty: not known.
    pub pod_addresses: Vec<IpAddr>,
    /// How long callers get to hear that a process drains, where the request does not tell.
    pub drain: Duration,
}

/// The agent could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Somebody else has the port or the socket, or it cannot be made.
    #[error("cannot listen on {listen}")]
    Listen {
        /// Where.
        listen: Listen,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The setting makes no sense.
    #[error(transparent)]
    Setting(#[from] portolan_sdk::Error),
}

/// A registration was not made: why, the field, and the fix.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RegisterError(String);

/// What every route needs.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) namespace: String,
    pub(crate) owners: Owners,
    pub(crate) names: Names,
    pub(crate) metrics: Metrics,
    pub(crate) counts: Counts,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) waits: Arc<Semaphore>,
}

/// The agent at work.
pub struct Running {
    /// Where it listens; the port is the one that it got.
    pub listen: Listen,
    shared: Arc<Shared>,
}

/// Starts the agent. The socket is bound when this returns; nothing has been asked of anybody.
///
/// # Errors
///
/// When it cannot listen, or the server's URL is none. That there is no way to the Kubernetes API
/// is no error without [`Learn::Direct`]: an agent that only finds others needs none.
pub async fn start(config: Config, tasks: &Tasks) -> Result<Running, StartError> {
    let registry = registry(config.namespace.as_deref()).await;
    let of_registry = registry.as_ref().ok().map(|registry| registry.namespace().to_owned());
    let namespace = config.namespace.clone().or(of_registry).unwrap_or_else(|| "default".into());
    let source = match &config.learn {
        Learn::Server(url) => Source::Server(Discovery::connect(url)?),
        Learn::Direct => Source::Direct(match &registry {
            Ok(registry) => registry.clone(),
            // The same error again, to be given away.
            Err(_) => self::registry(config.namespace.as_deref()).await?,
        }),
    };
    let failed = |source| StartError::Listen { listen: config.listen.clone(), source };
    let listener = listen::bind(&config.listen).await.map_err(failed)?;
    let listen = listener.local().map_err(failed)?;
    let metrics = Metrics::new();
    let shared = Arc::new(Shared {
        owners: Owners::new(registry),
        names: Names::new(source, &namespace),
        counts: Counts::registered_in(&metrics),
        metrics,
        readiness: Readiness::new(),
        shutdown: tasks.shutdown().clone(),
        waits: Arc::new(Semaphore::new(WAITS_MAX)),
        namespace,
        config,
    });
    metrics::register(&shared);
    let router = routes::router(shared.clone(), &listen);
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("agent", async move {
        let stop = shutdown.clone().cancelled_owned();
        if let Err(error) = listener.serve(router, stop).await {
            tracing::error!(%error, "the agent's API ended; ending the process");
            shutdown.cancel();
        }
    });
    tasks.spawn("names that nobody asks for", {
        let shared = shared.clone();
        async move { shared.names.let_go(&shared.shutdown).await }
    });
    Ok(Running { listen, shared })
}

/// For the own Pod. All dialects are read, as the server does.
async fn registry(namespace: Option<&str>) -> Result<Registry, portolan_sdk::Error> {
    let mut builder = Registry::builder();
    if let Some(namespace) = namespace {
        builder = builder.namespace(namespace);
    }
    for dialect in Dialect::all() {
        builder = builder.also_read(dialect);
    }
    builder.build().await
}

impl Running {
    /// Registers what a text in JSON says: `{"owner": ..., "services": [...]}`, the services as
    /// `PUT /agent/v1/instances/{owner}` takes them.
    ///
    /// # Errors
    ///
    /// When the text is wrong, or the registration cannot be written; the error names the field
    /// and the fix.
    pub async fn register(&self, text: &[u8]) -> Result<String, RegisterError> {
        let registered = owners::register_text(&self.shared, text).await;
        registered.map_err(|problem| RegisterError(problem.line()))
    }

    /// Takes no more calls for anybody, gives callers the time to hear of it, and takes all
    /// registrations back.
    pub async fn drain(&self) {
        let _going = self.shared.readiness.block("the agent was asked to end");
        let wait = self.shared.config.drain;
        self.shared.owners.drain(wait, &self.shared.shutdown).await;
    }
}
