//! What is put together at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric as _};
use prometheus_client::registry::Unit;

use crate::telemetry::log::DroppedLines;

/// The ends of what we hold, published whole, so that a scrape never sees a half-made set.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    pub(super) svid: ArcSwap<Option<(String, i64)>>,
    pub(super) bundles: ArcSwap<BTreeMap<String, i64>>,
}

impl Collector for Expiries {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some((id, end)) = &**self.svid.load() {
            let help = "When the SVID we present runs out";
            let mut family = encoder.encode_descriptor(
                "svid_expiry_timestamp",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            ConstGauge::new(*end).encode(family.encode_family(&[("id", id.as_str())])?)?;
        }
        let bundles = self.bundles.load();
        if !bundles.is_empty() {
            let help = "When the last authority of a trust domain's bundle runs out";
            let mut family = encoder.encode_descriptor(
                "bundle_expiry_timestamp",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            for (trust_domain, end) in bundles.iter() {
                ConstGauge::new(*end)
                    .encode(family.encode_family(&[("trust_domain", trust_domain.as_str())])?)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct LogLinesDropped(pub(super) Option<DroppedLines>);

impl Collector for LogLinesDropped {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let dropped = ConstCounter::new(self.0.as_ref().map_or(0, DroppedLines::count));
        let help = "Log lines dropped because whoever reads them is too slow";
        dropped.encode(encoder.encode_descriptor(
            "log_lines_dropped",
            help,
            None,
            ConstCounter::<u64>::TYPE,
        )?)
    }
}

pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}
