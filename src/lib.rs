//! svidecar: a zero-trust mTLS sidecar.

pub mod admin;
pub mod app;
pub mod authorize;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod forward;
pub mod identity;
pub mod lifecycle;
pub mod listener;
pub mod live;
pub mod policy;
pub mod record;
pub mod reload;
pub mod spiffe;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
pub mod workload_api;
pub mod yaml;
