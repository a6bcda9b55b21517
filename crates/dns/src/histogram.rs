//! A histogram of durations that many threads add to without a lock.
//!
//! That of prometheus-client takes a lock for each observation, and one
//! observation at a time; a worker adds a whole batch at once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Upper bound of the first bucket; each further one is twice as wide (CoreDNS'
/// buckets: 0.25 ms doubled 16 times).
const FIRST: Duration = Duration::from_micros(250);

/// Buckets, the last of which takes what is longer than all others.
const BUCKETS: usize = 17;

/// Counts of durations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Durations {
    /// Adds so many observations of one duration.
    pub(crate) fn observe(&self, took: Duration, times: u64) {
        let bucket = (0..BUCKETS - 1).find(|place| took <= FIRST * (1 << place));
        if let Some(count) = self.0.buckets.get(bucket.unwrap_or(BUCKETS - 1)) {
            count.fetch_add(times, Ordering::Relaxed);
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).saturating_mul(times);
        self.0.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bounds = (0..BUCKETS).map(|place| match place + 1 {
            BUCKETS => f64::MAX,
            _ => (FIRST * (1 << place)).as_secs_f64(),
        });
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = Duration::from_nanos(self.0.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
