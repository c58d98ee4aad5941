//! When our newer SVID is told, and to whom: spread over time, so that fifty thousand connections do not sign at once, and
//! in time, so that none ends with the SVID of before.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rustls::SignatureAlgorithm;
use tokio::time::{Instant, sleep_until, timeout};

use super::lags;
use crate::connection::live::{IdentityView, Live};
use crate::connection::registry::Entry;

/// The part of what is left of the old SVID's life in which all are told. What is not taken then is told again.
const PART: u32 = 3;
/// The longest that is taken for it.
const MAX_WINDOW: Duration = Duration::from_secs(600);
/// Between telling all, and telling those again that have not taken it.
const MIN_PAUSE: Duration = Duration::from_secs(2);
/// How much may be done ahead of its time, so that the timer is not asked for each.
const GRAIN: Duration = Duration::from_millis(5);

/// Signatures that a worker makes in a second, at most: some 5 % of its time with ECDSA or Ed25519, 15 % with RSA of 2048
/// bits.
const MAX_RATE: u32 = 2000;
const MAX_RATE_RSA: u32 = 250;

/// Orders renewals of the open connections of `live`, which `workers` threads serve, for as long as it is polled.
pub async fn pace(live: Arc<Live>, workers: usize) {
    let mut pause = None;
    loop {
        match pause {
            // Earlier when our identity is another again.
            Some(pause) => drop(timeout(pause, live.rotated.notified()).await),
            None => live.rotated.notified().await,
        }
        pause = round(&live, workers).await;
    }
}

/// Orders the renewal of all that lag behind. Returns after which pause to look for those that still do.
async fn round(live: &Arc<Live>, workers: usize) -> Option<Duration> {
    let identity = live.identity();
    let IdentityView::Held(context) = &*identity else {
        return None;
    };
    let (lagging, left) = lagging(live, &identity)?;
    let rate = match context.key.algorithm() {
        SignatureAlgorithm::RSA => MAX_RATE_RSA,
        _ => MAX_RATE,
    };
    let window = window(left, lagging.len(), rate, workers);
    drop(identity);
    let begun = Instant::now();
    let count = lagging.len();
    for (number, entry) in lagging.into_iter().enumerate() {
        let due = begun + place(number, count, window, fastrand::f64());
        if due > Instant::now() + GRAIN {
            sleep_until(due).await;
        }
        if let Some(entry) = entry.upgrade() {
            entry.order_renewal();
        }
    }
    Some(window.max(MIN_PAUSE))
}

/// The connections whose peer can renew and was not told of our SVID yet, in any order, and what is left of the life of
/// the SVID that ends first; `None` when there are none.
fn lagging(live: &Live, identity: &IdentityView) -> Option<(Vec<Weak<Entry>>, Duration)> {
    let mut lagging = Vec::new();
    let mut ends = None;
    for entry in live.registry.snapshot() {
        if entry.can_renew.load(std::sync::atomic::Ordering::Acquire) && lags(&entry, identity) {
            let end = entry.basis().own.not_after;
            ends = Some(ends.map_or(end, |first: std::time::SystemTime| first.min(end)));
            lagging.push(Arc::downgrade(&entry));
        }
    }
    fastrand::shuffle(&mut lagging);
    let left = ends?.duration_since(live.clock.now()).unwrap_or_default();
    Some((lagging, left))
}

/// How long telling `count` connections takes: a part of what is `left`, unless `workers` would have to sign more than
/// `rate` times a second each.
fn window(left: Duration, count: usize, rate: u32, workers: usize) -> Duration {
    let rate = rate
        .saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX))
        .max(1);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let at_least = Duration::from_secs(1).saturating_mul(count) / rate;
    (left / PART).min(MAX_WINDOW).max(at_least)
}

/// When the `number`th of `count` is due in a window: anywhere in its own share of it, as `chance` (from 0 to 1) says.
fn place(number: usize, count: usize, window: Duration, chance: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "connections are fewer than 2^52")]
    let part = (number as f64 + chance) / count.max(1) as f64;
    window.mul_f64(part.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_what_is_left_unless_there_are_very_many() {
        let seconds = Duration::from_secs;
        for (left, count, rate, workers, expected) in [
            (seconds(1800), 1, 2000, 2, seconds(600)),
            (seconds(1800), 50_000, 2000, 2, seconds(600)),
            (seconds(30_000), 50_000, 2000, 2, seconds(600)),
            (seconds(6), 50, 2000, 2, seconds(2)),
            // More than can be signed in time: as fast as may be.
            (seconds(6), 50_000, 2000, 2, Duration::from_millis(12_500)),
            (seconds(6), 50_000, 250, 2, seconds(100)),
            (Duration::ZERO, 4, 2000, 1, Duration::from_millis(2)),
            (seconds(6), usize::MAX, u32::MAX, usize::MAX, seconds(2)),
        ] {
            let found = window(left, count, rate, workers);
            assert_eq!(found, expected, "{left:?} {count} {rate} {workers}");
        }
    }

    #[test]
    fn each_has_its_own_share_of_the_window() {
        let window = Duration::from_secs(10);
        for count in [1, 3, 1000] {
            let mut last = Duration::ZERO;
            for number in 0..count {
                let (first, after) = (
                    place(number, count, window, 0.0),
                    place(number, count, window, 1.0),
                );
                assert!(last <= first && first < after && after <= window);
                last = after - Duration::from_nanos(1);
            }
        }
        assert_eq!(place(0, 0, window, 0.5), window / 2);
    }
}
