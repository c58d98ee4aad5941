//! How the process begins, changes and ends: signals, readiness, drain.
//!
//! Values that are handed down; nothing here is global, and nothing is tied to the runtime that made it. Knows no
//! other part of svidecar.

pub mod drain;
pub mod readiness;
pub mod signal;
