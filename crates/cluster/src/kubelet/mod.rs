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
mod env;
mod hollow;
mod listeners;
mod logs;
mod machine;
mod network;
mod node;
mod pod;
mod probes;
mod problem;
mod proc;
mod process;
mod status;
pub mod supervise;
mod worker;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    io::Write,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use portolan_apiserver::{
    Status, kinds,
    registry::{
        Caller, Cidr, DeleteOptions, Patch, Preconditions, Registry, Subresource, WriteOptions,
    },
};
use portolan_runtime::Tasks;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use self::{
    addresses::Addresses,
    env::{Env, Given, Lookup},
    hollow::Responder,
    listeners::Sweep,
    logs::Logs,
    machine::Moment,
    pod::Pod,
    status::Report,
    worker::{Outcome, Worker},
};
pub use self::{
    logs::LOG_BYTES_DEFAULT,
    machine::RestartPacing,
    network::PodNetwork,
    pod::{HOLLOW_ANNOTATION, PROCESS_IMAGE},
    process::Shim,
};
use crate::{
    controllers::{
        events::Recorder,
        runner::{self, Next},
    },
    informer::{Change, Informer, Informers, ObjectKey},
    object,
    queue::Queue,
};

/// The Node's name unless told otherwise.
pub const NODE_NAME_DEFAULT: &str = "portolan";

/// Pods that are reconciled at once. The work is small, and most of it is
/// waiting for the disk: these many writes share one fsync.
const WORKERS: usize = 32;

/// Pause before another look for a free address.
const ADDRESS_RETRY: Duration = Duration::from_secs(1);

/// Pause before another try to bind a hollow Pod's blocked ports.
const BLOCKED_RETRY: Duration = Duration::from_secs(3);

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

/// A Pod that the kubelet acts on.
enum Entry {
    Process(watch::Sender<Option<Arc<Value>>>),
    Hollow(Responder),
}

#[derive(Default)]
struct Entries {
    by_uid: HashMap<String, Entry>,
    /// The Pod that has a name now.
    uids: BTreeMap<ObjectKey, String>,
}

/// What all parts of the kubelet share.
pub(crate) struct Host {
    config: Config,
    api: ApiDoor,
    registry: Registry,
    caller: Caller,
    pods: Informer,
    services: Informer,
    addresses: Mutex<Vec<Addresses>>,
    entries: Mutex<Entries>,
    queue: Arc<Queue<ObjectKey>>,
    sweep: Sweep,
    logs: Arc<Logs>,
    events: Recorder,
    permits: Arc<Semaphore>,
    tasks: Tasks,
    began: Instant,
    parent_env: Env,
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
    let caller = Caller::system(&format!("node:{}", config.node_name));
    node::announce(&config, registry, &caller)
        .await
        .map_err(|status| StartError::Node { name: config.node_name.clone(), status })?;
    registry.add_node_agent(&config.node_name);
    let logs = Arc::new(Logs::new(pods_dir.clone(), config.log_bytes));
    registry.set_pod_logs(logs.clone());
    let addresses = ranges.iter().map(|range| Addresses::new(*range, rand::random())).collect();
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

impl Host {
    fn now(&self) -> Moment {
        let passed = self.began.elapsed().as_millis();
        Moment { ms: u64::try_from(passed).unwrap_or(u64::MAX), unix_s: unix_ms() / 1000 }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<Addresses>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(logs::safe(uid))
    }

    /// Folders of Pods that went while no kubelet was there.
    fn clear_leftovers(&self, pods_dir: &Path) {
        let known: HashSet<String> =
            self.pods.list(None).iter().map(|pod| logs::safe(object::uid(pod))).collect();
        for entry in fs::read_dir(pods_dir).into_iter().flatten().flatten() {
            if !known.contains(&*entry.file_name().to_string_lossy())
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "a Pod's files stay behind");
            }
        }
    }

    /// Puts into the queue what has changed. Runs in informer callbacks: must
    /// not look at informers while it holds a lock.
    fn follow(host: &Arc<Host>) {
        let this = host.clone();
        host.pods.on_change(move |change| this.pod_changed(change));
        let this = host.clone();
        host.services.on_change(move |change| {
            let namespace = change.key.namespace.clone();
            let entries = this.entries();
            let near = entries.uids.range(ObjectKey::new(&namespace, "")..);
            for (key, uid) in near.take_while(|(key, _)| key.namespace == namespace) {
                if let Some(Entry::Hollow(_)) = entries.by_uid.get(uid) {
                    this.queue.add(key.clone());
                }
            }
        });
    }

    fn pod_changed(&self, change: &Change<'_>) {
        if let Some(pod) = change.new {
            let mut ranges = self.addresses();
            for address in pod::addresses(pod) {
                ranges.iter_mut().for_each(|range| range.note(object::uid(pod), address));
            }
        }
        let replaced = change
            .old
            .filter(|old| change.new.is_none_or(|new| object::uid(new) != object::uid(old)));
        if let Some(old) = replaced
            && !self.entries().by_uid.contains_key(object::uid(old))
        {
            self.release(object::uid(old));
        }
        let ours = |pod: &&Arc<Value>| object::text(pod, "/spec/nodeName") == self.config.node_name;
        if change.sides().any(|pod| ours(&pod)) {
            self.queue.add(change.key.clone());
        }
    }

    fn release(&self, uid: &str) {
        self.addresses().iter_mut().for_each(|range| range.release(uid));
    }

    /// An address of each range; `Err` names the range that has none left.
    fn take_addresses(&self, pod: &Pod) -> Result<Vec<IpAddr>, String> {
        if pod.host_network {
            return Ok(vec![self.config.network.host_ip()]);
        }
        let mut taken = Vec::new();
        for range in self.addresses().iter_mut() {
            let wanted = pod.addresses.iter().copied().find(|a| range.range().contains(*a));
            match range.take(&pod.uid, wanted) {
                Some(address) => taken.push(address),
                None => return Err(range.range().to_string()),
            }
        }
        Ok(taken)
    }

    /// What every container of a Pod is told; writes its token.
    fn given(&self, pod: &Pod) -> Result<Given, String> {
        let folder = self.folder(&pod.uid);
        let (token, ca) = (folder.join("token"), folder.join("ca.crt"));
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder)?;
            let minted = self.registry.mint_pod_token(&pod.namespace, &pod.name, &pod.uid);
            write_private(&token, minted.as_bytes())?;
            write_private(&ca, self.api.ca_pem.as_bytes())
        };
        write().map_err(|error| format!("{}: {error}", folder.display()))?;
        let api = self.api.address;
        let (host, port) = (api.ip().to_string(), api.port().to_string());
        let own = [
            ("PORTOLAN_API", format!("https://{api}")),
            ("PORTOLAN_TOKEN_FILE", token.display().to_string()),
            ("PORTOLAN_CA_FILE", ca.display().to_string()),
            ("PORTOLAN_BIN", self.config.executable.display().to_string()),
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port.clone()),
            ("KUBERNETES_SERVICE_PORT_HTTPS", port),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let own = self.config.environment.clone().into_iter().chain(own).collect();
        Ok(Given { parent: self.parent_env.clone(), own })
    }

    fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        self.events.report("kubelet", &pod.raw, "Warning", reason, message);
    }

    fn links(&self, pod: &Pod) -> Env {
        if object::at(&pod.raw, "/spec/enableServiceLinks") == Some(&Value::Bool(false)) {
            return Env::new();
        }
        let services = self.services.list(Some(&pod.namespace));
        env::service_links(services.iter().map(|service| &**service))
    }

    async fn patch_status(&self, pod: &Pod, patch: Value) -> Result<Value, Status> {
        let (part, options) = (Some(Subresource::Status), WriteOptions::default());
        let patch = Patch::Merge(patch);
        self.registry
            .patch(&self.caller, &kinds::PODS, &pod.namespace, &pod.name, part, patch, &options)
            .await
    }

    /// Confirms that nothing of a Pod runs any more. Fine if it is gone already.
    async fn delete_pod(&self, pod: &Pod) -> Result<(), Status> {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Preconditions { uid: Some(pod.uid.clone()), resource_version: None },
            ..DeleteOptions::default()
        };
        let (namespace, name) = (&pod.namespace, &pod.name);
        match self.registry.delete(&self.caller, &kinds::PODS, namespace, name, &options).await {
            Ok(_) => Ok(()),
            // Gone, or another Pod has the name by now.
            Err(status) if status.is_not_found() || status.code == 409 => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Everything of a Pod that is gone and whose processes have ended.
    fn clean_up(&self, uid: &str) {
        self.config.network.detach(uid);
        self.release(uid);
        self.logs.remove(uid);
        let folder = self.folder(uid);
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "a Pod's files stay behind");
        }
    }

    /// The Pod with this uid has lost its name: its object is gone.
    fn let_go(self: &Arc<Self>, uid: &str) {
        let mut entries = self.entries();
        match entries.by_uid.get(uid) {
            // It cleans up when its processes have ended.
            Some(Entry::Process(updates)) => {
                if updates.is_closed() {
                    entries.by_uid.remove(uid);
                    drop(entries);
                    self.clean_up(uid);
                } else {
                    updates.send_replace(None);
                }
            }
            Some(Entry::Hollow(responder)) => {
                responder.leave();
                let (this, uid) = (self.clone(), uid.to_owned());
                self.tasks.spawn("hollow pod", async move {
                    tokio::select! {
                        () = tokio::time::sleep(hollow::LINGER) => {}
                        () = this.tasks.shutdown().cancelled() => {}
                    }
                    this.entries().by_uid.remove(&uid);
                    this.clean_up(&uid);
                });
            }
            None => {
                drop(entries);
                self.clean_up(uid);
            }
        }
    }

    fn start_worker(self: &Arc<Self>, pod: Pod, addresses: Vec<IpAddr>) {
        let (updates, receiver) = watch::channel(Some(pod.raw.clone()));
        let uid = pod.uid.clone();
        self.entries().by_uid.insert(uid.clone(), Entry::Process(updates));
        let worker = Worker::new(self.clone(), pod, addresses, receiver);
        let this = self.clone();
        self.tasks.spawn("pod", async move {
            // An ended Pod's entry stays until its object goes: `let_go` finds
            // that nobody listens and cleans up.
            if worker.run().await == Outcome::Gone {
                this.entries().by_uid.remove(&uid);
                this.clean_up(&uid);
            }
        });
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    options.open(path)?.write_all(content)
}

impl Lookup for Host {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.registry.get(&kinds::CONFIG_MAPS, namespace, name).ok().map(Arc::new)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.registry.get(&kinds::SECRETS, namespace, name).ok().map(Arc::new)
    }
}

/// Brings one Pod after the other to what its object asks for.
struct Kubelet(Arc<Host>);

impl runner::Worker for Kubelet {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Status> {
        let host = &self.0;
        let pod = host.pods.get(&key.namespace, &key.name);
        let pod = pod.filter(|pod| object::text(pod, "/spec/nodeName") == host.config.node_name);
        let former = {
            let mut entries = host.entries();
            match &pod {
                Some(pod) => entries.uids.insert(key.clone(), object::uid(pod).to_owned()),
                None => entries.uids.remove(key),
            }
        };
        if let Some(former) = former.filter(|f| pod.as_ref().is_none_or(|p| object::uid(p) != f)) {
            host.let_go(&former);
        }
        let Some(pod) = pod else { return Ok(Next::Done) };
        let known = match host.entries().by_uid.get(object::uid(&pod)) {
            Some(Entry::Process(updates)) => {
                updates.send_replace(Some(pod.clone()));
                // Nobody there: it has ended, and only its object is left.
                if !updates.is_closed() || !object::is_deleting(&pod) {
                    return Ok(Next::Done);
                }
                false
            }
            Some(Entry::Hollow(_)) => true,
            None => false,
        };
        let pod = Pod::of(pod);
        if pod.deletion_grace_s.is_some() {
            if let Some(Entry::Hollow(responder)) = host.entries().by_uid.get(&pod.uid) {
                responder.leave();
            }
            return self.end(&pod).await;
        }
        if known || !pod.has_ended() { self.run(key, pod, known).await } else { Ok(Next::Done) }
    }
}

impl Kubelet {
    /// Nothing of the Pod runs: it may go.
    async fn end(&self, pod: &Pod) -> Result<Next, Status> {
        if pod.deletion_grace_s == Some(0)
            && !object::list(&pod.raw, "/metadata/finalizers").is_empty()
        {
            // Confirmed already; whoever holds the finalizer is next.
            return Ok(Next::Done);
        }
        self.0.delete_pod(pod).await.map(|()| Next::Done)
    }

    async fn run(&self, key: &ObjectKey, pod: Pod, known: bool) -> Result<Next, Status> {
        let host = &self.0;
        let addresses = match host.take_addresses(&pod) {
            Ok(addresses) => addresses,
            Err(range) => return self.without_address(&pod, &range).await,
        };
        if let Err(error) = host.config.network.attach(&pod.uid, &addresses) {
            return Err(Status::internal(format!("cannot attach Pod {key}: {error}")));
        }
        if pod.is_process() {
            host.start_worker(pod, addresses);
            return Ok(Next::Done);
        }
        self.run_hollow(pod, &addresses, known).await
    }

    async fn run_hollow(
        &self,
        pod: Pod,
        addresses: &[IpAddr],
        known: bool,
    ) -> Result<Next, Status> {
        let host = &self.0;
        let services = host.services.list(Some(&pod.namespace));
        let wanted = hollow::wanted_ports(&pod, services.iter().map(|service| &**service));
        let host_ip = host.config.network.host_ip();
        let address = addresses.first().copied().unwrap_or(host_ip);
        let (report, blocked) = {
            let mut entries = host.entries();
            let entry = entries.by_uid.entry(pod.uid.clone()).or_insert_with(|| {
                Entry::Hollow(Responder::new(&pod.name, address, host.permits.clone()))
            });
            let Entry::Hollow(responder) = entry else { return Ok(Next::Done) };
            responder.listen_on(&wanted);
            let report = responder.report(&pod, addresses, host_ip, host.now().unix_s);
            (report, !responder.blocked().is_empty())
        };
        if !known && object::annotation(&pod.raw, HOLLOW_ANNOTATION) != Some("true") {
            self.mark_hollow(&pod).await?;
        }
        self.write(&pod, &report).await?;
        Ok(if blocked { Next::After(BLOCKED_RETRY) } else { Next::Done })
    }

    async fn mark_hollow(&self, pod: &Pod) -> Result<(), Status> {
        let host = &self.0;
        let mark =
            json!({"metadata": {"uid": pod.uid, "annotations": {HOLLOW_ANNOTATION: "true"}}});
        let (mark, options) = (Patch::Merge(mark), WriteOptions::default());
        let (namespace, name) = (&pod.namespace, &pod.name);
        host.registry
            .patch(&host.caller, &kinds::PODS, namespace, name, None, mark, &options)
            .await
            .map(drop)
    }

    async fn without_address(&self, pod: &Pod, range: &str) -> Result<Next, Status> {
        let waiting = |c: &pod::Container| {
            let state = json!({"waiting": {"reason": "ContainerCreating"}});
            status::container_status(&c.name, &c.image, "", "", state)
        };
        let report = Report {
            phase: "Pending",
            initialised: pod.init.is_empty(),
            ready: false,
            remark: Some(problem::addresses_exhausted(range)),
            unready: pod.main.iter().map(|c| c.name.clone()).collect(),
            addresses: Vec::new(),
            host_ip: self.0.config.network.host_ip(),
            seen_unix_s: self.0.now().unix_s,
            init_statuses: pod.init.iter().map(waiting).collect(),
            statuses: pod.main.iter().map(waiting).collect(),
        };
        self.write(pod, &report).await?;
        Ok(Next::After(ADDRESS_RETRY))
    }

    async fn write(&self, pod: &Pod, report: &Report) -> Result<(), Status> {
        let Some(patch) = status::patch(report, pod, self.0.now().unix_s) else { return Ok(()) };
        self.0.patch_status(pod, patch).await?;
        if let Some(problem) = report.remark.as_ref().filter(|remark| remark.has_code()) {
            self.0.warn(pod, problem.reason, &problem.message);
        }
        Ok(())
    }
}
