//! svidecar and go-spiffe, which share no line of code: as client and server of each other, and go-spiffe as a client
//! of the embedded Workload API. Skipped, loudly, where there is no Go or its modules cannot be had.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::SOON;
use support::application::{Echo, ask_once};
use support::go::{Peer, program};
use support::net::free_address;
use support::process::Mark;
use support::sidecar::{Setup, Sidecar};
use support::workload_api::WorkloadApi;

const ORDERS: &str = "spiffe://example.org/orders";
const STOREFRONT: &str = "spiffe://example.org/storefront";
const REPORTS: &str = "spiffe://example.org/reports";

fn workload_api() -> WorkloadApi {
    WorkloadApi::start("example.org", "1h", &[ORDERS, STOREFRONT, REPORTS])
}

/// A sidecar before an application, which lets storefront in.
fn orders_sidecar(api: &WorkloadApi, listen: SocketAddr, upstream: SocketAddr) -> Sidecar {
    let config = format!(
        "identity:\n  socket: {}\n  svid: {ORDERS}\npolicy:\n  path: policy/\ninbound:\n  - name: orders\n    \
         listen: {listen}\n    upstream: {upstream}\n",
        api.address()
    );
    let policy = format!("rules:\n  - name: storefront\n    action: allow\n    from: [\"{STOREFRONT}\"]\n");
    let sidecar = Setup::new("orders", config).policy(&policy).start();
    sidecar.wait_ready();
    sidecar
}

/// A sidecar that takes an application to whoever listens at `connect` and is orders.
fn storefront_sidecar(api: &WorkloadApi, listen: SocketAddr, connect: &str) -> Sidecar {
    let config = format!(
        "identity:\n  socket: {}\n  svid: {STOREFRONT}\noutbound:\n  - name: to-orders\n    listen: {listen}\n    \
         connect: {connect}\n    peer: [\"{ORDERS}\"]\n",
        api.address()
    );
    let sidecar = Setup::new("storefront", config).start();
    sidecar.wait_ready();
    sidecar
}

#[test]
fn a_go_client_is_let_in_by_its_id() {
    let Some(go) = program() else { return };
    let (api, application, tls) = (workload_api(), Echo::start(), free_address());
    let sidecar = orders_sidecar(&api, tls, application.addr());
    let (socket, connect) = (api.address(), tls.to_string());
    let arguments = [
        "client", "-socket", &socket, "-connect", &connect, "-peer", ORDERS, "-id", STOREFRONT,
    ];
    let client = Peer::start("go client", go, &[&arguments[..], &["-lines", "100"]].concat());

    let connected = client.wait_event("connected");
    assert_eq!(connected["version"], "TLS 1.3");
    // Both offer it first; without it the connection would be open to who records now and decrypts later.
    assert_eq!(connected["group"], "X25519MLKEM768");
    client.wait_event("done");
    let record = sidecar.wait_record(Mark::default(), &[("peer_id", STOREFRONT), ("result", "ok")]);
    assert_eq!(record["bytes_up"], record["bytes_down"], "{record}");
}

#[test]
fn a_go_client_that_no_rule_names_is_told_so() {
    let Some(go) = program() else { return };
    let (api, application, tls) = (workload_api(), Echo::start(), free_address());
    let sidecar = orders_sidecar(&api, tls, application.addr());
    let (socket, connect) = (api.address(), tls.to_string());
    let client = Peer::start(
        "go client",
        go,
        &[
            "client", "-socket", &socket, "-connect", &connect, "-peer", ORDERS, "-id", REPORTS,
        ],
    );
    let error = client.wait_event("error");
    // The alert, not a reset that swallowed it.
    assert!(
        error["error"].as_str().unwrap().contains("access denied"),
        "{error}"
    );
    sidecar.wait_record(
        Mark::default(),
        &[("peer_id", REPORTS), ("reason", "no_allow_rule")],
    );
    assert_eq!(application.accepted(), 0);
}

#[test]
fn a_go_client_of_a_strange_trust_domain_is_told_so() {
    let Some(go) = program() else { return };
    let (api, application, tls) = (workload_api(), Echo::start(), free_address());
    let sidecar = orders_sidecar(&api, tls, application.addr());
    // Another authority under the same name: only the signature tells them apart. The client would not trust us
    // either, so it must not look.
    let strange = WorkloadApi::start("strange.example", "1h", &["spiffe://strange.example/storefront"]);
    let (socket, connect) = (strange.address(), tls.to_string());
    let client = Peer::start(
        "go client",
        go,
        &[
            "client",
            "-socket",
            &socket,
            "-connect",
            &connect,
            "-trust-anyone",
        ],
    );
    let error = client.wait_event("error");
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("unknown certificate authority"),
        "{error}"
    );
    sidecar.wait_record(
        Mark::default(),
        &[("reason", "unknown_trust_domain"), ("result", "refused")],
    );
    assert_eq!(application.accepted(), 0);
}

#[test]
fn a_go_server_is_reached() {
    let Some(go) = program() else { return };
    let (api, plain) = (workload_api(), free_address());
    let socket = api.address();
    let server = Peer::start(
        "go server",
        go,
        &["server", "-socket", &socket, "-id", ORDERS, "-peer", STOREFRONT],
    );
    let listening = server.wait_event("listening");
    let sidecar = storefront_sidecar(&api, plain, listening["addr"].as_str().unwrap());

    ask_once(plain, "one order").unwrap();
    assert_eq!(server.wait_event("connection")["peer_id"], STOREFRONT);
    sidecar.wait_record(
        Mark::default(),
        &[("peer_id", ORDERS), ("own_id", STOREFRONT), ("result", "ok")],
    );
}

#[test]
fn a_go_server_that_refuses_us_is_told_apart_from_a_failure() {
    let Some(go) = program() else { return };
    let (api, plain) = (workload_api(), free_address());
    let socket = api.address();
    let server = Peer::start(
        "go server",
        go,
        &["server", "-socket", &socket, "-id", ORDERS, "-peer", REPORTS],
    );
    let listening = server.wait_event("listening");
    let sidecar = storefront_sidecar(&api, plain, listening["addr"].as_str().unwrap());

    assert!(ask_once(plain, "one order").is_err());
    server.wait_event("refused");
    sidecar.wait_record(
        Mark::default(),
        &[("peer_id", ORDERS), ("reason", "refused_by_peer")],
    );
}

#[test]
fn a_go_server_with_another_id_gets_no_byte() {
    let Some(go) = program() else { return };
    let (api, plain) = (workload_api(), free_address());
    let socket = api.address();
    let server = Peer::start("go server", go, &["server", "-socket", &socket, "-id", REPORTS]);
    let listening = server.wait_event("listening");
    let sidecar = storefront_sidecar(&api, plain, listening["addr"].as_str().unwrap());

    assert!(ask_once(plain, "one order").is_err());
    sidecar.wait_record(
        Mark::default(),
        &[("peer_id", REPORTS), ("reason", "peer_not_expected")],
    );
    // What it saw was an end before the first line.
    server.wait_event("refused");
}

/// Any SPIFFE client can use the embedded Workload API: go-spiffe's sources get SVIDs and bundles from it, and see
/// them renewed before they end.
#[test]
fn a_go_source_lives_on_the_embedded_workload_api() {
    let Some(go) = program() else { return };
    let api = WorkloadApi::start("example.org", "10s", &[STOREFRONT]);
    let socket = api.address();
    let watcher = Peer::start("go watcher", go, &["watch", "-socket", &socket]);
    let first = watcher.wait_event("svid");
    assert_eq!(first["id"], STOREFRONT);
    let bundle = watcher.wait_event("bundle");
    assert_eq!(bundle["trust_domain"], "example.org");
    assert!(bundle["authorities"].as_u64().unwrap() >= 1);

    let second = watcher.wait_event_since(Mark::default(), "svid", SOON, |event| {
        event["serial"] != first["serial"]
    });
    assert!(
        second["not_after"].as_str() > first["not_after"].as_str(),
        "{first} {second}"
    );
    watcher.wait_event_since(Mark::default(), "svid", SOON + Duration::from_secs(10), |event| {
        event["serial"] != first["serial"] && event["serial"] != second["serial"]
    });
}
