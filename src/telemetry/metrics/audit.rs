//! What is counted of the audit log.

use prometheus_client::metrics::counter::Counter;
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
}

impl AuditMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let Self {
            written,
            lost,
            failing,
            head,
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
    }
}
