//! What the admin endpoint says agrees with what happened, and keeps the secret.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use rustls::AlertDescription;
use svidecar::workload_api::server::Answer;

use crate::peers::{client_config, connect, expect_alert, expect_refusal};
use crate::plain::{exchange, pass, read_to_end};
use crate::support::process::Mark;
use crate::support::{SOON, eventually};
use crate::world::{Api, InboundSetup, ORDERS, REPORTS, STOREFRONT};

#[test]
fn metrics_count_what_happened() {
    let scene = InboundSetup::default().start();
    let sidecar = &scene.sidecar;
    // Two that finish, with 1000 bytes up and 300 down each.
    for _ in 0..2 {
        let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
        let mut app = scene.app.accept();
        pass(&mut client, &mut app, &[1; 1000]);
        pass(&mut app, &mut client, &[2; 300]);
        client.conn.send_close_notify();
        client.flush().unwrap();
        read_to_end(&mut app);
        drop(app);
        read_to_end(&mut client);
    }
    // One that is open, one denied, three refused.
    let mut open = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut open, &mut app, "hello");
    expect_alert(
        &mut connect(scene.tls, &scene.api.peer(REPORTS)),
        AlertDescription::AccessDenied,
    );
    for _ in 0..3 {
        expect_refusal(
            scene.tls,
            client_config(None),
            AlertDescription::CertificateRequired,
        );
    }
    eventually("six records", SOON, || {
        (sidecar.records_since(Mark::default()).len() == 6).then_some(())
    });
    let listener = "listener=\"orders\",direction=\"inbound\"";
    for (sample, expected) in [
        (
            format!("connections_total{{{listener},result=\"ok\",reason=\"finished\"}}"),
            2.0,
        ),
        (
            format!("connections_total{{{listener},result=\"denied\",reason=\"no_allow_rule\"}}"),
            1.0,
        ),
        (
            format!("connections_total{{{listener},result=\"refused\",reason=\"no_certificate\"}}"),
            3.0,
        ),
        (format!("connections_open{{{listener}}}"), 1.0),
        (format!("bytes_total{{{listener},flow=\"up\"}}"), 2005.0),
        (format!("bytes_total{{{listener},flow=\"down\"}}"), 605.0),
        (format!("handshake_seconds_count{{{listener}}}"), 4.0),
        (
            "authorization_decisions_total{listener=\"orders\",rule=\"storefront\",verdict=\"allow\"}"
                .to_owned(),
            3.0,
        ),
        (
            "authorization_decisions_total{listener=\"orders\",rule=\"\",verdict=\"deny\"}".to_owned(),
            1.0,
        ),
        ("svid_rotations_total".to_owned(), 0.0),
        ("workload_api_connected".to_owned(), 1.0),
        ("policy_generation".to_owned(), 1.0),
        (
            "policy_reload_total{document=\"policy\",result=\"success\"}".to_owned(),
            1.0,
        ),
    ] {
        let sample = format!("svidecar_{sample}");
        // Bytes are counted when they are written, which the one who reads them may be ahead of.
        eventually(&sample, SOON, || {
            (sidecar.metric(&sample) == Some(expected)).then_some(())
        });
    }
    // No peer's ID is ever a label.
    let metrics = sidecar.get("/metrics").unwrap().body;
    assert!(!metrics.contains("spiffe://example.org/storefront"), "{metrics}");
    assert!(!metrics.contains(REPORTS), "{metrics}");
}

#[test]
fn the_pages_show_the_open_connection_the_identity_and_the_policy() {
    let scene = InboundSetup::default().start();
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    let shown = eventually("the bytes are counted", SOON, || {
        let shown = scene.sidecar.get("/api/v1/connections").ok()?.json();
        (shown["connections"][0]["bytes_down"] == 5).then_some(shown)
    });
    assert_eq!(shown["total"], 1, "{shown}");
    let connection = &shown["connections"][0];
    assert_eq!(connection["peer_id"], STOREFRONT, "{shown}");
    assert_eq!(connection["own_id"], ORDERS, "{shown}");
    assert_eq!(connection["rule"], "storefront", "{shown}");
    assert_eq!(connection["verdict"], "allow", "{shown}");
    assert_eq!(connection["bytes_up"], 5, "{shown}");
    let number = connection["id"].clone();
    drop((client, app));
    let record = scene.sidecar.wait_record(Mark::default(), &[]);
    assert_eq!(record["id"], number, "the record of another connection");
    eventually("the connection is gone", SOON, || {
        (scene.sidecar.get("/api/v1/connections").ok()?.json()["total"] == 0).then_some(())
    });

    let identity = scene.sidecar.get("/api/v1/identity").unwrap().json();
    assert_eq!(identity["svid"]["id"], ORDERS, "{identity}");
    assert_eq!(identity["connected"], true, "{identity}");
    assert_eq!(
        identity["bundles"][0]["trust_domain"], "example.org",
        "{identity}"
    );
    let policy = scene.sidecar.get("/api/v1/policy").unwrap().json();
    assert_eq!(policy["generation"], 1, "{policy}");
    assert_eq!(policy["mode"], "enforce", "{policy}");
    assert_eq!(policy["rules"][0]["name"], "storefront", "{policy}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Base64 of the bytes as it would appear in a longer text, at each of the three alignments: without its ends.
fn base64_cores(bytes: &[u8]) -> Vec<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..3)
        .map(|skip| {
            let mut text = String::new();
            for chunk in bytes[skip..].chunks_exact(3) {
                let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
                for place in 0..4 {
                    text.push(LETTERS[usize::try_from(bits >> (18 - 6 * place) & 63).unwrap()].into());
                }
            }
            text
        })
        .collect()
}

#[test]
fn no_private_key_is_ever_shown() {
    let api = Api::start(&[ORDERS]);
    let given = api.handle().fresh().unwrap().unwrap();
    let key = given.svids.svids[0].x509_svid_key.clone();
    api.handle().script(Answer::Give(Arc::new(given)));
    let scene = InboundSetup {
        settings: "telemetry: { log: { level: trace } }\n",
        ..InboundSetup::default()
    }
    .start_with(api);
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
    expect_refusal(
        scene.tls,
        client_config(None),
        AlertDescription::CertificateRequired,
    );
    // What fails is more talkative: a good certificate with a key that is cut short.
    let mut spoilt = scene.api.handle().fresh().unwrap().unwrap();
    let cut = spoilt.svids.svids[0].x509_svid_key[..60].to_vec();
    spoilt.svids.svids[0].x509_svid_key.clone_from(&cut);
    let mark = scene.sidecar.mark();
    scene.api.handle().script(Answer::Give(Arc::new(spoilt)));
    scene.sidecar.wait_log("that the key is no good", mark, |line| {
        line["target"] == "svidecar::identity::source" && line["level"] == "WARN"
    });
    let mut output = scene
        .sidecar
        .process()
        .lines_since(Mark::default(), |line| Some(line.to_owned()));
    for path in [
        "/",
        "/readyz",
        "/livez",
        "/startupz",
        "/health",
        "/metrics",
        "/api/v1/identity",
        "/api/v1/policy",
        "/api/v1/connections",
    ] {
        let response = scene.sidecar.get(path).unwrap();
        assert_eq!(response.status, 200, "{path}");
        output.push(response.head);
        output.push(response.body);
    }
    let output = output.join("\n");
    assert!(output.contains(ORDERS), "nothing was captured");
    for key in [key, cut] {
        // The private number in it (RFC 5915: an octet string of 32 bytes), in every form it could be printed in.
        let at = key.windows(2).position(|pair| pair == [4, 32]).unwrap() + 2;
        let end = key.len().min(at + 32);
        let secret = &key[at..end];
        let mut forms = base64_cores(secret);
        forms.push(hex(secret));
        forms.push(hex(secret).to_uppercase());
        forms.push(format!("{secret:?}").trim_matches(['[', ']']).to_owned());
        for form in forms {
            assert!(form.len() >= 24, "too short to tell anything: {form}");
            assert!(!output.contains(&form), "the key is shown as {form}");
        }
    }
}
