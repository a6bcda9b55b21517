//! What `/metrics` shows.

use std::sync::{Arc, Weak};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
};

use crate::{Shared, WAITS_MAX};

/// How a registration ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What is counted as it happens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    registrations: Family<Outcome, Counter>,
}

impl Counts {
    pub(crate) fn registered(&self, fine: bool) {
        self.registrations.get_or_create(&outcome(fine)).inc();
    }

    pub(crate) fn registered_in(metrics: &portolan_runtime::Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            let help = "Registrations that were asked for, by outcome";
            registry.register("portolan_agent_registrations", help, counts.registrations.clone());
        });
        counts
    }
}

fn outcome(fine: bool) -> Outcome {
    Outcome { outcome: if fine { "good" } else { "bad" } }
}

/// Read when it is asked for. Weak: what is read holds the registry that holds this.
#[derive(Debug)]
struct Present(Weak<Shared>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

pub(crate) fn register(shared: &Arc<Shared>) {
    let present = Present(Arc::downgrade(shared));
    shared.metrics.register(|registry| registry.register_collector(Box::new(present)));
}

impl Collector for Present {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        let waits = WAITS_MAX - shared.waits.available_permits();
        let degraded = usize::from(shared.names.trouble().is_some());
        for (name, help, value) in [
            ("portolan_agent_owners", "Owners that have registered", shared.owners.len()),
            ("portolan_agent_names", "Names that are followed", shared.names.len()),
            ("portolan_agent_waits", "Requests that wait, and streams that are open", waits),
            ("portolan_agent_degraded", "1 while what is told cannot be confirmed", degraded),
        ] {
            // Counts of this size are exact as floats.
            #[allow(clippy::cast_precision_loss)]
            let value = ConstGauge::new(value as f64);
            let metric = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            value.encode(metric)?;
        }
        Ok(())
    }
}
