//! Answers and their headers.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::events::Events;
use super::page;

/// The body of an answer: whole, or a live stream.
pub(super) type AnswerBody = Either<Full<Bytes>, Events>;
/// An answer.
pub(super) type Answer = Response<AnswerBody>;

pub(super) const JSON: &str = "application/json";
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// An answer that says what is wrong, and what to write instead.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) error: String,
    pub(super) hint: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            hint: hint.into(),
        }
    }

    /// A request that makes no sense.
    pub(super) fn bad(error: &str, hint: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    pub(super) fn answer(&self) -> Answer {
        let body = json!({ "error": self.error, "hint": self.hint });
        reply(self.status, JSON, json_text(&body))
    }
}

/// 200 with JSON.
pub(super) fn good(value: &Value) -> Answer {
    reply(StatusCode::OK, JSON, json_text(value))
}

pub(super) fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    with_headers(response, content_type)
}

/// A live stream.
pub(super) fn stream(events: Events) -> Answer {
    with_headers(Response::new(Either::Right(events)), EVENT_STREAM)
}

fn with_headers(mut response: Answer, content_type: &'static str) -> Answer {
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
