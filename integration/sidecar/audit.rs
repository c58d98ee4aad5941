//! The audit log of a running sidecar: what is in it, what `svidecar audit verify` says of it, and what becomes of connections
//! when it cannot be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use rustls::AlertDescription;
use serde_json::Value;

use crate::peers::{client_config, connect, expect_alert, expect_refusal};
use crate::plain::exchange;
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, eventually, skip};
use crate::world::{Inbound, InboundSetup, ORDERS, OutboundSetup, REPORTS, STOREFRONT, STOREFRONT_ONLY};

const FILE: &str = "audit.jsonl";

fn start(settings: &str) -> Inbound {
    InboundSetup {
        settings,
        ..InboundSetup::default()
    }
    .start()
}

fn path(scene: &Inbound) -> PathBuf {
    scene.sidecar.folder().join(FILE)
}

/// The entries of the active segment.
fn entries(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be under way.
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn wait_entry(path: &Path, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, SOON, || {
        entries(path).into_iter().find(|entry| holds(entry))
    })
}

fn verify(path: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(SVIDECAR);
    command
        .args(["audit", "verify"])
        .arg(path)
        .args(args)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap() + std::str::from_utf8(&output.stderr).unwrap()
}

/// The connection that storefront gets through, with a word there and back.
fn call(scene: &Inbound) {
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
}

fn denied(scene: &Inbound) {
    let mut client = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut client, AlertDescription::AccessDenied);
}

#[test]
fn everything_that_happens_is_an_entry_and_the_log_verifies() {
    let mut scene = start("audit: { file: audit.jsonl, checkpoint_every: 1s }\n");
    let log = path(&scene);
    call(&scene);
    denied(&scene);
    // Somebody without TLS: turned away before anything was said of them.
    std::io::Write::write_all(
        &mut std::net::TcpStream::connect(scene.tls).unwrap(),
        b"GET / HTTP/1.1\r\n\r\n",
    )
    .unwrap();
    let refusal = wait_entry(&log, "the refusal is an entry", |entry| {
        entry["kind"] == "refusal"
    });
    assert_eq!(
        (&refusal["outcome"], &refusal["reason"]),
        (&"refused".into(), &"not_tls".into())
    );

    let admitted = wait_entry(&log, "the admission is an entry", |entry| {
        entry["kind"] == "admission" && entry["outcome"] == "allow"
    });
    assert_eq!(
        (&admitted["actor"], &admitted["peer"]),
        (&STOREFRONT.into(), &STOREFRONT.into())
    );
    assert_eq!(
        (&admitted["rule"], &admitted["own_id"]),
        (&"storefront".into(), &ORDERS.into())
    );
    assert_eq!(admitted["upstream"], scene.app.addr().to_string());
    let denial = wait_entry(&log, "the denial is an entry", |entry| entry["outcome"] == "deny");
    assert_eq!(
        (&denial["reason"], &denial["nearest"]["rule"]),
        (&"no_allow_rule".into(), &"storefront".into())
    );
    // The verdict has one name everywhere.
    let id = denial["id"].as_str().unwrap();
    assert_eq!(
        scene
            .sidecar
            .get(&format!("/api/v1/decisions/{id}"))
            .unwrap()
            .json()["peer_id"],
        REPORTS
    );

    // What verdicts rest on: it was put into force, and what changes it.
    for (kind, operation) in [
        ("process", "start"),
        ("configuration", "load"),
        ("policy", "load"),
        ("identity", "rotate"),
        ("bundle", "add"),
    ] {
        wait_entry(&log, kind, |entry| {
            entry["kind"] == kind && entry["operation"] == operation
        });
    }
    scene
        .sidecar
        .set_policy("rules: [{ name: storefront, action: alow }]\n");
    wait_entry(&log, "the bad policy is an entry", |entry| {
        entry["kind"] == "policy" && entry["outcome"] == "failure"
    });
    scene
        .sidecar
        .set_policy(&STOREFRONT_ONLY.replace("name: storefront", "name: again"));
    let policy = wait_entry(&log, "the new policy is an entry", |entry| {
        entry["kind"] == "policy" && entry["data"]["generation"] == 2
    });
    assert_eq!(
        (&policy["actor"], &policy["policy_generation"]),
        (&"files".into(), &2.into())
    );
    scene.api.handle().rotate().unwrap();
    let serial = |entry: &Value| entry["data"]["serial"].as_str().map(str::to_owned);
    eventually("the rotation is an entry", SOON, || {
        let all = entries(&log);
        let rotated: std::collections::BTreeSet<_> = all
            .iter()
            .filter(|entry| entry["kind"] == "identity")
            .filter_map(serial)
            .collect();
        (rotated.len() == 2).then_some(())
    });
    wait_entry(&log, "the log is signed", |entry| {
        entry["operation"] == "checkpoint"
    });

    // The metric and the status name the same head.
    let status = scene.sidecar.get("/api/v1/status").unwrap().json()["audit"].clone();
    assert_eq!(
        (&status["failing"], &status["lost"]),
        (&Value::Null, &0.into()),
        "{status}"
    );
    let head = status["head"].as_str().unwrap().to_owned();

    scene.sidecar.terminate(SOON);
    let all = entries(&log);
    let ends: Vec<_> = all
        .iter()
        .filter(|entry| entry["kind"] == "process")
        .map(|entry| &entry["operation"])
        .collect();
    assert_eq!(ends, ["start", "drain", "stop"]);
    let schema: Value = serde_json::from_str(include_str!("../../config/schema/audit.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for entry in &all {
        let problems: Vec<_> = validator
            .iter_errors(entry)
            .map(|error| error.to_string())
            .collect();
        assert_eq!(problems, Vec::<String>::new(), "{entry}");
    }
    let bundle = scene.sidecar.folder().join("bundle.pem");
    fs::write(&bundle, pem(&scene)).unwrap();
    let trusted = format!("example.org={}", bundle.display());
    let good = verify(&log, &["--bundle", &trusted, "--head", &head]);
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(
        said(&good).contains(&format!("signed by {ORDERS}")),
        "{}",
        said(&good)
    );
    assert!(!said(&good).contains("not checked"), "{}", said(&good));

    // One word changed, as somebody would who wants to have been let in.
    let text = fs::read_to_string(&log).unwrap();
    let line = 1 + all.iter().position(|entry| entry["outcome"] == "deny").unwrap();
    fs::write(
        &log,
        text.replacen("\"outcome\":\"deny\"", "\"outcome\":\"allow\"", 1),
    )
    .unwrap();
    let forged = verify(&log, &[]);
    assert_eq!(forged.status.code(), Some(1));
    assert!(
        said(&forged).contains(&format!("audit.jsonl:{}: ", line + 1)),
        "{}",
        said(&forged)
    );
    // The end cut off, after the head was noted elsewhere.
    let kept: String = text.lines().take(5).map(|line| format!("{line}\n")).collect();
    fs::write(&log, kept).unwrap();
    assert_eq!(
        verify(&log, &[]).status.code(),
        Some(0),
        "a cut alone shows nothing"
    );
    let cut = verify(&log, &["--head", &head[..12]]);
    assert_eq!(cut.status.code(), Some(1));
    assert!(said(&cut).contains("cut off"), "{}", said(&cut));
    let wrong = verify(&log, &["--head", "abc"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}

fn pem(scene: &Inbound) -> String {
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.encode(scene.api.authority().root());
    format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n")
}

/// The log's file is replaced by a folder, which stands for a disk that takes nothing.
#[test]
fn while_it_cannot_be_written_nobody_is_let_in_and_readiness_says_why() {
    for (on_failure, refuses) in [("deny", true), ("continue", false)] {
        let scene = start(&format!(
            "audit: {{ file: audit.jsonl, on_failure: {on_failure} }}\n"
        ));
        let log = path(&scene);
        call(&scene);
        wait_entry(&log, "the admission is an entry", |entry| {
            entry["kind"] == "admission"
        });
        fs::rename(&log, log.with_extension("aside")).unwrap();
        fs::create_dir(&log).unwrap();
        eventually("it is seen", SOON, || {
            denied_or_refused(&scene);
            (scene.sidecar.metric("svidecar_audit_failing ") == Some(1.0)).then_some(())
        });
        let ready = eventually("readiness says so", SOON, || {
            let ready = scene.sidecar.get("/readyz").ok()?;
            ready.body.contains("cannot be written").then_some(ready)
        });
        assert_eq!(ready.status == 503, refuses, "{}", ready.body);
        if refuses {
            let storefront = client_config(Some(&scene.api.peer(STOREFRONT)));
            expect_refusal(scene.tls, storefront, AlertDescription::InternalError);
            scene.sidecar.wait_record(
                crate::support::process::Mark::default(),
                &[("reason", "audit_unavailable"), ("result", "refused")],
            );
        } else {
            call(&scene);
        }
        fs::remove_dir(&log).unwrap();
        scene.sidecar.wait_ready();
        eventually("it is written again", SOON, || {
            (scene.sidecar.metric("svidecar_audit_failing ") == Some(0.0)).then_some(())
        });
        call(&scene);
        // In the file that was moved aside, and on in the new one.
        let aside = log.with_extension("aside");
        wait_entry(&log, "it goes on", |entry| entry["kind"] == "admission");
        let mut command = Command::new(SVIDECAR);
        let verified = command
            .args(["audit", "verify", "--only"])
            .arg(&aside)
            .arg(&log)
            .output()
            .unwrap();
        assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    }
}

fn denied_or_refused(scene: &Inbound) {
    let reports = client_config(Some(&scene.api.peer(REPORTS)));
    let _ = crate::peers::try_connect(scene.tls, reports);
}

#[test]
fn a_log_that_cannot_be_opened_keeps_it_from_starting_and_says_why() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("svidecar.yaml");
    fs::create_dir(folder.path().join("policy")).unwrap();
    fs::write(folder.path().join("policy/p.yaml"), STOREFRONT_ONLY).unwrap();
    let run = |audit: &str| {
        let text = format!(
            "identity: {{ socket: 'unix:///nowhere' }}\npolicy: {{ path: policy/ }}\naudit: {{ file: {audit} }}\ninbound: \
             [{{ name: orders, listen: '127.0.0.1:0', upstream: '127.0.0.1:1' }}]\n"
        );
        fs::write(&config, text).unwrap();
        let output = Command::new(SVIDECAR)
            .args(["run", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run("absent/audit.jsonl");
    assert!(
        said.contains("audit.file: cannot write") && said.contains("its folder must exist"),
        "{said}"
    );
    fs::write(folder.path().join("other.log"), "something else\n").unwrap();
    let said = run("other.log");
    assert!(
        said.contains("holds no audit log") && said.contains("name another file"),
        "{said}"
    );
}

#[test]
fn two_sidecars_do_not_share_a_log() {
    let scene = start("audit: { file: audit.jsonl }\n");
    let config = scene.sidecar.folder().join("svidecar.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let second = scene.sidecar.folder().join("second.yaml");
    // On addresses of its own.
    let text = text
        .replace(&scene.tls.to_string(), "127.0.0.1:0")
        .replace(&scene.sidecar.admin().to_string(), "127.0.0.1:0");
    fs::write(&second, text).unwrap();
    let output = Command::new(SVIDECAR)
        .args(["run", "--config"])
        .arg(&second)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is written by another process"), "{said}");
}

/// Both ends of a connection keep a log; of a profile's rules nothing personal is in it, in the log or in the file of verdicts.
#[test]
fn a_profile_takes_addresses_and_ids_out_of_all_that_is_written() {
    let key = |folder: &Path| {
        let path = folder.join("redaction.key");
        fs::write(&path, [7; 32]).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let folder = tempfile::TempDir::new().unwrap();
    let settings = format!(
        "audit: {{ file: audit.jsonl }}\nredaction: {{ profile: gdpr, key_file: {} }}\ntelemetry: {{ decisions: {{ file: decisions.jsonl \
         }}, access_log: {{ file: access.log }} }}\n",
        key(folder.path()).display()
    );
    let scene = start(&settings);
    denied(&scene);
    wait_entry(&path(&scene), "the denial is an entry", |entry| {
        entry["outcome"] == "deny"
    });
    scene.sidecar.wait_record(
        crate::support::process::Mark::default(),
        &[("reason", "no_allow_rule")],
    );
    let records = scene
        .sidecar
        .records_since(crate::support::process::Mark::default());
    let mut texts = vec![Value::from(records).to_string()];
    for file in [FILE, "decisions.jsonl", "access.log"] {
        let path = scene.sidecar.folder().join(file);
        let text = eventually(file, SOON, || {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.contains("no_allow_rule"))
        });
        let line = text.lines().find(|line| line.contains("no_allow_rule")).unwrap();
        texts.push(line.to_owned());
    }
    for text in texts {
        assert!(
            text.contains("spiffe://example.org/hmac:") && text.contains("127.0.0.0/24"),
            "{text}"
        );
        assert!(
            !text.contains("/reports") && !text.contains("127.0.0.1"),
            "{text}"
        );
    }
    assert_eq!(verify(&path(&scene), &[]).status.code(), Some(0));
    // And `check` says so.
    let config = scene.sidecar.folder().join("svidecar.yaml");
    let check = Command::new(SVIDECAR)
        .args(["check", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let said = said(&check);
    assert!(
        said.contains("profile `gdpr`") && said.contains("every IP address becomes its network"),
        "{said}"
    );
}

#[test]
fn an_outbound_sidecar_keeps_a_log_too() {
    let scene = OutboundSetup {
        settings: "audit: { file: audit.jsonl, sync: always }\n",
        ..OutboundSetup::default()
    }
    .start();
    let mut app = crate::plain::connect(scene.plain);
    let mut peer = crate::peers::accept(scene.peer.accept(), &scene.api.peer(ORDERS));
    exchange(&mut app, &mut peer, "hello");
    let log = scene.sidecar.folder().join(FILE);
    let admitted = wait_entry(&log, "the admission is an entry", |entry| {
        entry["kind"] == "admission"
    });
    assert_eq!(
        (&admitted["direction"], &admitted["actor"], &admitted["peer"]),
        (&"outbound".into(), &STOREFRONT.into(), &ORDERS.into())
    );
}

/// A disk that is really full: a file system of a few pages, mounted by this test. Needs the right to mount.
#[test]
fn a_full_disk_refuses_and_what_could_not_be_kept_is_said() {
    let folder = tempfile::TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "svidecar-test"])
        .arg(&disk)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        skip("the audit log on a full disk: this user may not mount a file system");
        return;
    }
    let unmount = Unmount(disk.clone());
    let mut scene = start(&format!("audit: {{ file: {} }}\n", disk.join(FILE).display()));
    let log = disk.join(FILE);
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 48 * 1024]).unwrap();
    eventually("the disk is full", SOON, || {
        denied_or_refused(&scene);
        (scene.sidecar.metric("svidecar_audit_failing ") == Some(1.0)).then_some(())
    });
    let ready = scene.sidecar.wait_not_ready(SOON);
    assert!(ready.body.contains("No space left on device"), "{}", ready.body);
    let storefront = client_config(Some(&scene.api.peer(STOREFRONT)));
    expect_refusal(scene.tls, storefront, AlertDescription::InternalError);
    fs::remove_file(&filler).unwrap();
    scene.sidecar.wait_ready();
    call(&scene);
    wait_entry(&log, "it is written again", |entry| {
        entry["kind"] == "admission" && entry["outcome"] == "allow"
    });
    scene.sidecar.process().signal(Signal::TERM);
    scene.sidecar.process_mut().wait(SOON);
    let verified = verify(&log, &[]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    drop(unmount);
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        // At once for new users, and when the last one is gone for those who still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
