//! A compiled policy: rules, budgets, and what each listener trusts, found by listener and peer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use foldhash::HashMap;

use super::budget::{Budget, CompiledBudget};
use super::facts::Facts;
use super::ids::IdIndex;
use super::index::{Order, RuleIndex, Search};
use super::nearest::{self, Neighbours};
use super::rule::Rule;
use crate::config::ListenerName;
use crate::record::Direction;
use crate::spiffe::{SpiffeId, TrustDomain};

/// A compiled policy. Immutable: a change makes a new one.
#[derive(Debug, Default)]
pub struct Policy {
    /// In the order of the files.
    rules: Box<[Rule]>,
    order: Order,
    /// The rules about all listeners.
    everywhere: RuleIndex,
    /// What is said of one listener.
    listeners: HashMap<Arc<str>, Here>,
    /// Whether `listeners` holds all inbound ones that there are.
    knows_listeners: bool,
    neighbours: Neighbours,
    budgets: Budgets,
    content_hash: Box<str>,
}

/// What is said of one listener.
#[derive(Debug, Default)]
struct Here {
    /// The rules that name it.
    rules: RuleIndex,
    /// The trust domains it accepts beside our own; `None` when that is not known.
    trust: Option<Box<[TrustDomain]>>,
}

#[derive(Debug, Default)]
struct Budgets {
    /// In the order of the files.
    list: Box<[CompiledBudget]>,
    /// By `from`, as ascending positions in `list`.
    by_id: IdIndex<Vec<u32>>,
    /// Without `from`.
    anybody: Vec<u32>,
}

/// What a policy says to some facts.
#[derive(Debug)]
pub(super) struct Decided<'p> {
    /// What the listener accepts beside our own trust domain, when the peer's is neither.
    pub(super) not_trusted: Option<&'p [TrustDomain]>,
    /// The first matching deny rule, else the first matching allow rule.
    pub(super) rule: Option<&'p Rule>,
    /// The audit rules that match.
    pub(super) audited: Vec<&'p Rule>,
}

impl Policy {
    /// The policy that stands in until one is loaded: nothing is admitted.
    #[must_use]
    pub fn deny_all() -> Self {
        Self {
            // No listener trusts anybody beside our own trust domain: what is not known must not help.
            knows_listeners: true,
            ..Self::default()
        }
    }

    /// Indexes rules and budgets that were checked.
    pub(super) fn new(
        rules: Vec<Rule>,
        budgets: Vec<CompiledBudget>,
        listeners: Option<&[ListenerName]>,
        content_hash: String,
    ) -> Self {
        let order = Order::of(&rules);
        let mut here: HashMap<Arc<str>, Here> = HashMap::default();
        for listener in listeners.into_iter().flatten() {
            if listener.direction == Direction::Inbound {
                here.entry(Arc::clone(&listener.name)).or_default().trust =
                    listener.trust.as_deref().map(Box::from);
            }
        }
        let mut everywhere = RuleIndex::default();
        for (rank, rule) in order.ranked(&rules) {
            match rule.listeners() {
                None => everywhere.add(rank, rule),
                Some(names) => {
                    for name in names {
                        here.entry(Arc::clone(name)).or_default().rules.add(rank, rule);
                    }
                }
            }
        }
        everywhere.finish(&order, &rules);
        here.values_mut()
            .for_each(|here| here.rules.finish(&order, &rules));
        let neighbours = Neighbours::of(order.allow(&rules));
        Self {
            rules: rules.into(),
            order,
            neighbours,
            everywhere,
            listeners: here,
            knows_listeners: listeners.is_some(),
            budgets: Budgets::new(budgets),
            content_hash: content_hash.into(),
        }
    }

    /// What the policy says. Allocates nothing unless an audit rule matches.
    pub(super) fn decide(&self, facts: &Facts<'_>, now: SystemTime) -> Decided<'_> {
        let here = self.listeners.get(facts.listener);
        let mut search = Search::new(&self.order, &self.rules, facts, now);
        self.everywhere.search(&mut search);
        if let Some(here) = here {
            here.rules.search(&mut search);
        }
        let (rule, audited) = search.finish();
        let domain = facts.peer.trust_domain();
        let not_trusted = (domain != facts.own_trust_domain)
            .then(|| self.accepted(here).filter(|accepted| !accepted.contains(domain)))
            .flatten();
        Decided {
            not_trusted,
            rule,
            audited,
        }
    }

    /// The allow rule that came nearest to matching.
    pub(super) fn nearest(&self, facts: &Facts<'_>, now: SystemTime) -> Option<&Rule> {
        nearest::find(&self.order, &self.rules, &self.neighbours, facts, now, |visit| {
            // That a rule is about another listener is one unmet condition, too.
            let here = self.listeners.get(facts.listener).into_iter();
            let others = self.listeners.values().take(nearest::SOME);
            let by_listener = here.chain(others).map(|here| &here.rules);
            let mut all = by_listener.chain([&self.everywhere]);
            all.try_for_each(|index| index.visit_ranks(facts, visit))
        })
    }

    /// The trust domains that a listener accepts beside our own; `None` when that is not known, and any is accepted.
    #[must_use]
    pub fn trust(&self, listener: &str) -> Option<&[TrustDomain]> {
        self.accepted(self.listeners.get(listener))
    }

    fn accepted<'p>(&'p self, here: Option<&'p Here>) -> Option<&'p [TrustDomain]> {
        match here {
            Some(here) => here.trust.as_deref(),
            // No listener that the policy was compiled for: it accepts nobody in particular.
            None if self.knows_listeners => Some(&[]),
            None => None,
        }
    }

    /// Whether every listener accepts the same trust domains by another policy.
    pub(super) fn trusts_as(&self, other: &Self) -> bool {
        let names = self.listeners.keys().chain(other.listeners.keys());
        self.knows_listeners == other.knows_listeners
            && names
                .into_iter()
                .all(|name| self.trust(name) == other.trust(name))
    }

    /// The budgets of a peer at a listener, in the order of the files.
    pub fn budgets(&self, listener: &str, peer: &SpiffeId) -> impl Iterator<Item = &Arc<Budget>> {
        self.budgets.of(listener, peer).into_iter()
    }

    /// The budgets at a listener, whoever the peer is, in the order of the files.
    pub fn budgets_at(&self, listener: &str) -> impl Iterator<Item = &Arc<Budget>> {
        let at = self
            .budgets
            .list
            .iter()
            .filter(move |compiled| compiled.is_about(listener));
        at.map(|compiled| &compiled.budget)
    }

    /// All budgets, in the order of the files.
    pub fn all_budgets(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.budgets.list.iter().map(|compiled| &compiled.budget)
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
}

impl Budgets {
    fn new(list: Vec<CompiledBudget>) -> Self {
        let mut by_id: IdIndex<Vec<u32>> = IdIndex::default();
        let mut anybody = Vec::new();
        for (at, budget) in (0..).zip(&list) {
            match &budget.from {
                Some(from) => {
                    for pattern in from.patterns() {
                        by_id.entry(pattern).push(at);
                    }
                }
                None => anybody.push(at),
            }
        }
        Self {
            list: list.into(),
            by_id,
            anybody,
        }
    }

    fn of(&self, listener: &str, peer: &SpiffeId) -> Vec<&Arc<Budget>> {
        let mut found = self.anybody.clone();
        let _: ControlFlow<()> = self.by_id.visit(peer, &mut |positions: &Vec<u32>| {
            found.extend(positions);
            ControlFlow::Continue(())
        });
        found.sort_unstable();
        found.dedup();
        found
            .into_iter()
            .filter_map(|at| self.list.get(at as usize))
            .filter(|compiled| compiled.is_about(listener))
            .map(|compiled| &compiled.budget)
            .collect()
    }
}
