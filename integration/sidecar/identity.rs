//! Where our identity comes from, goes to, and comes back from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use svidecar::workload_api::authority::Authority;
use svidecar::workload_api::proto::X509Svid;
use svidecar::workload_api::server::Answer;
use tonic::Code;

use crate::peers::{Client, alert_of, client_config, connect, expect_alert, try_connect};
use crate::plain::{self, exchange, expect_reset, expect_reset_at_once};
use crate::support::net::free_address;
use crate::support::process::Mark;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{SOON, eventually};
use crate::world::{Api, HOUR, Identity, Inbound, InboundSetup, ORDERS, STOREFRONT, authority, id};

fn flows(scene: &Inbound, identity: &Identity) -> (Client, std::net::TcpStream) {
    let mut client = connect(scene.tls, identity);
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    (client, app)
}

/// A peer is turned away because we are nobody, at once and not after a time-out.
fn refused_without_identity(scene: &Inbound, reason: &str) {
    let mark = scene.sidecar.mark();
    let peer = Identity::of(&authority("example.org"), STOREFRONT);
    let error = try_connect(scene.tls, client_config(Some(&peer))).expect_err("it is refused");
    assert_eq!(alert_of(&error), Some(AlertDescription::InternalError), "{error}");
    let record = scene.sidecar.wait_record(mark, &[("reason", reason)]);
    assert_eq!(record["result"], "refused", "{record}");
    assert!(record["own_id"].is_null(), "{record}");
    assert!(record["duration_ms"].as_f64() < Some(1000.0), "{record}");
}

fn connected(sidecar: &Sidecar, expected: f64) {
    eventually("the metric of the source", SOON, || {
        (sidecar.metric("svidecar_workload_api_connected") == Some(expected)).then_some(())
    });
}

#[test]
fn without_a_registration_entry_it_refuses_says_what_to_check_and_heals() {
    let api = Api::start(&[ORDERS]);
    api.handle().deny();
    let scene = InboundSetup::default().start_unready(api);
    let told = eventually("/readyz says why", SOON, || {
        let told = scene.sidecar.get("/readyz").ok()?;
        told.body.contains("registration entry").then_some(told)
    });
    assert_eq!(told.status, 503);
    assert!(
        told.body.contains("selectors") && told.body.contains("parent"),
        "{}",
        told.body
    );
    assert_eq!(scene.sidecar.get("/livez").unwrap().status, 200);
    assert_eq!(scene.sidecar.get("/startupz").unwrap().status, 503);
    refused_without_identity(&scene, "no_identity");

    scene.api.handle().rotate().unwrap();
    scene.sidecar.wait_ready();
    assert_eq!(scene.sidecar.get("/startupz").unwrap().status, 200);
    flows(&scene, &scene.api.peer(STOREFRONT));
}

#[test]
fn an_application_is_told_by_a_reset_that_we_are_nobody() {
    let api = Api::start(&[STOREFRONT]);
    api.handle().deny();
    let plain = free_address();
    let config = format!(
        "{}outbound:\n  - name: to-orders\n    listen: {plain}\n    peer: [\"{ORDERS}\"]\n    connect: 127.0.0.1:1\n",
        api.identity()
    );
    let sidecar = Setup::new("storefront", config).start();
    sidecar.wait_not_ready(SOON);
    expect_reset_at_once(plain);
    sidecar.wait_record(Mark::default(), &[("reason", "no_identity")]);
}

#[test]
fn an_agent_that_comes_late_or_is_silent_is_waited_for() {
    let mut scene = InboundSetup::default().start_unready(Api::absent());
    scene.sidecar.wait_not_ready(SOON);
    refused_without_identity(&scene, "no_identity");
    scene.api.come(&[ORDERS], HOUR);
    scene.sidecar.wait_ready();
    flows(&scene, &scene.api.peer(STOREFRONT));

    let api = Api::start(&[ORDERS]);
    api.handle().script(Answer::Silence);
    let scene = InboundSetup::default().start_unready(api);
    scene.sidecar.wait_not_ready(SOON);
    refused_without_identity(&scene, "no_identity");
    scene.api.handle().rotate().unwrap();
    scene.sidecar.wait_ready();
    flows(&scene, &scene.api.peer(STOREFRONT));
}

#[test]
fn an_agent_that_restarts_is_found_again_and_nobody_notices() {
    let mut scene = InboundSetup::default().start();
    let peer = scene.api.peer(STOREFRONT);
    let (mut client, mut app) = flows(&scene, &peer);
    connected(&scene.sidecar, 1.0);
    scene.api.go();
    connected(&scene.sidecar, 0.0);
    // What we hold is good: open connections go on, new ones come in, and we are ready.
    exchange(&mut client, &mut app, "still here");
    flows(&scene, &peer);
    let ready = scene.sidecar.get("/readyz").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);

    let serial = scene.sidecar.serial().unwrap();
    scene.api.come(&[ORDERS], HOUR);
    scene.sidecar.wait_rotation(&serial, SOON);
    connected(&scene.sidecar, 1.0);
    flows(&scene, &scene.api.peer(STOREFRONT));
    // The new agent knows nothing of the old one's authority.
    expect_alert(&mut client, AlertDescription::UnknownCA);
}

#[test]
fn a_broken_stream_is_picked_up_again() {
    let scene = InboundSetup::default().start();
    let (mut client, mut app) = flows(&scene, &scene.api.peer(STOREFRONT));
    scene.api.handle().hang_up();
    let serial = scene.sidecar.serial().unwrap();
    scene.api.handle().rotate().unwrap();
    scene.sidecar.wait_rotation(&serial, SOON);
    exchange(&mut client, &mut app, "still here");
    flows(&scene, &scene.api.peer(STOREFRONT));
}

/// Makes an answer one that cannot be used.
type Spoil = fn(&mut X509Svid);

#[test]
fn an_answer_that_cannot_be_used_leaves_the_last_good_one_in_force() {
    let scene = InboundSetup::default().start();
    let (mut client, mut app) = flows(&scene, &scene.api.peer(STOREFRONT));
    let mut serial = scene.sidecar.serial().unwrap();
    let spoils: [(&str, Spoil); 4] = [
        ("rubbish for a certificate", |svid| {
            svid.x509_svid = vec![0x30, 0x82, 1]
        }),
        ("rubbish for a key", |svid| {
            svid.x509_svid_key = b"no key".to_vec()
        }),
        ("rubbish for a bundle", |svid| svid.bundle = vec![1, 2, 3]),
        ("no bundle", |svid| svid.bundle.clear()),
    ];
    for (name, spoil) in spoils {
        eprintln!("case: {name}");
        let mut given = scene.api.handle().fresh().unwrap().unwrap();
        spoil(&mut given.svids.svids[0]);
        scene.api.handle().script(Answer::Give(Arc::new(given)));
        let identity = eventually("it tells that something is wrong", SOON, || {
            let identity = scene.sidecar.get("/api/v1/identity").ok()?.json();
            identity["problem"].is_string().then_some(identity)
        });
        assert_eq!(identity["svid"]["serial"], serial.as_str(), "{identity}");
        let ready = scene.sidecar.get("/readyz").unwrap();
        assert_eq!(ready.status, 200, "{}", ready.body);
        exchange(&mut client, &mut app, "still here");
        flows(&scene, &scene.api.peer(STOREFRONT));
        // A good one heals it.
        scene.api.handle().rotate().unwrap();
        serial = scene.sidecar.wait_rotation(&serial, SOON);
        let identity = scene.sidecar.get("/api/v1/identity").unwrap().json();
        assert!(identity["problem"].is_null(), "{identity}");
    }
}

#[test]
fn a_bad_federated_bundle_does_not_stop_our_own_rotation() {
    let partner = authority("partner.example");
    let scene = InboundSetup::default().start();
    let serial = scene.sidecar.serial().unwrap();
    scene
        .api
        .handle()
        .federate(partner.trust_domain(), Some(b"rubbish".to_vec()))
        .unwrap();
    let serial = scene.sidecar.wait_rotation(&serial, SOON);
    scene.api.handle().rotate().unwrap();
    scene.sidecar.wait_rotation(&serial, SOON);
    flows(&scene, &scene.api.peer(STOREFRONT));
}

#[test]
fn a_source_that_refuses_for_good_ends_a_sidecar_that_holds_nothing() {
    let api = Api::start(&[ORDERS]);
    api.handle().script(Answer::Refuse(
        Code::InvalidArgument,
        "security header missing".to_owned(),
    ));
    let mut scene = InboundSetup::default().start_unready(api);
    let status = scene.sidecar.process_mut().wait(SOON);
    assert_eq!(status.code(), Some(1));
    let said = scene.sidecar.process().lines_since(Mark::default(), |line| {
        line.contains("security header missing").then_some(())
    });
    assert!(!said.is_empty(), "it did not say why");
}

#[test]
fn a_denial_while_we_hold_an_svid_is_kept_out_or_taken_as_told() {
    let scene = InboundSetup::default().start();
    let (mut client, mut app) = flows(&scene, &scene.api.peer(STOREFRONT));
    scene.api.handle().deny();
    connected(&scene.sidecar, 0.0);
    let ready = scene.sidecar.get("/readyz").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    exchange(&mut client, &mut app, "still here");
    flows(&scene, &scene.api.peer(STOREFRONT));

    let api = Api::start(&[ORDERS]);
    let scene = start_with_identity(&format!("{}  on_denied: withdraw\n", api.identity()));
    let scene = Inbound { api, ..scene };
    let (mut client, mut app) = flows(&scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    scene.api.handle().deny();
    expect_alert(&mut client, AlertDescription::InternalError);
    expect_reset(&mut app);
    scene.sidecar.wait_record(mark, &[("reason", "identity_change")]);
    scene.sidecar.wait_not_ready(SOON);
    refused_without_identity(&scene, "no_identity");
    scene.api.handle().rotate().unwrap();
    scene.sidecar.wait_ready();
    flows(&scene, &scene.api.peer(STOREFRONT));
}

/// An inbound scene whose `identity` section is written by the test.
fn start_with_identity(identity: &str) -> Inbound {
    let (tls, app) = (free_address(), plain::Door::open());
    let config = format!(
        "{identity}policy:\n  path: policy/\ninbound:\n  - name: orders\n    listen: {tls}\n    upstream: {}\n",
        app.addr()
    );
    let sidecar = Setup::new("orders", config)
        .policy(crate::world::STOREFRONT_ONLY)
        .start();
    sidecar.wait_ready();
    Inbound {
        api: Api::absent(),
        app,
        sidecar,
        tls,
    }
}

#[test]
fn the_wanted_svid_is_waited_for_among_several() {
    let api = Api::start(&["spiffe://example.org/other"]);
    let (tls, app) = (free_address(), plain::Door::open());
    let config = format!(
        "{}  svid: {ORDERS}\npolicy:\n  path: policy/\ninbound:\n  - name: orders\n    listen: {tls}\n    upstream: {}\n",
        api.identity(),
        app.addr()
    );
    let sidecar = Setup::new("orders", config)
        .policy(crate::world::STOREFRONT_ONLY)
        .start();
    eventually("/readyz names the wanted one", SOON, || {
        let told = sidecar.get("/readyz").ok()?;
        (told.status == 503 && told.body.contains(ORDERS)).then_some(())
    });
    api.handle().add(id(ORDERS).into()).unwrap();
    sidecar.wait_ready();
    let mut client = connect(tls, &api.peer(STOREFRONT));
    exchange(&mut client, &mut app.accept(), "hello");
    let shown = client.conn.peer_certificates().unwrap()[0].to_vec();
    assert!(String::from_utf8_lossy(&shown).contains(ORDERS));
}

/// RFC 7468, as files hold certificates and keys.
fn pem(label: &str, der: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for (number, chunk) in der.chunks(3).enumerate() {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[usize::try_from(bits >> (18 - 6 * place) & 63).unwrap()];
            text.push(if place <= chunk.len() { letter.into() } else { '=' });
        }
        if number % 16 == 15 {
            text.push('\n');
        }
    }
    format!("{}\n-----END {label}-----\n", text.trim_end())
}

pub(crate) fn write_svid(folder: &Path, authority: &Authority, identity: &Identity) {
    fs::create_dir(folder).unwrap();
    let chain: String = identity.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    fs::write(folder.join("tls.crt"), chain).unwrap();
    fs::write(folder.join("tls.key"), pem("PRIVATE KEY", &identity.key)).unwrap();
    fs::write(folder.join("ca.crt"), pem("CERTIFICATE", authority.root())).unwrap();
}

#[test]
fn files_are_read_again_when_the_folder_behind_them_is_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let authority = authority("example.org");
    let identities = [Identity::of(&authority, ORDERS), Identity::of(&authority, ORDERS)];
    write_svid(&root.join("..v1"), &authority, &identities[0]);
    write_svid(&root.join("..v2"), &authority, &identities[1]);
    symlink("..v1", root.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        symlink(format!("..data/{file}"), root.join(file)).unwrap();
    }
    let at = |file: &str| root.join(file).display().to_string();
    let section = format!(
        "identity:\n  files:\n    certificate: {}\n    key: {}\n    bundles: {{ example.org: {} }}\n",
        at("tls.crt"),
        at("tls.key"),
        at("ca.crt")
    );
    let scene = start_with_identity(&section);
    let peer = Identity::of(&authority, STOREFRONT);
    let shown = |client: &Client| -> CertificateDer<'static> {
        client.conn.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let (mut client, mut app) = flows(&scene, &peer);
    assert_eq!(shown(&client), identities[0].chain[0]);

    let serial = scene.sidecar.serial().unwrap();
    symlink("..v2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    scene.sidecar.wait_rotation(&serial, SOON);
    let (second, _app) = flows(&scene, &peer);
    assert_eq!(shown(&second), identities[1].chain[0]);
    exchange(&mut client, &mut app, "still here");

    // Half-written files are no reason to lose what we have.
    let mark = scene.sidecar.mark();
    fs::write(root.join("..v2/tls.crt"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    scene
        .sidecar
        .wait_log("a complaint", mark, |line| line["level"] == "WARN");
    flows(&scene, &peer);
    assert_eq!(scene.sidecar.get("/readyz").unwrap().status, 200);
}

#[test]
fn short_lived_svids_are_renewed_under_traffic() {
    let api = Api::with_ttl(&[ORDERS], Duration::from_secs(3));
    let peer = api.peer(STOREFRONT);
    let scene = InboundSetup {
        settings: "open_connections: { on_expiry: log }\n",
        ..InboundSetup::default()
    }
    .start_with(api);
    let (mut client, mut app) = flows(&scene, &peer);
    let mut serial = scene.sidecar.serial().unwrap();
    for _ in 0..3 {
        let next = eventually("another SVID", SOON, || {
            exchange(&mut client, &mut app, "busy");
            scene.sidecar.serial().filter(|now| *now != serial)
        });
        serial = next;
        flows(&scene, &peer);
    }
    let expiring = scene.sidecar.metric("svidecar_svid_expiry_timestamp_seconds");
    assert!(expiring.is_some());
}

#[test]
fn an_agent_that_hangs_is_noticed_by_the_age_of_the_svid() {
    // It answers for as long as it is asked anew, and forgets to push: a stream that is open and silent.
    let api = Api::with_ttl(&[ORDERS], Duration::from_secs(6));
    let stale = api.handle().fresh().unwrap().unwrap();
    api.handle().script(Answer::Give(Arc::new(stale)));
    let scene = InboundSetup::default().start_with(api);
    let serial = scene.sidecar.serial().unwrap();
    scene.api.handle().script(Answer::Silence);
    // Said once, and on a busy machine perhaps by now.
    let line = scene
        .sidecar
        .wait_log("that the agent is silent", Mark::default(), |line| {
            line["target"] == "svidecar::identity::source" && line["level"] == "WARN"
        });
    // Said while what we hold is still good.
    assert_eq!(scene.sidecar.get("/readyz").unwrap().status, 200, "{line}");
    scene.api.handle().set_ttl(HOUR).unwrap();
    scene.sidecar.wait_rotation(&serial, SOON);
    flows(&scene, &scene.api.peer(STOREFRONT));
}

/// By our clock it is as good as none: the peer may know better, and both ends are asked to be sure.
#[test]
fn an_svid_that_is_not_valid_yet_is_presented_to_nobody_before_its_time() {
    let api = Api::start(&[ORDERS]);
    // Certificates count whole seconds.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() + 5);
    let early = Identity::with(&api.authority(), ORDERS, |params| {
        params.not_before = begin.into();
    });
    let mut given = api.handle().fresh().unwrap().unwrap();
    let svid = &mut given.svids.svids[0];
    svid.x509_svid = early.chain[0].to_vec();
    svid.x509_svid_key.clone_from(&early.key);
    api.handle().script(Answer::Give(Arc::new(given)));
    let scene = InboundSetup::default().start_unready(api);
    let told = eventually("/readyz says why", SOON, || {
        let told = scene.sidecar.get("/readyz").ok()?;
        told.body.contains("shows an earlier time").then_some(told)
    });
    assert_eq!(told.status, 503, "{}", told.body);
    refused_without_identity(&scene, "no_identity");
    // Nothing has to happen for it to become good.
    scene.sidecar.wait_ready();
    assert!(SystemTime::now() >= begin);
    flows(&scene, &scene.api.peer(STOREFRONT));
}
