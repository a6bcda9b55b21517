//! A cluster whose Pods the benchmark runs itself, and a server beside it.

use std::{net::Ipv4Addr, process::Child};

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::common::cluster::{self, connect, spawn};

pub(crate) const NAMESPACE: &str = "default";
/// Changes that the API remembers. Who has missed more lists anew.
pub(crate) const HISTORY: usize = 20_000;

/// What the servers have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Requests that write.
    pub(crate) writes: u64,
    /// Events of watches, of the API and of the server.
    pub(crate) events: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

pub(crate) struct World {
    cluster: Child,
    server: Child,
    _folder: tempfile::TempDir,
    pub(crate) kubeconfig: String,
    pub(crate) http: String,
    pub(crate) client: Client,
    plain: reqwest::Client,
}

impl Drop for World {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.cluster] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with_history(HISTORY).await
    }

    pub(crate) async fn with_history(history: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let history = format!("--history={history}");
        let (cluster, kubeconfig) =
            cluster::start(&["--no-node", &history], &folder.path().join("cluster"));
        let server_args = [
            "serve",
            "--roles=api",
            "-o=json",
            "--http-listen=127.0.0.1:0",
            "--xds-listen=127.0.0.1:0",
            "--kubeconfig",
            &kubeconfig,
        ];
        let (server, addresses) = spawn(&server_args, &folder.path().join("serve"));
        let client = connect(&kubeconfig).await;
        Self {
            cluster,
            server,
            _folder: folder,
            http: addresses.http.unwrap(),
            kubeconfig,
            client,
            plain: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub(crate) fn server_pid(&self) -> u32 {
        self.server.id()
    }

    pub(crate) fn api(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        cluster::api(&self.client, "", kind, plural, NAMESPACE)
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.api("Pod", "pods")
    }

    /// A Pod of a small service, as a Deployment makes it, some 3 KiB with its status; started,
    /// and not ready.
    pub(crate) async fn pod(&self, name: &str, ip: Ipv4Addr) {
        self.pod_with(name, ip, json!({})).await;
    }

    pub(crate) async fn pod_with(&self, name: &str, ip: Ipv4Addr, annotations: Value) {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "annotations": annotations,
                "labels": {
                    "app.kubernetes.io/name": "checkout", "app.kubernetes.io/version": "2.14.1",
                    "pod-template-hash": "7d9c5b6f4", "registry.portolan.dev/registered": "true",
                },
            },
            "spec": {
                "nodeName": "nobody", "serviceAccountName": "default",
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "main", "image": "registry.example.com/shop/checkout:2.14.1",
                    "ports": [{"name": "http", "containerPort": 80}],
                    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                    "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
                }],
            },
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.pods().create(&PostParams::default(), &object).await.unwrap();
        self.status(name, None, "False").await;
        self.status(name, Some(ip), "False").await;
    }

    pub(crate) async fn ready(&self, name: &str, ip: Ipv4Addr) {
        self.status(name, Some(ip), "True").await;
    }

    /// As a kubelet says it.
    async fn status(&self, name: &str, ip: Option<Ipv4Addr>, ready: &str) {
        let ips: Vec<_> = ip.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let state = match ip {
            Some(_) => json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
            None => json!({"waiting": {"reason": "ContainerCreating"}}),
        };
        let at = "2026-01-01T00:00:00Z";
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": at});
        let status = json!({"status": {
            "phase": if ip.is_some() { "Running" } else { "Pending" },
            "podIP": ip.map(|ip| ip.to_string()), "podIPs": ips,
            "hostIP": "192.0.2.1", "startTime": at, "qosClass": "Burstable",
            "conditions": [
                condition("PodScheduled", "True"), condition("Initialized", "True"),
                condition("ContainersReady", ready), condition("Ready", ready),
            ],
            "containerStatuses": [{
                "name": "main", "ready": ready == "True", "restartCount": 0, "started": true,
                "image": "registry.example.com/shop/checkout:2.14.1", "imageID": "",
                "state": state,
            }],
        }});
        let patch = Patch::Merge(status);
        self.pods().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        for grace in [30, 0] {
            let params = DeleteParams::default().grace_period(grace);
            match self.pods().delete(name, &params).await {
                Ok(_) => {}
                // The cluster collects what ends on a Node that nobody runs; it may be faster.
                Err(kube::Error::Api(status)) if grace == 0 && status.code == 404 => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }

    /// What both servers have counted so far.
    pub(crate) async fn counts(&self) -> Counts {
        let request = ::http::Request::get("/metrics").body(Vec::new()).unwrap();
        let api = self.client.request_text(request).await.unwrap();
        let server = self.plain.get(format!("{}/metrics", self.http)).send().await.unwrap();
        let server = server.text().await.unwrap();
        let sum = |text: &str, names: &[&str]| -> u64 {
            let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
            // Counters gain a suffix.
            let found = lines.filter(|(name, _)| names.contains(&name.trim_end_matches("_total")));
            found.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
        };
        let verbs = ["POST", "PUT", "PATCH", "DELETE"]
            .map(|verb| format!("apiserver_request_total{{verb=\"{verb}\"}}"));
        Counts {
            writes: sum(&api, &verbs.each_ref().map(String::as_str)),
            events: sum(&api, &["apiserver_watch_events"])
                + sum(&server, &["portolan_api_watch_events"]),
            bytes: sum(&api, &["apiserver_watch_events_bytes"])
                + sum(&server, &["portolan_api_watch_bytes"]),
        }
    }
}
