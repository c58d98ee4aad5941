//! `svidecar healthcheck`: asks a running sidecar whether it is ready, for images that hold no shell and no curl.
//!
//! Plain blocking sockets: it runs every few seconds in a container with little memory, and must not hang.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    /// Nobody answers, or not in time.
    #[error("no answer from `{address}`: {cause}: is svidecar running, and is this its `admin.listen`?")]
    NoAnswer {
        /// The address that was asked.
        address: Address,
        /// The system's error.
        cause: io::Error,
    },
    /// Somebody answers, but not as svidecar would.
    #[error("`{address}` does not answer like a svidecar admin endpoint: {what}")]
    NotSvidecar {
        /// The address that was asked.
        address: Address,
        /// The status, or what is wrong.
        what: String,
    },
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
    let no_answer = |cause| HealthError::NoAnswer {
        address: args.admin.clone(),
        cause,
    };
    let answer = ask(&args.admin, path, Instant::now() + TIMEOUT).map_err(no_answer)?;
    judge(&args.admin, &answer)?;
    // Whether anybody reads the word does not change how the sidecar is.
    let _ = writeln!(out, "{}", if args.live { "alive" } else { "ready" });
    Ok(())
}

/// Reads `IP:port`, `localhost:port` or `unix:///path`.
fn parse_address(text: &str) -> Result<Address, String> {
    let expected = || format!("`{text}` is no address: expected `IP:port` or `unix:///path`");
    if let Some(path) = text.strip_prefix("unix://") {
        return if path.starts_with('/') {
            Ok(Address::Unix(PathBuf::from(path)))
        } else {
            Err(expected())
        };
    }
    let tcp = text
        .strip_prefix("tcp://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let tcp = tcp.trim_end_matches('/');
    let numeric = tcp
        .strip_prefix("localhost:")
        .map_or_else(|| tcp.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric
        .parse::<SocketAddr>()
        .map(Address::Tcp)
        .map_err(|_| expected())
}

/// One request, and all of the answer up to the limit.
fn ask(address: &Address, path: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    match address {
        Address::Tcp(addr) => {
            let mut stream = TcpStream::connect_timeout(addr, left(deadline)?)?;
            stream.set_write_timeout(Some(left(deadline)?))?;
            send(&mut stream, &addr.to_string(), path)?;
            read_all(&mut stream, |s| s.set_read_timeout(Some(left(deadline)?)))
        }
        Address::Unix(file) => {
            let mut stream = UnixStream::connect(file)?;
            stream.set_write_timeout(Some(left(deadline)?))?;
            send(&mut stream, "localhost", path)?;
            read_all(&mut stream, |s| s.set_read_timeout(Some(left(deadline)?)))
        }
    }
}

fn send(stream: &mut impl Write, host: &str, path: &str) -> io::Result<()> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    );
    // At once: `write!` would send each piece by itself.
    stream.write_all(request.as_bytes())
}

/// Reads to the end. `arm` sets the time left before each read, so that a slow drip ends at the deadline too.
fn read_all<S: Read>(stream: &mut S, arm: impl Fn(&S) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < MAX_ANSWER {
        arm(stream)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
    Ok(answer)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A time-out of zero would mean none at all.
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

/// What the answer says.
fn judge(address: &Address, answer: &[u8]) -> Result<(), HealthError> {
    let odd = |what: String| HealthError::NotSvidecar {
        address: address.clone(),
        what,
    };
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| odd("no HTTP".to_owned()))?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| head.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3)?.parse::<u16>().ok())
        .ok_or_else(|| odd("no HTTP".to_owned()))?;
    // Another program's 200 must not pass as ours.
    let said: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    match (status, said.get("status").and_then(|s| s.as_str())) {
        (200, Some("ok")) => Ok(()),
        (503, Some("unavailable")) => Err(HealthError::Unhealthy(failing(&said))),
        (200, _) => Err(odd("the answer is no health report".to_owned())),
        (status, _) => Err(odd(format!("status {status}"))),
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
