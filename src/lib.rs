//! svidecar: a zero-trust mTLS sidecar.

pub mod authorize;
pub mod clock;
pub mod config;
pub mod connection;
pub mod forward;
pub mod identity;
pub mod lifecycle;
pub mod live;
pub mod policy;
pub mod record;
pub mod spiffe;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod yaml;
