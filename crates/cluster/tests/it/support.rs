//! A cluster in memory, and a kubelet that only says what a kubelet says.

use std::{path::Path, sync::Arc, time::Duration};

use portolan_apiserver::{
    Caller, Kind, Status, kinds,
    registry::{Cidr, DeleteOptions, Patch, Propagation, Subresource, WriteOptions, object::now},
};
use portolan_cluster::{
    Config, Running,
    controllers::RUNNER_LABEL,
    informer::{Informer, Object, ObjectKey},
    object,
    queue::Queue,
    start,
};
use portolan_runtime::Shutdown;
use serde_json::{Value, json};

/// The Node that the simulated kubelet acts for.
pub(crate) const NODE: &str = "portolan";

/// Far beyond what anything here takes: the tests wait for states, not for time.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) running: Running,
    shutdown: Shutdown,
}

impl Cluster {
    /// In memory.
    pub(crate) async fn start() -> Cluster {
        Cluster::with(|_| {}).await
    }

    /// In a data directory.
    pub(crate) async fn start_in(folder: &Path) -> Cluster {
        Cluster::with(|config| config.api.data_dir = Some(folder.to_owned())).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Cluster {
        let shutdown = Shutdown::new();
        let cidr = |text: &str| -> Vec<Cidr> { vec![text.parse().unwrap()] };
        let mut config = Config::default();
        config.api.registry.service_cidrs = cidr("127.96.0.0/16");
        config.api.registry.pod_cidrs = cidr("127.10.0.0/16");
        change(&mut config);
        let running = start(config, shutdown.clone()).await.unwrap();
        running.registry.add_node_agent(NODE);
        simulate_kubelet(&running, &shutdown);
        let cluster = Cluster { running, shutdown };
        let node = json!({"metadata": {"name": NODE, "labels": {RUNNER_LABEL: "true"}}});
        if cluster.informer(&kinds::NODES).get("", NODE).is_none() {
            cluster.create(&kinds::NODES, "", node).await;
        }
        cluster
    }

    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.running.finish()).await.unwrap();
    }

    pub(crate) fn informer(&self, kind: &'static Kind) -> Informer {
        self.running.informers.of(kind)
    }

    /// The objects of a namespace, whole.
    pub(crate) fn list(&self, kind: &'static Kind, namespace: &str) -> Vec<Object> {
        let namespace = kind.namespaced.then_some(namespace);
        let (_, objects) = self.running.registry.list(kind, namespace);
        objects.into_iter().map(Arc::new).collect()
    }

    pub(crate) async fn create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        object: Value,
    ) -> Value {
        let (caller, options) = (Caller::system("test"), WriteOptions::default());
        self.running.registry.create(&caller, kind, namespace, object, &options).await.unwrap()
    }

    pub(crate) async fn merge(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        patch: Value,
    ) {
        let (caller, options) = (Caller::system("test"), WriteOptions::default());
        let patch = Patch::Merge(patch);
        let registry = &self.running.registry;
        registry.patch(&caller, kind, namespace, name, None, patch, &options).await.unwrap();
    }

    pub(crate) async fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        propagation: Option<Propagation>,
    ) -> Result<(), Status> {
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        let caller = Caller::system("test");
        self.running.registry.delete(&caller, kind, namespace, name, &options).await.map(drop)
    }

    /// Waits until the objects of a namespace are as `find` wants them.
    pub(crate) async fn until<T>(
        &self,
        kind: &'static Kind,
        namespace: &str,
        what: &str,
        find: impl Fn(&[Object]) -> Option<T>,
    ) -> T {
        let informer = self.informer(kind);
        let found = informer.until(|_| find(&self.list(kind, namespace)));
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(found) => found,
            Err(_) => panic!(
                "{what} did not come; there is {}",
                serde_json::to_string_pretty(&self.list(kind, namespace)).unwrap()
            ),
        }
    }

    /// Waits until one object is as `find` wants it.
    pub(crate) async fn until_one<T>(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        what: &str,
        find: impl Fn(&Value) -> Option<T>,
    ) -> T {
        self.until(kind, namespace, what, |objects| {
            find(objects.iter().find(|object| object::name(object) == name)?)
        })
        .await
    }
}

/// Pods bound to our Node get an address and become ready; Pods that are
/// deleted end at once.
fn simulate_kubelet(running: &Running, shutdown: &Shutdown) {
    let registry = running.registry.clone();
    let pods = running.informers.of(&kinds::PODS);
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    {
        let queue = queue.clone();
        pods.on_change(move |change| {
            let is_ours = |pod: &Object| object::text(pod, "/spec/nodeName") == NODE;
            if change.new.is_some_and(is_ours) {
                queue.add(change.key.clone());
            }
        });
    }
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let caller = Caller::system("node:portolan");
        let mut last = 0u16;
        loop {
            let key = tokio::select! {
                key = queue.next() => key,
                () = shutdown.cancelled() => return,
            };
            queue.done(&key);
            let (namespace, name) = (&*key.namespace, &*key.name);
            let Ok(pod) = registry.get(&kinds::PODS, namespace, name) else { continue };
            if object::is_deleting(&pod) {
                let options =
                    DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
                drop(registry.delete(&caller, &kinds::PODS, namespace, name, &options).await);
                continue;
            }
            let image = object::text(&pod, "/spec/containers/0/image");
            if object::is_condition_true(&pod, "Ready") || image == "broken" {
                continue;
            }
            last += 1;
            let ip = format!("127.10.{}.{}", last / 256, last % 256);
            let mut new = Value::clone(&pod);
            let conditions = object::list(&pod, "/status/conditions").iter();
            let mut conditions: Vec<Value> = conditions.cloned().collect();
            conditions
                .push(json!({"type": "Ready", "status": "True", "lastTransitionTime": now()}));
            new["status"] = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": conditions});
            let (sub, options) = (Some(Subresource::Status), WriteOptions::default());
            // A conflict comes back with the change that caused it.
            drop(registry.update(&caller, &kinds::PODS, namespace, name, sub, new, &options).await);
        }
    });
}

pub(crate) fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image,
                    "ports": [{"name": "http", "containerPort": 8081}]}]},
            },
        },
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
    })
}
