//! One HTTP/1.1 request over TCP, a unix socket or TLS, enough for the admin endpoint.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The longest answer that is read.
const LONGEST_ANSWER: u64 = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where an admin endpoint listens.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The header lines, as they came.
    pub(crate) head: String,
    /// The body, put together from its chunks.
    pub(crate) body: String,
}

impl Response {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.body))
    }
}

/// Asks for one path.
pub(crate) fn get(endpoint: &Endpoint, path: &str) -> io::Result<Response> {
    get_with(endpoint, path, "")
}

/// Asks for one path, with further header lines, each with its end.
pub(crate) fn get_with(endpoint: &Endpoint, path: &str, headers: &str) -> io::Result<Response> {
    request(endpoint, "GET", path, headers, "")
}

/// Sends any request.
pub(crate) fn request(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> io::Result<Response> {
    let line = format!("{method} {path}");
    match endpoint {
        Endpoint::Tcp(addr) => {
            let stream = TcpStream::connect_timeout(addr, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange(stream, &addr.to_string(), &line, headers, body)
        }
        Endpoint::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            exchange(stream, "localhost", &line, headers, body)
        }
    }
}

/// Sends a request (its method and path as one) on a connection, and reads the answer.
pub(crate) fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    line: &str,
    headers: &str,
    body: &str,
) -> io::Result<Response> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}Connection: close\r\n\r\n{body}"
    )?;
    stream.flush()?;
    let bytes = read_answer(stream.take(LONGEST_ANSWER))?;
    let text = String::from_utf8_lossy(&bytes);
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP answer: `{text}`"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(wrong)?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("\r\ntransfer-encoding: chunked");
    let body = if chunked {
        join_chunks(body).ok_or_else(wrong)?
    } else {
        body.to_owned()
    };
    Ok(Response {
        status,
        head: head.to_owned(),
        body,
    })
}

/// Reads to the end, or as far as the answer's length says: not every server closes the connection when it is asked to.
fn read_answer(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut part)?;
        bytes.extend_from_slice(&part[..read]);
        if read == 0 || length(&bytes).is_some_and(|length| bytes.len() >= length) {
            return Ok(bytes);
        }
    }
}

/// How long the answer is with its head, where that has come and says so.
fn length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_ascii_lowercase();
    let (_, rest) = head.split_once("\r\ncontent-length:")?;
    Some(end + rest.lines().next()?.trim().parse::<usize>().ok()?)
}

fn join_chunks(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}
