//! One verdict, told alike everywhere: the log line, the API and its stream, the file, the metric's exemplar.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::SanType;
use rustls::AlertDescription;
use serde_json::Value;

use crate::peers::{client_config, connect, expect_alert, expect_refusal};
use crate::plain::exchange;
use crate::support::process::Mark;
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, eventually};
use crate::world::{HOUR, Identity, Inbound, InboundSetup, REPORTS, STOREFRONT, authority, uri};

const TO_FILE: &str = "telemetry:\n  decisions: { file: decisions.jsonl, max_size: 1MiB, keep: 2 }\n";

fn with_file() -> Inbound {
    InboundSetup {
        settings: TO_FILE,
        ..InboundSetup::default()
    }
    .start()
}

/// The lines of the file, each of which is a record.
fn written(scene: &Inbound, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(scene.sidecar.folder().join(name)).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn decision(scene: &Inbound, id: &str) -> Value {
    let response = scene.sidecar.get(&format!("/api/v1/decisions/{id}")).unwrap();
    assert_eq!(response.status, 200, "{}", response.body);
    response.json()
}

#[test]
fn a_denial_is_found_by_its_id_in_the_log_the_api_the_file_and_the_exemplar() {
    let scene = with_file();
    let mut client = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let line = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "no_allow_rule")]);
    let id = line["decision_id"].as_str().unwrap();

    let shown = decision(&scene, id);
    assert_eq!(shown["nearest"]["rule"], "storefront", "{shown}");
    assert_eq!(shown["nearest"]["unmet"][0]["condition"], "from", "{shown}");
    assert!(
        shown["detail"].as_str().unwrap().contains("rule `storefront`"),
        "{shown}"
    );
    assert_eq!(shown["peer_id"], REPORTS, "{shown}");
    assert!(shown["serial"].is_string(), "{shown}");
    // The line says it in the same words; its own number and time have other names there.
    for (field, value) in shown.as_object().unwrap() {
        if !["id", "version", "time", "connection"].contains(&field.as_str()) {
            assert_eq!(&line[field], value, "{field}: {line}");
        }
    }
    assert_eq!(
        (&line["id"], id),
        (&shown["connection"], shown["id"].as_str().unwrap())
    );

    let file = eventually("the record is written", SOON, || {
        written(&scene, "decisions.jsonl")
            .into_iter()
            .find(|record| record["id"] == id)
    });
    assert_eq!(file, shown);
    let mode = fs::metadata(scene.sidecar.folder().join("decisions.jsonl"));
    assert_eq!(mode.unwrap().permissions().mode() & 0o777, 0o600);

    let series = "svidecar_authorization_decisions_total{listener=\"orders\",rule=\"\",verdict=\"deny\"} 1";
    let accept = "Accept: application/openmetrics-text\r\n";
    let open = scene.sidecar.get_with("/metrics", accept).body;
    let exemplar = format!("{series} # {{decision_id=\"{id}\"}} 1.0 ");
    assert!(open.lines().any(|line| line.starts_with(&exemplar)), "{open}");
    let plain = scene.sidecar.get("/metrics").unwrap().body;
    assert!(plain.lines().any(|line| line == series), "{plain}");

    let policy = scene.sidecar.get("/api/v1/policy").unwrap().json();
    let hash = policy["content_hash"].as_str().unwrap();
    assert_eq!(shown["policy_hash"], hash[..12], "{shown}");
}

#[test]
fn an_admission_is_told_when_it_is_made_and_again_by_its_connection() {
    let scene = with_file();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
    let shown = scene
        .sidecar
        .get("/api/v1/decisions?verdict=allow")
        .unwrap()
        .json();
    let admission = &shown["decisions"][0];
    assert_eq!(
        (&admission["rule"], &admission["kind"]),
        (&"storefront".into(), &"admission".into()),
        "{shown}"
    );
    assert!(admission["reason"].is_null(), "{shown}");
    let open = scene.sidecar.get("/api/v1/connections").unwrap().json();
    assert_eq!(open["connections"][0]["decision_id"], admission["id"], "{open}");
    client.conn.send_close_notify();
    client.conn.write_tls(&mut client.sock).unwrap();
    drop(client);
    let line = scene
        .sidecar
        .wait_record(Mark::default(), &[("verdict", "allow")]);
    assert_eq!(line["decision_id"], admission["id"], "{line}");
    assert_eq!(line["admission_id"], admission["id"], "{line}");
}

#[test]
fn a_denial_that_is_only_audited_says_that_it_has_no_effect_and_why_it_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, crate::world::STOREFRONT_ONLY).unwrap();
    let settings = format!("policy: {{ path: {}, mode: audit }}\n", path.display());
    let scene = InboundSetup {
        policy: None,
        settings: &settings,
        ..InboundSetup::default()
    }
    .start();
    let mut client = connect(scene.tls, &scene.api.peer(REPORTS));
    exchange(&mut client, &mut scene.app.accept(), "hello");
    let shown = scene
        .sidecar
        .get("/api/v1/decisions?verdict=deny")
        .unwrap()
        .json();
    let verdict = &shown["decisions"][0];
    assert_eq!(verdict["enforced"], false, "{verdict}");
    assert_eq!(verdict["reason"], "no_allow_rule", "{verdict}");
    assert_eq!(verdict["nearest"]["rule"], "storefront", "{verdict}");
}

/// Which certificate, by which standard, in which words.
#[test]
fn a_refused_handshake_names_the_certificate_and_the_rule_that_it_breaks() {
    let scene = InboundSetup::default().start();
    let ours = scene.api.authority();
    let spoilt = |spoil: fn(&mut rcgen::CertificateParams)| Identity::with(&ours, STOREFRONT, spoil);
    let mut beside_a_leaf = Identity::of(&authority("example.org"), STOREFRONT);
    beside_a_leaf
        .chain
        .push(Identity::of(&ours, REPORTS).chain[0].clone());
    let cases = [
        (
            "two URI SANs",
            Some(spoilt(|params| {
                params.subject_alt_names.push(uri("spiffe://example.org/orders"));
            })),
            AlertDescription::BadCertificate,
            ("leaf", "X509-SVID 5.2", "more than one URI SAN MUST be rejected"),
        ),
        (
            "no URI SAN",
            Some(spoilt(|params| {
                let name = "storefront.example.org".try_into().unwrap();
                params.subject_alt_names = vec![SanType::DnsName(name)];
            })),
            AlertDescription::BadCertificate,
            ("leaf", "X509-SVID 2", "MUST contain exactly one URI SAN"),
        ),
        (
            "no key usage",
            Some(spoilt(|params| params.key_usages.clear())),
            AlertDescription::BadCertificate,
            ("leaf", "X509-SVID 4.3", "MUST be set on all SVIDs"),
        ),
        (
            "expired",
            Some(Identity::until(
                &ours,
                STOREFRONT,
                SystemTime::now() - Duration::from_secs(2),
            )),
            AlertDescription::CertificateExpired,
            ("leaf", "RFC 5280 6.1.3", "includes the current time"),
        ),
        (
            "not valid yet",
            Some(spoilt(|params| {
                params.not_before = (SystemTime::now() + HOUR / 2).into();
            })),
            AlertDescription::CertificateExpired,
            ("leaf", "RFC 5280 6.1.3", "includes the current time"),
        ),
        (
            "unknown trust domain",
            Some(Identity::of(
                &authority("foreign.example"),
                "spiffe://foreign.example/storefront",
            )),
            AlertDescription::UnknownCA,
            ("leaf", "SPIFFE-ID 3.1", "rooted in a given ID's trust domain"),
        ),
        (
            "a stranger's authority",
            Some(Identity::of(&authority("example.org"), STOREFRONT)),
            AlertDescription::UnknownCA,
            (
                "chain",
                "SPIFFE-ID 3",
                "an authority within the SPIFFE ID's trust domain",
            ),
        ),
        (
            "a leaf in an authority's place",
            Some(beside_a_leaf),
            AlertDescription::UnknownCA,
            (
                "intermediate 2",
                "X509-SVID 4.1",
                "MUST set the `cA` field to `true`",
            ),
        ),
        (
            "no certificate",
            None,
            AlertDescription::CertificateRequired,
            ("none", "RFC 8446 4.4.2.4", "certificate_required"),
        ),
    ];
    for (name, identity, alert, (certificate, standard, rule)) in cases {
        let mark = scene.sidecar.mark();
        expect_refusal(scene.tls, client_config(identity.as_ref()), alert);
        let line = scene.sidecar.wait_record(mark, &[("kind", "handshake")]);
        let shown = decision(&scene, line["decision_id"].as_str().unwrap());
        let check = &shown["check"];
        assert_eq!(check, &line["check"], "{name}");
        assert_eq!(check["standard"], standard, "{name}: {shown}");
        assert_eq!(check["certificate"], certificate, "{name}: {shown}");
        assert!(check["rule"].as_str().unwrap().contains(rule), "{name}: {shown}");
        assert_eq!(shown["verdict"], "deny", "{name}: {shown}");
        assert_eq!(shown["reason"], line["reason"], "{name}: {shown}");
        // An ID that is merely claimed is nobody's.
        assert!(shown["peer_id"].is_null(), "{name}: {shown}");
    }
    // One who speaks no TLS was not judged.
    let mark = scene.sidecar.mark();
    TcpStream::connect(scene.tls)
        .unwrap()
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .unwrap();
    let line = scene.sidecar.wait_record(mark, &[("reason", "not_tls")]);
    assert!(
        line["decision_id"].is_null() && line["verdict"] == "none",
        "{line}"
    );
}

#[test]
fn a_stream_delivers_verdicts_as_they_are_given_and_ends_with_the_process() {
    let mut scene = InboundSetup::default().start();
    let mut stream = TcpStream::connect(scene.sidecar.admin()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let host = scene.sidecar.admin();
    write!(
        stream,
        "GET /api/v1/decisions?verdict=deny HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == ": verdicts as they are given"));
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
    expect_alert(
        &mut connect(scene.tls, &scene.api.peer(REPORTS)),
        AlertDescription::AccessDenied,
    );
    let data = lines
        .find_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .unwrap();
    let verdict: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (&verdict["verdict"], &verdict["peer_id"]),
        (&"deny".into(), &REPORTS.into()),
        "{verdict}"
    );
    assert_eq!(decision(&scene, verdict["id"].as_str().unwrap()), verdict);
    drop(client);
    scene.sidecar.terminate(SOON);
    assert!(lines.any(|line| line == ": this process ends"));
}

#[test]
fn the_file_is_rotated_by_size_and_only_so_many_are_kept() {
    let scene = with_file();
    let identity = scene.api.peer(REPORTS);
    let folder = scene.sidecar.folder();
    // Older ones from an earlier run, and a file that is nearly full.
    fs::write(folder.join("decisions.jsonl.1"), "{\"old\":1}\n").unwrap();
    fs::write(folder.join("decisions.jsonl.2"), "{\"old\":2}\n").unwrap();
    let filler = format!("{}\n", serde_json::json!({ "filler": "x".repeat(1 << 10) }));
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(folder.join("decisions.jsonl"))
        .unwrap();
    file.write_all(filler.repeat(1020).as_bytes()).unwrap();
    // Moved away by somebody and back: it is opened anew, and its size is known.
    fs::rename(folder.join("decisions.jsonl"), folder.join("moved")).unwrap();
    fs::copy(folder.join("moved"), folder.join("decisions.jsonl")).unwrap();
    let denied = || {
        let mut client = connect(scene.tls, &identity);
        expect_alert(&mut client, AlertDescription::AccessDenied);
    };
    eventually("the file makes room", SOON * 3, || {
        denied();
        (written(&scene, "decisions.jsonl.2") == [serde_json::json!({ "old": 1 })]).then_some(())
    });
    let moved = written(&scene, "decisions.jsonl.1");
    assert!(
        moved[0]["filler"].is_string() && moved.len() > 1020,
        "{}",
        moved.len()
    );
    for record in written(&scene, "decisions.jsonl") {
        assert_eq!(record["reason"], "no_allow_rule", "{record}");
    }
    assert!(!folder.join("decisions.jsonl.3").exists());
    assert_eq!(
        scene.sidecar.metric("svidecar_decisions_dropped_total"),
        Some(0.0)
    );
}

#[test]
fn a_file_that_cannot_be_written_keeps_the_sidecar_from_starting_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("svidecar.yaml");
    fs::write(
        &config,
        "identity: { socket: 'unix:///nowhere.sock' }\noutbound:\n  - { name: out, listen: 127.0.0.1:0, connect: 127.0.0.1:1, \
         peer: ['spiffe://example.org/a'] }\ntelemetry: { decisions: { file: missing/decisions.jsonl } }\n",
    )
    .unwrap();
    let output = Command::new(SVIDECAR)
        .args(["run", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "telemetry.decisions.file",
        "missing/decisions.jsonl",
        "its folder must exist",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_bad_filter_is_answered_with_what_to_write() {
    let scene = InboundSetup::default().start();
    for (path, hint) in [
        (
            "/api/v1/decisions?verdict=maybe",
            "`verdict` is `allow` or `deny`",
        ),
        ("/api/v1/decisions?limit=0", "`limit` is a number from 1 to 1000"),
        ("/api/v1/decisions?peer=web", "spiffe://example.org/ns/*/sa/web"),
        ("/api/v1/decisions?since=now", "use `limit`, `verdict`"),
        ("/api/v1/decisions/17", "such as `4f2a90c1d3e7-17`"),
    ] {
        let response = scene.sidecar.get(path).unwrap();
        assert_eq!(response.status, 400, "{path}: {}", response.body);
        let said = response.json()["hint"].as_str().unwrap().to_owned();
        assert!(said.contains(hint), "{path}: {said}");
    }
    let response = scene.sidecar.get("/api/v1/decisions/000000000000-1").unwrap();
    assert_eq!(response.status, 404, "{}", response.body);
    assert!(
        response.body.contains("telemetry.decisions.file"),
        "{}",
        response.body
    );
}
