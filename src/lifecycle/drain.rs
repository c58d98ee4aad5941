//! Drain: an orderly end, as a value.
//!
//! The owner holds a [`Drain`], everything that takes part holds a [`DrainWatch`], and each piece of work that
//! should be waited for holds a [`DrainToken`]. The owner begins the drain, waits for the tokens with a deadline,
//! and then forces what is left. Works across threads and runtimes. A phase never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How far an end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Work as usual.
    Running,
    /// Take nothing new, finish what there is.
    Draining,
    /// End now.
    Forced,
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every token was given back in time.
    Complete,
    /// So many tokens were still held at the deadline; their holders were told [`Phase::Forced`].
    Forced {
        /// Tokens held when the deadline came.
        remaining: usize,
    },
}

/// The owner's end.
#[derive(Debug, Default)]
pub struct Drain(Arc<Shared>);

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A watcher's end.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        DrainWatch(Arc::clone(&self.0))
    }

    /// Tells every watcher to finish. Later calls do nothing.
    pub fn begin(&self) {
        self.0.advance(Phase::Draining);
    }

    /// Tells every watcher to end now.
    pub fn force(&self) {
        self.0.advance(Phase::Forced);
    }

    /// Tokens held at this moment.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.0.tokens.load(Ordering::SeqCst)
    }

    /// Waits until no token is held. Meaningful once the drain began, since watchers may take new ones before.
    pub async fn finished(&self) {
        self.at_most(0).await;
    }

    /// Waits until so many tokens are held, or fewer.
    pub async fn at_most(&self, tokens: usize) {
        // Before the look at the count: whoever gives one back from here on tells. One order for both numbers, or each side
        // could miss what the other has just written.
        self.0.wanted.fetch_max(tokens, Ordering::SeqCst);
        loop {
            let returned = self.0.returned.notified();
            tokio::pin!(returned);
            // Listening starts before the look at the count, so that a return in between is not missed.
            returned.as_mut().enable();
            if self.tokens() <= tokens {
                return;
            }
            returned.await;
        }
    }

    /// Begins, waits for the tokens up to `deadline`, then forces. The holders of the remaining ones still need a
    /// moment to react: await [`Self::finished`] with a bound of its own for that.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.begin();
        if tokio::time::timeout(deadline, self.finished()).await.is_ok() {
            return Drained::Complete;
        }
        let remaining = self.tokens();
        self.force();
        if remaining == 0 {
            Drained::Complete
        } else {
            Drained::Forced { remaining }
        }
    }
}

/// The end of those who take part. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DrainWatch(Arc<Shared>);

impl DrainWatch {
    /// How far the end has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Waits until the drain began (or was forced at once).
    pub async fn draining(&self) {
        self.0.reached(Phase::Draining).await;
    }

    /// Waits until the end is forced.
    pub async fn forced(&self) {
        self.0.reached(Phase::Forced).await;
    }

    /// Work to be waited for, until the token is dropped.
    pub fn token(&self) -> DrainToken {
        self.0.tokens.fetch_add(1, Ordering::AcqRel);
        DrainToken(self.clone())
    }
}

/// A piece of work that the owner waits for.
#[derive(Debug)]
#[must_use = "the work is waited for only while the token is held"]
pub struct DrainToken(DrainWatch);

impl DrainToken {
    /// The watch that the token came from.
    #[must_use]
    pub const fn watch(&self) -> &DrainWatch {
        &self.0
    }
}

impl Clone for DrainToken {
    fn clone(&self) -> Self {
        self.0.token()
    }
}

impl Drop for DrainToken {
    fn drop(&mut self) {
        let held = self.0.0.tokens.fetch_sub(1, Ordering::SeqCst);
        if held <= self.0.0.wanted.load(Ordering::SeqCst).saturating_add(1) {
            self.0.0.returned.notify_waiters();
        }
    }
}

#[derive(Debug)]
struct Shared {
    phase: watch::Sender<Phase>,
    tokens: AtomicUsize,
    /// The most tokens with which somebody is content who waits.
    wanted: AtomicUsize,
    /// Told when no more than these are held.
    returned: Notify,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Running),
            tokens: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            returned: Notify::new(),
        }
    }
}

impl Shared {
    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let further = *phase < to;
            if further {
                *phase = to;
            }
            further
        });
    }

    async fn reached(&self, at_least: Phase) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= at_least).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn ends_when_the_last_token_comes_back() {
        let drain = Drain::new();
        let (first, second) = (drain.watch().token(), drain.watch().token());
        let watch = drain.watch();
        let worker = tokio::spawn(async move {
            watch.draining().await;
            sleep(Duration::from_secs(3)).await;
            drop(first);
            sleep(Duration::from_secs(4)).await;
            drop(second);
        });
        let began = Instant::now();
        assert_eq!(drain.drain(Duration::from_secs(25)).await, Drained::Complete);
        assert_eq!(began.elapsed(), Duration::from_secs(7));
        assert_eq!(drain.watch().phase(), Phase::Draining);
        worker.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn tells_when_few_are_left() {
        let drain = Drain::new();
        let tokens: Vec<_> = (0..4).map(|_| drain.watch().token()).collect();
        drain.at_most(4).await;
        let worker = tokio::spawn(async move {
            for token in tokens {
                sleep(Duration::from_secs(1)).await;
                drop(token);
            }
        });
        let began = Instant::now();
        tokio::join!(
            async {
                drain.at_most(2).await;
                assert_eq!(began.elapsed(), Duration::from_secs(2));
            },
            async {
                drain.finished().await;
                assert_eq!(began.elapsed(), Duration::from_secs(4));
            }
        );
        worker.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn forces_what_is_left_at_the_deadline() {
        let drain = Drain::new();
        let token = drain.watch().token();
        let also = token.clone();
        let worker = tokio::spawn(async move {
            token.watch().forced().await;
            drop(also);
            drop(token);
        });
        let began = Instant::now();
        assert_eq!(
            drain.drain(Duration::from_secs(25)).await,
            Drained::Forced { remaining: 2 }
        );
        assert_eq!(began.elapsed(), Duration::from_secs(25));
        drain.finished().await;
        worker.await.unwrap();
        assert_eq!(drain.tokens(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_held_ends_at_once() {
        let drain = Drain::new();
        assert_eq!(drain.drain(Duration::ZERO).await, Drained::Complete);
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_see_phases_in_order_and_late_ones_too() {
        let drain = Drain::new();
        let early = drain.watch();
        assert_eq!(early.phase(), Phase::Running);
        let undisturbed = tokio::time::timeout(Duration::from_secs(3600), early.draining()).await;
        assert!(undisturbed.is_err());
        drain.begin();
        early.draining().await;
        let not_forced = tokio::time::timeout(Duration::from_secs(3600), early.forced()).await;
        assert!(not_forced.is_err());
        drain.force();
        early.forced().await;
        // Forced implies draining; a phase never goes back.
        drain.begin();
        assert_eq!(early.phase(), Phase::Forced);
        drain.watch().draining().await;
        drain.watch().forced().await;
    }

    #[test]
    fn tokens_and_waiters_may_live_on_different_runtimes() {
        let drain = Drain::new();
        let token = drain.watch().token();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(token.watch().draining());
            drop(token);
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        assert_eq!(
            runtime.block_on(drain.drain(Duration::from_secs(60))),
            Drained::Complete
        );
        worker.join().unwrap();
    }
}
