//! The admin endpoint: health, metrics and state over HTTP/1.1, read-only.
//!
//! Routes: `GET` and `HEAD` of `/livez /readyz /startupz /health`, `/metrics`,
//! `/api/v1/{identity,policy,connections,decisions}`, and `/`, a page for people. Owns HTTP and who may ask; what it
//! shows comes through [`AdminState`]. Promises bounded work: so many connections, so long a request, one request each.
//! Only the live stream of verdicts lasts, and only for somebody who takes what it sends.
//!
//! Who may ask: whoever reaches the socket, except a web page. A browser on the same machine can be made to ask
//! for loopback addresses, under a foreign name (DNS rebinding) or from a foreign origin; both are refused.

mod events;
mod page;
mod query;
mod routes;
mod server;

use std::net::SocketAddr;

use crate::lifecycle::readiness::Snapshot;
use crate::telemetry::decisions::Decisions;

pub use server::{Kind, serve};

/// What the endpoint shows. Read-only, and called on each request: answers come from memory, at once.
pub trait AdminState: Send + Sync {
    /// The conditions of readiness.
    fn readiness(&self) -> Snapshot;
    /// All metrics as text: OpenMetrics when asked for, Prometheus text 0.0.4 otherwise.
    fn metrics(&self, openmetrics: bool) -> String;
    /// `/api/v1/identity`: our SVIDs and bundles. Never a private key.
    fn identity(&self) -> serde_json::Value;
    /// `/api/v1/policy`: the policy in force and what became of the last reload.
    fn policy(&self) -> serde_json::Value;
    /// `/api/v1/connections`: open connections, `limit` of them at most; of `local`, those whose connection to the
    /// application has this address at our end.
    fn connections(&self, limit: usize, local: Option<SocketAddr>) -> serde_json::Value;
    /// `/api/v1/decisions`: the verdicts that are kept.
    fn decisions(&self) -> &Decisions;
}

#[cfg(test)]
mod tests;
