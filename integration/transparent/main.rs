//! Transparent interception as a pod sees it: two network namespaces that each test makes itself and joins, the real
//! packet filter with the rules of `svidecar intercept`, sidecars that run as another user, and applications that know
//! nothing of all this. The machine's own namespace is never touched.
//!
//! Needs root, and `ip`, `setpriv` and `nft` on PATH; skipped, and said so, where they are missing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "../support/mod.rs"]
mod support;

mod pods;
mod rules;
mod traffic;
