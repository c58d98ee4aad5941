//! Deciding: one function of a policy, the facts of a connection, and the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::budget::Budget;
use super::facts::Facts;
use super::rule::{Action, Rule};
use crate::config::ListenerName;
use crate::record::Direction;
use crate::spiffe::{SpiffeId, TrustDomain};

/// A compiled policy. Immutable: a change makes a new one.
#[derive(Debug)]
pub struct Policy {
    /// In the order of the files.
    rules: Box<[Rule]>,
    by_listener: HashMap<Arc<str>, Index>,
    /// For a listener that no rule names: the rules that are about all.
    any_listener: Index,
    /// What each inbound listener accepts beside our own trust domain; `None` inside: anything. `None` for a policy
    /// that was compiled without knowing the listeners.
    trust: Option<HashMap<Arc<str>, Option<Box<[TrustDomain]>>>>,
    content_hash: Box<str>,
}

/// The rules that may match at one listener, as ascending positions in `Policy::rules`.
#[derive(Debug, Default)]
struct Index {
    /// Rules whose `from` holds nothing but exact IDs, under each of these.
    exact: HashMap<SpiffeId, Vec<usize>>,
    /// All others.
    scan: Vec<usize>,
}

impl Policy {
    /// The policy that stands in until one is loaded: nothing is admitted.
    #[must_use]
    pub fn deny_all() -> Self {
        Self::new(Vec::new(), None, String::new())
    }

    /// Indexes rules that were checked.
    pub(super) fn new(rules: Vec<Rule>, listeners: Option<&[ListenerName]>, content_hash: String) -> Self {
        let mut by_listener: HashMap<Arc<str>, Index> = HashMap::new();
        for name in rules.iter().filter_map(|rule| rule.to.as_deref()).flatten() {
            by_listener.entry(Arc::clone(name)).or_default();
        }
        let mut any_listener = Index::default();
        for (position, rule) in rules.iter().enumerate() {
            match &rule.to {
                None => {
                    any_listener.add(position, rule);
                    by_listener
                        .values_mut()
                        .for_each(|index| index.add(position, rule));
                }
                Some(names) => {
                    for name in names {
                        if let Some(index) = by_listener.get_mut(name) {
                            index.add(position, rule);
                        }
                    }
                }
            }
        }
        Self {
            rules: rules.into(),
            by_listener,
            any_listener,
            trust: listeners.map(trust),
            content_hash: content_hash.into(),
        }
    }

    /// The rule that decides and the audit rules that match.
    pub(super) fn decide(&self, facts: &Facts<'_>, now: SystemTime) -> (Option<&Rule>, Vec<&Rule>) {
        let mut allowed: Option<&Rule> = None;
        let mut denied: Option<&Rule> = None;
        let mut audited = Vec::new();
        for rule in self.candidates(facts) {
            let earlier = match rule.action {
                Action::Allow => &mut allowed,
                Action::Deny => &mut denied,
                Action::Audit => {
                    if rule.first_unmet(facts, now).is_none() {
                        audited.push(rule);
                    }
                    continue;
                }
            };
            if earlier.is_none() && rule.first_unmet(facts, now).is_none() {
                *earlier = Some(rule);
            }
        }
        (denied.or(allowed), audited)
    }

    /// What the listener accepts beside our own trust domain, when the peer's is neither.
    pub(super) fn not_trusted(&self, facts: &Facts<'_>) -> Option<&[TrustDomain]> {
        let domain = facts.peer.trust_domain();
        if domain == facts.own_trust_domain {
            return None;
        }
        let accepted = self.trust(facts.listener)?;
        (!accepted.contains(domain)).then_some(accepted)
    }

    /// The trust domains that a listener accepts beside our own; `None` when that is not known, and any is accepted.
    #[must_use]
    pub fn trust(&self, listener: &str) -> Option<&[TrustDomain]> {
        match self.trust.as_ref()?.get(listener) {
            Some(trust) => trust.as_deref(),
            // No listener that the policy was compiled for: it accepts nobody in particular.
            None => Some(&[]),
        }
    }

    /// The budgets of a peer at a listener, in the order of the files.
    pub fn budgets(&self, _listener: &str, _peer: &SpiffeId) -> impl Iterator<Item = &Arc<Budget>> {
        std::iter::empty()
    }

    /// The next instant at which a rule begins or ends, and decisions may change without a new policy.
    #[must_use]
    pub fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        self.rules
            .iter()
            .flat_map(|rule| [rule.not_before, rule.expires])
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// SHA-256 over the names and contents of the files, in hexadecimal; empty for [`Policy::deny_all`].
    #[must_use]
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// The rules in the order of the files.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules that may match, in the order of the files. Leaving out the others is all the index does: each
    /// candidate's conditions are judged in full.
    fn candidates<'p>(&'p self, facts: &Facts<'_>) -> impl Iterator<Item = &'p Rule> {
        let index = self.by_listener.get(facts.listener).unwrap_or(&self.any_listener);
        let mut exact = index
            .exact
            .get(facts.peer)
            .into_iter()
            .flatten()
            .copied()
            .peekable();
        let mut scan = index.scan.iter().copied().peekable();
        std::iter::from_fn(move || match (exact.peek(), scan.peek()) {
            (Some(a), Some(b)) if a < b => exact.next(),
            (Some(_), None) => exact.next(),
            _ => scan.next(),
        })
        .filter_map(|position| self.rules.get(position))
    }
}

impl Index {
    fn add(&mut self, position: usize, rule: &Rule) {
        match &rule.from {
            Some(from) if from.patterns().is_empty() => {
                for id in from.exact() {
                    self.exact.entry(id.clone()).or_default().push(position);
                }
            }
            _ => self.scan.push(position),
        }
    }
}

fn trust(listeners: &[ListenerName]) -> HashMap<Arc<str>, Option<Box<[TrustDomain]>>> {
    listeners
        .iter()
        .filter(|listener| listener.direction == Direction::Inbound)
        .map(|listener| {
            let trust = listener.trust.as_deref().map(Box::from);
            (Arc::clone(&listener.name), trust)
        })
        .collect()
}
