//! The decision counters of one listener, by the rules that decide.

use std::collections::HashMap;
use std::sync::Arc;

use super::OTHER_RULE;
use crate::record::{Decision, Verdict};
use crate::telemetry::metrics::labels::{DecisionLabels, ListenerLabels, Sharded};
use crate::telemetry::metrics::sharded::DecisionCounter;

/// The counters of its rules, and two catch-alls, so that the set is closed.
#[derive(Default)]
pub(super) struct Rules {
    by_rule: HashMap<Arc<str>, PerVerdict>,
}

#[derive(Default)]
struct PerVerdict {
    allow: Option<DecisionCounter>,
    deny: Option<DecisionCounter>,
}

impl PerVerdict {
    const fn counter(&self, verdict: Verdict) -> Option<&DecisionCounter> {
        match verdict {
            Verdict::Allow => self.allow.as_ref(),
            Verdict::Deny => self.deny.as_ref(),
            Verdict::None => None,
        }
    }
}

impl Rules {
    pub(super) fn new<'a>(
        labels: &ListenerLabels,
        family: &Sharded<DecisionLabels, DecisionCounter>,
        rules: impl IntoIterator<Item = (&'a str, Verdict)>,
    ) -> Self {
        let mut by_rule = HashMap::<Arc<str>, PerVerdict>::new();
        // The empty rule is default deny; an empty label is the same as none to Prometheus.
        let fixed = [
            ("", Verdict::Deny),
            (OTHER_RULE, Verdict::Allow),
            (OTHER_RULE, Verdict::Deny),
        ];
        for (rule, verdict) in fixed.into_iter().chain(rules) {
            let counter = || Some(family.get_or_create_owned(&labels.decision(rule, verdict)));
            let entry = by_rule.entry(rule.into()).or_default();
            match verdict {
                Verdict::Allow => entry.allow = counter(),
                Verdict::Deny => entry.deny = counter(),
                Verdict::None => {}
            }
        }
        Self { by_rule }
    }

    pub(super) fn count(&self, decision: &Decision) {
        let rule = decision.rule.as_deref().unwrap_or("");
        let counter = |rule| self.by_rule.get(rule).and_then(|c| c.counter(decision.verdict));
        if let Some(counter) = counter(rule).or_else(|| counter(OTHER_RULE)) {
            counter.count(decision);
        }
    }

    pub(super) fn contains(&self, rule: &str, verdict: Verdict) -> bool {
        self.by_rule
            .get(rule)
            .is_some_and(|c| c.counter(verdict).is_some())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&Arc<str>, Verdict)> {
        self.counters().map(|(rule, verdict, _)| (rule, verdict))
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = (&Arc<str>, Verdict, &DecisionCounter)> {
        self.by_rule.iter().flat_map(|(rule, counters)| {
            [Verdict::Allow, Verdict::Deny]
                .into_iter()
                .filter_map(move |verdict| Some((rule, verdict, counters.counter(verdict)?)))
        })
    }
}
