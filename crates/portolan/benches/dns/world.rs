//! A cluster full of services, and the questions about it.

use std::{
    net::Ipv4Addr,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dns_load::{Expect, Question};
use kube::Client;
use serde_json::json;

pub(crate) use crate::common::cluster::Made;
use crate::common::cluster::{
    self, ENDPOINTS, NAMESPACES, WRITERS, connect, create, put, services, slice, slice_of, slices,
};

/// Services.
const SERVICES: usize = 10_000;

/// Endpoints of the headless service.
const MANY: u8 = 100;

/// Changes that the API remembers. Who has missed more lists anew.
pub(crate) const HISTORY: usize = 1000;

/// Names outside the cluster that are asked for again and again.
const OUTSIDE: usize = 100;

/// Names of a service that tells who has caught up: one for each look.
const MARKS: usize = 300;

/// Type A.
const A: u16 = 1;

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
        let history = format!("--history={HISTORY}");
        let (child, kubeconfig) = cluster::start(&[&history], &folder.path().join("cluster"));
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

    /// Changes so many slices a second until it is stopped: of ten endpoints, one goes and
    /// another comes.
    pub(crate) fn storm(&self, rate: u32) -> Storm {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let slices = slices(&self.client, "n1");
        self.runtime.spawn({
            let (stop, done) = (stop.clone(), done.clone());
            async move {
                let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
                while !stop.load(Ordering::Relaxed) {
                    tick.tick().await;
                    let number = done.fetch_add(1, Ordering::Relaxed) as usize;
                    let service = 1 + number % 400 * NAMESPACES;
                    let last = ENDPOINTS + number / 400 % 200;
                    let places = (1..ENDPOINTS).chain([last]);
                    let addresses: Vec<_> =
                        places.map(|place| cluster::endpoint(service, place)).collect();
                    put(&slices, &format!("s{service}-x"), &addresses).await;
                }
            }
        });
        Storm { stop, done, started: Instant::now() }
    }
}

impl World {
    /// Gives the headless service one endpoint.
    pub(crate) fn move_to(&self, address: Ipv4Addr) {
        let slices = slices(&self.client, "n0");
        self.runtime.block_on(put(&slices, "many-x", &[address]));
    }

    /// Makes so many changes, as fast as they are taken.
    pub(crate) fn churn(&self, changes: usize) {
        let slices = slices(&self.client, "n2");
        self.runtime.block_on(async {
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..WRITERS {
                let slices = slices.clone();
                writers.spawn(async move {
                    for number in (writer..changes).step_by(WRITERS) {
                        let name = format!("s{}-x", 2 + number % 400 * NAMESPACES);
                        let last = (number / 400 % 200) as u8 + 20;
                        put(&slices, &name, &[Ipv4Addr::new(10, 201, 0, last)]).await;
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
            let all = services(&self.client, "n0");
            let spec = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]});
            let meta = json!({"name": service});
            let object =
                json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec});
            create(&all, object).await;
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

/// The services, and the headless one.
async fn fill(client: &Client) -> Vec<Made> {
    let all = cluster::fill(client, SERVICES).await;
    let spec = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]});
    let meta = json!({"name": "many"});
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec});
    create(&services(client, "n0"), object).await;
    let addresses: Vec<String> = many().iter().map(ToString::to_string).collect();
    slice(client, "n0", "many", &addresses).await;
    all
}
