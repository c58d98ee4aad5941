//! Where a candidate policy decides otherwise than the one in force.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::listener::OTHER_RULE;
use crate::record::Divergence;

/// Two policies of many rules could make more pairs than a scrape should carry. What comes on top is counted as
/// [`OTHER_RULE`].
const MAX_PAIRS: usize = 500;

/// The divergences from one candidate. A new candidate begins anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Divergences {
    family: Family<DivergenceLabels, Counter>,
    known: Arc<Mutex<HashSet<DivergenceLabels>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DivergenceLabels {
    listener: Arc<str>,
    change: &'static str,
    rule: Arc<str>,
    candidate_rule: Arc<str>,
}

impl Divergences {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let divergences = Self::default();
        registry.register(
            "policy_candidate_divergences",
            "Decisions that the candidate policy would make otherwise, by the rules that decide in both",
            divergences.family.clone(),
        );
        divergences
    }

    pub(super) fn count(
        &self,
        listener: &Arc<str>,
        change: Divergence,
        rule: Option<&Arc<str>>,
        candidate_rule: Option<&Arc<str>>,
    ) {
        let name = |rule: Option<&Arc<str>>| rule.map_or_else(|| "".into(), Arc::clone);
        let mut labels = DivergenceLabels {
            listener: Arc::clone(listener),
            change: change.as_str(),
            rule: name(rule),
            candidate_rule: name(candidate_rule),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&labels) {
            if known.len() >= MAX_PAIRS {
                labels.rule = OTHER_RULE.into();
                labels.candidate_rule = OTHER_RULE.into();
            }
            known.insert(labels.clone());
        }
        // While locked, so that no reset comes between.
        self.family.get_or_create(&labels).inc();
    }

    pub(super) fn reset(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for labels in known.drain() {
            self.family.remove(&labels);
        }
    }
}
