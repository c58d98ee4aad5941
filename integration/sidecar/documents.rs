//! The deny list and the candidate beside the policy: each is read by itself, and takes effect as it should.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use rustls::AlertDescription;
use serde_json::Value;
use tempfile::TempDir;

use crate::open_connections::{Open, OpenOut, closed};
use crate::peers::{alert_of, connect, expect_alert, server_config, try_accept};
use crate::plain::{self, expect_reset};
use crate::support::process::Mark;
use crate::support::sidecar::{SVIDECAR, Sidecar};
use crate::support::{SOON, eventually};
use crate::world::{
    Api, Identity, Inbound, InboundSetup, ORDERS, OutboundSetup, REPORTS, STOREFRONT, STOREFRONT_ONLY,
    TRUST_PARTNER, authority,
};

const ALL: &str = "rules:\n  - name: all\n    action: allow\n";
const NOBODY: &str = "deny: []\n";

/// The files of one sidecar, in a folder of their own.
struct Files(TempDir);

impl Files {
    fn new(policy: &str) -> Self {
        let files = Self(TempDir::with_prefix("svidecar-documents-").unwrap());
        files.write("policy.yaml", policy);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file at once.
    fn write(&self, name: &str, text: &str) {
        let temporary = self.path(&format!(".{name}.new"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path(name)).unwrap();
    }

    /// The `policy` section with these fields beside the path.
    fn section(&self, more: &str) -> String {
        let folder = self.0.path().display().to_string();
        let more = more.replace('@', &folder);
        format!("policy: {{ path: {folder}/policy.yaml, {more} }}\n")
    }

    fn start(&self, more: &str) -> Inbound {
        self.start_with(Api::start(&[ORDERS]), "", more, "")
    }

    fn start_with(&self, api: Api, listener: &str, more: &str, settings: &str) -> Inbound {
        InboundSetup {
            policy: None,
            listener,
            settings: &format!("{}{settings}", self.section(more)),
            ..InboundSetup::default()
        }
        .start_with(api)
    }
}

fn deny(ids: &str) -> String {
    format!("deny:\n  - name: stop\n    description: incident 4711\n    ids: [\"{ids}\"]\n")
}

fn wait_message(sidecar: &Sidecar, mark: Mark, text: &str) -> Value {
    sidecar.wait_log(text, mark, |line| {
        line["message"].as_str().is_some_and(|m| m.contains(text))
    })
}

fn api_policy(sidecar: &Sidecar) -> Value {
    sidecar.get("/api/v1/policy").unwrap().json()
}

#[test]
fn the_deny_list_ends_what_is_open_and_refuses_what_comes_whatever_the_settings_say() {
    let files = Files::new(ALL);
    files.write("deny.yaml", NOBODY);
    let log = "open_connections: { on_policy_change: log, on_bundle_change: log, on_identity_change: log, on_expiry: log }\n";
    // Also where policy is only audited.
    let scene = files.start_with(
        Api::start(&[ORDERS]),
        "",
        "deny_list: @/deny.yaml, mode: audit",
        log,
    );
    let concerned = Open::through(&scene, &scene.api.peer(REPORTS));
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    files.write("deny.yaml", &deny(REPORTS));
    concerned.must_be_cut(AlertDescription::AccessDenied);
    control.must_flow();
    let record = closed(&scene, mark, "deny_list_change");
    assert!(record["detail"].as_str().unwrap().contains("stop"), "{record}");

    let mark = scene.sidecar.mark();
    let mut again = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut again, AlertDescription::AccessDenied);
    let record = scene.sidecar.wait_record(mark, &[("reason", "deny_list")]);
    assert_eq!(record["result"], "denied", "{record}");
    assert_eq!(record["rule"], "stop", "{record}");
    assert_eq!(scene.sidecar.metric("svidecar_deny_list_generation"), Some(2.0));
    let shown = api_policy(&scene.sidecar);
    assert_eq!(shown["generation"], 1, "{shown}");
    assert_eq!(shown["deny_list"]["generation"], 2, "{shown}");
    assert_eq!(shown["deny_list"]["entries"][0]["name"], "stop", "{shown}");
    assert_eq!(
        shown["deny_list"]["entries"][0]["description"], "incident 4711",
        "{shown}"
    );

    let mark = scene.sidecar.mark();
    files.write("deny.yaml", NOBODY);
    wait_message(&scene.sidecar, mark, "a new deny list is in force");
    Open::through(&scene, &scene.api.peer(REPORTS));
    control.must_flow();
}

#[test]
fn one_stolen_certificate_is_denied_and_its_twin_is_not() {
    let files = Files::new(ALL);
    files.write("deny.yaml", NOBODY);
    let scene = files.start("deny_list: @/deny.yaml");
    let (stolen, twin) = (scene.api.peer(STOREFRONT), scene.api.peer(STOREFRONT));
    let concerned = Open::through(&scene, &stolen);
    let mut control = Open::through(&scene, &twin);
    let mark = scene.sidecar.mark();
    let serial = svidecar::spiffe::svid::check_leaf(&stolen.chain[0])
        .unwrap()
        .serial;
    files.write(
        "deny.yaml",
        &format!("deny:\n  - name: stolen\n    serials: [\"{serial}\"]\n"),
    );
    concerned.must_be_cut(AlertDescription::AccessDenied);
    control.must_flow();
    closed(&scene, mark, "deny_list_change");
    let mut again = connect(scene.tls, &stolen);
    expect_alert(&mut again, AlertDescription::AccessDenied);
    Open::through(&scene, &twin);
}

#[test]
fn a_server_on_the_deny_list_is_left_and_not_called_again() {
    let files = Files::new(ALL);
    files.write("deny.yaml", NOBODY);
    let settings = format!("policy: {{ deny_list: {} }}\n", files.path("deny.yaml").display());
    let scene = OutboundSetup {
        settings: &settings,
        ..OutboundSetup::default()
    }
    .start();
    let mut open = OpenOut::through(&scene, &scene.api.peer(ORDERS));
    files.write("deny.yaml", &deny(ORDERS));
    expect_alert(&mut open.server, AlertDescription::AccessDenied);
    expect_reset(&mut open.app);
    scene.sidecar.wait_record(
        Mark::default(),
        &[("reason", "deny_list_change"), ("peer_id", ORDERS)],
    );
    let mut app = plain::connect(scene.plain);
    // The alert may come before the server has seen the end of the handshake.
    match try_accept(scene.peer.accept(), server_config(&scene.api.peer(ORDERS))) {
        Err(error) => assert_eq!(alert_of(&error), Some(AlertDescription::AccessDenied), "{error}"),
        Ok(mut server) => expect_alert(&mut server, AlertDescription::AccessDenied),
    }
    expect_reset(&mut app);
    let record = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "deny_list")]);
    assert_eq!(record["direction"], "outbound", "{record}");
}

/// That is why they are files of their own.
#[test]
fn a_broken_policy_keeps_no_entry_of_the_deny_list_from_working_nor_the_reverse() {
    let files = Files::new(ALL);
    files.write("deny.yaml", NOBODY);
    let scene = files.start("deny_list: @/deny.yaml");
    let concerned = Open::through(&scene, &scene.api.peer(REPORTS));
    let other = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    files.write("policy.yaml", "rules: [{ nme: x }]\n");
    wait_message(&scene.sidecar, mark, "the new policy is refused");
    files.write("deny.yaml", &deny(REPORTS));
    concerned.must_be_cut(AlertDescription::AccessDenied);

    let mark = scene.sidecar.mark();
    files.write("deny.yaml", "deny: [{ nme: x }]\n");
    wait_message(
        &scene.sidecar,
        mark,
        "the new deny list is refused, the last good one stays",
    );
    let ready = scene.sidecar.get("/readyz").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert!(
        ready.body.contains("deny list generation 2 stays in force"),
        "{}",
        ready.body
    );
    let failures = |document: &str| {
        let sample = format!("svidecar_policy_reload_total{{document=\"{document}\",result=\"failure\"}}");
        scene.sidecar.metric(&sample)
    };
    assert_eq!(failures("policy"), Some(1.0));
    assert_eq!(failures("deny_list"), Some(1.0));
    assert_eq!(failures("candidate"), Some(0.0));
    let shown = api_policy(&scene.sidecar);
    assert_eq!(shown["deny_list"]["last_reload"]["result"], "failure", "{shown}");
    assert_eq!(shown["deny_list"]["generation"], 2, "{shown}");
    // What was denied still is.
    let mut again = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut again, AlertDescription::AccessDenied);
    files.write("policy.yaml", "rules: []\n");
    other.must_be_cut(AlertDescription::AccessDenied);
    // The file that goes away is no empty list.
    let mark = scene.sidecar.mark();
    fs::remove_file(files.path("deny.yaml")).unwrap();
    wait_message(
        &scene.sidecar,
        mark,
        "the new deny list is refused, the last good one stays",
    );
}

#[test]
fn a_candidate_is_asked_and_decides_nothing() {
    let files = Files::new(ALL);
    files.write("next.yaml", STOREFRONT_ONLY);
    let scene = files.start("candidate: @/next.yaml");
    let mut storefront = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mut reports = Open::through(&scene, &scene.api.peer(REPORTS));
    let shown = api_policy(&scene.sidecar);
    let candidate = &shown["candidate"];
    assert_eq!(candidate["generation"], 1, "{shown}");
    assert_eq!(candidate["would_deny"], 1, "{shown}");
    assert_eq!(candidate["would_allow"], 0, "{shown}");
    let one = &candidate["divergences"][0];
    assert_eq!(one["peer_id"], REPORTS, "{shown}");
    assert_eq!(one["change"], "would_deny", "{shown}");
    assert_eq!(one["rule"], "all", "{shown}");
    assert!(one["candidate_rule"].is_null(), "{shown}");
    assert_eq!(candidate["divergences"].as_array().unwrap().len(), 1, "{shown}");
    let sample = "svidecar_policy_candidate_divergences_total{listener=\"orders\",change=\"would_deny\",rule=\"all\",candidate_rule=\"\"}";
    assert_eq!(scene.sidecar.metric(sample), Some(1.0));

    // Another candidate: what it would end of what is open, and a new count.
    let mark = scene.sidecar.mark();
    files.write("next.yaml", "rules: []\n");
    let line = wait_message(&scene.sidecar, mark, "was asked about the open connections");
    assert_eq!(line["open_connections_denied"], 2, "{line}");
    let shown = api_policy(&scene.sidecar);
    assert_eq!(shown["candidate"]["generation"], 2, "{shown}");
    assert_eq!(shown["candidate"]["open_connections_denied"], 2, "{shown}");
    assert_eq!(shown["candidate"]["would_deny"], 0, "{shown}");
    assert_eq!(shown["generation"], 1, "{shown}");
    assert_eq!(scene.sidecar.metric(sample), None);
    storefront.must_flow();
    reports.must_flow();
    assert!(scene.sidecar.records_since(Mark::default()).is_empty());

    // A bad one leaves the last good one, like everything else.
    let mark = scene.sidecar.mark();
    files.write("next.yaml", "rules: [{ nme: x }]\n");
    wait_message(
        &scene.sidecar,
        mark,
        "the new candidate policy is refused, the last good one stays",
    );
    assert_eq!(scene.sidecar.metric("svidecar_candidate_generation"), Some(2.0));
}

#[test]
fn at_the_start_a_bad_deny_list_is_an_error_and_a_bad_candidate_is_not() {
    let files = Files::new(ALL);
    files.write("bad.yaml", "deny: [{ nme: x }]\n");
    let config = files.path("svidecar.yaml");
    let listener = "inbound:\n  - { name: orders, listen: '127.0.0.1:0', upstream: '127.0.0.1:1' }\n";
    let run = |command: &str, more: &str| {
        let section = files.section(more);
        fs::write(
            &config,
            format!("identity: {{ socket: unix:///nowhere }}\n{section}{listener}"),
        )
        .unwrap();
        let mut run = Command::new(SVIDECAR);
        run.arg(command).arg("--config").arg(&config).output().unwrap()
    };
    for command in ["run", "check"] {
        let output = run(command, "deny_list: @/bad.yaml");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let output = run(command, "deny_list: @/absent.yaml");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let output = run("check", "candidate: @/bad.yaml");
    assert_eq!(output.status.code(), Some(2), "{output:?}");

    let scene = files.start("candidate: @/bad.yaml");
    scene.sidecar.wait_log("a warning", Mark::default(), |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.contains("bad.yaml"))
    });
    Open::through(&scene, &scene.api.peer(STOREFRONT));
    let shown = api_policy(&scene.sidecar);
    assert_eq!(shown["candidate"]["generation"], 0, "{shown}");
    assert_eq!(shown["candidate"]["last_reload"]["result"], "failure", "{shown}");
    let ready = scene.sidecar.get("/readyz").unwrap();
    assert!(
        ready.body.contains("candidate policy cannot be used"),
        "{}",
        ready.body
    );
    files.write("bad.yaml", ALL);
    eventually("the candidate is asked", SOON, || {
        (scene.sidecar.metric("svidecar_candidate_generation") == Some(1.0)).then_some(())
    });
}

#[test]
fn a_hangup_signal_reads_all_three_again() {
    let files = Files::new(ALL);
    files.write("deny.yaml", NOBODY);
    files.write("next.yaml", STOREFRONT_ONLY);
    let scene = files.start("deny_list: @/deny.yaml, candidate: @/next.yaml");
    let mark = scene.sidecar.mark();
    scene.sidecar.process().signal(Signal::HUP);
    for document in ["policy", "deny list", "candidate policy"] {
        wait_message(
            &scene.sidecar,
            mark,
            &format!("the {document} was read again and has not changed"),
        );
    }
    for document in ["policy", "deny_list", "candidate"] {
        let sample = format!("svidecar_policy_reload_total{{document=\"{document}\",result=\"success\"}}");
        assert_eq!(scene.sidecar.metric(&sample), Some(2.0));
    }
}

/// The agent hands out the partner's bundle and a rule names the partner: without `trust` it is refused all the same.
#[test]
fn a_federated_domain_is_accepted_where_the_listener_says_so_alone() {
    const PARTNER: &str = "spiffe://partner.example/shop";
    let policy =
        "rules:\n  - name: partner\n    action: allow\n    from: [\"spiffe://partner.example/**\"]\n";
    for (listener, mode, accepted) in [
        ("", "enforce", false),
        ("", "audit", false),
        (TRUST_PARTNER, "enforce", true),
    ] {
        let partner = authority("partner.example");
        let api = Api::start(&[ORDERS]);
        api.handle()
            .federate(partner.trust_domain(), Some(partner.root().to_vec()))
            .unwrap();
        let files = Files::new(policy);
        let scene = files.start_with(api, listener, &format!("mode: {mode}"), "");
        let identity = Identity::of(&partner, PARTNER);
        if accepted {
            Open::through(&scene, &identity);
            continue;
        }
        let mut client = connect(scene.tls, &identity);
        expect_alert(&mut client, AlertDescription::AccessDenied);
        let record = scene
            .sidecar
            .wait_record(Mark::default(), &[("reason", "trust_domain_not_accepted")]);
        assert_eq!(record["result"], "denied", "{record}");
        assert_eq!(record["peer_id"], PARTNER, "{record}");
        assert!(
            record["detail"].as_str().unwrap().contains("partner.example"),
            "{record}"
        );
        assert_eq!(scene.app.accepted(), 0);
    }
}

/// While the process waits for its connections to finish, they are watched over as before.
#[test]
fn a_change_during_the_drain_of_the_process_still_ends_whom_it_concerns() {
    let files = Files::new(ALL);
    files.write("deny.yaml", NOBODY);
    let mut scene = files.start_with(
        Api::start(&[ORDERS]),
        "",
        "deny_list: @/deny.yaml",
        "limits: { drain_timeout: 20s }\n",
    );
    let concerned = Open::through(&scene, &scene.api.peer(REPORTS));
    let other = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    scene.sidecar.process().signal(Signal::TERM);
    wait_message(&scene.sidecar, mark, "shutting down");
    files.write("deny.yaml", &deny(REPORTS));
    concerned.must_be_cut(AlertDescription::AccessDenied);
    closed(&scene, mark, "deny_list_change");
    let mark = scene.sidecar.mark();
    files.write("policy.yaml", "rules: []\n");
    other.must_be_cut(AlertDescription::AccessDenied);
    closed(&scene, mark, "policy_change");
    let status = scene.sidecar.process_mut().wait(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
}

/// An entry that comes and goes while connections come: some are refused, some get in. Once it stays, none is left.
#[test]
fn no_connection_slips_through_a_deny_list_that_comes_and_goes() {
    let files = Files::new(ALL);
    files.write("deny.yaml", NOBODY);
    let scene = files.start("deny_list: @/deny.yaml");
    let peer = scene.api.peer(REPORTS);
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mut clients = Vec::new();
    for round in 0..60 {
        let listed = (round / 12) % 2 == 1;
        files.write(
            "deny.yaml",
            &if listed { deny(REPORTS) } else { NOBODY.to_owned() },
        );
        clients.push(connect(scene.tls, &peer));
        std::thread::sleep(Duration::from_millis(50));
    }
    let mark = scene.sidecar.mark();
    files.write("deny.yaml", &deny(&format!("{REPORTS}/**")));
    wait_message(&scene.sidecar, mark, "a new deny list is in force");
    clients.push(connect(scene.tls, &peer));
    for client in &mut clients {
        expect_alert(client, AlertDescription::AccessDenied);
    }
    control.must_flow();
    let records = eventually("every record", SOON, || {
        let records = scene.sidecar.records_since(Mark::default());
        (records.len() == clients.len()).then_some(records)
    });
    for reason in ["deny_list", "deny_list_change"] {
        let found = records.iter().filter(|record| record["reason"] == reason).count();
        assert!(found > 0, "{reason}: {records:?}");
    }
}
