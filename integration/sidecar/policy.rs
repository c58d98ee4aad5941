//! What the policy file decides about peers that are who they say.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustls::AlertDescription;
use socket2::{Domain, Socket, Type};

use crate::peers::{Client, accept, client_config, connect, expect_alert, handshake_client};
use crate::plain::{self, Door, connect_unix, exchange, unix_door};
use crate::support::SOON;
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::sidecar::Setup;
use crate::world::{Api, Identity, InboundSetup, ORDERS, REPORTS, STOREFRONT};

#[test]
fn a_peer_that_no_rule_names_is_denied_and_the_application_hears_nothing_of_it() {
    let scene = InboundSetup::default().start();
    let mut client = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "no_allow_rule")]);
    assert_eq!(record["result"], "denied", "{record}");
    assert_eq!(record["verdict"], "deny", "{record}");
    assert_eq!(record["peer_id"], REPORTS, "{record}");
    assert_eq!(record["own_id"], ORDERS, "{record}");
    assert_eq!(record["policy_generation"], 1, "{record}");
    assert!(record["upstream"].is_null(), "{record}");

    // A permitted connection afterwards is the first that the application sees.
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
    assert_eq!(scene.app.accepted(), 1);
}

#[test]
fn a_deny_rule_wins_over_every_allow_rule() {
    let scene = InboundSetup {
        policy: Some(
            "rules:\n  - name: everybody\n    action: allow\n  - name: not-reports\n    action: deny\n    \
             from: [\"spiffe://example.org/reports\"]\n",
        ),
        ..InboundSetup::default()
    }
    .start();
    let mut client = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "deny_rule")]);
    assert_eq!(record["rule"], "not-reports", "{record}");

    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
    client.conn.send_close_notify();
    client.conn.write_tls(&mut client.sock).unwrap();
    drop(client);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("verdict", "allow")]);
    assert_eq!(record["rule"], "everybody", "{record}");
    assert_eq!(scene.app.accepted(), 1);
}

#[test]
fn in_audit_mode_policy_reports_and_authentication_still_refuses() {
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
    drop(client);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("peer_id", REPORTS)]);
    assert_eq!(record["verdict"], "deny", "{record}");
    let decided = "svidecar_authorization_decisions_total{listener=\"orders\",rule=\"\",verdict=\"deny\"}";
    assert_eq!(scene.sidecar.metric(decided), Some(1.0));

    let stranger = Identity::of(&crate::world::authority("example.org"), REPORTS);
    let mut client = connect(scene.tls, &stranger);
    expect_alert(&mut client, AlertDescription::UnknownCA);
    assert_eq!(scene.app.accepted(), 1);
}

/// Connects from another address of loopback.
fn connect_from(source: Ipv4Addr, to: SocketAddr, identity: &Identity) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    handshake_client(stream, client_config(Some(identity)), "orders.example.org").unwrap()
}

#[test]
fn a_rule_can_ask_for_the_address_a_peer_comes_from() {
    let scene = InboundSetup {
        policy: Some(
            "rules:\n  - name: from-two\n    action: allow\n    source: [127.0.0.2/32]\n  - name: not-from-three\n    \
             action: deny\n    source: [127.0.0.3]\n  - name: reports\n    action: allow\n    \
             from: [\"spiffe://example.org/reports\"]\n",
        ),
        ..InboundSetup::default()
    }
    .start();
    let (storefront, reports) = (scene.api.peer(STOREFRONT), scene.api.peer(REPORTS));
    let mut client = connect_from(Ipv4Addr::new(127, 0, 0, 2), scene.tls, &storefront);
    exchange(&mut client, &mut scene.app.accept(), "hello");
    let mut client = connect_from(Ipv4Addr::new(127, 0, 0, 4), scene.tls, &storefront);
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let mut client = connect_from(Ipv4Addr::new(127, 0, 0, 3), scene.tls, &reports);
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "deny_rule")]);
    assert_eq!(record["rule"], "not-from-three", "{record}");
    assert!(
        record["peer_addr"].as_str().unwrap().starts_with("127.0.0.3:"),
        "{record}"
    );
    assert_eq!(scene.app.accepted(), 1);
}

#[test]
fn a_rule_holds_for_the_listeners_that_it_names() {
    let (billing_tls, billing) = (free_address(), Door::open());
    let settings = format!(
        "  - name: billing\n    listen: {billing_tls}\n    upstream: {}\n",
        billing.addr()
    );
    let scene = InboundSetup {
        policy: Some("rules:\n  - name: only-orders\n    action: allow\n    to: [orders]\n"),
        settings: &settings,
        ..InboundSetup::default()
    }
    .start();
    let peer = scene.api.peer(STOREFRONT);
    let mut client = connect(scene.tls, &peer);
    exchange(&mut client, &mut scene.app.accept(), "hello");
    let mut client = connect(billing_tls, &peer);
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "no_allow_rule")]);
    assert_eq!(record["listener"], "billing", "{record}");
    assert_eq!(billing.accepted(), 0);
}

#[test]
fn a_rule_that_expired_before_the_start_is_a_warning_and_admits_nobody() {
    let scene = InboundSetup {
        policy: Some("rules:\n  - name: old\n    action: allow\n    expires: 2020-01-01T00:00:00Z\n"),
        ..InboundSetup::default()
    }
    .start();
    scene
        .sidecar
        .wait_log("a warning about the rule", Mark::default(), |line| {
            line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.contains("old"))
        });
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    expect_alert(&mut client, AlertDescription::AccessDenied);
    assert_eq!(scene.app.accepted(), 0);
}

#[test]
fn applications_can_sit_on_unix_sockets_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (app_socket, client_socket) = (
        folder.path().join("app.sock"),
        folder.path().join("to-orders.sock"),
    );
    let app = unix_door(&app_socket);
    let listener = format!("    upstream: unix://{}\n", app_socket.display());
    let inbound = InboundSetup {
        listener: &listener,
        ..InboundSetup::default()
    }
    .start_with(Api::start(&[ORDERS, STOREFRONT]));
    let config = format!(
        "{}  svid: {STOREFRONT}\noutbound:\n  - name: to-orders\n    listen: unix://{}\n    peer: [\"{ORDERS}\"]\n    \
         connect: {}\n",
        inbound.api.identity(),
        client_socket.display(),
        inbound.tls
    );
    let outbound = Setup::new("storefront", config).start();
    outbound.wait_ready();
    let mut near = connect_unix(&client_socket);
    let mut far = app.recv_timeout(SOON).unwrap();
    exchange(&mut near, &mut far, "hello over unix sockets");
    near.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(plain::read_to_end(&mut far).is_empty());
    drop(far);
    assert!(plain::read_to_end(&mut near).is_empty());
    let record = outbound.wait_record(Mark::default(), &[("reason", "finished")]);
    assert_eq!(record["peer_addr"], "unix", "{record}");
    let record = inbound
        .sidecar
        .wait_record(Mark::default(), &[("reason", "finished")]);
    assert_eq!(record["bytes_up"], 23, "{record}");
    assert_eq!(record["bytes_down"], 23, "{record}");
}

#[test]
fn an_outbound_listener_needs_no_policy_file() {
    let scene = crate::world::OutboundSetup::default().start();
    let mut app = plain::connect(scene.plain);
    let mut server = accept(scene.peer.accept(), &scene.api.peer(ORDERS));
    exchange(&mut app, &mut server, "hello");
}
