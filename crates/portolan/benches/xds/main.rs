//! The xDS face under thousands of clients: how soon a change reaches them, and what it
//! costs the server.
//!
//! ```text
//!   portolan cluster <--patch of a slice-- here --clock--+
//!        |                                               |
//!   portolan serve --roles xds --delta streams--> xds-load (2,000 clients)
//! ```
//!
//! 1,000 services of 10 endpoints each. Every client asks for all clusters and
//! listeners; one service has 1,000 subscribers of its endpoints, another 50, and the
//! rest is spread. The clock runs from before a change is sent to the API until a client
//! has the whole response in hand; clients are on the same machine, and take their part
//! of it.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

use std::{
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use common::cluster::{self, NAMESPACES};
use dns_load::{cpu_time, resident_kib};
use kube::{Api, Client, api::DynamicObject};
use xds_load::{Fleet, Wish};

const SERVICES: usize = 1_000;

/// Services that every client asks for besides.
const OWN: usize = 20;

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    clients: usize,
    /// Subscribers of the two services that change.
    many: usize,
    few: usize,
    changes: u16,
}

const FULL: Effort = Effort { clients: 2_000, many: 1_000, few: 50, changes: 200 };
const SHORT: Effort = Effort { clients: 100, many: 50, few: 5, changes: 10 };
const SHORT_SWITCH: &str = "PORTOLAN_BENCH_SHORT";

/// Between two timed changes: nothing else is to do.
const PAUSE: Duration = Duration::from_millis(50);

struct Server {
    cluster: Child,
    faces: Child,
    _folder: tempfile::TempDir,
    xds: std::net::SocketAddr,
    client: Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in [&mut self.faces, &mut self.cluster] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, kubeconfig) = cluster::start(&["--no-node"], &folder.path().join("cluster"));
        let client = cluster::connect(&kubeconfig).await;
        cluster::fill(&client, SERVICES).await;
        let args = [
            "serve",
            "--roles=xds",
            "-o=json",
            "--xds-listen=127.0.0.1:0",
            "--kubeconfig",
            &kubeconfig,
        ];
        let (faces, addresses) = cluster::spawn(&args, &folder.path().join("serve"));
        let xds = addresses.xds.unwrap().parse().unwrap();
        Self { cluster, faces, _folder: folder, xds, client }
    }

    fn pid(&self) -> u32 {
        self.faces.id()
    }

    fn slices(&self, number: usize) -> Api<DynamicObject> {
        cluster::slices(&self.client, &format!("n{}", number % NAMESPACES))
    }
}

fn cluster_of(number: usize) -> String {
    format!("outbound|80||s{number}.n{}.svc.cluster.local", number % NAMESPACES)
}

/// Service 0 is asked for by many, service 1 by few.
fn wishes(effort: Effort) -> Arc<[Wish]> {
    let wish = |number: usize| {
        let mut services: Vec<usize> =
            (0..OWN).map(|own| 2 + (number * 7 + own * 31) % (SERVICES - 2)).collect();
        services.extend((number < effort.many).then_some(0));
        services.extend((number < effort.few).then_some(1));
        Wish {
            node: format!("sidecar~127.0.0.1~c{number}.n{}~x", number % NAMESPACES),
            endpoints: services.into_iter().map(cluster_of).collect(),
            routes: vec!["80".to_owned()],
        }
    };
    (0..effort.clients).map(wish).collect()
}

/// What changes of a service came to.
struct Changes {
    /// From the change until a client has it, in milliseconds.
    lags: Vec<f64>,
    /// Of the server, for one update of one client.
    cpu_us: f64,
}

async fn change(
    server: &Server,
    fleet: &mut Fleet,
    service: usize,
    subscribers: usize,
    marks: std::ops::Range<u16>,
) -> Changes {
    let slices = server.slices(service);
    let name = format!("s{service}-x");
    let (mut lags, count) = (Vec::new(), marks.len());
    let cpu = cpu_time(server.pid()).unwrap();
    for number in marks {
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        cluster::put(&slices, &name, &[xds_load::mark(number).parse().unwrap()]).await;
        let mut missing = subscribers;
        while missing > 0 {
            let received = fleet.next().await.unwrap();
            if received.mark == Some(number) {
                lags.push((received.at - begun).as_secs_f64() * 1e3);
                missing -= 1;
            }
        }
    }
    let cpu = cpu_time(server.pid()).unwrap() - cpu;
    Changes { lags, cpu_us: cpu.as_secs_f64() * 1e6 / (count * subscribers) as f64 }
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().ok();
    common::raise_open_files();
    let effort = if std::env::var_os(SHORT_SWITCH).is_some() { SHORT } else { FULL };
    let server = Server::start().await;
    let wishes = wishes(effort);

    // Cold: all at once.
    let before = cpu_time(server.pid()).unwrap();
    let begun = Instant::now();
    let mut fleet = Fleet::connect(server.xds, wishes.clone(), 64).await.unwrap();
    let bytes = fleet.settle().await;
    let cold = begun.elapsed().as_secs_f64();
    let cpu = cpu_time(server.pid()).unwrap() - before;
    common::report("xds.cold", cold, "s");
    common::report(
        "xds.cold_cpu_us_per_client",
        cpu.as_secs_f64() * 1e6 / fleet.len() as f64,
        "us",
    );
    common::report("xds.cold_kb_per_client", bytes as f64 / 1e3 / fleet.len() as f64, "kB");
    let (rss, peak) = resident_kib(server.pid()).unwrap();
    common::report("xds.rss", rss as f64 / 1024.0, "MiB");
    common::report("xds.rss_peak", peak as f64 / 1024.0, "MiB");

    let half = effort.changes;
    for (what, service, subscribers, marks) in
        [("few", 1, effort.few, 0..half), ("many", 0, effort.many, half..2 * half)]
    {
        let mut changes = change(&server, &mut fleet, service, subscribers, marks).await;
        let lags = &mut changes.lags;
        common::report(&format!("xds.{what}_p50"), common::percentile(lags, 50.0), "ms");
        common::report(&format!("xds.{what}_p99"), common::percentile(lags, 99.0), "ms");
        common::report(&format!("xds.{what}_cpu_us_per_update"), changes.cpu_us, "us");
    }
    // What changes for nobody costs nobody anything: only the catalog takes it in.
    let cpu = cpu_time(server.pid()).unwrap();
    let unheard = 2
        + (0..SERVICES - 2)
            .find(|number| {
                let name = cluster_of(2 + number);
                !wishes.iter().any(|wish| wish.endpoints.contains(&name))
            })
            .unwrap_or(SERVICES - 3);
    let slices = server.slices(unheard);
    for number in 0..half {
        let address = format!("10.252.{}.{}", number >> 8, number & 0xff).parse().unwrap();
        cluster::put(&slices, &format!("s{unheard}-x"), &[address]).await;
    }
    let cpu = cpu_time(server.pid()).unwrap() - cpu;
    common::report("xds.unheard_cpu_us", cpu.as_secs_f64() * 1e6 / f64::from(half), "us");
    let (rss, _) = resident_kib(server.pid()).unwrap();
    common::report("xds.rss_after", rss as f64 / 1024.0, "MiB");
}
