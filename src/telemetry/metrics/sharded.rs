//! Counters that many threads count with and nobody waits for.
//!
//! One atomic number that all workers add to is one cache line that travels between their cores. Here each thread adds to
//! a line of its own, and who asks for the number adds the lines up. A count is then one atomic addition to memory that
//! no other core writes: no lock, no allocation. The metric families and their text form stay prometheus-client's.
//!
//! Memory: a [`Group`] holds sixteen numbers, each once for each shard, in 640 bytes; a counter has a share of one.

mod decisions;
mod histogram;

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::{MetricType, TypedMetric};

pub(super) use decisions::DecisionCounter;
pub(super) use histogram::Histogram;
pub use histogram::HistogramSnapshot;

/// As many as there are workers, unless the settings ask for more; further threads share a line, which costs some
/// nanoseconds and loses nothing.
const SHARDS: usize = 4;

/// The numbers of one line.
const WORDS: usize = 16;

/// What one shard's threads write. Processors fetch lines of 64 bytes in pairs, and some have lines of 128.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; WORDS]);

/// Sixteen numbers, in as many shares as there are shards.
#[derive(Debug, Default)]
struct Group([Line; SHARDS]);

/// The shard of this thread: given out in turn, when the thread counts for the first time.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    // A thread that is on its way out may have taken its own down already.
    SHARD
        .try_with(|own| {
            own.get().unwrap_or_else(|| {
                let taken = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
                own.set(Some(taken));
                taken
            })
        })
        .unwrap_or(0)
}

/// Gives out the numbers of groups, one after the other. Clones share the group that has room. What is given out belongs to
/// its holder; a group is freed when its last one goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Arc<Mutex<Room>>);

#[derive(Debug, Default)]
struct Room {
    group: Arc<Group>,
    taken: usize,
}

impl Slots {
    /// `count` numbers that lie together, all zero; [`WORDS`] at most.
    fn take(&self, count: usize) -> Words {
        debug_assert!(count <= WORDS, "a line has no room for {count}");
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if room.taken + count > WORDS {
            *room = Room::default();
        }
        let first = room.taken;
        room.taken += count;
        Words {
            group: Arc::clone(&room.group),
            first,
        }
    }
}

/// Some numbers of a group.
#[derive(Clone, Debug)]
struct Words {
    group: Arc<Group>,
    first: usize,
}

impl Words {
    /// This thread's share of the numbers, and what follows them in its line.
    fn own_share(&self) -> Option<&[AtomicU64]> {
        self.group.0.get(shard())?.0.get(self.first..)
    }

    fn shares(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.group.0.iter().filter_map(|line| line.0.get(self.first..))
    }

    fn add(&self, which: usize, by: u64) {
        // Always there: what was taken lies within a line.
        if let Some(own) = self.own_share().and_then(|share| share.get(which)) {
            own.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// The shares of all threads together. Wraps, so that what one thread adds another may take away.
    fn sum(&self, which: usize) -> u64 {
        self.shares()
            .filter_map(|share| share.get(which))
            .fold(0, |sum, share| sum.wrapping_add(share.load(Ordering::Relaxed)))
    }
}

/// Counts up, without waiting for anybody.
#[derive(Clone, Debug)]
pub struct Counter(Words);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many more.
    pub fn inc_by(&self, by: u64) {
        self.0.add(0, by);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.sum(0)
    }
}

impl TypedMetric for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, u64, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Counts up and down. What one thread has counted in another may count out.
#[derive(Clone, Debug)]
pub(super) struct Gauge(Words);

impl Gauge {
    pub(super) fn inc(&self) {
        self.0.add(0, 1);
    }

    pub(super) fn dec(&self) {
        // `fetch_add` wraps: the sum is right, whichever shares it is made of.
        self.0.add(0, u64::MAX);
    }

    pub(super) fn get(&self) -> i64 {
        self.0.sum(0).cast_signed()
    }
}

impl TypedMetric for Gauge {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Gauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl MetricConstructor<Counter> for Slots {
    fn new_metric(&self) -> Counter {
        Counter(self.take(1))
    }
}

impl MetricConstructor<Gauge> for Slots {
    fn new_metric(&self) -> Gauge {
        Gauge(self.take(1))
    }
}

impl MetricConstructor<DecisionCounter> for Slots {
    fn new_metric(&self) -> DecisionCounter {
        DecisionCounter::new(self)
    }
}

#[cfg(test)]
mod tests;
