//! What an operator changes at the admin endpoint: who may, and what comes of it.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustls::AlertDescription;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::open_connections::Open;
use crate::peers::{connect, expect_alert};
use crate::plain::exchange;
use crate::support::http::{self, Endpoint, Response};
use crate::support::process::{Mark, output_of, try_output_of};
use crate::support::sidecar::SVIDECAR;
use crate::support::{SOON, eventually};
use crate::world::{Inbound, InboundSetup, REPORTS, STOREFRONT, STOREFRONT_ONLY};

const TOKEN: &str = "3f786850e387550fdab836ed7e6dc881de23001b";

/// A sidecar whose admin endpoint takes a token.
struct Guarded {
    scene: Inbound,
    folder: TempDir,
}

impl Guarded {
    fn start() -> Self {
        let folder = TempDir::with_prefix("svidecar-token-").unwrap();
        let token = folder.path().join("token");
        write_token(&token, TOKEN, 0o400);
        let scene = InboundSetup {
            settings: &format!(
                "admin: {{ listen: '@admin', token_file: '{}' }}\n",
                token.display()
            ),
            ..InboundSetup::default()
        }
        .start();
        Self { scene, folder }
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Response {
        let headers = format!("Authorization: Bearer {token}\r\n");
        self.scene.sidecar.request(method, path, &headers, body)
    }

    fn post(&self, path: &str) -> Value {
        let response = self.ask("POST", path, TOKEN, "");
        assert_eq!(response.status, 200, "{}", response.body);
        response.json()
    }

    /// The line that tells of a change.
    fn told(&self, mark: Mark, door: &str) -> Value {
        let told = self.scene.sidecar.wait_log("that it was asked", mark, |line| {
            line["target"] == "svidecar::admin" && line["door"] == door
        });
        assert_eq!(told["level"], "INFO", "{told}");
        told
    }
}

fn write_token(path: &PathBuf, token: &str, mode: u32) {
    let _ = fs::remove_file(path);
    fs::write(path, format!("{token}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn over_tcp_a_change_needs_the_token_and_no_web_page_makes_one() {
    let guarded = Guarded::start();
    let sidecar = &guarded.scene.sidecar;
    for path in ["/api/v1/reload", "/api/v1/drain", "/api/v1/connections/1/close"] {
        let without = sidecar.request("POST", path, "", "");
        assert_eq!(without.status, 401, "{path}: {}", without.body);
        assert!(
            without
                .head
                .to_ascii_lowercase()
                .contains("www-authenticate: bearer")
        );
        assert!(
            without.json()["hint"]
                .as_str()
                .unwrap()
                .contains("admin.token_file")
        );
        assert_eq!(guarded.ask("POST", path, &TOKEN[1..], "").status, 401, "{path}");
        let foreign = format!("Authorization: Bearer {TOKEN}\r\nOrigin: https://evil.example\r\n");
        assert_eq!(sidecar.request("POST", path, &foreign, "").status, 403, "{path}");
        assert_eq!(guarded.ask("GET", path, TOKEN, "").status, 405, "{path}");
    }
    assert!(sidecar.is_ready());
    let status = sidecar.get("/api/v1/status").unwrap().json();
    assert_eq!(status["changes"], "token", "{status}");

    // A new token counts at once, and one that everybody can read does not count at all.
    let path = guarded.folder.path().join("token");
    write_token(&path, "another-token-of-enough-bytes", 0o600);
    assert_eq!(guarded.ask("POST", "/api/v1/reload", TOKEN, "").status, 401);
    let answer = guarded.ask("POST", "/api/v1/reload", "another-token-of-enough-bytes", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    write_token(&path, TOKEN, 0o644);
    assert_eq!(guarded.ask("POST", "/api/v1/reload", TOKEN, "").status, 503);
}

#[test]
fn without_a_token_nothing_is_changed_over_tcp() {
    let scene = InboundSetup::default().start();
    for path in ["/api/v1/reload", "/api/v1/drain", "/api/v1/connections/1/close"] {
        let answer = scene.sidecar.request("POST", path, "", "");
        assert_eq!(answer.status, 403, "{}", answer.body);
    }
    let status = scene.sidecar.get("/api/v1/status").unwrap().json();
    assert_eq!(status["changes"], "none", "{status}");
    assert!(scene.sidecar.is_ready());
}

#[test]
fn the_unix_socket_lets_changes_in_as_it_is() {
    let folder = TempDir::with_prefix("svidecar-admin-").unwrap();
    let socket = folder.path().join("admin.sock");
    let scene = InboundSetup {
        settings: &format!(
            "admin: {{ listen: 'unix://{}', probes: '@admin' }}\n",
            socket.display()
        ),
        ..InboundSetup::default()
    }
    .start();
    let endpoint = Endpoint::Unix(socket);
    let status = http::get(&endpoint, "/api/v1/status").unwrap().json();
    assert_eq!(status["changes"], "unix", "{status}");
    let answer = http::request(&endpoint, "POST", "/api/v1/reload", "", "").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["policy"]["result"], "success", "{}", answer.body);
    scene.sidecar.wait_log("by which door", Mark::default(), |line| {
        line["target"] == "svidecar::admin" && line["door"] == "unix"
    });
    let origin = "Origin: http://localhost\r\n";
    let answer = http::request(&endpoint, "POST", "/api/v1/drain", origin, "").unwrap();
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert_eq!(scene.sidecar.request("POST", "/api/v1/drain", "", "").status, 404);
    assert!(scene.sidecar.is_ready());
}

#[test]
fn a_reload_answers_with_what_came_of_it() {
    let guarded = Guarded::start();
    let sidecar = &guarded.scene.sidecar;
    let generation = || sidecar.get("/api/v1/policy").unwrap().json()["generation"].clone();
    let mark = sidecar.mark();
    let answer = guarded.post("/api/v1/reload");
    assert_eq!(answer["policy"]["result"], "success", "{answer}");
    assert_eq!(answer["deny_list"], Value::Null, "{answer}");
    assert_eq!(answer["candidate"], Value::Null, "{answer}");
    assert_eq!(generation(), 1);
    guarded.told(mark, "token");

    sidecar.set_policy("rules:\n  - name: broken\n    action: alow\n");
    let answer = guarded.post("/api/v1/reload");
    assert_eq!(answer["policy"]["result"], "failure", "{answer}");
    assert!(
        answer["policy"]["problems"][0]
            .as_str()
            .unwrap()
            .contains("allow"),
        "{answer}"
    );
    assert_eq!(generation(), 1);

    sidecar.set_policy(&STOREFRONT_ONLY.replace(STOREFRONT, REPORTS));
    let answer = guarded.post("/api/v1/reload");
    assert_eq!(answer["policy"]["result"], "success", "{answer}");
    assert_eq!(generation(), 2);
    let mut refused = connect(guarded.scene.tls, &guarded.scene.api.peer(STOREFRONT));
    expect_alert(&mut refused, AlertDescription::AccessDenied);
}

#[test]
fn a_drain_refuses_who_comes_and_leaves_who_is_there() {
    let mut guarded = Guarded::start();
    let mut open = Open::through(&guarded.scene, &guarded.scene.api.peer(STOREFRONT));
    let mark = guarded.scene.sidecar.mark();
    assert_eq!(guarded.post("/api/v1/drain"), json!({ "open": 1 }));
    guarded.told(mark, "token");
    let address = guarded.scene.tls;
    eventually("the port is given up", SOON, || {
        let refused =
            TcpStream::connect(address).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
        refused.then_some(())
    });
    let ready = guarded.scene.sidecar.wait_not_ready(SOON);
    assert!(
        ready.body.contains("accept no more connections"),
        "{}",
        ready.body
    );
    open.must_flow();
    // Once more changes nothing.
    assert_eq!(guarded.post("/api/v1/drain"), json!({ "open": 1 }));
    open.must_flow();
    assert!(guarded.scene.sidecar.process_mut().is_running());
    drop(open);
    let ended = guarded.scene.sidecar.terminate(SOON);
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_closed_connection_ends_as_one_that_we_cut() {
    let guarded = Guarded::start();
    let scene = &guarded.scene;
    let concerned = Open::through(scene, &scene.api.peer(STOREFRONT));
    let shown = scene.sidecar.get("/api/v1/connections").unwrap().json();
    let number = shown["connections"][0]["id"].as_u64().unwrap();
    let mut control = Open::through(scene, &scene.api.peer(STOREFRONT));
    let mark = scene.sidecar.mark();
    let path = format!("/api/v1/connections/{number}/close");
    assert_eq!(guarded.post(&path), json!({ "closed": number }));
    concerned.must_be_cut(AlertDescription::InternalError);
    let record = scene
        .sidecar
        .wait_record(mark, &[("reason", "closed_by_operator")]);
    assert_eq!(record["id"], number, "{record}");
    assert_eq!(record["result"], "closed", "{record}");
    // Policy still says what it said.
    assert_eq!(record["verdict"], "allow", "{record}");
    assert_eq!(guarded.told(mark, "token")["connection"], number);
    control.must_flow();
    let again = guarded.ask("POST", &path, TOKEN, "");
    assert_eq!(again.status, 404, "{}", again.body);
    let sample = "svidecar_connections_total{listener=\"orders\",direction=\"inbound\",result=\"closed\",\
                  reason=\"closed_by_operator\"}";
    assert_eq!(scene.sidecar.metric(sample), Some(1.0));
}

#[test]
fn check_and_run_refuse_a_token_that_guards_nothing() {
    let folder = TempDir::with_prefix("svidecar-token-").unwrap();
    let config = folder.path().join("svidecar.yaml");
    let text = "identity: { socket: 'unix:///nowhere.sock' }\noutbound:\n  - { name: a, listen: '127.0.0.1:0', \
                connect: '127.0.0.1:1', peer: ['spiffe://example.org/a'] }\nadmin: { listen: '127.0.0.1:0', token_file: token }\n";
    fs::write(&config, text).unwrap();
    let token = folder.path().join("token");
    let command = |word: &str| {
        let mut command = Command::new(SVIDECAR);
        command.args([word, "--config"]).arg(&config);
        command
    };
    for (content, mode, says) in [
        (None, 0, "cannot read the file"),
        (Some("short"), 0o600, "16 bytes or more; this one has 5"),
        (Some(TOKEN), 0o644, "everybody on this machine may read"),
    ] {
        if let Some(content) = content {
            write_token(&token, content, mode);
        }
        for word in ["check", "run"] {
            let wrong = try_output_of(&mut command(word), SOON).unwrap_err();
            assert!(
                wrong.contains("admin.token_file") && wrong.contains(says),
                "{word}: {wrong}"
            );
            assert!(!wrong.contains(TOKEN));
        }
    }
    write_token(&token, TOKEN, 0o440);
    output_of(&mut command("check"), SOON);
}

#[test]
fn a_number_that_nobody_has_closes_nobody() {
    let guarded = Guarded::start();
    let mut client = connect(guarded.scene.tls, &guarded.scene.api.peer(STOREFRONT));
    let mut app = guarded.scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    for wrong in ["0", "999999"] {
        let path = format!("/api/v1/connections/{wrong}/close");
        assert_eq!(guarded.ask("POST", &path, TOKEN, "").status, 404);
    }
    exchange(&mut client, &mut app, "still here");
}

#[test]
fn the_log_s_filter_changes_while_it_runs() {
    let guarded = Guarded::start();
    let sidecar = &guarded.scene.sidecar;
    let shown = || sidecar.get("/api/v1/log").unwrap().json();
    assert_eq!(shown(), json!({ "level": "info", "previous": null }));
    assert_eq!(sidecar.request("PUT", "/api/v1/log", "", "debug").status, 401);

    let mark = sidecar.mark();
    let quiet = "warn,svidecar::connection=error";
    let answer = guarded.ask("PUT", "/api/v1/log", TOKEN, &format!(" {quiet}\n"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json(), json!({ "level": quiet, "previous": "info" }));
    assert_eq!(guarded.told(mark, "token")["level"], "INFO");
    let wrong = guarded.ask("PUT", "/api/v1/log", TOKEN, "info,loud");
    assert_eq!(wrong.status, 400);
    let wrong = wrong.json();
    assert!(
        wrong["error"]
            .as_str()
            .unwrap()
            .contains("`loud` is no log level"),
        "{wrong}"
    );
    assert_eq!(shown()["level"], quiet);

    // Records obey it, too: this denial has no line, the next one has.
    let mark = sidecar.mark();
    let deny = || {
        let mut denied = connect(guarded.scene.tls, &guarded.scene.api.peer(REPORTS));
        expect_alert(&mut denied, AlertDescription::AccessDenied);
    };
    deny();
    eventually("it is counted", SOON, || {
        let sample = "svidecar_connections_total{listener=\"orders\",direction=\"inbound\",result=\"denied\",\
                      reason=\"no_allow_rule\"}";
        (sidecar.metric(sample) == Some(1.0)).then_some(())
    });
    // Its place is given back when its record, of which the metric is the first part, is done with.
    eventually("it is over", SOON, || {
        let shown = sidecar.get("/api/v1/connections").ok()?.json();
        (shown["in_handshake_or_closing"] == 0).then_some(())
    });
    assert_eq!(guarded.ask("PUT", "/api/v1/log", TOKEN, "info").status, 200);
    deny();
    sidecar.wait_record(mark, &[("reason", "no_allow_rule")]);
    assert_eq!(sidecar.records_since(mark).len(), 1);
}
