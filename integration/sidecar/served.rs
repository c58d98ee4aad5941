//! The admin endpoint over mutual TLS: whom policy lets in may look, and nobody changes anything.

use std::io::{Read as _, Write as _};

use rustls::AlertDescription;

use crate::peers::{client_config, connect, expect_alert, expect_refusal};
use crate::support::http::{self, Response};
use crate::support::process::Mark;
use crate::support::{SOON, eventually};
use crate::world::{Inbound, InboundSetup, REPORTS, STOREFRONT};

fn serve(what: &str) -> Inbound {
    InboundSetup {
        listener: &format!("    serve: {what}\n"),
        ..InboundSetup::default()
    }
    .start()
}

/// As storefront, whom the policy lets in.
fn ask(scene: &Inbound, line: &str, headers: &str) -> Response {
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let response = http::exchange(&mut client, "metrics.example", line, headers, "").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    response
}

#[test]
fn metrics_are_scraped_by_whom_policy_lets_in() {
    let scene = serve("metrics");
    let metrics = ask(&scene, "GET /metrics", "");
    assert_eq!(metrics.status, 200, "{}", metrics.head);
    assert!(metrics.body.contains("svidecar_build_info"), "{}", metrics.body);
    let record = scene.sidecar.wait_record(Mark::default(), &[("result", "ok")]);
    assert_eq!(record["upstream"], "metrics", "{record}");
    assert_eq!(record["rule"], "storefront", "{record}");
    assert!(record["bytes_down"].as_u64().unwrap() > 1000, "{record}");

    // In the form that Prometheus asks for, by any host, and not for a web page of another origin.
    let accept = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let metrics = ask(&scene, "GET /metrics", accept);
    assert!(metrics.body.ends_with("# EOF\n"), "{}", metrics.body);
    let own = ask(&scene, "GET /metrics", "Origin: https://metrics.example\r\n");
    assert_eq!(own.status, 200, "{}", own.body);
    for origin in ["https://evil.example", "http://metrics.example", "null"] {
        let answer = ask(&scene, "GET /metrics", &format!("Origin: {origin}\r\n"));
        assert_eq!(answer.status, 403, "{origin}");
    }
    for (line, status) in [
        ("GET /", 404),
        ("GET /livez", 404),
        ("GET /api/v1/identity", 404),
        ("GET /api/v1/status", 404),
        ("POST /api/v1/drain", 404),
        ("POST /metrics", 405),
    ] {
        let answer = ask(&scene, line, "");
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
    }

    let mark = scene.sidecar.mark();
    let mut denied = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut denied, AlertDescription::AccessDenied);
    let record = scene.sidecar.wait_record(mark, &[("result", "denied")]);
    assert_eq!(record["upstream"], serde_json::Value::Null, "{record}");
    expect_refusal(
        scene.tls,
        client_config(None),
        AlertDescription::CertificateRequired,
    );
    assert!(scene.sidecar.is_ready());
}

#[test]
fn the_rest_is_shown_and_never_changed() {
    let scene = serve("admin");
    let status = ask(&scene, "GET /api/v1/status", "").json();
    assert_eq!(status["changes"], "none", "{status}");
    assert_eq!(status["listeners"][0]["upstream"], "admin", "{status}");
    assert_eq!(
        status["connections"]["shown"][0]["peer_id"], STOREFRONT,
        "{status}"
    );
    for line in [
        "GET /",
        "GET /metrics",
        "GET /livez",
        "GET /api/v1/policy",
        "GET /api/v1/log",
    ] {
        assert_eq!(ask(&scene, line, "").status, 200, "{line}");
    }
    for (line, status) in [
        ("POST /api/v1/reload", 404),
        ("POST /api/v1/drain", 404),
        ("POST /api/v1/connections/1/close", 404),
        ("PUT /api/v1/log", 405),
    ] {
        let answer = ask(&scene, line, "Authorization: Bearer 0123456789abcdef\r\n");
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
    }
    assert!(scene.sidecar.is_ready());
}

#[test]
fn a_stream_over_mutual_tls_ends_when_policy_takes_it_back() {
    let scene = serve("admin");
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let request = "GET /api/v1/status HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut seen = String::new();
    while seen.matches("event: status").count() < 2 {
        let mut part = [0; 16_384];
        let length = client.read(&mut part).unwrap();
        seen.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    scene.sidecar.set_policy("rules: []\n");
    let ended = eventually("it is cut", SOON, || {
        let mut part = [0; 16_384];
        client.read(&mut part).err()
    });
    let alert = crate::peers::alert_of(&ended);
    assert_eq!(alert, Some(AlertDescription::AccessDenied), "{ended}");
    // And its place among those who listen is free again.
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "policy_change")]);
    assert_eq!(scene.sidecar.get("/api/v1/status").unwrap().status, 200);
}
