//! The counts of a listener, read at once, for those who show them.

use std::sync::Arc;
use std::time::SystemTime;

use super::ListenerMetrics;
use crate::record::{Direction, Reason, Verdict};
use crate::telemetry::metrics::sharded::HistogramSnapshot;

/// What a listener has counted since the process started. Each number is right by itself; between reading the first and the
/// last connections go on.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSnapshot {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The listener's direction.
    pub direction: Direction,
    /// Connections that ended, by each of [`Reason::ALL`], in its order.
    pub connections: Vec<(Reason, u64)>,
    /// Connections that are open.
    pub open: u64,
    /// Payload bytes from the one who connected to the one who was connected to.
    pub bytes_up: u64,
    /// Payload bytes the other way.
    pub bytes_down: u64,
    /// TLS handshakes in which the peer proved that it holds its certificate's key.
    pub handshakes_full: u64,
    /// TLS handshakes that took up an earlier session.
    pub handshakes_resumed: u64,
    /// How long TLS handshakes took.
    pub handshake: HistogramSnapshot,
    /// Decisions by rule and verdict, in the order of the rules' names. Rules are those in force, with two names of no rule: the empty one,
    /// which is default deny, and [`OTHER_RULE`](super::OTHER_RULE).
    pub decisions: Vec<DecisionCount>,
}

/// How often a rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionCount {
    /// The rule's name (inbound) or the `peer` pattern (outbound).
    pub rule: Arc<str>,
    /// What was said.
    pub verdict: Verdict,
    /// How often.
    pub count: u64,
    /// When last; absent while `count` is 0.
    pub last_hit: Option<SystemTime>,
}

impl ListenerMetrics {
    /// What was counted up to now.
    #[must_use]
    pub fn snapshot(&self) -> ListenerSnapshot {
        let rules = self.decisions.load();
        let mut decisions: Vec<DecisionCount> = rules
            .counters()
            .map(|(rule, verdict, counter)| {
                let hits = counter.hits();
                DecisionCount {
                    rule: Arc::clone(rule),
                    verdict,
                    count: hits.count,
                    last_hit: hits.last.map(|(_, time)| time),
                }
            })
            .collect();
        decisions.sort_by(|a, b| (&a.rule, a.verdict).cmp(&(&b.rule, b.verdict)));
        let connections = Reason::ALL.iter().zip(&self.connections);
        ListenerSnapshot {
            listener: Arc::clone(&self.labels.listener),
            direction: self.direction,
            connections: connections
                .map(|(reason, count)| (*reason, count.get()))
                .collect(),
            open: u64::try_from(self.open.get()).unwrap_or(0),
            bytes_up: self.bytes_up.get(),
            bytes_down: self.bytes_down.get(),
            handshakes_full: self.handshakes_full.get(),
            handshakes_resumed: self.handshakes_resumed.get(),
            handshake: self.handshake.snapshot(),
            decisions,
        }
    }
}
