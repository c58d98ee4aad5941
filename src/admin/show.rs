//! The answers of the routes that only show.

use std::sync::Arc;

use hyper::header::{self, HeaderMap};
use hyper::{Request, StatusCode};
use serde_json::json;

use super::events::{Events, Progress, Stopped};
use super::feed::Feed;
use super::guard::Caller;
use super::reply::{Answer, EVENT_STREAM, JSON, Problem, good, json_text, reply, stream};
use super::server::Kind;
use super::{AdminState, query};
use crate::lifecycle::readiness::Snapshot;
use crate::telemetry::decisions::{Filter, MAX_KEPT, MAX_SUBSCRIBERS, Subscription};
use crate::telemetry::metrics::Exposition;

/// What a stream needs of the connection that carries it.
pub(super) struct Carrier {
    /// Noted whenever the reader takes something.
    pub(super) progress: Progress,
    /// Resolves when the endpoint ends.
    pub(super) stopped: Stopped,
}

/// Connections and verdicts shown when the request names no number, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// Connections in a status when the request names no number.
const DEFAULT_SHOWN: usize = 200;

pub(super) fn health(good: bool, snapshot: &Snapshot) -> Answer {
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

pub(super) fn metrics(headers: &HeaderMap, state: &dyn AdminState) -> Answer {
    let accept: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let exposition = Exposition::negotiate(&accept.join(","));
    let text = state.metrics(exposition == Exposition::OpenMetrics);
    reply(StatusCode::OK, exposition.content_type(), text)
}

pub(super) fn connections(query: Option<&str>, state: &dyn AdminState) -> Result<Answer, Problem> {
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
    Ok(good(&state.connections(limit, local)))
}

/// The last verdicts, or those to come.
pub(super) fn decisions<B>(
    request: &Request<B>,
    caller: Caller,
    state: &dyn AdminState,
    carrier: Carrier,
) -> Result<Answer, Problem> {
    let (filter, limit) = query::decisions(request.uri().query(), MAX_LIMIT)?;
    if !wants_stream(request.headers()) {
        let (found, kept) = state.decisions().recent(&filter, limit.unwrap_or(DEFAULT_LIMIT));
        return Ok(good(&json!({ "kept": kept, "decisions": found })));
    }
    if limit.is_some() {
        let error = "a stream of verdicts to come has no limit";
        return Err(Problem::bad(
            error,
            "leave out `limit`, or `Accept: text/event-stream`",
        ));
    }
    let subscription = subscribe(caller, state)?;
    let Carrier { progress, stopped } = carrier;
    Ok(stream(Events::new(subscription, filter, progress, stopped)))
}

fn subscribe(caller: Caller, state: &dyn AdminState) -> Result<Subscription, Problem> {
    let most = match caller.kind {
        Kind::Full => MAX_SUBSCRIBERS,
        // Whoever comes from elsewhere must leave some to those who are here on a bad day.
        _ => MAX_SUBSCRIBERS / 2,
    };
    state.decisions().subscribe_among(most).ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{most} listen already"),
            "end one of them, or read `telemetry.decisions.file`",
        )
    })
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
pub(super) fn decision(id: &str, state: &dyn AdminState) -> Result<Answer, Problem> {
    let wanted = id
        .parse()
        .map_err(|e| Problem::bad(&format!("`{id}` is no id"), &format!("{e}")))?;
    match state.decisions().find(wanted) {
        Some(decision) => Ok(good(&json!(decision))),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("the verdict `{id}` is not kept"),
            format!(
                "the last {MAX_KEPT} of this process are, and fewer where they are large; older ones are in \
                 `telemetry.decisions.file`, where that is set"
            ),
        )),
    }
}

/// The state of all, at once or each second, with the verdicts in between.
pub(super) async fn status<B>(
    request: &Request<B>,
    caller: Caller,
    state: &Arc<dyn AdminState>,
    carrier: Carrier,
) -> Result<Answer, Problem> {
    let shown = query::status(request.uri().query(), DEFAULT_SHOWN, MAX_LIMIT)?;
    let changes = caller.changes(&**state);
    if wants_stream(request.headers()) {
        // The verdicts' bound on who may listen is the status' as well.
        let subscription = subscribe(caller, &**state)?;
        let Carrier { progress, stopped } = carrier;
        let events = Events::new(subscription, Filter::default(), progress, stopped);
        let listening = Feed::listen(state, shown);
        return Ok(stream(events.with_status(listening, changes, shown)));
    }
    let asked = Arc::clone(state);
    // On a helper thread: it may take longer than identity and signals should wait.
    let status = tokio::task::spawn_blocking(move || asked.status(shown)).await;
    status.map_or_else(|_| Err(defect()), |status| Ok(good(&status.json(changes))))
}

/// What the policy in force says of a peer.
pub(super) async fn explain(query: Option<&str>, state: &Arc<dyn AdminState>) -> Result<Answer, Problem> {
    let question = query::question(query)?;
    let asked = Arc::clone(state);
    match tokio::task::spawn_blocking(move || asked.explain(&question)).await {
        Ok(Ok(explanation)) => Ok(good(&explanation)),
        Ok(Err(none)) => Err(Problem::bad(&none.error, &none.hint)),
        Err(_) => Err(defect()),
    }
}

/// It panicked, which is in the log.
fn defect() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "answering this failed",
        "a defect of svidecar, please report it with what the log says",
    )
}
