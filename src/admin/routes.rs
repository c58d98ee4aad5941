//! Which request gets which answer. No I/O: a request's head and the state go in, a response comes out, whole or as a
//! body that the server polls.

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::events::{Events, Progress, Stopped};
use super::server::Kind;
use super::{AdminState, page, query};
use crate::lifecycle::readiness::Snapshot;
use crate::telemetry::decisions::{MAX_KEPT, MAX_SUBSCRIBERS};
use crate::telemetry::metrics::Exposition;

/// The answers of one listener's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Which routes there are.
    pub(super) kind: Kind,
    /// The address of ours that the caller reached; none for a unix socket.
    pub(super) local: Option<IpAddr>,
}

/// The body of an answer: whole, or the live stream.
pub(super) type AnswerBody = Either<Full<Bytes>, Events>;

/// What a stream needs of the connection that carries it.
pub(super) struct Carrier {
    /// Noted whenever the reader takes something.
    pub(super) progress: Progress,
    /// Resolves when the endpoint ends.
    pub(super) stopped: Stopped,
}

/// An answer that says what is wrong, and what to write instead.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) error: String,
    pub(super) hint: String,
}

impl Problem {
    /// A request that makes no sense.
    pub(super) fn bad(error: &str, hint: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error: error.to_owned(),
            hint: hint.to_owned(),
        }
    }

    fn answer(&self) -> Response<AnswerBody> {
        problem(self.status, &self.error, &self.hint)
    }
}

/// Connections and verdicts shown when the request names no number, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

const HEALTH: [&str; 4] = ["/livez", "/readyz", "/startupz", "/health"];
const OTHERS: [&str; 7] = [
    "/metrics",
    "/api/v1/identity",
    "/api/v1/policy",
    "/api/v1/connections",
    DECISIONS,
    page::STYLE_PATH,
    "/",
];

const DECISIONS: &str = "/api/v1/decisions";

/// The id in the path of a single verdict.
fn decision_of(path: &str) -> Option<&str> {
    path.strip_prefix(DECISIONS)?.strip_prefix('/')
}

/// Answers one request. The body of a request, if any, is never read.
pub(super) fn answer<B>(
    request: &Request<B>,
    caller: Caller,
    state: &dyn AdminState,
    carrier: Carrier,
) -> Response<AnswerBody> {
    if let Err(why) = check_caller(request, caller) {
        return problem(
            StatusCode::FORBIDDEN,
            &why,
            "ask by a loopback address, such as http://127.0.0.1:15000/",
        );
    }
    let path = request.uri().path();
    let known = HEALTH.contains(&path)
        || (caller.kind == Kind::Full && (OTHERS.contains(&path) || decision_of(path).is_some()));
    if !known {
        return problem(
            StatusCode::NOT_FOUND,
            &format!("there is no `{path}` here"),
            &routes_hint(caller.kind),
        );
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let why = format!("`{path}` does not take {}", request.method());
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &why, "use GET");
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        // That this line runs is the answer.
        "/livez" => reply(StatusCode::OK, JSON, json_text(&json!({ "status": "ok" }))),
        "/readyz" | "/health" => {
            let snapshot = state.readiness();
            health(snapshot.ready, &snapshot)
        }
        "/startupz" => {
            let snapshot = state.readiness();
            health(snapshot.started, &snapshot)
        }
        "/metrics" => metrics(request.headers(), state),
        "/api/v1/identity" => reply(StatusCode::OK, JSON, json_text(&state.identity())),
        "/api/v1/policy" => reply(StatusCode::OK, JSON, json_text(&state.policy())),
        "/api/v1/connections" => connections(request.uri().query(), state).unwrap_or_else(|p| p.answer()),
        DECISIONS => decisions(request, state, carrier).unwrap_or_else(|p| p.answer()),
        page::STYLE_PATH => reply(StatusCode::OK, "text/css; charset=utf-8", page::STYLE.into()),
        path => match decision_of(path) {
            Some(id) => decision(id, state).unwrap_or_else(|p| p.answer()),
            None => reply(
                StatusCode::OK,
                "text/html; charset=utf-8",
                page::render(&state.readiness()),
            ),
        },
    }
}

fn health(good: bool, snapshot: &Snapshot) -> Response<AnswerBody> {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if good { "ok" } else { "unavailable" },
        "ready": snapshot.ready,
        "started": snapshot.started,
        "conditions": snapshot.conditions,
    });
    reply(status, JSON, json_text(&body))
}

fn metrics(headers: &HeaderMap, state: &dyn AdminState) -> Response<AnswerBody> {
    let accept: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let exposition = Exposition::negotiate(&accept.join(","));
    let text = state.metrics(exposition == Exposition::OpenMetrics);
    reply(StatusCode::OK, exposition.content_type(), text)
}

fn connections(query: Option<&str>, state: &dyn AdminState) -> Result<Response<AnswerBody>, Problem> {
    let mut limit = DEFAULT_LIMIT;
    let mut local = None;
    for (key, value) in query::parameters(query)? {
        match &*key {
            "limit" => limit = query::limit(&value, MAX_LIMIT)?,
            "local" => local = Some(query::address(&value)?),
            _ => {
                let error = format!("there is no parameter `{key}`");
                return Err(Problem::bad(&error, "use `limit` or `local`"));
            }
        }
    }
    Ok(reply(
        StatusCode::OK,
        JSON,
        json_text(&state.connections(limit, local)),
    ))
}

/// The last verdicts, or those to come.
fn decisions<B>(
    request: &Request<B>,
    state: &dyn AdminState,
    carrier: Carrier,
) -> Result<Response<AnswerBody>, Problem> {
    let (filter, limit) = query::decisions(request.uri().query(), MAX_LIMIT)?;
    if !wants_stream(request.headers()) {
        let (found, kept) = state.decisions().recent(&filter, limit.unwrap_or(DEFAULT_LIMIT));
        let body = json!({ "kept": kept, "decisions": found });
        return Ok(reply(StatusCode::OK, JSON, json_text(&body)));
    }
    if limit.is_some() {
        let error = "a stream of verdicts to come has no limit";
        return Err(Problem::bad(
            error,
            "leave out `limit`, or `Accept: text/event-stream`",
        ));
    }
    let Some(subscription) = state.decisions().subscribe() else {
        return Err(Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: format!("{MAX_SUBSCRIBERS} listen already"),
            hint: "end one of them, or read `telemetry.decisions.file`".to_owned(),
        });
    };
    let events = Events::new(subscription, filter, carrier.progress, carrier.stopped);
    Ok(with_headers(Response::new(Either::Right(events)), EVENT_STREAM))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter();
    accept
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|kind| kind.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

/// One verdict.
fn decision(id: &str, state: &dyn AdminState) -> Result<Response<AnswerBody>, Problem> {
    let wanted = id
        .parse()
        .map_err(|e| Problem::bad(&format!("`{id}` is no id"), &format!("{e}")))?;
    match state.decisions().find(wanted) {
        Some(decision) => Ok(reply(StatusCode::OK, JSON, json_text(&json!(decision)))),
        None => Err(Problem {
            status: StatusCode::NOT_FOUND,
            error: format!("the verdict `{id}` is not kept"),
            hint: format!(
                "the last {MAX_KEPT} of this process are, and fewer where they are large; older ones are in \
                 `telemetry.decisions.file`, where that is set"
            ),
        }),
    }
}

/// Refuses what a web page from elsewhere could have caused.
fn check_caller<B>(request: &Request<B>, caller: Caller) -> Result<(), String> {
    let headers = request.headers();
    let texts = |name| {
        headers
            .get_all(name)
            .iter()
            .map(|v: &HeaderValue| v.to_str().unwrap_or("?"))
    };
    // A request target in absolute form overrules `Host` (RFC 9112 section 3.2.2).
    let authority = request.uri().authority().map(hyper::http::uri::Authority::as_str);
    // No browser leaves `Host` out, so that its absence is no sign of one.
    if let Some(local) = caller.local
        && let Some(foreign) = texts(header::HOST)
            .chain(authority)
            .find(|host| !is_own_host(host, caller.kind, local))
    {
        return Err(format!("the host `{foreign}` is not this endpoint's"));
    }
    let own_origin = texts(header::HOST).next().map(|host| format!("http://{host}"));
    match texts(header::ORIGIN)
        .find(|origin| caller.local.is_none() || Some(*origin) != own_origin.as_deref())
    {
        Some(foreign) => Err(format!("requests from the origin `{foreign}` are refused")),
        None => Ok(()),
    }
}

/// Whether a `Host` can be meant for us. The port is left aside: behind a port-forward it is another one, and what
/// rebinding needs is a foreign name. An address is no name, so that the probes, which a kubelet or a load balancer
/// asks by whatever address it knows, take any.
fn is_own_host(host: &str, kind: Kind, local: IpAddr) -> bool {
    let Ok(authority) = host.parse::<hyper::http::uri::Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => kind == Kind::Probes || ip.is_loopback() || ip == local,
        Err(_) => false,
    }
}

fn routes_hint(kind: Kind) -> String {
    let mut routes = HEALTH.to_vec();
    if kind == Kind::Full {
        routes.extend(OTHERS.iter().filter(|r| **r != page::STYLE_PATH));
    }
    format!("there are {}", routes.join(" "))
}

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

fn problem(status: StatusCode, error: &str, hint: &str) -> Response<AnswerBody> {
    reply(status, JSON, json_text(&json!({ "error": error, "hint": hint })))
}

fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<AnswerBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    with_headers(response, content_type)
}

fn with_headers(mut response: Response<AnswerBody>, content_type: &'static str) -> Response<AnswerBody> {
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    // Keeps pages of other origins from embedding an answer as an image or a script.
    let policy = HeaderValue::from_static("same-origin");
    response
        .headers_mut()
        .insert("cross-origin-resource-policy", policy);
    response
}
