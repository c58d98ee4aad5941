//! svidecar: a zero-trust mTLS sidecar.

pub mod cli;
pub mod clock;
pub mod config;
pub mod identity;
pub mod policy;
pub mod record;
pub mod spiffe;
pub mod yaml;
