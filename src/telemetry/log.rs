//! Log lines: what svidecar tells a person or a collector while it runs.
//!
//! Everything goes to standard error, one line an event, in one of two forms: text for people, one JSON object for
//! machines. Two sources share the form and the queue: `tracing` events, and [`ConnectionRecord`]s, which do not
//! pass through tracing's field machinery. Promises: writing never waits (a full queue drops the line and counts
//! it), and no text from a peer can start a line, end one, or command a terminal.

mod layer;
mod line;

use std::io::{BufWriter, IsTerminal as _, Write};

use serde_json::Value;
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::record::{ConnectionRecord, Outcome, RecordSink, Verdict};
use line::{Line, Style};

/// The target of connection records, for filters such as `info,svidecar::connection=warn`.
pub const CONNECTION_TARGET: &str = "svidecar::connection";

/// Lines that wait for a slow reader before more are dropped; some megabytes at most.
const QUEUE_LINES: usize = 8192;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no level and no list of directives.
    #[error("{0}")]
    Filter(String),
    /// Another subscriber is there already: set-up was called twice in one process.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Sets up logging for the whole process. `format: None` means text on a terminal and JSON elsewhere; `level` is a
/// level or a list of directives. Starts the writer's thread. Hold the guard until the process ends: dropping it
/// writes what still waits, for a second at most.
///
/// # Errors
/// See [`LogError`].
pub fn init(format: Option<Format>, level: &str) -> Result<(LogSink, LogGuard), LogError> {
    let filter = parse_filter(level)?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let style = match format {
        Format::Json => Style::Json,
        Format::Text if terminal && !no_color => Style::Color,
        Format::Text => Style::Plain,
    };
    let (subscriber, sink, guard) = build(BufWriter::new(std::io::stderr()), QUEUE_LINES, style, filter);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok((sink, guard))
}

/// Reads a level (`info`) or directives (`info,svidecar::identity=debug`).
///
/// # Errors
/// A message that names the part that is wrong. A single word that is no level is an error here, though `tracing`
/// would take it for the name of a module and log nothing else.
pub fn parse_filter(level: &str) -> Result<EnvFilter, LogError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    for directive in &directives {
        let word = directive.rsplit_once('=').map_or(*directive, |(_, level)| level);
        if !LEVELS.iter().any(|l| word.eq_ignore_ascii_case(l)) {
            return Err(LogError::Filter(format!(
                "`{directive}` is no log level: expected one of {}, or `module=level`, separated by commas",
                LEVELS.join(", ")
            )));
        }
    }
    EnvFilter::builder()
        .parse(directives.join(","))
        .map_err(|e| LogError::Filter(format!("`{level}`: {e}")))
}

/// Writes connection records as log lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogSink(Output);

impl LogSink {
    /// The count of lines dropped so far, for the metrics.
    #[must_use]
    pub fn dropped(&self) -> DroppedLines {
        DroppedLines(self.0.writer.error_counter())
    }
}

impl RecordSink for LogSink {
    fn record(&self, record: &ConnectionRecord) {
        let (level, enabled) = match record.outcome {
            // A denial that was only reported (`policy.mode: audit`) is what its operator looks for.
            Outcome::Ok if record.verdict != Verdict::Deny => (
                Level::INFO,
                tracing::enabled!(target: CONNECTION_TARGET, Level::INFO),
            ),
            _ => (
                Level::WARN,
                tracing::enabled!(target: CONNECTION_TARGET, Level::WARN),
            ),
        };
        if !enabled {
            return;
        }
        let message = match record.outcome {
            Outcome::Ok => "connection ok",
            Outcome::Denied => "connection denied",
            Outcome::Refused => "connection refused",
            Outcome::Failed => "connection failed",
            Outcome::Closed => "connection closed",
        };
        self.0.write(&Line {
            time: record.time,
            level,
            target: CONNECTION_TARGET,
            message,
            fields: record_fields(record),
        });
    }
}

/// Lines that were dropped because the queue was full.
#[derive(Clone, Debug)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.0.dropped_lines()).unwrap_or(u64::MAX)
    }
}

/// Keeps the writer's thread; dropping it writes what still waits.
#[derive(Debug)]
#[must_use = "dropping the guard ends logging"]
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// The queue that all lines go through, and their form.
#[derive(Clone, Debug)]
struct Output {
    writer: NonBlocking,
    style: Style,
}

impl Output {
    fn write(&self, line: &Line<'_>) {
        // One write is one entry of the queue, so that lines of two threads never mix. It cannot fail: what does
        // not fit is counted by the queue.
        let _ = self.writer.clone().write_all(line.render(self.style).as_bytes());
    }
}

fn build(
    writer: impl Write + Send + 'static,
    queue: usize,
    style: Style,
    filter: EnvFilter,
) -> (impl Subscriber + Send + Sync, LogSink, LogGuard) {
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(queue)
        .lossy(true)
        .thread_name("svidecar-log")
        .finish(writer);
    let output = Output { writer, style };
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(layer::LineLayer::new(output.clone()));
    (subscriber, LogSink(output), LogGuard { _worker: worker })
}

/// The names of a record's fields, in the order of reading: where, who, to whom, what was decided and why, how much.
pub(super) const RECORD_FIELDS: [&str; 19] = [
    "id",
    "listener",
    "direction",
    "peer_addr",
    "source",
    "peer_id",
    "own_id",
    "resumed",
    "verdict",
    "rule",
    "audited",
    "result",
    "reason",
    "detail",
    "policy_generation",
    "upstream",
    "bytes_up",
    "bytes_down",
    "duration_ms",
];

fn record_fields(record: &ConnectionRecord) -> Vec<(&'static str, Value)> {
    fn text<T: ToString>(value: &Option<T>) -> Value {
        value.as_ref().map_or(Value::Null, |v| Value::from(v.to_string()))
    }
    let values: [Value; 19] = [
        record.id.into(),
        (&*record.listener).into(),
        record.direction.as_str().into(),
        record.peer_addr.to_string().into(),
        text(&record.source),
        text(&record.peer_id),
        text(&record.own_id),
        record.resumed.into(),
        record.verdict.as_str().into(),
        text(&record.rule),
        record.audited.iter().map(|rule| Value::from(&**rule)).collect(),
        record.outcome.as_str().into(),
        record.reason.as_str().into(),
        text(&record.detail),
        record.policy_generation.into(),
        text(&record.upstream),
        record.bytes_up.into(),
        record.bytes_down.into(),
        milliseconds(record.duration),
    ];
    RECORD_FIELDS.into_iter().zip(values).collect()
}

/// Milliseconds with three decimals, as the record serializes them.
fn milliseconds(duration: std::time::Duration) -> Value {
    #[expect(
        clippy::cast_precision_loss,
        reason = "micro-seconds of a connection stay far below 2^52"
    )]
    Value::from(duration.as_micros() as f64 / 1000.0)
}

#[cfg(test)]
mod tests;
