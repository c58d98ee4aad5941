//! Connections, old and new, while one process takes another's place.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use rustls::AlertDescription;

use crate::peers::{connect, expect_alert};
use crate::plain::{exchange, expect_reset, read_to_end};
use crate::scene::{SUPERVISE, Supervised, inbound, upgrade};
use crate::support::application::{Echo, ask_once};
use crate::support::http::{Endpoint, get};
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::sidecar::{SVIDECAR, Setup};
use crate::support::{SOON, eventually};
use crate::world::{Api, ORDERS, STOREFRONT, STOREFRONT_ONLY};

const CONNECTIONS: usize = 10_000;
const UPGRADES: usize = 10;
const CLIENTS: usize = 8;

#[test]
fn ten_upgrades_in_a_row_lose_none_of_ten_thousand_connections() {
    let api = Api::start(&[ORDERS, STOREFRONT]);
    let (tls, plain, echo) = (free_address(), free_address(), Echo::start());
    let orders = Setup::new("orders", inbound(&api, tls, echo.addr(), ""))
        .policy(STOREFRONT_ONLY)
        .arguments(SUPERVISE)
        .start();
    let config = format!(
        "{}  svid: {STOREFRONT}\noutbound:\n  - name: to-orders\n    listen: {plain}\n    peer: [\"{ORDERS}\"]\n    \
         connect: {tls}\n",
        api.identity()
    );
    let storefront = Setup::new("storefront", config).arguments(SUPERVISE).start();
    orders.wait_ready();
    storefront.wait_ready();
    let (opened, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    loop {
                        let number = opened.fetch_add(1, Ordering::SeqCst);
                        if number >= CONNECTIONS {
                            return failures;
                        }
                        if let Err(error) = ask_once(plain, &format!("connection {number}")) {
                            failures.push(format!("connection {number}: {error}"));
                        }
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for number in 0..UPGRADES {
            // Spread over the first half: starts take their time, and there must be connections to the end.
            let share = number * CONNECTIONS / 2 / UPGRADES;
            eventually("connections are made", 10 * SOON, || {
                (done.load(Ordering::SeqCst) >= share).then_some(())
            });
            for sidecar in [&orders, &storefront] {
                let outcome = upgrade(sidecar);
                assert!(outcome.contains("in charge"), "{outcome}");
            }
        }
        assert!(
            done.load(Ordering::SeqCst) < CONNECTIONS,
            "the upgrades came after the connections"
        );
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    assert!(
        failures.is_empty(),
        "{} failed, such as {:?}",
        failures.len(),
        failures.iter().take(5).collect::<Vec<_>>()
    );
    assert_eq!(echo.accepted(), CONNECTIONS);
}

#[test]
fn a_connection_stays_with_its_process_and_new_ones_go_to_the_new() {
    let scene = Supervised::start("");
    let peer = scene.api.peer(STOREFRONT);
    let before = scene.child();
    let mut old = connect(scene.tls, &peer);
    let mut old_app = scene.app.accept();
    exchange(&mut old, &mut old_app, "before");
    assert!(
        scene
            .upgrade()
            .contains("child 2 is ready and in charge; child 1 drains")
    );
    assert_eq!(scene.children().len(), 2);
    // The old one may take what comes before it has heard; then nothing more. The admin endpoint is the new one's.
    let (mut new, mut new_app) = eventually("the new one takes a connection", SOON, || {
        let mut new = connect(scene.tls, &peer);
        let mut new_app = scene.app.accept();
        exchange(&mut new, &mut new_app, "after");
        let shown = scene.sidecar.get("/api/v1/connections").ok()?.json();
        (shown["total"] == 1).then_some((new, new_app))
    });
    exchange(&mut old, &mut old_app, "still here");
    old.conn.send_close_notify();
    old.flush().unwrap();
    assert!(read_to_end(&mut old_app).is_empty());
    drop(old_app);
    assert!(read_to_end(&mut old).is_empty());
    scene
        .sidecar
        .wait_words(Mark::default(), "child 1 has ended; 0 connections were cut");
    let after = scene.child();
    assert_ne!(before, after);
    exchange(&mut new, &mut new_app, "and on");
}

#[test]
fn an_old_connection_that_does_not_end_is_cut_when_the_drain_is_over() {
    let scene = Supervised::start("limits: { drain_timeout: 1s }\n");
    let peer = scene.api.peer(STOREFRONT);
    let mut old = connect(scene.tls, &peer);
    let mut old_app = scene.app.accept();
    exchange(&mut old, &mut old_app, "before");
    scene.upgrade();
    expect_alert(&mut old, AlertDescription::InternalError);
    expect_reset(&mut old_app);
    drop(old);
    scene
        .sidecar
        .wait_words(Mark::default(), "child 1 has ended; 1 connections were cut");
    scene.sidecar.wait_record(
        Mark::default(),
        &[("reason", "drain_timeout"), ("peer_id", STOREFRONT)],
    );
}

#[test]
fn a_listener_that_the_new_config_adds_is_there_after_the_upgrade_and_one_it_drops_is_not() {
    let scene = Supervised::start("");
    let (first, second) = (scene.tls, free_address());
    let text = std::fs::read_to_string(scene.config()).unwrap();
    std::fs::write(
        scene.config(),
        text.replace(&first.to_string(), &second.to_string()),
    )
    .unwrap();
    assert!(scene.upgrade().contains("in charge"));
    let mut new = connect(second, &scene.api.peer(STOREFRONT));
    exchange(&mut new, &mut scene.app.accept(), "hello");
    eventually("the other port is given up", SOON, || {
        std::net::TcpStream::connect(first)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            .then_some(())
    });
}

#[test]
fn unix_sockets_keep_their_files_through_upgrades_and_lose_them_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (admin, listener) = (folder.path().join("admin.sock"), folder.path().join("out.sock"));
    let settings = format!(
        "outbound:\n  - name: out\n    listen: unix://{}\n    connect: 127.0.0.1:1\n    peer: [\"{ORDERS}\"]\n\
         admin:\n  listen: unix://{}\n  probes: @admin\n",
        listener.display(),
        admin.display()
    );
    let mut scene = Supervised::start(&settings);
    let asked = || get(&Endpoint::Unix(admin.clone()), "/livez").is_ok_and(|response| response.status == 200);
    assert!(asked());
    for _ in 0..2 {
        scene.upgrade();
        assert!(asked() && listener.exists());
        scene.child();
        assert!(asked() && listener.exists());
    }
    assert_eq!(scene.sidecar.terminate(SOON).code(), Some(0));
    assert!(!admin.exists() && !listener.exists());
}

#[test]
fn termination_is_passed_on_and_waits_for_open_connections() {
    let mut scene = Supervised::start("");
    let peer = scene.api.peer(STOREFRONT);
    let mut old = connect(scene.tls, &peer);
    let mut old_app = scene.app.accept();
    exchange(&mut old, &mut old_app, "before");
    scene.upgrade();
    let mut new = connect(scene.tls, &peer);
    let mut new_app = scene.app.accept();
    exchange(&mut new, &mut new_app, "after");
    let mark = scene.sidecar.mark();
    scene.sidecar.process().signal(Signal::TERM);
    scene.sidecar.wait_words(mark, "no new connections");
    // Nobody waits in a queue that nobody empties.
    eventually("the port is given up", SOON, || {
        std::net::TcpStream::connect(scene.tls)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            .then_some(())
    });
    for (mut client, mut app) in [(old, old_app), (new, new_app)] {
        exchange(&mut client, &mut app, "still here");
        client.conn.send_close_notify();
        client.flush().unwrap();
        assert!(read_to_end(&mut app).is_empty());
        drop(app);
        assert!(read_to_end(&mut client).is_empty());
    }
    assert_eq!(scene.sidecar.process_mut().wait(SOON).code(), Some(0));
}

#[test]
fn a_second_signal_ends_every_child_at_once() {
    let mut scene = Supervised::start("limits: { drain_timeout: 10m }\n");
    let peer = scene.api.peer(STOREFRONT);
    let open = || {
        let mut client = connect(scene.tls, &peer);
        let mut app = scene.app.accept();
        exchange(&mut client, &mut app, "hello");
        (client, app)
    };
    let (mut old, _old_app) = open();
    scene.upgrade();
    let (mut new, _new_app) = open();
    let mark = scene.sidecar.mark();
    scene.sidecar.process().signal(Signal::INT);
    scene
        .sidecar
        .wait_words(mark, "shutting down: no new connections");
    scene.sidecar.process().signal(Signal::INT);
    for client in [&mut old, &mut new] {
        expect_alert(client, AlertDescription::InternalError);
    }
    drop((old, new));
    assert_eq!(scene.sidecar.process_mut().wait(SOON).code(), Some(0));
}

#[test]
fn a_new_process_refuses_nobody_while_it_waits_for_its_identity() {
    let mut scene = Supervised::start_as("", Path::new(SVIDECAR), &["supervise", "--ready-timeout", "2s"]);
    let peer = scene.api.peer(STOREFRONT);
    let mark = scene.upgrade_that_waits();
    let mut served = 0;
    let outcome = loop {
        let mut client = connect(scene.tls, &peer);
        let mut app = scene.app.accept();
        exchange(&mut client, &mut app, "hello");
        served += 1;
        assert!(scene.sidecar.is_ready(), "the admin endpoint is the old one's");
        let said = scene.sidecar.process().lines_since(mark, |line| {
            line.contains("the upgrade failed").then(|| line.to_owned())
        });
        if let Some(said) = said.into_iter().next() {
            break said;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(
        served > 1 && outcome.contains("was not ready within 2s"),
        "{outcome}"
    );
    let mut client = connect(scene.tls, &peer);
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "still served");
    let mut rest = [0];
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(app.read(&mut rest).unwrap(), 0);
}
