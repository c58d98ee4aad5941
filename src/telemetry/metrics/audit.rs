//! What is counted of the audit log.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is counted of the audit log. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AuditMetrics {
    /// Entries written by this process.
    pub written: Counter,
    /// Entries that could not be kept.
    pub lost: Counter,
    /// 1 while the log cannot be written.
    pub failing: Gauge,
    /// The first 48 bits of the last line's hash, which a number holds exactly.
    pub head: Gauge,
    lag: Family<SinkLabels, Gauge>,
    sink_lost: Family<SinkLabels, Counter>,
}

/// What is counted of one sink.
#[derive(Clone, Debug)]
pub struct AuditSinkMetrics {
    /// Entries that are written and not sent.
    pub lag: Gauge,
    /// Entries that it will never send.
    pub lost: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: Arc<str>,
}

impl AuditMetrics {
    /// The handles of a sink, by its name in the settings.
    #[must_use]
    pub fn sink(&self, name: &Arc<str>) -> AuditSinkMetrics {
        let labels = SinkLabels {
            sink: Arc::clone(name),
        };
        AuditSinkMetrics {
            lag: self.lag.get_or_create_owned(&labels),
            lost: self.sink_lost.get_or_create_owned(&labels),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let Self {
            written,
            lost,
            failing,
            head,
            lag,
            sink_lost,
        } = self.clone();
        registry.register("audit_records", "Entries written to the audit log", written);
        registry.register("audit_lost", "Entries that the audit log could not keep", lost);
        registry.register(
            "audit_failing",
            "1 while the audit log cannot be written",
            failing,
        );
        registry.register(
            "audit_head_hash",
            "The first 48 bits of the hash of the audit log's last line",
            head,
        );
        registry.register(
            "audit_sink_lag_records",
            "Entries of the audit log that a sink has not sent yet",
            lag,
        );
        registry.register(
            "audit_sink_lost",
            "Entries of the audit log that a sink will never send",
            sink_lost,
        );
    }
}
