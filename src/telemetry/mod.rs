//! What the process tells about itself: metrics and log lines.
//!
//! Owns the names, labels and line formats that people build dashboards and alerts on (`docs/observability.md`).
//! Promises that nothing here waits for a reader: counters are atomics, and a log line that finds its queue full is
//! dropped and counted. Knows no part of svidecar but the connection record and the clock; names of listeners and
//! rules are handed in.

pub mod access;
pub mod decisions;
pub mod lines;
pub mod log;
pub mod metrics;

#[cfg(test)]
mod docs;
