//! How long to wait before the next try.

use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(30);

/// Exponential backoff with jitter (OTLP 1.x, "All Server Responses"): twice as long each time, up to half a minute, less
/// up to a half of it, so that those whom one outage made wait do not come back all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff(pub(crate) Duration);

impl Backoff {
    /// No try failed yet: the first wait is a second at most.
    pub const FIRST: Self = Self(Duration::from_secs(1));

    /// The wait before the next try. Never shorter than what the collector asked for; `chance` is from 0 to 1.
    pub fn next(&mut self, asked: Option<Duration>, chance: f64) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(LONGEST);
        let wait = whole.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
        // Spread, too: the collector asks the same of everybody.
        asked.map_or(wait, |asked| asked + wait / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound() {
        let mut backoff = Backoff::FIRST;
        let waits: Vec<u64> = (0..7).map(|_| backoff.next(None, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn chance_takes_up_to_a_half() {
        for (chance, expected) in [(0.0, 1000), (0.5, 750), (1.0, 500), (7.0, 500), (-7.0, 1000)] {
            let wait = { Backoff::FIRST }.next(None, chance);
            assert_eq!(wait.as_millis(), expected, "{chance}");
        }
    }

    #[test]
    fn a_collector_is_not_asked_before_it_wants_to_be() {
        let asked = Duration::from_secs(60);
        for chance in [0.0, 1.0] {
            let wait = { Backoff::FIRST }.next(Some(asked), chance);
            assert!(
                (asked..asked + Duration::from_secs(1)).contains(&wait),
                "{wait:?}"
            );
        }
        let wait = { Backoff::FIRST }.next(Some(Duration::ZERO), 0.0);
        assert!(!wait.is_zero(), "a pause of nothing would be a loop without one");
    }
}
