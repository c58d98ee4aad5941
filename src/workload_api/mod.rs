//! The SPIFFE Workload API: its messages, and a server of it that attests nobody.
//!
//! Owns the wire form ([`proto`]) that our client ([`crate::identity::workload_api`]) and the embedded server share,
//! a certificate [`authority`] that lives in memory, and the [`server`] that `svidecar demo`, `svidecar workload-api`
//! and the tests run. The server speaks real gRPC on a real unix socket, so that any SPIFFE client library can use it.
//! It promises no attestation whatever: whoever may open the socket gets every identity. Never for production.

pub mod authority;
pub mod proto;
pub mod server;
