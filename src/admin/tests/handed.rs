//! Connections that were accepted elsewhere, over mutual TLS.

use tokio_stream::wrappers::ReceiverStream;

use super::*;

struct Visited {
    state: Arc<Fake>,
    visitors: tokio::sync::mpsc::Sender<Handed>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Visited {
    fn start() -> Self {
        let state = Arc::new(Fake::new(None));
        let (visitors, coming) = tokio::sync::mpsc::channel(4);
        let (stop, stopped) = oneshot::channel::<()>();
        let served = serve_handed(ReceiverStream::new(coming), state.clone(), async move {
            let _ = stopped.await;
        });
        Self {
            state,
            visitors,
            stop,
            served: tokio::spawn(served),
        }
    }

    async fn visit(&self, kind: Kind, request: &str) -> UnixStream {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        self.visitors.send(Handed { kind, stream: far }).await.unwrap();
        let mut near = UnixStream::from_std(near).unwrap();
        near.write_all(request.as_bytes()).await.unwrap();
        near
    }

    async fn ask(&self, kind: Kind, line: &str, headers: &str) -> (u16, String, String) {
        let request = format!("{line} HTTP/1.1\r\n{headers}\r\n");
        let mut stream = self.visit(kind, &request).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        parse(&answer)
    }
}

#[tokio::test]
async fn each_visitor_sees_what_its_listener_serves_and_changes_nothing() {
    let visited = Visited::start();
    for (line, metrics, read_only) in [
        ("GET /metrics", 200, 200),
        ("GET /livez", 404, 200),
        ("GET /", 404, 200),
        ("GET /api/v1/status", 404, 200),
        ("GET /api/v1/log", 404, 200),
        ("POST /api/v1/reload", 404, 404),
        ("POST /api/v1/drain", 404, 404),
        ("POST /api/v1/connections/12/close", 404, 404),
        ("PUT /api/v1/log", 404, 405),
        ("POST /metrics", 405, 405),
    ] {
        for (kind, expected) in [(Kind::Metrics, metrics), (Kind::ReadOnly, read_only)] {
            let headers = "Host: anything.example\r\nAuthorization: Bearer 0123456789abcdef\r\n";
            let (status, _, body) = visited.ask(kind, line, headers).await;
            assert_eq!(status, expected, "{kind:?} {line}: {body}");
            let foreign = format!("{headers}Origin: https://evil.example\r\n");
            assert_eq!(visited.ask(kind, line, &foreign).await.0, 403, "{kind:?} {line}");
        }
    }
    let own = "Host: a.example\r\nOrigin: https://a.example\r\n";
    let (status, _, body) = visited.ask(Kind::ReadOnly, "GET /api/v1/status", own).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"changes\": \"none\""), "{body}");
    assert_eq!(*visited.state.changed.lock().unwrap(), Vec::<String>::new());
    visited.stop.send(()).unwrap();
    visited.served.await.unwrap();
}

#[tokio::test]
async fn visitors_leave_places_to_those_who_are_here() {
    let visited = Visited::start();
    let mut listening = Vec::new();
    let request = format!("GET /api/v1/status HTTP/1.1\r\n{STREAM}\r\n");
    for _ in 0..MAX_SUBSCRIBERS / 2 {
        let mut stream = visited.visit(Kind::ReadOnly, &request).await;
        read_until(&mut stream, "event: status").await;
        listening.push(stream);
    }
    for path in ["/api/v1/status", "/api/v1/decisions"] {
        let line = format!("GET {path}");
        let (status, _, body) = visited.ask(Kind::ReadOnly, &line, STREAM).await;
        assert_eq!(status, 503, "{body}");
    }
    assert!(visited.state.decisions().subscribe().is_some());
    visited.stop.send(()).unwrap();
    visited.served.await.unwrap();
}
