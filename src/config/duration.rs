//! Durations as people write them: `250ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

/// Parses one whole number and its unit. `None` for anything else.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

/// The shortest text that [`parse`] reads as `duration`; fractions of a millisecond are left out.
pub(super) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if duration.subsec_millis() > 0 || seconds == 0 => format!("{}ms", duration.as_millis()),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds.wrapping_div(3600)),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds.wrapping_div(60)),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "1h30m",
            " 5s",
            "5 s",
            "5d",
            "5S",
            "99999999999999999999s",
            "18446744073709551615h",
            "٣s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn shown_is_read_back() {
        for millis in [1, 250, 1000, 1500, 60_000, 61_000, 3_600_000, 90_000_000, 0] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&show(duration)), Some(duration), "{millis}");
        }
    }
}
