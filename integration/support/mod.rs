//! What the integration tests share: processes that end with the test, waits that end by themselves, a sidecar, an
//! application before and behind it, the real SPIRE.
//!
//! The tests see svidecar as its users do: the built binary, its config file, its log, its admin endpoint.

// Each test binary takes its part of this module; what one of them leaves unused is no mistake.
#![allow(dead_code)]
// Tests may fall over: a failed expectation is their result. (clippy.toml allows it in `#[test]` functions, this
// extends it to what they call.)
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::print_stderr)]

pub(crate) mod application;
pub(crate) mod go;
pub(crate) mod http;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod sidecar;
pub(crate) mod spire;
pub(crate) mod trusting;
pub(crate) mod workload_api;

use std::io::Write;
use std::time::{Duration, Instant};

/// Long enough for a step that should take a moment on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Says that a test does not run here, and why, so that nobody takes its passing for a result.
pub(crate) fn skip(why: &str) {
    // Not by a print macro: the test harness keeps what passing tests print to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Tries until there is a value; panics with `what` when there is none in time.
pub(crate) fn eventually<T>(what: &str, timeout: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    eventually_ok(what, timeout, || attempt().ok_or("no sign of it"))
}

/// Tries until it succeeds; panics with `what` and the last error when it does not in time.
pub(crate) fn eventually_ok<T, E: std::fmt::Display>(
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(
                Instant::now() < deadline,
                "not within {timeout:?}: {what}: {error}"
            ),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a program can be started by its name.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
