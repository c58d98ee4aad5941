//! svidecar: a zero-trust mTLS sidecar.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod identity;
pub mod lifecycle;
pub mod record;
pub mod spiffe;
pub mod telemetry;
