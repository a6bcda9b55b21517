//! What all parts of the kubelet share: handles, addresses, and the Pods that it acts on.
//!
//! A Pod has an [`Entry`] from its first reconciliation until its last process
//! has ended, which may be after its object is gone; [`Host::clean_up`] then
//! gives back what it had.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use portolan_apiserver::{
    Status, kinds,
    registry::{Caller, DeleteOptions, Patch, Preconditions, Registry, Subresource, WriteOptions},
};
use portolan_runtime::Tasks;
use serde_json::Value;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use super::{
    ApiDoor, Config, FILE_MODE, FOLDER_MODE,
    addresses::Addresses,
    env::{self, Env, Given, Lookup},
    hollow::{self, Responder},
    listeners::Sweep,
    logs::{self, Logs},
    machine::Moment,
    pod::{self, Pod},
    sessions::{ASKS_MAX, Ask},
    unix_ms,
    worker::{Outcome, Worker},
};
use crate::{
    controllers::events::Recorder,
    informer::{Change, Informer, ObjectKey},
    object,
    queue::Queue,
};

/// A Pod that the kubelet acts on.
pub(super) enum Entry {
    Process {
        /// Its newest object, for the worker.
        updates: watch::Sender<Option<Arc<Value>>>,
        /// Those who want to run something beside its containers.
        asks: mpsc::Sender<Ask>,
    },
    Hollow(Responder),
}

#[derive(Default)]
pub(super) struct Entries {
    pub(super) by_uid: HashMap<String, Entry>,
    /// The Pod that has a name now.
    pub(super) uids: BTreeMap<ObjectKey, String>,
}

/// What all parts of the kubelet share.
pub(crate) struct Host {
    pub(super) config: Config,
    pub(super) api: ApiDoor,
    pub(super) registry: Registry,
    pub(super) caller: Caller,
    pub(super) pods: Informer,
    pub(super) services: Informer,
    pub(super) addresses: Mutex<Vec<Addresses>>,
    pub(super) entries: Mutex<Entries>,
    pub(super) queue: Arc<Queue<ObjectKey>>,
    pub(super) sweep: Sweep,
    pub(super) logs: Arc<Logs>,
    pub(super) events: Recorder,
    pub(super) permits: Arc<Semaphore>,
    pub(super) tasks: Tasks,
    pub(super) began: Instant,
    pub(super) parent_env: Env,
}

impl Host {
    pub(super) fn now(&self) -> Moment {
        let passed = self.began.elapsed().as_millis();
        Moment { ms: u64::try_from(passed).unwrap_or(u64::MAX), unix_s: unix_ms() / 1000 }
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn addresses(&self) -> MutexGuard<'_, Vec<Addresses>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn folder(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(logs::safe(uid))
    }

    /// Folders of Pods that went while no kubelet was there.
    pub(super) fn clear_leftovers(&self, pods_dir: &Path) {
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
    pub(super) fn follow(host: &Arc<Host>) {
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

    pub(super) fn pod_changed(&self, change: &Change<'_>) {
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

    pub(super) fn release(&self, uid: &str) {
        self.addresses().iter_mut().for_each(|range| range.release(uid));
    }

    /// An address of each range; `Err` names the range that has none left.
    pub(super) fn take_addresses(&self, pod: &Pod) -> Result<Vec<IpAddr>, String> {
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
    pub(super) fn given(&self, pod: &Pod) -> Result<Given, String> {
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
            // On every network: a container sees the machine's files.
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

    pub(super) fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        self.events.report("kubelet", &pod.raw, "Warning", reason, message);
    }

    pub(super) fn links(&self, pod: &Pod) -> Env {
        if object::at(&pod.raw, "/spec/enableServiceLinks") == Some(&Value::Bool(false)) {
            return Env::new();
        }
        let services = self.services.list(Some(&pod.namespace));
        env::service_links(services.iter().map(|service| &**service))
    }

    pub(super) async fn patch_status(&self, pod: &Pod, patch: Value) -> Result<Value, Status> {
        let (part, options) = (Some(Subresource::Status), WriteOptions::default());
        let patch = Patch::Merge(patch);
        self.registry
            .patch(&self.caller, &kinds::PODS, &pod.namespace, &pod.name, part, patch, &options)
            .await
    }

    /// Confirms that nothing of a Pod runs any more. Fine if it is gone already.
    pub(super) async fn delete_pod(&self, pod: &Pod) -> Result<(), Status> {
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
    pub(super) fn clean_up(&self, uid: &str) {
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
    pub(super) fn let_go(self: &Arc<Self>, uid: &str) {
        let mut entries = self.entries();
        match entries.by_uid.get(uid) {
            // It cleans up when its processes have ended.
            Some(Entry::Process { updates, .. }) => {
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

    pub(super) fn start_worker(self: &Arc<Self>, pod: Pod, addresses: Vec<IpAddr>) {
        let (updates, receiver) = watch::channel(Some(pod.raw.clone()));
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let uid = pod.uid.clone();
        self.entries().by_uid.insert(uid.clone(), Entry::Process { updates, asks });
        let worker = Worker::new(self.clone(), pod, addresses, receiver, asked);
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

pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
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
