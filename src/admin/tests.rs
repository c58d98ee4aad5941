//! The endpoint over real sockets, and the rules of who may ask as a table.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::token::TokenFile;
use super::*;
use crate::config::settings::Address;
use crate::lifecycle::readiness::{Condition, Readiness};
use crate::record::decision::tests::denial;
use crate::record::{Decision, DecisionIds, Verdict};
use crate::sys::bind;
use crate::telemetry::decisions::MAX_SUBSCRIBERS;

mod changes;
mod handed;
mod status;

struct Fake {
    readiness: Readiness,
    decisions: Decisions,
    feed: Feed,
    token: Option<TokenFile>,
    log: LogControl,
    /// How often a status was computed.
    computed: AtomicUsize,
    /// What was changed, in words.
    changed: Mutex<Vec<String>>,
    /// What was recorded of it.
    recorded: Mutex<Vec<Changed>>,
}

impl Fake {
    fn new(token: Option<TokenFile>) -> Self {
        Self {
            readiness: Readiness::new(),
            decisions: Decisions::new(None),
            feed: Feed::default(),
            token,
            log: LogControl::detached("info"),
            computed: AtomicUsize::new(0),
            changed: Mutex::default(),
            recorded: Mutex::default(),
        }
    }

    fn note(&self, what: &str) {
        self.changed.lock().unwrap().push(what.to_owned());
    }
}

impl AdminState for Fake {
    fn readiness(&self) -> Snapshot {
        self.readiness.snapshot()
    }

    fn metrics(&self, openmetrics: bool) -> String {
        format!("openmetrics {openmetrics}\n")
    }

    fn identity(&self) -> Value {
        json!({ "what": "identity" })
    }

    fn policy(&self) -> Value {
        json!({ "what": "policy" })
    }

    fn connections(&self, limit: usize, local: Option<SocketAddr>) -> Value {
        json!({ "what": "connections", "limit": limit, "local": local })
    }

    fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn status(&self, connections: usize) -> Status {
        let computed = self.computed.fetch_add(1, Ordering::Relaxed) + 1;
        let Value::Object(fields) = json!({ "computed": computed, "text": "}\n" }) else {
            panic!("no object");
        };
        Status {
            fields,
            total: 1500,
            in_handshake_or_closing: 2,
            shown: (0..connections).map(|n| json!({ "id": n })).collect(),
        }
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn explain(&self, question: &Question) -> Result<Value, NoAnswer> {
        if question.to == "orders" {
            return Ok(json!({ "verdict": "deny", "peer": question.from, "source": question.source }));
        }
        Err(NoAnswer {
            error: format!("`to` is `{}`", question.to),
            hint: "there is `orders`".to_owned(),
        })
    }

    fn token(&self) -> Option<&TokenFile> {
        self.token.as_ref()
    }

    fn reload(&self) -> Changing<'_, Option<Value>> {
        self.note("reload");
        Box::pin(async { Some(json!({ "policy": { "result": "success" } })) })
    }

    fn drain(&self) -> usize {
        self.note("drain");
        7
    }

    fn close(&self, connection: u64) -> bool {
        self.note(&format!("close {connection}"));
        connection == 12
    }

    fn log(&self) -> &LogControl {
        &self.log
    }

    fn changed(&self, change: Changed) {
        self.recorded.lock().unwrap().push(change);
    }
}

struct Running {
    address: Address,
    readiness: Readiness,
    state: Arc<Fake>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

fn start(address: &Address, kind: Kind) -> Running {
    start_with(address, kind, None)
}

fn start_with(address: &Address, kind: Kind, token: Option<TokenFile>) -> Running {
    let listener = match address {
        Address::Tcp(address) => bind::tcp(*address).unwrap(),
        Address::Unix(path) => bind::unix(path, 0o600).unwrap(),
    };
    let address = listener
        .tcp_address()
        .map_or_else(|| address.clone(), Address::Tcp);
    let (stop, stopped) = oneshot::channel::<()>();
    let state = Arc::new(Fake::new(token));
    let readiness = state.readiness.clone();
    let served = tokio::spawn(serve(listener, kind, state.clone(), async move {
        let _ = stopped.await;
    }));
    Running {
        address,
        readiness,
        state,
        stop,
        served,
    }
}

fn start_tcp(kind: Kind) -> Running {
    start(&Address::Tcp("127.0.0.1:0".parse().unwrap()), kind)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Running {
    async fn connect(&self) -> Box<dyn Stream> {
        match &self.address {
            Address::Tcp(addr) => Box::new(TcpStream::connect(addr).await.unwrap()),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        }
    }

    /// Sends a request as it stands and returns the answer, to the end of the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        parse(&self.raw(&format!("GET {path} HTTP/1.1\r\n{headers}\r\n")).await)
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

fn parse(answer: &str) -> (u16, String, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (
        head[9..12].parse().unwrap(),
        head.to_ascii_lowercase(),
        body.to_owned(),
    )
}

const LOCAL: &str = "Host: 127.0.0.1:15000\r\n";

#[tokio::test]
async fn readiness_goes_from_503_to_200_and_says_why() {
    let running = start_tcp(Kind::Full);
    let (status, head, body) = running.get("/readyz", LOCAL).await;
    assert_eq!(status, 503);
    assert!(head.contains("content-type: application/json"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["status"], "unavailable");
    assert_eq!(
        body["conditions"][0],
        json!({ "name": "identity", "ok": false, "detail": "no SVID yet" })
    );
    assert_eq!(running.get("/startupz", LOCAL).await.0, 503);
    assert_eq!(running.get("/livez", LOCAL).await.0, 200);
    for condition in Condition::ALL {
        running.readiness.set(*condition, true, "fine");
    }
    for path in ["/readyz", "/health", "/startupz"] {
        assert_eq!(running.get(path, LOCAL).await.0, 200, "{path}");
    }
    running.readiness.set(Condition::NotDraining, false, "SIGTERM");
    let statuses = [
        running.get("/health", LOCAL).await.0,
        running.get("/startupz", LOCAL).await.0,
    ];
    assert_eq!(statuses, [503, 200]);
    running.end().await;
}

#[tokio::test]
async fn every_route_answers_with_its_content_and_its_headers() {
    let running = start_tcp(Kind::Full);
    for (path, kind, content) in [
        ("/api/v1/identity", "application/json", "\"identity\""),
        ("/api/v1/policy", "application/json", "\"policy\""),
        ("/api/v1/connections", "application/json", "\"limit\": 100"),
        ("/api/v1/connections?limit=7", "application/json", "\"limit\": 7"),
        (
            "/api/v1/connections?local=127.0.0.1:80",
            "application/json",
            "\"local\": \"127.0.0.1:80\"",
        ),
        (
            "/api/v1/connections?local=[::ffff:127.0.0.1]:80&limit=7",
            "application/json",
            "\"local\": \"127.0.0.1:80\"",
        ),
        (
            "/api/v1/connections?local=%5B::1%5D%3A80",
            "application/json",
            "\"local\": \"[::1]:80\"",
        ),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "openmetrics false",
        ),
        ("/style.css", "text/css", "color-scheme: light dark"),
        ("/", "text/html", "<title>svidecar</title>"),
        ("/app.js", "text/javascript", "import { State }"),
    ] {
        let (status, head, body) = running.get(path, LOCAL).await;
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
        assert!(body.contains(content), "{path}: {body}");
        for header in [
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "default-src 'none'",
        ] {
            assert!(head.contains(header), "{path}: {head}");
        }
    }
    let accept = format!("{LOCAL}Accept: application/openmetrics-text; version=1.0.0\r\n");
    let (_, head, body) = running.get("/metrics", &accept).await;
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert_eq!(body, "openmetrics true\n");
    running.end().await;
}

#[tokio::test]
async fn wrong_requests_get_helpful_answers() {
    let running = start_tcp(Kind::Full);
    let (status, _, body) = running.get("/metricz", LOCAL).await;
    assert_eq!(status, 404);
    assert!(
        body.contains("there is no `/metricz` here") && body.contains("/metrics"),
        "{body}"
    );
    let (status, head, body) = parse(
        &running
            .raw(&format!("POST /readyz HTTP/1.1\r\n{LOCAL}\r\n"))
            .await,
    );
    assert_eq!(status, 405);
    assert!(
        head.contains("allow: get, head") && body.contains("does not take POST"),
        "{head}{body}"
    );
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit",
        "color=red",
        "local=80",
        "local=",
        "local=127.0.0.1",
    ] {
        let (status, _, body) = running.get(&format!("/api/v1/connections?{query}"), LOCAL).await;
        assert_eq!(status, 400, "{query}: {body}");
    }
    let (status, _, body) = parse(&running.raw(&format!("HEAD /livez HTTP/1.1\r\n{LOCAL}\r\n")).await);
    assert_eq!((status, body.as_str()), (200, ""));
    let big = format!("{LOCAL}X: {}\r\n", "x".repeat(17 * 1024));
    assert_eq!(running.get("/livez", &big).await.0, 431);
    let many = format!("{LOCAL}{}", "X: y\r\n".repeat(100));
    assert_eq!(running.get("/livez", &many).await.0, 431);
    running.end().await;
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let full = start_tcp(Kind::Full);
    let probes = start_tcp(Kind::Probes);
    // headers, then the status of the full endpoint and of the probes
    for (headers, expected) in [
        ("Host: 127.0.0.1:15000\r\n", [200, 200]),
        ("Host: localhost\r\n", [200, 200]),
        ("Host: LOCALHOST:1\r\n", [200, 200]),
        ("Host: [::1]:15000\r\n", [200, 200]),
        ("Host: [::ffff:127.0.0.1]:15000\r\n", [200, 200]),
        ("", [200, 200]),
        ("Host: 10.0.0.7:15021\r\n", [403, 200]),
        ("Host: evil.example\r\n", [403, 403]),
        ("Host: localhost.evil.example:15000\r\n", [403, 403]),
        ("Host: 127.0.0.1.evil.example\r\n", [403, 403]),
        ("Host: user@127.0.0.1\r\n", [403, 403]),
        ("Host: 127.0.0.1\r\nHost: evil.example\r\n", [403, 403]),
        ("Host:\r\n", [403, 403]),
        ("Host: localhost:9\r\nOrigin: http://localhost:9\r\n", [200, 200]),
        ("Host: localhost:9\r\nOrigin: http://localhost:8\r\n", [403, 403]),
        (
            "Host: localhost:9\r\nOrigin: https://evil.example\r\n",
            [403, 403],
        ),
        ("Host: localhost:9\r\nOrigin: null\r\n", [403, 403]),
        (
            "Host: localhost:9\r\nOrigin: http://localhost:9\r\nOrigin: http://x\r\n",
            [403, 403],
        ),
        ("Origin: http://evil.example\r\n", [403, 403]),
    ] {
        for (running, expected) in [&full, &probes].into_iter().zip(expected) {
            let (status, _, body) = running.get("/livez", headers).await;
            assert_eq!(status, expected, "{headers:?}: {body}");
        }
    }
    let absolute = format!("GET http://evil.example/livez HTTP/1.1\r\n{LOCAL}\r\n");
    assert_eq!(parse(&full.raw(&absolute).await).0, 403);
    full.end().await;
    probes.end().await;
}

#[tokio::test]
async fn the_probes_serve_health_alone() {
    let running = start_tcp(Kind::Probes);
    for path in ["/readyz", "/startupz", "/health"] {
        assert_eq!(running.get(path, LOCAL).await.0, 503, "{path}");
    }
    assert_eq!(running.get("/livez", LOCAL).await.0, 200);
    for path in [
        "/",
        "/metrics",
        "/style.css",
        "/api/v1/identity",
        "/api/v1/policy",
        "/api/v1/connections",
        "/api/v1/decisions",
        "/api/v1/decisions/4f2a90c1d3e7-1",
    ] {
        let (status, _, body) = running.get(path, LOCAL).await;
        assert_eq!(status, 404, "{path}");
        assert!(
            body.contains("there are /livez /readyz /startupz /health\""),
            "{body}"
        );
    }
    running.end().await;
}

#[tokio::test]
async fn a_unix_socket_is_private_and_cares_for_no_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    // Left behind by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = Address::Unix(path.clone());
    let running = start(&address, Kind::Full);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(running.get("/livez", "Host: whatever.example\r\n").await.0, 200);
    assert_eq!(
        running.get("/livez", "Host: x\r\nOrigin: http://x\r\n").await.0,
        403
    );
    running.end().await;
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn slow_headers_and_slow_readers_are_cut_off() {
    let running = start_tcp(Kind::Full);
    let mut slow = running.connect().await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: local")
        .await
        .unwrap();
    let began = tokio::time::Instant::now();
    let mut answer = Vec::new();
    // Time passes by itself while everybody waits; an end of the stream is what is waited for.
    let _ = slow.read_to_end(&mut answer).await;
    let waited = began.elapsed();
    assert!(
        waited >= server::HEADER_TIMEOUT && waited <= server::CONNECTION_TIMEOUT,
        "{waited:?}"
    );
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    running.end().await;
}

#[tokio::test]
async fn silent_connections_cannot_keep_a_probe_from_its_answer() {
    let running = start_tcp(Kind::Probes);
    let mut held = Vec::new();
    for _ in 0..server::MAX_CONNECTIONS {
        held.push(running.connect().await);
    }
    assert_eq!(running.get("/livez", LOCAL).await.0, 200);
    // The oldest had to go for it.
    let mut nothing = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(3), held[0].read_to_end(&mut nothing)).await;
    assert!(read.is_ok() && nothing.is_empty(), "the oldest is not closed");
    // The others are served, and each gives its place back.
    for stream in &mut held[1..] {
        stream
            .write_all(format!("GET /livez HTTP/1.1\r\n{LOCAL}\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(parse(&answer).0, 200);
    }
    assert_eq!(running.get("/livez", LOCAL).await.0, 200);
    running.end().await;
}

fn verdict(ids: &DecisionIds, verdict: Verdict) -> Arc<Decision> {
    Arc::new(Decision {
        id: ids.next(),
        verdict,
        ..denial()
    })
}

#[tokio::test]
async fn verdicts_are_listed_filtered_and_found_by_their_id() {
    let running = start_tcp(Kind::Full);
    let ids = DecisionIds::new(1);
    let allowed = verdict(&ids, Verdict::Allow);
    let denied = verdict(&ids, Verdict::Deny);
    for verdict in [&allowed, &denied] {
        running.state.decisions().record(verdict);
    }
    let ids_of = |body: &str| -> Vec<String> {
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["kept"], 2);
        let found = body["decisions"].as_array().unwrap().iter();
        found.map(|d| d["id"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("", vec![&denied, &allowed]),
        ("?limit=1", vec![&denied]),
        ("?verdict=allow", vec![&allowed]),
        (
            "?peer=spiffe%3A%2F%2Fexample.org%2F**&verdict=deny",
            vec![&denied],
        ),
        ("?listener=other", vec![]),
    ] {
        let (status, _, body) = running.get(&format!("/api/v1/decisions{query}"), LOCAL).await;
        let expected: Vec<_> = expected.iter().map(|d| d.id.to_string()).collect();
        assert_eq!((status, ids_of(&body)), (200, expected), "{query}");
    }
    let one = format!("/api/v1/decisions/{}", denied.id);
    let (status, _, body) = running.get(&one, LOCAL).await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!(denied));
    for (path, status) in [
        ("/api/v1/decisions/000000000001-99", 404),
        ("/api/v1/decisions/17", 400),
        ("/api/v1/decisions/", 400),
        ("/api/v1/decisions?verdict=maybe", 400),
        ("/api/v1/decisionsx", 404),
    ] {
        let (found, _, body) = running.get(path, LOCAL).await;
        assert_eq!(found, status, "{path}: {body}");
    }
    running.end().await;
}

const STREAM: &str = "Host: 127.0.0.1:15000\r\nAccept: text/event-stream\r\n";

async fn read_until(stream: &mut dyn Stream, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.unwrap();
        assert!(length > 0, "the stream ended before `{text}`: {seen}");
        seen.push_str(std::str::from_utf8(&part[..length]).unwrap());
    }
    seen
}

async fn listen(running: &Running, query: &str) -> Box<dyn Stream> {
    let mut stream = running.connect().await;
    let request = format!("GET /api/v1/decisions{query} HTTP/1.1\r\n{STREAM}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut *stream, "verdicts as they are given").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.to_ascii_lowercase()
            .contains("content-type: text/event-stream"),
        "{head}"
    );
    stream
}

#[tokio::test]
async fn a_stream_delivers_what_comes_and_ends_with_the_endpoint() {
    let running = start_tcp(Kind::Full);
    let ids = DecisionIds::new(1);
    running.state.decisions().record(&verdict(&ids, Verdict::Deny));
    let mut stream = listen(&running, "?verdict=deny").await;
    let (allowed, denied) = (verdict(&ids, Verdict::Allow), verdict(&ids, Verdict::Deny));
    for verdict in [&allowed, &denied] {
        running.state.decisions().record(verdict);
    }
    let seen = read_until(&mut *stream, "\n\n\r\n").await;
    assert!(
        seen.contains(&format!("id: {}\ndata: {{\"id\":", denied.id)),
        "{seen}"
    );
    assert!(!seen.contains(&allowed.id.to_string()), "{seen}");
    running.stop.send(()).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.contains(": this process ends") && rest.ends_with("0\r\n\r\n"),
        "{rest:?}"
    );
    running.served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_outlives_the_time_of_an_answer() {
    let running = start_tcp(Kind::Full);
    let mut stream = listen(&running, "").await;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < 5 * server::STALLED {
        read_until(&mut *stream, ": verdicts as they are given\n\n").await;
    }
    let one = verdict(&DecisionIds::new(1), Verdict::Deny);
    running.state.decisions().record(&one);
    read_until(&mut *stream, &one.id.to_string()).await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_takes_nothing_loses_verdicts_and_then_its_place() {
    let running = start_tcp(Kind::Full);
    let ids = DecisionIds::new(1);
    let mut stuck = listen(&running, "").await;
    let mut quick = listen(&running, "").await;
    // Until the socket's buffers are full and the queue has turned over.
    let large = Arc::new(Decision {
        detail: Some("x".repeat(4000).into()),
        ..Decision::clone(&verdict(&ids, Verdict::Deny))
    });
    for _ in 0..3000 {
        running.state.decisions().record(&large);
        tokio::task::yield_now().await;
    }
    let one = verdict(&ids, Verdict::Deny);
    running.state.decisions().record(&one);
    read_until(&mut *quick, &one.id.to_string()).await;
    tokio::time::sleep(server::CONNECTION_TIMEOUT + 3 * server::STALLED).await;
    // Its bytes up to then, and an end without the last chunk.
    let mut rest = Vec::new();
    let _ = stuck.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    // The quick one is still there.
    running.state.decisions().record(&verdict(&ids, Verdict::Deny));
    read_until(&mut *quick, "id: ").await;
    running.end().await;
}

#[tokio::test]
async fn only_so_many_listen() {
    let running = start_tcp(Kind::Full);
    let mut listening = Vec::new();
    for _ in 0..MAX_SUBSCRIBERS {
        listening.push(listen(&running, "").await);
    }
    let (status, _, body) = running.get("/api/v1/decisions", STREAM).await;
    assert_eq!(status, 503, "{body}");
    let (status, _, body) = running.get("/api/v1/decisions?limit=3", STREAM).await;
    assert_eq!(status, 400, "{body}");
    // Whoever goes makes room, as soon as that is seen.
    listening.pop();
    while running.state.decisions().subscribe().is_none() {
        tokio::task::yield_now().await;
    }
    listen(&running, "").await;
    running.end().await;
}
