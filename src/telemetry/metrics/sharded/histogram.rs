//! A histogram of durations. prometheus-client's own takes a lock for each observation.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::{Slots, WORDS, Words};

/// One number for each bucket, one for what is longer than all of them, and one for the sum.
const MAX_BOUNDS: usize = WORDS - 2;

/// Counts durations by the shortest bound that they do not pass.
#[derive(Clone, Debug)]
pub(in crate::telemetry::metrics) struct Histogram {
    /// Upper bounds in seconds, ascending.
    bounds: &'static [f64],
    words: Words,
}

/// What a histogram has seen.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSnapshot {
    /// The upper bounds of its buckets in seconds, ascending; the last is infinite.
    pub bounds: Vec<f64>,
    /// How many lay within each bound and above the one before.
    pub counts: Vec<u64>,
    /// All of them together, in seconds.
    pub sum: f64,
}

impl HistogramSnapshot {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Histogram {
    /// At most fourteen bounds.
    pub(in crate::telemetry::metrics) fn new<const N: usize>(
        bounds: &'static [f64; N],
        slots: &Slots,
    ) -> Self {
        const { assert!(N <= MAX_BOUNDS) };
        Self {
            bounds,
            words: slots.take(N + 2),
        }
    }

    pub(in crate::telemetry::metrics) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.words.add(bucket, 1);
        // In whole nanoseconds: 584 years of them.
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.words.add(self.bounds.len() + 1, nanoseconds);
    }

    pub(in crate::telemetry::metrics) fn snapshot(&self) -> HistogramSnapshot {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        HistogramSnapshot {
            bounds: bounds.collect(),
            counts: (0..=self.bounds.len()).map(|n| self.words.sum(n)).collect(),
            sum: Duration::from_nanos(self.words.sum(self.bounds.len() + 1)).as_secs_f64(),
        }
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seen = self.snapshot();
        let count = seen.count();
        let buckets: Vec<(f64, u64)> = seen.bounds.into_iter().zip(seen.counts).collect();
        encoder.encode_histogram::<NoLabelSet>(seen.sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
