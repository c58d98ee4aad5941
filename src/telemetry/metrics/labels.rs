//! The label sets, and the families that have one series for each listener.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::registry::{Registry, Unit};

use super::divergences::Divergences;
use super::listener::Flow;
use super::sharded::{Counter, DecisionCounter, Gauge, Histogram, Slots};
use crate::record::{HandshakeKind, Reason, RenewalResult, Verdict};

/// A family whose series are counted without waiting.
pub(super) type Sharded<Labels, Metric> = Family<Labels, Metric, Slots>;

/// The families that have one series for each listener.
#[derive(Clone)]
pub(super) struct Families {
    pub(super) connections: Sharded<ConnectionLabels, Counter>,
    pub(super) open: Sharded<ListenerLabels, Gauge>,
    pub(super) bytes: Sharded<BytesLabels, Counter>,
    pub(super) handshake: Sharded<ListenerLabels, Histogram>,
    pub(super) handshakes: Sharded<HandshakeLabels, Counter>,
    pub(super) renewals: Sharded<RenewalLabels, Counter>,
    pub(super) decisions: Sharded<DecisionLabels, DecisionCounter>,
    pub(super) divergences: Divergences,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let slots = Slots::default();
        let families = Self {
            connections: Family::new_with_constructor(slots.clone()),
            open: Family::new_with_constructor(slots.clone()),
            bytes: Family::new_with_constructor(slots.clone()),
            handshake: Family::new_with_constructor(slots.clone()),
            handshakes: Family::new_with_constructor(slots.clone()),
            renewals: Family::new_with_constructor(slots.clone()),
            decisions: Family::new_with_constructor(slots.clone()),
            divergences: Divergences::register(registry, slots),
        };
        registry.register(
            "connections",
            "Connections that ended, by outcome",
            families.connections.clone(),
        );
        registry.register(
            "connections_open",
            "Connections that are open",
            families.open.clone(),
        );
        registry.register("bytes", "Payload bytes forwarded", families.bytes.clone());
        registry.register_with_unit(
            "handshake",
            "Time from acceptance (inbound) or dialling (outbound) to the end of the TLS handshake",
            Unit::Seconds,
            families.handshake.clone(),
        );
        registry.register(
            "handshakes",
            "TLS handshakes that completed, by kind",
            families.handshakes.clone(),
        );
        registry.register(
            "renewals",
            "Renewals of open connections, by whose SVID it was and what became of it",
            families.renewals.clone(),
        );
        registry.register(
            "authorization_decisions",
            "Decisions of authorization by the rule that decided",
            families.decisions.clone(),
        );
        families
    }
}

/// A handshake takes two signatures and two round trips; what is slower than a second is trouble.
static HANDSHAKE_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

impl MetricConstructor<Histogram> for Slots {
    fn new_metric(&self) -> Histogram {
        Histogram::new(&HANDSHAKE_BUCKETS, self)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ListenerLabels {
    pub(super) listener: Arc<str>,
    pub(super) direction: &'static str,
}

impl ListenerLabels {
    pub(super) fn connection(&self, reason: Reason) -> ConnectionLabels {
        ConnectionLabels {
            listener: Arc::clone(&self.listener),
            direction: self.direction,
            result: reason.outcome().as_str(),
            reason: reason.as_str(),
        }
    }

    pub(super) fn bytes(&self, flow: Flow) -> BytesLabels {
        BytesLabels {
            listener: Arc::clone(&self.listener),
            direction: self.direction,
            flow: flow.as_str(),
        }
    }

    pub(super) fn handshake(&self, kind: HandshakeKind) -> HandshakeLabels {
        HandshakeLabels {
            listener: Arc::clone(&self.listener),
            direction: self.direction,
            kind: kind.as_str(),
        }
    }

    pub(super) fn renewal(&self, result: RenewalResult) -> RenewalLabels {
        RenewalLabels {
            listener: Arc::clone(&self.listener),
            direction: self.direction,
            result: result.as_str(),
        }
    }

    pub(super) fn decision(&self, rule: &str, verdict: Verdict) -> DecisionLabels {
        DecisionLabels {
            listener: Arc::clone(&self.listener),
            rule: rule.into(),
            verdict: verdict.as_str(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ConnectionLabels {
    pub(super) listener: Arc<str>,
    pub(super) direction: &'static str,
    pub(super) result: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BytesLabels {
    pub(super) listener: Arc<str>,
    pub(super) direction: &'static str,
    pub(super) flow: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HandshakeLabels {
    pub(super) listener: Arc<str>,
    pub(super) direction: &'static str,
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RenewalLabels {
    pub(super) listener: Arc<str>,
    pub(super) direction: &'static str,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DecisionLabels {
    pub(super) listener: Arc<str>,
    pub(super) rule: Arc<str>,
    pub(super) verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DocumentLabels {
    pub(super) document: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReloadLabels {
    pub(super) document: &'static str,
    pub(super) result: &'static str,
}
