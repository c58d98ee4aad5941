//! A config that changes while an upgrade is under way, and after it for those who drain.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::peers::{connect, expect_alert};
use crate::plain::exchange;
use crate::scene::{Supervised, wait_upgrade};
use crate::support::net::free_address;
use crate::support::{SOON, eventually};
use crate::world::{HOUR, Identity, ORDERS, REPORTS, STOREFRONT, STOREFRONT_ONLY};

/// A confined process may bind no other ports than those it was started with.
const UNCONFINED: &str = "sandbox: off\n";

fn is_served(scene: &Supervised, peer: &Identity, tls: SocketAddr) {
    eventually("the port is open", SOON, || TcpStream::connect(tls).ok());
    let mut client = connect(tls, peer);
    exchange(&mut client, &mut scene.app.accept(), "hello");
}

fn is_refused(tls: SocketAddr) {
    eventually("the port is given up", SOON, || {
        TcpStream::connect(tls)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            .then_some(())
    });
}

#[test]
fn a_listener_that_comes_and_one_that_goes_during_an_upgrade_do_so_after_it() {
    let mut scene = Supervised::start(UNCONFINED);
    let (before, after) = (scene.tls, free_address());
    let peer = scene.api.peer(STOREFRONT);
    let mark = scene.upgrade_that_waits();
    let text = fs::read_to_string(scene.config()).unwrap();
    fs::write(
        scene.config(),
        text.replace(&before.to_string(), &after.to_string()),
    )
    .unwrap();
    scene.sidecar.process().signal(Signal::HUP);
    // Not by the old one, which would have to give the port up again.
    scene.sidecar.wait_words(mark, "an upgrade is under way");
    is_served(&scene, &peer, before);
    scene.api.come(&[ORDERS, STOREFRONT], HOUR);
    let peer = scene.api.peer(STOREFRONT);
    let outcome = wait_upgrade(&scene.sidecar, mark);
    assert!(outcome.contains("in charge"), "{outcome}");
    is_served(&scene, &peer, after);
    is_refused(before);
    // The supervisor has heard of both.
    assert!(scene.upgrade().contains("in charge"));
    is_served(&scene, &peer, after);
}

#[test]
fn a_config_that_came_during_an_upgrade_that_fails_is_taken_over_by_the_old_process() {
    let mut scene = Supervised::start_as(
        UNCONFINED,
        std::path::Path::new(crate::support::sidecar::SVIDECAR),
        &["supervise", "--ready-timeout", "2s"],
    );
    let (before, after) = (scene.tls, free_address());
    let peer = scene.api.peer(STOREFRONT);
    let text = fs::read_to_string(scene.config()).unwrap();
    let mark = scene.upgrade_that_waits();
    fs::write(
        scene.config(),
        text.replace(&before.to_string(), &after.to_string()),
    )
    .unwrap();
    let outcome = wait_upgrade(&scene.sidecar, mark);
    assert!(outcome.contains("stays in charge"), "{outcome}");
    is_served(&scene, &peer, after);
    is_refused(before);
}

#[test]
fn a_process_that_drains_heeds_a_deny_list_that_the_config_names_since() {
    let scene = Supervised::start("limits: { drain_timeout: 10m }\n");
    let mut old = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut old_app = scene.app.accept();
    exchange(&mut old, &mut old_app, "before");
    assert!(scene.upgrade().contains("in charge"));
    exchange(&mut old, &mut old_app, "still here");
    let list = format!("deny:\n  - name: stop\n    ids: [\"{STOREFRONT}\"]\n");
    fs::write(scene.config().with_file_name("deny.yaml"), list).unwrap();
    let text = fs::read_to_string(scene.config()).unwrap();
    let text = text.replace("  path: policy/\n", "  path: policy/\n  deny_list: deny.yaml\n");
    let mark = scene.sidecar.mark();
    fs::write(scene.config(), text).unwrap();
    scene
        .sidecar
        .wait_record(mark, &[("reason", "deny_list_change"), ("peer_id", STOREFRONT)]);
    expect_alert(&mut old, rustls::AlertDescription::AccessDenied);
}

#[test]
fn a_process_whose_upgrade_is_under_way_follows_its_policy_also_when_it_is_to_end() {
    const BOTH: &str = "rules:\n  - name: both\n    action: allow\n    from: [\"spiffe://example.org/*\"]\n";
    const NOBODY: &str = "rules: []\n";
    let mut scene = Supervised::start("limits: { drain_timeout: 10m }\n");
    let mark = scene.sidecar.mark();
    scene.sidecar.set_policy(BOTH);
    scene.sidecar.wait_words(mark, "a new policy is in force");
    let mut open = [REPORTS, STOREFRONT].map(|id| {
        let mut client = connect(scene.tls, &scene.api.peer(id));
        let mut app = scene.app.accept();
        exchange(&mut client, &mut app, "before");
        (client, app)
    });
    // Refused by the old one, which may be for what the policy says.
    let text = fs::read_to_string(scene.config()).unwrap();
    let mark = scene.sidecar.mark();
    fs::write(scene.config(), text + "workers: 3\n").unwrap();
    scene.sidecar.wait_words(mark, "restart needed");
    scene.upgrade_that_waits();

    scene.sidecar.set_policy(STOREFRONT_ONLY);
    expect_alert(&mut open[0].0, rustls::AlertDescription::AccessDenied);
    let (client, app) = &mut open[1];
    exchange(client, app, "still here");
    scene.sidecar.process().signal(Signal::TERM);
    scene.sidecar.wait_words(mark, "shutting down");
    scene.sidecar.set_policy(NOBODY);
    expect_alert(client, rustls::AlertDescription::AccessDenied);
    assert!(scene.sidecar.process_mut().wait(SOON).success());
}
