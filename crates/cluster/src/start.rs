//! Start of the embedded cluster: store and API, what every cluster has, the
//! controllers, the kubelet; in this order, and each before the next returns.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use portolan_apiserver::{self as apiserver, Registry, Status, kinds, registry::Cidr};
use portolan_runtime::{Shutdown, Tasks};

use crate::{
    controllers::{self, events::Recorder},
    fixed::{self, Facts},
    informer::{Informers, Object},
    kubelet::{self, ApiDoor},
    object,
};

/// Name of the kubeconfig in the data directory.
pub const KUBECONFIG_FILE: &str = "kubeconfig";
/// Time that everything gets to end at shutdown: the kubelet gives its
/// processes three seconds. Controllers hold nothing that a restart would not
/// find again.
const TASKS_END: Duration = Duration::from_secs(6);
/// Ranges that may be endpoints beside those of Pods: the API and the DNS
/// server of a laptop listen on loopback.
const LOOPBACK_ENDPOINTS: [&str; 2] = ["127.0.0.1/32", "::1/128"];

/// How a cluster is to run.
#[derive(Clone, Default)]
pub struct Config {
    /// The API and its store. `registry.service_cidrs` and `registry.pod_cidrs`
    /// are the ranges of the cluster.
    pub api: apiserver::Config,
    /// The runner of Pods; `None` leaves all Pods to whoever sets their status.
    pub kubelet: Option<kubelet::Config>,
    /// Leaves Pods without a Node to whoever binds them.
    pub without_scheduler: bool,
}

/// Why a cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API does not start.
    #[error(transparent)]
    Api(#[from] apiserver::StartError),
    /// An object that every cluster has cannot be made.
    #[error("cannot prepare the cluster: {0}")]
    Prepare(#[source] Status),
    /// The runner of Pods does not start.
    #[error(transparent)]
    Kubelet(#[from] kubelet::StartError),
    /// The kubeconfig cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Kubeconfig {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A cluster that runs.
pub struct Running {
    /// Where the API listens.
    pub address: SocketAddr,
    /// The kubeconfig of the administrator, if there is a data directory.
    pub kubeconfig: Option<PathBuf>,
    /// Its text.
    pub kubeconfig_text: String,
    /// What lets in the administrator.
    pub admin_token: String,
    /// What clients trust.
    pub ca_pem: String,
    /// The door for this process: for tests, and for what the binary publishes.
    pub registry: Registry,
    /// The shared caches.
    pub informers: Informers,
    node: Option<String>,
    api: apiserver::Running,
    /// Ends the API; later than the rest, because processes that are asked to
    /// end talk to it (they withdraw their registration).
    api_shutdown: Shutdown,
    tasks: Tasks,
}

impl Running {
    /// Waits until Pods can be made and run: the ServiceAccount that they run as
    /// is there, and so is the Node.
    pub async fn ready(&self) {
        let accounts = self.informers.of(&kinds::SERVICE_ACCOUNTS);
        accounts.until(|accounts| accounts.get("default", "default")).await;
        if let Some(node) = &self.node {
            let ready = |node: &Object| object::is_condition_true(node, "Ready");
            let nodes = self.informers.of(&kinds::NODES);
            nodes.until(|nodes| nodes.get("", node).filter(ready)).await;
        }
    }

    /// Waits until everything has ended after the shutdown, the store last.
    pub async fn finish(&self) {
        self.tasks.finish(TASKS_END).await;
        self.api_shutdown.cancel();
        self.api.finish().await;
    }
}

/// Starts a cluster; it runs until shutdown.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Running, StartError> {
    let data_dir = config.api.data_dir.clone();
    let mut api_config = config.api;
    let loopback = LOOPBACK_ENDPOINTS.iter().filter_map(|range| range.parse::<Cidr>().ok());
    api_config.registry.pod_cidrs.extend(loopback);
    let service_cidrs = api_config.registry.service_cidrs.clone();
    let api_shutdown = Shutdown::new();
    let end_api = api_shutdown.clone().drop_guard();
    let api = apiserver::start(api_config, api_shutdown.clone()).await?;
    let tasks = Tasks::new(shutdown);
    let registry = api.registry.clone();
    let facts = Facts { api: api.address, service_cidrs };
    fixed::ensure(&registry, &facts).await.map_err(StartError::Prepare)?;
    let kubeconfig = match &data_dir {
        None => None,
        Some(folder) => {
            let path = folder.join(KUBECONFIG_FILE);
            write_private(&path, &api.kubeconfig)
                .map_err(|source| StartError::Kubeconfig { path: path.clone(), source })?;
            Some(path)
        }
    };
    let informers = Informers::new(registry.store().clone(), tasks.clone());
    let recorder = Recorder::start(registry.clone(), &tasks);
    controllers::start(&registry, &informers, &recorder, &tasks, &api.ca_pem);
    if !config.without_scheduler {
        controllers::start_scheduler(&registry, &informers, &recorder, &tasks);
    }
    let node = config.kubelet.as_ref().map(|kubelet| kubelet.node_name.clone());
    if let Some(config) = config.kubelet {
        let door = ApiDoor { address: api.address, ca_pem: api.ca_pem.clone() };
        kubelet::start(config, door, &registry, &informers, recorder, &tasks).await?;
    }
    // Also when nobody waits for the end.
    let rest = tasks.clone();
    tokio::spawn(async move {
        rest.shutdown().cancelled().await;
        rest.finish(TASKS_END).await;
        drop(end_api);
    });
    Ok(Running {
        address: api.address,
        kubeconfig,
        kubeconfig_text: api.kubeconfig.clone(),
        admin_token: api.admin_token.clone(),
        ca_pem: api.ca_pem.clone(),
        registry,
        informers,
        node,
        api,
        api_shutdown,
        tasks,
    })
}

/// Writes a file whole or not at all; only its owner may read it.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    fs::rename(draft, path)
}
