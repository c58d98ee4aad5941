//! What changes something: who may, by which door, and what becomes of it.

use super::*;
use crate::record::audit::Actor;

const TOKEN: &str = "0123456789abcdef-0123456789";

struct Guarded {
    running: Running,
    _folder: tempfile::TempDir,
}

fn guarded(mode: u32) -> Guarded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    let tcp = Address::Tcp("127.0.0.1:0".parse().unwrap());
    Guarded {
        running: start_with(&tcp, Kind::Full, Some(TokenFile(path))),
        _folder: folder,
    }
}

async fn post(running: &Running, path: &str, headers: &str) -> (u16, String, Value) {
    let request = format!("POST {path} HTTP/1.1\r\n{LOCAL}{headers}\r\n");
    let (status, head, body) = parse(&running.raw(&request).await);
    (status, head, serde_json::from_str(&body).unwrap())
}

fn taken(running: &Running) -> Vec<String> {
    std::mem::take(&mut *running.state.changed.lock().unwrap())
}

/// Who changed what, as it goes to the audit log.
fn recorded(running: &Running) -> Vec<(Actor, Value)> {
    let recorded = std::mem::take(&mut *running.state.recorded.lock().unwrap());
    recorded
        .into_iter()
        .map(|change| (change.actor, change.data))
        .collect()
}

#[tokio::test]
async fn over_tcp_the_token_decides() {
    let Guarded { running, _folder } = guarded(0o600);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for (headers, status, says) in [
        (String::new(), 401, "needs the token"),
        (bearer("0123456789abcdef-012345678"), 401, "not the token"),
        (bearer("0123456789abcdef-01234567890"), 401, "not the token"),
        (bearer(""), 401, "bearer"),
        (format!("Authorization: Basic {TOKEN}\r\n"), 401, "bearer"),
        (
            format!("{}{}", bearer(TOKEN), bearer(TOKEN)),
            401,
            "needs the token",
        ),
        (
            format!("{}Origin: http://evil.example\r\n", bearer(TOKEN)),
            403,
            "origin",
        ),
        (format!("{}Origin: null\r\n", bearer(TOKEN)), 403, "origin"),
    ] {
        for path in ["/api/v1/reload", "/api/v1/drain", "/api/v1/connections/12/close"] {
            let (found, head, body) = post(&running, path, &headers).await;
            assert_eq!(found, status, "{headers}: {body}");
            assert!(
                body["error"].as_str().unwrap().contains(says),
                "{headers}: {body}"
            );
            assert!(!body["hint"].as_str().unwrap().is_empty());
            assert_eq!(
                head.contains("www-authenticate: bearer"),
                status == 401,
                "{headers}: {head}"
            );
            assert!(!body.to_string().contains(TOKEN));
        }
        assert_eq!(taken(&running), Vec::<String>::new(), "{headers}");
    }
    let own_origin = format!("{}Origin: http://127.0.0.1:15000\r\n", bearer(TOKEN));
    for (path, headers, status, expected, change) in [
        (
            "/api/v1/reload",
            bearer(TOKEN),
            200,
            json!({ "policy": { "result": "success" } }),
            "reload",
        ),
        ("/api/v1/drain", own_origin, 200, json!({ "open": 7 }), "drain"),
        (
            "/api/v1/connections/12/close",
            format!("authorization: bEARER  {TOKEN} \r\n"),
            200,
            json!({ "closed": 12 }),
            "close 12",
        ),
    ] {
        let (found, _, body) = post(&running, path, &headers).await;
        assert_eq!((found, &body), (status, &expected));
        assert_eq!(taken(&running), [change]);
        // Of a reading again it is recorded that it was asked for, before anything comes of it.
        let told = if change == "reload" { Value::Null } else { expected };
        assert_eq!(recorded(&running), [(Actor::AdminToken, told)]);
    }
    for (number, status) in [
        ("13", 404),
        ("x", 400),
        ("", 400),
        ("-1", 400),
        ("18446744073709551616", 400),
    ] {
        let path = format!("/api/v1/connections/{number}/close");
        let (found, _, body) = post(&running, &path, &bearer(TOKEN)).await;
        assert_eq!(found, status, "{number}: {body}");
    }
    assert_eq!(recorded(&running), []);
    running.end().await;
}

#[tokio::test]
async fn a_token_that_everybody_can_read_lets_nobody_in() {
    let Guarded { running, _folder } = guarded(0o644);
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    let (status, _, body) = post(&running, "/api/v1/drain", &headers).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(taken(&running), Vec::<String>::new());
    running.end().await;
}

#[tokio::test]
async fn without_a_token_the_unix_socket_alone_lets_changes_in() {
    let tcp = start_tcp(Kind::Full);
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    let (status, _, body) = post(&tcp, "/api/v1/drain", &headers).await;
    assert_eq!(status, 403, "{body}");
    assert!(
        body["hint"].as_str().unwrap().contains("admin.token_file"),
        "{body}"
    );
    assert_eq!(taken(&tcp), Vec::<String>::new());
    tcp.end().await;

    let folder = tempfile::tempdir().unwrap();
    let unix = start(&Address::Unix(folder.path().join("admin.sock")), Kind::Full);
    assert_eq!(post(&unix, "/api/v1/drain", "").await.2, json!({ "open": 7 }));
    assert_eq!(taken(&unix), ["drain"]);
    assert_eq!(recorded(&unix), [(Actor::AdminSocket, json!({ "open": 7 }))]);
    let (status, _, _) = post(&unix, "/api/v1/drain", "Origin: http://127.0.0.1:15000\r\n").await;
    assert_eq!(status, 403, "a web page reached a unix socket");
    unix.end().await;
}

#[tokio::test]
async fn changes_are_made_by_post_and_nowhere_but_at_the_whole_endpoint() {
    let Guarded { running, _folder } = guarded(0o600);
    let headers = format!("{LOCAL}Authorization: Bearer {TOKEN}\r\n");
    for (path, allow) in [
        ("/api/v1/reload", "allow: post"),
        ("/api/v1/drain", "allow: post"),
        ("/api/v1/connections/1/close", "allow: post"),
    ] {
        let (status, head, body) = running.get(path, &headers).await;
        assert_eq!(status, 405, "{body}");
        assert!(head.contains(allow) && body.contains("use POST"), "{head}{body}");
    }
    assert_eq!(taken(&running), Vec::<String>::new());
    running.end().await;
    let probes = start_tcp(Kind::Probes);
    assert_eq!(post(&probes, "/api/v1/drain", "").await.0, 404);
    assert_eq!(taken(&probes), Vec::<String>::new());
    probes.end().await;
}

#[tokio::test(start_paused = true)]
async fn bodies_are_bounded_in_length_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(&Address::Unix(folder.path().join("admin.sock")), Kind::Full);
    let body = "x".repeat(8 * 1024);
    for (body, status) in [(body.clone(), 200), (format!("{body}y"), 413)] {
        let headers = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let request = format!("POST /api/v1/drain HTTP/1.1\r\n{LOCAL}{headers}");
        assert_eq!(parse(&running.raw(&request).await).0, status);
    }
    // Time passes by itself while both wait.
    let (status, _, _) = post(&running, "/api/v1/drain", "Content-Length: 10\r\n").await;
    assert_eq!(status, 408);
    assert_eq!(taken(&running), ["drain"]);
    running.end().await;
}
