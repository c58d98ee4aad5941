//! The README's policy tutorial, walked on the built binary with the files of `config/tutorial`: a policy is written,
//! tested, held against yesterday's decisions, rolled out as a candidate and switched on; a forbidden open connection
//! closes with its reason, and one denial's id tells what to change.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::plain::{self, Door, exchange};
use crate::support::http::{self, Endpoint};
use crate::support::net::free_address;
use crate::support::process::{Mark, Process, output_of, try_output_of};
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, eventually};
use crate::world::{Api, ORDERS, REPORTS, STOREFRONT};

/// The tutorial's folder in a place of its own, with addresses of its own.
struct Walk {
    folder: TempDir,
    _api: Api,
    app: Door,
    admin: SocketAddr,
    storefront: SocketAddr,
    reports: SocketAddr,
    orders: Process,
    _others: [Process; 2],
}

impl Walk {
    fn begin() -> Self {
        let folder = TempDir::with_prefix("svidecar-tutorial-").unwrap();
        let api = Api::start(&[ORDERS, STOREFRONT, REPORTS]);
        let (app, tls, admin) = (Door::open(), free_address(), free_address());
        let (storefront, reports) = (free_address(), free_address());
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tutorial");
        for part in ["policy", "draft"] {
            copy_files(&original.join(part), &folder.path().join(part));
        }
        fs::create_dir(folder.path().join("log")).unwrap();
        for name in ["orders.yaml", "storefront.yaml", "reports.yaml"] {
            let text = fs::read_to_string(original.join(name))
                .unwrap()
                .replace(
                    "/tmp/svidecar-tutorial/agent.sock",
                    &api.socket().display().to_string(),
                )
                .replace("127.0.0.1:8443", &tls.to_string())
                .replace("127.0.0.1:8080", &app.addr().to_string())
                .replace("127.0.0.1:15000", &admin.to_string())
                .replace("127.0.0.1:9001", &storefront.to_string())
                .replace("127.0.0.1:9002", &reports.to_string());
            fs::write(folder.path().join(name), text).unwrap();
        }
        let run = |name: &str| {
            let mut command = svidecar(folder.path());
            Process::start(
                name,
                command.args(["run", "--config"]).arg(format!("{name}.yaml")),
            )
        };
        Self {
            orders: run("orders"),
            _others: [run("storefront"), run("reports")],
            folder,
            _api: api,
            app,
            admin,
            storefront,
            reports,
        }
    }

    fn get(&self, path: &str) -> Value {
        http::get(&Endpoint::Tcp(self.admin), path).unwrap().json()
    }

    /// A connection through a sidecar to the application, once everything is up.
    fn call(&self, door: SocketAddr) {
        let (mut near, mut far) = eventually("a connection gets through", SOON, || {
            let mut near = std::net::TcpStream::connect(door).ok()?;
            near.set_read_timeout(Some(SOON)).unwrap();
            // Refused while a sidecar has no identity yet: nobody comes to the application then.
            std::io::Write::write_all(&mut near, b"?").ok()?;
            let mut far = self.app.try_accept()?;
            let mut word = [0];
            far.read_exact(&mut word).ok()?;
            Some((near, far))
        });
        exchange(&mut near, &mut far, "an order");
    }

    fn policy(&self, arguments: &[&str]) -> String {
        output_of(svidecar(self.folder.path()).arg("policy").args(arguments), SOON)
    }

    /// What `policy` says when it exits otherwise than with 0.
    fn policy_fails(&self, arguments: &[&str]) -> String {
        try_output_of(svidecar(self.folder.path()).arg("policy").args(arguments), SOON).unwrap_err()
    }
}

fn svidecar(folder: &Path) -> Command {
    let mut command = Command::new(SVIDECAR);
    command.current_dir(folder).env_remove("SPIFFE_ENDPOINT_SOCKET");
    command
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn record(line: &str, field: &str, value: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line)
        .ok()
        .filter(|line| line[field] == value)
}

#[test]
fn a_policy_goes_from_draft_to_force() {
    let walk = Walk::begin();
    let decisions = walk.folder.path().join("log/decisions.jsonl");

    // Yesterday: both call orders, and what was decided is on file.
    walk.call(walk.storefront);
    walk.call(walk.reports);
    let recorded = |peer: &str| {
        eventually("the decision is on file", SOON, || {
            let text = fs::read_to_string(&decisions).ok()?;
            text.lines().find_map(|line| record(line, "peer_id", peer))
        })
    };
    assert_eq!(recorded(STOREFRONT)["rule"], "everybody-here");
    assert_eq!(recorded(REPORTS)["verdict"], "allow");
    let suggested = walk.policy(&["suggest", "--from", "log/decisions.jsonl"]);
    assert!(
        suggested.contains(REPORTS) && suggested.contains(STOREFRONT),
        "{suggested}"
    );

    // Written, and tested.
    let tested = walk.policy(&["test", "draft", "--coverage", "--junit", "junit.xml"]);
    assert!(tested.contains("2 passed, 0 failed"), "{tested}");
    assert!(tested.contains("1 of 1 rule matched"), "{tested}");
    let junit = fs::read_to_string(walk.folder.path().join("junit.xml")).unwrap();
    assert!(junit.contains("tests=\"2\" failures=\"0\""), "{junit}");
    // The old policy does not pass them.
    let of_old = fs::read_to_string(walk.folder.path().join("draft/orders.test.yaml"))
        .unwrap()
        .replace("policy: orders.yaml", "policy: policy/")
        .replace("    by: storefront-orders\n", "");
    fs::write(walk.folder.path().join("old.test.yaml"), of_old).unwrap();
    let failed = walk.policy_fails(&["test", "old.test.yaml"]);
    assert!(failed.contains("exit status: 1"), "{failed}");
    assert!(
        failed.contains("expected deny, got allow by rule `everybody-here` (policy/orders.yaml:2)"),
        "{failed}"
    );

    // What would it change?
    let diff = walk.policy(&["diff", "policy", "draft", "--against", "log/decisions.jsonl"]);
    assert!(
        diff.contains(REPORTS) && diff.contains("allow -> deny at `orders`"),
        "{diff}"
    );
    assert!(diff.contains("old: allow by rule `everybody-here`"), "{diff}");
    let rules = walk.policy(&["diff", "policy", "draft"]);
    assert!(rules.contains("+ storefront-orders"), "{rules}");

    // A candidate: asked, and not enforced.
    copy_files(
        &walk.folder.path().join("draft"),
        &walk.folder.path().join("candidate"),
    );
    eventually("the candidate is asked", SOON, || {
        (walk.get("/api/v1/policy")["candidate"]["generation"] == 1).then_some(())
    });
    walk.call(walk.reports);
    let divergence = eventually("the divergence is listed", SOON, || {
        let candidate = walk.get("/api/v1/policy")["candidate"].clone();
        candidate["divergences"].as_array()?.first().cloned()
    });
    assert_eq!(divergence["peer_id"], REPORTS, "{divergence}");
    assert_eq!(divergence["change"], "would_deny", "{divergence}");

    // Switched on, while reports has a connection open.
    let mut open = plain::connect(walk.reports);
    let mut application = walk.app.accept();
    exchange(&mut open, &mut application, "still here");
    let mark = walk.orders.mark();
    fs::copy(
        walk.folder.path().join("draft/orders.yaml"),
        walk.folder.path().join("policy/orders.yaml"),
    )
    .unwrap();
    let closed = walk
        .orders
        .wait_line("the open connection closes", mark, SOON, |line| {
            record(line, "reason", "policy_change")
        });
    assert_eq!(closed["peer_id"], REPORTS, "{closed}");
    assert_eq!(closed["nearest"]["rule"], "storefront-orders", "{closed}");
    let ended = open.read(&mut [0]);
    assert!(
        ended.is_err(),
        "a connection that is closed never looks like a clean end: {ended:?}"
    );

    // One denial, by its id.
    let mut denied = plain::connect(walk.reports);
    let _ = denied.read(&mut [0]);
    let line = walk
        .orders
        .wait_line("the denial", Mark::default(), SOON, |line| {
            record(line, "reason", "no_allow_rule")
        });
    let id = line["decision_id"].as_str().unwrap();
    let told = walk.get(&format!("/api/v1/decisions/{id}"));
    let unmet = &told["nearest"]["unmet"][0];
    assert_eq!(
        (&told["nearest"]["rule"], &unmet["condition"]),
        (&"storefront-orders".into(), &"from".into())
    );
    assert!(unmet["detail"].as_str().unwrap().contains(REPORTS), "{told}");

    // What it says to change lets them in.
    let text = fs::read_to_string(walk.folder.path().join("policy/orders.yaml")).unwrap();
    let wider = text.replace(
        "from: [spiffe://example.org/storefront]",
        "from: [spiffe://example.org/storefront, spiffe://example.org/reports]",
    );
    assert_ne!(wider, text);
    fs::write(walk.folder.path().join("policy/orders.yaml"), wider).unwrap();
    eventually("the wider policy is in force", SOON, || {
        (walk.get("/api/v1/policy")["generation"] == 3).then_some(())
    });
    walk.call(walk.reports);
}
