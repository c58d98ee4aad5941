//! What became of requests to collectors.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// What is sent: the `signal` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
}

impl Signal {
    /// Every value, in the order of the documentation.
    pub const ALL: &'static [Self] = &[Self::Traces, Self::Logs];

    /// The word used as label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of one try to send: the `result` label of `otlp_exports_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExportResult {
    /// The collector took it whole.
    Accepted,
    /// The collector took a part of it; the rest is lost.
    Partial,
    /// It could not be sent, or not be taken at the moment, and is tried again.
    Failed,
    /// The collector will never take it.
    Refused,
}

impl ExportResult {
    /// Every value, in the order of the documentation.
    pub const ALL: &'static [Self] = &[Self::Accepted, Self::Partial, Self::Failed, Self::Refused];

    /// The word used as label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ExportLabels {
    signal: Signal,
    result: ExportResult,
}

impl EncodeLabelValue for Signal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

impl EncodeLabelValue for ExportResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

/// The counters of one signal.
#[derive(Clone, Debug)]
pub struct Exports {
    signal: Signal,
    counters: Vec<(ExportResult, Counter)>,
}

impl Exports {
    pub(super) fn new(signal: Signal, family: &Family<ExportLabels, Counter>) -> Self {
        let counter = |result: &ExportResult| {
            let labels = ExportLabels {
                signal,
                result: *result,
            };
            (*result, family.get_or_create_owned(&labels))
        };
        Self {
            signal,
            counters: ExportResult::ALL.iter().map(counter).collect(),
        }
    }

    /// What is sent.
    #[must_use]
    pub const fn signal(&self) -> Signal {
        self.signal
    }

    /// Counts one try.
    pub fn count(&self, result: ExportResult) {
        if let Some((_, counter)) = self.counters.iter().find(|(known, _)| *known == result) {
            counter.inc();
        }
    }

    /// How many tries ended so.
    #[must_use]
    pub fn counted(&self, result: ExportResult) -> u64 {
        let counter = self.counters.iter().find(|(known, _)| *known == result);
        counter.map_or(0, |(_, counter)| counter.get())
    }
}
