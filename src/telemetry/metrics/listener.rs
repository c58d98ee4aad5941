//! The handles of one listener: what a connection counts with, without a lock, an allocation or a look-up of labels.

mod rules;
mod snapshot;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::labels::{Families, ListenerLabels};
use super::sharded::{Counter, Gauge, Histogram};
use crate::record::{Decision, Direction, Divergence, HandshakeKind, Reason, RenewalResult, Verdict};

/// The `rule` label of a decision whose rule is not in force any more (the policy was replaced in between).
pub const OTHER_RULE: &str = "(other)";

pub use snapshot::{DecisionCount, ListenerSnapshot};

use rules::Rules;

/// The handles of one listener.
pub struct ListenerMetrics {
    direction: Direction,
    labels: ListenerLabels,
    families: Families,
    /// One for each of [`Reason::ALL`], in its order.
    connections: Vec<Counter>,
    open: Gauge,
    /// Payload from the one who connected to the one who was connected to.
    pub bytes_up: Counter,
    /// Payload the other way.
    pub bytes_down: Counter,
    handshake: Histogram,
    handshakes_full: Counter,
    handshakes_resumed: Counter,
    /// One for each of [`RenewalResult::ALL`], in its order.
    renewals: Vec<Counter>,
    decisions: ArcSwap<Rules>,
}

/// Which of the two directions of a connection: the `flow` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// From the one who connected to the one who was connected to.
    Up,
    /// The other way.
    Down,
}

impl Flow {
    /// Every value, in the order of the documentation.
    pub const ALL: &'static [Self] = &[Self::Up, Self::Down];

    /// The word used as label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// An open connection in `connections_open`; counted out when dropped.
#[must_use = "the connection counts as open only while this is held"]
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ListenerMetrics {
    /// Counts a connection as open while the value lives.
    pub fn open(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// The counter of one direction's payload bytes; to be kept by the one who moves them.
    #[must_use]
    pub const fn bytes(&self, flow: Flow) -> &Counter {
        match flow {
            Flow::Up => &self.bytes_up,
            Flow::Down => &self.bytes_down,
        }
    }

    /// A TLS handshake that completed, and how long it took.
    pub fn handshake(&self, kind: HandshakeKind, took: Duration) {
        self.handshake.observe(took);
        match kind {
            HandshakeKind::Full => self.handshakes_full.inc(),
            HandshakeKind::Resumed => self.handshakes_resumed.inc(),
        };
    }

    /// Counts what became of a renewal.
    pub fn renewal(&self, result: RenewalResult) {
        // As with reasons.
        if let Some(counter) = self.renewals.get(result as usize) {
            counter.inc();
        }
    }

    /// Counts one decision of authorization, which becomes its series' exemplar. [`Verdict::None`] is no decision and not counted.
    pub fn decided(&self, decision: &Decision) {
        self.decisions.load().count(decision);
    }

    /// Counts one decision that the candidate policy would make otherwise, with the rules that decide in both.
    pub fn diverged(&self, change: Divergence, rule: Option<&Arc<str>>, candidate_rule: Option<&Arc<str>>) {
        self.families
            .divergences
            .count(&self.labels.listener, change, rule, candidate_rule);
    }

    /// The rules (inbound) or `peer` patterns (outbound) in force for this listener, each with the verdicts it can
    /// give. Counts of rules that stay are kept, the series of others are removed.
    pub fn set_rules<'a>(&self, rules: impl IntoIterator<Item = (&'a str, Verdict)>) {
        let next = Rules::new(&self.labels, &self.families.decisions, rules);
        let previous = self.decisions.swap(Arc::new(next));
        let current = self.decisions.load();
        for (rule, verdict) in previous.keys() {
            if !current.contains(rule, verdict) {
                self.families
                    .decisions
                    .remove(&self.labels.decision(rule, verdict));
            }
        }
    }

    /// Whether the handles are those of a listener of this direction.
    pub(super) fn is(&self, direction: Direction) -> bool {
        self.direction == direction
    }

    pub(super) fn new(name: &Arc<str>, direction: Direction, families: &Families) -> Self {
        let labels = ListenerLabels {
            listener: Arc::clone(name),
            direction: direction.as_str(),
        };
        let handshakes = |kind| families.handshakes.get_or_create_owned(&labels.handshake(kind));
        let bytes = |flow: Flow| families.bytes.get_or_create_owned(&labels.bytes(flow));
        // All reasons exist from the start: a rate over a series that springs into life at 1 misses the first event.
        let connections = Reason::ALL
            .iter()
            .map(|reason| {
                families
                    .connections
                    .get_or_create_owned(&labels.connection(*reason))
            })
            .collect();
        let renewals = RenewalResult::ALL
            .iter()
            .map(|result| families.renewals.get_or_create_owned(&labels.renewal(*result)))
            .collect();
        Self {
            direction,
            connections,
            renewals,
            open: families.open.get_or_create_owned(&labels),
            bytes_up: bytes(Flow::Up),
            bytes_down: bytes(Flow::Down),
            handshake: families.handshake.get_or_create_owned(&labels),
            handshakes_full: handshakes(HandshakeKind::Full),
            handshakes_resumed: handshakes(HandshakeKind::Resumed),
            decisions: ArcSwap::from_pointee(Rules::new(&labels, &families.decisions, [])),
            families: families.clone(),
            labels,
        }
    }

    pub(super) fn finished(&self, reason: Reason) {
        // `ALL` lists the variants in order of declaration, so that the discriminant is the place.
        if let Some(counter) = self.connections.get(reason as usize) {
            counter.inc();
        }
    }

    pub(super) fn remove_series(&self) {
        for reason in Reason::ALL {
            self.families.connections.remove(&self.labels.connection(*reason));
        }
        for flow in Flow::ALL {
            self.families.bytes.remove(&self.labels.bytes(*flow));
        }
        for kind in HandshakeKind::ALL {
            self.families.handshakes.remove(&self.labels.handshake(*kind));
        }
        for result in RenewalResult::ALL {
            self.families.renewals.remove(&self.labels.renewal(*result));
        }
        self.families.open.remove(&self.labels);
        self.families.handshake.remove(&self.labels);
        for (rule, verdict) in self.decisions.load().keys() {
            self.families
                .decisions
                .remove(&self.labels.decision(rule, verdict));
        }
    }
}

impl fmt::Debug for ListenerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerMetrics")
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}
