//! Those who take every record.

use std::sync::Arc;

use crate::record::{ConnectionRecord, Decision, LogLine, Receipt, RecordSink};
use crate::telemetry::decisions::Decisions;
use crate::telemetry::log::LogSink;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;

/// Those who take every record.
pub(super) struct Sinks {
    pub(super) log: LogSink,
    pub(super) metrics: Arc<Metrics>,
    pub(super) decisions: Arc<Decisions>,
    /// Where the settings want them.
    pub(super) traces: Option<Traces>,
}

impl RecordSink for Sinks {
    fn record(&self, record: &ConnectionRecord) {
        self.metrics.record(record);
        self.log.record(record);
        if let Some(traces) = &self.traces {
            traces.record(record);
        }
    }

    fn traces(&self) -> bool {
        self.traces.is_some()
    }

    fn decision(&self, decision: &Arc<Decision>, line: LogLine) -> Receipt {
        // First: what a line names can then be found.
        self.decisions.record(decision);
        self.log.decision(decision, line);
        Receipt::Kept
    }
}
