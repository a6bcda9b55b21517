//! Histograms of durations and sizes that many threads add to without a lock.
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

/// Upper bounds of the buckets of sizes, in bytes, as CoreDNS has them (its
/// `plugin/metrics/vars`). What is longer is in a last bucket.
const SIZES: [u64; 14] =
    [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];

/// Sizes that one thread has counted by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SizeBatch {
    buckets: [u64; SIZES.len() + 1],
    sum: u64,
}

impl SizeBatch {
    /// Of one message.
    pub(crate) fn one(bytes: usize) -> Self {
        let mut batch = Self::default();
        batch.observe(bytes);
        batch
    }

    /// Counts one message.
    pub(crate) fn observe(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let bucket = SIZES.iter().position(|bound| bytes <= *bound).unwrap_or(SIZES.len());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += bytes;
    }
}

/// Counts of sizes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes(Arc<SizeCounts>);

#[derive(Debug, Default)]
struct SizeCounts {
    buckets: [AtomicU64; SIZES.len() + 1],
    sum: AtomicU64,
}

impl Sizes {
    /// Adds what one thread has counted.
    pub(crate) fn add(&self, batch: &SizeBatch) {
        for (count, more) in self.0.buckets.iter().zip(batch.buckets) {
            if more > 0 {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
        self.0.sum.fetch_add(batch.sum, Ordering::Relaxed);
    }
}

impl TypedMetric for Sizes {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Sizes {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        // All bounds and the sum are whole numbers far below 2^53.
        let bounds = SIZES.iter().map(|bound| *bound as f64).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let sum = self.0.sum.load(Ordering::Relaxed) as f64;
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_the_bucket_that_holds_them() {
        for (bytes, bucket) in
            [(0, 0), (1, 1), (100, 1), (101, 2), (511, 5), (512, 6), (64_000, 13), (65_535, 14)]
        {
            let batch = SizeBatch::one(bytes);
            let place = batch.buckets.iter().position(|count| *count == 1);
            assert_eq!((place, batch.sum), (Some(bucket), bytes as u64), "{bytes}");
        }
    }
}
