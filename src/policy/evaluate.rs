//! Deciding: one function of a policy, the facts of a connection, and the time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::rule::{Action, Rule};
use crate::record::Reason;
use crate::spiffe::{SpiffeId, TrustDomain};

/// What is known of a connection when it asks to be admitted. The peer's ID is one that TLS has verified.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The inbound listener that it reached.
    pub listener: &'a str,
    /// Who it is.
    pub peer: &'a SpiffeId,
    /// Where it comes from; `None` on a unix socket.
    pub source: Option<IpAddr>,
    /// The trust domain of our own SVID.
    pub own_trust_domain: &'a TrustDomain,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Whether the peer is admitted.
    pub allow: bool,
    /// The rule that decided: the first matching deny rule, else the first matching allow rule.
    pub rule: Option<Arc<str>>,
    /// Why not, when `allow` is false: [`Reason::DenyRule`] or [`Reason::NoAllowRule`]. [`Reason::Finished`] otherwise.
    pub reason: Reason,
    /// The audit rules that match. Usually empty, which allocates nothing.
    pub audited: Vec<Arc<str>>,
    /// When the rule that admitted the peer ends. Ask again then: another may admit it still.
    pub expires: Option<SystemTime>,
}

/// A compiled policy. Immutable: a change makes a new one.
#[derive(Debug)]
pub struct Policy {
    /// In the order of the files.
    rules: Box<[Rule]>,
    by_listener: HashMap<Arc<str>, Index>,
    /// For a listener that no rule names: the rules that are about all.
    any_listener: Index,
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
        Self::new(Vec::new(), String::new())
    }

    /// Indexes rules that were checked.
    pub(super) fn new(rules: Vec<Rule>, content_hash: String) -> Self {
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
            content_hash: content_hash.into(),
        }
    }

    /// Decides about a connection: denied unless an allow rule matches and no deny rule does.
    pub fn evaluate(&self, facts: &Facts<'_>, now: SystemTime) -> Decision {
        let mut allowed: Option<&Rule> = None;
        let mut denied: Option<&Rule> = None;
        let mut audited = Vec::new();
        for rule in self.candidates(facts) {
            let earlier = match rule.action {
                Action::Allow => &mut allowed,
                Action::Deny => &mut denied,
                Action::Audit => {
                    if rule.first_unmet(facts, now).is_none() {
                        audited.push(Arc::clone(&rule.name));
                    }
                    continue;
                }
            };
            if earlier.is_none() && rule.first_unmet(facts, now).is_none() {
                *earlier = Some(rule);
            }
        }
        let (allow, rule, reason) = match (denied, allowed) {
            (Some(rule), _) => (false, Some(rule), Reason::DenyRule),
            (None, Some(rule)) => (true, Some(rule), Reason::Finished),
            (None, None) => (false, None, Reason::NoAllowRule),
        };
        Decision {
            allow,
            rule: rule.map(|rule| Arc::clone(&rule.name)),
            reason,
            audited,
            expires: rule.filter(|_| allow).and_then(|rule| rule.expires),
        }
    }

    /// The next instant at which a rule ends, and decisions may change without a new policy.
    #[must_use]
    pub fn next_expiry(&self, now: SystemTime) -> Option<SystemTime> {
        self.rules
            .iter()
            .filter_map(|rule| rule.expires)
            .filter(|expires| *expires > now)
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
            Some(from) if from.patterns.is_empty() => {
                for id in &from.exact {
                    self.exact.entry(id.clone()).or_default().push(position);
                }
            }
            _ => self.scan.push(position),
        }
    }
}
