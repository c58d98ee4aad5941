//! `svidecar healthcheck`: asks a running sidecar whether it is ready, for images that hold no shell and no curl.
//!
//! It runs every few seconds in a container with little memory, and must not hang: see [`admin_client`].

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::admin_client::{self, AskError, parse_address};
use super::output::report;
use super::{EXIT_FAILED, EXIT_GOOD};
use crate::config::settings::Address;

/// For connecting, asking and reading together; Docker and kubelets have limits of their own.
const TIMEOUT: Duration = Duration::from_secs(4);
/// More than any health answer has.
const MAX_ANSWER: usize = 64 * 1024;

/// Ask a running sidecar whether it is ready
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 when ready (or alive), 1 when not or when nobody answers.\n\n\
Examples:\n  \
svidecar healthcheck\n  \
svidecar healthcheck --admin unix:///run/svidecar/admin.sock\n  \
HEALTHCHECK --interval=5s CMD [\"/svidecar\", \"healthcheck\"]    (in a Dockerfile)"
)]
pub struct HealthcheckArgs {
    /// The sidecar's admin endpoint: IP:port or unix:///path
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15000", value_parser = parse_address)]
    pub admin: Address,
    /// Ask only whether the process works, not whether it is ready
    #[arg(long)]
    pub live: bool,
}

/// Why the sidecar is not known to be well.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody answers as svidecar would.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It says itself that it is not well.
    #[error("not ready: {0}")]
    Unhealthy(String),
}

/// Asks, says what came of it, and returns the exit code.
#[must_use]
pub fn run(args: &HealthcheckArgs) -> u8 {
    match healthcheck(args, &mut io::stdout()) {
        Ok(()) => EXIT_GOOD,
        Err(error) => {
            report(&format!("svidecar: {error}"));
            EXIT_FAILED
        }
    }
}

/// Asks, and writes one line to `out` when all is well.
///
/// # Errors
/// See [`HealthError`]; its message names each condition that fails. Each means exit code 1.
pub fn healthcheck(args: &HealthcheckArgs, out: &mut dyn Write) -> Result<(), HealthError> {
    let path = if args.live { "/livez" } else { "/readyz" };
    let answer = admin_client::ask(&args.admin, path, Instant::now() + TIMEOUT, MAX_ANSWER)?;
    judge(&args.admin, &answer)?;
    // Whether anybody reads the word does not change how the sidecar is.
    let _ = writeln!(out, "{}", if args.live { "alive" } else { "ready" });
    Ok(())
}

/// What the answer says.
fn judge(address: &Address, answer: &[u8]) -> Result<(), HealthError> {
    let odd = |what: String| {
        let address = address.clone();
        Err(HealthError::Ask(AskError::NotSvidecar { address, what }))
    };
    let answer = admin_client::read(address, answer)?;
    // Another program's 200 must not pass as ours.
    let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match (answer.status, said.get("status").and_then(|s| s.as_str())) {
        (200, Some("ok")) => Ok(()),
        (503, Some("unavailable")) => Err(HealthError::Unhealthy(failing(&said))),
        (200, _) => odd("the answer is no health report".to_owned()),
        (status, _) => odd(format!("status {status}")),
    }
}

/// The conditions that do not hold, as `name (detail)`.
fn failing(said: &serde_json::Value) -> String {
    let conditions = said
        .get("conditions")
        .and_then(|c| c.as_array())
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text = |condition: &serde_json::Value, key: &str| -> String {
        let text = condition.get(key).and_then(|v| v.as_str()).unwrap_or("?");
        // It comes over a socket and goes to a terminal.
        text.chars().filter(|c| !c.is_control()).collect()
    };
    let failing: Vec<String> = conditions
        .iter()
        .filter(|c| c.get("ok").and_then(serde_json::Value::as_bool) != Some(true))
        .map(|c| format!("{} ({})", text(c, "name"), text(c, "detail")))
        .collect();
    if failing.is_empty() {
        "no condition was named".to_owned()
    } else {
        failing.join(", ")
    }
}

#[cfg(test)]
mod tests;
