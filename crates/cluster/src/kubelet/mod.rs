//! The kubelet: runs the Pods that are bound to its Node.
//!
//! ```text
//!  Pods, Services ──informers──▶ queue ──▶ Kubelet::reconcile
//!  (the API)                                  │
//!      ▲                    ┌─────────────────┴───────────────┐
//!      │                 process Pods                     hollow Pods
//!      │                 Worker (a task each)             Responder (a listener per port)
//!      │                   │ Machine decides              │
//!      │                   ├─ process: shim, logs         │
//!      │                   ├─ probes                      │
//!      │                   └─ listeners (/proc/net)       │
//!      └──── status::patch ◀── Report ◀───────────────────┘
//! ```
//!
//! A Pod whose image is `portolan.dev/process` runs its command as a local
//! process under a shim ([`supervise`]) that ends it with the kubelet, however
//! that ends. Any other Pod is hollow: it has an address and answers its name.
//! Pods bound to other Nodes are nobody's business here, except that their
//! addresses are not handed out. A reason that the kubelet finds for a Pod not
//! to be Ready is in its Ready condition, as `PTLnnnn: text; fix: ...`.
//!
//! The kubelet uses the registry as any client would; it holds nothing that it
//! could not find again after a restart.

mod addresses;
mod enclosure;
mod env;
mod furnish;
mod handover;
mod hollow;
mod host;
mod listeners;
mod logs;
mod machine;
pub mod netns;
mod network;
mod node;
mod output;
mod pod;
mod probes;
mod problem;
mod proc;
mod process;
mod reconcile;
mod sessions;
mod status;
pub mod supervise;
mod terminal;
mod volumes;
mod worker;

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use portolan_apiserver::{
    Status, kinds,
    registry::{Caller, Cidr, Registry},
};
use portolan_runtime::Tasks;
use tokio::{sync::Semaphore, time::Instant};

use self::{
    addresses::Addresses, host::Host, listeners::Sweep, logs::Logs, reconcile::Kubelet,
    sessions::Sessions,
};
pub use self::{
    logs::LOG_BYTES_DEFAULT,
    machine::RestartPacing,
    network::PodNetwork,
    pod::{HOLLOW_ANNOTATION, PROCESS_IMAGE},
    process::Shim,
};
use crate::{
    controllers::{events::Recorder, runner},
    informer::Informers,
};

/// The Node's name unless told otherwise.
pub const NODE_NAME_DEFAULT: &str = "portolan";

/// Who has the node's own addresses: no uid.
const NODE_OWNER: &str = "the node";

/// Pods that are reconciled at once. The work is small, and most of it is
/// waiting for the disk: these many writes share one fsync.
const WORKERS: usize = 32;

/// Mode of files that hold tokens, and of their folders.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Where the API is, as Pods are told.
#[derive(Clone, Debug)]
pub struct ApiDoor {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate authority behind its certificate, as PEM.
    pub ca_pem: String,
}

/// What a kubelet needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of its Node.
    pub node_name: String,
    /// Value of the Node's zone label.
    pub zone: Option<String>,
    /// Further labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// Which network Pods are on.
    pub network: PodNetwork,
    /// Ranges of Pod addresses, at most one per family.
    pub pod_cidrs: Vec<Cidr>,
    /// Folder for the files of Pods: tokens and logs.
    pub data_dir: PathBuf,
    /// Where containers without a `workingDir` run.
    pub working_dir: PathBuf,
    /// How the shim is started.
    pub shim: Shim,
    /// What the command word `portolan` stands for.
    pub executable: PathBuf,
    /// Further variables of every process: where the faces are.
    pub environment: BTreeMap<String, String>,
    /// Pauses between restarts.
    pub restart: RestartPacing,
    /// Size at which a log file is rotated.
    pub log_bytes: u64,
}

impl Config {
    /// Defaults, with the running executable as shim and as `portolan`.
    pub fn new(data_dir: PathBuf, pod_cidrs: Vec<Cidr>) -> Config {
        Config {
            node_name: NODE_NAME_DEFAULT.to_owned(),
            zone: None,
            labels: BTreeMap::new(),
            network: PodNetwork::default(),
            pod_cidrs,
            data_dir,
            working_dir: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            shim: Shim::default(),
            executable: supervise::own_executable(),
            environment: BTreeMap::new(),
            restart: RestartPacing::default(),
            log_bytes: LOG_BYTES_DEFAULT,
        }
    }
}

/// Why the kubelet does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No range can be used.
    #[error("no range of --pod-cidr can be used on this machine ({0:?})")]
    NoAddresses(Vec<String>),
    /// Its folder cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its Node object cannot be written.
    #[error("cannot write the Node {name}: {status}")]
    Node {
        /// The Node.
        name: String,
        /// The API's refusal.
        status: Status,
    },
}

/// Milliseconds of Unix time; the only place where the kubelet reads the wall clock.
fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}

/// Starts the kubelet: announces its Node, then follows the Pods bound to it
/// until the tasks' shutdown. Its Pods' processes have ended when the tasks have.
pub async fn start(
    config: Config,
    api: ApiDoor,
    registry: &Registry,
    informers: &Informers,
    events: Recorder,
    tasks: &Tasks,
) -> Result<(), StartError> {
    let pods_dir = config.data_dir.join("pods");
    let made = fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&pods_dir);
    made.map_err(|source| StartError::Folder { path: pods_dir.clone(), source })?;
    let ranges = config.network.usable(&config.pod_cidrs);
    if ranges.is_empty() {
        let asked = config.pod_cidrs.iter().map(ToString::to_string).collect();
        return Err(StartError::NoAddresses(asked));
    }
    open_more_files();
    let api = ApiDoor { address: config.network.api_door(api.address), ..api };
    let caller = Caller::system(&format!("node:{}", config.node_name)).within("kubelet");
    node::announce(&config, registry, &caller)
        .await
        .map_err(|status| StartError::Node { name: config.node_name.clone(), status })?;
    registry.add_node_agent(&config.node_name);
    let logs = Arc::new(Logs::new(pods_dir.clone(), config.log_bytes));
    registry.set_pod_logs(logs.clone());
    let mut addresses: Vec<Addresses> =
        ranges.iter().map(|range| Addresses::new(*range, rand::random())).collect();
    for reserved in config.network.reserved() {
        addresses.iter_mut().for_each(|range| range.note(NODE_OWNER, reserved));
    }
    let host = Arc::new(Host {
        api,
        registry: registry.clone(),
        caller,
        pods: informers.of(&kinds::PODS),
        services: informers.of(&kinds::SERVICES),
        addresses: Mutex::new(addresses),
        entries: Mutex::default(),
        queue: Arc::default(),
        sweep: Sweep::new(&ranges),
        logs,
        events,
        permits: Arc::new(Semaphore::new(hollow::CONNECTIONS_MAX)),
        tasks: tasks.clone(),
        began: Instant::now(),
        parent_env: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        config,
    });
    registry.set_pod_sessions(Arc::new(Sessions(Arc::downgrade(&host))));
    host.clear_leftovers(&pods_dir);
    Host::follow(&host);
    let queue = host.queue.clone();
    runner::run(tasks, "kubelet", WORKERS, (Kubelet(host.clone()), queue));
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("kubelet node", async move {
        tokio::select! {
            () = node::keep(&host.config, &host.registry, &host.caller) => {}
            () = host.sweep.run() => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(())
}

/// A listener per hollow Pod's port and a pipe and a socket per container need
/// more than the 1024 files that shells grant by default.
fn open_more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
