//! The audit log through upgrades: one chain, and who ended what.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::peers::connect;
use crate::plain::exchange;
use crate::scene::Supervised;
use crate::support::SOON;
use crate::support::process::{Mark, output_of};
use crate::support::sidecar::SVIDECAR;
use crate::world::STOREFRONT;

fn entries(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn old_and_new_processes_write_one_chain() {
    let mut scene = Supervised::start("audit: { file: audit.jsonl }\nlimits: { drain_timeout: 10m }\n");
    let peer = scene.api.peer(STOREFRONT);
    let mut held = Vec::new();
    for round in 0..3 {
        let mut client = connect(scene.tls, &peer);
        let mut app = scene.app.accept();
        exchange(&mut client, &mut app, "hello");
        held.push((client, app));
        if round < 2 {
            assert!(scene.upgrade().contains("in charge"));
        }
    }
    // Two signals: all are cut.
    let mark = scene.sidecar.mark();
    scene.sidecar.process().signal(rustix::process::Signal::TERM);
    scene
        .sidecar
        .wait_words(mark, "shutting down: no new connections");
    scene.sidecar.process().signal(rustix::process::Signal::TERM);
    assert_eq!(scene.sidecar.process_mut().wait(SOON).code(), Some(0));
    drop(held);
    // The one before may have taken a connection before it heard that another one serves.
    let said: u64 = (1..=3)
        .map(|child| {
            let begin = format!("child {child} has ended; ");
            let line = scene.sidecar.wait_words(mark, &begin);
            let rest = line["message"]
                .as_str()
                .unwrap()
                .strip_prefix(&begin)
                .unwrap()
                .to_owned();
            rest.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(said, 3);
    let path = scene.sidecar.folder().join("audit.jsonl");
    output_of(Command::new(SVIDECAR).args(["audit", "verify"]).arg(&path), SOON);
    let text = fs::read_to_string(path).unwrap();
    let process = |operation: &str| -> Vec<Value> {
        entries(&text)
            .into_iter()
            .filter(|entry| entry["kind"] == "process" && entry["operation"] == operation)
            .collect()
    };
    assert_eq!(process("start").len(), 3, "{text}");
    assert_eq!(process("stop").len(), 3, "{text}");
    let cut: u64 = process("stop")
        .iter()
        .map(|entry| entry["data"]["cut_connections"].as_u64().unwrap())
        .sum();
    assert_eq!(cut, 3, "{text}");
    let actors: Vec<_> = process("drain")
        .iter()
        .map(|entry| entry["actor"].as_str().unwrap().to_owned())
        .collect();
    // Two were superseded, and one was told by a signal.
    assert_eq!(
        actors.iter().filter(|actor| *actor == "signal").count(),
        1,
        "{actors:?}"
    );
    scene.sidecar.wait_words(Mark::default(), "ended");
}

#[test]
fn another_supervisor_does_not_get_the_same_log() {
    let scene = Supervised::start("audit: { file: audit.jsonl }\n");
    let path = scene.sidecar.folder().join("audit.jsonl");
    let mut config = fs::read_to_string(scene.config()).unwrap();
    config = config.replace("audit.jsonl", &path.display().to_string());
    config = config.replace(&scene.tls.to_string(), "127.0.0.1:0");
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("policy")).unwrap();
    let config = config.split("admin:").next().unwrap();
    fs::write(other.path().join("svidecar.yaml"), config).unwrap();
    let mut command = Command::new(SVIDECAR);
    command
        .args(["supervise", "--config"])
        .arg(other.path().join("svidecar.yaml"));
    let mut second = crate::support::process::Process::start("second", &mut command);
    assert_eq!(second.wait(SOON).code(), Some(1));
    second.wait_line("why", Mark::default(), SOON, |line| {
        line.contains("is written by another process").then_some(())
    });
}
