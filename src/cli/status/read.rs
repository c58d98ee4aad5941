//! Reads the JSON of a status: what is not there, or of another kind, is nothing, never an error.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::cli::terminal::harmless;
use crate::clock::parse_rfc3339;

/// The part at a JSON pointer, such as `/policy/generation`.
pub(super) fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// A list by its field.
pub(super) fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A text at a pointer, without anything that commands a terminal; `None` where there is none.
pub(super) fn text(value: &Value, pointer: &str) -> Option<String> {
    at(value, pointer).as_str().map(harmless)
}

/// Likewise, with `-` where there is none.
pub(super) fn word(value: &Value, pointer: &str) -> String {
    text(value, pointer).unwrap_or_else(|| "-".to_owned())
}

/// A count at a pointer.
pub(super) fn number(value: &Value, pointer: &str) -> Option<u64> {
    at(value, pointer).as_u64()
}

/// Likewise as text.
pub(super) fn count(value: &Value, pointer: &str) -> String {
    number(value, pointer).map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// A time at a pointer.
pub(super) fn time(value: &Value, pointer: &str) -> Option<SystemTime> {
    parse_rfc3339(at(value, pointer).as_str()?)
}

/// How long ago a time is, in its largest unit, by the status' own clock: `3 s ago`.
pub(super) fn ago(then: Option<SystemTime>, now: Option<SystemTime>) -> String {
    let age = then.zip(now).map(|(then, now)| now.duration_since(then));
    match age {
        Some(Ok(age)) => format!("{} ago", short(age)),
        // A clock that was set back.
        Some(Err(_)) => "now".to_owned(),
        None => "never".to_owned(),
    }
}

/// In its largest unit: `3 s`, `18 min`, `4 h`, `2 d`.
pub(super) fn short(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 86_400.. => format!("{} d", seconds / 86_400),
        seconds @ 3600.. => format!("{} h", seconds / 3600),
        seconds @ 60.. => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Bytes in the unit that leaves one to three digits before the point: `17 B`, `1.2 kB`, `530 MB`.
pub(super) fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if number < 999.5 {
            return if unit == "B" || number >= 99.95 {
                format!("{number:.0} {unit}")
            } else {
                format!("{number:.1} {unit}")
            };
        }
        number /= 1000.0;
    }
    format!("{number:.0} PB")
}

/// A count as a number that can be divided: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(super) const fn real(number: u64) -> f64 {
    number as f64
}
