//! Connections as traces: a span for each, with a span for each phase, sent to a collector.
//!
//! Owns which connections are sent ([`Sampler`]), what is told of them ([`spans`]), and the queue and the task between. The
//! path of a connection pays for a comparison and, where it is sent, for a copy of its record at its end: a full queue drops
//! and counts. Spans are made and sent on the control runtime ([`Exporter::run`]).

mod sampler;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use super::metrics::{Metrics, Signal};
use super::otlp::proto::{ExportTraceServiceRequest, ResourceSpans, ScopeSpans};
use super::otlp::{self, Delivery, Stage};
use crate::config::settings;
use crate::record::ConnectionRecord;
use crate::redaction::Redactor;
use sampler::Sampler;

/// Connections that wait for a collector before more are dropped; a few megabytes at most.
pub const QUEUE: usize = 2048;
/// Connections in one request: two megabytes at most, as all texts in a record are bounded.
const BATCH: usize = 128;
/// How long the first of a request waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long a request is tried; what came later is worth more then.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes records of connections, and queues those that are sent.
#[derive(Debug)]
pub struct Traces {
    sampler: Sampler,
    queue: mpsc::Sender<ConnectionRecord>,
    dropped: Counter,
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Exporter {
    sampler: Sampler,
    queue: mpsc::Receiver<ConnectionRecord>,
    delivery: Delivery,
    dropped: Counter,
    redactor: Option<Arc<Redactor>>,
}

/// What takes records, and what sends them.
#[must_use]
pub fn new(
    settings: &settings::Traces,
    metrics: &Metrics,
    redactor: Option<Arc<Redactor>>,
) -> (Traces, Exporter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let sampler = Sampler::new(settings.sample, settings.denials);
    let traces = Traces {
        sampler,
        queue: sender,
        dropped: metrics.spans_dropped.clone(),
    };
    let exporter = Exporter {
        sampler,
        queue: receiver,
        delivery: Delivery::new(settings.otlp.clone(), metrics.exports(Signal::Traces)),
        dropped: metrics.spans_dropped.clone(),
        redactor,
    };
    (traces, exporter)
}

impl Traces {
    /// Takes the record of a connection that ended. Waits for nobody.
    pub fn record(&self, record: &ConnectionRecord) {
        if self.sampler.threshold(record).is_none() {
            return;
        }
        match self.queue.try_reserve() {
            Ok(place) => place.send(record.clone()),
            Err(_) => {
                self.dropped.inc_by(spans::count(record));
            }
        }
    }
}

impl Exporter {
    /// Sends what is queued, up to the end of all that is queued in the last stage. `process` is the number that tells this
    /// process from others.
    pub async fn run(mut self, process: u64, mut stage: watch::Receiver<Stage>) {
        while let Some(batch) = self.gather(&mut stage).await {
            let mut spans = Vec::with_capacity(batch.len() * 6);
            for record in &batch {
                if let Some(threshold) = self.sampler.threshold(record) {
                    spans::append(record, &sampler::trace_state(threshold), &mut spans);
                }
            }
            if let Some(redactor) = &self.redactor {
                spans.iter_mut().for_each(|span| spans::redact(span, redactor));
            }
            let sent = u64::try_from(spans.len()).unwrap_or(u64::MAX);
            let request = ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans {
                    resource: Some(otlp::resource(self.delivery.settings(), process, None)),
                    scope_spans: vec![ScopeSpans {
                        scope: Some(otlp::scope()),
                        spans,
                        ..ScopeSpans::default()
                    }],
                    ..ResourceSpans::default()
                }],
            };
            let end = Stage::reached(&mut stage, Stage::Ending);
            let lost = match self.delivery.deliver(&request, Some(PATIENCE), end).await {
                Ok(accepted) => accepted.rejected.min(sent),
                Err(_) => sent,
            };
            self.dropped.inc_by(lost);
        }
    }

    /// The next ones that are sent together; none at the end.
    async fn gather(&mut self, stage: &mut watch::Receiver<Stage>) -> Option<Vec<ConnectionRecord>> {
        let first = loop {
            let seen = *stage.borrow();
            if seen == Stage::Ending {
                // What is queued still comes out of it.
                self.queue.close();
            }
            if seen != Stage::Running && self.queue.is_empty() {
                self.delivery.disconnect().await;
            }
            let next = match seen {
                Stage::Running => Stage::Leaving,
                Stage::Leaving => Stage::Ending,
                Stage::Ending => break self.queue.recv().await?,
            };
            tokio::select! {
                first = self.queue.recv() => break first?,
                () = Stage::reached(stage, next) => {}
            }
        };
        let mut batch = vec![first];
        let delay = tokio::time::sleep(DELAY);
        tokio::pin!(delay);
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                next = self.queue.recv() => match next {
                    Some(record) => batch.push(record),
                    None => break,
                },
                () = &mut delay => break,
                () = Stage::reached(stage, Stage::Leaving) => break,
            }
        }
        Some(batch)
    }
}

#[cfg(test)]
pub(super) mod tests;
