//! `svidecar supervise` as its host sees it: the built binary, replaced while connections come and go, killed, told to end,
//! started by something that plays systemd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "../support/mod.rs"]
mod support;

// The sidecar's own tests use more of these.
#[allow(dead_code)]
#[path = "../sidecar/peers.rs"]
mod peers;
#[allow(dead_code)]
#[path = "../sidecar/plain.rs"]
mod plain;
#[allow(dead_code)]
#[path = "../sidecar/world.rs"]
mod world;

mod config;
mod evidence;
mod failures;
mod manager;
mod scene;
mod start;
mod units;
mod upgrade;
