//! A full house refuses at once, says so, and works again when there is room.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::peers::{Client, client_config, connect, try_connect};
use crate::plain::{self, exchange};
use crate::support::process::Mark;
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, eventually, eventually_ok};
use crate::world::{Inbound, InboundSetup, STOREFRONT};

fn open(scene: &Inbound) -> (Client, TcpStream) {
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    (client, app)
}

#[test]
fn beyond_max_connections_a_peer_is_refused_and_never_queued() {
    let scene = InboundSetup {
        settings: "limits: { max_connections: 3 }\n",
        ..InboundSetup::default()
    }
    .start();
    let mut held: Vec<_> = (0..3).map(|_| open(&scene)).collect();
    let peer = client_config(Some(&scene.api.peer(STOREFRONT)));
    for _ in 0..5 {
        let (begun, mark) = (Instant::now(), scene.sidecar.mark());
        let refused = try_connect(scene.tls, peer.clone());
        assert!(refused.is_err());
        // Less than the handshake's time, for which whoever is queued would wait.
        assert!(begun.elapsed() < Duration::from_secs(5), "it had to wait");
        let record = scene.sidecar.wait_record(mark, &[("reason", "max_connections")]);
        assert_eq!(record["result"], "refused", "{record}");
    }
    for (client, app) in &mut held {
        exchange(client, app, "still here");
    }
    let refused = "svidecar_connections_total{listener=\"orders\",direction=\"inbound\",result=\"refused\",reason=\"max_connections\"}";
    assert_eq!(scene.sidecar.metric(refused), Some(5.0));

    let mark = scene.sidecar.mark();
    held.pop();
    scene.sidecar.wait_record(mark, &[]);
    let peer = scene.api.peer(STOREFRONT);
    // The place is given back when the lingering close is over.
    let mut client = eventually_ok("a place that was given back", SOON, || {
        try_connect(scene.tls, client_config(Some(&peer)))
    });
    exchange(&mut client, &mut scene.app.accept(), "hello");
}

#[test]
fn beyond_max_handshakes_a_peer_is_refused_until_one_is_over() {
    let scene = InboundSetup {
        // One worker takes connections in the order in which they came.
        settings: "workers: 1\nlimits: { max_handshakes: 2 }\n",
        ..InboundSetup::default()
    }
    .start();
    // Connections beyond their handshake do not count.
    let mut held: Vec<_> = (0..4).map(|_| open(&scene)).collect();
    let silent: Vec<_> = (0..2).map(|_| plain::connect(scene.tls)).collect();
    let (mark, mut third) = (scene.sidecar.mark(), plain::connect(scene.tls));
    let mut byte = [0];
    let told = third.read(&mut byte);
    assert!(matches!(told, Ok(0) | Err(_)), "{told:?}");
    scene.sidecar.wait_record(mark, &[("reason", "max_handshakes")]);
    for (client, app) in &mut held {
        exchange(client, app, "still here");
    }
    drop(silent);
    eventually("two handshakes given up", SOON, || {
        let records = scene.sidecar.records_since(mark);
        let aborted = records.iter().filter(|r| r["reason"] == "handshake_aborted");
        (aborted.count() == 2).then_some(())
    });
    open(&scene);
}

/// The program with so few descriptors that they run out.
fn starved(folder: &TempDir, descriptors: u32) -> PathBuf {
    let script = folder.path().join("starved");
    fs::write(
        &script,
        format!("#!/bin/sh\nulimit -n {descriptors}\nexec {SVIDECAR} \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    script
}

#[test]
fn where_descriptors_are_few_the_cap_is_lowered_and_holds() {
    let folder = tempfile::tempdir().unwrap();
    let program = starved(&folder, 300);
    let scene = InboundSetup {
        program: Some(&program),
        ..InboundSetup::default()
    }
    .start();
    let lowered = scene
        .sidecar
        .wait_log("that the cap is lowered", Mark::default(), |line| {
            line["message"]
                .as_str()
                .is_some_and(|m| m.contains("max_connections is lowered"))
        });
    let cap = usize::try_from(lowered["max_connections"].as_u64().unwrap()).unwrap();
    assert!((5..60).contains(&cap), "{lowered}");
    // Each of them to its application, too.
    let mut held: Vec<_> = (0..cap).map(|_| open(&scene)).collect();
    let peer = scene.api.peer(STOREFRONT);
    assert!(try_connect(scene.tls, client_config(Some(&peer))).is_err());
    scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "max_connections")]);
    for (client, app) in &mut held {
        exchange(client, app, "still here");
    }
    scene.sidecar.wait_ready();
}

#[test]
fn accepting_survives_that_descriptors_run_out() {
    let scene = InboundSetup::default().start();
    let (mut client, mut app) = open(&scene);
    let mark = scene.sidecar.mark();
    // Somebody lowers the limit under its feet; a full file table of the whole machine looks the same.
    let pid = scene.sidecar.process().pid();
    let used = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let few = Rlimit {
        current: Some(used + 20),
        maximum: Some(used + 20),
    };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let crowd: Vec<_> = (0..80).map(|_| plain::connect(scene.tls)).collect();
    scene.sidecar.wait_log("that accepting fails", mark, |line| {
        line["message"]
            .as_str()
            .is_some_and(|m| m.starts_with("cannot accept connections"))
    });
    exchange(&mut client, &mut app, "still here");
    drop(crowd);
    let peer = scene.api.peer(STOREFRONT);
    let mut late = eventually_ok("room again", SOON, || {
        try_connect(scene.tls, client_config(Some(&peer)))
    });
    exchange(&mut late, &mut scene.app.accept(), "hello");
    exchange(&mut client, &mut app, "still here");
    scene.sidecar.wait_ready();
    // Said once for a shortage, not once for each attempt.
    let said = scene.sidecar.process().lines_since(mark, |line| {
        line.contains("cannot accept connections").then_some(())
    });
    assert!(said.len() <= 8, "said {} times", said.len());
}

#[test]
fn many_slow_handshakes_hold_up_no_good_one() {
    let scene = InboundSetup {
        settings: "workers: 1\n",
        ..InboundSetup::default()
    }
    .start();
    let slow: Vec<_> = (0..300).map(|_| plain::connect(scene.tls)).collect();
    for _ in 0..5 {
        let begun = Instant::now();
        open(&scene);
        // Half of what the slow ones are given.
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "it took {:?}",
            begun.elapsed()
        );
    }
    drop(slow);
}
