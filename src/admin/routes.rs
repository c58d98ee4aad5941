//! Which request gets which answer. No I/O: a request's head and the state go in, a response comes out.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::server::Kind;
use super::{AdminState, page};
use crate::lifecycle::readiness::Snapshot;
use crate::telemetry::metrics::Exposition;

/// The answers of one listener's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Which routes there are.
    pub(super) kind: Kind,
    /// The address of ours that the caller reached; none for a unix socket.
    pub(super) local: Option<IpAddr>,
}

/// Connections shown when the request names no number, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

const HEALTH: [&str; 4] = ["/livez", "/readyz", "/startupz", "/health"];
const OTHERS: [&str; 6] = [
    "/metrics",
    "/api/v1/identity",
    "/api/v1/policy",
    "/api/v1/connections",
    page::STYLE_PATH,
    "/",
];

/// Answers one request. The body of a request, if any, is never read.
pub(super) fn answer<B>(
    request: &Request<B>,
    caller: Caller,
    state: &dyn AdminState,
) -> Response<Full<Bytes>> {
    if let Err(why) = check_caller(request, caller) {
        return problem(
            StatusCode::FORBIDDEN,
            &why,
            "ask by a loopback address, such as http://127.0.0.1:15000/",
        );
    }
    let path = request.uri().path();
    let known = HEALTH.contains(&path) || (caller.kind == Kind::Full && OTHERS.contains(&path));
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
        "/api/v1/connections" => connections(request.uri().query(), state),
        page::STYLE_PATH => reply(StatusCode::OK, "text/css; charset=utf-8", page::STYLE.into()),
        _ => reply(
            StatusCode::OK,
            "text/html; charset=utf-8",
            page::render(&state.readiness()),
        ),
    }
}

fn health(good: bool, snapshot: &Snapshot) -> Response<Full<Bytes>> {
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

fn metrics(headers: &HeaderMap, state: &dyn AdminState) -> Response<Full<Bytes>> {
    let accept: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let exposition = Exposition::negotiate(&accept.join(","));
    let text = state.metrics(exposition == Exposition::OpenMetrics);
    reply(StatusCode::OK, exposition.content_type(), text)
}

fn connections(query: Option<&str>, state: &dyn AdminState) -> Response<Full<Bytes>> {
    let mut limit = DEFAULT_LIMIT;
    let mut local = None;
    for (key, value) in query
        .unwrap_or("")
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
    {
        let wrong = match key {
            "limit" => match value.parse() {
                Ok(number) if (1..=MAX_LIMIT).contains(&number) => {
                    limit = number;
                    continue;
                }
                _ => (
                    format!("`{value}` is no limit"),
                    format!("`limit` is a number from 1 to {MAX_LIMIT}"),
                ),
            },
            "local" => match address(value) {
                Some(address) => {
                    local = Some(address);
                    continue;
                }
                None => (
                    format!("`{value}` is no address"),
                    "`local` is what the application sees as its peer: `127.0.0.1:40312`".to_owned(),
                ),
            },
            _ => (
                format!("there is no parameter `{key}`"),
                "use `limit` or `local`".to_owned(),
            ),
        };
        return problem(StatusCode::BAD_REQUEST, &wrong.0, &wrong.1);
    }
    reply(StatusCode::OK, JSON, json_text(&state.connections(limit, local)))
}

/// `IP:port`, with IPv4-mapped addresses as IPv4. What a query may escape of it (RFC 3986 section 2.2) may be escaped.
fn address(text: &str) -> Option<SocketAddr> {
    let text = ["%3A", "%3a", "%5B", "%5b", "%5D", "%5d"]
        .into_iter()
        .zip([":", ":", "[", "[", "]", "]"])
        .fold(text.to_owned(), |text, (escaped, plain)| {
            text.replace(escaped, plain)
        });
    let address: SocketAddr = text.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
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

fn problem(status: StatusCode, error: &str, hint: &str) -> Response<Full<Bytes>> {
    reply(status, JSON, json_text(&json!({ "error": error, "hint": hint })))
}

fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
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
