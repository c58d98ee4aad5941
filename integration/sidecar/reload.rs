//! The config, read again: listeners come, go and change, and connections of the others notice nothing. What cannot be taken
//! over leaves the last good config in force.

mod confined;
mod judged;
mod many;
mod sections;

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::AlertDescription;
use serde_json::Value;

use crate::open_connections::{Open, OpenOut};
use crate::peers::{Client, connect, expect_alert};
use crate::plain::{self, Door, exchange, expect_reset};
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::sidecar::Sidecar;
use crate::support::{SOON, eventually};
use crate::world::{
    Identity, Inbound, InboundSetup, ORDERS, OutboundSetup, REPORTS, STOREFRONT, STOREFRONT_ONLY,
};

const ALL: &str = "rules:\n  - name: all\n    action: allow\n    from: [\"spiffe://example.org/**\", \
                   \"spiffe://partner.example/**\"]\n";
const CONFIG: &str = "svidecar.yaml";

/// The config as it is written now.
fn config(sidecar: &Sidecar) -> String {
    fs::read_to_string(sidecar.folder().join(CONFIG)).unwrap()
}

/// Replaces the config file.
fn write(sidecar: &Sidecar, text: &str) {
    // Renamed into place, so that no reader sees half of it.
    let temporary = sidecar.folder().join(".new.yaml");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, sidecar.folder().join(CONFIG)).unwrap();
}

/// Replaces this part of the config file.
fn rewrite(sidecar: &Sidecar, from: &str, to: &str) {
    let text = config(sidecar);
    assert!(text.contains(from), "no `{from}` in {text}");
    write(sidecar, &text.replace(from, to));
}

/// The lines of another inbound listener.
fn inbound(name: &str, listen: &str, upstream: SocketAddr) -> String {
    format!("  - name: {name}\n    listen: {listen}\n    upstream: {upstream}\n")
}

/// Puts another listener before those that there are.
fn add(sidecar: &Sidecar, listener: &str) {
    rewrite(sidecar, "inbound:\n", &format!("inbound:\n{listener}"));
}

/// Waits for the line that a new config is in force.
fn in_force(sidecar: &Sidecar, mark: Mark) -> Value {
    sidecar.wait_log("a new config is in force", mark, |line| {
        line["message"] == "a new config is in force"
    })
}

/// Waits for the line that a new config is refused, with this among its reasons.
fn refused(sidecar: &Sidecar, mark: Mark, why: &str) {
    sidecar.wait_log(&format!("the config is refused: {why}"), mark, |line| {
        line["message"].as_str().is_some_and(|m| {
            m.starts_with("the new config is refused, the last good one stays") && m.contains(why)
        })
    });
}

fn reloads(sidecar: &Sidecar, result: &str) -> Option<f64> {
    sidecar.metric(&format!(
        "svidecar_policy_reload_total{{document=\"config\",result=\"{result}\"}}"
    ))
}

fn through(address: SocketAddr, door: &Door, identity: &Identity) -> (Client, TcpStream) {
    let mut client = connect(address, identity);
    let mut app = door.accept();
    exchange(&mut client, &mut app, "hello");
    (client, app)
}

/// Not confined, as most of these tests have ports come that no config named at the start.
const UNCONFINED: &str = "sandbox: off\n";

fn scene(settings: &str) -> Inbound {
    InboundSetup {
        policy: Some(ALL),
        settings: &format!("{UNCONFINED}{settings}"),
        ..InboundSetup::default()
    }
    .start()
}

#[test]
fn listeners_come_change_and_go_and_connections_of_the_others_notice_nothing() {
    let scene = scene("limits: { drain_timeout: 2s }\n");
    let sidecar = &scene.sidecar;
    let storefront = scene.api.peer(STOREFRONT);
    let mut steady = Open::through(&scene, &storefront);
    let (second, first_app, second_app) = (free_address(), Door::open(), Door::open());

    let mark = sidecar.mark();
    add(sidecar, &inbound("second", &second.to_string(), first_app.addr()));
    let line = in_force(sidecar, mark);
    assert_eq!(line["added"], "second", "{line}");
    assert_eq!(line["generation"], 2, "{line}");
    let mut old = through(second, &first_app, &storefront);
    steady.must_flow();

    // Another upstream is for those that come.
    let mark = sidecar.mark();
    rewrite(
        sidecar,
        &first_app.addr().to_string(),
        &second_app.addr().to_string(),
    );
    assert_eq!(in_force(sidecar, mark)["changed"], "second");
    // Workers are told a moment later.
    let mut new = eventually("the new upstream", SOON, || {
        let client = connect(second, &storefront);
        second_app.try_accept().map(|app| (client, app))
    });
    exchange(&mut new.0, &mut new.1, "hello");
    exchange(&mut old.0, &mut old.1, "still here");
    steady.must_flow();

    let status = sidecar.get("/api/v1/status").unwrap().json();
    assert_eq!(status["config"]["generation"], 3, "{status}");
    assert_eq!(status["config"]["last_reload"]["result"], "success", "{status}");
    assert_eq!(status["listeners"].as_array().unwrap().len(), 2, "{status}");
    assert_eq!(sidecar.metric("svidecar_config_generation"), Some(3.0));
    let ready = sidecar.get("/readyz").unwrap().body;
    assert!(ready.contains(&format!("second={second}")), "{ready}");

    let mark = sidecar.mark();
    let begun = Instant::now();
    rewrite(
        sidecar,
        &inbound("second", &second.to_string(), second_app.addr()),
        "",
    );
    assert_eq!(in_force(sidecar, mark)["removed"], "second");
    eventually("nobody listens any more", SOON, || {
        TcpStream::connect(second).is_err().then_some(())
    });
    if begun.elapsed() < Duration::from_millis(1500) {
        exchange(&mut old.0, &mut old.1, "not cut yet");
    }
    for (mut client, mut app) in [old, new] {
        expect_alert(&mut client, AlertDescription::InternalError);
        expect_reset(&mut app);
    }
    assert!(begun.elapsed() >= Duration::from_secs(2), "cut before its time");
    let record = sidecar.wait_record(mark, &[("reason", "listener_removed")]);
    assert_eq!(record["result"], "closed", "{record}");
    assert_eq!(record["listener"], "second", "{record}");
    steady.must_flow();
    eventually("the series are gone", SOON, || {
        let metrics = sidecar.get("/metrics").unwrap().body;
        (!metrics.contains("listener=\"second\"")).then_some(())
    });
    assert_eq!(
        sidecar.metric("svidecar_connections_open{listener=\"orders\""),
        Some(1.0)
    );
    let others = sidecar.records_since(Mark::default());
    assert!(
        others.iter().all(|record| record["listener"] == "second"),
        "others ended, too"
    );
}

#[test]
fn a_policy_and_the_listener_that_it_names_come_and_go_in_one_step() {
    let scene = scene("");
    let sidecar = &scene.sidecar;
    let reports = scene.api.peer(REPORTS);
    let (second, app) = (free_address(), Door::open());
    let mark = sidecar.mark();
    let to_second = STOREFRONT_ONLY.to_owned()
        + "  - name: reports\n    action: allow\n    to: [second]\n    from: [\"spiffe://example.org/reports\"]\n";
    sidecar.set_policy(&to_second);
    add(sidecar, &inbound("second", &second.to_string(), app.addr()));
    in_force(sidecar, mark);
    let mut open = through(second, &app, &reports);
    // Whoever is let in at one listener is not at the other.
    let mut elsewhere = connect(scene.tls, &reports);
    expect_alert(&mut elsewhere, AlertDescription::AccessDenied);

    // A listener that a rule names cannot go before the rule does; then both go.
    let mark = sidecar.mark();
    rewrite(sidecar, &inbound("second", &second.to_string(), app.addr()), "");
    refused(sidecar, mark, "`to` names listener `second`");
    exchange(&mut open.0, &mut open.1, "still here");
    let mark = sidecar.mark();
    sidecar.set_policy(STOREFRONT_ONLY);
    assert_eq!(in_force(sidecar, mark)["removed"], "second");
    // No rule can name it any more; its time to end is `drain_timeout` all the same.
    exchange(&mut open.0, &mut open.1, "still here");
}

#[test]
fn a_signal_a_request_and_a_swapped_link_have_it_read() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "a-token-of-enough-bytes\n").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let scene = scene(&format!(
        "admin: {{ listen: '@admin', token_file: '{}' }}\n",
        token.display()
    ));
    let sidecar = &scene.sidecar;
    let mut steady = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = sidecar.mark();
    sidecar.process().signal(Signal::HUP);
    sidecar.wait_log("that nothing is another", mark, |line| {
        line["message"] == "the config was read again and has not changed"
    });
    assert_eq!(reloads(sidecar, "success"), Some(2.0));

    let (address, app) = (free_address(), Door::open());
    let mark = sidecar.mark();
    add(sidecar, &inbound("asked", &address.to_string(), app.addr()));
    let headers = "Authorization: Bearer a-token-of-enough-bytes\r\n";
    let answer = sidecar.request("POST", "/api/v1/reload", headers, "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["config"]["result"], "success", "{}", answer.body);
    // Once it is answered it is so.
    through(address, &app, &scene.api.peer(STOREFRONT));
    assert_eq!(in_force(sidecar, mark)["added"], "asked");

    // As Kubernetes lays out a ConfigMap.
    let root = sidecar.folder();
    let text = config(sidecar);
    let (swapped, other_app) = (free_address(), Door::open());
    let more = inbound("swapped", &swapped.to_string(), other_app.addr());
    for (version, text) in [
        ("..v1", &text),
        ("..v2", &text.replace("inbound:\n", &format!("inbound:\n{more}"))),
    ] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join(CONFIG), text).unwrap();
    }
    let swap = |target: &str, link: &str| {
        symlink(target, root.join("..tmp")).unwrap();
        fs::rename(root.join("..tmp"), root.join(link)).unwrap();
    };
    swap("..v1", "..data");
    swap("..data/svidecar.yaml", CONFIG);
    let mark = sidecar.mark();
    swap("..v2", "..data");
    assert_eq!(in_force(sidecar, mark)["added"], "swapped");
    through(swapped, &other_app, &scene.api.peer(STOREFRONT));
    steady.must_flow();
}

#[test]
fn what_cannot_be_taken_over_leaves_the_last_good_config_in_force() {
    let scene = scene("workers: 1\n");
    let sidecar = &scene.sidecar;
    let storefront = scene.api.peer(STOREFRONT);
    let mut open = Open::through(&scene, &storefront);
    let good = config(sidecar);
    let failing = || sidecar.metric("svidecar_policy_reload_failing{document=\"config\"}");
    let stays = || {
        let ready = sidecar.get("/readyz").unwrap();
        assert_eq!(ready.status, 200, "{}", ready.body);
        assert!(
            ready.body.contains("config generation 1 stays in force"),
            "{}",
            ready.body
        );
        assert_eq!(failing(), Some(1.0));
        assert_eq!(sidecar.metric("svidecar_config_generation"), Some(1.0));
    };

    let mark = sidecar.mark();
    write(sidecar, &good.replace("workers", "wrkers"));
    refused(sidecar, mark, "did you mean `workers`?");
    stays();
    assert_eq!(reloads(sidecar, "failure"), Some(1.0));
    let status = sidecar.get("/api/v1/status").unwrap().json();
    let problems = status["config"]["last_reload"]["problems"].to_string();
    assert!(problems.contains("wrkers"), "{status}");

    // A good change beside one that this process cannot make is not made either.
    let other = Door::open();
    let elsewhere = good.replace(&scene.app.addr().to_string(), &other.addr().to_string());
    let mark = sidecar.mark();
    write(
        sidecar,
        &elsewhere
            .replace(UNCONFINED, "sandbox: best-effort\n")
            .replace("workers: 1", "workers: 2\ntls: { renewal: false }"),
    );
    refused(sidecar, mark, "restart needed: `workers` cannot be changed");
    refused(sidecar, mark, "`sandbox` cannot be changed");
    refused(sidecar, mark, "SIGUSR2");
    stays();

    // Nor beside an address that somebody else has, and nothing is left of the sockets that were bound before that.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, unix) = (taken.local_addr().unwrap(), sidecar.folder().join("app.sock"));
    let listeners = inbound("unix", &format!("unix://{}", unix.display()), other.addr())
        + &inbound("taken", &address.to_string(), other.addr());
    let mark = sidecar.mark();
    write(
        sidecar,
        &elsewhere.replace("inbound:\n", &format!("inbound:\n{listeners}")),
    );
    refused(sidecar, mark, "listener `taken`: cannot listen on");
    stays();
    assert!(!unix.exists());

    // Nor the same port at another address, which no new process could bind either.
    let mark = sidecar.mark();
    let everywhere = format!("listen: 0.0.0.0:{}", scene.tls.port());
    write(
        sidecar,
        &elsewhere.replace(&format!("listen: {}", scene.tls), &everywhere),
    );
    refused(
        sidecar,
        mark,
        "restart needed: listener `orders` cannot be bound while `orders` still has",
    );
    refused(
        sidecar,
        mark,
        "remove the old listener in one change of the config",
    );
    stays();
    through(scene.tls, &scene.app, &storefront);
    open.must_flow();
    assert_eq!(other.accepted(), 0);

    drop(taken);
    let mark = sidecar.mark();
    write(sidecar, &elsewhere);
    in_force(sidecar, mark);
    assert_eq!(failing(), Some(0.0));
    open.must_flow();
}

#[test]
fn a_unix_listener_comes_moves_and_goes_with_its_file() {
    let scene = OutboundSetup {
        settings: UNCONFINED,
        ..OutboundSetup::default()
    }
    .start();
    let sidecar = &scene.sidecar;
    let path = sidecar.folder().join("payments.sock");
    let listen = format!("listen: {}", scene.plain);
    let mark = sidecar.mark();
    rewrite(sidecar, &listen, &format!("listen: unix://{}", path.display()));
    in_force(sidecar, mark);
    let mut app = plain::connect_unix(&path);
    let mut server = crate::peers::accept(scene.peer.accept(), &scene.api.peer(ORDERS));
    exchange(&mut app, &mut server, "hello");
    // Another name at the same place takes over the socket, and whoever waits there.
    let mark = sidecar.mark();
    rewrite(sidecar, "name: to-orders", "name: to-shop");
    in_force(sidecar, mark);
    let mut app = plain::connect_unix(&path);
    let mut server = crate::peers::accept(scene.peer.accept(), &scene.api.peer(ORDERS));
    exchange(&mut app, &mut server, "hello");

    let mark = sidecar.mark();
    rewrite(sidecar, &format!("listen: unix://{}", path.display()), &listen);
    in_force(sidecar, mark);
    assert!(!path.exists());
    OpenOut::through(&scene, &scene.api.peer(ORDERS));
}
