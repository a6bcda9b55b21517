//! What the face has done, for `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use portolan_runtime::Metrics;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use super::clients::Clients;
use crate::{publisher::Publisher, store::Kind, stream::Response};

/// Counters by type of resource.
#[derive(Debug, Default)]
pub(super) struct Counters {
    responses: [AtomicU64; Kind::ALL.len()],
    resources: [AtomicU64; Kind::ALL.len()],
    refusals: [AtomicU64; Kind::ALL.len()],
    unknown_types: AtomicU64,
}

impl Counters {
    pub(super) fn told(&self, response: &Response) {
        let kind = response.kind as usize;
        self.responses[kind].fetch_add(1, Relaxed);
        let resources = u64::try_from(response.resources.len()).unwrap_or(u64::MAX);
        self.resources[kind].fetch_add(resources, Relaxed);
    }

    pub(super) fn refused(&self, kind: Kind) {
        self.refusals[kind as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn unknown_type(&self) {
        self.unknown_types.fetch_add(1, Relaxed);
    }
}

/// Reads everything when it is asked for.
#[derive(Debug)]
struct Face {
    counters: Arc<Counters>,
    clients: Arc<Clients>,
    publisher: Arc<Publisher>,
}

pub(super) fn register(
    metrics: &Metrics,
    counters: Arc<Counters>,
    clients: Arc<Clients>,
    publisher: Arc<Publisher>,
) {
    let face = Face { counters, clients, publisher };
    metrics.register(|registry| registry.register_collector(Box::new(face)));
}

impl Collector for Face {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut of_kinds = |name: &str, help: &str, counters: &[AtomicU64]| {
            let counter = ConstCounter::new(0_u64);
            let mut all = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for (kind, counter) in Kind::ALL.into_iter().zip(counters) {
                let labels = [("type", kind.short())];
                let counter = ConstCounter::new(counter.load(Relaxed));
                counter.encode(all.encode_family(&labels)?)?;
            }
            Ok::<_, std::fmt::Error>(())
        };
        let Counters { responses, resources, refusals, unknown_types } = &*self.counters;
        of_kinds("portolan_xds_responses", "Responses to clients of xDS.", responses)?;
        of_kinds("portolan_xds_resources_sent", "Resources in these responses.", resources)?;
        of_kinds("portolan_xds_refusals", "Responses that clients refused (NACK).", refusals)?;
        let unknown = ConstCounter::new(unknown_types.load(Relaxed));
        let name = "portolan_xds_unknown_types";
        let help = "Requests for types of resource that are not served.";
        unknown.encode(encoder.encode_descriptor(name, help, None, unknown.metric_type())?)?;
        let streams = i64::try_from(self.clients.all().len()).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("portolan_xds_streams", "Clients of xDS that are connected, by stream.", streams),
            (
                "portolan_xds_shelves",
                "Different sets of resources that are kept for clients.",
                i64::try_from(self.publisher.shelves()).unwrap_or(i64::MAX),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
