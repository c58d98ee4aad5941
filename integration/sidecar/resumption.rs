//! Sessions are resumed where that admits nobody whom a full handshake would not: each resumed connection is verified
//! and authorized anew, and tickets go with the SVID and the bundles they were given under.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, ClientConfig, HandshakeKind, ServerConfig};

use crate::peers::{
    Client, Server, client_config, expect_alert, expect_refusal, server_config, try_accept, try_connect,
};
use crate::plain::{Door, connect, exchange, read_to_end};
use crate::support::process::Mark;
use crate::support::sidecar::Sidecar;
use crate::support::{SOON, eventually};
use crate::world::{Identity, Inbound, InboundSetup, ORDERS, OutboundSetup, Pair, STOREFRONT, authority};

const REPORTS_ONLY: &str =
    "rules:\n  - name: reports\n    action: allow\n    from: [\"spiffe://example.org/reports\"]\n";

/// A stock client that keeps its tickets.
fn storefront(scene: &Inbound) -> ClientConfig {
    client_config(Some(&scene.api.peer(STOREFRONT)))
}

/// Connects, exchanges a word, which brings the ticket, and ends in order.
fn visit(scene: &Inbound, config: &ClientConfig) -> HandshakeKind {
    let mark = scene.sidecar.mark();
    let mut client: Client = try_connect(scene.tls, config.clone()).unwrap();
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    client.conn.send_close_notify();
    client.flush().unwrap();
    read_to_end(&mut app);
    drop(app);
    read_to_end(&mut client);
    let kind = client.conn.handshake_kind().unwrap();
    let record = scene.sidecar.wait_record(mark, &[("reason", "finished")]);
    assert_eq!(record["resumed"], kind == HandshakeKind::Resumed, "{record}");
    assert_eq!(record["peer_id"], STOREFRONT, "{record}");
    assert_eq!(record["verdict"], "allow", "{record}");
    kind
}

fn counted(sidecar: &Sidecar, listener: &str, direction: &str, kind: &str) -> f64 {
    let sample = format!(
        "svidecar_handshakes_total{{listener=\"{listener}\",direction=\"{direction}\",kind=\"{kind}\"}}"
    );
    sidecar.metric(&sample).unwrap()
}

#[test]
fn a_client_that_comes_again_is_resumed() {
    let scene = InboundSetup::default().start();
    let config = storefront(&scene);
    assert_eq!(visit(&scene, &config), HandshakeKind::Full);
    for _ in 0..3 {
        assert_eq!(visit(&scene, &config), HandshakeKind::Resumed);
    }
    assert_eq!(counted(&scene.sidecar, "orders", "inbound", "full"), 1.0);
    assert_eq!(counted(&scene.sidecar, "orders", "inbound", "resumed"), 3.0);
}

#[test]
fn a_resumed_connection_is_authorized_by_the_policy_of_now() {
    let scene = InboundSetup::default().start();
    let config = storefront(&scene);
    visit(&scene, &config);
    assert_eq!(visit(&scene, &config), HandshakeKind::Resumed);
    scene.sidecar.set_policy(REPORTS_ONLY);
    eventually("the second policy", SOON, || {
        (scene.sidecar.metric("svidecar_policy_generation") == Some(2.0)).then_some(())
    });
    let mark = scene.sidecar.mark();
    let accepted = scene.app.accepted();
    let mut client = try_connect(scene.tls, config).unwrap();
    assert_eq!(client.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    // It may be refused already.
    let _ = client.write_all(b"hello");
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let record = scene.sidecar.wait_record(mark, &[("reason", "no_allow_rule")]);
    assert_eq!(record["resumed"], true, "{record}");
    assert_eq!(record["peer_id"], STOREFRONT, "{record}");
    assert_eq!(scene.app.accepted(), accepted, "the application was connected to");
}

#[test]
fn no_session_outlives_our_svid() {
    let scene = InboundSetup::default().start();
    let config = storefront(&scene);
    visit(&scene, &config);
    let serial = scene.sidecar.serial().unwrap();
    scene.api.handle().rotate().unwrap();
    scene.sidecar.wait_rotation(&serial, SOON);
    assert_eq!(visit(&scene, &config), HandshakeKind::Full);
    assert_eq!(visit(&scene, &config), HandshakeKind::Resumed);
}

#[test]
fn no_session_outlives_the_bundles() {
    let scene = InboundSetup::default().start();
    let config = storefront(&scene);
    visit(&scene, &config);
    // One authority more: who was let in still is, by a full handshake.
    let serial = scene.sidecar.serial().unwrap();
    let handle = scene.api.handle();
    handle.set_authority(authority("example.org"), true).unwrap();
    let serial = scene.sidecar.wait_rotation(&serial, SOON);
    assert_eq!(visit(&scene, &config), HandshakeKind::Full);
    // The one that vouched for it is gone.
    handle.set_authority(authority("example.org"), false).unwrap();
    scene.sidecar.wait_rotation(&serial, SOON);
    let mark = scene.sidecar.mark();
    expect_refusal(scene.tls, config, AlertDescription::UnknownCA);
    let record = scene.sidecar.wait_record(mark, &[("reason", "untrusted_chain")]);
    assert!(record["resumed"].is_null(), "{record}");
}

#[test]
fn no_session_outlives_the_chain_it_was_made_with() {
    let scene = InboundSetup::default().start();
    let end = SystemTime::now() + Duration::from_secs(4);
    let identity = Identity::until(&scene.api.authority(), STOREFRONT, end);
    let config = client_config(Some(&identity));
    visit(&scene, &config);
    assert_eq!(visit(&scene, &config), HandshakeKind::Resumed);
    // A certificate ends with a whole second.
    eventually("the end of the chain", SOON, || {
        (SystemTime::now() > end + Duration::from_millis(1100)).then_some(())
    });
    let mark = scene.sidecar.mark();
    expect_refusal(scene.tls, config, AlertDescription::CertificateExpired);
    let record = scene
        .sidecar
        .wait_record(mark, &[("reason", "certificate_expired")]);
    assert_ne!(record["resumed"], true, "{record}");
}

#[test]
fn switched_off_there_are_no_tickets() {
    let scene = InboundSetup {
        settings: "tls: { resumption: false }\n",
        ..InboundSetup::default()
    }
    .start();
    let config = storefront(&scene);
    for _ in 0..3 {
        assert_eq!(visit(&scene, &config), HandshakeKind::Full);
    }
    let mut client = try_connect(scene.tls, config).unwrap();
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    assert_eq!(client.conn.tls13_tickets_received(), 0);
    assert_eq!(counted(&scene.sidecar, "orders", "inbound", "resumed"), 0.0);
}

/// The application calls a stock server through its sidecar, and both end in order.
fn call(plain: SocketAddr, peer: &Door, config: &ServerConfig) -> Server {
    let mut app = connect(plain);
    // What the application says first goes with the sidecar's last flight.
    app.write_all(b"early ").unwrap();
    let mut server = try_accept(peer.accept(), config.clone()).unwrap();
    let mut early = [0; 6];
    std::io::Read::read_exact(&mut server, &mut early).unwrap();
    exchange(&mut app, &mut server, "hello");
    server
}

#[test]
fn our_client_resumes_until_its_svid_is_another() {
    let scene = OutboundSetup::default().start();
    let config = server_config(&scene.api.peer(ORDERS));
    let kinds: Vec<_> = (0..3)
        .map(|_| {
            call(scene.plain, &scene.peer, &config)
                .conn
                .handshake_kind()
                .unwrap()
        })
        .collect();
    assert_eq!(
        kinds,
        [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed
        ]
    );
    assert_eq!(counted(&scene.sidecar, "to-orders", "outbound", "resumed"), 2.0);
    let serial = scene.sidecar.serial().unwrap();
    let before = call(scene.plain, &scene.peer, &config);
    scene.api.handle().rotate().unwrap();
    scene.sidecar.wait_rotation(&serial, SOON);
    let after = call(scene.plain, &scene.peer, &config);
    assert_eq!(after.conn.handshake_kind(), Some(HandshakeKind::Full));
    assert_ne!(before.conn.peer_certificates(), after.conn.peer_certificates());
}

#[test]
fn switched_off_the_tickets_of_a_server_are_not_used() {
    let scene = OutboundSetup {
        settings: "tls: { resumption: false }\n",
        ..OutboundSetup::default()
    }
    .start();
    let config = server_config(&scene.api.peer(ORDERS));
    for _ in 0..3 {
        let server = call(scene.plain, &scene.peer, &config);
        assert_eq!(server.conn.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_server_that_speaks_first_is_not_kept_waiting() {
    let scene = OutboundSetup::default().start();
    let config = server_config(&scene.api.peer(ORDERS));
    for _ in 0..2 {
        let mut app = connect(scene.plain);
        let mut server = try_accept(scene.peer.accept(), config.clone()).unwrap();
        exchange(&mut server, &mut app, "welcome");
    }
}

#[test]
fn two_sidecars_hardly_ever_shake_hands_in_full() {
    const AT_ONCE: usize = 8;
    const EACH: usize = 20;
    let Pair {
        inbound:
            Inbound {
                api: _api,
                app,
                sidecar,
                ..
            },
        outbound,
        plain,
    } = Pair::start();
    let answering = thread::spawn(move || {
        for _ in 0..AT_ONCE * EACH {
            let mut stream = app.accept();
            thread::spawn(move || {
                let mut word = [0; 5];
                while std::io::Read::read_exact(&mut stream, &mut word).is_ok() {
                    let _ = stream.write_all(&word.map(|b| b.to_ascii_uppercase()));
                }
            });
        }
    });
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..EACH {
                    let mut stream = connect(plain);
                    stream.write_all(b"hello").unwrap();
                    let mut word = [0; 5];
                    std::io::Read::read_exact(&mut stream, &mut word).unwrap();
                    assert_eq!(&word, b"HELLO");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    answering.join().unwrap();
    let resumed = counted(&outbound, "to-orders", "outbound", "resumed");
    let full = counted(&outbound, "to-orders", "outbound", "full");
    assert_eq!(resumed + full, (AT_ONCE * EACH) as f64);
    // Those that begin while no ticket has come back yet; at most as many as there are at once, and some to spare.
    assert!(full <= 2.0 * AT_ONCE as f64, "{full} full, {resumed} resumed");
    assert_eq!(counted(&sidecar, "orders", "inbound", "resumed"), resumed);
    let records = outbound.records_since(Mark::default());
    assert!(records.iter().all(|record| record["own_id"] == STOREFRONT));
}
