//! Those who take every record.

use std::sync::Arc;

use crate::audit::AuditLog;
use crate::record::audit::{Event, Refusal};
use crate::record::{ConnectionRecord, Decision, DecisionIds, LogLine, Receipt, RecordSink};
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
    pub(super) audit: Option<AuditLog>,
    /// Names what has no verdict's id.
    pub(super) ids: DecisionIds,
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
        if let Some(audit) = &self.audit
            && let Some(refusal) = Refusal::of(record, || self.ids.next())
        {
            // Nobody was let in: what cannot be kept is counted.
            let _ = audit.record(Event::Refusal(Box::new(refusal)));
        }
    }

    fn decision(&self, decision: &Arc<Decision>, line: LogLine) -> Receipt {
        // First: what a line names can then be found.
        self.decisions.record(decision);
        self.log.decision(decision, line);
        match &self.audit {
            Some(audit) => audit.record(Event::Verdict(Arc::clone(decision))),
            None => Receipt::Kept,
        }
    }

    fn refuses(&self) -> Option<&'static str> {
        self.audit.as_ref().and_then(AuditLog::refuses)
    }
}
