//! The routes that change something. Each change is one line in the log and one entry of the audit log, with the door that it
//! came by.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body;
use serde_json::{Value, json};

use super::guard::{Caller, Door, may_change};
use super::reply::{Answer, Problem, good};
use super::{AdminState, Changed};
use crate::record::audit::Operation;
use crate::telemetry::log::LogError;

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 8 * 1024;
/// For a body to come whole.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A change that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// `POST /api/v1/reload`
    Reload,
    /// `POST /api/v1/drain`
    Drain,
    /// `POST /api/v1/connections/ID/close`
    Close(&'a str),
    /// `PUT /api/v1/log`
    Log,
}

/// Where the log's filter is shown, and changed.
pub(super) const LOG: &str = "/api/v1/log";

impl<'a> Change<'a> {
    /// The change behind a path.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        match path {
            "/api/v1/reload" => Some(Self::Reload),
            "/api/v1/drain" => Some(Self::Drain),
            LOG => Some(Self::Log),
            _ => path
                .strip_prefix("/api/v1/connections/")?
                .strip_suffix("/close")
                .map(Self::Close),
        }
    }
}

/// Makes the change, if the caller may.
pub(super) async fn make<B>(
    change: Change<'_>,
    headers: &hyper::HeaderMap,
    body: B,
    caller: Caller,
    state: &Arc<dyn AdminState>,
) -> Answer
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let door = match may_change(headers, caller, state).await {
        Ok(door) => door,
        Err(refusal) => return *refusal,
    };
    let made = match read(body).await {
        Ok(body) => perform(change, &body, door, &**state)
            .await
            .map(|made| good(&made)),
        Err(problem) => Err(problem),
    };
    made.unwrap_or_else(|problem| problem.answer())
}

async fn perform(
    change: Change<'_>,
    body: &[u8],
    door: Door,
    state: &dyn AdminState,
) -> Result<Value, Problem> {
    let record = |operation, data| {
        let actor = door.actor();
        state.changed(Changed {
            actor,
            operation,
            data,
        });
    };
    let door = door.as_str();
    match change {
        Change::Reload => {
            tracing::info!(target: "svidecar::admin", door, "asked to read config, policy, deny list and candidate again");
            // Before it is done: the files are read even if whoever asked does not wait for it.
            record(Operation::Load, Value::Null);
            let result = state.reload().await;
            result.ok_or_else(|| {
                Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the files are not read yet: somebody is writing them, or their file system does not answer",
                    "they are read as soon as that is possible: `last_reload` at /api/v1/policy and /api/v1/status will tell",
                )
            })
        }
        Change::Drain => {
            let open = state.drain();
            tracing::info!(target: "svidecar::admin", door, open, "asked to accept no more connections; open ones may finish");
            let made = json!({ "open": open });
            record(Operation::Drain, made.clone());
            Ok(made)
        }
        Change::Close(number) => {
            let id: u64 = number.parse().map_err(|_| {
                let hint = "a connection's number is its `id` at /api/v1/connections and in the log";
                Problem::bad(&format!("`{number}` is no connection's number"), hint)
            })?;
            if !state.close(id) {
                let hint = "it has ended already: its line in the log says how";
                let error = format!("no connection {id} is open");
                return Err(Problem::new(StatusCode::NOT_FOUND, error, hint));
            }
            tracing::info!(target: "svidecar::admin", door, connection = id, "asked to close a connection");
            let made = json!({ "closed": id });
            record(Operation::Close, made.clone());
            Ok(made)
        }
        Change::Log => {
            let hint =
                "send directives as in `telemetry.log.level`: `info` or `info,svidecar::identity=debug`";
            let level = std::str::from_utf8(body).map_err(|_| Problem::bad("the body is not UTF-8", hint))?;
            let level = level.trim();
            // Before it is done: afterwards the line might not be let through.
            tracing::info!(target: "svidecar::admin", door, to = level, "asked to change the log's filter");
            match state.log().set(level) {
                Ok(previous) => {
                    let made = json!({ "level": level, "previous": previous });
                    record(Operation::SetLogLevel, made.clone());
                    Ok(made)
                }
                Err(LogError::Filter(why)) => Err(Problem::bad(&why, hint)),
                Err(error) => Err(Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    error.to_string(),
                    "the filter stays as it was",
                )),
            }
        }
    }
}

/// The body, whole.
async fn read<B>(body: B) -> Result<Vec<u8>, Problem>
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let limited = Box::pin(Limited::new(body, MAX_BODY).collect());
    match tokio::time::timeout(BODY_TIMEOUT, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {MAX_BODY} bytes"),
            "send less",
        )),
        Ok(Err(_)) => Err(Problem::bad("the body ended early", "send it whole")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
            "send it with the head",
        )),
    }
}
