//! The state of all that `/api/v1/status` shows agrees with what happened.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;
use rustls::AlertDescription;
use serde_json::Value;

use crate::open_connections::Open;
use crate::peers::{client_config, connect, expect_alert, expect_refusal};
use crate::support::net::free_address;
use crate::support::process::{Process, output_of};
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, eventually};
use crate::world::{Inbound, InboundSetup, ORDERS, REPORTS, STOREFRONT};

fn status(scene: &Inbound) -> Value {
    scene.sidecar.get("/api/v1/status").unwrap().json()
}

fn peer<'v>(status: &'v Value, id: Option<&str>) -> &'v Value {
    let mut peers = status["peers"].as_array().unwrap().iter();
    peers
        .find(|peer| peer["peer_id"].as_str() == id)
        .unwrap_or_else(|| panic!("no {id:?}: {}", status["peers"]))
}

#[test]
fn the_status_counts_what_happened() {
    let scene = InboundSetup::default().start();
    let mut open = Open::through(&scene, &scene.api.peer(STOREFRONT));
    open.must_flow();
    let mut denied = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut denied, AlertDescription::AccessDenied);
    expect_refusal(
        scene.tls,
        client_config(None),
        AlertDescription::CertificateRequired,
    );
    let status = eventually("all is counted", SOON, || {
        let status = status(&scene);
        let results = &status["listeners"][0]["results"];
        // Who was refused is told why, and has its place until then.
        let gone = status["connections"]["in_handshake_or_closing"] == 0;
        (gone && results["denied"] == 1 && results["refused"] == 1 && status["peers_total"] == 3)
            .then_some(status)
    });
    assert_eq!(status["readiness"]["ready"], true, "{status}");
    assert_eq!(status["pid"], scene.sidecar.process().pid(), "{status}");
    let identity = &status["identity"];
    assert_eq!(identity["svid"]["id"], ORDERS, "{identity}");
    assert_eq!(
        identity["recent_rotations"][0]["serial"], identity["svid"]["serial"],
        "{identity}"
    );
    let listener = &status["listeners"][0];
    assert_eq!(listener["name"], "orders", "{listener}");
    assert_eq!(listener["upstream"], scene.app.addr().to_string(), "{listener}");
    assert_eq!(listener["open"], 1, "{listener}");
    assert_eq!(listener["reasons"]["no_allow_rule"], 1, "{listener}");
    assert_eq!(listener["reasons"].get("finished"), None, "{listener}");
    assert_eq!(listener["handshakes"]["full"], 2, "{listener}");
    let seconds = &listener["handshake_seconds"];
    assert_eq!(seconds["count"], 2, "{listener}");
    let buckets = seconds["buckets"].as_array().unwrap();
    let sum: u64 = buckets.iter().map(|b| b["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, 2, "{listener}");
    assert_eq!(buckets.last().unwrap()["le"], Value::Null, "{listener}");

    let storefront = peer(&status, Some(STOREFRONT));
    assert_eq!(storefront["open"], 1, "{storefront}");
    assert_eq!(storefront["allowed"], 1, "{storefront}");
    assert_eq!(storefront["last"]["rule"], "storefront", "{storefront}");
    let reports = peer(&status, Some(REPORTS));
    assert_eq!(reports["denied"], 1, "{reports}");
    assert_eq!(reports["last"]["reason"], "no_allow_rule", "{reports}");
    let nobody = peer(&status, None);
    assert_eq!(nobody["source"], "127.0.0.1", "{nobody}");
    assert_eq!(nobody["last"]["reason"], "no_certificate", "{nobody}");

    let policy = &status["policy"];
    assert_eq!(policy["rules"][0]["name"], "storefront", "{policy}");
    assert_eq!(policy["rules"][0]["hits"], 1, "{policy}");
    assert!(policy["rules"][0]["last_hit"].is_string(), "{policy}");
    assert_eq!(policy["rules_total"], 1, "{policy}");
    assert_eq!(policy["last_reload"]["result"], "success", "{policy}");
    let limits = &status["limits"];
    assert_eq!(limits["max_connections"]["used"], 1, "{limits}");
    assert_eq!(limits["max_handshakes"]["used"], 0, "{limits}");
    assert!(limits["open_files"]["used"].as_u64().unwrap() > 5, "{limits}");
    assert!(
        status["process"]["resident_bytes"].as_u64().unwrap() > 1 << 20,
        "{status}"
    );
    assert_eq!(status["connections"]["total"], 1, "{status}");
    assert_eq!(
        status["connections"]["shown"][0]["peer_id"], STOREFRONT,
        "{status}"
    );
    assert_eq!(status["losses"]["log_lines"], 0, "{status}");
    open.must_flow();
}

#[test]
fn the_stream_shows_each_second_and_each_verdict() {
    let scene = InboundSetup::default().start();
    let mut stream = TcpStream::connect(scene.sidecar.admin()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "GET /api/v1/status?connections=0 HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
        scene.sidecar.admin()
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut next = |name: &str| -> Value {
        let head = format!("event: {name}");
        lines.find(|line| *line == head).unwrap();
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
        serde_json::from_str(&data.unwrap()).unwrap()
    };
    let first = next("status");
    assert_eq!(first["listeners"][0]["open"], 0, "{first}");
    let mut denied = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut denied, AlertDescription::AccessDenied);
    let verdict = next("decision");
    assert_eq!(verdict["peer_id"], REPORTS, "{verdict}");
    assert_eq!(verdict["nearest"]["rule"], "storefront", "{verdict}");
    let mut later = next("status");
    while later["listeners"][0]["results"]["denied"] == 0 {
        later = next("status");
    }
    assert_ne!(first["time"], later["time"]);
    assert_eq!(later["connections"]["shown"], serde_json::json!([]));
}

#[test]
fn explain_answers_by_the_policy_in_force() {
    let scene = InboundSetup::default().start();
    let ask = |query: &str| scene.sidecar.get(&format!("/api/v1/explain?{query}")).unwrap();
    let allowed = ask(&format!("to=orders&from={STOREFRONT}")).json();
    assert_eq!(allowed["verdict"], "allow", "{allowed}");
    assert_eq!(allowed["rule"], "storefront", "{allowed}");
    let denied = ask(&format!("to=orders&from={REPORTS}&source=10.1.2.3")).json();
    assert_eq!(denied["verdict"], "deny", "{denied}");
    assert_eq!(denied["nearest"]["rule"], "storefront", "{denied}");
    assert_eq!(denied["source"], "10.1.2.3", "{denied}");
    for (query, error) in [
        (format!("to=order&from={REPORTS}"), "did you mean `orders`?"),
        ("to=orders&from=spiffe://example.org".to_owned(), "has a path"),
        ("to=orders&from=web".to_owned(), "no SPIFFE ID"),
    ] {
        let answer = ask(&query);
        assert_eq!(answer.status, 400, "{query}");
        let answer = answer.json();
        assert!(answer["error"].as_str().unwrap().contains(error), "{answer}");
        assert!(answer["hint"].is_string(), "{answer}");
    }
}

fn command(scene: &Inbound, words: &[&str]) -> Command {
    let mut command = Command::new(SVIDECAR);
    command
        .args(["status", "--admin", &scene.sidecar.admin().to_string()])
        .args(words);
    command
}

#[test]
fn the_command_shows_it_in_a_terminal() {
    let scene = InboundSetup::default().start();
    let mut open = Open::through(&scene, &scene.api.peer(STOREFRONT));
    open.must_flow();
    let mut denied = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut denied, AlertDescription::AccessDenied);
    let text = output_of(&mut command(&scene, &[]), SOON);
    for part in [
        &format!("pid {}", scene.sidecar.process().pid()),
        ", ready\n",
        &format!("{ORDERS}\n  SVID ends in "),
        "LISTENER  OPEN",
        &format!("\n{STOREFRONT}  orders "),
        &format!("{REPORTS} → orders: no_allow_rule"),
        "nearest is rule storefront but for from: ",
        "POLICY generation 1",
    ] {
        assert!(text.contains(part), "no `{part}`: {text}");
    }
    assert!(!text.contains('\x1b'), "{text:?}");
    let json: Value = serde_json::from_str(&output_of(&mut command(&scene, &["--json"]), SOON)).unwrap();
    assert_eq!(json["identity"]["svid"]["id"], ORDERS, "{json}");

    // Watching, into a pipe: one after the other, until a signal, and that is a good end.
    let mut watching = Process::start("status", &mut command(&scene, &["--watch", "--json"]));
    for _ in 0..2 {
        let mark = watching.mark();
        let status = watching.wait_line("a status", mark, SOON, |line| {
            serde_json::from_str::<Value>(line).ok()
        });
        assert_eq!(status["listeners"][0]["open"], 1, "{status}");
    }
    watching.signal(Signal::INT);
    assert!(watching.wait(SOON).success());
}

#[test]
fn the_command_fails_where_nobody_answers() {
    let nobody = free_address();
    let mut command = Command::new(SVIDECAR);
    command.args(["status", "--admin", &nobody.to_string()]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("no answer from `{nobody}`")), "{said}");
    command.arg("--watch");
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    command.arg("--loud");
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

/// Another door of the same process says what it is, and the one of the unix socket shows what the audit log's sinks lack.
#[test]
fn the_command_tells_one_door_from_another() {
    let folder = tempfile::TempDir::with_prefix("svidecar-status-").unwrap();
    let (socket, log) = (
        folder.path().join("admin.sock"),
        folder.path().join("audit.jsonl"),
    );
    let settings = format!(
        "admin: {{ listen: 'unix://{}', probes: '@admin' }}\naudit: {{ file: '{}', sinks: [{{ name: away, otlp: {{ endpoint: \
         'http://{}' }} }}] }}\n",
        socket.display(),
        log.display(),
        free_address()
    );
    let scene = InboundSetup {
        settings: &settings,
        ..InboundSetup::default()
    }
    .start();
    let status = |admin: &str| {
        let output = Command::new(SVIDECAR)
            .args(["status", "--admin", admin])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = status(&scene.sidecar.admin().to_string());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("does not tell (404)") && said.contains("is this `admin.probes`"),
        "{said}"
    );
    let unix = format!("unix://{}", socket.display());
    let (code, said) = status(&unix);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("AUDIT {}: ", log.display())), "{said}");
    assert!(
        said.contains("  sink away lags by ") && !said.contains("will never get"),
        "{said}"
    );
    let json = Command::new(SVIDECAR)
        .args(["status", "--json", "--admin", &unix])
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["audit"]["sinks"][0]["lost"], 0, "{json}");
}
