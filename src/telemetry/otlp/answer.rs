//! What a collector's answer means (OTLP 1.x, "Failures" of OTLP/gRPC and of OTLP/HTTP). Pure.

use std::time::{Duration, SystemTime};

use hyper::header::RETRY_AFTER;
use hyper::http::response::Parts;
use prost::Message;
use tonic::{Code, Status};

use super::ExportError;

/// The longest pause that a collector can ask for; longer ones count as this.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// The most characters of a collector's text that are kept.
const MAX_TEXT: usize = 500;
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// What a collector says, short enough for a line of the log.
pub(super) fn said(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// An answer over gRPC that is no success; `broken` where the connection failed rather than the collector.
pub(super) fn of_grpc(status: &Status, broken: bool) -> ExportError {
    let message = said(status.message());
    if broken {
        return ExportError::retry(format!("the connection to the collector broke: {message}"));
    }
    let after = retry_info(status.details());
    let why = format!("the collector says {:?}: {message}", status.code());
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => ExportError::Retry { why, after },
        // Only if the collector says that it will recover.
        Code::ResourceExhausted if after.is_some() => ExportError::Retry { why, after },
        Code::InvalidArgument => ExportError::Invalid(why),
        _ => ExportError::Refused(why),
    }
}

/// An answer over HTTP: success, or what its status means.
pub(super) fn of_http<M: Message + Default>(
    head: &Parts,
    body: &[u8],
    now: SystemTime,
) -> Result<M, ExportError> {
    let status = head.status;
    if status.is_success() {
        return M::decode(body)
            .map_err(|e| ExportError::Refused(format!("the collector's answer is no message: {e}")));
    }
    // The body of a failure is a `Status`; what is none says nothing.
    let told = RpcStatus::decode(body).unwrap_or_default();
    let why = format!("the collector says {}: {}", status.as_u16(), said(&told.message));
    match status.as_u16() {
        429 | 502 | 503 | 504 => Err(ExportError::Retry {
            why,
            after: head
                .headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, now)),
        }),
        // What it holds, and how large it is (RFC 9110, sections 15.5.1 and 15.5.14).
        400 | 413 => Err(ExportError::Invalid(why)),
        _ => Err(ExportError::Refused(why)),
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let pause = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            // `Sun, 06 Nov 1994 08:49:37 GMT` is a date of RFC 2822 but for the name of its zone.
            let date = text.trim().replace("GMT", "+0000");
            let at =
                time::OffsetDateTime::parse(&date, &time::format_description::well_known::Rfc2822).ok()?;
            SystemTime::from(at).duration_since(now).unwrap_or_default()
        }
    };
    Some(pause.min(MAX_PAUSE))
}

/// The pause that a gRPC status asks for in its details.
fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status
        .details
        .iter()
        .find(|detail| detail.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(&*info.value)
        .ok()?
        .retry_delay
        .unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(seconds, nanos).min(MAX_PAUSE))
}

// google.rpc.Status and google.rpc.RetryInfo, as far as they are read: four small messages do not earn a dependency.

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(delay: Option<Delay>) -> Vec<u8> {
        let info = RetryInfo { retry_delay: delay };
        let other = Any {
            type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(),
            value: vec![1, 2, 3],
        };
        let any = Any {
            type_url: RETRY_INFO.to_owned(),
            value: info.encode_to_vec(),
        };
        RpcStatus {
            code: 8,
            message: "full".to_owned(),
            details: vec![other, any],
        }
        .encode_to_vec()
    }

    fn pause(error: ExportError) -> Result<Option<Duration>, ()> {
        match error {
            ExportError::Retry { after, .. } => Ok(after),
            ExportError::Refused(_) | ExportError::Invalid(_) => Err(()),
        }
    }

    const fn blames_the_message(error: &ExportError) -> bool {
        matches!(error, ExportError::Invalid(_))
    }

    #[test]
    fn a_grpc_status_says_whether_to_try_again() {
        for (code, again) in [
            (Code::Cancelled, true),
            (Code::Unknown, false),
            (Code::InvalidArgument, false),
            (Code::DeadlineExceeded, true),
            (Code::NotFound, false),
            (Code::AlreadyExists, false),
            (Code::PermissionDenied, false),
            (Code::ResourceExhausted, false),
            (Code::FailedPrecondition, false),
            (Code::Aborted, true),
            (Code::OutOfRange, true),
            (Code::Unimplemented, false),
            (Code::Internal, false),
            (Code::Unavailable, true),
            (Code::DataLoss, true),
            (Code::Unauthenticated, false),
        ] {
            let found = pause(of_grpc(&Status::new(code, "x"), false));
            assert_eq!(found, if again { Ok(None) } else { Err(()) }, "{code:?}");
            // One alone says that the message is bad.
            let error = of_grpc(&Status::new(code, "x"), false);
            assert_eq!(
                blames_the_message(&error),
                code == Code::InvalidArgument,
                "{code:?}"
            );
            // What became of the connection is no answer.
            assert_eq!(
                pause(of_grpc(&Status::new(code, "x"), true)),
                Ok(None),
                "{code:?}"
            );
        }
    }

    #[test]
    fn a_grpc_status_says_how_long_to_wait() {
        let told = |code, delay| {
            let status = Status::with_details(code, "x", details(delay).into());
            pause(of_grpc(&status, false))
        };
        let delay = |seconds, nanos| Some(Delay { seconds, nanos });
        for (delay, expected) in [
            (delay(7, 500_000_000), Duration::from_millis(7500)),
            (delay(0, 0), Duration::ZERO),
            (delay(-5, -1), Duration::ZERO),
            (delay(i64::MAX, i32::MAX), MAX_PAUSE),
            (None, Duration::ZERO),
        ] {
            assert_eq!(told(Code::Unavailable, delay), Ok(Some(expected)));
            assert_eq!(told(Code::ResourceExhausted, delay), Ok(Some(expected)));
            assert_eq!(told(Code::Internal, delay), Err(()));
        }
        let garbage = Status::with_details(Code::Unavailable, "x", vec![0xff; 9].into());
        assert_eq!(pause(of_grpc(&garbage, false)), Ok(None));
    }

    fn http(status: u16, retry_after: Option<&str>, body: &[u8]) -> Result<RpcStatus, ExportError> {
        let mut builder = hyper::Response::builder().status(status);
        if let Some(value) = retry_after {
            builder = builder.header(RETRY_AFTER, value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        let now = crate::clock::parse_rfc3339("2026-11-23T08:15:30Z").unwrap();
        of_http(&head, body, now)
    }

    #[test]
    fn an_http_status_says_whether_to_try_again() {
        assert_eq!(http(200, None, &[]), Ok(RpcStatus::default()));
        assert_eq!(http(202, None, &details(None)).unwrap().message, "full");
        assert!(matches!(http(200, None, &[0xff]), Err(ExportError::Refused(_))));
        for status in [429, 502, 503, 504] {
            assert_eq!(pause(http(status, None, &[]).unwrap_err()), Ok(None), "{status}");
        }
        for status in [301, 307, 400, 401, 403, 404, 405, 408, 413, 415, 500, 501, 505] {
            let error = http(status, Some("1"), &[]).unwrap_err();
            assert_eq!(
                blames_the_message(&error),
                matches!(status, 400 | 413),
                "{status}"
            );
            assert_eq!(pause(error), Err(()), "{status}");
        }
        let error = http(400, None, &details(None)).unwrap_err();
        assert_eq!(error.to_string(), "the collector says 400: full");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (text, expected) in [
            ("0", Some(Duration::ZERO)),
            (" 17 ", Some(Duration::from_secs(17))),
            ("99999999", Some(MAX_PAUSE)),
            ("Mon, 23 Nov 2026 08:15:42 GMT", Some(Duration::from_secs(12))),
            ("Mon, 23 Nov 2026 08:15:00 GMT", Some(Duration::ZERO)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                pause(http(503, Some(text), &[]).unwrap_err()),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_collector_says_is_cut() {
        assert_eq!(said(&"ü".repeat(9999)).chars().count(), MAX_TEXT);
    }
}
