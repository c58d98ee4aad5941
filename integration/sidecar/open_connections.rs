//! Open connections follow: what would not be admitted any more ends within a second, for its reason, and nothing
//! else does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use rustls::AlertDescription;
use serde_json::Value;
use svidecar::clock::rfc3339;
use svidecar::workload_api::authority::Authority;
use svidecar::workload_api::server::Answer;

use crate::peers::{Client, Server, accept, connect, expect_alert};
use crate::plain::{self, exchange, expect_reset};
use crate::support::process::Mark;
use crate::support::{SOON, eventually};
use crate::world::{
    Api, Identity, Inbound, InboundSetup, ORDERS, Outbound, OutboundSetup, REPORTS, STOREFRONT,
    STOREFRONT_ONLY, TRUST_PARTNER, authority, id,
};

/// What a change may take, with something on top for a machine that is busy with other tests.
const IN_TIME: Duration = Duration::from_secs(5);

const BOTH: &str = "rules:\n  - name: storefront\n    action: allow\n    \
     from: [\"spiffe://example.org/storefront\", \"spiffe://partner.example/**\"]\n  - name: reports\n    \
     action: allow\n    from: [\"spiffe://example.org/reports\"]\n";

/// A connection through an inbound listener.
pub(crate) struct Open {
    pub(crate) client: Client,
    pub(crate) app: TcpStream,
}

impl Open {
    pub(crate) fn through(scene: &Inbound, identity: &Identity) -> Self {
        let client = connect(scene.tls, identity);
        let app = scene.app.accept();
        let mut open = Self { client, app };
        open.must_flow();
        open
    }

    pub(crate) fn must_flow(&mut self) {
        exchange(&mut self.client, &mut self.app, "still here");
    }

    /// The peer gets this alert and the application a reset, in time.
    pub(crate) fn must_be_cut(mut self, alert: AlertDescription) {
        let begun = Instant::now();
        expect_alert(&mut self.client, alert);
        expect_reset(&mut self.app);
        let took = begun.elapsed();
        assert!(took < IN_TIME, "open for {took:?} after it was due");
    }
}

/// The one record of a connection that we closed, for this reason.
pub(crate) fn closed(scene: &Inbound, mark: Mark, reason: &str) -> Value {
    let record = scene.sidecar.wait_record(mark, &[("reason", reason)]);
    assert_eq!(record["result"], "closed", "{record}");
    assert_eq!(record["verdict"], "deny", "{record}");
    assert_eq!(record["kind"], "open_connection", "{record}");
    assert_ne!(record["decision_id"], record["admission_id"], "{record}");
    assert!(record["detail"].is_string(), "{record}");
    assert!(record["bytes_up"].as_u64() >= Some(10), "{record}");
    assert_eq!(scene.sidecar.records_since(mark).len(), 1, "others ended, too");
    record
}

/// The verdict that let a connection in.
fn admission(scene: &Inbound, record: &Value) -> Value {
    let id = record["admission_id"].as_str().unwrap();
    let path = format!("/api/v1/decisions/{id}");
    scene.sidecar.get(&path).unwrap().json()
}

fn two_peers(policy: &str, settings: &str) -> (Inbound, Open, Open) {
    let scene = InboundSetup {
        policy: Some(policy),
        settings,
        ..InboundSetup::default()
    }
    .start();
    let concerned = Open::through(&scene, &scene.api.peer(REPORTS));
    let control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    (scene, concerned, control)
}

#[test]
fn an_edit_of_the_policy_ends_those_it_no_longer_admits() {
    let (scene, concerned, mut control) = two_peers(BOTH, "");
    let mark = scene.sidecar.mark();
    scene.sidecar.set_policy(STOREFRONT_ONLY);
    concerned.must_be_cut(AlertDescription::AccessDenied);
    control.must_flow();
    let record = closed(&scene, mark, "policy_change");
    assert_eq!(record["peer_id"], REPORTS);
    assert_eq!(record["policy_generation"], 2);
    // It was admitted by the policy that was in force then.
    let admission = admission(&scene, &record);
    assert_eq!(admission["rule"], "reports", "{admission}");
    assert_eq!(admission["policy_generation"], 1, "{admission}");
    assert_eq!(scene.sidecar.metric("svidecar_policy_generation"), Some(2.0));

    // Given back what it lost, it comes in again.
    scene.sidecar.set_policy(BOTH);
    eventually("the third policy", SOON, || {
        (scene.sidecar.metric("svidecar_policy_generation") == Some(3.0)).then_some(())
    });
    Open::through(&scene, &scene.api.peer(REPORTS));
    control.must_flow();
}

#[test]
fn a_deny_rule_that_appears_ends_the_connection_though_an_allow_rule_stands() {
    let (scene, concerned, mut control) = two_peers(BOTH, "");
    let mark = scene.sidecar.mark();
    let deny = format!("{BOTH}  - name: stop\n    action: deny\n    from: [\"{REPORTS}\"]\n");
    scene.sidecar.set_policy(&deny);
    concerned.must_be_cut(AlertDescription::AccessDenied);
    control.must_flow();
    let record = closed(&scene, mark, "policy_change");
    assert!(record["detail"].as_str().unwrap().contains("stop"), "{record}");
}

#[test]
fn a_kubernetes_config_map_swapped_under_the_path_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (version, policy) in [("..v1", BOTH), ("..v2", STOREFRONT_ONLY)] {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("orders.yaml"), policy).unwrap();
    }
    symlink("..v1", root.join("..data")).unwrap();
    symlink("..data/orders.yaml", root.join("orders.yaml")).unwrap();
    let settings = format!("policy: {{ path: {} }}\n", root.display());
    let scene = InboundSetup {
        policy: None,
        settings: &settings,
        ..InboundSetup::default()
    }
    .start();
    let concerned = Open::through(&scene, &scene.api.peer(REPORTS));
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    symlink("..v2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    concerned.must_be_cut(AlertDescription::AccessDenied);
    control.must_flow();
    closed(&scene, mark, "policy_change");
}

#[test]
fn a_hangup_signal_reads_the_policy_again_and_disturbs_nobody() {
    let (scene, mut first, mut second) = two_peers(BOTH, "");
    let mark = scene.sidecar.mark();
    scene.sidecar.process().signal(Signal::HUP);
    scene.sidecar.wait_log("that the policy was read", mark, |line| {
        line["message"]
            .as_str()
            .is_some_and(|m| m.contains("the policy was read again and has not changed"))
    });
    first.must_flow();
    second.must_flow();
    assert_eq!(scene.sidecar.metric("svidecar_policy_generation"), Some(1.0));
    let reloads = "svidecar_policy_reload_total{document=\"policy\",result=\"success\"}";
    assert_eq!(scene.sidecar.metric(reloads), Some(2.0));
}

#[test]
fn a_bad_new_policy_leaves_the_old_one_in_force_and_says_so() {
    let (scene, mut concerned, mut control) = two_peers(BOTH, "");
    let mark = scene.sidecar.mark();
    scene
        .sidecar
        .set_policy("rules:\n  - name: storefront\n    acton: allow\n");
    let line = scene
        .sidecar
        .wait_log("the refusal", mark, |line| line["level"] == "ERROR");
    assert!(line["message"].as_str().unwrap().contains("acton"), "{line}");
    let ready = eventually("/readyz tells", SOON, || {
        let ready = scene.sidecar.get("/readyz").ok()?;
        ready.body.contains("stays in force").then_some(ready)
    });
    // The sidecar does its work: the old policy is as good as it was.
    assert_eq!(ready.status, 200, "{}", ready.body);
    let failures = "svidecar_policy_reload_total{document=\"policy\",result=\"failure\"}";
    assert_eq!(scene.sidecar.metric(failures), Some(1.0));
    let policy = scene.sidecar.get("/api/v1/policy").unwrap().json();
    assert_eq!(policy["generation"], 1, "{policy}");
    assert_eq!(policy["last_reload"]["result"], "failure", "{policy}");
    concerned.must_flow();
    control.must_flow();
    Open::through(&scene, &scene.api.peer(REPORTS));

    // A good one heals it.
    scene.sidecar.set_policy(STOREFRONT_ONLY);
    concerned.must_be_cut(AlertDescription::AccessDenied);
    let ready = scene.sidecar.get("/readyz").unwrap();
    assert!(!ready.body.contains("stays in force"), "{}", ready.body);
}

#[test]
fn a_rule_that_expires_ends_what_it_alone_admitted() {
    let end = SystemTime::now() + Duration::from_secs(6);
    let end = SystemTime::UNIX_EPOCH
        + Duration::from_secs(end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    let policy = format!(
        "{STOREFRONT_ONLY}  - name: for-now\n    action: allow\n    from: [\"{REPORTS}\"]\n    expires: {}\n",
        rfc3339(end)
    );
    let (scene, mut concerned, mut control) = two_peers(&policy, "");
    let mark = scene.sidecar.mark();
    concerned.must_flow();
    let mut byte = [0];
    let ended = concerned.client.read(&mut byte);
    assert!(ended.is_err(), "{ended:?}");
    let late = SystemTime::now()
        .duration_since(end)
        .expect("not before the rule's end");
    assert!(late < IN_TIME, "{late:?} late");
    expect_reset(&mut concerned.app);
    control.must_flow();
    let record = closed(&scene, mark, "rule_expired");
    assert_eq!(admission(&scene, &record)["rule"], "for-now", "{record}");
    assert_eq!(record["nearest"]["rule"], "for-now", "{record}");
    assert_eq!(record["nearest"]["unmet"][0]["condition"], "expires", "{record}");
    let mut again = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut again, AlertDescription::AccessDenied);
}

/// Gives out everything as before but for the bundle, which holds this authority alone.
fn give_only(api: &Api, authority: &Authority) {
    let mut given = api.handle().fresh().unwrap().unwrap();
    for svid in &mut given.svids.svids {
        svid.bundle = authority.root().to_vec();
    }
    for bundle in given.bundles.bundles.values_mut() {
        *bundle = authority.root().to_vec();
    }
    api.handle().script(Answer::Give(Arc::new(given)));
}

/// Two authorities in one bundle, the first being on its way out.
fn change_of_authorities(api: &Api) -> (Arc<Authority>, Arc<Authority>) {
    let old = api.authority();
    api.handle()
        .set_authority(authority("example.org"), true)
        .unwrap();
    (old, api.authority())
}

fn wait_for_two_authorities(sidecar: &crate::support::sidecar::Sidecar) {
    eventually("both authorities in the bundle", SOON, || {
        let identity = sidecar.get("/api/v1/identity").ok()?.json();
        (identity["bundles"][0]["authorities"] == 2).then_some(())
    });
}

#[test]
fn an_authority_that_leaves_the_bundle_takes_along_whom_it_signed() {
    let scene = InboundSetup::default().start();
    let (old, new) = change_of_authorities(&scene.api);
    wait_for_two_authorities(&scene.sidecar);
    let concerned = Open::through(&scene, &Identity::of(&old, STOREFRONT));
    let mut control = Open::through(&scene, &Identity::of(&new, STOREFRONT));
    let mark = scene.sidecar.mark();
    give_only(&scene.api, &new);
    concerned.must_be_cut(AlertDescription::UnknownCA);
    control.must_flow();
    closed(&scene, mark, "bundle_change");
}

#[test]
fn a_federated_bundle_that_goes_away_ends_its_peers() {
    let partner = authority("partner.example");
    let api = Api::start(&[ORDERS]);
    api.handle()
        .federate(partner.trust_domain(), Some(partner.root().to_vec()))
        .unwrap();
    let scene = InboundSetup {
        policy: Some(BOTH),
        listener: TRUST_PARTNER,
        ..InboundSetup::default()
    }
    .start_with(api);
    let concerned = Open::through(&scene, &Identity::of(&partner, "spiffe://partner.example/shop"));
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    scene.api.handle().federate(partner.trust_domain(), None).unwrap();
    concerned.must_be_cut(AlertDescription::UnknownCA);
    control.must_flow();
    let record = closed(&scene, mark, "bundle_change");
    assert_eq!(record["peer_id"], "spiffe://partner.example/shop");
}

#[test]
fn a_peers_svid_that_runs_out_ends_its_connection() {
    let scene = InboundSetup::default().start();
    let end = SystemTime::now() + Duration::from_secs(4);
    let mut concerned = Open::through(&scene, &Identity::until(&scene.api.authority(), STOREFRONT, end));
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    expect_alert(&mut concerned.client, AlertDescription::CertificateExpired);
    let late = SystemTime::now().duration_since(end).unwrap_or_default();
    assert!(late < IN_TIME, "{late:?} late");
    expect_reset(&mut concerned.app);
    control.must_flow();
    closed(&scene, mark, "peer_expired");
}

#[test]
fn our_svid_running_out_with_the_agent_gone_ends_all_and_refuses_the_next() {
    let mut api = Api::with_ttl(&[ORDERS], Duration::from_secs(8));
    let peer = api.peer(STOREFRONT);
    let begun = SystemTime::now();
    // From now on nothing is renewed.
    let given = api.handle().fresh().unwrap().unwrap();
    api.handle().script(Answer::Give(Arc::new(given)));
    let scene = InboundSetup::default().start_with(api);
    api = scene.api;
    let scene = Inbound {
        api: Api::absent(),
        ..scene
    };
    api.go();
    let client = connect(scene.tls, &peer);
    let mut open = Open {
        client,
        app: scene.app.accept(),
    };
    // What we hold is good until it runs out.
    open.must_flow();
    let mark = scene.sidecar.mark();
    expect_alert(&mut open.client, AlertDescription::InternalError);
    let after = SystemTime::now().duration_since(begun).unwrap();
    assert!(after < Duration::from_secs(8) + IN_TIME, "{after:?}");
    assert!(after > Duration::from_secs(4), "{after:?}");
    expect_reset(&mut open.app);
    closed(&scene, mark, "own_expired");

    let told = scene.sidecar.wait_not_ready(SOON);
    assert!(told.body.contains("expired"), "{}", told.body);
    let mark = scene.sidecar.mark();
    let refused = crate::peers::try_connect(scene.tls, crate::peers::client_config(Some(&peer)));
    let error = refused.expect_err("nobody is let in without an identity");
    assert_eq!(
        crate::peers::alert_of(&error),
        Some(AlertDescription::InternalError),
        "{error}"
    );
    scene.sidecar.wait_record(mark, &[("reason", "identity_expired")]);

    // The agent is back, with an authority of its own: it heals alone.
    api.come(&[ORDERS], crate::world::HOUR);
    scene.sidecar.wait_ready();
    Open::through(&scene, &api.peer(STOREFRONT));
}

#[test]
fn becoming_somebody_else_ends_every_connection() {
    let scene = InboundSetup::default().start();
    let concerned = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    scene
        .api
        .handle()
        .set_entries(vec![id("spiffe://example.org/orders-v2").into()])
        .unwrap();
    concerned.must_be_cut(AlertDescription::InternalError);
    let record = closed(&scene, mark, "identity_change");
    assert_eq!(record["own_id"], ORDERS);
    let mut now = Open::through(&scene, &scene.api.peer(STOREFRONT));
    now.must_flow();
}

#[test]
fn a_rotation_touches_no_open_connection() {
    let scene = InboundSetup::default().start();
    let mut open = Open::through(&scene, &scene.api.peer(STOREFRONT));
    for rotation in 1..=3 {
        let serial = scene.sidecar.serial().unwrap();
        // Half of a message is on its way meanwhile.
        open.client.write_all(b"before ").unwrap();
        scene.api.handle().rotate().unwrap();
        scene.sidecar.wait_rotation(&serial, SOON);
        open.client.write_all(b"after").unwrap();
        let mut got = [0; 12];
        open.app.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"before after");
        open.must_flow();
        let rotations = scene.sidecar.metric("svidecar_svid_rotations_total");
        assert_eq!(rotations, Some(f64::from(rotation)));
    }
    assert!(scene.sidecar.records_since(Mark::default()).is_empty());
}

#[test]
fn drain_gives_a_connection_time_to_end() {
    let settings = "open_connections: { on_policy_change: { drain: 1s } }\n";
    let (scene, mut concerned, mut control) = two_peers(BOTH, settings);
    let mark = scene.sidecar.mark();
    scene.sidecar.set_policy(STOREFRONT_ONLY);
    scene.sidecar.wait_log("the new policy", mark, |line| {
        line["message"]
            .as_str()
            .is_some_and(|m| m.contains("a new policy is in force"))
    });
    let begun = Instant::now();
    concerned.must_flow();
    // New ones are refused at once.
    let mut late = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut late, AlertDescription::AccessDenied);
    scene.sidecar.wait_record(mark, &[("reason", "no_allow_rule")]);
    let mark = scene.sidecar.mark();
    expect_alert(&mut concerned.client, AlertDescription::AccessDenied);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900), "cut after {took:?}");
    assert!(took < Duration::from_secs(1) + IN_TIME, "cut after {took:?}");
    expect_reset(&mut concerned.app);
    control.must_flow();
    closed(&scene, mark, "policy_change");
}

#[test]
fn log_lets_a_connection_live_and_says_so_and_expiry_still_ends_it() {
    let settings = "open_connections: { on_policy_change: log }\n";
    let scene = InboundSetup {
        policy: Some(BOTH),
        settings,
        ..InboundSetup::default()
    }
    .start();
    let end = SystemTime::now() + Duration::from_secs(4);
    let identity = Identity::until(&scene.api.authority(), REPORTS, end);
    let mut concerned = Open::through(&scene, &identity);
    let mut control = Open::through(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    scene.sidecar.set_policy(STOREFRONT_ONLY);
    let line = scene.sidecar.wait_log("that it lives on", mark, |line| {
        line["message"].as_str().is_some_and(|m| m.contains("lives on"))
    });
    assert_eq!(line["peer_id"], REPORTS, "{line}");
    assert_eq!(line["reason"], "policy_change", "{line}");
    concerned.must_flow();
    // What was said about policy does not suspend the other reasons to end.
    expect_alert(&mut concerned.client, AlertDescription::CertificateExpired);
    let late = SystemTime::now().duration_since(end).unwrap_or_default();
    assert!(late < IN_TIME, "{late:?} late");
    control.must_flow();
    closed(&scene, mark, "peer_expired");
}

#[test]
fn a_change_that_is_only_logged_hides_none_that_closes() {
    let scene = InboundSetup {
        policy: Some(BOTH),
        settings: "open_connections: { on_bundle_change: log, on_expiry: log }\n",
        ..InboundSetup::default()
    }
    .start();
    let (old, new) = change_of_authorities(&scene.api);
    wait_for_two_authorities(&scene.sidecar);
    let mut concerned = Open::through(&scene, &Identity::of(&old, REPORTS));
    let mut expired = Open::through(
        &scene,
        &Identity::until(&new, REPORTS, SystemTime::now() + Duration::from_secs(3)),
    );
    let mut control = Open::through(&scene, &Identity::of(&new, STOREFRONT));
    let mark = scene.sidecar.mark();
    give_only(&scene.api, &new);
    for reason in ["bundle_change", "peer_expired"] {
        scene.sidecar.wait_log("that it lives on", mark, |line| {
            line["reason"] == reason && line["message"].as_str().is_some_and(|m| m.contains("lives on"))
        });
    }
    concerned.must_flow();
    expired.must_flow();
    scene.sidecar.set_policy(STOREFRONT_ONLY);
    concerned.must_be_cut(AlertDescription::AccessDenied);
    expired.must_be_cut(AlertDescription::AccessDenied);
    control.must_flow();
    let records = eventually("two records", SOON, || {
        let records = scene.sidecar.records_since(mark);
        (records.len() == 2).then_some(records)
    });
    for record in records {
        assert_eq!(record["reason"], "policy_change", "{record}");
    }
}

/// A connection through an outbound listener.
pub(crate) struct OpenOut {
    pub(crate) app: TcpStream,
    pub(crate) server: Server,
}

impl OpenOut {
    pub(crate) fn through(scene: &Outbound, identity: &Identity) -> Self {
        let app = plain::connect(scene.plain);
        let server = accept(scene.peer.accept(), identity);
        let mut open = Self { app, server };
        open.must_flow();
        open
    }

    pub(crate) fn must_flow(&mut self) {
        exchange(&mut self.app, &mut self.server, "still here");
    }
}

#[test]
fn a_server_whose_svid_runs_out_or_whose_authority_goes_is_left() {
    let scene = OutboundSetup::default().start();
    let (old, new) = change_of_authorities(&scene.api);
    wait_for_two_authorities(&scene.sidecar);
    let end = SystemTime::now() + Duration::from_secs(2);
    let mut expiring = OpenOut::through(&scene, &Identity::until(&new, ORDERS, end));
    let mut untrusted = OpenOut::through(&scene, &Identity::of(&old, ORDERS));
    let mut control = OpenOut::through(&scene, &Identity::of(&new, ORDERS));

    expect_alert(&mut expiring.server, AlertDescription::CertificateExpired);
    expect_reset(&mut expiring.app);
    scene.sidecar.wait_record(
        Mark::default(),
        &[("reason", "peer_expired"), ("peer_id", ORDERS)],
    );
    untrusted.must_flow();

    give_only(&scene.api, &new);
    let begun = Instant::now();
    expect_alert(&mut untrusted.server, AlertDescription::UnknownCA);
    expect_reset(&mut untrusted.app);
    assert!(begun.elapsed() < IN_TIME);
    scene.sidecar.wait_record(
        Mark::default(),
        &[("reason", "bundle_change"), ("peer_id", ORDERS)],
    );
    control.must_flow();
    assert_eq!(scene.sidecar.records_since(Mark::default()).len(), 2);
}
