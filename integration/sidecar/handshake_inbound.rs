//! Who is let through the TLS handshake of an inbound listener, and what those who are not are told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType};
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, ClientConfig, NamedGroup};
use serde_json::Value;

use crate::peers::{
    alert_of, client_config, connect, expect_alert, expect_refusal, handshake_client, try_connect,
};
use crate::plain::{self, exchange};
use crate::support::process::Mark;
use crate::support::trusting::Trusting;
use crate::support::{SOON, eventually};
use crate::world::{
    HOUR, Identity, Inbound, InboundSetup, ORDERS, STOREFRONT, TRUST_PARTNER, authority, uri,
};

/// A peer as stock clients are, and what becomes of it.
struct Case {
    name: &'static str,
    config: ClientConfig,
    alert: AlertDescription,
    reason: &'static str,
}

fn refused(scene: &Inbound, cases: Vec<Case>) {
    for case in cases {
        let mark = scene.sidecar.mark();
        eprintln!("case: {}", case.name);
        expect_refusal(scene.tls, case.config, case.alert);
        let record = scene.sidecar.wait_record(mark, &[("reason", case.reason)]);
        assert_eq!(record["result"], "refused", "{}: {record}", case.name);
        // Whose certificates are not looked at is not judged.
        let (verdict, kind) = if case.reason == "no_common_parameters" {
            ("none", Value::Null)
        } else {
            ("deny", "handshake".into())
        };
        assert_eq!(record["verdict"], verdict, "{}: {record}", case.name);
        assert_eq!(record["kind"], kind, "{}: {record}", case.name);
        // A claimed ID is nobody's ID.
        assert!(record["peer_id"].is_null(), "{}: {record}", case.name);
        assert!(record["detail"].is_string(), "{}: {record}", case.name);
    }
    assert_eq!(scene.app.accepted(), 0, "a refused peer reached the application");
}

#[test]
fn a_peer_without_a_valid_svid_is_told_which_way_it_falls_short() {
    let scene = InboundSetup::default().start();
    let ours = scene.api.authority();
    let case = |name, identity: Identity, alert, reason| Case {
        name,
        config: client_config(Some(&identity)),
        alert,
        reason,
    };
    let bad = |name, identity| {
        case(
            name,
            identity,
            AlertDescription::BadCertificate,
            "bad_certificate",
        )
    };
    let now = SystemTime::now();
    let cases = vec![
        Case {
            name: "no certificate",
            config: client_config(None),
            alert: AlertDescription::CertificateRequired,
            reason: "no_certificate",
        },
        case(
            "another authority under our trust domain's name",
            Identity::of(&authority("example.org"), STOREFRONT),
            AlertDescription::UnknownCA,
            "untrusted_chain",
        ),
        case(
            "a trust domain we hold no bundle of",
            Identity::of(
                &authority("foreign.example"),
                "spiffe://foreign.example/storefront",
            ),
            AlertDescription::UnknownCA,
            "unknown_trust_domain",
        ),
        case(
            "a foreign ID that our own authority signed",
            Identity::of(&ours, "spiffe://foreign.example/storefront"),
            AlertDescription::UnknownCA,
            "unknown_trust_domain",
        ),
        case(
            "expired",
            Identity::until(&ours, STOREFRONT, now - Duration::from_secs(2)),
            AlertDescription::CertificateExpired,
            "certificate_expired",
        ),
        case(
            "not valid yet",
            Identity::with(&ours, STOREFRONT, |params| {
                params.not_before = (now + HOUR / 2).into()
            }),
            AlertDescription::CertificateExpired,
            "certificate_not_yet_valid",
        ),
        bad(
            "two URI SANs",
            Identity::with(&ours, STOREFRONT, |params| {
                params.subject_alt_names.push(uri("spiffe://example.org/orders"));
            }),
        ),
        bad(
            "no URI SAN",
            Identity::with(&ours, STOREFRONT, |params| {
                params.subject_alt_names =
                    vec![SanType::DnsName("storefront.example.org".try_into().unwrap())];
            }),
        ),
        bad(
            "no path",
            Identity::with(&ours, STOREFRONT, |params| {
                params.subject_alt_names = vec![uri("spiffe://example.org")];
            }),
        ),
        bad(
            "no SPIFFE ID",
            Identity::with(&ours, STOREFRONT, |params| {
                params.subject_alt_names = vec![uri("https://example.org/storefront")];
            }),
        ),
        bad(
            "a CA as leaf",
            Identity::with(&ours, STOREFRONT, |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
        ),
        bad(
            "no key usage",
            Identity::with(&ours, STOREFRONT, |params| params.key_usages.clear()),
        ),
        case(
            "for servers only",
            Identity::with(&ours, STOREFRONT, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            AlertDescription::UnsupportedCertificate,
            "bad_certificate",
        ),
    ];
    refused(&scene, cases);

    // The faultless one is let in by the same sidecar.
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
}

#[test]
fn no_common_application_protocol_is_a_refusal_with_its_own_alert() {
    let scene = InboundSetup {
        listener: "    alpn: [http/1.1]\n",
        ..InboundSetup::default()
    }
    .start();
    let peer = scene.api.peer(STOREFRONT);
    let mut other = client_config(Some(&peer));
    other.alpn_protocols = vec![b"smtp".to_vec()];
    let cases = vec![Case {
        name: "another application protocol",
        config: other,
        alert: AlertDescription::NoApplicationProtocol,
        reason: "no_common_parameters",
    }];
    refused(&scene, cases);
}

#[test]
fn application_protocols_are_selected_as_configured() {
    let scene = InboundSetup {
        listener: "    alpn: [h2, http/1.1]\n",
        ..InboundSetup::default()
    }
    .start();
    let peer = scene.api.peer(STOREFRONT);
    for (offered, selected) in [
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let mut config = client_config(Some(&peer));
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = try_connect(scene.tls, config).unwrap();
        assert_eq!(
            client.conn.alpn_protocol(),
            selected.map(str::as_bytes),
            "{offered:?}"
        );
        exchange(&mut client, &mut scene.app.accept(), "hello");
    }
}

#[test]
fn a_listener_without_application_protocols_selects_none() {
    let scene = InboundSetup::default().start();
    let mut config = client_config(Some(&scene.api.peer(STOREFRONT)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = try_connect(scene.tls, config).unwrap();
    assert_eq!(client.conn.alpn_protocol(), None);
    exchange(&mut client, &mut scene.app.accept(), "hello");
}

#[test]
fn the_key_exchange_is_hybrid_and_the_server_name_does_not_matter() {
    let scene = InboundSetup::default().start();
    let peer = scene.api.peer(STOREFRONT);
    for name in ["orders.example.org", "nobody.invalid", "127.0.0.1"] {
        let client = handshake_client(plain::connect(scene.tls), client_config(Some(&peer)), name);
        let mut client = client.unwrap();
        let group = client.conn.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        let chain = client.conn.peer_certificates().unwrap();
        let shown = String::from_utf8_lossy(&chain[0]).contains(ORDERS);
        assert!(shown, "another certificate for another name");
        exchange(&mut client, &mut scene.app.accept(), "hello");
    }
}

#[test]
fn a_client_that_knows_no_hybrid_group_is_served_all_the_same() {
    let scene = InboundSetup::default().start();
    let peer = scene.api.peer(STOREFRONT);
    // X25519 alone is not approved: `approved.rs`.
    let other = if cfg!(feature = "fips") {
        aws_lc_rs::kx_group::SECP384R1
    } else {
        aws_lc_rs::kx_group::X25519
    };
    for group in [other, aws_lc_rs::kx_group::SECP256R1] {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![group];
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting::default()))
            .with_client_auth_cert(peer.chain.clone(), peer.key_der())
            .unwrap();
        let mut client = try_connect(scene.tls, config).unwrap();
        exchange(&mut client, &mut scene.app.accept(), "hello");
    }
}

/// The records that come back until the end, which need not be clean.
fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.take(1 << 16).read_to_end(&mut bytes);
    bytes
}

/// A ClientHello of a client that knows TLS 1.2 and nothing later.
fn tls12_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions: &[&[u8]] = &[
        // supported_groups: secp256r1; signature_algorithms: ecdsa_secp256r1_sha256; ec_point_formats: uncompressed.
        &[0, 10, 0, 4, 0, 2, 0, 23],
        &[0, 13, 0, 4, 0, 2, 4, 3],
        &[0, 11, 0, 2, 1, 0],
    ];
    let extensions = extensions.concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![22, 3, 1];
    hello.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    hello.extend(body);
    hello
}

#[test]
fn a_client_of_tls_1_2_is_told_the_version_is_wrong() {
    let scene = InboundSetup::default().start();
    let mut client = plain::connect(scene.tls);
    client.write_all(&tls12_hello()).unwrap();
    let told = answer(&mut client);
    // A fatal alert in the clear: protocol_version.
    assert_eq!(&told[..], &[21, 3, 3, 0, 2, 2, 70], "{told:?}");
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "no_common_parameters")]);
    assert_eq!(record["result"], "refused");
}

#[test]
fn what_is_no_tls_is_recorded_as_such() {
    let scene = InboundSetup::default().start();
    for first in [
        &b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"[..],
        &[0; 200],
        &[0xff; 5],
        b"\x16\x05\x05",
    ] {
        let mark = scene.sidecar.mark();
        let mut client = plain::connect(scene.tls);
        client.write_all(first).unwrap();
        // Whatever it is told, it is over at once.
        answer(&mut client);
        let record = scene.sidecar.wait_record(mark, &[("reason", "not_tls")]);
        assert_eq!(record["result"], "refused", "{record}");
    }
    assert_eq!(scene.app.accepted(), 0);
}

#[test]
fn a_broken_hello_is_a_protocol_error_with_an_alert() {
    let scene = InboundSetup::default().start();
    for record in [
        &[22, 3, 1, 0, 4, 1, 0, 0, 0][..],
        &[22, 3, 1, 0, 5, 2, 0, 0, 1, 0][..],
    ] {
        let mark = scene.sidecar.mark();
        let mut client = plain::connect(scene.tls);
        client.write_all(record).unwrap();
        let told = answer(&mut client);
        assert_eq!(&told[..6], &[21, 3, 3, 0, 2, 2], "no fatal alert: {told:?}");
        scene.sidecar.wait_record(mark, &[("reason", "protocol_error")]);
    }
}

#[test]
fn a_silent_client_runs_into_the_handshake_timeout_and_holds_up_nobody() {
    let scene = InboundSetup {
        settings: "limits: { handshake_timeout: 5s }\nworkers: 1\n",
        ..InboundSetup::default()
    }
    .start();
    let begun = Instant::now();
    let mut silent: Vec<_> = (0..50).map(|_| plain::connect(scene.tls)).collect();
    // Half of them begin a record that they never end.
    for client in silent.iter_mut().step_by(2) {
        client.write_all(&[22, 3, 1, 1]).unwrap();
    }
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    let timeouts = || {
        let records = scene.sidecar.records_since(Mark::default());
        records
            .iter()
            .filter(|r| r["reason"] == "handshake_timeout")
            .count()
    };
    assert_eq!(timeouts(), 0, "it had to wait");
    for mut client in silent {
        answer(&mut client);
    }
    assert!(
        begun.elapsed() >= Duration::from_secs(5),
        "cut off before its time"
    );
    eventually("fifty records", SOON, || {
        let records = scene.sidecar.records_since(Mark::default());
        let timeouts = records.iter().filter(|r| r["reason"] == "handshake_timeout");
        (timeouts.count() == 50).then_some(())
    });
    // Neither was it cut off with them.
    exchange(&mut client, &mut app, "still here");
}

#[test]
fn a_client_that_leaves_is_recorded_as_gone() {
    let scene = InboundSetup::default().start();
    drop(plain::connect(scene.tls));
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "handshake_aborted")]);
    assert_eq!(record["result"], "failed");
}

#[test]
fn a_refused_client_that_floods_still_reads_why() {
    let scene = InboundSetup::default().start();
    // Both kinds of refusal: in the handshake, and after it by policy.
    for (identity, alert) in [
        (
            Identity::of(&authority("example.org"), STOREFRONT),
            AlertDescription::UnknownCA,
        ),
        (
            scene.api.peer("spiffe://example.org/reports"),
            AlertDescription::AccessDenied,
        ),
    ] {
        let mut client = connect(scene.tls, &identity);
        // It talks on before it listens, 1 MiB of it: unread bytes would turn the sidecar's close into a reset, which
        // takes the alert with it. What it cannot send any more is no matter.
        let chunk = vec![b'x'; 1 << 14];
        for _ in 0..64 {
            let written = client.conn.writer().write_all(&chunk);
            let (conn, sock) = (&mut client.conn, &mut client.sock);
            if written.is_err() || conn.write_tls(sock).is_err() {
                break;
            }
        }
        let error = plain::read_error(&mut client);
        assert_eq!(alert_of(&error), Some(alert), "{error}");
    }
    assert_eq!(scene.app.accepted(), 0);
}

#[test]
fn a_peer_of_another_trust_domain_comes_in_once_it_is_federated_and_named() {
    let scene = InboundSetup {
        policy: Some(
            "rules:\n  - name: partner\n    action: allow\n    from: [\"spiffe://partner.example/**\"]\n",
        ),
        listener: TRUST_PARTNER,
        ..InboundSetup::default()
    }
    .start();
    let partner = authority("partner.example");
    let peer = Identity::of(&partner, "spiffe://partner.example/shop");
    expect_refusal(scene.tls, client_config(Some(&peer)), AlertDescription::UnknownCA);
    scene
        .api
        .handle()
        .federate(partner.trust_domain(), Some(partner.root().to_vec()))
        .unwrap();
    eventually("the partner's bundle", SOON, || {
        let identity = scene.sidecar.get("/api/v1/identity").ok()?.body;
        identity.contains("partner.example").then_some(())
    });
    let mut client = connect(scene.tls, &peer);
    exchange(&mut client, &mut scene.app.accept(), "hello");
    // Its bundle says nothing about our own trust domain.
    let forged = Identity::of(&partner, STOREFRONT);
    let mut client = connect(scene.tls, &forged);
    expect_alert(&mut client, AlertDescription::UnknownCA);
}
