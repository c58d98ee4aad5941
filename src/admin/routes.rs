//! Which request gets which answer. No I/O: a request and the state go in, a response comes out, whole or as a body that
//! the server polls.

use std::sync::Arc;

use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use super::changes::{self, Change, LOG};
use super::guard::{Caller, check_caller};
use super::reply::{Answer, Problem, good, reply};
use super::server::Kind;
use super::show::{self, Carrier};
use super::{AdminState, page};

const HEALTH: [&str; 4] = ["/livez", "/readyz", "/startupz", "/health"];
const METRICS: &str = "/metrics";
const OTHERS: [&str; 9] = [
    METRICS,
    "/api/v1/status",
    "/api/v1/identity",
    "/api/v1/policy",
    "/api/v1/connections",
    DECISIONS,
    "/api/v1/explain",
    LOG,
    "/",
];
/// What `POST` and `PUT` are for.
const CHANGES: [&str; 3] = ["/api/v1/reload", "/api/v1/drain", "/api/v1/connections/ID/close"];
const DECISIONS: &str = "/api/v1/decisions";

/// The methods that only look.
const LOOK: &str = "GET, HEAD";

/// The id in the path of a single verdict.
fn decision_of(path: &str) -> Option<&str> {
    path.strip_prefix(DECISIONS)?.strip_prefix('/')
}

/// The methods that a path takes, as `Allow` lists them; `None` for a path that is not here.
fn methods(kind: Kind, path: &str) -> Option<&'static str> {
    let health = HEALTH.contains(&path);
    let shows = || OTHERS.contains(&path) || page::asset(path).is_some() || decision_of(path).is_some();
    match kind {
        Kind::Probes => health.then_some(LOOK),
        Kind::Metrics => (path == METRICS).then_some(LOOK),
        Kind::ReadOnly => (health || shows()).then_some(LOOK),
        Kind::Full if path == LOG => Some("GET, HEAD, PUT"),
        Kind::Full if Change::of(path).is_some() => Some("POST"),
        Kind::Full => (health || shows()).then_some(LOOK),
    }
}

/// Answers one request. A body is read only where it is needed, and within bounds.
pub(super) async fn answer<B>(
    request: Request<B>,
    caller: Caller,
    state: Arc<dyn AdminState>,
    carrier: Carrier,
) -> Answer
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if let Err(problem) = check_caller(&request, caller) {
        return problem.answer();
    }
    let path = request.uri().path();
    let Some(allowed) = methods(caller.kind, path) else {
        return unknown(path, caller.kind).answer();
    };
    let method = request.method();
    if !allowed.split(", ").any(|one| one == method.as_str()) {
        let error = format!("`{path}` does not take {method}");
        let hint = format!("use {}", allowed.replace(", HEAD", ""));
        let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, error, hint).answer();
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    if method == Method::GET || method == Method::HEAD {
        return show(&request, caller, &state, carrier)
            .await
            .unwrap_or_else(|problem| problem.answer());
    }
    let (head, body) = request.into_parts();
    match Change::of(head.uri.path()) {
        Some(change) => changes::make(change, &head.headers, body, caller, &state).await,
        // Nothing else takes another method.
        None => Problem::bad("this changes nothing", "use GET").answer(),
    }
}

async fn show<B>(
    request: &Request<B>,
    caller: Caller,
    state: &Arc<dyn AdminState>,
    carrier: Carrier,
) -> Result<Answer, Problem> {
    let query = request.uri().query();
    Ok(match request.uri().path() {
        // That this line runs is the answer.
        "/livez" => good(&json!({ "status": "ok" })),
        "/readyz" | "/health" => {
            let snapshot = state.readiness();
            show::health(snapshot.ready, &snapshot)
        }
        "/startupz" => {
            let snapshot = state.readiness();
            show::health(snapshot.started, &snapshot)
        }
        METRICS => show::metrics(request.headers(), &**state),
        "/api/v1/status" => show::status(request, caller, state, carrier).await?,
        "/api/v1/identity" => good(&state.identity()),
        "/api/v1/policy" => good(&state.policy()),
        "/api/v1/connections" => show::connections(query, &**state)?,
        "/api/v1/explain" => show::explain(query, state).await?,
        LOG => good(&json!({ "level": state.log().current(), "previous": null })),
        DECISIONS => show::decisions(request, caller, &**state, carrier)?,
        path => match (decision_of(path), page::asset(path)) {
            (Some(id), _) => show::decision(id, &**state)?,
            (None, Some(asset)) => reply(StatusCode::OK, asset.content_type, asset.body),
            (None, None) => return Err(unknown(path, caller.kind)),
        },
    })
}

fn unknown(path: &str, kind: Kind) -> Problem {
    let error = format!("there is no `{path}` here");
    Problem::new(StatusCode::NOT_FOUND, error, routes_hint(kind))
}

fn routes_hint(kind: Kind) -> String {
    let routes = match kind {
        Kind::Metrics => vec![METRICS],
        Kind::Probes => HEALTH.to_vec(),
        Kind::ReadOnly => [&HEALTH[..], &OTHERS[..]].concat(),
        Kind::Full => [&HEALTH[..], &OTHERS[..], &CHANGES[..]].concat(),
    };
    format!("there are {}", routes.join(" "))
}
