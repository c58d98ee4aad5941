//! Applications that call each other, and know nothing of the sidecars between them.

use std::net::SocketAddr;

use crate::pods::{Config, ORDERS, Pod, Pods, Running, STOREFRONT, a, assert_refused, assert_reset, b};
use crate::support::{SOON, eventually};

/// The port of each application.
const APP: u16 = 8080;
/// Where nobody is intercepted who comes in.
const OTHER: u16 = 9090;

fn destinations(to: &[SocketAddr], peer: &str, more: &str) -> String {
    let to: Vec<String> = to.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "outbound:\n  - name: mesh\n    listen: \"[::]:15001\"\n    transparent: true\n    destinations: [{{ to: [{}], peer: [\"{peer}\"] }}]\n{more}",
        to.join(", ")
    )
}

const INBOUND: &str =
    "inbound:\n  - name: app\n    listen: \"[::]:15006\"\n    transparent: true\n    ports: [8080]\n";

fn allow(id: &str) -> String {
    format!("rules:\n  - {{ name: one, action: allow, from: [\"{id}\"] }}\n")
}

/// Rules and a sidecar in a pod.
fn mesh(pod: &Pod, config: &Config, options: &[&str]) -> Running {
    pod.intercept(&config.path, &[&["--apply"], options].concat());
    config.run(pod)
}

/// Storefront in `a`, which knows orders, and orders in `b`.
struct Scene {
    pods: Pods,
    a: Running,
    b: Running,
    orders: crate::pods::Application,
    _configs: [Config; 2],
}

impl Scene {
    /// Both sidecars; `allowed` may call orders. With further lines of the outbound listener, and options of its rules.
    fn start(allowed: &str, peer: &str, more: &str, options: &[&str]) -> Option<Self> {
        let pods = Pods::start()?;
        let near = pods.config(STOREFRONT, &destinations(&b(APP), peer, more), "");
        let far = pods.config(ORDERS, INBOUND, &allow(allowed));
        let orders = pods.b.serve(APP);
        Some(Self {
            a: mesh(&pods.a, &near, options),
            b: mesh(&pods.b, &far, &[]),
            orders,
            pods,
            _configs: [near, far],
        })
    }
}

#[test]
fn applications_talk_over_mutual_tls_both_ways_and_over_both_families() {
    let Some(pods) = Pods::start() else { return };
    let storefront = format!("{INBOUND}{}", destinations(&b(APP), ORDERS, ""));
    let orders = format!("{INBOUND}{}", destinations(&a(APP), STOREFRONT, ""));
    let configs = [
        pods.config(STOREFRONT, &storefront, &allow(ORDERS)),
        pods.config(ORDERS, &orders, &allow(STOREFRONT)),
    ];
    let (app_a, app_b) = (pods.a.serve(APP), pods.b.serve(APP));
    let (side_a, side_b) = (mesh(&pods.a, &configs[0], &[]), mesh(&pods.b, &configs[1], &[]));
    let there = (&pods.a, &side_a, &side_b, b(APP), &app_b, STOREFRONT, ORDERS);
    let back = (&pods.b, &side_b, &side_a, a(APP), &app_a, ORDERS, STOREFRONT);
    for (pod, near, far, addresses, app, caller, called) in [there, back] {
        for (number, address) in addresses.into_iter().enumerate() {
            let (out, come) = (near.mark(), far.mark());
            pod.ask(address).unwrap();
            let destination = address.to_string();
            let fields = [("listener", "mesh"), ("reason", "finished"), ("peer_id", called)];
            let record = near.wait_record(out, &fields);
            assert_eq!(
                (&record["destination"], &record["upstream"]),
                (&destination.clone().into(), &destination.clone().into())
            );
            let fields = [("listener", "app"), ("reason", "finished"), ("peer_id", caller)];
            let record = far.wait_record(come, &fields);
            assert_eq!(
                (&record["destination"], &record["upstream"]),
                (&destination.clone().into(), &destination.into())
            );
            assert_eq!(app.accepted(), number + 1);
        }
    }
}

#[test]
fn an_open_connection_shows_where_it_was_meant_to_go() {
    let Some(scene) = Scene::start(STOREFRONT, ORDERS, "", &[]) else {
        return;
    };
    let address = b(APP)[0];
    let mut client = scene.pods.a.connect(address).unwrap();
    client.ask("hello").unwrap();
    for side in [&scene.a, &scene.b] {
        let open = side.get("/api/v1/connections");
        let text = open.to_string();
        assert!(text.contains(&format!("\"destination\":\"{address}\"")), "{text}");
    }
}

#[test]
fn whom_policy_denies_is_refused_and_whom_nobody_expects_too() {
    let Some(scene) = Scene::start("spiffe://example.org/somebody", ORDERS, "", &[]) else {
        return;
    };
    for address in b(APP) {
        let (near, far) = (scene.a.mark(), scene.b.mark());
        assert_reset(scene.pods.a.ask(address));
        scene
            .b
            .wait_record(far, &[("reason", "no_allow_rule"), ("peer_id", STOREFRONT)]);
        scene.a.wait_record(near, &[("reason", "refused_by_peer")]);
    }
    assert_eq!(scene.orders.accepted(), 0);
    drop(scene);

    let Some(scene) = Scene::start(STOREFRONT, "spiffe://example.org/somebody", "", &[]) else {
        return;
    };
    let near = scene.a.mark();
    assert_reset(scene.pods.a.ask(b(APP)[0]));
    scene
        .a
        .wait_record(near, &[("reason", "peer_not_expected"), ("peer_id", ORDERS)]);
    assert_eq!(scene.orders.accepted(), 0);
}

#[test]
fn what_no_destination_names_is_refused() {
    let Some(scene) = Scene::start(STOREFRONT, ORDERS, "", &[]) else {
        return;
    };
    let other = scene.pods.b.serve(OTHER);
    for address in b(OTHER) {
        let near = scene.a.mark();
        assert_reset(scene.pods.a.ask(address));
        let record = scene.a.wait_record(near, &[("reason", "destination_not_listed")]);
        assert_eq!(record["destination"], address.to_string());
    }
    assert_eq!(other.accepted(), 0);
}

#[test]
fn what_no_destination_names_is_passed_on_where_the_config_says_so() {
    let more = "    unmatched: passthrough\n";
    let Some(scene) = Scene::start(STOREFRONT, ORDERS, more, &[]) else {
        return;
    };
    let status = scene.a.get("/api/v1/status");
    let upstream = status["listeners"][0]["upstream"].as_str().unwrap();
    assert!(upstream.contains("PLAIN TEXT"), "{upstream}");
    let other = scene.pods.b.serve(OTHER);
    for address in b(OTHER) {
        let near = scene.a.mark();
        scene.pods.a.ask(address).unwrap();
        let record = scene.a.wait_record(near, &[("reason", "passed_through")]);
        let text = address.to_string();
        assert_eq!(
            (&record["destination"], &record["upstream"]),
            (&text.clone().into(), &text.into())
        );
        assert_eq!(
            (&record["bytes_up"], &record["bytes_down"]),
            (&6.into(), &6.into())
        );
        assert_eq!(
            (&record["verdict"], &record["peer_id"]),
            (&"none".into(), &serde_json::Value::Null)
        );
    }
    assert_eq!(other.accepted(), 2);
    // What is listed is protected all the same.
    let near = scene.a.mark();
    scene.pods.a.ask(b(APP)[0]).unwrap();
    scene
        .a
        .wait_record(near, &[("reason", "finished"), ("peer_id", ORDERS)]);
    // Nobody is there.
    let near = scene.a.mark();
    assert_reset(scene.pods.a.ask(b(OTHER + 1)[0]));
    scene.a.wait_record(near, &[("reason", "connect_failed")]);
}

#[test]
fn what_the_rules_leave_out_goes_its_own_way() {
    let options = ["--exclude-outbound-ports", "9090"];
    let Some(scene) = Scene::start(STOREFRONT, ORDERS, "", &options) else {
        return;
    };
    let other = scene.pods.b.serve(OTHER);
    let near = scene.a.mark();
    for address in b(OTHER) {
        scene.pods.a.ask(address).unwrap();
    }
    assert_eq!((other.accepted(), scene.a.records_since(near)), (2, 0));
    // To itself, too.
    scene.pods.b.ask(b(APP)[0]).unwrap();
    assert_eq!(scene.orders.accepted(), 1);
}

#[test]
fn a_caller_without_a_sidecar_does_not_reach_the_application() {
    let Some(scene) = Scene::start(STOREFRONT, ORDERS, "", &["--exclude-outbound-ports", "8080"]) else {
        return;
    };
    for address in b(APP) {
        let far = scene.b.mark();
        scene.pods.a.ask(address).unwrap_err();
        scene
            .b
            .wait_record(far, &[("listener", "app"), ("reason", "not_tls")]);
    }
    assert_eq!(scene.orders.accepted(), 0);
}

#[test]
fn a_transparent_listener_that_is_called_by_itself_refuses() {
    let Some(scene) = Scene::start(
        STOREFRONT,
        ORDERS,
        "",
        &["--exclude-outbound-ports", "15006,15001"],
    ) else {
        return;
    };
    let loopback = |port| {
        [
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
        ]
    };
    for address in loopback(15001).into_iter().chain(a(15001)) {
        let near = scene.a.mark();
        assert_reset(scene.pods.a.ask(address));
        scene
            .a
            .wait_record(near, &[("listener", "mesh"), ("reason", "not_intercepted")]);
    }
    // From another pod, too.
    let near = scene.a.mark();
    assert_reset(scene.pods.b.ask(a(15001)[0]));
    scene
        .a
        .wait_record(near, &[("listener", "mesh"), ("reason", "not_intercepted")]);
    for address in b(15006) {
        let far = scene.b.mark();
        assert_reset(scene.pods.a.ask(address));
        scene
            .b
            .wait_record(far, &[("listener", "app"), ("reason", "not_intercepted")]);
    }
}

#[test]
fn a_sidecar_whose_own_connections_come_back_to_it_refuses_them() {
    for more in ["", "    unmatched: passthrough\n"] {
        let Some(scene) = Scene::start(STOREFRONT, ORDERS, more, &["--uid", "1"]) else {
            return;
        };
        scene.pods.b.serve(OTHER);
        for address in [b(APP), b(OTHER)].concat() {
            if more.is_empty() && address.port() == OTHER {
                continue;
            }
            let near = scene.a.mark();
            scene.pods.a.ask(address).unwrap_err();
            let record = scene.a.wait_record(near, &[("reason", "loop_detected")]);
            assert!(record["detail"].as_str().unwrap().contains("--uid"), "{record}");
        }
        assert_eq!(scene.orders.accepted(), 0);
        // It ended by itself, and the sidecar is none the worse.
        eventually("no connection is left", SOON, || {
            let open = scene.a.get("/api/v1/connections");
            open["connections"]
                .as_array()
                .is_none_or(Vec::is_empty)
                .then_some(())
        });
    }
}

#[test]
fn without_the_sidecar_nothing_flows_until_the_rules_are_removed() {
    let Some(scene) = Scene::start(STOREFRONT, ORDERS, "", &[]) else {
        return;
    };
    let Scene {
        pods,
        a,
        b: far,
        orders,
        ..
    } = scene;
    let addresses = b(APP);
    pods.a.ask(addresses[0]).unwrap();
    let (accepted, near) = (orders.accepted(), a.mark());
    // The other one's is gone: whoever calls hears nothing of the application behind it.
    drop(far);
    for address in addresses {
        assert_reset(pods.a.ask(address));
        a.wait_record(near, &[("reason", "connect_failed")]);
    }
    // Our own is gone: the application is refused.
    drop(a);
    for address in addresses {
        assert_refused(pods.a.ask(address));
    }
    assert_eq!(orders.accepted(), accepted);
    for pod in [&pods.a, &pods.b] {
        let mut remove = pod.command(crate::support::sidecar::SVIDECAR);
        crate::support::process::output_of(remove.args(["intercept", "--remove"]), crate::support::SOON);
    }
    for address in addresses {
        pods.a.ask(address).unwrap();
    }
    assert_eq!(orders.accepted(), accepted + 2);
}
