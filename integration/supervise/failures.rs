//! What goes wrong leaves what was there.

use std::fs;

use rustix::process::Signal;

use crate::peers::{client_config, connect, handshake_client};
use crate::plain::{self, exchange};
use crate::scene::{Supervised, kill, replace};
use crate::support::process::Mark;
use crate::support::sidecar::ProgramCopy;
use crate::support::{SOON, eventually};
use crate::world::STOREFRONT;

fn is_served(scene: &Supervised) {
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    exchange(&mut client, &mut scene.app.accept(), "hello");
}

#[test]
fn a_new_program_that_fails_leaves_the_old_one_in_charge() {
    let program = ProgramCopy::named("svidecar-replaced");
    let arguments = ["supervise", "--ready-timeout", "5s"];
    let scene = Supervised::start_as("", program.path(), &arguments);
    let before = scene.child();
    let kept = program.path().with_extension("kept");
    fs::hard_link(program.path(), &kept).unwrap();

    replace(program.path(), "#!/bin/sh\nexit 7\n").unwrap();
    let outcome = scene.upgrade();
    assert!(
        outcome.contains("ended with exit code 7") && outcome.contains("stays in charge"),
        "{outcome}"
    );
    is_served(&scene);

    // One that hears nothing and says nothing.
    replace(
        program.path(),
        "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n",
    )
    .unwrap();
    let outcome = scene.upgrade();
    assert!(outcome.contains("was not ready within 5s"), "{outcome}");
    is_served(&scene);

    // None at all.
    fs::remove_file(program.path()).unwrap();
    let outcome = scene.upgrade();
    assert!(outcome.contains("No such file"), "{outcome}");
    is_served(&scene);
    assert_eq!(
        scene.child(),
        before,
        "the silent one was killed, and the old one stays"
    );

    // And then the good one.
    fs::rename(kept, program.path()).unwrap();
    assert!(scene.upgrade().contains("in charge"));
    is_served(&scene);
    let after = eventually("the old one ends", SOON, || match scene.children()[..] {
        [child] if child != before => Some(child),
        _ => None,
    });
    assert_ne!(before, after);
}

#[test]
fn a_bad_new_config_or_policy_leaves_the_old_process_in_charge() {
    let scene = Supervised::start("");
    let good = fs::read_to_string(scene.config()).unwrap();
    fs::write(scene.config(), good.replace("inbound:", "inbuond:")).unwrap();
    let mark = scene.sidecar.mark();
    let outcome = scene.upgrade();
    assert!(outcome.contains("has errors"), "{outcome}");
    scene.sidecar.wait_words(mark, "inbuond");
    is_served(&scene);

    // A port that another process has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = good.replace(&scene.tls.to_string(), &taken.local_addr().unwrap().to_string());
    fs::write(scene.config(), other).unwrap();
    let outcome = scene.upgrade();
    assert!(outcome.contains("another process is serving there"), "{outcome}");
    is_served(&scene);

    // What the supervisor does not read, the child does.
    fs::write(scene.config(), good.replace("path: policy/", "path: nowhere/")).unwrap();
    let outcome = scene.upgrade();
    assert!(outcome.contains("exit code 2"), "{outcome}");
    is_served(&scene);

    fs::write(scene.config(), good).unwrap();
    assert!(scene.upgrade().contains("in charge"));
    is_served(&scene);
}

#[test]
fn a_child_that_is_killed_is_replaced_and_whoever_waits_is_served() {
    let scene = Supervised::start("");
    let before = scene.child();
    let peer = scene.api.peer(STOREFRONT);
    // Stopped first, so that what connects waits in the queue.
    kill(before, Signal::STOP);
    // Each thread when it comes to it.
    eventually("every thread is stopped", SOON, || {
        let mut tasks = fs::read_dir(format!("/proc/{before}/task")).unwrap();
        let is_stopped = |task: std::io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        tasks.all(is_stopped).then_some(())
    });
    let waiting = plain::connect(scene.tls);
    kill(before, Signal::KILL);
    scene.sidecar.wait_words(
        Mark::default(),
        "was killed by signal 9; it is started again in 100ms",
    );
    let mut client = handshake_client(waiting, client_config(Some(&peer)), "orders.example.org").unwrap();
    exchange(&mut client, &mut scene.app.accept(), "I have waited");
    is_served(&scene);
    assert_ne!(scene.child(), before);
}

#[test]
fn a_third_signal_ends_a_supervisor_whose_child_hangs() {
    let mut scene = Supervised::start("limits: { drain_timeout: 10m }\n");
    kill(scene.child(), Signal::STOP);
    eventually("it has ended", SOON, || {
        // Signals that come together are one.
        if scene.sidecar.process_mut().is_running() {
            scene.sidecar.process().signal(Signal::TERM);
            return None;
        }
        Some(())
    });
    assert_eq!(scene.sidecar.process_mut().wait(SOON).code(), Some(1));
}

#[test]
fn a_child_whose_supervisor_is_killed_drains_and_gives_its_ports_up() {
    let mut scene = Supervised::start("");
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "before");
    scene.sidecar.process().signal(Signal::KILL);
    scene.sidecar.process_mut().wait(SOON);
    scene
        .sidecar
        .wait_words(Mark::default(), "the supervisor is gone");
    eventually("the port is given up", SOON, || {
        std::net::TcpStream::connect(scene.tls)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            .then_some(())
    });
    exchange(&mut client, &mut app, "still here");
    drop((client, app));
    scene.sidecar.wait_words(Mark::default(), "ended;");
}
