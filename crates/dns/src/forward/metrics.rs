//! What is counted of forwarding and its cache.

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

use super::{
    cache::{Found, Holding, State},
    coredns::CoreDns,
    reply::Reply,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    upstream: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    upstream: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookedUp {
    outcome: &'static str,
}

/// The counters of forwarding; those of all forwarders are one.
#[derive(Clone, Debug)]
pub(crate) struct ForwardMetrics {
    answered: Family<Answered, Counter>,
    duration: Family<To, Histogram>,
    looping: Family<To, Gauge>,
    lookups: Family<LookedUp, Counter>,
    entries: Gauge,
    bytes: Gauge,
    evicted: Gauge,
    pub(super) coalesced: Counter,
    pub(super) hedged: Counter,
    prefetched: Counter,
    rejected: Counter,
    served_stale: Counter,
    pub(super) coredns: CoreDns,
}

impl ForwardMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            answered: Family::default(),
            // 0.1 ms to 6.5 s: loopback to the end of the budget.
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_1, 2.0, 17))
            }),
            looping: Family::default(),
            lookups: Family::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
            evicted: Gauge::default(),
            coalesced: Counter::default(),
            hedged: Counter::default(),
            prefetched: Counter::default(),
            rejected: Counter::default(),
            served_stale: Counter::default(),
            coredns: CoreDns::register(metrics),
        };
        metrics.register(|registry| {
            let mut add = |name: &str, help: &str, counter: &Counter| {
                registry.register(name, help, counter.clone());
            };
            add(
                "portolan_dns_forward_coalesced",
                "Questions that joined one that was on its way already",
                &own.coalesced,
            );
            add(
                "portolan_dns_forward_hedged",
                "Further queries for a question, as a reply was late, bad or missing",
                &own.hedged,
            );
            add(
                "portolan_dns_forward_rejected",
                "Questions that found too many others waiting",
                &own.rejected,
            );
            add(
                "portolan_dns_cache_prefetched",
                "Names that were fetched anew before they expired",
                &own.prefetched,
            );
            add(
                "portolan_dns_cache_served_stale",
                "Answers past their TTL, as no upstream answered",
                &own.served_stale,
            );
            registry.register(
                "portolan_dns_forward_queries",
                "Queries to upstreams, by upstream and outcome",
                own.answered.clone(),
            );
            registry.register(
                "portolan_dns_forward_duration_seconds",
                "Time that an upstream took to answer",
                own.duration.clone(),
            );
            registry.register(
                "portolan_dns_upstream_looping",
                "1 for an upstream that leads back to this server, and is not asked",
                own.looping.clone(),
            );
            registry.register(
                "portolan_dns_cache_lookups",
                "Questions that were looked up in the cache, by outcome",
                own.lookups.clone(),
            );
            registry.register("portolan_dns_cache_entries", "Replies kept", own.entries.clone());
            registry.register("portolan_dns_cache_bytes", "Bytes of them", own.bytes.clone());
            registry.register(
                "portolan_dns_cache_evicted",
                "Replies that made room for others",
                own.evicted.clone(),
            );
        });
        own
    }

    pub(super) fn answered(&self, upstream: SocketAddr, outcome: &'static str) {
        let upstream = upstream.to_string();
        self.answered.get_or_create(&Answered { upstream, outcome }).inc();
    }

    pub(super) fn took(&self, upstream: SocketAddr, reply: &Reply, took: Duration) {
        self.coredns.took(upstream, reply, took);
        let upstream = upstream.to_string();
        self.duration.get_or_create(&To { upstream }).observe(took.as_secs_f64());
    }

    pub(super) fn prefetched(&self) {
        self.prefetched.inc();
        self.coredns.prefetched();
    }

    pub(super) fn rejected(&self) {
        self.rejected.inc();
        self.coredns.rejected();
    }

    pub(super) fn served_stale(&self) {
        self.served_stale.inc();
        self.coredns.served_stale();
    }

    pub(super) fn looping(&self, upstream: SocketAddr, loops: bool) {
        let upstream = upstream.to_string();
        self.looping.get_or_create(&To { upstream }).set(i64::from(loops));
    }

    pub(super) fn looked_up(&self, found: Option<&Found>) {
        self.coredns.looked_up(found.map(|found| &*found.reply));
        let outcome = match found.map(|found| found.state) {
            Some(State::Fresh | State::Ending) => "hit",
            Some(State::Stale) => "stale",
            None => "miss",
        };
        self.lookups.get_or_create(&LookedUp { outcome }).inc();
    }

    /// One cache holds something else than before.
    pub(super) fn holds(&self, before: Holding, now: Holding) {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let entries = number(now.entries) - number(before.entries);
        self.entries.inc_by(entries);
        self.bytes.inc_by(number(now.bytes) - number(before.bytes));
        let evicted = now.evicted.saturating_sub(before.evicted);
        self.evicted.inc_by(i64::try_from(evicted).unwrap_or(i64::MAX));
        self.coredns.holds(entries, evicted);
    }
}
