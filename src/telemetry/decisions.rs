//! Verdicts after they are given: the last ones in memory, a live stream of them, and a file.
//!
//! Owns what becomes of a [`Decision`] once it is made. Promises that whoever gives verdicts waits for nobody: a record goes
//! into the ring under a lock that is held for one push, and into bounded queues that lose and count. A record is shared,
//! never copied; it becomes JSON where somebody asks for it, or on the file's own thread.

mod file;
mod filter;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

pub use file::{DecisionFile, DecisionFileGuard, DecisionFileOptions, OpenError, OpenedDecisionFile};
pub use filter::Filter;

use crate::record::{Decision, DecisionId};

/// The most verdicts that are kept in memory.
pub const MAX_KEPT: usize = 4096;
/// The most bytes that those take together, about: see [`Decision::weight`].
pub const MAX_KEPT_BYTES: usize = 4 << 20;
/// Who may listen at once.
pub const MAX_SUBSCRIBERS: usize = 8;
/// Verdicts that wait for a slow listener before it loses some.
pub const SUBSCRIBER_QUEUE: usize = 256;

/// Keeps verdicts and hands them on.
#[derive(Debug)]
pub struct Decisions {
    recent: Mutex<Ring>,
    live: broadcast::Sender<Arc<Decision>>,
    subscribers: Arc<AtomicUsize>,
    file: Option<DecisionFile>,
}

impl Decisions {
    /// Keeps none yet; `file` gets each that comes.
    #[must_use]
    pub fn new(file: Option<DecisionFile>) -> Self {
        Self {
            recent: Mutex::default(),
            live: broadcast::Sender::new(SUBSCRIBER_QUEUE),
            subscribers: Arc::default(),
            file,
        }
    }

    /// Takes a verdict. Called where it is given: two short locks at most, a few hundred nanoseconds.
    pub fn record(&self, decision: &Arc<Decision>) {
        let weight = decision.weight();
        let mut coming = Some((Arc::clone(decision), weight));
        loop {
            let (leaving, more) = {
                let mut ring = self.ring();
                ring.push(coming.take());
                ring.pop_surplus()
            };
            // What it held is given back outside of the lock.
            drop(leaving);
            if !more {
                break;
            }
        }
        if self.subscribers.load(Ordering::Relaxed) > 0 {
            // Fails when the last one has just left.
            let _ = self.live.send(Arc::clone(decision));
        }
        if let Some(file) = &self.file {
            file.record(decision);
        }
    }

    /// The last `limit` verdicts that pass the filter, the newest first, and how many are kept in all.
    #[must_use]
    pub fn recent(&self, filter: &Filter, limit: usize) -> (Vec<Arc<Decision>>, usize) {
        // Copied under the lock and looked at outside: pointers, a few microseconds at most.
        let kept: Vec<Arc<Decision>> = self.ring().kept.iter().map(|(d, _)| Arc::clone(d)).collect();
        let total = kept.len();
        let found = kept
            .into_iter()
            .rev()
            .filter(|decision| filter.takes(decision))
            .take(limit)
            .collect();
        (found, total)
    }

    /// The verdict of this id, while it is kept.
    #[must_use]
    pub fn find(&self, id: DecisionId) -> Option<Arc<Decision>> {
        let ring = self.ring();
        let found = ring.kept.iter().rev().find(|(decision, _)| decision.id == id);
        found.map(|(decision, _)| Arc::clone(decision))
    }

    /// Listens to verdicts from now on; `None` while [`MAX_SUBSCRIBERS`] do.
    #[must_use]
    pub fn subscribe(&self) -> Option<Subscription> {
        self.subscribe_among(MAX_SUBSCRIBERS)
    }

    /// As [`Self::subscribe`], `None` while `most` listen already, of all.
    #[must_use]
    pub fn subscribe_among(&self, most: usize) -> Option<Subscription> {
        let place = SubscriberPlace::take(&self.subscribers, most.min(MAX_SUBSCRIBERS))?;
        Some(Subscription {
            verdicts: self.live.subscribe(),
            place,
        })
    }

    /// How many verdicts did not reach the file, because its queue was full or writing failed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.file.as_ref().map_or(0, DecisionFile::dropped)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The verdicts in memory, the oldest first, each with its weight.
#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<(Arc<Decision>, usize)>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, coming: Option<(Arc<Decision>, usize)>) {
        if let Some((decision, weight)) = coming {
            self.bytes = self.bytes.saturating_add(weight);
            self.kept.push_back((decision, weight));
        }
    }

    /// The oldest, if there is one too many; and whether there still is.
    fn pop_surplus(&mut self) -> (Option<Arc<Decision>>, bool) {
        let leaving = if self.is_over() {
            self.kept.pop_front()
        } else {
            None
        };
        let leaving = leaving.map(|(decision, weight)| {
            self.bytes = self.bytes.saturating_sub(weight);
            decision
        });
        (leaving, self.is_over())
    }

    fn is_over(&self) -> bool {
        self.kept.len() > MAX_KEPT || (self.bytes > MAX_KEPT_BYTES && self.kept.len() > 1)
    }
}

/// One who listens.
#[derive(Debug)]
pub struct Subscription {
    /// The verdicts; one who is too slow is told how many are lost.
    pub verdicts: broadcast::Receiver<Arc<Decision>>,
    /// To be kept as long as somebody listens.
    pub place: SubscriberPlace,
}

/// A place among those who listen, given back when dropped.
#[derive(Debug)]
pub struct SubscriberPlace(Arc<AtomicUsize>);

impl SubscriberPlace {
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < most).then_some(taken + 1)
            })
            .ok()
            .map(|_| Self(Arc::clone(taken)))
    }
}

impl Drop for SubscriberPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
