//! Metrics of the catalog, computed when they are asked for.

use std::sync::Arc;

use portolan_catalog::Hub;
use portolan_model::SourceId;
use portolan_runtime::{Clock, Metrics};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::Counter, gauge::ConstGauge},
    registry::Unit,
};

/// Reads the hub at each scrape: nothing is counted twice, nothing lags.
struct CatalogMetrics {
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for CatalogMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogMetrics").finish_non_exhaustive()
    }
}

/// What watchers were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchCounts {
    /// Events.
    pub(crate) events: Counter,
    /// Bytes of their JSON.
    pub(crate) bytes: Counter,
}

impl WatchCounts {
    pub(crate) fn registered(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            let (events, bytes) = (counts.events.clone(), counts.bytes.clone());
            registry.register("portolan_api_watch_events", "Events sent to watchers", events);
            registry.register("portolan_api_watch_bytes", "Bytes of these events", bytes);
        });
        counts
    }
}

/// Registers the catalog's metrics.
pub fn register(metrics: &Metrics, hub: Arc<Hub>, clock: Arc<dyn Clock>) {
    let collector = CatalogMetrics { hub, clock };
    metrics.register(|registry| registry.register_collector(Box::new(collector)));
}

/// A gauge's value: counts of this size are exact as floats.
#[allow(clippy::cast_precision_loss)]
fn gauge(count: usize) -> ConstGauge<f64> {
    ConstGauge::new(count as f64)
}

impl Collector for CatalogMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.hub.snapshot();
        let age_ms = self.clock.unix_ms().saturating_sub(snapshot.at_ms());
        let endpoints = snapshot.services().map(|entry| entry.endpoints.len()).sum();
        let served = snapshot.services().map(|entry| entry.served().count()).sum();
        let seq = usize::try_from(snapshot.version().seq).unwrap_or(usize::MAX);
        for (name, help, value) in [
            ("portolan_catalog_version", "Commits since the start", gauge(seq)),
            ("portolan_catalog_services", "Services", gauge(snapshot.service_count())),
            ("portolan_catalog_endpoints", "Endpoints", gauge(endpoints)),
            ("portolan_catalog_endpoints_served", "Endpoints that faces hand out", gauge(served)),
            (
                "portolan_catalog_rejections",
                "Objects that could not be used",
                gauge(snapshot.rejections().count()),
            ),
            (
                "portolan_catalog_synced",
                "1 once every source has told all it knows",
                gauge(usize::from(snapshot.is_synced())),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            value.encode(metric)?;
        }
        let age = ConstGauge::new(std::time::Duration::from_millis(age_ms).as_secs_f64());
        let metric = encoder.encode_descriptor(
            "portolan_catalog_age",
            "Time since the last commit",
            Some(&Unit::Seconds),
            age.metric_type(),
        )?;
        age.encode(metric)?;
        let forgotten = gauge(usize::try_from(self.hub.board().forgotten()).unwrap_or(usize::MAX));
        let metric = encoder.encode_descriptor(
            "portolan_face_members_forgotten",
            "Members of faces that had to make room for others since the start",
            None,
            forgotten.metric_type(),
        )?;
        forgotten.encode(metric)?;
        let sources = snapshot.sources();
        let labels = |id: &SourceId| [("source", id.to_string())];
        let mut stale = encoder.encode_descriptor(
            "portolan_source_stale",
            "Since when a source has not been connected; 0: it is",
            Some(&Unit::Seconds),
            forgotten.metric_type(),
        )?;
        for (id, status) in sources {
            let lost = !status.lost.is_empty();
            let age_ms = self.clock.unix_ms().saturating_sub(status.since_ms);
            let age_s = if lost {
                std::time::Duration::from_millis(age_ms)
            } else {
                std::time::Duration::ZERO
            };
            ConstGauge::new(age_s.as_secs_f64()).encode(stale.encode_family(&labels(id))?)?;
        }
        let mut repaired = encoder.encode_descriptor(
            "portolan_source_repaired",
            "What was held and had been wrong when it was verified",
            None,
            forgotten.metric_type(),
        )?;
        for (id, status) in sources {
            let facts = status.parts.values().map(|part| part.repaired).sum();
            gauge(facts).encode(repaired.encode_family(&labels(id))?)?;
        }
        // One family: its descriptor comes once, however many members there are.
        let mut behind = encoder.encode_descriptor(
            "portolan_face_versions_behind",
            "Versions that a member of a face is behind the catalog",
            None,
            forgotten.metric_type(),
        )?;
        for member in self.hub.board().posted() {
            let versions = member.ack.map_or(snapshot.version().seq, |ack| {
                snapshot.version().seq.saturating_sub(ack.version.seq)
            });
            let labels = [("member", member.id.to_string())];
            let value = gauge(usize::try_from(versions).unwrap_or(usize::MAX));
            value.encode(behind.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
