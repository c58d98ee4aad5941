//! What the OpenTelemetry Collector makes of what svidecar sends: its own receiver takes spans over gRPC and over HTTP.
//! Skipped, loudly, where there is no Go or its modules cannot be had.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../support/mod.rs"]
mod support;

mod audit;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::SOON;
use support::application::{Echo, LineClient, ask_once};
use support::go::{Peer, otlp_receiver};
use support::net::free_address;
use support::process::Mark;
use support::sidecar::{Setup, Sidecar};
use support::workload_api::WorkloadApi;

const ORDERS: &str = "spiffe://example.org/orders";
const STOREFRONT: &str = "spiffe://example.org/storefront";
const REPORTS: &str = "spiffe://example.org/reports";
const NO_PARENT: &str = "";

/// The collector's receiver.
struct Receiver(Peer);

impl Receiver {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let receiver = Peer::start("otlp-receiver", program, arguments);
        receiver.wait_event("listening");
        Self(receiver)
    }

    /// Waits for the span of this name in a trace.
    fn span(&self, trace: &str, name: &str) -> Value {
        self.0
            .wait_event_since(Mark::default(), "span", SOON + Duration::from_secs(40), |span| {
                span["trace_id"] == trace && span["name"] == name
            })
    }

    /// The names of all spans of a trace that came so far.
    fn names(&self, trace: &str) -> Vec<String> {
        let spans = self.0.events("span").into_iter();
        spans
            .filter(|span| span["trace_id"] == trace)
            .map(|span| span["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A sidecar before an application, another one before one whom it lets in, and a third before one whom it does not.
struct World {
    application: Echo,
    orders: Sidecar,
    storefront: Sidecar,
    reports: Sidecar,
    to_orders: SocketAddr,
    from_reports: SocketAddr,
    _api: WorkloadApi,
}

impl World {
    /// `traces` are the fields of `telemetry.traces`.
    fn start(traces: &str) -> Self {
        let api = WorkloadApi::start("example.org", "1h", &[ORDERS, STOREFRONT, REPORTS]);
        let (application, tls) = (Echo::start(), free_address());
        let telemetry = |service: &str| {
            let traces = traces.replace('@', service);
            format!(
                "telemetry: {{ log: {{ level: 'info,svidecar::telemetry=debug' }}, traces: {{ {traces} }} }}\n"
            )
        };
        let config = format!(
            "identity: {{ socket: '{}', svid: {ORDERS} }}\npolicy: {{ path: policy/ }}\n\
             inbound: [{{ name: orders, listen: '{tls}', upstream: '{}' }}]\n{}",
            api.address(),
            application.addr(),
            telemetry("orders"),
        );
        let policy =
            format!("rules:\n  - name: storefront\n    action: allow\n    from: [\"{STOREFRONT}\"]\n");
        let orders = Setup::new("orders", config).policy(&policy).start();
        let caller = |name: &str, id: &str, listen: SocketAddr| {
            let config = format!(
                "identity: {{ socket: '{}', svid: {id} }}\n\
                 outbound: [{{ name: to-orders, listen: '{listen}', connect: '{tls}', peer: ['{ORDERS}'] }}]\n{}",
                api.address(),
                telemetry(name),
            );
            Setup::new(name, config).start()
        };
        let (to_orders, from_reports) = (free_address(), free_address());
        let storefront = caller("storefront", STOREFRONT, to_orders);
        let reports = caller("reports", REPORTS, from_reports);
        let world = Self {
            application,
            orders,
            storefront,
            reports,
            to_orders,
            from_reports,
            _api: api,
        };
        for sidecar in [&world.orders, &world.storefront, &world.reports] {
            sidecar.wait_ready();
        }
        world
    }

    /// A connection that is let in; its trace, at its server.
    fn allowed(&self) -> String {
        let mark = self.orders.mark();
        ask_once(self.to_orders, "one order").unwrap();
        trace_of(
            &self
                .orders
                .wait_record(mark, &[("peer_id", STOREFRONT), ("result", "ok")]),
        )
    }

    /// A connection that is not; its trace, at its server.
    fn denied(&self) -> String {
        let mark = self.orders.mark();
        assert!(ask_once(self.from_reports, "one report").is_err());
        trace_of(
            &self
                .orders
                .wait_record(mark, &[("peer_id", REPORTS), ("reason", "no_allow_rule")]),
        )
    }
}

fn trace_of(record: &Value) -> String {
    let trace = record["trace_id"].as_str().unwrap();
    assert_eq!(trace.len(), 32, "{record}");
    trace.to_owned()
}

/// The spans of these phases lie one after the other in the root, as its children, and the last one may be an error.
fn assert_phases(receiver: &Receiver, root: &Value, phases: &[&str], status: &str) {
    let trace = root["trace_id"].as_str().unwrap();
    assert_eq!(root["parent_id"], NO_PARENT, "{root}");
    assert_eq!(root["status"], status, "{root}");
    let mut at = root["start"].as_i64().unwrap();
    for (place, phase) in phases.iter().enumerate() {
        let span = receiver.span(trace, phase);
        assert_eq!(span["parent_id"], root["span_id"], "{span}");
        assert_eq!(span["kind"], "Internal", "{span}");
        assert_eq!(span["start"], at, "{span}");
        at = span["end"].as_i64().unwrap();
        let last = place + 1 == phases.len();
        assert_eq!(span["status"], if last { status } else { "Unset" }, "{span}");
    }
    assert_eq!(root["end"], at, "{root}");
    let mut names = receiver.names(trace);
    names.sort_unstable();
    let mut expected: Vec<_> = phases.iter().map(ToString::to_string).collect();
    expected.push(root["name"].as_str().unwrap().to_owned());
    expected.sort_unstable();
    assert_eq!(names, expected);
}

fn assert_attributes(span: &Value, expected: &[(&str, &dyn Display)]) {
    for (name, value) in expected {
        let found = match &span["attributes"][name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(found, value.to_string(), "{name} in {span}");
    }
}

fn spans_arrive(program: &Path, flag: &str, protocol: &str) {
    let address = free_address();
    let receiver = Receiver::start(program, &[flag, &address.to_string()]);
    let world = World::start(&format!(
        "otlp: {{ endpoint: 'http://{address}', protocol: {protocol}, service_name: @ }}, sample: 1"
    ));

    let trace = world.allowed();
    let root = receiver.span(&trace, "inbound orders");
    assert_eq!(root["kind"], "Server", "{root}");
    assert_eq!(root["scope"], "svidecar");
    assert_eq!(root["resource"]["service.name"], "orders");
    let inbound = ["accept", "handshake", "authorize", "connect", "relay"];
    assert_phases(&receiver, &root, &inbound, "Unset");
    let instance = root["resource"]["service.instance.id"].as_str().unwrap();
    let decision = root["attributes"]["svidecar.decision_id"].as_str().unwrap();
    assert_eq!(decision.split_once('-').unwrap().0, instance, "{root}");
    let record = world
        .orders
        .wait_record(Mark::default(), &[("trace_id", trace.as_str())]);
    assert_attributes(
        &root,
        &[
            ("svidecar.listener", &"orders"),
            ("svidecar.peer_id", &STOREFRONT),
            ("svidecar.own_id", &ORDERS),
            ("svidecar.verdict", &"allow"),
            ("svidecar.rule", &"storefront"),
            ("svidecar.result", &"ok"),
            ("svidecar.decision_id", &record["decision_id"].as_str().unwrap()),
            ("svidecar.policy_generation", &1),
            ("svidecar.upstream", &world.application.addr()),
            ("svidecar.bytes_up", &record["bytes_up"]),
            ("network.transport", &"tcp"),
            ("client.address", &"127.0.0.1"),
            ("tls.protocol.version", &"1.3"),
        ],
    );

    // The other end of the same connection.
    let record = world
        .storefront
        .wait_record(Mark::default(), &[("peer_id", ORDERS)]);
    let root = receiver.span(&trace_of(&record), "outbound to-orders");
    assert_eq!(root["kind"], "Client", "{root}");
    assert_eq!(root["resource"]["service.name"], "storefront");
    let outbound = ["accept", "connect", "handshake", "authorize", "relay"];
    assert_phases(&receiver, &root, &outbound, "Unset");
    assert_attributes(
        &root,
        &[("server.address", &"127.0.0.1"), ("svidecar.peer_id", &ORDERS)],
    );

    let trace = world.denied();
    let root = receiver.span(&trace, "inbound orders");
    assert_phases(&receiver, &root, &["accept", "handshake", "authorize"], "Error");
    assert_attributes(
        &root,
        &[
            ("error.type", &"no_allow_rule"),
            ("svidecar.peer_id", &REPORTS),
            ("svidecar.verdict", &"deny"),
            ("svidecar.result", &"denied"),
        ],
    );
    let message = root["status_message"].as_str().unwrap();
    assert!(
        message.contains("no `allow` rule") || message.contains("nearest"),
        "{root}"
    );
    // Who was refused sees it in place of data.
    let record = world
        .reports
        .wait_record(Mark::default(), &[("reason", "refused_by_peer")]);
    let root = receiver.span(&trace_of(&record), "outbound to-orders");
    assert_phases(&receiver, &root, &outbound, "Error");

    assert_eq!(world.orders.metric("svidecar_spans_dropped_total"), Some(0.0));
    let accepted = "svidecar_otlp_exports_total{signal=\"traces\",result=\"accepted\"}";
    assert!(world.orders.metric(accepted) >= Some(1.0));
}

#[test]
fn spans_arrive_over_grpc() {
    let Some(program) = otlp_receiver() else { return };
    spans_arrive(program, "-grpc", "grpc");
}

#[test]
fn spans_arrive_over_http() {
    let Some(program) = otlp_receiver() else { return };
    spans_arrive(program, "-http", "http");
}

#[test]
fn a_collector_may_come_late_and_go_away_and_come_back() {
    let Some(program) = otlp_receiver() else { return };
    let address = free_address();
    let world = World::start(&format!("otlp: {{ endpoint: 'http://{address}' }}, sample: 1"));
    let start = || Receiver::start(program, &["-grpc", &address.to_string()]);
    let mut mark = world.orders.mark();
    for _ in 0..2 {
        let trace = world.allowed();
        let away = world.orders.wait_log("that nobody takes spans", mark, |line| {
            line["level"] == "WARN" && line["message"].as_str().unwrap().contains("cannot be sent")
        });
        assert_eq!(away["endpoint"], address.to_string());
        // It is tried again, and not said again but for whoever debugs.
        world.orders.wait_log("another try", mark, |line| {
            line["level"] == "DEBUG" && line["message"].as_str().unwrap().contains("still cannot be sent")
        });
        let receiver = start();
        let root = receiver.span(&trace, "inbound orders");
        assert_eq!(root["resource"]["service.name"], "svidecar");
        world.orders.wait_log("that they are sent again", mark, |line| {
            line["message"].as_str().unwrap().contains("are sent again")
        });
        // What comes next finds it there.
        let trace = world.allowed();
        receiver.span(&trace, "relay");
        mark = world.orders.mark();
    }
    assert_eq!(world.orders.metric("svidecar_spans_dropped_total"), Some(0.0));
    let failed = "svidecar_otlp_exports_total{signal=\"traces\",result=\"failed\"}";
    assert!(world.orders.metric(failed) >= Some(4.0));
}

#[test]
fn denials_are_sent_and_what_waits_is_sent_at_the_end() {
    let Some(program) = otlp_receiver() else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("otlp.sock");
    let socket = socket.to_str().unwrap();
    let receiver = Receiver::start(program, &["-grpc", socket]);
    let mut world = World::start(&format!("otlp: {{ endpoint: 'unix://{socket}' }}, sample: 0"));
    let (allowed, denied) = (world.allowed(), world.denied());
    assert!(world.orders.terminate(SOON).success());
    receiver.span(&denied, "authorize");
    // All that there is to come has come.
    assert_eq!(receiver.names(&denied).len(), 4);
    assert_eq!(receiver.names(&allowed), Vec::<String>::new());
}

/// The recommended way to a collector that is elsewhere: the sidecar's own listener takes the spans to the collector's
/// sidecar. An end of the process does not wait for that connection, and still sends what the others leave behind.
#[test]
fn a_collector_behind_a_listener_of_our_own() {
    const COLLECTOR: &str = "spiffe://example.org/collector";
    let Some(program) = otlp_receiver() else { return };
    let api = WorkloadApi::start("example.org", "1h", &[ORDERS, COLLECTOR]);
    let (application, plain) = (Echo::start(), free_address());
    let receiver = Receiver::start(program, &["-grpc", &plain.to_string()]);
    let (spans, tls, in_the_clear) = (free_address(), free_address(), free_address());
    let config = format!(
        "identity: {{ socket: '{}', svid: {COLLECTOR} }}\npolicy: {{ path: policy/ }}\n\
         inbound: [{{ name: spans, listen: '{spans}', upstream: '{plain}' }}]\n",
        api.address()
    );
    let policy = format!("rules: [{{ name: orders, action: allow, from: ['{ORDERS}'] }}]\n");
    let collector = Setup::new("collector", config).policy(&policy).start();
    collector.wait_ready();
    // It calls itself, so that one process has both kinds of connection.
    let config = format!(
        "identity: {{ socket: '{}', svid: {ORDERS} }}\npolicy: {{ path: policy/ }}\n\
         inbound: [{{ name: orders, listen: '{tls}', upstream: '{}' }}]\n\
         outbound:\n\
         - {{ name: to-orders, listen: '{in_the_clear}', connect: '{tls}', peer: ['{ORDERS}'] }}\n\
         - {{ name: telemetry, listen: '127.0.0.1:4317', connect: '{spans}', peer: ['{COLLECTOR}'] }}\n\
         telemetry: {{ traces: {{ otlp: {{ endpoint: 'http://127.0.0.1:4317' }}, sample: 1 }} }}\n",
        api.address(),
        application.addr(),
    )
    .replace("127.0.0.1:4317", &free_address().to_string());
    let mut orders = Setup::new("orders", config).policy(&policy).start();
    orders.wait_ready();

    ask_once(in_the_clear, "one order").unwrap();
    let record = orders.wait_record(Mark::default(), &[("listener", "orders")]);
    receiver.span(&trace_of(&record), "relay");

    let mut open = LineClient::connect(in_the_clear).unwrap();
    open.ask("another order").unwrap();
    let mark = orders.mark();
    orders.process().signal(Signal::TERM);
    orders.wait_log("that it ends", mark, |line| {
        line["message"].as_str().unwrap().contains("no new connections")
    });
    open.ask("the last order").unwrap();
    drop(open);
    let record = orders.wait_record(mark, &[("listener", "orders")]);
    receiver.span(&trace_of(&record), "relay");
    // The connection to the collector ends in order, and no `drain_timeout` is waited for.
    orders.wait_record(mark, &[("listener", "telemetry"), ("result", "ok")]);
    orders.wait_log("that nothing was cut", mark, |line| {
        line["message"]
            .as_str()
            .unwrap()
            .contains("every connection had finished")
    });
    assert!(orders.process_mut().wait(SOON).success());
}

#[test]
fn a_process_ends_in_time_without_a_collector() {
    let mut world = World::start(&format!(
        "otlp: {{ endpoint: 'http://{}' }}, sample: 1",
        free_address()
    ));
    world.allowed();
    assert!(world.orders.terminate(SOON).success());
}

#[test]
fn without_traces_there_is_no_trace_id() {
    let api = WorkloadApi::start("example.org", "1h", &[STOREFRONT]);
    let (listen, nowhere) = (free_address(), free_address());
    let config = format!(
        "identity: {{ socket: '{}' }}\n\
         outbound: [{{ name: out, listen: '{listen}', connect: '{nowhere}', peer: ['{ORDERS}'] }}]\n",
        api.address()
    );
    let sidecar = Setup::new("storefront", config).start();
    sidecar.wait_ready();
    assert!(ask_once(listen, "anybody?").is_err());
    let record = sidecar.wait_record(Mark::default(), &[("listener", "out")]);
    assert_eq!(record["trace_id"], Value::Null, "{record}");
}
