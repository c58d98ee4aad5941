//! The admin endpoint: health, metrics and state over HTTP/1.1, and the few changes that an operator makes.
//!
//! Routes are in [`routes`]. Owns HTTP and who may ask; what it shows and does comes through [`AdminState`]. Promises
//! bounded work: so many connections, so long a request, one request each. Only the live streams last, and only for
//! somebody who takes what they send; what they show is computed once a second for all of them.
//!
//! Who may look: whoever reaches the socket, except a web page. A browser on the same machine can be made to ask
//! for loopback addresses, under a foreign name (DNS rebinding) or from a foreign origin; both are refused. Who may
//! change something: whoever reaches the unix socket, and over TCP whoever shows the token ([`token`]), since all that
//! share the pod share loopback. Whom mutual TLS brought here ([`Kind::ReadOnly`], [`Kind::Metrics`]) only looks.

mod changes;
mod events;
mod feed;
mod guard;
mod page;
mod query;
mod reply;
mod routes;
mod server;
mod show;
mod status;
pub mod token;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use crate::lifecycle::readiness::Snapshot;
use crate::record::audit::{Actor, Operation};
use crate::telemetry::decisions::Decisions;
use crate::telemetry::log::LogControl;

pub use feed::Feed;
pub use server::{Handed, Kind, serve, serve_handed, serve_lent};
pub use status::Status;
use token::TokenFile;

/// What a change becomes.
pub type Changing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the endpoint shows and does. What shows is answered from memory.
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
    /// `/api/v1/status`: all of it at one moment, with `connections` open connections at most. May take milliseconds.
    fn status(&self, connections: usize) -> Status;
    /// What those who listen to the status share.
    fn feed(&self) -> &Feed;
    /// `/api/v1/explain`: what the policy and the deny list in force say of a peer. May take milliseconds.
    ///
    /// # Errors
    /// Why the question has no answer.
    fn explain(&self, question: &Question) -> Result<serde_json::Value, NoAnswer>;

    /// Where the token is that lets changes in over TCP.
    fn token(&self) -> Option<&TokenFile>;
    /// Reads policy, deny list and candidate again, and tells what came of each; `None` where that takes too long.
    fn reload(&self) -> Changing<'_, Option<serde_json::Value>>;
    /// Accepts no more connections, and tells how many are open. Those may finish; the process stays.
    fn drain(&self) -> usize;
    /// Ends an open connection; false where none has this number.
    fn close(&self, connection: u64) -> bool;
    /// Which log lines are written.
    fn log(&self) -> &LogControl;
    /// Records that a change was made.
    fn changed(&self, change: Changed);
}

/// A change that was made, for the record.
#[derive(Clone, Debug)]
pub struct Changed {
    /// By which door.
    pub actor: Actor,
    /// What was done.
    pub operation: Operation,
    /// To what, as the answer says it.
    pub data: serde_json::Value,
}

/// What `/api/v1/explain` asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The inbound listener.
    pub to: String,
    /// The peer's SPIFFE ID, as it was typed.
    pub from: String,
    /// The peer's address.
    pub source: Option<IpAddr>,
}

/// Why a question has no answer, and what to ask instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// What is wrong.
    pub error: String,
    /// What to write instead.
    pub hint: String,
}

#[cfg(test)]
mod tests;
