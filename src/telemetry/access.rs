//! The access log: one line for each connection that ended, in a place of its own.
//!
//! Owns nothing but the choice of what is written: the lines, fields and words are those of the connection's line in the log
//! (`telemetry::log`), the queue and the writing are `telemetry::lines`'. Whoever ends a connection pays for a copy of its
//! record; it becomes text on the writer's thread.

use std::io;

use prometheus_client::metrics::counter::Counter;

use super::lines::{Lines, LinesGuard, Opened, Render};
use super::log::{Format, Line, Style, line_of_connection};
use crate::record::ConnectionRecord;

/// The queue to the access log. Boxed: a queue of pointers is small while nothing waits.
#[derive(Debug)]
pub struct AccessLog(Lines<Box<ConnectionRecord>>);

/// Keeps the access log's thread; dropping it writes what still waits, for a second at most.
#[derive(Debug)]
#[must_use = "dropping the guard ends the access log"]
pub struct AccessLogGuard {
    _lines: LinesGuard<Box<ConnectionRecord>>,
}

impl AccessLog {
    /// Starts the thread that writes. Lines that do not reach their place are counted in `dropped`.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(opened: Opened, format: Format, dropped: Counter) -> io::Result<(Self, AccessLogGuard)> {
        let (lines, guard) = opened.start("lines of the access log", dropped, render(format))?;
        Ok((Self(lines), AccessLogGuard { _lines: guard }))
    }

    /// Queues the line of a connection that ended; where the queue is full it is counted and gone.
    pub fn record(&self, record: &ConnectionRecord) {
        self.0.push(Box::new(record.clone()));
    }
}

/// A record's way to a line: its fields, what becomes of these, the text.
fn render(format: Format) -> Render<Box<ConnectionRecord>> {
    let style = match format {
        Format::Text => Style::Plain,
        Format::Json => Style::Json,
    };
    Box::new(move |record, out| {
        let line: Line<'_> = line_of_connection(record);
        // Whatever must not be told of a person is taken from `line.fields` here, before it is text.
        out.extend_from_slice(line.render(style).as_bytes());
    })
}

#[cfg(test)]
mod tests;
