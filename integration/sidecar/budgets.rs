//! Budgets of an identity, and how many handshakes may be in flight from one address.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use serde_json::Value;

use crate::peers::{Client, connect, expect_alert};
use crate::plain::{self, exchange, expect_reset};
use crate::support::process::Mark;
use crate::support::{SOON, eventually, eventually_ok};
use crate::world::{Inbound, InboundSetup, REPORTS, STOREFRONT};

fn policy(budget: &str) -> String {
    format!(
        "rules:\n  - name: everybody\n    action: allow\nbudgets:\n  - name: shared\n    description: ask the platform team\n    \
         from: [\"spiffe://example.org/**\"]\n    {budget}\n"
    )
}

fn scene(budget: &str) -> Inbound {
    InboundSetup {
        policy: Some(&policy(budget)),
        ..InboundSetup::default()
    }
    .start()
}

fn open(scene: &Inbound, id: &str) -> (Client, TcpStream) {
    let mut client = connect(scene.tls, &scene.api.peer(id));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    (client, app)
}

/// Refused by the budget, which is what the record says; the application hears nothing of it.
fn expect_over(scene: &Inbound, id: &str) -> Value {
    let (mark, before) = (scene.sidecar.mark(), scene.app.accepted());
    let mut client = connect(scene.tls, &scene.api.peer(id));
    expect_alert(&mut client, AlertDescription::AccessDenied);
    let record = scene.sidecar.wait_record(mark, &[("reason", "over_budget")]);
    assert_eq!(record["peer_id"], id, "{record}");
    assert_eq!(record["verdict"], "deny", "{record}");
    assert_eq!(record["result"], "denied", "{record}");
    assert_eq!(record["enforced"], true, "{record}");
    assert_eq!(
        (&record["rule"], &record["budget"]),
        (&"shared".into(), &"shared".into()),
        "{record}"
    );
    assert_eq!(record["description"], "ask the platform team", "{record}");
    assert_eq!(scene.app.accepted(), before);
    record
}

#[test]
fn so_many_connections_at_once_for_each_identity() {
    let scene = scene("connections: 2");
    let mut held: Vec<_> = (0..2).map(|_| open(&scene, STOREFRONT)).collect();
    let record = expect_over(&scene, STOREFRONT);
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains("2 connections of `spiffe://example.org/storefront` are open, and 2 is the most"),
        "{detail}"
    );
    // Another identity has a budget of its own; those that are open stay.
    let _other = open(&scene, REPORTS);
    for (client, app) in &mut held {
        exchange(client, app, "still here");
    }
    let counted =
        "svidecar_authorization_decisions_total{listener=\"orders\",rule=\"shared\",verdict=\"deny\"}";
    assert_eq!(scene.sidecar.metric(counted), Some(1.0));
    let mark = scene.sidecar.mark();
    drop(held.pop());
    scene.sidecar.wait_record(mark, &[("peer_id", STOREFRONT)]);
    held.push(open(&scene, STOREFRONT));
    expect_over(&scene, STOREFRONT);
}

#[test]
fn a_connection_that_fails_before_it_is_open_gives_its_place_back() {
    let scene = InboundSetup {
        policy: Some(&policy("connections: 1")),
        listener: "    upstream: 127.0.0.1:1\n",
        ..InboundSetup::default()
    }
    .start();
    for _ in 0..3 {
        let mark = scene.sidecar.mark();
        let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
        expect_alert(&mut client, AlertDescription::InternalError);
        scene.sidecar.wait_record(mark, &[("reason", "connect_failed")]);
    }
}

#[test]
fn so_many_new_connections_over_time() {
    let scene = scene("connections_per_second: 1\n    burst: 3");
    let begun = Instant::now();
    for _ in 0..3 {
        open(&scene, STOREFRONT);
    }
    if begun.elapsed() < Duration::from_millis(300) {
        let record = expect_over(&scene, STOREFRONT);
        let detail = record["detail"].as_str().unwrap();
        assert!(
            detail.contains("more than 1 new connections a second"),
            "{detail}"
        );
    }
    let peer = scene.api.peer(STOREFRONT);
    eventually("another one when time has passed", SOON, || {
        let mut client = connect(scene.tls, &peer);
        client.write_all(b"hello").ok()?;
        let before = Instant::now();
        while before.elapsed() < Duration::from_millis(300) {
            if scene.app.accepted() > 3 {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    });
}

#[test]
fn in_audit_mode_a_budget_is_only_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, policy("connections: 1")).unwrap();
    let settings = format!("policy: {{ path: {}, mode: audit }}\n", path.display());
    let scene = InboundSetup {
        policy: None,
        settings: &settings,
        ..InboundSetup::default()
    }
    .start();
    let _first = open(&scene, STOREFRONT);
    let mark = scene.sidecar.mark();
    drop(open(&scene, STOREFRONT));
    let record = scene.sidecar.wait_record(mark, &[("budget", "shared")]);
    assert_eq!(record["verdict"], "deny", "{record}");
    assert_eq!(record["enforced"], false, "{record}");
}

#[test]
fn a_new_policy_keeps_the_counts_and_brings_new_limits() {
    let scene = scene("connections: 3");
    let generation = || scene.sidecar.metric("svidecar_policy_generation");
    let set = |budget: &str| {
        let before = generation();
        scene.sidecar.set_policy(&policy(budget));
        eventually("a new policy", SOON, || (generation() > before).then_some(()));
    };
    let mut held: Vec<_> = (0..3).map(|_| open(&scene, STOREFRONT)).collect();
    set("connections: 1");
    // More are open than may be: none is closed for it, and none comes.
    let record = expect_over(&scene, STOREFRONT);
    assert!(
        record["detail"].as_str().unwrap().contains("3 connections"),
        "{record}"
    );
    for (client, app) in &mut held {
        exchange(client, app, "still here");
    }
    set("connections: 4");
    let _fourth = open(&scene, STOREFRONT);
    expect_over(&scene, STOREFRONT);
}

/// Pushes so much through, and says how long it took.
fn push(from: &mut (impl Write + Send), to: &mut (impl Read + Send), bytes: usize) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = [7; 16 << 10];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(chunk.len());
                from.write_all(&chunk[..now]).unwrap();
                left -= now;
            }
            from.flush().unwrap();
        });
        let mut sink = vec![0; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let most = left.min(sink.len());
            left -= to.read(&mut sink[..most]).unwrap();
        }
    });
    begun.elapsed()
}

#[test]
fn bytes_are_held_back_both_ways_and_nothing_is_closed() {
    let scene = scene("bytes_per_second: 1MiB");
    let (mut client, mut app) = open(&scene, STOREFRONT);
    // Another identity is not held back by it.
    let (mut other, mut other_app) = open(&scene, REPORTS);
    // A second's worth at once, and two seconds for the rest.
    let took = push(&mut client, &mut app, 3 << 20);
    assert!(took > Duration::from_millis(1900), "{took:?}");
    assert!(took < SOON / 2, "{took:?}");
    let took = push(&mut app, &mut client, 1 << 20);
    assert!(
        took > Duration::from_millis(500),
        "down has no rate of its own: {took:?}"
    );
    // A second for what is beyond its own first one; two if it shared what is used up.
    let took = push(&mut other, &mut other_app, 2 << 20);
    assert!(took < Duration::from_millis(1900), "{took:?}");
    exchange(&mut client, &mut app, "still here");
}

#[test]
fn connections_of_one_identity_share_its_rate_and_a_new_limit_holds_for_them() {
    let scene = scene("bytes_per_second: 1MiB");
    let mut both = [open(&scene, STOREFRONT), open(&scene, STOREFRONT)];
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (client, app) in &mut both {
            scope.spawn(move || push(client, app, 2 << 20));
        }
    });
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(2900),
        "four MiB, one at once: {took:?}"
    );

    scene.sidecar.set_policy(&policy("bytes_per_second: 100MiB"));
    let [(client, app), _] = &mut both;
    eventually("that the new limit holds", SOON, || {
        (push(client, app, 1 << 20) < Duration::from_millis(300)).then_some(())
    });
}

#[test]
fn handshakes_in_flight_are_limited_by_source() {
    let scene = InboundSetup {
        settings: "workers: 1\nlimits: { max_handshakes_per_source: 2 }\n",
        ..InboundSetup::default()
    }
    .start();
    let silent: Vec<_> = (0..2).map(|_| plain::connect(scene.tls)).collect();
    let (begun, mark, mut third) = (Instant::now(), scene.sidecar.mark(), plain::connect(scene.tls));
    expect_reset(&mut third);
    assert!(begun.elapsed() < Duration::from_secs(2), "it had to wait");
    let record = scene
        .sidecar
        .wait_record(mark, &[("reason", "max_handshakes_per_source")]);
    assert_eq!(record["result"], "refused", "{record}");
    assert!(
        record["detail"]
            .as_str()
            .unwrap()
            .contains("2 handshakes from 127.0.0.1"),
        "{record}"
    );
    // Somebody else can come, and so can this one when those are over; who is through does not count.
    let stream = crate::proxy_protocol::call(Ipv4Addr::new(127, 0, 0, 7), scene.tls);
    let mut client = crate::proxy_protocol::shake(stream, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
    drop(silent);
    let peer = scene.api.peer(STOREFRONT);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(eventually_ok("a place that was given back", SOON, || {
            crate::peers::try_connect(scene.tls, crate::peers::client_config(Some(&peer)))
        }));
        scene.app.accept();
    }
}

#[test]
fn behind_a_load_balancer_its_callers_are_counted() {
    let scene = InboundSetup {
        listener: "    accept_proxy_from: [127.0.0.2]\n",
        settings: "workers: 1\nlimits: { max_handshakes_per_source: 1 }\n",
        ..InboundSetup::default()
    }
    .start();
    let call = |header: &[u8]| {
        let mut stream = crate::proxy_protocol::call(Ipv4Addr::new(127, 0, 0, 2), scene.tls);
        stream.write_all(header).unwrap();
        stream
    };
    // The load balancer itself may have many.
    let _waiting: Vec<_> = (0..5).map(|_| call(b"PROXY ")).collect();
    let _first = call(b"PROXY TCP4 203.0.113.7 198.51.100.1 1 443\r\n");
    let _other = call(b"PROXY TCP4 203.0.113.8 198.51.100.1 1 443\r\n");
    let mut second = call(b"PROXY TCP4 203.0.113.7 198.51.100.1 2 443\r\n");
    expect_reset(&mut second);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "max_handshakes_per_source")]);
    assert_eq!(record["source"], "203.0.113.7", "{record}");
}
