//! Times and spans as people write and read them.

use std::time::{Duration, SystemTime};

use crate::config::duration;

/// Reads `500ms`, `30s`, `5m` or `1h`, as config files have it; more than nothing.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Some(Duration::ZERO) => Err("must be more than nothing".to_owned()),
        Some(span) => Ok(span),
        None => Err(format!(
            "expected a number and `ms`, `s`, `m` or `h`, such as `30s`, not `{text}`"
        )),
    }
}

/// To the second, in the two largest units: `in 59 min 50 s`, or `3 d 2 h ago`.
pub(super) fn left(until: SystemTime, now: SystemTime) -> String {
    match until.duration_since(now) {
        Ok(left) => format!("in {}", span(left)),
        Err(e) => format!("{} ago", span(e.duration())),
    }
}

fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (large, large_unit, small, small_unit) = match seconds {
        86_400.. => (seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
        3600.. => (seconds / 3600, "h", seconds % 3600 / 60, "min"),
        60.. => (seconds / 60, "min", seconds % 60, "s"),
        _ => return format!("{seconds} s"),
    };
    format!("{large} {large_unit} {small} {small_unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in [
            "",
            "1",
            "s",
            "0s",
            "1 s",
            "-1s",
            "1.5h",
            "1w",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, text) in [
            (5, "in 5 s"),
            (3590, "in 59 min 50 s"),
            (3660, "in 1 h 1 min"),
            (90_000, "in 1 d 1 h"),
        ] {
            assert_eq!(left(now + Duration::from_secs(seconds), now), text);
        }
        assert_eq!(left(now - Duration::from_secs(61), now), "1 min 1 s ago");
    }
}
