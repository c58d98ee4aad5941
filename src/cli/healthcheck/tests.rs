//! Answers of many kinds, over real sockets where the socket matters.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use super::*;

fn args(admin: Address) -> HealthcheckArgs {
    HealthcheckArgs { admin, live: false }
}

fn judged(answer: &str) -> Result<(), String> {
    judge(&parse_address("127.0.0.1:1").unwrap(), answer.as_bytes()).map_err(|e| e.to_string())
}

#[test]
fn answers_are_judged() {
    let ready = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"status\":\"ok\"}";
    assert_eq!(judged(ready), Ok(()));
    let not_ready = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"unavailable\",\"conditions\":[\
        {\"name\":\"identity\",\"ok\":false,\"detail\":\"no \\u001bSVID\"},\
        {\"name\":\"policy\",\"ok\":true,\"detail\":\"\"},\
        {\"name\":\"listeners\",\"ok\":false,\"detail\":\"not bound yet\"}]}";
    assert_eq!(
        judged(not_ready),
        Err("not ready: identity (no SVID), listeners (not bound yet)".to_owned())
    );
    for (answer, expected) in [
        ("", "no HTTP"),
        ("SSH-2.0-x\r\n\r\n", "no HTTP"),
        ("HTTP/1.1 2\r\n\r\n", "no HTTP"),
        ("HTTP/1.1 200 OK\r\n\r\n<html>", "no health report"),
        (
            "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"unavailable\"}",
            "no health report",
        ),
        ("HTTP/1.1 503 x\r\n\r\nbusy", "status 503"),
        ("HTTP/1.1 404 Not Found\r\n\r\n{}", "status 404"),
    ] {
        let said = judged(answer).unwrap_err();
        assert!(
            said.contains(expected) && said.contains("127.0.0.1:1"),
            "{answer:?}: {said}"
        );
    }
}

#[test]
fn asks_over_tcp_and_unix() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admin.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(&file).unwrap();
    let tcp_addr = tcp.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let answer = |stream: &mut dyn ReadWrite| {
            let mut head = [0; 1024];
            let n = stream.read(&mut head).unwrap();
            let body = "{\"status\":\"ok\"}";
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        };
        // Each connection is closed before the next is awaited: its end is the end of the answer.
        let over_tcp = answer(&mut tcp.accept().unwrap().0);
        let over_unix = answer(&mut unix.accept().unwrap().0);
        (over_tcp, over_unix)
    });
    let mut out = Vec::new();
    healthcheck(&args(Address::Tcp(tcp_addr)), &mut out).unwrap();
    healthcheck(
        &HealthcheckArgs {
            admin: Address::Unix(file),
            live: true,
        },
        &mut out,
    )
    .unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "ready\nalive\n");
    let (over_tcp, over_unix) = server.join().unwrap();
    assert!(over_tcp.starts_with("GET /readyz HTTP/1.1\r\n"), "{over_tcp}");
    assert!(over_tcp.contains(&format!("Host: {tcp_addr}\r\n")), "{over_tcp}");
    assert!(over_unix.starts_with("GET /livez HTTP/1.1\r\n"), "{over_unix}");
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn nobody_there_is_told_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = healthcheck(&args(Address::Tcp(free)), &mut Vec::new())
        .unwrap_err()
        .to_string();
    assert!(said.contains(&format!("no answer from `{free}`")), "{said}");
}

#[test]
fn the_command_line_reads_and_its_help_has_an_example() {
    use clap::{Args as _, FromArgMatches as _};
    let command = || HealthcheckArgs::augment_args(clap::Command::new("healthcheck"));
    command().debug_assert();
    let read = |words: &[&str]| {
        command()
            .try_get_matches_from([&["healthcheck"], words].concat())
            .map(|m| HealthcheckArgs::from_arg_matches(&m).unwrap())
    };
    let plain = read(&[]).unwrap();
    assert_eq!(
        (plain.admin.to_string().as_str(), plain.live),
        ("127.0.0.1:15000", false)
    );
    let full = read(&["--admin", "unix:///a/b", "--live"]).unwrap();
    assert_eq!(
        (full.admin.to_string().as_str(), full.live),
        ("unix:///a/b", true)
    );
    assert!(
        read(&["--admin", "nowhere"])
            .unwrap_err()
            .to_string()
            .contains("expected `IP:port`")
    );
    assert!(
        command()
            .render_help()
            .to_string()
            .contains("svidecar healthcheck --admin unix://")
    );
}
