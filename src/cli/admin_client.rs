//! Asks a running sidecar's admin endpoint, for the commands that do. Plain blocking sockets, and a deadline for all of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::terminal::harmless;
use crate::config::settings::Address;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers, or not in time.
    #[error(
        "no answer from `{address}`: {cause}: is svidecar running, and is this its `admin.listen`? (`--admin` names another)"
    )]
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
    /// svidecar answers, and says why it does not tell.
    #[error("`{address}` does not tell ({status}): {why}")]
    Refused {
        /// The address that was asked.
        address: Address,
        /// The HTTP status.
        status: u16,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// Why an answer that is not 200 tells nothing: in svidecar's own words, where they are its own.
pub(super) fn refusal(address: &Address, path: &str, answer: &Answer) -> AskError {
    let (address, status) = (address.clone(), answer.status);
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let Some(error) = said.get("error").and_then(Value::as_str).map(harmless) else {
        let what = format!("status {status} at {path}");
        return AskError::NotSvidecar { address, what };
    };
    let hint = match (status, said.get("hint").and_then(Value::as_str)) {
        // Another door of the same process.
        (404, _) => {
            "is this `admin.probes`, or a listener with `serve: metrics`? Ask at `admin.listen`".to_owned()
        }
        (_, Some(hint)) if !hint.is_empty() => harmless(hint),
        _ => {
            return AskError::Refused {
                address,
                status,
                why: error,
            };
        }
    };
    AskError::Refused {
        address,
        status,
        why: format!("{error}: {hint}"),
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// Its text.
    pub(super) body: String,
}

/// Reads `IP:port`, `localhost:port` or `unix:///path`.
pub(super) fn parse_address(text: &str) -> Result<Address, String> {
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

/// Asks for one path; the answer up to `most` bytes, as it came.
///
/// # Errors
/// [`AskError::NoAnswer`].
pub(super) fn ask(
    address: &Address,
    path: &str,
    deadline: Instant,
    most: usize,
) -> Result<Vec<u8>, AskError> {
    exchange(address, path, deadline, most).map_err(|cause| AskError::NoAnswer {
        address: address.clone(),
        cause,
    })
}

/// One request, and all of the answer up to the limit.
fn exchange(address: &Address, path: &str, deadline: Instant, most: usize) -> io::Result<Vec<u8>> {
    match address {
        Address::Tcp(addr) => {
            let mut stream = TcpStream::connect_timeout(addr, left(deadline)?)?;
            stream.set_write_timeout(Some(left(deadline)?))?;
            send(&mut stream, &addr.to_string(), path)?;
            read_all(&mut stream, most, |s| s.set_read_timeout(Some(left(deadline)?)))
        }
        Address::Unix(file) => {
            let mut stream = UnixStream::connect(file)?;
            stream.set_write_timeout(Some(left(deadline)?))?;
            send(&mut stream, "localhost", path)?;
            read_all(&mut stream, most, |s| s.set_read_timeout(Some(left(deadline)?)))
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
fn read_all<S: Read>(stream: &mut S, most: usize, arm: impl Fn(&S) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while answer.len() < most {
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

/// Takes an answer apart.
///
/// # Errors
/// [`AskError::NotSvidecar`], where it is no HTTP.
pub(super) fn read(address: &Address, answer: &[u8]) -> Result<Answer, AskError> {
    let odd = || AskError::NotSvidecar {
        address: address.clone(),
        what: "no HTTP".to_owned(),
    };
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(odd)?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| head.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3)?.parse::<u16>().ok())
        .ok_or_else(odd)?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("127.0.0.1:15000", "127.0.0.1:15000"),
            ("localhost:15000", "127.0.0.1:15000"),
            ("http://127.0.0.1:15000/", "127.0.0.1:15000"),
            ("tcp://[::1]:1", "[::1]:1"),
            ("unix:///run/a.sock", "unix:///run/a.sock"),
        ] {
            assert_eq!(parse_address(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            "15000",
            "example.org:80",
            "unix://run/a.sock",
            "unix:",
            "127.0.0.1",
        ] {
            assert!(
                parse_address(text)
                    .unwrap_err()
                    .contains("expected `IP:port` or `unix:///path`"),
                "{text}"
            );
        }
    }

    #[test]
    fn why_it_does_not_tell_is_said_in_its_own_words() {
        let address = parse_address("127.0.0.1:15000").unwrap();
        let told = |status, body: &str| {
            let body = body.to_owned();
            refusal(&address, "/api/v1/status", &Answer { status, body }).to_string()
        };
        let begin = "`127.0.0.1:15000` does not tell";
        assert_eq!(
            told(403, r#"{ "error": "no", "hint": "ask by \u001b[2J loopback" }"#),
            format!("{begin} (403): no: ask by {} loopback", harmless("\u{1b}[2J"))
        );
        assert_eq!(
            told(503, r#"{ "error": "eight listen already", "hint": "" }"#),
            format!("{begin} (503): eight listen already")
        );
        let probes = told(
            404,
            r#"{ "error": "there is no `/api/v1/status` here", "hint": "/livez" }"#,
        );
        assert!(probes.contains("is this `admin.probes`"), "{probes}");
        for other in ["", "<html>", "{}", r#"{ "error": 4 }"#] {
            let told = told(500, other);
            assert!(
                told.contains("does not answer like a svidecar")
                    && told.contains("status 500 at /api/v1/status"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_silent_server_is_given_up_at_the_deadline() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(silent.local_addr().unwrap());
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = ask(&address, "/readyz", deadline, 1000).unwrap_err();
        let AskError::NoAnswer { cause, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(cause.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_endless_answer_is_cut() {
        let mut endless = io::repeat(b'x');
        let read = read_all(&mut endless, 100_000, |_| Ok(())).unwrap();
        assert!((100_000..200_000).contains(&read.len()), "{}", read.len());
    }
}
