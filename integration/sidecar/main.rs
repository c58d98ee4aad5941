//! `svidecar run` as its neighbours see it: the built binary between stock rustls peers and plain applications, with
//! a Workload API in this process that gives, denies, hangs and lies as each test wants.
//!
//! Every test has sockets, folders and a sidecar of its own and runs beside the others. Nothing waits for a time
//! where there is an event to wait for: a byte, an alert, a record in the log, `/readyz`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "../support/mod.rs"]
mod support;

mod peers;
mod plain;
mod world;

mod access_log;
mod admin;
mod approved;
mod audit;
mod audit_kill;
mod budgets;
mod changes;
mod decisions;
mod documents;
mod forwarding;
mod handshake_inbound;
mod handshake_outbound;
mod identity;
mod lifecycle;
mod limits;
mod many;
mod metrics;
mod open_connections;
mod policy;
mod policy_walk;
mod proxy_protocol;
mod renewal;
mod resumption;
mod sandbox;
mod served;
mod status;
