//! Who may answer an outbound listener, and what a server that may not gets to see.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa};
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, NamedGroup, RootCertStore, ServerConfig};
use serde_json::Value;

use crate::peers::{accept, alert_of, server_config, server_config_noting, try_accept};
use crate::plain::{self, exchange, expect_reset, read_error};
use crate::support::process::Mark;
use crate::support::trusting::{Trusting, provider};
use crate::world::{HOUR, Identity, ORDERS, Outbound, OutboundSetup, REPORTS, authority, uri};

/// Lets this server answer, expects it to be refused with the alert before it has seen our certificate, and gives
/// the record.
fn refused(
    scene: &Outbound,
    name: &str,
    identity: &Identity,
    alert: AlertDescription,
    reason: &str,
) -> Value {
    eprintln!("case: {name}");
    let mark = scene.sidecar.mark();
    let mut app = plain::connect(scene.plain);
    let trusting = Arc::new(Trusting::default());
    let config = server_config_noting(identity, Arc::<Trusting>::clone(&trusting));
    let error = try_accept(scene.peer.accept(), config).expect_err("it is refused");
    assert_eq!(alert_of(&error), Some(alert), "{error}");
    assert!(
        !trusting.saw_certificate.load(Ordering::SeqCst),
        "it learnt who we are"
    );
    // The application sees no TLS: to it the connection broke.
    expect_reset(&mut app);
    scene.sidecar.wait_record(mark, &[("reason", reason)])
}

#[test]
fn a_server_without_a_valid_svid_is_refused_before_it_sees_ours() {
    let scene = OutboundSetup::default().start();
    let ours = scene.api.authority();
    let now = SystemTime::now();
    let spoilt = |spoil: fn(&mut rcgen::CertificateParams)| Identity::with(&ours, ORDERS, spoil);
    let bad = AlertDescription::BadCertificate;
    let cases = [
        (
            "another authority under our trust domain's name",
            Identity::of(&authority("example.org"), ORDERS),
            AlertDescription::UnknownCA,
            "untrusted_chain",
        ),
        (
            "a trust domain we hold no bundle of",
            Identity::of(&authority("foreign.example"), "spiffe://foreign.example/orders"),
            AlertDescription::UnknownCA,
            "unknown_trust_domain",
        ),
        (
            "expired",
            Identity::until(&ours, ORDERS, now - Duration::from_secs(2)),
            AlertDescription::CertificateExpired,
            "certificate_expired",
        ),
        (
            "not valid yet",
            Identity::with(&ours, ORDERS, |params| {
                params.not_before = (now + HOUR / 2).into()
            }),
            AlertDescription::CertificateExpired,
            "certificate_not_yet_valid",
        ),
        (
            "two URI SANs",
            spoilt(|params| params.subject_alt_names.push(uri("spiffe://example.org/b"))),
            bad,
            "bad_certificate",
        ),
        (
            "no path",
            spoilt(|params| params.subject_alt_names = vec![uri("spiffe://example.org")]),
            bad,
            "bad_certificate",
        ),
        (
            "a CA as leaf",
            spoilt(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            bad,
            "bad_certificate",
        ),
        (
            "for clients only",
            spoilt(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            AlertDescription::UnsupportedCertificate,
            "bad_certificate",
        ),
    ];
    for (name, identity, alert, reason) in cases {
        let record = refused(&scene, name, &identity, alert, reason);
        assert_eq!(record["result"], "refused", "{name}: {record}");
        assert!(record["peer_id"].is_null(), "{name}: {record}");
    }

    let mut app = plain::connect(scene.plain);
    let mut server = accept(scene.peer.accept(), &scene.api.peer(ORDERS));
    exchange(&mut app, &mut server, "hello");
}

#[test]
fn a_verified_server_that_is_not_expected_is_denied_before_it_sees_our_certificate() {
    let scene = OutboundSetup::default().start();
    let record = refused(
        &scene,
        "reports in place of orders",
        &scene.api.peer(REPORTS),
        AlertDescription::AccessDenied,
        "peer_not_expected",
    );
    assert_eq!(record["result"], "denied", "{record}");
    assert_eq!(record["verdict"], "deny", "{record}");
    assert_eq!(record["peer_id"], REPORTS, "{record}");
}

#[test]
fn a_peer_that_refuses_us_is_a_reason_of_its_own() {
    let scene = OutboundSetup::default().start();
    // It trusts another authority than ours.
    let mut roots = RootCertStore::empty();
    roots.add(authority("example.org").root().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .unwrap();
    let config = server_config_noting(&scene.api.peer(ORDERS), verifier);
    let mut app = plain::connect(scene.plain);
    try_accept(scene.peer.accept(), config).expect_err("it refuses");
    expect_reset(&mut app);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "refused_by_peer")]);
    assert_eq!(record["result"], "failed", "{record}");
    assert_eq!(record["peer_id"], ORDERS, "{record}");
    assert!(
        record["detail"].as_str().unwrap().contains("unknown_ca"),
        "{record}"
    );
}

#[test]
fn two_sidecars_tell_each_other_of_a_denial() {
    let inbound = crate::world::InboundSetup::default().start();
    let authority = inbound.api.authority();
    // Reports asks, and orders' policy names storefront.
    let plain = crate::support::net::free_address();
    inbound
        .api
        .handle()
        .add(crate::world::id(REPORTS).into())
        .unwrap();
    drop(authority);
    let config = format!(
        "{}  svid: {REPORTS}\noutbound:\n  - name: to-orders\n    listen: {plain}\n    peer: [\"{ORDERS}\"]\n    \
         connect: {}\n",
        inbound.api.identity(),
        inbound.tls
    );
    let outbound = crate::support::sidecar::Setup::new("reports", config).start();
    outbound.wait_ready();
    let mut app = plain::connect(plain);
    let _ = app.write_all(b"hello");
    let error = read_error(&mut app);
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    let record = outbound.wait_record(Mark::default(), &[("reason", "refused_by_peer")]);
    assert!(
        record["detail"].as_str().unwrap().contains("access_denied"),
        "{record}"
    );
    let record = inbound
        .sidecar
        .wait_record(Mark::default(), &[("reason", "no_allow_rule")]);
    assert_eq!(record["peer_id"], REPORTS);
    assert_eq!(inbound.app.accepted(), 0);
}

#[test]
fn what_answers_without_tls_1_3_is_told_apart() {
    let scene = OutboundSetup {
        settings: "limits: { handshake_timeout: 1s }\n",
        ..OutboundSetup::default()
    }
    .start();
    let mut tls12 = vec![22, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    tls12.extend([9; 32]);
    tls12.extend([0, 0xc0, 0x2b, 0]);
    let cases: [(&[u8], &str); 3] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not_tls"),
        (&tls12, "no_common_parameters"),
        (b"", "handshake_timeout"),
    ];
    for (answer, reason) in cases {
        let (mark, begun) = (scene.sidecar.mark(), Instant::now());
        let mut app = plain::connect(scene.plain);
        let mut peer = scene.peer.accept();
        peer.write_all(answer).unwrap();
        expect_reset(&mut app);
        let record = scene.sidecar.wait_record(mark, &[("reason", reason)]);
        assert_eq!(record["result"], "refused", "{record}");
        if answer.is_empty() {
            assert!(begun.elapsed() >= Duration::from_secs(1));
        }
        let mut told = Vec::new();
        let _ = peer.read_to_end(&mut told);
        if reason == "no_common_parameters" {
            assert!(told.ends_with(&[21, 3, 3, 0, 2, 2, 70]), "no protocol_version");
        }
    }
}

#[test]
fn the_server_name_is_the_configured_one_and_none_for_an_address() {
    for (listener, expected) in [
        ("", None),
        ("    sni: orders.shop.svc\n", Some("orders.shop.svc")),
    ] {
        let scene = OutboundSetup {
            listener,
            ..OutboundSetup::default()
        }
        .start();
        let mut app = plain::connect(scene.plain);
        let mut server = accept(scene.peer.accept(), &scene.api.peer(ORDERS));
        assert_eq!(server.conn.server_name(), expected);
        let group = server.conn.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        exchange(&mut app, &mut server, "hello");
    }
}

fn speaking(identity: &Identity, protocols: &[&str]) -> ServerConfig {
    let mut config = server_config(identity);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

#[test]
fn application_protocols_are_offered_as_configured() {
    let scene = OutboundSetup {
        listener: "    alpn: [h2, http/1.1]\n",
        ..OutboundSetup::default()
    }
    .start();
    let orders = scene.api.peer(ORDERS);
    for (protocols, selected) in [
        (&["http/1.1"][..], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut app = plain::connect(scene.plain);
        let mut server = try_accept(scene.peer.accept(), speaking(&orders, protocols)).unwrap();
        assert_eq!(
            server.conn.alpn_protocol(),
            selected.map(str::as_bytes),
            "{protocols:?}"
        );
        exchange(&mut app, &mut server, "hello");
    }

    let mark = scene.sidecar.mark();
    let mut app = plain::connect(scene.plain);
    try_accept(scene.peer.accept(), speaking(&orders, &["smtp"])).expect_err("nothing in common");
    expect_reset(&mut app);
    let record = scene.sidecar.wait_record(mark, &[("reason", "refused_by_peer")]);
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("no_application_protocol"), "{record}");
}

#[test]
fn a_server_that_does_not_ask_who_we_are_is_no_peer() {
    let scene = OutboundSetup::default().start();
    let orders = scene.api.peer(ORDERS);
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(orders.chain.clone(), orders.key_der())
        .unwrap();
    let mut app = plain::connect(scene.plain);
    // The alert comes right behind our Finished: with it, or with the first read.
    let told = try_accept(scene.peer.accept(), config)
        .map_or_else(|error| error, |mut server| read_error(&mut server));
    assert_eq!(
        alert_of(&told),
        Some(AlertDescription::HandshakeFailure),
        "{told}"
    );
    expect_reset(&mut app);
    let record = scene.sidecar.wait_record(Mark::default(), &[("peer_id", ORDERS)]);
    assert_eq!(record["reason"], "no_common_parameters", "{record}");
    assert_eq!(record["result"], "refused", "{record}");
}
