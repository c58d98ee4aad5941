//! Who may ask, and who may change something.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};

use super::AdminState;
use super::reply::{Answer, Problem};
use super::server::Kind;
use super::token::TokenError;
use crate::record::audit::Actor;

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// Which routes there are.
    pub(super) kind: Kind,
    /// The address of ours that the caller reached; none for a unix socket, and for one whom mutual TLS brought here.
    pub(super) local: Option<IpAddr>,
}

impl Caller {
    /// How this caller may make changes, in a word.
    pub(super) fn changes(self, state: &dyn AdminState) -> &'static str {
        match (self.kind, self.local) {
            (Kind::Full, None) => "unix",
            (Kind::Full, Some(_)) if state.token().is_some() => "token",
            _ => "none",
        }
    }

    /// The scheme of our own origin.
    const fn scheme(self) -> &'static str {
        match self.kind {
            Kind::Full | Kind::Probes => "http",
            Kind::ReadOnly | Kind::Metrics => "https",
        }
    }

    /// Whether this endpoint has an origin at all: no web page reaches a unix socket.
    const fn has_origin(self) -> bool {
        self.local.is_some() || matches!(self.kind, Kind::ReadOnly | Kind::Metrics)
    }
}

/// Refuses what a web page from elsewhere could have caused.
pub(super) fn check_caller<B>(request: &Request<B>, caller: Caller) -> Result<(), Problem> {
    let forbidden = |why: String| {
        let hint = "ask by a loopback address, such as http://127.0.0.1:15000/";
        Err(Problem::new(StatusCode::FORBIDDEN, why, hint))
    };
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
        return forbidden(format!("the host `{foreign}` is not this endpoint's"));
    }
    let own_origin = texts(header::HOST)
        .next()
        .filter(|_| caller.has_origin())
        .map(|host| format!("{}://{host}", caller.scheme()));
    match texts(header::ORIGIN).find(|origin| Some(*origin) != own_origin.as_deref()) {
        Some(foreign) => forbidden(format!("requests from the origin `{foreign}` are refused")),
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

/// By which door a change comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The unix socket, which our own user alone reaches.
    Unix,
    /// TCP, with the token.
    Token,
}

impl Door {
    /// Who comes by it, for the record.
    pub(super) const fn actor(self) -> Actor {
        match self {
            Self::Unix => Actor::AdminSocket,
            Self::Token => Actor::AdminToken,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Token => "token",
        }
    }
}

/// Finds out whether the caller may make changes (RFC 6750 section 2.1), or answers what is missing.
pub(super) async fn may_change(
    headers: &HeaderMap,
    caller: Caller,
    state: &Arc<dyn AdminState>,
) -> Result<Door, Box<Answer>> {
    let forbidden = |why, hint| Box::new(Problem::new(StatusCode::FORBIDDEN, why, hint).answer());
    match (caller.kind, caller.local) {
        (Kind::Full, None) => return Ok(Door::Unix),
        (Kind::Full, Some(_)) => {}
        // They have no such routes either.
        _ => return Err(forbidden("nothing is changed here", "ask at `admin.listen`")),
    }
    let Some(token) = state.token().cloned() else {
        return Err(forbidden(
            "changes over TCP need a token, and `admin.token_file` is not set",
            "set `admin.token_file`, or let the admin endpoint listen on a unix socket",
        ));
    };
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else {
        return Err(unauthorized("this changes something, and needs the token", ""));
    };
    let Some(shown) = bearer(shown) else {
        return Err(unauthorized("`Authorization` holds no bearer token", ""));
    };
    // The file is read each time: a token that was replaced counts from then on.
    let compared = tokio::task::spawn_blocking(move || token.is(&shown)).await;
    match compared.unwrap_or(Err(TokenError::Panicked)) {
        Ok(true) => Ok(Door::Token),
        Ok(false) => {
            tracing::warn!(target: "svidecar::admin", "a change was refused: it came with a wrong token");
            Err(unauthorized("this is not the token", ", error=\"invalid_token\""))
        }
        Err(error) => {
            tracing::warn!(target: "svidecar::admin", %error, "a change was refused: the token can't be read");
            let why = "the token can't be compared; the log says why";
            let hint = "see that `admin.token_file` is a file with a token of 16 bytes or more, and not readable by others";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, why, hint);
            Err(Box::new(problem.answer()))
        }
    }
}

fn bearer(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii().to_vec())
}

fn unauthorized(why: &str, error: &str) -> Box<Answer> {
    let hint =
        "send `Authorization: Bearer TOKEN` with what `admin.token_file` holds, or ask over a unix socket";
    let mut answer = Problem::new(StatusCode::UNAUTHORIZED, why, hint).answer();
    let challenge = format!("Bearer realm=\"svidecar\"{error}");
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    Box::new(answer)
}
