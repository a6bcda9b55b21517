//! `coredns_build_info` and `coredns_plugin_enabled`: what dashboards of CoreDNS ask before
//! they show anything. Read from the chain that runs at each scrape, so that a reload shows.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use portolan_runtime::Metrics;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
};

use crate::{chain::Chain, metrics::SERVER};

/// What stands for CoreDNS' version: nobody should take us for it.
const VERSION: &str = concat!("portolan-", env!("CARGO_PKG_VERSION"));

struct Enabled(Arc<ArcSwap<Chain>>);

impl fmt::Debug for Enabled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enabled").finish_non_exhaustive()
    }
}

/// Registers both.
pub(crate) fn register(metrics: &Metrics, chain: Arc<ArcSwap<Chain>>) {
    metrics.register(|registry| registry.register_collector(Box::new(Enabled(chain))));
}

impl Collector for Enabled {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let one = ConstGauge::new(1.0);
        let mut info = encoder.encode_descriptor(
            "coredns_build_info",
            "Which program answers.",
            None,
            one.metric_type(),
        )?;
        let labels = [("version", VERSION), ("revision", ""), ("goversion", "")];
        one.encode(info.encode_family(&labels)?)?;
        let mut plugins = encoder.encode_descriptor(
            "coredns_plugin_enabled",
            "Plugins that are used, by zone.",
            None,
            one.metric_type(),
        )?;
        for (zone, name) in self.0.load().plugins() {
            let labels = [("server", SERVER), ("zone", &zone), ("view", ""), ("name", name)];
            one.encode(plugins.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
