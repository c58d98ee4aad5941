//! Counts the decisions of one rule, and remembers the last of them: its id is the exemplar, its time the last hit.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, MetricEncoder,
};
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::{Slots, Words};
use crate::record::{Decision, DecisionId};

/// Where the numbers of a share lie.
const COUNT: usize = 0;
/// Odd while the three that follow are written.
const VERSION: usize = 1;
/// The id's two words.
const ID: [usize; 2] = [2, 3];
/// Nanoseconds since 1970; 0 before the first.
const TIME: usize = 4;

/// How often a reader looks again when a writer comes between. A write takes some nanoseconds.
const LOOKS: usize = 100;

/// Counts decisions, and names the last one.
#[derive(Clone, Debug)]
pub(in crate::telemetry::metrics) struct DecisionCounter(pub(super) Words);

/// What is known of the decisions of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::telemetry::metrics) struct Hits {
    pub(in crate::telemetry::metrics) count: u64,
    pub(in crate::telemetry::metrics) last: Option<(DecisionId, SystemTime)>,
}

impl DecisionCounter {
    pub(super) fn new(slots: &Slots) -> Self {
        Self(slots.take(TIME + 1))
    }

    pub(in crate::telemetry::metrics) fn count(&self, decision: &Decision) {
        self.0.add(COUNT, 1);
        if let Some(own) = self.0.own_share() {
            remember(own, decision.id, decision.time);
        }
    }

    pub(in crate::telemetry::metrics) fn hits(&self) -> Hits {
        let last = self.0.shares().filter_map(last_of).max_by_key(|(_, time)| *time);
        Hits {
            count: self.0.sum(COUNT),
            last: last.map(|(id, time)| (id, SystemTime::UNIX_EPOCH + Duration::from_nanos(time))),
        }
    }
}

/// A sequence lock, whose writer never waits: where two threads share a line and write at once, the other's decision
/// is remembered, which is as late.
pub(super) fn remember(share: &[AtomicU64], id: DecisionId, time: SystemTime) -> Option<()> {
    let version = share.get(VERSION)?;
    let before = version.load(Ordering::Relaxed);
    if before % 2 == 1 {
        return None;
    }
    let begun = before.wrapping_add(1);
    version
        .compare_exchange(before, begun, Ordering::Acquire, Ordering::Relaxed)
        .ok()?;
    // Who sees a number written below also sees that the version is odd.
    fence(Ordering::Release);
    let [process, number] = id.words();
    for (place, word) in [(ID[0], process), (ID[1], number), (TIME, nanoseconds(time))] {
        share.get(place)?.store(word, Ordering::Relaxed);
    }
    version.store(begun.wrapping_add(1), Ordering::Release);
    Some(())
}

/// The last decision of one share; `None` where there is none, or where it changes faster than it can be read.
pub(super) fn last_of(share: &[AtomicU64]) -> Option<(DecisionId, u64)> {
    let load = |place: usize| share.get(place).map(|word| word.load(Ordering::Relaxed));
    for _ in 0..LOOKS {
        let before = share.get(VERSION)?.load(Ordering::Acquire);
        let (id, time) = ([load(ID[0])?, load(ID[1])?], load(TIME)?);
        fence(Ordering::Acquire);
        if before % 2 == 0 && load(VERSION)? == before {
            return (time > 0).then(|| (DecisionId::of_words(id), time));
        }
        std::hint::spin_loop();
    }
    None
}

/// 0 means that there was none: what is not after 1970 counts as its first nanosecond.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The verdict that an exemplar names: at most 46 characters of the 128 that OpenMetrics allows.
#[derive(Clone, Debug, EncodeLabelSet)]
struct DecisionExemplar {
    decision_id: IdLabel,
}

#[derive(Clone, Copy, Debug)]
struct IdLabel(DecisionId);

impl EncodeLabelValue for IdLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        use fmt::Write as _;
        write!(encoder, "{}", self.0)
    }
}

impl TypedMetric for DecisionCounter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for DecisionCounter {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        let hits = self.hits();
        // prometheus-client makes exemplars only by counting: all but the last, and the last by its name.
        let told = CounterWithExemplar::<DecisionExemplar>::default();
        let named = hits.last.filter(|_| hits.count > 0);
        told.inc_by(hits.count - u64::from(named.is_some()), None, None);
        if let Some((id, time)) = named {
            let exemplar = DecisionExemplar {
                decision_id: IdLabel(id),
            };
            told.inc_by(1, Some(exemplar), Some(time));
        }
        told.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
