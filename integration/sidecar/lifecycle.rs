//! How a sidecar starts, and how it ends.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::AlertDescription;
use serde_json::Value;

use crate::peers::{Client, connect, expect_alert};
use crate::plain::{self, exchange, expect_reset, read_to_end};
use crate::support::process::Mark;
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, eventually};
use crate::world::{Inbound, InboundSetup, STOREFRONT};

fn open(scene: &Inbound) -> (Client, TcpStream) {
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    (client, app)
}

fn wait_draining(scene: &Inbound) {
    scene
        .sidecar
        .wait_log("that it shuts down", Mark::default(), |line| {
            line["message"]
                .as_str()
                .is_some_and(|m| m.starts_with("shutting down"))
        });
}

#[test]
fn a_termination_lets_open_connections_finish_and_takes_no_new_ones() {
    let mut scene = InboundSetup::default().start();
    let mut held: Vec<_> = (0..6).map(|_| open(&scene)).collect();
    scene.sidecar.process().signal(Signal::TERM);
    wait_draining(&scene);
    let ready = scene.sidecar.wait_not_ready(SOON);
    assert!(ready.body.contains("shutting down"), "{}", ready.body);
    assert_eq!(scene.sidecar.get("/livez").unwrap().status, 200);
    eventually("the port is given up", SOON, || {
        let refused =
            TcpStream::connect(scene.tls).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
        refused.then_some(())
    });
    // Busy and idle ones alike go on, and end when they want to.
    for (client, app) in held.iter_mut().skip(3) {
        exchange(client, app, "still at it");
        client.write_all(&vec![1; 100_000]).unwrap();
        let mut got = vec![0; 100_000];
        app.read_exact(&mut got).unwrap();
    }
    for (mut client, mut app) in held {
        client.conn.send_close_notify();
        client.flush().unwrap();
        assert!(read_to_end(&mut app).is_empty());
        drop(app);
        assert!(read_to_end(&mut client).is_empty());
    }
    let status = scene.sidecar.process_mut().wait(SOON);
    assert_eq!(status.code(), Some(0));
    // What asked at the port while it was being given up has a record as well.
    eventually("six records", SOON, || {
        let records = scene.sidecar.records_since(Mark::default());
        let mut ours = records.iter().filter(|record| record["peer_id"] == STOREFRONT);
        assert!(
            ours.clone().all(|record| record["reason"] == "finished"),
            "{records:?}"
        );
        ours.nth(5).map(|_| ())
    });
}

#[test]
fn an_idle_sidecar_ends_at_once_and_takes_its_sockets_along() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("in.sock");
    let settings = format!(
        "outbound:\n  - name: out\n    listen: unix://{}\n    connect: 127.0.0.1:1\n    \
         peer: [\"spiffe://example.org/**\"]\n",
        socket.display()
    );
    let mut scene = InboundSetup {
        settings: &settings,
        ..InboundSetup::default()
    }
    .start();
    assert!(socket.exists());
    let begun = Instant::now();
    let status = scene.sidecar.terminate(SOON);
    assert_eq!(status.code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        begun.elapsed()
    );
    assert!(!socket.exists());
}

#[test]
fn when_the_time_to_drain_is_over_the_rest_is_cut_and_told() {
    let mut scene = InboundSetup {
        settings: "limits: { drain_timeout: 1s }\n",
        ..InboundSetup::default()
    }
    .start();
    let (mut client, mut app) = open(&scene);
    let silent = plain::connect(scene.tls);
    let begun = Instant::now();
    scene.sidecar.process().signal(Signal::TERM);
    wait_draining(&scene);
    exchange(&mut client, &mut app, "still here");
    expect_alert(&mut client, AlertDescription::InternalError);
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "cut after {:?}",
        begun.elapsed()
    );
    expect_reset(&mut app);
    drop(client);
    let status = scene.sidecar.process_mut().wait(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    let record = scene.sidecar.wait_record(
        Mark::default(),
        &[("reason", "drain_timeout"), ("peer_id", STOREFRONT)],
    );
    assert_eq!(record["result"], "closed", "{record}");
    // One record for each connection, also for the one that never said a word.
    eventually("two records", SOON, || {
        (scene.sidecar.records_since(Mark::default()).len() == 2).then_some(())
    });
    drop(silent);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut scene = InboundSetup::default().start();
        let (mut client, mut app) = open(&scene);
        scene.sidecar.process().signal(Signal::TERM);
        wait_draining(&scene);
        exchange(&mut client, &mut app, "still here");
        let begun = Instant::now();
        scene.sidecar.process().signal(second);
        expect_alert(&mut client, AlertDescription::InternalError);
        expect_reset(&mut app);
        drop(client);
        let status = scene.sidecar.process_mut().wait(Duration::from_secs(5));
        assert_eq!(status.code(), Some(0));
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "it took {:?}",
            begun.elapsed()
        );
        scene
            .sidecar
            .wait_record(Mark::default(), &[("reason", "shutdown")]);
    }
}

/// Runs to its own end with this config, which must be soon.
fn run(config: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("svidecar.yaml");
    fs::write(&path, config).unwrap();
    let mut child = Command::new(SVIDECAR)
        .args(["run", "--config"])
        .arg(&path)
        .env_remove("SPIFFE_ENDPOINT_SOCKET")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + SOON;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it runs on");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

const OUTBOUND: &str = "identity:\n  socket: unix:///nonexistent/agent.sock\noutbound:\n  - name: out\n    \
                        connect: 127.0.0.1:1\n    peer: [\"spiffe://example.org/**\"]\n    listen: ";

#[test]
fn a_bad_config_exits_with_2_and_shows_the_place() {
    let output = run("identity:\n  socket: unix:///run/agent.sock\nlimts: {}\n");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("limts") && said.contains("limits"),
        "no hint: {said}"
    );
    assert!(said.contains("svidecar.yaml:3"), "no place: {said}");

    // A bad policy is a bad config: nothing would be in force.
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, "rules:\n  - name: a\n    action: permit\n").unwrap();
    let output = run(&format!(
        "identity:\n  socket: unix:///run/agent.sock\npolicy:\n  path: {}\ninbound:\n  - name: in\n    \
         listen: 127.0.0.1:0\n    upstream: 127.0.0.1:1\n",
        policy.display()
    ));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("permit"));
}

#[test]
fn a_missing_config_exits_with_2() {
    let output = Command::new(SVIDECAR)
        .args(["run", "--config", "/nonexistent/svidecar.yaml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_port_that_is_taken_exits_with_1_and_names_the_listener() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = taken.local_addr().unwrap();
    let output = run(&format!("{OUTBOUND}{addr}\n"));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("`out`") && said.contains(&addr.to_string()),
        "{said}"
    );
}

/// The entries of the audit log that is beside the config.
fn audited(scene: &Inbound) -> Vec<Value> {
    let text = fs::read_to_string(scene.sidecar.folder().join("audit.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What the log's last line and the last entry that tells of the process say of connections that were cut.
fn expect_cut(scene: &Inbound, cut: u64) {
    let last = scene.sidecar.wait_words(Mark::default(), "ended;");
    if cut > 0 {
        assert_eq!(last["cut"], cut, "{last}");
    } else {
        assert!(last["cut"].is_null(), "{last}");
    }
    let entries = audited(scene);
    let stop = entries
        .iter()
        .rev()
        .find(|entry| entry["kind"] == "process")
        .unwrap();
    assert_eq!(stop["operation"], "stop", "{stop}");
    assert_eq!(stop["data"]["cut_connections"], cut, "{stop}");
}

#[test]
fn of_busy_and_idle_connections_each_ends_properly() {
    const EACH: usize = 8;
    let mut scene = InboundSetup {
        settings: "limits: { drain_timeout: 3s }\naudit: { file: audit.jsonl }\n",
        ..InboundSetup::default()
    }
    .start();
    let busy: Vec<_> = (0..EACH).map(|_| open(&scene)).collect();
    let idle: Vec<_> = (0..EACH).map(|_| open(&scene)).collect();
    scene.sidecar.process().signal(Signal::TERM);
    wait_draining(&scene);
    // The busy ones are in the middle of something, and bring it to its end.
    for (mut client, mut app) in busy {
        let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let reader = std::thread::spawn(move || {
            let got = read_to_end(&mut app);
            app.write_all(b"got it").unwrap();
            app.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(got == expected, "other bytes came out than went in");
        });
        client.write_all(&sent).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        assert_eq!(read_to_end(&mut client), b"got it");
        reader.join().unwrap();
    }
    // The idle ones are cut when the time is over, and both their ends are told that it is no clean end.
    for (mut client, mut app) in idle {
        expect_alert(&mut client, AlertDescription::InternalError);
        expect_reset(&mut app);
    }
    assert_eq!(scene.sidecar.process_mut().wait(SOON).code(), Some(0));
    eventually("a record of each", SOON, || {
        let records = scene.sidecar.records_since(Mark::default());
        let count = |reason: &str| records.iter().filter(|record| record["reason"] == reason).count();
        (count("finished") == EACH && count("drain_timeout") == EACH).then_some(())
    });
    expect_cut(&scene, EACH as u64);
}

#[test]
fn how_many_a_second_signal_cut_is_said_and_recorded() {
    let mut scene = InboundSetup {
        settings: "limits: { drain_timeout: 10m }\naudit: { file: audit.jsonl }\n",
        ..InboundSetup::default()
    }
    .start();
    let held: Vec<_> = (0..3).map(|_| open(&scene)).collect();
    scene.sidecar.process().signal(Signal::TERM);
    wait_draining(&scene);
    scene.sidecar.process().signal(Signal::TERM);
    for (mut client, mut app) in held {
        expect_alert(&mut client, AlertDescription::InternalError);
        expect_reset(&mut app);
    }
    assert_eq!(scene.sidecar.process_mut().wait(SOON).code(), Some(0));
    expect_cut(&scene, 3);
}

#[test]
fn an_end_that_cuts_nobody_says_so() {
    let mut scene = InboundSetup {
        settings: "audit: { file: audit.jsonl }\n",
        ..InboundSetup::default()
    }
    .start();
    assert_eq!(scene.sidecar.terminate(SOON).code(), Some(0));
    expect_cut(&scene, 0);
}
