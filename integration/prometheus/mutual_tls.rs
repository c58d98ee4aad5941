//! A real Prometheus scrapes over mutual TLS, as docs/admin.md says: it asks an outbound listener of a sidecar of its own, in plain
//! HTTP, and policy at the other end decides.

use std::net::SocketAddr;

use super::support::net::free_address;
use super::support::process::Mark;
use super::support::sidecar::{Setup, Sidecar};
use super::support::workload_api::WorkloadApi;
use super::{ORDERS, Prometheus, REPORTS, have};

const PROMETHEUS: &str = "spiffe://example.org/ns/monitoring/sa/prometheus";

#[test]
fn metrics_are_scraped_through_the_sidecar_of_prometheus() {
    if !have(&["prometheus"]) {
        return;
    }
    let api = WorkloadApi::start("example.org", "1h", &[ORDERS, PROMETHEUS, REPORTS]);
    let scrape = free_address();
    let identity = |id: &str| format!("identity:\n  socket: {}\n  svid: {id}\n", api.address());
    let config = format!(
        "{}policy: {{ path: policy/ }}\ninbound:\n  - {{ name: scrape, listen: '{scrape}', serve: metrics }}\n",
        identity(ORDERS)
    );
    let policy = format!(
        "rules:\n  - {{ name: prometheus-scrapes, action: allow, to: [scrape], from: ['{PROMETHEUS}'] }}\n"
    );
    let orders = Setup::new("orders", config).policy(&policy).start();
    let caller = |name, id: &str| -> (Sidecar, SocketAddr) {
        let listen = free_address();
        let config = format!(
            "{}outbound:\n  - {{ name: orders-metrics, listen: '{listen}', connect: '{scrape}', peer: ['{ORDERS}'] }}\n",
            identity(id)
        );
        (Setup::new(name, config).start(), listen)
    };
    let (monitoring, good) = caller("monitoring", PROMETHEUS);
    let (reports, bad) = caller("reports", REPORTS);
    for sidecar in [&orders, &monitoring, &reports] {
        sidecar.wait_ready();
    }
    let prometheus = Prometheus::start(&[good, bad]);

    prometheus.wait(&format!("up{{instance='{good}'}}"), 1, |up| up == 1.0);
    let record = orders.wait_record(Mark::default(), &[("peer_id", PROMETHEUS), ("result", "ok")]);
    assert_eq!(
        (&record["upstream"], &record["rule"]),
        (&"metrics".into(), &"prometheus-scrapes".into())
    );
    // What came that way counts the scrapes themselves.
    let counted = "svidecar_authorization_decisions_total{rule='prometheus-scrapes',verdict='allow'}";
    prometheus.wait(counted, 1, |count| count >= 2.0);
    prometheus.wait("svidecar_build_info", 1, |one| one == 1.0);

    // Whoever has another SVID is denied by the same policy, and gets nothing.
    prometheus.wait(&format!("up{{instance='{bad}'}}"), 1, |up| up == 0.0);
    let denied = "svidecar_connections_total{listener='scrape',reason='no_allow_rule'}";
    prometheus.wait(denied, 1, |count| count >= 1.0);
}
