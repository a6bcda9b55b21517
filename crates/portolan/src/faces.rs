//! The faces and the catalog behind them: what `up` and `serve` have in common.
//!
//! ```text
//!   sources --reports--> write (the catalog's one owner) --> hub --> faces
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use portolan_api::{
    DnsServer,
    plain::{self, Page},
};
use portolan_apiserver::registry::Cidr;
use portolan_catalog::{Catalog, Hub, Repair, Snapshot};
use portolan_cli::args::FaceFlags;
use portolan_cluster::kubelet;
use portolan_dns::config::{FaceConfig, ServerTls, Transport};
use portolan_model::{Asker, SourceReport, Version};
use portolan_runtime::{Clock, Metrics, Problems, Readiness, Shutdown, SystemClock, Tasks};
use portolan_sources::{file, kubernetes};
use portolan_wire::{Addresses, ResolutionStep};
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::{self, DnsConfig, StaticSource};

/// Batches that may wait for the catalog's writer before sources are slowed
/// down: one page of a list each, so a full queue holds about 30,000 objects.
const BATCHES_MAX: usize = 64;

/// How long everything may take to end after it was asked to: the longest grace
/// period that a demo process needs, and some.
pub(crate) const FINISH: Duration = Duration::from_secs(20);

/// What all parts share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) problems: Problems,
    pub(crate) tasks: Tasks,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            hub: Hub::new(Version::first(rand::random_range(0..Version::EPOCHS))),
            clock: Arc::new(SystemClock),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            problems: Problems::default(),
            tasks: Tasks::new(Shutdown::new()),
        }
    }
}

/// Which faces are started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) dns: bool,
    pub(crate) xds: bool,
    pub(crate) proxy: bool,
    pub(crate) api: bool,
}

/// What was read from files that flags name.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) statics: Vec<StaticSource>,
    pub(crate) dns: Option<DnsConfig>,
}

impl Files {
    /// Reads and checks everything before any socket opens.
    pub(crate) async fn read(flags: &FaceFlags) -> Result<Self> {
        let dns = config::dns(flags)?;
        config::loopback("--http-listen", flags.http_listen)?;
        config::loopback("--xds-listen", flags.xds_listen)?;
        let statics = flags.source_file.iter().map(|text| config::static_source(text));
        let statics = statics.collect::<Result<Vec<_>>>()?;
        // A list that cannot be read is told now; one that breaks later keeps its
        // last good state.
        for StaticSource { origin, path } in &statics {
            let config = file::Config { origin: origin.clone(), path: path.clone() };
            file::check(&config).await.context("--source-file")?;
        }
        Ok(Self { statics, dns })
    }
}

/// How long queries are answered after the process was asked to end.
pub(crate) fn lameduck(dns: Option<&DnsConfig>) -> Duration {
    let health = dns.and_then(|dns| dns.face.health);
    health.map_or(Duration::ZERO, |health| health.lameduck.0)
}

/// Starts the faces; they answer when the catalog is filled. `ranges` are known to be ours.
pub(crate) async fn start(
    chosen: Chosen,
    flags: &FaceFlags,
    shared: &Shared,
    ranges: &[Cidr],
    dns: Option<DnsConfig>,
    addresses: &mut Addresses,
) -> Result<()> {
    let Shared { hub, clock, metrics, readiness, problems, tasks } = shared.clone();
    let mut server: Option<Arc<dyn DnsServer>> = None;
    if chosen.dns {
        let running = start_dns(flags, shared, ranges, dns).await?;
        let address = running.addresses().first().context("the DNS face has no address")?;
        addresses.dns = Some(address.to_string());
        server = Some(Arc::new(Server(running)));
    }
    let mut xds = None;
    if chosen.xds {
        let config = portolan_xds::Config {
            listen: flags.xds_listen,
            cluster_domain: flags.cluster_domain.clone(),
        };
        let surroundings = portolan_xds::Surroundings {
            hub: hub.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            problems: problems.clone(),
        };
        let running = portolan_xds::start(config, surroundings, &tasks).await?;
        xds = Some(running.address);
        addresses.xds = xds.map(|address| address.to_string());
    }
    if chosen.proxy {
        let config = portolan_proxy::Config {
            node: Some(portolan_model::name(kubelet::NODE_NAME_DEFAULT)),
            ..portolan_proxy::Config::default()
        };
        let proxy =
            portolan_proxy::start(config, hub.clone(), clock.clone(), &metrics, &readiness, &tasks)
                .await?;
        problems.add(proxy.face_problems());
    }
    if chosen.api {
        let config = portolan_api::Config {
            listen: flags.http_listen,
            cluster_domain: flags.cluster_domain.clone(),
            program_version: portolan_cli::VERSION.to_owned(),
            watches_max: portolan_api::WATCHES_MAX,
            xds,
        };
        let parts = portolan_api::Parts { hub, clock, metrics, readiness, problems, dns: server };
        let api = portolan_api::start(config, parts, &tasks).await?;
        addresses.http = Some(format!("http://{}", api.address));
    }
    Ok(())
}

/// The DNS face, by its flags or by the file that one of them names; with the pages
/// for probes that the file asks for.
async fn start_dns(
    flags: &FaceFlags,
    shared: &Shared,
    ranges: &[Cidr],
    dns: Option<DnsConfig>,
) -> Result<portolan_dns::Running> {
    let Shared { hub, clock, metrics, readiness, tasks, .. } = shared.clone();
    let zone = portolan_dns::Zone::new(&flags.cluster_domain)
        .with_context(|| format!("--cluster-domain {:?} is no name", flags.cluster_domain))?;
    let mut settings = portolan_dns::Settings::default();
    if let Some(first) = settings.zones.first_mut() {
        *first = zone;
    }
    for range in ranges {
        settings = settings.with_range(range.base(), range.prefix());
    }
    settings.forwarding = portolan_dns::Forwarding::to(flags.dns_upstream.iter().copied());
    let config = portolan_dns::Config {
        listen: vec![flags.dns_listen],
        settings,
        tls: dns_tls(flags, dns.as_ref().map(|dns| &dns.face)),
        face: dns.as_ref().map(|dns| dns.face.clone()),
        ..portolan_dns::Config::default()
    };
    let running = portolan_dns::start(config, hub, clock, &metrics, &readiness, &tasks).await?;
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
        let following = portolan_dns::follow(file, face, running.clone(), metrics, shutdown);
        tasks.spawn("dns configuration", following);
    }
    Ok(running)
}

/// The DNS face, for those who ask the HTTP API about it.
struct Server(portolan_dns::Running);

impl DnsServer for Server {
    fn explain(
        &self,
        name: &str,
        record_type: &str,
        client: IpAddr,
    ) -> Result<Vec<ResolutionStep>, String> {
        let kind = portolan_dns::Rtype::from_str(&record_type.to_uppercase())
            .map_err(|_| format!("{record_type:?} is no record type"))?;
        let steps = self.0.explain(name, kind, client);
        let steps = steps.ok_or_else(|| format!("{name:?} is no domain name"))?;
        let step = |step: portolan_dns::Step| ResolutionStep {
            stage: step.stage.to_owned(),
            text: step.text,
        };
        Ok(steps.into_iter().map(step).collect())
    }

    fn loudest(&self, count: usize) -> Vec<Asker> {
        self.0.loudest(count)
    }
}

/// DNS over TLS: where the flags say (clap sees to it that none or all are given), and where
/// server blocks do, which have certificates of their own.
fn dns_tls(flags: &FaceFlags, face: Option<&FaceConfig>) -> Vec<portolan_dns::Tls> {
    let by_flags = || {
        Some(portolan_dns::Tls {
            listen: flags.dns_tls_listen?,
            certificate: flags.dns_tls_certificate.clone()?,
            key: flags.dns_tls_key.clone()?,
        })
    };
    let secure = face.into_iter().flat_map(|face| &face.servers);
    let secure = secure.filter(|server| server.transport == Transport::Tls);
    let blocks = secure.flat_map(|server| {
        let everywhere = vec![flags.dns_listen.ip()];
        let addresses = if server.bind.is_empty() { everywhere } else { server.bind.clone() };
        addresses.into_iter().filter_map(|address| {
            let ServerTls { cert, key } = server.tls.as_ref()?;
            Some(portolan_dns::Tls {
                listen: SocketAddr::new(address, server.port),
                certificate: cert.into(),
                key: key.into(),
            })
        })
    });
    by_flags().into_iter().chain(blocks).collect()
}

/// Starts the sources, and the catalog that they fill.
pub(crate) async fn start_sources(
    shared: &Shared,
    config: kubernetes::Config,
    statics: Vec<StaticSource>,
) -> Result<()> {
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
    let (hub, clock) = (shared.hub.clone(), shared.clock.clone());
    shared.readiness.add_note(move || staleness(&hub.snapshot(), clock.unix_ms()));
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
        for repair in catalog.take_repairs() {
            let Repair { source, key, how } = repair;
            warn!(%source, object = %key, ?how, "what was held had been wrong, and is repaired");
        }
    }
}

/// Returns once the catalog is filled and nothing blocks readiness.
pub(crate) async fn synced(shared: &Shared) {
    let mut subscriber = shared.hub.subscribe();
    while !shared.hub.snapshot().is_synced() {
        if subscriber.next().await.is_none() {
            return;
        }
    }
    shared.readiness.wait().await;
}

/// Sources that are lost, for who asks whether we are ready: we are, with what they told
/// last.
fn staleness(snapshot: &Snapshot, now_ms: u64) -> Option<String> {
    let lost = snapshot.sources().iter().filter(|(_, status)| !status.lost.is_empty());
    let told: Vec<String> = lost
        .map(|(id, status)| format!("{id} for {} s", now_ms.saturating_sub(status.since_ms) / 1000))
        .collect();
    (!told.is_empty()).then(|| format!("stale: {}", told.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use portolan_cli::args::{Cli, Command};
    use portolan_dns::corefile;

    use super::*;

    #[test]
    fn where_tls_is_listened() {
        let flags = |arguments: &[&str]| {
            let all = [&["portolan", "serve", "--dns-listen=127.0.0.9:53"], arguments].concat();
            match Cli::parse_from(all).command {
                Command::Serve(args) => args.faces,
                other => panic!("{other:?}"),
            }
        };
        let corefile = "tls://secret.test:8853 {\n tls c.pem k.pem\n}\n\
                        tls://other.test {\n bind 127.0.0.2 ::1\n tls c.pem k.pem\n}\n. {\n any\n}\n";
        let read = corefile::read(corefile, std::path::Path::new("Corefile"), &corefile::Disk);
        let face = read.unwrap().config;
        let listens = |flags: &FaceFlags, face: Option<&FaceConfig>| -> Vec<String> {
            dns_tls(flags, face).iter().map(|tls| tls.listen.to_string()).collect()
        };
        let plain = flags(&[]);
        assert_eq!(listens(&plain, None), Vec::<String>::new());
        assert_eq!(listens(&plain, Some(&face)), ["127.0.0.9:8853", "127.0.0.2:853", "[::1]:853"]);
        let all = flags(&[
            "--dns-tls-listen=127.0.0.1:9853",
            "--dns-tls-certificate=c.pem",
            "--dns-tls-key=k.pem",
        ]);
        assert_eq!(listens(&all, None), ["127.0.0.1:9853"]);
    }
}
