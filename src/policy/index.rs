//! Finds the rules that may match: leaving out the others is all the index does, each candidate's conditions are judged
//! in full.
//!
//! Rules are numbered in the order in which they decide: deny rules first, then allow, then audit, each in the order of
//! the files. Every list holds such numbers in ascending order, so that the first rule of a list that matches is the one
//! of it that decides, and what cannot come before the best found so far is not looked at.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::SystemTime;

use ipnet::IpNet;

use super::facts::Facts;
use super::ids::IdIndex;
use super::networks::NetworkIndex;
use super::rule::{Action, Rule};

#[cfg(test)]
thread_local! {
    /// How many rules were judged in this thread: what the index is there to keep small.
    pub(super) static JUDGED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Up to so many rules with `source` are faster tried one by one than looked up.
const FEW: usize = 8;

/// The rules in the order in which they decide.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Positions in the order of the files.
    positions: Box<[u32]>,
    first_allow: u32,
    first_audit: u32,
}

/// The rules about one listener, or about all.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    by_id: IdIndex<Bucket>,
    /// Without `from`, which in an allow rule means our own trust domain.
    own: Bucket,
    /// Without `from`, which in other rules means everybody.
    anybody: Bucket,
}

/// The rules that one pattern of `from` leads to.
#[derive(Clone, Debug, Default)]
struct Bucket {
    /// Without `source`.
    anywhere: Ranks,
    /// With `source`.
    sourced: Ranks,
    /// Those by network, where there are more than a few.
    by_network: Option<Box<NetworkIndex<Ranks>>>,
}

/// Rules of one list.
#[derive(Clone, Debug, Default)]
struct Ranks {
    deciding: Vec<u32>,
    audit: Vec<u32>,
}

impl Order {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let count = |action| {
            let count = rules.iter().filter(|rule| rule.action == action).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let first_allow = count(Action::Deny);
        let mut positions: Vec<(Action, u32)> =
            (0..).zip(rules).map(|(at, rule)| (rule.action, at)).collect();
        // Stable: each action's rules keep the order of the files.
        positions.sort_by_key(|(action, _)| match action {
            Action::Deny => 0,
            Action::Allow => 1,
            Action::Audit => 2,
        });
        Self {
            positions: positions.into_iter().map(|(_, at)| at).collect(),
            first_allow,
            first_audit: first_allow.saturating_add(count(Action::Allow)),
        }
    }

    /// The rules with their ranks.
    pub(super) fn ranked<'r>(&'r self, rules: &'r [Rule]) -> impl Iterator<Item = (u32, &'r Rule)> + Clone {
        (0..)
            .zip(&self.positions)
            .filter_map(|(rank, at)| Some((rank, rules.get(*at as usize)?)))
    }

    /// The allow rules with their ranks.
    pub(super) fn allow<'r>(&'r self, rules: &'r [Rule]) -> impl Iterator<Item = (u32, &'r Rule)> + Clone {
        self.ranked(rules)
            .skip(self.first_allow as usize)
            .take(self.first_audit.saturating_sub(self.first_allow) as usize)
    }

    pub(super) const fn is_allow(&self, rank: u32) -> bool {
        rank >= self.first_allow && rank < self.first_audit
    }

    pub(super) fn rule<'r>(&self, rules: &'r [Rule], rank: u32) -> Option<&'r Rule> {
        let at = self.positions.get(rank as usize)?;
        rules.get(*at as usize)
    }
}

impl RuleIndex {
    /// Adds a rule. Ranks must come in ascending order.
    pub(super) fn add(&mut self, rank: u32, rule: &Rule) {
        match &rule.from {
            Some(from) => {
                for pattern in from.patterns() {
                    self.by_id.entry(pattern).add(rank, rule);
                }
            }
            None if rule.action == Action::Allow => self.own.add(rank, rule),
            None => self.anybody.add(rank, rule),
        }
    }

    /// To be called once all rules are added.
    pub(super) fn finish(&mut self, order: &Order, rules: &[Rule]) {
        let buckets = self.by_id.values_mut().into_iter();
        for bucket in buckets.chain([&mut self.own, &mut self.anybody]) {
            bucket.finish(order, rules);
        }
    }

    /// Visits the ranks of the deciding rules whose `from` matches, until one visit breaks off.
    pub(super) fn visit_ranks(
        &self,
        facts: &Facts<'_>,
        visit: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut visit_bucket = |bucket: &Bucket| {
            let ranks = bucket.anywhere.deciding.iter().chain(&bucket.sourced.deciding);
            ranks.copied().try_for_each(&mut *visit)
        };
        visit_bucket(&self.own)?;
        self.by_id.visit(facts.peer, &mut visit_bucket)
    }

    pub(super) fn search(&self, search: &mut Search<'_, '_>) {
        search.look(&self.anybody);
        if search.facts.peer.trust_domain() == search.facts.own_trust_domain {
            search.look(&self.own);
        }
        if !self.by_id.is_empty() {
            let peer = search.facts.peer;
            let _: ControlFlow<()> = self.by_id.visit(peer, &mut |bucket| {
                search.look(bucket);
                ControlFlow::Continue(())
            });
        }
    }
}

impl Bucket {
    fn add(&mut self, rank: u32, rule: &Rule) {
        match rule.source {
            Some(_) => self.sourced.add(rank, rule),
            None => self.anywhere.add(rank, rule),
        }
    }

    fn finish(&mut self, order: &Order, rules: &[Rule]) {
        let ranks = || self.sourced.deciding.iter().chain(&self.sourced.audit);
        if ranks().count() <= FEW {
            return;
        }
        let mut index: NetworkIndex<Ranks> = NetworkIndex::default();
        for rank in ranks() {
            let Some(rule) = order.rule(rules, *rank) else {
                continue;
            };
            for network in rule.source.iter().flat_map(|source| source.networks()) {
                index.entry(*network).add(*rank, rule);
            }
        }
        self.by_network = Some(Box::new(index));
    }
}

impl Ranks {
    /// A list names the same pattern or network twice at times.
    fn add(&mut self, rank: u32, rule: &Rule) {
        let list = match rule.action {
            Action::Allow | Action::Deny => &mut self.deciding,
            Action::Audit => &mut self.audit,
        };
        if list.last() != Some(&rank) {
            list.push(rank);
        }
    }
}

/// One look for the rule that decides and the audit rules that match.
#[derive(Debug)]
pub(super) struct Search<'p, 'f> {
    order: &'p Order,
    rules: &'p [Rule],
    facts: &'f Facts<'f>,
    address: Option<IpAddr>,
    now: SystemTime,
    /// The rank of the first rule that matches among those looked at.
    best: u32,
    audit: Vec<u32>,
}

impl<'p, 'f> Search<'p, 'f> {
    pub(super) fn new(order: &'p Order, rules: &'p [Rule], facts: &'f Facts<'f>, now: SystemTime) -> Self {
        Self {
            order,
            rules,
            facts,
            address: facts.source.map(|address| address.to_canonical()),
            now,
            best: order.first_audit,
            audit: Vec::new(),
        }
    }

    /// The rule that decides, and the audit rules in the order of the files.
    pub(super) fn finish(mut self) -> (Option<&'p Rule>, Vec<&'p Rule>) {
        // A rule is found by each of its patterns that match.
        self.audit.sort_unstable();
        self.audit.dedup();
        let audit = self
            .audit
            .iter()
            .filter_map(|rank| self.order.rule(self.rules, *rank));
        let decides = (self.best < self.order.first_audit)
            .then(|| self.order.rule(self.rules, self.best))
            .flatten();
        (decides, audit.collect())
    }

    fn look(&mut self, bucket: &Bucket) {
        self.look_at(&bucket.anywhere.deciding, &bucket.anywhere.audit);
        let sourced = &bucket.sourced;
        match (self.address, &bucket.by_network) {
            (Some(address), Some(index)) => {
                let _: ControlFlow<()> = index.visit(IpNet::from(address), &mut |ranks: &Ranks| {
                    self.look_at(&ranks.deciding, &ranks.audit);
                    ControlFlow::Continue(())
                });
            }
            (Some(_), None) => self.look_at(&sourced.deciding, &sourced.audit),
            // Without an address none but deny rules match.
            (None, _) => {
                let allow = sourced
                    .deciding
                    .partition_point(|rank| *rank < self.order.first_allow);
                self.look_at(sourced.deciding.get(..allow).unwrap_or_default(), &[]);
            }
        }
    }

    fn look_at(&mut self, deciding: &[u32], audit: &[u32]) {
        for rank in deciding {
            if *rank >= self.best {
                break;
            }
            if self.matches(*rank) {
                self.best = *rank;
                break;
            }
        }
        for rank in audit {
            if self.matches(*rank) {
                self.audit.push(*rank);
            }
        }
    }

    fn matches(&self, rank: u32) -> bool {
        #[cfg(test)]
        JUDGED.with(|judged| judged.set(judged.get().saturating_add(1)));
        self.order
            .rule(self.rules, rank)
            .is_some_and(|rule| rule.matches(self.facts, self.now))
    }
}
