//! Those who take every record.

use std::sync::Arc;

use crate::record::{ConnectionRecord, Decision, LogLine, Receipt, RecordSink};
use crate::telemetry::access::AccessLog;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::log::LogSink;
use crate::telemetry::metrics::Metrics;

/// Those who take every record.
pub(super) struct Sinks {
    pub(super) log: LogSink,
    /// Where the settings name one.
    pub(super) access: Option<AccessLog>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) decisions: Arc<Decisions>,
}

impl RecordSink for Sinks {
    fn record(&self, record: &ConnectionRecord) {
        self.metrics.record(record);
        if let Some(access) = &self.access {
            access.record(record);
        }
        // With an access log the other one is for what a person should look at.
        if self.access.is_none() || !record.went_well() {
            self.log.record(record);
        }
    }

    fn decision(&self, decision: &Arc<Decision>, line: LogLine) -> Receipt {
        // First: what a line names can then be found.
        self.decisions.record(decision);
        self.log.decision(decision, line);
        Receipt::Kept
    }
}
