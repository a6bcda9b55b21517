//! A cluster full of services, and the questions about it.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dns_load::{Expect, Question};
use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use portolan_wire::Addresses;
use serde_json::json;

/// Services, spread over [`NAMESPACES`]; each has [`ENDPOINTS`].
const SERVICES: usize = 10_000;
const NAMESPACES: usize = 20;
const ENDPOINTS: usize = 10;

/// Endpoints of the headless service.
const MANY: u8 = 100;

/// Changes that the API remembers. Who has missed more lists anew.
pub(crate) const HISTORY: usize = 1000;

/// Names outside the cluster that are asked for again and again.
const OUTSIDE: usize = 100;

/// Names of a service that tells who has caught up: one for each look.
const MARKS: usize = 300;

/// Writes on their way at once.
const WRITERS: usize = 32;

/// Type A.
const A: u16 = 1;

/// One service that was made.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

/// A running cluster with what is in it.
pub(crate) struct World {
    child: Child,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) kubeconfig: String,
    pub(crate) services: Vec<Made>,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl World {
    /// Starts a cluster and fills it.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["cluster", "--ephemeral", "-o=json", "--api-listen=127.0.0.1:0"])
            .arg(format!("--history={HISTORY}"))
            .args(["--service-cidr=127.90.0.0/16", "--pod-cidr=127.91.0.0/16", "--data-dir"])
            .arg(folder.path().join("cluster"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addresses: Addresses = serde_json::from_str(&line).expect("addresses");
        let kubeconfig = addresses.kubeconfig.unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let client = runtime.block_on(connect(&kubeconfig));
        let started = Instant::now();
        let services = runtime.block_on(fill(&client));
        eprintln!("{} services made in {:.1?}", services.len(), started.elapsed());
        Self { child, folder, kubeconfig, services, runtime, client }
    }

    /// One question about each service.
    pub(crate) fn questions_cluster_ip(&self) -> Vec<Question> {
        // Neighbours in the list are not asked for one after the other.
        let order = (0..self.services.len()).map(|n| n * 7919 % self.services.len());
        let questions = order.map(|place| {
            let Made { name, address } = &self.services[place];
            let name = format!("{name}.svc.cluster.local");
            Question::new(&name, A, true, Expect::Addresses(vec![*address])).unwrap()
        });
        questions.collect()
    }

    /// What resolvers ask on the way to a name outside.
    pub(crate) fn questions_denied(&self) -> Vec<Question> {
        let names = (0..1000).flat_map(|host| {
            let suffixes =
                [format!("n{}.svc.", host % NAMESPACES), "svc.".to_owned(), String::new()];
            suffixes.map(|suffix| format!("h{host}.example.org.{suffix}cluster.local"))
        });
        names.map(|name| Question::new(&name, A, true, Expect::NxDomain).unwrap()).collect()
    }

    /// The headless service: all of it, or as much as fits.
    pub(crate) fn questions_headless(&self, cut: bool) -> Vec<Question> {
        let expect = if cut { Expect::Cut(many()) } else { Expect::Addresses(many()) };
        vec![Question::new("many.n0.svc.cluster.local", A, true, expect).unwrap()]
    }

    /// Names that others are asked for once.
    pub(crate) fn questions_cached(&self) -> Vec<Question> {
        let question = |(name, address)| {
            Question::new(&format!("{name}.example.org"), A, true, Expect::Addresses(vec![address]))
        };
        outside().map(|host| question(host).unwrap()).collect()
    }

    /// The names as zone files: of the cluster, and of what is outside.
    pub(crate) fn zone_files(&self) -> [String; 2] {
        let head = |zone: &str| {
            format!(
                "$ORIGIN {zone}.\n$TTL 5\n@ IN SOA ns.dns hostmaster 1 7200 1800 86400 5\n\
                 @ IN NS ns.dns\nns.dns IN A 127.0.0.1\n"
            )
        };
        let mut cluster = head("cluster.local");
        for Made { name, address } in &self.services {
            cluster += &format!("{name}.svc IN A {address}\n");
        }
        for address in many() {
            cluster += &format!("many.n0.svc IN A {address}\n");
        }
        let mut outside_zone = head("example.org").replace("$TTL 5", "$TTL 3600");
        for (name, address) in outside() {
            outside_zone += &format!("{name} IN A {address}\n");
        }
        [cluster, outside_zone]
    }

    /// Changes so many slices a second until it is stopped.
    pub(crate) fn storm(&self, rate: u32) -> Storm {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let slices = api(&self.client, "discovery.k8s.io", "EndpointSlice", "endpointslices", "n1");
        self.runtime.spawn({
            let (stop, done) = (stop.clone(), done.clone());
            async move {
                let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
                while !stop.load(Ordering::Relaxed) {
                    tick.tick().await;
                    let number = done.fetch_add(1, Ordering::Relaxed) as usize;
                    let name = format!("s{}-x", 1 + number % 400 * NAMESPACES);
                    let last = number / 400 % 200 + 20;
                    put(&slices, &name, Ipv4Addr::new(10, 200, 0, last as u8)).await;
                }
            }
        });
        Storm { stop, done, started: Instant::now() }
    }
}

impl World {
    /// Gives the headless service one endpoint.
    pub(crate) fn move_to(&self, address: Ipv4Addr) {
        let slices = api(&self.client, "discovery.k8s.io", "EndpointSlice", "endpointslices", "n0");
        self.runtime.block_on(put(&slices, "many-x", address));
    }

    /// Makes so many changes, as fast as they are taken.
    pub(crate) fn churn(&self, changes: usize) {
        let slices = api(&self.client, "discovery.k8s.io", "EndpointSlice", "endpointslices", "n2");
        self.runtime.block_on(async {
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..WRITERS {
                let slices = slices.clone();
                writers.spawn(async move {
                    for number in (writer..changes).step_by(WRITERS) {
                        let name = format!("s{}-x", 2 + number % 400 * NAMESPACES);
                        let last = (number / 400 % 200) as u8 + 20;
                        put(&slices, &name, Ipv4Addr::new(10, 201, 0, last)).await;
                    }
                });
            }
            writers.join_all().await;
        });
    }

    /// Makes a service with a name for each of its endpoints: the names.
    pub(crate) fn mark(&self, service: &str) -> Vec<String> {
        let hosts: Vec<String> = (0..MARKS).map(|number| format!("p{number}")).collect();
        self.runtime.block_on(async {
            let services = api(&self.client, "", "Service", "services", "n0");
            let spec = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]});
            let meta = json!({"name": service});
            let object =
                json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec});
            create(&services, object).await;
            let endpoints: Vec<_> = hosts
                .iter()
                .enumerate()
                .map(|(number, host)| {
                    let address = format!("10.252.{}.{}", number / 250, number % 250 + 1);
                    json!({"addresses": [address], "hostname": host})
                })
                .collect();
            slice_of(&self.client, "n0", service, endpoints).await;
        });
        hosts.iter().map(|host| format!("{host}.{service}.n0.svc.cluster.local")).collect()
    }
}

async fn put(slices: &Api<DynamicObject>, name: &str, address: Ipv4Addr) {
    let patch = Patch::Merge(json!({"endpoints": [{"addresses": [address.to_string()]}]}));
    slices.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

impl Drop for World {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Changes that go on.
pub(crate) struct Storm {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    started: Instant,
}

impl Storm {
    /// Ends it; how many changes there were a second.
    pub(crate) fn stop(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.done.load(Ordering::Relaxed) as f64 / self.started.elapsed().as_secs_f64()
    }
}

fn many() -> Vec<Ipv4Addr> {
    (1..=MANY).map(|last| Ipv4Addr::new(10, 250, 0, last)).collect()
}

fn outside() -> impl Iterator<Item = (String, Ipv4Addr)> {
    (0..OUTSIDE).map(|host| (format!("h{host}"), Ipv4Addr::new(192, 0, 2, host as u8)))
}

async fn connect(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
}

fn api(
    client: &Client,
    group: &str,
    kind: &str,
    plural: &str,
    namespace: &str,
) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(group, "v1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

async fn create(api: &Api<DynamicObject>, object: serde_json::Value) -> DynamicObject {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn fill(client: &Client) -> Vec<Made> {
    let gvk = GroupVersionKind::gvk("", "v1", "Namespace");
    let namespaces: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&gvk, "namespaces"));
    for namespace in 0..NAMESPACES {
        let meta = json!({"name": format!("n{namespace}")});
        create(&namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}))
            .await;
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            let mut made = Vec::new();
            for number in (writer..SERVICES).step_by(WRITERS) {
                made.push(service(&client, number).await);
            }
            made
        });
    }
    let mut all: Vec<Made> = writers.join_all().await.into_iter().flatten().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let services = api(client, "", "Service", "services", "n0");
    let ports = json!([{"name": "http", "port": 80}]);
    let spec = json!({"clusterIP": "None", "ports": ports});
    create(
        &services,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "many"}, "spec": spec}),
    )
    .await;
    let addresses: Vec<String> = many().iter().map(ToString::to_string).collect();
    slice(client, "n0", "many", &addresses).await;
    all
}

async fn service(client: &Client, number: usize) -> Made {
    let (namespace, name) = (format!("n{}", number % NAMESPACES), format!("s{number}"));
    let services = api(client, "", "Service", "services", &namespace);
    let spec = json!({"ports": [{"name": "http", "port": 80}]});
    let object =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let created = create(&services, object).await;
    let address = created.data["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    let endpoints: Vec<String> =
        (0..ENDPOINTS).map(|last| format!("10.{}.{}.{last}", number / 256, number % 256)).collect();
    slice(client, &namespace, &name, &endpoints).await;
    Made { name: format!("{name}.{namespace}"), address }
}

async fn slice(client: &Client, namespace: &str, service: &str, addresses: &[String]) {
    let endpoints = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}));
    slice_of(client, namespace, service, endpoints.collect()).await;
}

async fn slice_of(
    client: &Client,
    namespace: &str,
    service: &str,
    endpoints: Vec<serde_json::Value>,
) {
    let slices = api(client, "discovery.k8s.io", "EndpointSlice", "endpointslices", namespace);
    let meta = json!({
        "name": format!("{service}-x"), "labels": {"kubernetes.io/service-name": service},
    });
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
    });
    create(&slices, object).await;
}
