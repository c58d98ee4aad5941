//! The audit log at a collector: every entry, in order, as it stands in the file; also what was written while the collector
//! was away, and while the sidecar was.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::application::{Echo, ask_once};
use crate::support::go::otlp_receiver;
use crate::support::net::free_address;
use crate::support::process::{Mark, Process};
use crate::support::sidecar::SVIDECAR;
use crate::support::workload_api::WorkloadApi;
use crate::support::{SOON, eventually};
use crate::{ORDERS, Receiver, STOREFRONT};

/// The lines that the receiver was given, in the order in which they came.
fn lines(receiver: &Receiver) -> Vec<String> {
    let logs = receiver.0.events("log").into_iter();
    logs.map(|log| log["body"].as_str().unwrap().to_owned()).collect()
}

fn number(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).unwrap()["seq"]
        .as_u64()
        .unwrap()
}

/// Waits until all that is in the file now has come to one of these.
fn all_of(log: &Path, receivers: &[&Receiver]) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    eventually("all entries came", SOON, || {
        let came: Vec<_> = receivers.iter().flat_map(|receiver| lines(receiver)).collect();
        text.lines()
            .all(|line| came.iter().any(|other| other == line))
            .then_some(came)
    })
}

#[test]
fn every_entry_comes_also_after_the_collector_or_the_sidecar_was_away() {
    let Some(program) = otlp_receiver() else { return };
    let collector = free_address();
    let api = WorkloadApi::start("example.org", "1h", &[ORDERS, STOREFRONT]);
    let (application, tls, plain) = (Echo::start(), free_address(), free_address());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    file(
        "policy.yaml",
        format!("rules:\n  - name: storefront\n    action: allow\n    from: [\"{STOREFRONT}\"]\n"),
    );
    let orders = file(
        "orders.yaml",
        format!(
            "identity: {{ socket: '{}', svid: {ORDERS} }}\npolicy: {{ path: policy.yaml }}\ninbound: [{{ name: orders, listen: '{tls}', \
             upstream: '{}' }}]\naudit: {{ file: audit.jsonl, checkpoint_every: 1s, sinks: [{{ name: collector, otlp: {{ endpoint: \
             'http://{collector}' }} }}] }}\ntelemetry: {{ traces: {{ otlp: {{ endpoint: 'http://{collector}' }}, sample: 1 }} }}\n",
            api.address(),
            application.addr()
        ),
    );
    let storefront = file(
        "storefront.yaml",
        format!(
            "identity: {{ socket: '{}', svid: {STOREFRONT} }}\noutbound: [{{ name: to-orders, listen: '{plain}', connect: '{tls}', peer: \
             ['{ORDERS}'] }}]\n",
            api.address()
        ),
    );
    let run = |name: &str, config: &Path| {
        let mut command = Command::new(SVIDECAR);
        let sidecar = Process::start(name, command.args(["run", "--config"]).arg(config));
        sidecar.wait_line("that it has an identity", Mark::default(), SOON, |line| {
            line.contains("identity updated").then_some(())
        });
        sidecar
    };
    let log = folder.path().join("audit.jsonl");
    let call = || eventually("a call gets through", SOON, || ask_once(plain, "one order").ok());
    let start = || Receiver::start(program, &["-grpc", &collector.to_string()]);

    // Nobody takes anything yet.
    let _storefront = run("storefront", &storefront);
    let mut sidecar = run("orders", &orders);
    call();
    let mut first = start();
    let came = all_of(&log, &[&first]);
    assert!(
        came.iter().any(|line| line.contains("\"kind\":\"admission\"")),
        "{came:?}"
    );
    // Each once, and in order.
    let numbers: Vec<_> = came.iter().map(|line| number(line)).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );
    let admission = first
        .0
        .events("log")
        .into_iter()
        .find(|log| log["attributes"]["svidecar.kind"] == "admission")
        .unwrap();
    assert_eq!(
        admission["attributes"]["svidecar.peer"], STOREFRONT,
        "{admission}"
    );
    // What is taken down at the collector verifies as the file does, and names the trace.
    let copy = folder.path().join("copy.jsonl");
    fs::write(
        &copy,
        came.iter().map(|line| format!("{line}\n")).collect::<String>(),
    )
    .unwrap();
    let verified = Command::new(SVIDECAR)
        .args(["audit", "verify"])
        .arg(&copy)
        .status()
        .unwrap();
    assert!(verified.success());
    let body: Value = serde_json::from_str(admission["body"].as_str().unwrap()).unwrap();
    first.span(body["trace_id"].as_str().unwrap(), "authorize");

    // The collector goes, calls go on, the sidecar is killed; both come back.
    first.0.end();
    call();
    let before: Vec<_> = lines(&first).iter().map(|line| number(line)).collect();
    sidecar.signal(rustix::process::Signal::KILL);
    sidecar.wait(SOON);
    let second = start();
    let _sidecar = run("orders", &orders);
    call();
    all_of(&log, &[&first, &second]);
    // What was taken before need not come again; the last batch may, if the kill met it.
    let again: Vec<_> = lines(&second).iter().map(|line| number(line)).collect();
    assert!(!again.contains(&0), "{again:?} after {before:?}");
}
