//! The audit log at a collector: every entry, in order, as it stands in the file; also what was written while the collector
//! was away, and while the sidecar was.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::support::application::{Echo, ask_once};
use crate::support::go::otlp_receiver;
use crate::support::net::free_address;
use crate::support::process::{Mark, Process};
use crate::support::sidecar::{SVIDECAR, Setup};
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

/// Who answers every request with the same status, as a collector does whose token is another one, or whose port speaks TLS.
struct Refusing {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Refusing {
    fn start(address: SocketAddr, status: &'static str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (asked, end) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, over) = (asked.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                refuse(stream.unwrap(), status);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            address,
            asked,
            end,
            thread: Some(thread),
        }
    }

    fn wait_asked(&self, times: usize) {
        eventually("it was asked so often", SOON, || {
            (self.asked.load(Ordering::SeqCst) >= times).then_some(())
        });
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads one request, answers it, and closes.
fn refuse(mut stream: TcpStream, status: &str) {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let (mut request, mut some) = (Vec::new(), [0; 65536]);
    loop {
        match stream.read(&mut some) {
            Ok(read) if read > 0 => request.extend_from_slice(&some[..read]),
            _ => return,
        }
        let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if request.len() >= head + 4 + length.unwrap_or(0) {
            break;
        }
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n");
    let _ = stream.write_all(answer.as_bytes());
}

#[test]
fn nothing_is_lost_to_a_collector_that_refuses_us() {
    let Some(program) = otlp_receiver() else { return };
    let collector = free_address();
    let api = WorkloadApi::start("example.org", "1h", &[ORDERS]);
    let config = format!(
        "identity: {{ socket: '{}' }}\noutbound: [{{ name: out, listen: '{}', connect: '{}', peer: ['{STOREFRONT}'] }}]\n\
         audit: {{ file: audit.jsonl, sinks: [{{ name: collector, otlp: {{ endpoint: 'http://{collector}', protocol: http }} }}] }}\n",
        api.address(),
        free_address(),
        free_address(),
    );
    let refusing = Refusing::start(collector, "401 Unauthorized");
    let sidecar = Setup::new("orders", config).start();
    sidecar.wait_ready();
    let sink = || -> Value {
        let status = sidecar.get("/api/v1/status").unwrap();
        let status: Value = serde_json::from_str(&status.body).unwrap();
        status["audit"]["sinks"][0].clone()
    };
    let lost = || sidecar.metric("svidecar_audit_sink_lost_total{sink=\"collector\"}");
    let refused_with = |word: &str| {
        eventually("the status says why", SOON, || {
            let sink = sink();
            let says = sink["problem"].as_str().is_some_and(|why| why.contains(word));
            (says && sink["lag"].as_u64() > Some(0)).then_some(())
        });
    };
    refusing.wait_asked(2);
    refused_with("401");
    drop(refusing);
    // What a port for TLS says to whom speaks none: that is no verdict on an entry.
    let refusing = Refusing::start(collector, "400 Bad Request");
    refusing.wait_asked(2);
    refused_with("400");
    drop(refusing);
    assert_eq!(lost(), Some(0.0));

    let receiver = Receiver::start(program, &["-http", &collector.to_string()]);
    let log = sidecar.folder().join("audit.jsonl");
    all_of(&log, &[&receiver]);
    eventually("nothing is left", SOON, || {
        (sink()["problem"].is_null() && sink()["lag"] == 0).then_some(())
    });
    assert_eq!(lost(), Some(0.0));
}
