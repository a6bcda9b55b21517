//! Our face alone against a cluster: the API's objects in, names out.

use std::{path::Path, sync::Arc, time::Duration};

use portolan_catalog::{Catalog, Hub};
use portolan_model::Version;
use portolan_runtime::{Metrics, Readiness, Shutdown, SystemClock, Tasks};
use portolan_sources::kubernetes::{self, Kinds};

/// Serves until the process ends; says when it is ready.
pub(crate) fn run(kubeconfig: &str, listen: &str, upstream: &str) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(serve(kubeconfig, listen, upstream));
}

async fn serve(kubeconfig: &str, listen: &str, upstream: &str) {
    let hub = Hub::new(Version::first(1));
    let clock: Arc<dyn portolan_runtime::Clock> = Arc::new(SystemClock);
    let (readiness, tasks) = (Readiness::new(), Tasks::new(Shutdown::new()));
    let settings = portolan_dns::Settings {
        forwarding: portolan_dns::Forwarding::to([upstream.parse().unwrap()]),
        ..Default::default()
    };
    let config = portolan_dns::Config {
        listen: vec![listen.parse().unwrap()],
        workers: std::num::NonZeroUsize::new(1),
        settings,
        ..portolan_dns::Config::default()
    };
    let metrics = Metrics::new();
    let face =
        portolan_dns::start(config, hub.clone(), clock.clone(), &metrics, &readiness, &tasks).await;
    face.unwrap();

    let client = kubernetes::connect(Some(Path::new(kubeconfig))).await.unwrap();
    let kinds = Kinds { namespaces: true, services: true, endpoint_slices: true, ..Kinds::NONE };
    let config = kubernetes::Config { kinds, ..kubernetes::Config::new(client) };
    let mut catalog = Catalog::new(hub.clone());
    for (source, parts) in kubernetes::parts(&config) {
        catalog.expect(source, &parts, clock.unix_ms());
    }
    let (sink, mut batches) = tokio::sync::mpsc::channel::<Vec<_>>(64);
    kubernetes::start(config, &sink, &clock, &tasks);
    tokio::spawn({
        let clock = clock.clone();
        async move {
            while let Some(mut reports) = batches.recv().await {
                while let Ok(more) = batches.try_recv() {
                    reports.extend(more);
                }
                catalog.apply(reports, clock.unix_ms());
            }
        }
    });
    while !readiness.blockers().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("ready");
    std::future::pending::<()>().await;
}
