//! A real Prometheus takes the metrics of a running pair, evaluates our alert rules on them, and answers what our dashboard asks. Skipped,
//! loudly, where there is none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "prometheus/mutual_tls.rs"]
mod mutual_tls;
mod support;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use support::application::{Echo, ask_once};
use support::http::{self, Endpoint};
use support::net::free_address;
use support::process::{Process, output_of};
use support::sidecar::{Setup, Sidecar};
use support::workload_api::WorkloadApi;
use support::{SOON, eventually, on_path, skip};

const ORDERS: &str = "spiffe://example.org/orders";
const STOREFRONT: &str = "spiffe://example.org/storefront";
const REPORTS: &str = "spiffe://example.org/reports";

const DASHBOARD: &str = include_str!("../deploy/grafana/svidecar.json");

/// A file that is shipped for Prometheus.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/prometheus")
        .join(name)
}

/// Whether these programs are here.
fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !on_path(program)).collect();
    if !missing.is_empty() {
        skip(&format!("a real Prometheus: no {missing:?} on PATH"));
    }
    missing.is_empty()
}

/// Orders behind a sidecar, storefront, which it lets in, and reports, which it does not.
struct Scene {
    orders: Sidecar,
    storefront: Sidecar,
    _reports: Sidecar,
    /// Where the two applications connect.
    good: SocketAddr,
    bad: SocketAddr,
    _application: Echo,
    _api: WorkloadApi,
}

impl Scene {
    fn start() -> Self {
        let api = WorkloadApi::start("example.org", "1h", &[ORDERS, STOREFRONT, REPORTS]);
        let (application, tls) = (Echo::start(), free_address());
        let identity = |id: &str| format!("identity:\n  socket: {}\n  svid: {id}\n", api.address());
        let config = format!(
            "{}policy:\n  path: policy/\ninbound:\n  - name: orders\n    listen: {tls}\n    upstream: {}\n",
            identity(ORDERS),
            application.addr()
        );
        let policy =
            format!("rules:\n  - name: storefront\n    action: allow\n    from: [\"{STOREFRONT}\"]\n");
        let orders = Setup::new("orders", config).policy(&policy).start();
        let outbound = |name, id: &str| {
            let listen = free_address();
            let config = format!(
                "{}outbound:\n  - name: to-orders\n    listen: {listen}\n    connect: {tls}\n    peer: [\"{ORDERS}\"]\n",
                identity(id)
            );
            (Setup::new(name, config).start(), listen)
        };
        let (storefront, good) = outbound("storefront", STOREFRONT);
        let (reports, bad) = outbound("reports", REPORTS);
        for sidecar in [&orders, &storefront, &reports] {
            sidecar.wait_ready();
        }
        Self {
            orders,
            storefront,
            _reports: reports,
            good,
            bad,
            _application: application,
            _api: api,
        }
    }

    /// One connection that is let in and one that is denied.
    fn traffic(&self) {
        ask_once(self.good, "hello").unwrap();
        ask_once(self.bad, "hello").unwrap_err();
    }
}

/// A Prometheus that scrapes these.
struct Prometheus {
    _process: Process,
    addr: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    fn start(targets: &[SocketAddr]) -> Self {
        let folder = TempDir::with_prefix("svidecar-prometheus-").unwrap();
        let addr = free_address();
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 250ms, evaluation_interval: 500ms }}\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: svidecar\n    static_configs: [{{ targets: [{}] }}]\n",
            shipped("svidecar.rules.yaml").display(),
            targets.join(", ")
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--enable-feature=exemplar-storage");
        Self {
            _process: Process::start("prometheus", &mut command),
            addr,
            _folder: folder,
        }
    }

    /// What its API answers, where it answers well.
    fn ask(&self, path: &str) -> Option<Value> {
        let response = http::get(&Endpoint::Tcp(self.addr), path).ok()?;
        let answer: Value = serde_json::from_str(&response.body).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// The series of an instant query, each with its value; `None` where it is no query to Prometheus.
    fn query(&self, expression: &str) -> Option<Vec<(Value, f64)>> {
        let data = self.ask(&format!("/api/v1/query?query={}", in_url(expression)))?;
        let series = data["result"].as_array()?.iter();
        series
            .map(|one| Some((one["metric"].clone(), one["value"][1].as_str()?.parse().ok()?)))
            .collect()
    }

    /// Waits until each of the series of a query has a value that holds, and there are so many.
    fn wait(&self, expression: &str, count: usize, holds: impl Fn(f64) -> bool) -> Vec<(Value, f64)> {
        eventually(expression, SOON, || {
            self.query(expression)
                .filter(|found| found.len() == count && found.iter().all(|(_, value)| holds(*value)))
        })
    }
}

/// As a value in a query of a URL.
fn in_url(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn prometheus_takes_our_metrics_and_evaluates_our_rules() {
    if !have(&["prometheus"]) {
        return;
    }
    let scene = Scene::start();
    let prometheus = Prometheus::start(&[scene.orders.admin(), scene.storefront.admin()]);
    prometheus.wait("up", 2, |up| up == 1.0);
    scene.traffic();

    // What is counted, by which labels.
    let found = prometheus.wait("svidecar_connections_total{result!='ok'} > 0", 1, |_| true);
    assert_eq!(found[0].0["reason"], "no_allow_rule", "{found:?}");
    assert_eq!(found[0].0["listener"], "orders", "{found:?}");
    let expression = "svidecar_authorization_decisions_total{verdict='allow',rule='storefront'}";
    prometheus.wait(expression, 1, |count| count == 1.0);
    prometheus.wait("svidecar_svid_expiry_timestamp_seconds - time()", 2, |left| {
        left > 3000.0 && left <= 3600.0
    });
    prometheus.wait("svidecar_build_info", 2, |one| one == 1.0);

    // Counters and histograms are such that a rate can be taken of them, and counts move.
    for expression in [
        "rate(svidecar_connections_total{listener='orders',reason='finished'}[1m])",
        "rate(svidecar_bytes_total{listener='orders',flow='up'}[1m])",
        "histogram_quantile(0.9, sum by (le) (rate(svidecar_handshake_seconds_bucket{listener='orders'}[1m])))",
        "sum(rate(process_cpu_seconds_total[1m]))",
    ] {
        eventually(expression, SOON, || {
            scene.traffic();
            let found = prometheus.query(expression)?;
            (found.len() == 1 && found[0].1 > 0.0).then_some(())
        });
    }
    let types = prometheus
        .ask("/api/v1/metadata?metric=svidecar_connections")
        .unwrap();
    assert_eq!(types["svidecar_connections"][0]["type"], "counter", "{types}");

    exemplars_name_verdicts(&scene, &prometheus);
    rules_are_evaluated(&prometheus);
    the_dashboard_is_answered(&scene, &prometheus);
}

/// From a series to the verdict behind it.
fn exemplars_name_verdicts(scene: &Scene, prometheus: &Prometheus) {
    let path = format!(
        "/api/v1/query_exemplars?query={}&start=0&end=9999999999",
        in_url("svidecar_authorization_decisions_total{verdict='deny'}")
    );
    let id = eventually("an exemplar", SOON, || {
        let data = prometheus.ask(&path)?;
        let exemplars = data[0]["exemplars"].as_array()?;
        Some(exemplars.last()?["labels"]["decision_id"].as_str()?.to_owned())
    });
    let verdict = scene
        .orders
        .get(&format!("/api/v1/decisions/{id}"))
        .unwrap()
        .json();
    assert_eq!(
        (&verdict["verdict"], &verdict["peer_id"]),
        (&"deny".into(), &REPORTS.into())
    );
}

/// Every rule was evaluated without an error, and those fire that should: none that is said at once.
fn rules_are_evaluated(prometheus: &Prometheus) {
    let groups = eventually("all rules are evaluated", SOON, || {
        let data = prometheus.ask("/api/v1/rules")?;
        let groups = data["groups"].as_array()?.clone();
        let mut rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        rules.all(|rule| rule["health"] != "unknown").then_some(groups)
    });
    let rules: Vec<&Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert!(rules.len() >= 15, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
}

/// The expressions of the dashboard, with the choices that a person makes.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(expression) = fields.get("expr").and_then(Value::as_str) {
                let mut expression = expression.to_owned();
                for (variable, chosen) in [
                    ("$__rate_interval", "1m"),
                    ("$__range", "3h"),
                    ("$job", ".*"),
                    ("$instance", ".*"),
                    ("$listener", ".*"),
                ] {
                    expression = expression.replace(variable, chosen);
                }
                assert!(!expression.contains('$'), "{expression}");
                found.push(expression);
            }
            fields.values().for_each(|inner| expressions(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| expressions(inner, found)),
        _ => {}
    }
}

/// What has no series where nothing fails, changes or is lost, no candidate is asked, and nothing is sent to a collector: parts of expressions.
const QUIET: &[&str] = &[
    "changes(svidecar_policy_generation",
    "result=\"failure\"}[1m]) > 0",
    "svidecar_workload_api_connected{job=~\".*\",instance=~\".*\"} == 0",
    "verdict=\"deny\",rule!=\"\"",
    "svidecar_policy_candidate_divergences_total",
    "svidecar_renewals_total",
    "svidecar_log_lines_dropped_total{job=~\".*\",instance=~\".*\"}[1m])) > 0",
    "svidecar_access_log_lines_dropped_total{job=~\".*\",instance=~\".*\"}[1m])) > 0",
    "svidecar_decisions_dropped_total{job=~\".*\",instance=~\".*\"}[1m])) > 0",
    "svidecar_spans_dropped_total{job=~\".*\",instance=~\".*\"}[1m])) > 0",
    "svidecar_audit_lost_total{job=~\".*\",instance=~\".*\"}[1m])) > 0",
    "svidecar_audit_sink_lost_total",
    "svidecar_audit_sink_lag_records",
    "svidecar_otlp_exports_total",
];

fn the_dashboard_is_answered(scene: &Scene, prometheus: &Prometheus) {
    let mut all = Vec::new();
    expressions(&serde_json::from_str(DASHBOARD).unwrap(), &mut all);
    assert!(all.len() > 40, "{all:?}");
    for part in QUIET {
        assert!(all.iter().any(|one| one.contains(part)), "{part}");
    }
    for expression in &all {
        if QUIET.iter().any(|part| expression.contains(part)) {
            assert!(prometheus.query(expression).is_some(), "no query: {expression}");
            continue;
        }
        eventually(expression, SOON, || {
            let found = prometheus.query(expression)?;
            if found.is_empty() {
                // A rate needs two scrapes with something between them.
                scene.traffic();
            }
            (!found.is_empty()).then_some(())
        });
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    if !have(&["promtool"]) {
        return;
    }
    output_of(
        Command::new("promtool")
            .args(["check", "rules"])
            .arg(shipped("svidecar.rules.yaml")),
        SOON,
    );
    let tests = shipped("svidecar.rules.test.yaml");
    output_of(Command::new("promtool").args(["test", "rules"]).arg(tests), SOON);

    let scene = Scene::start();
    scene.traffic();
    for sidecar in [&scene.orders, &scene.storefront] {
        let text = sidecar.get("/metrics").unwrap().body;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && words.is_empty(), "{words}");
    }
}

/// Every alert is shown to fire.
#[test]
fn every_rule_has_a_test() {
    let rules = fs::read_to_string(shipped("svidecar.rules.yaml")).unwrap();
    let tests = fs::read_to_string(shipped("svidecar.rules.test.yaml")).unwrap();
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        // One on several lines says what is expected; one on a single line says that nothing is.
        let fires = tests.contains(&format!("- alertname: {alert}\n"));
        assert!(fires, "{alert}");
    }
}
