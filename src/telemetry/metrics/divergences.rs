//! Where a candidate policy decides otherwise than the one in force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::Sharded;
use super::listener::OTHER_RULE;
use super::sharded::{Counter, Slots};
use crate::record::Divergence;

/// Two policies of many rules could make more pairs than a scrape should carry. What comes on top is counted as
/// [`OTHER_RULE`].
const MAX_PAIRS: usize = 500;

/// The divergences from one candidate. A new candidate begins anew.
#[derive(Clone)]
pub(super) struct Divergences(Arc<Shared>);

struct Shared {
    family: Sharded<DivergenceLabels, Counter>,
    /// Every series there is: who counts one that is known takes no lock.
    known: ArcSwap<HashMap<DivergenceLabels, Counter>>,
    /// Serializes changes to `known`.
    change: Mutex<()>,
    no_rule: Arc<str>,
    other_rule: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DivergenceLabels {
    listener: Arc<str>,
    change: &'static str,
    rule: Arc<str>,
    candidate_rule: Arc<str>,
}

impl Divergences {
    pub(super) fn register(registry: &mut Registry, slots: Slots) -> Self {
        let family = Family::new_with_constructor(slots);
        registry.register(
            "policy_candidate_divergences",
            "Decisions that the candidate policy would make otherwise, by the rules that decide in both",
            family.clone(),
        );
        Self(Arc::new(Shared {
            family,
            known: ArcSwap::default(),
            change: Mutex::new(()),
            no_rule: "".into(),
            other_rule: OTHER_RULE.into(),
        }))
    }

    pub(super) fn count(
        &self,
        listener: &Arc<str>,
        change: Divergence,
        rule: Option<&Arc<str>>,
        candidate_rule: Option<&Arc<str>>,
    ) {
        let name = |rule: Option<&Arc<str>>| Arc::clone(rule.unwrap_or(&self.0.no_rule));
        let labels = DivergenceLabels {
            listener: Arc::clone(listener),
            change: change.as_str(),
            rule: name(rule),
            candidate_rule: name(candidate_rule),
        };
        let known = self.0.known.load();
        if let Some(counter) = known.get(&labels) {
            return counter.inc();
        }
        if known.len() < MAX_PAIRS {
            return self.add(labels).inc();
        }
        let others = DivergenceLabels {
            rule: Arc::clone(&self.0.other_rule),
            candidate_rule: Arc::clone(&self.0.other_rule),
            ..labels
        };
        match known.get(&others) {
            Some(counter) => counter.inc(),
            None => self.add(others).inc(),
        }
    }

    /// Makes a series, or the one that is counted in its place when another thread was quicker and there is no more room.
    fn add(&self, mut labels: DivergenceLabels) -> Counter {
        let shared = &*self.0;
        let _changing = shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = HashMap::clone(&shared.known.load());
        if known.len() >= MAX_PAIRS && !known.contains_key(&labels) {
            labels.rule = Arc::clone(&shared.other_rule);
            labels.candidate_rule = Arc::clone(&shared.other_rule);
        }
        let counter = shared.family.get_or_create_owned(&labels);
        if known.insert(labels, counter.clone()).is_none() {
            shared.known.store(Arc::new(known));
        }
        counter
    }

    pub(super) fn reset(&self) {
        let shared = &*self.0;
        let _changing = shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        // A count that another thread makes of a series at this moment is of the candidate before, and goes with it.
        for labels in shared.known.swap(Arc::default()).keys() {
            shared.family.remove(labels);
        }
    }
}
