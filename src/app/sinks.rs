//! Those who take every record, and what keeps them at work.

use std::sync::Arc;

use super::exporters::Exporters;
use super::{AppError, Started, audit};
use crate::audit::{AuditGuard, AuditLog, Sink, SinkHandle};
use crate::lifecycle::drain::Drain;
use crate::record::audit::{Event, Refusal};
use crate::record::{ConnectionRecord, Decision, DecisionIds, LogLine, Receipt, RecordSink};
use crate::telemetry::access::{AccessLog, AccessLogGuard};
use crate::telemetry::decisions::{self, Decisions};
use crate::telemetry::lines::LinesGuard;
use crate::telemetry::log::LogSink;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{self, Exporter, Traces};

/// Those who take every record.
pub(super) struct Sinks {
    pub(super) log: LogSink,
    /// Where the settings name one.
    pub(super) access: Option<AccessLog>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) decisions: Arc<Decisions>,
    pub(super) audit: Option<AuditLog>,
    /// Names what has no verdict's id.
    pub(super) ids: Arc<DecisionIds>,
    /// Where the settings want them.
    pub(super) traces: Option<Traces>,
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
        if let Some(traces) = &self.traces {
            traces.record(record);
        }
        if let Some(audit) = &self.audit
            && let Some(refusal) = Refusal::of(record, || self.ids.next())
        {
            // Nobody was let in: what cannot be kept is counted.
            let _ = audit.record(Event::Refusal(Box::new(refusal)));
        }
    }

    fn traces(&self) -> bool {
        self.traces.is_some()
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

/// What writes and sends, until it is dropped: in order, the audit log last.
pub(super) struct Outputs {
    /// The tasks that send traces and the audit log to collectors; none of them ends by itself.
    exporters: Exporters,
    sending: Exporters,
    traces: Option<Exporter>,
    sinks: Vec<Sink>,
    _decisions: Option<LinesGuard<Arc<Decision>>>,
    _access: Option<AccessLogGuard>,
    _audit: Option<AuditGuard>,
}

/// Starts the threads of all that the settings name. `ids` gives names to what has no verdict's.
pub(super) fn start(
    started: &mut Started,
    log: LogSink,
    metrics: &Arc<Metrics>,
    ids: &Arc<DecisionIds>,
) -> Result<(Sinks, Outputs), AppError> {
    let redactor = started.redactor.clone();
    let decisions = started.decisions.take();
    let (file, decisions_guard) = decisions
        .map(|file| {
            let dropped = metrics.decisions_dropped.clone();
            file.start("verdicts", dropped, decisions::as_json(redactor.clone()))
        })
        .transpose()?
        .unzip();
    let access_log = started.access_log.take();
    let (access, access_guard) = access_log
        .zip(started.settings.access_log.as_ref())
        .map(|(opened, settings)| {
            let dropped = metrics.access_log_lines_dropped.clone();
            AccessLog::start(opened, settings.format.into(), dropped, redactor.clone())
        })
        .transpose()?
        .unzip();
    let audit_log = started.audit.take();
    let (audit, audit_guard) = audit_log
        .map(|opened| audit::start(opened, started, ids, metrics.audit.clone()))
        .transpose()?
        .unzip();
    let settings = &started.settings;
    let traces = settings.traces.as_ref();
    let (traces, exporter) = traces
        .map(|traces| traces::new(traces, metrics, redactor.clone()))
        .unzip();
    let outputs = Outputs {
        exporters: Exporters::new(),
        sending: Exporters::new(),
        traces: exporter,
        sinks: audit::sinks(audit.as_ref(), settings, metrics),
        _decisions: decisions_guard,
        _access: access_guard,
        _audit: audit_guard,
    };
    let sinks = Sinks {
        log: log.redacting(redactor),
        access,
        metrics: Arc::clone(metrics),
        decisions: Arc::new(Decisions::new(file)),
        audit,
        ids: Arc::clone(ids),
        traces,
    };
    Ok((sinks, outputs))
}

impl Outputs {
    /// What is to be seen of those whom the audit log is sent on to.
    pub(super) fn sink_handles(&self) -> Vec<SinkHandle> {
        self.sinks.iter().map(Sink::handle).collect()
    }

    /// Starts the tasks that send traces to collectors. `process` is the number that tells this process from others.
    pub(super) fn send_traces(&mut self, process: u64) {
        if let Some(exporter) = self.traces.take() {
            self.exporters
                .spawn("the sending of traces", |stage| exporter.run(process, stage));
        }
    }

    /// Starts the tasks that send the audit log on, which one process at a time may do.
    pub(super) fn send_audit(&mut self, process: u64) {
        for sink in self.sinks.drain(..) {
            self.sending
                .spawn("the sending of the audit log", |stage| sink.run(process, stage));
        }
    }

    /// The name of the first of all these tasks that ends. None may while the process runs.
    pub(super) async fn one_ended(&mut self) -> &'static str {
        tokio::select! {
            name = self.exporters.one_ended() => name,
            name = self.sending.one_ended() => name,
        }
    }

    /// Ends the sending of the audit log: another process goes on where this one was.
    pub(super) async fn leave_audit(&mut self) {
        self.sinks.clear();
        // What is left is sent by the other.
        let _ = self.sending.end().await;
        self.sending = Exporters::new();
    }

    /// Waits until a drain waits for no others than our own connections, if for those, and has these closed.
    pub(super) async fn leave(&self, drain: &Drain) {
        drain.at_most(self.exporters.len() + self.sending.len()).await;
        self.exporters.leave();
        self.sending.leave();
    }

    /// Has what is left sent, for a moment.
    pub(super) async fn end(&mut self) {
        let (traces, audit) = tokio::join!(self.exporters.end(), self.sending.end());
        if !(traces && audit) {
            tracing::warn!("telemetry was left that no collector took in time");
        }
    }
}
