//! `portolan up` and `portolan cluster`: the wiring.
//!
//! ```text
//!   faces bind (they answer SERVFAIL, not ready) ─▶ cluster starts (Pods learn the faces'
//!   addresses) ─▶ kubeconfig ─▶ sources connect through it over TLS ─▶ catalog ─▶ ready
//! ```
//!
//! Faces come before the cluster, so that every address is known when the first
//! Pod starts, also where a flag asked for a free port.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use portolan_apiserver::registry::Cidr;
use portolan_cli::{
    args::{ClusterArgs, ClusterFlags, Part, RunOutput, UpArgs},
    output::{Exit, Output},
};
use portolan_cluster::kubelet;
use portolan_model::ServiceKey;
use portolan_sources::kubernetes;
use portolan_wire::Addresses;

use crate::{
    apply, config,
    data_dir::DataDir,
    faces::{self, Chosen, FINISH, Files, Shared},
    outside::{DNS_PORT, Outside},
    signals::Signals,
    tour,
};

/// How long `up` waits for the demo before it says where things are anyway.
const DEMO_PATIENCE: Duration = Duration::from_secs(30);

/// What is to run.
pub(crate) struct Wanted {
    flags: ClusterFlags,
    /// `None`: the cluster alone.
    faces: Option<UpArgs>,
    /// Whether Pods are run.
    has_node: bool,
}

impl Wanted {
    /// `portolan up`
    pub(crate) fn everything(args: UpArgs) -> Self {
        Self { flags: args.cluster.clone(), faces: Some(args), has_node: true }
    }

    /// `portolan cluster`
    pub(crate) fn cluster_alone(args: ClusterArgs) -> Self {
        Self { flags: args.cluster, faces: None, has_node: !args.no_node }
    }

    fn has(&self, part: Part) -> bool {
        self.faces.as_ref().is_some_and(|up| !up.without.contains(&part))
    }
}

/// Runs until a signal asks it to end.
pub(crate) async fn run(
    wanted: Wanted,
    mut outside: Option<Outside>,
    output: &mut Output,
) -> Result<Exit> {
    let (pod_cidrs, service_cidrs) = config::ranges(&wanted.flags)?;
    config::loopback("--api-listen", wanted.flags.api_listen)?;
    let files = match &wanted.faces {
        Some(up) => Files::read(&up.faces).await?,
        None => Files::default(),
    };
    let data_dir = DataDir::take(wanted.flags.data_dir.as_deref(), wanted.flags.ephemeral)?;
    let mut signals = Signals::new()?;
    let shared = Shared::new();

    if let Some(outside) = &mut outside {
        outside.serve(&shared.tasks)?;
    }
    let outside = outside.as_ref();
    let lameduck = faces::lameduck(files.dns.as_ref());
    let started = start(&wanted, &shared, outside, &data_dir, pod_cidrs, service_cidrs, files);
    let started = tokio::select! {
        started = started => started,
        // Whoever changes their mind need not wait until everything is up.
        _ = signals.wait(shared.tasks.shutdown()) => {
            shared.tasks.shutdown().cancel();
            shared.tasks.finish(FINISH).await;
            return Ok(Exit::Fine);
        }
    };
    let Started { running, addresses, productpage } = match started {
        Ok(started) => started,
        Err(error) => {
            shared.tasks.shutdown().cancel();
            shared.tasks.finish(FINISH).await;
            return Err(error);
        }
    };
    announce(&wanted, &addresses, productpage.as_deref(), outside, &data_dir, output)?;
    let fell_over = signals.wait(shared.tasks.shutdown()).await;
    if !fell_over && !lameduck.is_zero() {
        // Whoever asks readiness sends nothing new, and what still comes is answered.
        let _going = shared.readiness.block("the process was asked to end");
        tokio::time::timeout(lameduck, signals.wait(shared.tasks.shutdown())).await.ok();
    }
    data_dir.withdraw();
    shared.tasks.shutdown().cancel();
    shared.tasks.finish(FINISH).await;
    running.finish().await;
    Ok(if fell_over { Exit::Problem } else { Exit::Fine })
}

/// Everything that has started.
struct Started {
    running: portolan_cluster::Running,
    addresses: Addresses,
    /// Where the demo's page is, when there is a demo.
    productpage: Option<String>,
}

async fn start(
    wanted: &Wanted,
    shared: &Shared,
    outside: Option<&Outside>,
    data_dir: &DataDir,
    pod_cidrs: Vec<Cidr>,
    service_cidrs: Vec<Cidr>,
    files: Files,
) -> Result<Started> {
    let mut productpage = None;
    let mut addresses = Addresses {
        data_dir: data_dir.path().display().to_string(),
        pid: std::process::id(),
        version: portolan_cli::VERSION.to_owned(),
        ..Addresses::default()
    };
    let ranges = [pod_cidrs.as_slice(), service_cidrs.as_slice()].concat();
    if let Some(up) = &wanted.faces {
        let chosen = Chosen {
            dns: wanted.has(Part::Dns),
            xds: wanted.has(Part::Xds),
            proxy: wanted.has(Part::Proxy),
            api: wanted.has(Part::Api),
        };
        faces::start(chosen, &up.faces, shared, &ranges, files.dns, &mut addresses).await?;
    }
    let environment = environment(&addresses, outside);
    let mut store = portolan_apiserver::store::Options {
        fsync: !wanted.flags.unsafe_no_fsync,
        ..portolan_apiserver::store::Options::default()
    };
    if let Some(history) = wanted.flags.history {
        store.history_events = usize::try_from(history).unwrap_or(usize::MAX);
    }
    let api = portolan_apiserver::Config {
        store,
        listen: wanted.flags.api_listen,
        data_dir: Some(data_dir.path().to_path_buf()),
        ephemeral: wanted.flags.ephemeral,
        registry: portolan_apiserver::registry::Options {
            service_cidrs,
            pod_cidrs: pod_cidrs.clone(),
            clock: shared.clock.clone(),
            ..portolan_apiserver::registry::Options::default()
        },
        ..portolan_apiserver::Config::default()
    };
    let mut kubelet = kubelet::Config::new(data_dir.path().to_path_buf(), pod_cidrs);
    kubelet.zone = Some(wanted.flags.zone.clone());
    kubelet.environment = environment;
    if let Some(outside) = outside {
        kubelet.network = kubelet::PodNetwork::Netns(outside.node.clone());
    }
    let cluster = portolan_cluster::Config {
        api,
        kubelet: wanted.has_node.then_some(kubelet),
        without_scheduler: !wanted.has_node,
    };
    let running = portolan_cluster::start(cluster, shared.tasks.shutdown().clone()).await?;
    let kubeconfig = running.kubeconfig.clone().context("the cluster wrote no kubeconfig")?;
    addresses.api = Some(format!("https://{}", running.address));
    addresses.kubeconfig = Some(kubeconfig.display().to_string());
    if let Some(dns) = addresses.dns.as_ref().and_then(|dns| dns.parse().ok()) {
        let published = portolan_cluster::fixed::publish_dns(&running.registry, dns);
        published.await.map_err(|status| anyhow!("kube-dns: {status}"))?;
    }
    if let Some(outside) = outside.filter(|_| !wanted.has(Part::Proxy)) {
        let dns = addresses.dns.as_ref().and_then(|dns| dns.parse().ok());
        outside.stand_in(running.address, dns, &shared.tasks)?;
    }
    if let Some(up) = &wanted.faces {
        // Through the kubeconfig, as to any other cluster.
        let client = kubernetes::connect(Some(&kubeconfig)).await?;
        faces::start_sources(shared, kubernetes::Config::new(client), files.statics).await?;
        faces::synced(shared).await;
        if up.demo {
            productpage = Some(start_demo(shared, &kubeconfig).await.context("the demo")?);
        }
    }
    data_dir.publish(&addresses)?;
    Ok(Started { running, addresses, productpage })
}

/// Where Pods find the faces. Those that are not offered to Pods' networks are
/// not named there.
fn environment(addresses: &Addresses, outside: Option<&Outside>) -> BTreeMap<String, String> {
    let dns = outside.map(|outside| SocketAddr::new(outside.node.dns(), DNS_PORT).to_string());
    let dns = addresses.dns.clone().map(|own| dns.unwrap_or(own));
    let http = addresses.http.clone().filter(|_| outside.is_none());
    let xds = addresses.xds.clone().filter(|_| outside.is_none());
    [("PORTOLAN_DNS", dns), ("PORTOLAN_SERVER", http), ("PORTOLAN_XDS", xds)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// Creates the demo, and waits until its page can be called. Returns its URL.
async fn start_demo(shared: &Shared, kubeconfig: &Path) -> Result<String> {
    let client = kubernetes::connect(Some(kubeconfig)).await?;
    apply::create_all(&client, portolan_demo::MANIFESTS).await?;
    let address = apply::cluster_ip(&client, portolan_demo::NAMESPACE, "productpage").await?;
    let page = ServiceKey::kubernetes(portolan_demo::NAMESPACE, "productpage");
    let reviews = ServiceKey::registry(portolan_demo::NAMESPACE, "reviews");
    let serving = |key: &ServiceKey| {
        shared.hub.snapshot().service(key).is_some_and(|entry| entry.served().next().is_some())
    };
    let mut subscriber = shared.hub.subscribe();
    let both = async {
        while !(serving(&page) && serving(&reviews)) {
            if subscriber.next().await.is_none() {
                break;
            }
        }
    };
    if tokio::time::timeout(DEMO_PATIENCE, both).await.is_err() {
        tracing::warn!("the demo is slow to start; ask: portolan why svc/productpage -n demo");
    }
    Ok(format!("http://{address}:{}/productpage", portolan_demo::PORT))
}

fn announce(
    wanted: &Wanted,
    addresses: &Addresses,
    productpage: Option<&str>,
    outside: Option<&Outside>,
    data_dir: &DataDir,
    output: &mut Output,
) -> Result<()> {
    if wanted.flags.output == Some(RunOutput::Json) {
        output.line(&serde_json::to_string(addresses)?)?;
        return Ok(());
    }
    let inside = outside.map(Outside::prefix).unwrap_or_default();
    output.line(&tour::greeting(addresses, data_dir.is_temporary()))?;
    match productpage {
        Some(productpage) => output.line(&tour::demo(addresses, productpage, &inside))?,
        None => output.line("\n  Ctrl-C ends it.")?,
    }
    Ok(())
}
