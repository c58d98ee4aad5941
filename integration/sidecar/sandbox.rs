//! The built program is confined, says so, and works: with `sandbox: strict` everything that is read, written, bound and
//! connected to after the start. (All other tests of this suite run with the default, `best-effort`.)
//!
//! What a confined process cannot do is tried from inside by `integration/confined.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustls::AlertDescription;
use serde_json::Value;

use crate::identity::write_svid;
use crate::peers::{connect, expect_alert};
use crate::plain::{Door, exchange};
use crate::support::net::free_address;
use crate::support::sidecar::{SVIDECAR, Setup};
use crate::support::{SOON, eventually};
use crate::world::{
    Identity, Inbound, InboundSetup, ORDERS, REPORTS, STOREFRONT, STOREFRONT_ONLY, authority,
};

const REPORTS_ONLY: &str =
    "rules:\n  - name: reports\n    action: allow\n    from: [\"spiffe://example.org/reports\"]\n";

fn start(settings: &str) -> Inbound {
    InboundSetup {
        settings,
        ..InboundSetup::default()
    }
    .start()
}

fn sandbox(scene: &Inbound) -> Value {
    scene.sidecar.get("/api/v1/status").unwrap().json()["sandbox"].clone()
}

/// Whether this kernel can do all of it.
fn in_full(scene: &Inbound) -> bool {
    let told = sandbox(scene);
    let whole = told["missing"] == Value::Array(Vec::new());
    if !whole {
        crate::support::skip(&format!(
            "the sandbox in full: this system lacks {}",
            told["missing"]
        ));
    }
    whole
}

/// The fields of a `status` file under `/proc`.
fn fields(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let field = |line: &str| {
        line.split_once(':')
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(field).collect()
}

#[test]
fn every_thread_is_confined_by_default_and_the_status_and_the_metrics_say_so() {
    let scene = start("");
    let told = sandbox(&scene);
    assert_eq!(told["mode"], "best-effort");
    if in_full(&scene) {
        assert!(told["landlock_abi"].as_i64() >= Some(6), "{told}");
        for part in [
            "landlock_files",
            "landlock_network",
            "landlock_scopes",
            "seccomp",
            "capabilities",
        ] {
            assert_eq!(told["enforced"][part], true, "{told}");
            let metric = format!("svidecar_sandbox_enforced{{part=\"{part}\"}}");
            assert_eq!(scene.sidecar.metric(&metric), Some(1.0), "{part}");
        }
    }
    let tasks = format!("/proc/{}/task", scene.sidecar.process().pid());
    let threads: Vec<_> = fs::read_dir(tasks)
        .unwrap()
        .map(|task| task.unwrap().path())
        .collect();
    assert!(threads.len() > 3, "control, workers, log, allocator: {threads:?}");
    let root = rustix::process::geteuid().is_root();
    for thread in threads {
        let status = fields(&thread.join("status"));
        let name = &status["Name"];
        assert_eq!(
            (&*status["NoNewPrivs"], &*status["Seccomp"]),
            ("1", "2"),
            "{name}"
        );
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{name}: {set}");
        }
        if root {
            assert_eq!(status["CapBnd"], "0000000000000000", "{name}");
        }
    }
}

#[test]
fn off_is_off() {
    let scene = start("sandbox: off\n");
    let told = sandbox(&scene);
    assert_eq!(
        (&told["mode"], &told["landlock_abi"]),
        (&"off".into(), &Value::Null)
    );
    let status = fields(Path::new(&format!(
        "/proc/{}/status",
        scene.sidecar.process().pid()
    )));
    assert_eq!((&*status["NoNewPrivs"], &*status["Seccomp"]), ("0", "0"));
    let metric = "svidecar_sandbox_enforced{part=\"seccomp\"}";
    assert_eq!(scene.sidecar.metric(metric), Some(0.0));
}

#[test]
fn in_full_confinement_files_are_read_again_and_logs_rotated() {
    let logs = "audit: { file: audit/a.jsonl, max_size: 1MiB, sync: os }\n\
                telemetry: { access_log: { file: access/a.log, max_size: 1MiB, keep: 1 } }\n";
    if !in_full(&start("")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let authority = authority("example.org");
    for version in ["..v1", "..v2"] {
        write_svid(&root.join(version), &authority, &Identity::of(&authority, ORDERS));
    }
    symlink("..v1", root.join("..data")).unwrap();
    for made in ["audit", "access", "sockets"] {
        fs::create_dir(root.join(made)).unwrap();
    }
    let door = Door::open();
    let (tls, socket) = (free_address(), root.join("sockets/out.sock"));
    let text = format!(
        "sandbox: strict\nidentity:\n  files: {{ certificate: {at}/..data/tls.crt, key: {at}/..data/tls.key, bundles: {{ \
         example.org: {at}/..data/ca.crt }} }}\npolicy: {{ path: policy/ }}\n\
         inbound: [{{ name: orders, listen: '{tls}', upstream: 'localhost:{port}' }}]\n\
         outbound: [{{ name: out, listen: 'unix://{socket}', connect: 'localhost:{loops}', peer: ['{ORDERS}'] }}]\n{logs}",
        at = root.display(),
        port = door.addr().port(),
        loops = tls.port(),
        socket = socket.display(),
        logs = logs.replace("file: a", &format!("file: {}/a", root.display())),
    );
    let mut sidecar = Setup::new("strict", text).policy(STOREFRONT_ONLY).start();
    sidecar.wait_ready();
    let storefront = Identity::of(&authority, STOREFRONT);
    let reports = Identity::of(&authority, REPORTS);

    // Names are resolved; the policy is read again.
    exchange(&mut connect(tls, &storefront), &mut door.accept(), "hello");
    expect_alert(&mut connect(tls, &reports), AlertDescription::AccessDenied);
    sidecar.set_policy(REPORTS_ONLY);
    eventually("the new policy is in force", SOON, || {
        (sidecar.metric("svidecar_policy_generation") == Some(2.0)).then_some(())
    });
    exchange(&mut connect(tls, &reports), &mut door.accept(), "hello");

    // The SVID is swapped as Kubernetes does it.
    let serial = sidecar.serial().unwrap();
    symlink("..v2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    sidecar.wait_rotation(&serial, SOON);
    exchange(&mut connect(tls, &reports), &mut door.accept(), "hello");

    // Connections that come by the unix socket go to our own other listener, found by its name, where policy lets no
    // orders in.
    let mark = sidecar.mark();
    let mut by_socket = UnixStream::connect(&socket).unwrap();
    assert_eq!(by_socket.read(&mut [0]).unwrap(), 0);
    sidecar.wait_record(mark, &[("listener", "out"), ("reason", "refused_by_peer")]);

    // The audit log begins a new file, and compresses the old one.
    let talkative = Identity::of(&authority, &format!("{STOREFRONT}/{}", "a".repeat(1900)));
    eventually("the audit log begins a new file", Duration::from_secs(60), || {
        for _ in 0..10 {
            expect_alert(&mut connect(tls, &talkative), AlertDescription::AccessDenied);
        }
        let files = fs::read_dir(root.join("audit")).unwrap();
        let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names
            .any(|name| name.starts_with("a.jsonl.0") && name.ends_with(".gz"))
            .then_some(())
    });

    // A file that somebody moved away is made anew.
    let access = root.join("access/a.log");
    fs::rename(&access, root.join("access/moved")).unwrap();
    eventually("the access log is made anew", SOON, || {
        expect_alert(&mut connect(tls, &storefront), AlertDescription::AccessDenied);
        access.exists().then_some(())
    });

    assert!(sidecar.terminate(SOON).success());
    assert!(!socket.exists(), "its file goes with the listener");
    let kept = fs::read_to_string(root.join("audit/a.jsonl")).unwrap();
    assert!(kept.contains("\"stop\""), "{kept}");
}

#[test]
fn a_document_that_a_link_leads_away_from_the_grants_is_said_to_be_the_sandbox_s() {
    let scene = start("");
    if sandbox(&scene)["enforced"]["landlock_files"] != true {
        eprintln!("SKIPPED: this system has no Landlock");
        return;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("policy.yaml"), REPORTS_ONLY).unwrap();
    let policy = scene.sidecar.folder().join("policy");
    let mark = scene.sidecar.mark();
    fs::rename(&policy, policy.with_extension("old")).unwrap();
    symlink(elsewhere.path(), &policy).unwrap();
    let said = scene
        .sidecar
        .wait_words(mark, "the sandbox does not allow")
        .to_string();
    // That of the folder: it may be replaced.
    let folder = elsewhere.path().canonicalize().unwrap();
    let folder = folder.parent().unwrap();
    for part in [
        "`policy.path`: reading in",
        folder.to_str().unwrap(),
        "restart it",
        "stays in force",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut reports = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut reports, AlertDescription::AccessDenied);
}

#[test]
fn check_warns_of_a_log_beside_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    let text = |log: &str| {
        format!(
            "identity: {{ socket: unix:///run/agent.sock }}\npolicy: {{ path: p.yaml }}\naudit: {{ file: {log} }}\n\
             inbound: [{{ name: a, listen: '127.0.0.1:1', upstream: '127.0.0.1:2' }}]\n"
        )
    };
    fs::write(folder.path().join("p.yaml"), STOREFRONT_ONLY).unwrap();
    fs::create_dir(folder.path().join("log")).unwrap();
    for (log, warned) in [("a.jsonl", true), ("log/a.jsonl", false)] {
        fs::write(&file, text(log)).unwrap();
        let mut command = std::process::Command::new(SVIDECAR);
        let output = command.arg("check").arg("--config").arg(&file).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let is_said = said.starts_with("warning: ")
            && said.contains("`audit.file` lies in")
            && said.contains("`policy.path`");
        assert_eq!(is_said, warned, "{said}");
    }
}
