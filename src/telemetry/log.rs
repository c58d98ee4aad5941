//! Log lines: what svidecar tells a person or a collector while it runs.
//!
//! Everything goes to standard error, one line an event, in one of two forms: text for people, one JSON object for
//! machines. Two sources share the form and the queue: `tracing` events, and records of connections and verdicts, which do not
//! pass through tracing's field machinery. Promises: writing never waits (a full queue drops the line and counts
//! it), and no text from a peer can start a line, end one, or command a terminal.

mod control;
mod fields;
mod layer;
mod line;

use std::io::{BufWriter, IsTerminal as _, Write};
use std::sync::Arc;

use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::settings::{LogFormat, log_directives};
use crate::record::{ConnectionRecord, Decision, LogLine, Outcome, Verdict};
use crate::redaction::Redactor;
use control::Filter;
pub use control::LogControl;
#[cfg(test)]
pub(super) use fields::CONNECTION_FIELDS;
pub(super) use line::{Line, Style};

/// The target of connection records, for filters such as `info,svidecar::connection=warn`.
pub const CONNECTION_TARGET: &str = "svidecar::connection";

/// The target of verdicts that have a line of their own.
pub const DECISION_TARGET: &str = "svidecar::decision";

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

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
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
    /// There is no log any more whose filter could change.
    #[error("logging has ended")]
    Ended,
}

/// Sets up logging for the whole process. `format: None` means text on a terminal and JSON elsewhere; `level` is a
/// level or a list of directives. Starts the writer's thread. Hold the guard until the process ends: dropping it
/// writes what still waits, for a second at most.
///
/// # Errors
/// See [`LogError`].
pub fn init(format: Option<Format>, level: &str) -> Result<(LogSink, LogGuard), LogError> {
    let (filter, control) = LogControl::new(level)?;
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let style = match format {
        Format::Json => Style::Json,
        Format::Text if terminal && !no_color => Style::Color,
        Format::Text => Style::Plain,
    };
    let (subscriber, sink, guard) = build(
        BufWriter::new(std::io::stderr()),
        QUEUE_LINES,
        style,
        filter,
        control,
    );
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok((sink, guard))
}

/// Reads a level (`info`) or directives (`info,svidecar::identity=debug`), as the config file does.
///
/// # Errors
/// A message that names the part that is wrong. A single word that is no level is an error here, though `tracing`
/// would take it for the name of a module and log nothing else.
pub fn parse_filter(level: &str) -> Result<Targets, LogError> {
    let directives = log_directives(level).map_err(|bad| {
        let first = bad.first().map_or_else(String::new, ToString::to_string);
        LogError::Filter(first)
    })?;
    directives
        .parse()
        .map_err(|e| LogError::Filter(format!("`{level}`: {e}")))
}

/// `INFO` for what is good and `WARN` for what is not, where the filter lets a line of this target and level through.
macro_rules! enabled {
    ($target:expr, $good:expr) => {
        if $good {
            tracing::enabled!(target: $target, Level::INFO).then_some(Level::INFO)
        } else {
            tracing::enabled!(target: $target, Level::WARN).then_some(Level::WARN)
        }
    };
}

/// Writes connection records as log lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogSink {
    output: Output,
    control: LogControl,
    /// Takes out of records what must not leave.
    redactor: Option<Arc<Redactor>>,
}

impl LogSink {
    /// Tells and changes which lines are written.
    #[must_use]
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }

    /// Takes out of records, from now on, what must not leave. Other lines are not about peers, and stay as they are.
    #[must_use]
    pub fn redacting(self, redactor: Option<Arc<Redactor>>) -> Self {
        Self { redactor, ..self }
    }

    /// The count of lines dropped so far, for the metrics.
    #[must_use]
    pub fn dropped(&self) -> DroppedLines {
        DroppedLines(self.output.writer.error_counter())
    }
}

impl LogSink {
    /// Writes the line of a connection that ended.
    pub fn record(&self, record: &ConnectionRecord) {
        if enabled!(CONNECTION_TARGET, record.went_well()).is_some() {
            self.write(line_of_connection(record));
        }
    }

    /// Writes the line of a verdict that has one of its own.
    pub fn decision(&self, decision: &Decision, line: LogLine) {
        if line == LogLine::OfConnection {
            return;
        }
        let Some(level) = enabled!(DECISION_TARGET, decision.verdict != Verdict::Deny) else {
            return;
        };
        let message = match (decision.verdict, decision.enforced) {
            (Verdict::Deny, true) => {
                "an open connection would not be admitted any more; it has some time to end by itself"
            }
            (Verdict::Deny, false) => {
                "an open connection would not be admitted any more; it lives on as the settings say"
            }
            _ => "a verdict about an open connection",
        };
        self.write(Line {
            time: decision.time,
            level,
            target: DECISION_TARGET,
            message,
            fields: fields::of_decision(decision),
        });
    }

    fn write(&self, line: Line<'_>) {
        self.output.write(&line.redacted(self.redactor.as_deref()));
    }
}

/// The line of a connection that ended, wherever it is written.
pub(super) fn line_of_connection(record: &ConnectionRecord) -> Line<'static> {
    Line {
        time: record.time,
        level: if record.went_well() {
            Level::INFO
        } else {
            Level::WARN
        },
        target: CONNECTION_TARGET,
        message: match record.outcome() {
            Outcome::Ok => "connection ok",
            Outcome::Denied => "connection denied",
            Outcome::Refused => "connection refused",
            Outcome::Failed => "connection failed",
            Outcome::Closed => "connection closed",
        },
        fields: fields::of_connection(record),
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
    filter: Filter,
    control: LogControl,
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
    (
        subscriber,
        LogSink {
            output,
            control,
            redactor: None,
        },
        LogGuard { _worker: worker },
    )
}

#[cfg(test)]
pub(crate) mod beside;
#[cfg(test)]
pub(super) mod tests;
