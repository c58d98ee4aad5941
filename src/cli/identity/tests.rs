use std::sync::Arc;

use super::*;
use crate::clock::SystemClock;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::workload_api::authority::Authority;
use crate::workload_api::server::bind;
use crate::workload_api::server::{Answer as Script, Entry, Handle, serve};

/// A server on a runtime of its own, because the command makes its own, too.
struct Agent {
    dir: tempfile::TempDir,
    server: Handle,
    _runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn new(entries: Vec<Entry>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = {
            let _inside = runtime.enter();
            let life = Duration::from_secs(3600);
            let authority =
                Authority::new(TrustDomain::new("example.org").unwrap(), life, SystemTime::now()).unwrap();
            let listener = bind(&dir.path().join("s"), 0o600).unwrap();
            serve(listener, authority, entries, life, Arc::new(SystemClock)).unwrap()
        };
        Self {
            dir,
            server,
            _runtime: runtime,
        }
    }

    fn ask(&self, json: bool) -> (u8, String) {
        let socket = format!("unix://{}", self.dir.path().join("s").display());
        ask(&IdentityArgs {
            socket: Some(socket),
            json,
            timeout: Duration::from_millis(500),
        })
    }
}

fn ask(args: &IdentityArgs) -> (u8, String) {
    let mut out = Vec::new();
    let mut err = Vec::new();
    let code = show(args, &mut out, &mut err).unwrap();
    out.extend(err);
    (code, String::from_utf8(out).unwrap())
}

fn entries() -> Vec<Entry> {
    let id = |path: &str| SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap();
    vec![
        Entry {
            id: id("web"),
            hint: Some("internal".to_owned()),
        },
        id("admin").into(),
    ]
}

#[test]
fn shows_each_svid_and_bundle() {
    let agent = Agent::new(entries());
    let (code, text) = agent.ask(false);
    assert_eq!(code, 0, "{text}");
    for part in [
        "spiffe://example.org/web\n  hint     internal\n  expires  ",
        "(in 59 min ",
        "  key      EC P-256\n  serial   ",
        "spiffe://example.org/admin\n  expires  ",
        "bundle of example.org: 1 authority, expires ",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (code, text) = agent.ask(true);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    assert_eq!(value["svids"][0]["id"], "spiffe://example.org/web");
    assert_eq!(value["svids"][0]["hint"], "internal");
    assert_eq!(value["bundles"][0]["trust_domain"], "example.org");
    assert_eq!(value["errors"], json!([]));
    assert!(
        !text.contains("PRIVATE") && !text.to_lowercase().contains("\"key\""),
        "{text}"
    );
}

#[test]
fn says_what_is_wrong_and_what_to_check() {
    let agent = Agent::new(Vec::new());
    let (code, text) = agent.ask(false);
    assert_eq!(code, 1);
    assert!(
        text.contains("no identity issued") && text.contains("registration entry"),
        "{text}"
    );
    let (code, text) = agent.ask(true);
    assert_eq!(code, 1);
    assert!(
        serde_json::from_str::<Value>(&text).unwrap()["error"]
            .as_str()
            .unwrap()
            .contains("selectors"),
        "{text}"
    );

    agent.server.set_entries(entries()).unwrap();
    let mut given = agent.server.fresh().unwrap().unwrap();
    given.svids.svids[1].x509_svid = b"rubbish".to_vec();
    given
        .svids
        .federated_bundles
        .insert("spiffe://partner.example".to_owned(), b"rubbish".to_vec());
    agent.server.script(Script::Give(Arc::new(given)));
    let (code, text) = agent.ask(false);
    assert_eq!(code, 1);
    assert!(text.contains("spiffe://example.org/web\n"), "{text}");
    assert!(
        text.contains("error: SVID `spiffe://example.org/admin`: the certificates cannot be read"),
        "{text}"
    );
    assert!(text.contains("warning: bundle of `partner.example`"), "{text}");

    agent.server.script(Script::Silence);
    let (code, text) = agent.ask(false);
    assert_eq!(code, 1);
    assert!(text.contains("did not answer within 500ms"), "{text}");
}

#[test]
fn bad_addresses() {
    let args = |socket: &str| IdentityArgs {
        socket: Some(socket.to_owned()),
        json: false,
        timeout: Duration::from_secs(1),
    };
    let (code, text) = ask(&args("/run/agent.sock"));
    assert_eq!(code, 2);
    assert!(
        text.contains("a Workload API address is `unix:///path`"),
        "{text}"
    );
    let (code, text) = ask(&args("unix:///nowhere/agent.sock"));
    assert_eq!(code, 1);
    assert!(text.contains("is the agent running"), "{text}");
}
