//! Holds payload back to so many bytes a second, by not reading before there is room for what would be read. The kernel's
//! buffers fill up then, and the other side has to wait.
//!
//! A rate is shared by connections on all threads. It is one number, the time up to which it is spoken for, as in a
//! leaky bucket used as a meter (ITU-T I.371's GCRA): what moves pushes it into the future, up to a second ahead and no
//! further. So an idle rate has one second's worth to give at once, a change of the rate needs no conversion, and nobody
//! holds a lock.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How far ahead a rate may be spoken for, in nanoseconds: one second.
const AHEAD: u64 = 1_000_000_000;
/// What is worth a read: less than that is waited for, unless a second's worth is less.
const WORTHWHILE: u64 = 16 << 10;
/// The longest that a connection waits beyond the time at which there may be room for it.
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// So many bytes a second, for all who share it; or no limit.
#[derive(Debug)]
pub struct Rate {
    epoch: Instant,
    /// Bytes a second; 0: no limit.
    per_second: AtomicU64,
    /// Up to when it is spoken for, in nanoseconds after the epoch. What lies before now is forgotten.
    spoken_for: AtomicU64,
}

/// What [`Rate::take`] took, to be settled with what was used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    bytes: u64,
    /// The rate it was taken at.
    per_second: u64,
}

impl Rate {
    /// A rate of which nothing is spoken for; `None` is no limit.
    #[must_use]
    pub fn new(per_second: Option<u64>) -> Self {
        Self {
            epoch: Instant::now(),
            per_second: AtomicU64::new(per_second.unwrap_or(0)),
            spoken_for: AtomicU64::new(0),
        }
    }

    /// Another limit from now on.
    pub fn set(&self, per_second: Option<u64>) {
        self.per_second.store(per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// When nothing of it is spoken for any more.
    #[must_use]
    pub fn unused_from(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.spoken_for.load(Ordering::Relaxed))
    }

    /// Takes up to `most` bytes, at least what is worth a read.
    ///
    /// # Errors
    /// When to ask again.
    fn take(&self, now: Instant, most: u64) -> Result<Taken, Instant> {
        let per_second = self.per_second.load(Ordering::Relaxed);
        if per_second == 0 {
            return Ok(Taken {
                bytes: most,
                per_second,
            });
        }
        let now = nanoseconds(now.saturating_duration_since(self.epoch));
        let least = WORTHWHILE.min(per_second).min(most);
        let mut bytes = 0;
        let mut wait = 0;
        let took = self
            .spoken_for
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spoken_for| {
                let begin = spoken_for.max(now);
                let room = (now + AHEAD).saturating_sub(begin);
                bytes = worth(room, per_second).min(most);
                wait = time_for(least, per_second).saturating_sub(room);
                (bytes >= least).then(|| begin + time_for(bytes, per_second))
            });
        match took {
            Ok(_) => Ok(Taken { bytes, per_second }),
            Err(_) => Err(self.epoch + Duration::from_nanos(now + wait.max(1))),
        }
    }

    /// Gives back what was not used.
    fn settle(&self, taken: Taken, used: u64) {
        if taken.per_second == 0 || used >= taken.bytes {
            return;
        }
        let back = time_for(taken.bytes, taken.per_second) - time_for(used, taken.per_second);
        self.spoken_for.fetch_sub(back, Ordering::Relaxed);
    }
}

/// How many bytes a time is worth, rounded down.
fn worth(nanoseconds: u64, per_second: u64) -> u64 {
    let bytes = u128::from(nanoseconds) * u128::from(per_second) / u128::from(AHEAD);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How long so many bytes take, in nanoseconds, rounded up: never more than the rate gets through.
fn time_for(bytes: u64, per_second: u64) -> u64 {
    let time = (u128::from(bytes) * u128::from(AHEAD)).div_ceil(u128::from(per_second.max(1)));
    u64::try_from(time).unwrap_or(u64::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The rates that one connection's payload is held back to, both directions together.
#[derive(Debug)]
pub struct Pace {
    /// With what is taken of each while a read is made.
    rates: Box<[(Arc<Rate>, Option<Taken>)]>,
    /// Made when first needed.
    timer: Option<Pin<Box<Sleep>>>,
    /// How often in a row there was no room when it was asked for.
    misses: u8,
}

impl Pace {
    /// Held back to all of these.
    #[must_use]
    pub fn new(rates: impl IntoIterator<Item = Arc<Rate>>) -> Self {
        Self {
            rates: rates.into_iter().map(|rate| (rate, None)).collect(),
            timer: None,
            misses: 0,
        }
    }

    /// Has `read` read what may be read now, `most` bytes or less. What it returns says how much it read. Pending, with the
    /// task to be woken, while nothing may.
    pub(super) fn poll_read<E>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        read: impl FnOnce(usize) -> Result<usize, E>,
    ) -> Poll<Result<usize, E>> {
        let result = match self.take(Instant::now(), most as u64) {
            Ok(granted) => Ok(read(usize::try_from(granted).unwrap_or(most))),
            Err(later) => Err(later),
        };
        let used = match &result {
            Ok(Ok(used)) => *used as u64,
            Ok(Err(_)) | Err(_) => 0,
        };
        for (rate, taken) in &mut self.rates {
            if let Some(taken) = taken.take() {
                rate.settle(taken, used);
            }
        }
        match result {
            Ok(result) => {
                self.misses = 0;
                Poll::Ready(result)
            }
            Err(later) => {
                let extra = backoff(self.misses, later.saturating_duration_since(Instant::now()));
                self.misses = self.misses.saturating_add(1);
                wait_until(&mut self.timer, later + extra, cx);
                Poll::Pending
            }
        }
    }

    /// What all rates give, each in turn of what the ones before it gave; or when to ask again.
    fn take(&mut self, now: Instant, most: u64) -> Result<u64, Instant> {
        let mut granted = most;
        for (rate, taken) in &mut self.rates {
            let took = rate.take(now, granted)?;
            granted = took.bytes;
            *taken = Some(took);
        }
        Ok(granted)
    }
}

/// What to wait beyond `wait`, in which there will be room for one. Whoever finds that another one took it waits longer each
/// time, by chance: else all that share a rate would wake for each read of one of them, and the same ones win.
fn backoff(misses: u8, wait: Duration) -> Duration {
    if misses == 0 {
        return Duration::ZERO;
    }
    let most = wait.saturating_mul(1 << misses.min(10)).min(MAX_BACKOFF);
    most.mul_f64(fastrand::f64())
}

/// Has the task polled again at this time, or before.
fn wait_until(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
    // Both directions wait with it: the earlier one's time counts.
    if timer.is_elapsed() || timer.deadline() > at {
        timer.as_mut().reset(at);
    }
    if timer.as_mut().poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

#[cfg(test)]
mod tests;
