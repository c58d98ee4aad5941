//! What may be written and is probably not meant: rules that can never match or never decide, and trust domains that
//! nobody knows.
//!
//! What is warned of is so, whatever connects. Not all that is so is found: a rule is compared with others one by one, with
//! [`MAX_OTHERS`] at most, and all comparisons of a policy together look at [`MAX_WORK`] patterns and networks, so that
//! a policy of ten thousand rules loads as fast as it is read.

mod covers;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use self::covers::{Known, covers};
use super::compile::{Placed, Surroundings};
use super::ids::IdIndex;
use super::rule::{Action, Rule};
use crate::record::Direction;
use crate::spiffe::TrustDomain;
use crate::yaml::{Findings, one_of};

/// The most other rules that one is compared with.
const MAX_OTHERS: usize = 64;
/// The most patterns and networks that are looked at.
const MAX_WORK: usize = 200_000;

/// Warns of what the rules of a policy without errors hold.
pub(super) fn warn(rules: &[Placed], surroundings: Surroundings<'_>, findings: &mut [Findings]) {
    let known = Known::of(surroundings);
    let mut dead = HashSet::new();
    for placed in rules {
        let Some(findings) = findings.get_mut(placed.file) else {
            continue;
        };
        if let Some((why, help)) = never_matches(&placed.rule, &known) {
            dead.insert(&placed.rule.name);
            let message = format!("rule `{}` can never match: {why}", placed.rule.name);
            findings.warn(placed.place, message, help);
        }
    }
    warn_of_trust_domains(rules, surroundings, findings);
    warn_of_covered(rules, &dead, &known, findings);
}

fn never_matches(rule: &Rule, known: &Known<'_>) -> Option<(String, &'static str)> {
    if rule.listeners().is_some_and(|listeners| listeners.is_empty()) {
        let why = "no listener of `to` listens on a port of `ports`".to_owned();
        return Some((why, "one of the two says enough"));
    }
    if known.excludes_all_ids(rule) {
        let why = "`not_from` excludes everybody whom the rule is about".to_owned();
        return Some((why, "what `not_from` names must be a part of `from`"));
    }
    // A deny rule matches peers without an address in any case.
    if rule.action != Action::Deny && known.excludes_all_networks(rule) {
        let why = "`not_source` excludes every address that the rule is about".to_owned();
        return Some((why, "what `not_source` names must be a part of `source`"));
    }
    None
}

/// Warns of IDs that nobody can have who gets as far as a rule.
fn warn_of_trust_domains(rules: &[Placed], surroundings: Surroundings<'_>, findings: &mut [Findings]) {
    let (Some(listeners), Some(own)) = (surroundings.listeners, surroundings.own_trust_domain) else {
        return;
    };
    let inbound = || {
        listeners
            .iter()
            .filter(|listener| listener.direction == Direction::Inbound)
    };
    if inbound().any(|listener| listener.trust.is_none()) {
        return;
    }
    let everywhere: HashSet<&TrustDomain> = inbound()
        .flat_map(|listener| listener.trust.iter().flatten())
        .chain([own])
        .collect();
    for placed in rules {
        let rule = &placed.rule;
        let Some(findings) = findings.get_mut(placed.file) else {
            continue;
        };
        let lists = rule.from.iter().chain(&rule.not_from);
        let patterns = lists.flat_map(|list| list.patterns());
        let unknown = patterns
            .map(|pattern| pattern.trust_domain())
            .find(|domain| !everywhere.contains(domain));
        if let Some(unknown) = unknown {
            let mut known: Vec<&str> = everywhere.iter().map(|domain| domain.as_str()).collect();
            known.sort_unstable();
            let message = format!(
                "rule `{}` names trust domain `{unknown}`, which no inbound listener accepts",
                rule.name
            );
            let help = format!(
                "they accept {}; `trust` of a listener adds to that",
                one_of(&known)
            );
            findings.warn(placed.place, message, help);
        } else if rule.action == Action::Allow && accepted_nowhere(rule, surroundings, own) {
            let message = format!(
                "rule `{}` can never match: no listener that it is about accepts a trust domain of its `from`",
                rule.name
            );
            findings.warn(
                placed.place,
                message,
                "`trust` of a listener says what it accepts beside our own",
            );
        }
    }
}

/// Whether none of a rule's listeners accepts any of the trust domains in its `from`.
fn accepted_nowhere(rule: &Rule, surroundings: Surroundings<'_>, own: &TrustDomain) -> bool {
    let Some(from) = &rule.from else { return false };
    let listeners = surroundings.listeners.into_iter().flatten();
    let accepted: HashSet<&TrustDomain> = listeners
        .filter(|listener| listener.direction == Direction::Inbound && rule.is_about(&listener.name))
        .flat_map(|listener| listener.trust.iter().flatten())
        .chain([own])
        .collect();
    !from
        .patterns()
        .any(|pattern| accepted.contains(pattern.trust_domain()))
}

/// Rules by whom they are about, in the order of the files.
#[derive(Default)]
struct Others {
    by_id: IdIndex<Vec<u32>>,
    without_from: Vec<u32>,
}

impl Others {
    fn of(rules: &[Placed]) -> Self {
        let mut others = Self::default();
        for (at, Placed { rule, .. }) in (0..).zip(rules) {
            match &rule.from {
                _ if rule.action == Action::Audit => {}
                Some(from) => {
                    for pattern in from.patterns() {
                        others.by_id.entry(pattern).push(at);
                    }
                }
                None => others.without_from.push(at),
            }
        }
        others
    }

    /// The rules that may cover `rule`: those that are about the first of its IDs.
    fn around(&self, rule: &Rule, known: &Known<'_>) -> Vec<u32> {
        let first = match &rule.from {
            Some(from) => from.patterns().next().cloned(),
            None if rule.action == Action::Allow => known.own_pattern().cloned(),
            None => None,
        };
        let mut found: Vec<u32> = self.without_from.iter().copied().take(MAX_OTHERS).collect();
        if let Some(first) = first {
            let _: ControlFlow<()> = self.by_id.visit_around(&first, &mut |positions: &Vec<u32>| {
                found.extend(positions.iter().take(MAX_OTHERS));
                ControlFlow::Continue(())
            });
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(MAX_OTHERS);
        found
    }
}

/// Warns of rules that decide nothing because another does.
fn warn_of_covered(
    rules: &[Placed],
    dead: &HashSet<&Arc<str>>,
    known: &Known<'_>,
    findings: &mut [Findings],
) {
    let others = Others::of(rules);
    let mut work = MAX_WORK;
    for (at, placed) in (0..).zip(rules) {
        let rule = &placed.rule;
        if rule.action == Action::Audit || dead.contains(&rule.name) {
            continue;
        }
        for position in others.around(rule, known) {
            let Some(Placed { rule: other, .. }) = rules.get(position as usize) else {
                continue;
            };
            let wins = other.action == Action::Deny && rule.action == Action::Allow;
            let precedes = other.action == rule.action && position < at;
            if !(wins || precedes) || !covers(other, rule, known, &mut work) {
                continue;
            }
            let (name, by, (file, line)) = (&rule.name, &other.name, other.place());
            let (message, help) = if wins {
                (
                    format!(
                        "rule `{name}` allows nothing: deny rule `{by}` ({file}:{line}) matches all that it matches"
                    ),
                    "narrow the deny rule, with `not_from` for example, or take this rule out",
                )
            } else {
                (
                    format!(
                        "rule `{name}` never decides: rule `{by}` ({file}:{line}) comes first and matches all that it matches"
                    ),
                    "take one of the two out",
                )
            };
            if let Some(findings) = findings.get_mut(placed.file) {
                findings.warn(placed.place, message, help);
            }
            break;
        }
        if work == 0 {
            return;
        }
    }
}
