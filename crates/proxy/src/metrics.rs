//! What is counted: our own names, and kube-proxy's where dashboards rely on them.

use portolan_runtime::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use std::sync::atomic::AtomicU64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// The counters of the proxy.
#[derive(Clone, Debug)]
pub(crate) struct ProxyMetrics {
    pub(crate) connections: Counter,
    pub(crate) connections_open: Gauge,
    refused: Family<Why, Counter>,
    connect_failures: Family<Why, Counter>,
    pub(crate) udp_flows: Gauge,
    udp_dropped: Family<Why, Counter>,
    pub(crate) fronts: Gauge,
    pub(crate) problems: Gauge,
    pub(crate) sync_duration: Histogram,
    pub(crate) sync_last: Gauge<f64, AtomicU64>,
    pub(crate) service_changes: Counter,
}

impl ProxyMetrics {
    /// Registers all of them.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            connections: Counter::default(),
            connections_open: Gauge::default(),
            refused: Family::default(),
            connect_failures: Family::default(),
            udp_flows: Gauge::default(),
            udp_dropped: Family::default(),
            fronts: Gauge::default(),
            problems: Gauge::default(),
            // kube-proxy's buckets: 1 ms doubled 15 times.
            sync_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            sync_last: Gauge::default(),
            service_changes: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "portolan_proxy_connections",
                "TCP connections that reached an endpoint",
                own.connections.clone(),
            );
            registry.register(
                "portolan_proxy_connections_open",
                "TCP connections that are open now",
                own.connections_open.clone(),
            );
            registry.register(
                "portolan_proxy_refused",
                "TCP connections that were reset instead, by reason",
                own.refused.clone(),
            );
            registry.register(
                "portolan_proxy_connect_failures",
                "Endpoints that could not be connected to, by reason",
                own.connect_failures.clone(),
            );
            registry.register(
                "portolan_proxy_udp_flows",
                "UDP flows that are open now",
                own.udp_flows.clone(),
            );
            registry.register(
                "portolan_proxy_udp_dropped",
                "UDP datagrams that were dropped, by reason",
                own.udp_dropped.clone(),
            );
            registry.register(
                "portolan_proxy_fronts",
                "Virtual ports that are open now",
                own.fronts.clone(),
            );
            registry.register(
                "portolan_proxy_problems",
                "Virtual ports that cannot be opened now",
                own.problems.clone(),
            );
            registry.register(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds",
                own.sync_duration.clone(),
            );
            registry.register(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "The last time proxy rules were successfully synced",
                own.sync_last.clone(),
            );
            registry.register(
                "kubeproxy_sync_proxy_rules_service_changes",
                "Cumulative proxy rules Service changes",
                own.service_changes.clone(),
            );
        });
        own
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Why { reason }).inc();
    }

    pub(crate) fn connect_failed(&self, reason: &'static str) {
        self.connect_failures.get_or_create(&Why { reason }).inc();
    }

    pub(crate) fn udp_dropped(&self, reason: &'static str) {
        self.udp_dropped.get_or_create(&Why { reason }).inc();
    }
}
