//! `portolan up` and `portolan cluster`: the wiring.
//!
//! ```text
//!   faces bind (they answer SERVFAIL, not ready) ─▶ cluster starts (Pods learn the faces'
//!   addresses) ─▶ kubeconfig ─▶ sources connect through it over TLS ─▶ catalog ─▶ ready
//! ```
//!
//! Faces come before the cluster, so that every address is known when the first
//! Pod starts, also where a flag asked for a free port.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use portolan_api::plain::{self, Page};
use portolan_apiserver::registry::Cidr;
use portolan_catalog::{Catalog, Hub};
use portolan_cli::{
    args::{ClusterArgs, ClusterFlags, Part, RunOutput, UpArgs},
    output::{Exit, Output},
};
use portolan_cluster::kubelet;
use portolan_model::{ServiceKey, SourceReport, Version};
use portolan_runtime::{Clock, Metrics, Problems, Readiness, Shutdown, SystemClock, Tasks};
use portolan_sources::{file, kubernetes};
use portolan_wire::Addresses;
use tokio::sync::mpsc;

use crate::{
    apply,
    config::{self, DnsConfig, StaticSource},
    data_dir::DataDir,
    outside::{DNS_PORT, Outside},
    signals::Signals,
    tour,
};

/// Batches that may wait for the catalog's writer before sources are slowed
/// down: one page of a list each, so a full queue holds about 30,000 objects.
const BATCHES_MAX: usize = 64;

/// How long everything may take to end after it was asked to: the longest grace
/// period that a demo process needs, and some.
const FINISH: Duration = Duration::from_secs(20);

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

/// What all parts share.
#[derive(Clone)]
struct Shared {
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    readiness: Readiness,
    problems: Problems,
    tasks: Tasks,
}

/// Runs until a signal asks it to end.
pub(crate) async fn run(
    wanted: Wanted,
    mut outside: Option<Outside>,
    output: &mut Output,
) -> Result<Exit> {
    let (pod_cidrs, service_cidrs) = config::ranges(&wanted.flags)?;
    config::loopback("--api-listen", wanted.flags.api_listen)?;
    let mut statics = Vec::new();
    let mut dns = None;
    if let Some(up) = &wanted.faces {
        dns = config::dns(up)?;
        config::loopback("--http-listen", up.http_listen)?;
        for text in &up.source_file {
            statics.push(config::static_source(text)?);
        }
    }
    // A list that cannot be read is told now; one that breaks later keeps its
    // last good state.
    for StaticSource { origin, path } in &statics {
        let config = file::Config { origin: origin.clone(), path: path.clone() };
        file::check(&config).await.context("--source-file")?;
    }
    let data_dir = DataDir::take(wanted.flags.data_dir.as_deref(), wanted.flags.ephemeral)?;
    let mut signals = Signals::new()?;
    let shared = Shared {
        hub: Hub::new(Version::first(rand::random_range(0..Version::EPOCHS))),
        clock: Arc::new(SystemClock),
        metrics: Metrics::new(),
        readiness: Readiness::new(),
        problems: Problems::default(),
        tasks: Tasks::new(Shutdown::new()),
    };

    if let Some(outside) = &mut outside {
        outside.serve(&shared.tasks)?;
    }
    let outside = outside.as_ref();
    let lameduck = lameduck(dns.as_ref());
    let files = Files { statics, dns };
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

/// How long queries are answered after the process was asked to end.
fn lameduck(dns: Option<&DnsConfig>) -> Duration {
    let health = dns.and_then(|dns| dns.face.health);
    health.map_or(Duration::ZERO, |health| health.lameduck.0)
}

/// What was read from files that flags name.
struct Files {
    statics: Vec<StaticSource>,
    dns: Option<DnsConfig>,
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
    start_faces(wanted, shared, &ranges, files.dns, &mut addresses).await?;
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
        start_sources(shared, &kubeconfig, files.statics).await?;
        synced(shared).await;
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
    [("PORTOLAN_DNS", dns), ("PORTOLAN_SERVER", http)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

async fn start_faces(
    wanted: &Wanted,
    shared: &Shared,
    ranges: &[Cidr],
    dns: Option<DnsConfig>,
    addresses: &mut Addresses,
) -> Result<()> {
    let Some(up) = &wanted.faces else { return Ok(()) };
    let Shared { hub, clock, metrics, readiness, problems, tasks } = shared.clone();
    if wanted.has(Part::Dns) {
        addresses.dns = Some(start_dns(up, shared, ranges, dns).await?.to_string());
    }
    if wanted.has(Part::Proxy) {
        let config = portolan_proxy::Config {
            node: Some(portolan_model::name(kubelet::NODE_NAME_DEFAULT)),
            ..portolan_proxy::Config::default()
        };
        let proxy =
            portolan_proxy::start(config, hub.clone(), clock.clone(), &metrics, &readiness, &tasks)
                .await?;
        problems.add(proxy.face_problems());
    }
    if wanted.has(Part::Api) {
        let config = portolan_api::Config {
            listen: up.http_listen,
            cluster_domain: up.cluster_domain.clone(),
            program_version: portolan_cli::VERSION.to_owned(),
        };
        let parts = portolan_api::Parts { hub, clock, metrics, readiness, problems };
        let api = portolan_api::start(config, parts, &tasks).await?;
        addresses.http = Some(format!("http://{}", api.address));
    }
    Ok(())
}

/// The DNS face, by its flags or by the file that one of them names; with the pages
/// for probes that the file asks for. Returns where names are asked for.
async fn start_dns(
    up: &UpArgs,
    shared: &Shared,
    ranges: &[Cidr],
    dns: Option<DnsConfig>,
) -> Result<SocketAddr> {
    let Shared { hub, clock, metrics, readiness, tasks, .. } = shared.clone();
    let zone = portolan_dns::Zone::new(&up.cluster_domain)
        .with_context(|| format!("--cluster-domain {:?} is no name", up.cluster_domain))?;
    let mut settings = portolan_dns::Settings::default();
    if let Some(first) = settings.zones.first_mut() {
        *first = zone;
    }
    for range in ranges {
        settings = settings.with_range(range.base(), range.prefix());
    }
    settings.forwarding = portolan_dns::Forwarding::to(up.dns_upstream.iter().copied());
    let config = portolan_dns::Config {
        listen: vec![up.dns_listen],
        settings,
        tls: dns_tls(up),
        face: dns.as_ref().map(|dns| dns.face.clone()),
        ..portolan_dns::Config::default()
    };
    let running = portolan_dns::start(config, hub, clock, &metrics, &readiness, &tasks).await?;
    let address = running.addresses().first().copied().context("the DNS face has no address")?;
    if let Some(DnsConfig { file, face }) = dns {
        let pages = [
            (Page::Health, face.health.map(|health| health.listen)),
            (Page::Ready, face.ready.map(|ready| ready.listen)),
            (Page::Metrics, face.prometheus.map(|metrics| metrics.listen)),
        ];
        for (page, listen) in pages {
            if let Some(listen) = listen {
                plain::serve(page, listen.0, &metrics, &readiness, &tasks).await?;
            }
        }
        let shutdown = tasks.shutdown().clone();
        let following = portolan_dns::follow(file, face, running, metrics, shutdown);
        tasks.spawn("dns configuration", following);
    }
    Ok(address)
}

/// DNS over TLS, where all of its flags are given (clap sees to it that none or all
/// are).
fn dns_tls(up: &UpArgs) -> Option<portolan_dns::Tls> {
    Some(portolan_dns::Tls {
        listen: up.dns_tls_listen?,
        certificate: up.dns_tls_certificate.clone()?,
        key: up.dns_tls_key.clone()?,
    })
}

/// Connects the sources through the kubeconfig, as to any other cluster.
async fn start_sources(
    shared: &Shared,
    kubeconfig: &Path,
    statics: Vec<StaticSource>,
) -> Result<()> {
    let client = kubernetes::connect(Some(kubeconfig)).await?;
    let config = kubernetes::Config::new(client);
    let mut catalog = Catalog::new(shared.hub.clone());
    let now_ms = shared.clock.unix_ms();
    for (source, parts) in kubernetes::parts(&config) {
        catalog.expect(source, &parts, now_ms);
    }
    let statics: Vec<file::Config> = statics
        .into_iter()
        .map(|StaticSource { origin, path }| file::Config { origin, path })
        .collect();
    for config in &statics {
        let (source, parts) = file::parts(config);
        catalog.expect(source, &parts, now_ms);
    }
    let (sink, batches) = mpsc::channel(BATCHES_MAX);
    let shutdown = shared.tasks.shutdown().clone();
    shared.tasks.spawn("catalog", write(catalog, batches, shared.clock.clone(), shutdown));
    kubernetes::start(config, &sink, &shared.clock, &shared.tasks);
    for config in statics {
        file::start(config, sink.clone(), shared.clock.clone(), &shared.tasks);
    }
    Ok(())
}

/// The catalog's one writer: takes what has come, as one commit.
async fn write(
    mut catalog: Catalog,
    mut batches: mpsc::Receiver<Vec<SourceReport>>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) {
    while let Some(Some(mut reports)) = shutdown.run_until_cancelled(batches.recv()).await {
        // A lone change is committed at once; a storm becomes few commits.
        while let Ok(more) = batches.try_recv() {
            reports.extend(more);
        }
        catalog.apply(reports, clock.unix_ms());
    }
}

/// Returns once the catalog is filled and nothing blocks readiness.
async fn synced(shared: &Shared) {
    let mut subscriber = shared.hub.subscribe();
    while !shared.hub.snapshot().is_synced() {
        if subscriber.next().await.is_none() {
            return;
        }
    }
    shared.readiness.wait().await;
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
