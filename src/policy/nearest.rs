//! The nearest miss: of the allow rules the one that failed in the fewest conditions.
//!
//! It is looked for at every denial, by anybody who can prove an identity, so its cost is bounded: up to [`ALL`] allow
//! rules are all judged. Of more, those are judged whose `from` matches, those whose IDs stand next to the peer's in the
//! order of their texts, and the first of the files, [`SOME`] of each at most.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use super::facts::Facts;
use super::index::Order;
use super::rule::{Condition, Rule};

/// Up to so many allow rules are all judged.
const ALL: usize = 1024;
/// Of each kind so many are judged where there are more.
pub(super) const SOME: usize = 256;
/// Patterns of a rule whose distance to the peer's ID is taken.
const MAX_PATTERNS: usize = 16;

/// The allow rules by the patterns of their `from`, in the order of the patterns' texts.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Box<[(Arc<str>, u32)]>);

impl Neighbours {
    /// Of allow rules and their ranks; empty where all are judged anyway.
    pub(super) fn of<'r>(allow: impl Iterator<Item = (u32, &'r Rule)> + Clone) -> Self {
        if allow.clone().count() <= ALL {
            return Self::default();
        }
        let mut by_text: Vec<(Arc<str>, u32)> = Vec::new();
        for (rank, rule) in allow {
            let patterns = rule.from.iter().flat_map(|from| from.patterns());
            by_text.extend(patterns.map(|pattern| (Arc::clone(pattern.text()), rank)));
        }
        by_text.sort_unstable();
        Self(by_text.into())
    }

    /// The ranks of the rules on both sides of the peer's ID.
    fn around(&self, facts: &Facts<'_>) -> impl Iterator<Item = u32> {
        let text = facts.peer.to_string();
        let at = self.0.partition_point(|(other, _)| **other < *text);
        let from = at.saturating_sub(SOME / 2);
        let to = at.saturating_add(SOME / 2).min(self.0.len());
        let around = self.0.get(from..to).unwrap_or_default();
        around.iter().map(|(_, rank)| *rank)
    }
}

/// What makes one miss nearer than another: the fewest unmet conditions, then the closest ID, then the files' order.
type Miss = (usize, u32, u32);

/// The allow rule that came nearest. `matching` visits the ranks of rules whose `from` matches.
pub(super) fn find<'r>(
    order: &Order,
    rules: &'r [Rule],
    neighbours: &Neighbours,
    facts: &Facts<'_>,
    now: SystemTime,
    matching: impl FnOnce(&mut dyn FnMut(u32) -> ControlFlow<()>) -> ControlFlow<()>,
) -> Option<&'r Rule> {
    let mut best: Option<(Miss, &Rule)> = None;
    let mut judge = |rank: u32| {
        if order.is_allow(rank)
            && let Some(rule) = order.rule(rules, rank)
            && let Some(miss) = miss(rule, rank, facts, now, best.map(|(miss, _)| miss))
        {
            best = Some((miss, rule));
        }
    };
    let allow = order.allow(rules).map(|(rank, _)| rank);
    if allow.clone().count() <= ALL {
        allow.for_each(judge);
        return best.map(|(_, rule)| rule);
    }
    let mut left = SOME;
    // That it broke off is no matter.
    let _ = matching(&mut |rank| {
        judge(rank);
        left = left.saturating_sub(1);
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    neighbours.around(facts).for_each(&mut judge);
    allow.take(SOME).for_each(judge);
    best.map(|(_, rule)| rule)
}

/// How a rule missed, when that is nearer than `best`.
fn miss(rule: &Rule, rank: u32, facts: &Facts<'_>, now: SystemTime, best: Option<Miss>) -> Option<Miss> {
    let most = best.map_or(usize::MAX, |(unmet, ..)| unmet);
    let (mut count, mut by_id) = (0_usize, false);
    for unmet in rule.unmet(facts, now) {
        count = count.saturating_add(1);
        by_id |= unmet.condition() == Condition::From;
        if count > most {
            return None;
        }
    }
    let distance = if by_id { distance(rule, facts) } else { 0 };
    let miss = (count, distance, rank);
    best.is_none_or(|best| miss < best).then_some(miss)
}

/// How far the peer's ID is from the closest pattern of the rule.
fn distance(rule: &Rule, facts: &Facts<'_>) -> u32 {
    let patterns = rule
        .from
        .iter()
        .flat_map(|from| from.patterns())
        .take(MAX_PATTERNS);
    patterns
        .map(|pattern| pattern.distance(facts.peer))
        .min()
        // Only our own trust domain: farther than any path of it.
        .unwrap_or(u32::MAX)
}
