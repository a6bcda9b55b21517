//! What CoreDNS' cache, forward and proxy count, by its names and labels, so that
//! dashboards go on showing it.

use std::{net::SocketAddr, time::Duration};

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

use super::reply::{Lifetime, Reply};
use crate::{metrics::SERVER, wire::rcode_text};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Zones {
    server: &'static str,
    zones: &'static str,
    view: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kinds {
    server: &'static str,
    r#type: &'static str,
    zones: &'static str,
    view: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Replied {
    proxy_name: &'static str,
    to: String,
    rcode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connected {
    proxy_name: &'static str,
    to: String,
    proto: &'static str,
}

const ZONES: Zones = Zones { server: SERVER, zones: ".", view: "" };

fn kinds(r#type: &'static str) -> Kinds {
    Kinds { server: SERVER, r#type, zones: ".", view: "" }
}

/// CoreDNS tells its two caches apart by what they hold.
fn kind_of(reply: &Reply) -> Kinds {
    kinds(match reply.lifetime() {
        Some(Lifetime::Records(_)) => "success",
        _ => "denial",
    })
}

/// The counters.
#[derive(Clone, Debug)]
pub(super) struct CoreDns {
    requests: Family<Zones, Counter>,
    hits: Family<Kinds, Counter>,
    misses: Family<Zones, Counter>,
    prefetches: Family<Zones, Counter>,
    served_stale: Family<Zones, Counter>,
    evictions: Family<Kinds, Counter>,
    entries: Family<Kinds, Gauge>,
    rejects: Counter,
    took: Family<Replied, Histogram>,
    connections_kept: Family<Connected, Counter>,
    connections_made: Family<Connected, Counter>,
}

impl CoreDns {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            requests: Family::default(),
            hits: Family::default(),
            misses: Family::default(),
            prefetches: Family::default(),
            served_stale: Family::default(),
            evictions: Family::default(),
            entries: Family::default(),
            rejects: Counter::default(),
            // CoreDNS' buckets: 0.25 ms doubled 16 times.
            took: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
            }),
            connections_kept: Family::default(),
            connections_made: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "coredns_cache_requests",
                "The count of cache requests.",
                own.requests.clone(),
            );
            registry.register("coredns_cache_hits", "The count of cache hits.", own.hits.clone());
            registry.register(
                "coredns_cache_misses",
                "The count of cache misses.",
                own.misses.clone(),
            );
            registry.register(
                "coredns_cache_prefetch",
                "The number of times the cache has prefetched a cached item.",
                own.prefetches.clone(),
            );
            registry.register(
                "coredns_cache_served_stale",
                "The number of requests served from stale cache entries.",
                own.served_stale.clone(),
            );
            registry.register(
                "coredns_cache_evictions",
                "The count of cache evictions.",
                own.evictions.clone(),
            );
            registry.register(
                "coredns_cache_entries",
                "The number of elements in the cache.",
                own.entries.clone(),
            );
            registry.register(
                "coredns_forward_max_concurrent_rejects",
                "Counter of the number of queries rejected because the concurrent queries were \
                 at maximum.",
                own.rejects.clone(),
            );
            registry.register(
                "coredns_proxy_request_duration_seconds",
                "Histogram of the time each request took.",
                own.took.clone(),
            );
            registry.register(
                "coredns_proxy_conn_cache_hits",
                "Counter of connection cache hits per upstream and protocol.",
                own.connections_kept.clone(),
            );
            registry.register(
                "coredns_proxy_conn_cache_misses",
                "Counter of connection cache misses per upstream and protocol.",
                own.connections_made.clone(),
            );
        });
        own
    }

    /// A question was looked up.
    pub(super) fn looked_up(&self, found: Option<&Reply>) {
        self.requests.get_or_create(&ZONES).inc();
        match found {
            Some(reply) => self.hits.get_or_create(&kind_of(reply)).inc(),
            None => self.misses.get_or_create(&ZONES).inc(),
        };
    }

    pub(super) fn prefetched(&self) {
        self.prefetches.get_or_create(&ZONES).inc();
    }

    pub(super) fn served_stale(&self) {
        self.served_stale.get_or_create(&ZONES).inc();
    }

    pub(super) fn rejected(&self) {
        self.rejects.inc();
    }

    /// There is one cache here for both kinds.
    pub(super) fn holds(&self, entries: i64, evicted: u64) {
        self.entries.get_or_create(&kinds("success")).inc_by(entries);
        self.evictions.get_or_create(&kinds("success")).inc_by(evicted);
    }

    pub(super) fn took(&self, to: SocketAddr, reply: &Reply, took: Duration) {
        let labels =
            Replied { proxy_name: "forward", to: to.to_string(), rcode: rcode_text(reply.rcode) };
        self.took.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counters of connections to a server: those that were kept, those that were made.
    pub(super) fn connections(&self, to: SocketAddr, tls: bool) -> [Counter; 2] {
        let proto = if tls { "tcp-tls" } else { "tcp" };
        let labels = Connected { proxy_name: "forward", to: to.to_string(), proto };
        [&self.connections_kept, &self.connections_made]
            .map(|family| family.get_or_create(&labels).clone())
    }
}
