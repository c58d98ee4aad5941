//! Why a decision is as it is: the same conditions as in deciding, put into words for every rule.

mod display;
mod words;

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::admission::{Admission, Decider};
use super::facts::Facts;
use super::rule::{Action, Rule};
use crate::record::{Reason, Verdict};

/// A decision and what every rule said to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The listener asked about.
    pub listener: String,
    /// The peer asked about.
    pub peer: String,
    /// Its address, where one was given.
    pub source: Option<String>,
    /// What authorization says.
    pub verdict: Verdict,
    /// The rule or the entry of the deny list that decided.
    pub rule: Option<Arc<str>>,
    /// What it says of itself.
    pub description: Option<Arc<str>>,
    /// The file it stands in.
    pub file: Option<Arc<str>>,
    /// The line it begins in.
    pub line: Option<u32>,
    /// Why the peer is denied.
    pub reason: Option<Reason>,
    /// That in words.
    pub detail: Option<String>,
    /// Where nothing allowed the peer: the allow rule that came nearest.
    pub nearest: Option<Nearest>,
    /// The audit rules that match.
    pub audited: Vec<Arc<str>>,
    /// When the rule that admits the peer ends (RFC 3339).
    pub expires: Option<String>,
    /// The trust domains that the listener accepts, our own first; absent when that is not known.
    pub trust: Option<Vec<String>>,
    /// The budgets that the peer has, in the order of the files.
    pub budgets: Vec<BudgetExplanation>,
    /// Every entry of the deny list, in the order of its file.
    pub deny_list: Vec<EntryExplanation>,
    /// Every rule, in the order of the files.
    pub rules: Vec<RuleExplanation>,
}

/// The allow rule that failed in the fewest conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// Its name.
    pub rule: Arc<str>,
    /// What it says of itself.
    pub description: Option<Arc<str>>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line it begins in.
    pub line: u32,
    /// Every condition that does not hold.
    pub unmet: Vec<UnmetCondition>,
}

/// A condition of a rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnmetCondition {
    /// The field of the rule.
    pub condition: &'static str,
    /// The values on both sides, in words.
    pub detail: String,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleExplanation {
    /// Its name.
    pub name: Arc<str>,
    /// What it says of itself.
    pub description: Option<Arc<str>>,
    /// What it does with what it matches.
    pub action: Action,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line it begins in.
    pub line: u32,
    /// Whether all its conditions hold.
    pub matches: bool,
    /// Whether it decided.
    pub decided: bool,
    /// Every condition that does not hold, in the order of the documentation.
    pub unmet: Vec<UnmetCondition>,
    /// Of a rule that matches: why it did not decide, or what is to be known of its deciding.
    pub detail: Option<String>,
}

/// What one entry of the deny list said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryExplanation {
    /// Its name.
    pub name: Arc<str>,
    /// What it says of itself.
    pub description: Option<Arc<str>>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line it begins in.
    pub line: u32,
    /// What it goes by: `ids`, `serials`, `keys` or `issued_before`.
    pub by: &'static str,
    /// Whether it hits.
    pub hits: bool,
}

/// A budget that the peer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetExplanation {
    /// Its name.
    pub name: Arc<str>,
    /// What it says of itself.
    pub description: Option<Arc<str>>,
    /// The most connections at once.
    pub connections: Option<u32>,
    /// The most new connections a second.
    pub connections_per_second: Option<u32>,
    /// The most new connections that come at once.
    pub burst: Option<u32>,
    /// The most payload bytes a second.
    pub bytes_per_second: Option<u64>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line it begins in.
    pub line: u32,
}

impl Admission {
    /// Decides as [`Admission::evaluate`] does, and says for every rule what it had to do with it.
    #[must_use]
    pub fn explain(&self, facts: &Facts<'_>, now: SystemTime) -> Explanation {
        let outcome = self.evaluate(facts, now);
        let decided_by = match outcome.by {
            Decider::Rule(rule) => Some(rule),
            _ => None,
        };
        let rules = self.policy.rules().iter().map(|rule| {
            let decided = decided_by.is_some_and(|by| std::ptr::eq(by, rule));
            explain_rule(rule, facts, now, decided, outcome.reason)
        });
        let entries = self.deny_list.entries().iter().map(|entry| EntryExplanation {
            name: Arc::clone(entry.name()),
            description: entry.description().cloned(),
            file: Arc::clone(entry.place().0),
            line: entry.place().1,
            by: entry.condition(),
            hits: entry.hits(facts.peer, facts.certificate.as_ref()),
        });
        let place = outcome.by.place();
        Explanation {
            listener: facts.listener.to_owned(),
            peer: facts.peer.to_string(),
            source: facts.source.map(|source| source.to_canonical().to_string()),
            verdict: if outcome.allow {
                Verdict::Allow
            } else {
                Verdict::Deny
            },
            rule: outcome.by.name().cloned(),
            description: outcome.by.description().cloned(),
            file: place.map(|(file, _)| Arc::clone(file)),
            line: place.map(|(_, line)| line),
            reason: (!outcome.allow).then_some(outcome.reason),
            detail: (!outcome.allow).then(|| outcome.detail(facts)),
            nearest: (outcome.reason == Reason::NoAllowRule)
                .then(|| self.nearest(facts, now))
                .flatten(),
            audited: outcome
                .audited
                .iter()
                .map(|rule| Arc::clone(&rule.name))
                .collect(),
            expires: outcome.expires().map(crate::clock::rfc3339),
            trust: self.policy.trust(facts.listener).map(|beside_own| {
                let own = std::iter::once(facts.own_trust_domain);
                own.chain(beside_own).map(ToString::to_string).collect()
            }),
            budgets: self.budgets_of(facts),
            deny_list: entries.collect(),
            rules: rules.collect(),
        }
    }

    fn budgets_of(&self, facts: &Facts<'_>) -> Vec<BudgetExplanation> {
        let budgets = self.policy.budgets(facts.listener, facts.peer);
        budgets
            .map(|budget| BudgetExplanation {
                name: Arc::clone(&budget.name),
                description: budget.description.clone(),
                connections: budget.connections,
                connections_per_second: budget.connections_per_second.map(|rate| rate.per_second),
                burst: budget.connections_per_second.map(|rate| rate.burst),
                bytes_per_second: budget.bytes_per_second,
                file: Arc::clone(&budget.file),
                line: budget.line,
            })
            .collect()
    }
}

impl Nearest {
    pub(super) fn of(rule: &Rule, facts: &Facts<'_>, now: SystemTime) -> Self {
        Self {
            rule: Arc::clone(&rule.name),
            description: rule.description.clone(),
            file: Arc::clone(&rule.file),
            line: rule.line,
            unmet: unmet(rule, facts, now),
        }
    }
}

fn explain_rule(
    rule: &Rule,
    facts: &Facts<'_>,
    now: SystemTime,
    decided: bool,
    reason: Reason,
) -> RuleExplanation {
    let unmet = unmet(rule, facts, now);
    let detail = match unmet.as_slice() {
        [] => words::matched(rule, facts, decided, reason),
        _ => None,
    };
    RuleExplanation {
        name: Arc::clone(&rule.name),
        description: rule.description.clone(),
        action: rule.action,
        file: Arc::clone(&rule.file),
        line: rule.line,
        matches: unmet.is_empty(),
        decided,
        unmet,
        detail,
    }
}

fn unmet(rule: &Rule, facts: &Facts<'_>, now: SystemTime) -> Vec<UnmetCondition> {
    rule.unmet(facts, now)
        .map(|unmet| UnmetCondition {
            condition: unmet.condition().as_str(),
            detail: unmet.describe(facts),
        })
        .collect()
}
