//! The time of day, injected.
//!
//! Whatever decides by the time of day (a certificate's validity, a rule's `expires`) takes it from a [`Clock`]
//! or as an argument, so that a test can move it. Time-outs and pauses use tokio's monotonic clock instead,
//! which tests can pause.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Where the time of day comes from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present time of day.
    fn now(&self) -> SystemTime;
}

/// A shared clock, as every long-lived part holds it.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is set. For tests.
#[derive(Debug)]
pub struct ManualClock(std::sync::Mutex<SystemTime>);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self(std::sync::Mutex::new(now))
    }

    /// Sets the time it shows.
    pub fn set(&self, now: SystemTime) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A time of day in RFC 3339 form, UTC, with microseconds: `2026-11-23T08:15:30.123456Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let t = time::OffsetDateTime::from(time);
    // Each record has one: digits are put in their places, which takes a fraction of what formatting does.
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let parts = [
        (0..4, u32::try_from(t.year()).unwrap_or(0)),
        (5..7, u8::from(t.month()).into()),
        (8..10, t.day().into()),
        (11..13, t.hour().into()),
        (14..16, t.minute().into()),
        (17..19, t.second().into()),
        (20..26, t.microsecond()),
    ];
    for (place, mut number) in parts {
        for digit in text.get_mut(place).unwrap_or_default().iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The time of day that a text in RFC 3339 form says; it must have a zone.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    at.ok().map(SystemTime::from)
}
