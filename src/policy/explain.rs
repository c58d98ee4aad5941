//! Why a decision is as it is: the same conditions as in deciding, put into words for every rule.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::admission::{Admission, Decider, canonical};
use super::facts::Facts;
use super::rule::{Action, Rule, Unmet};
use crate::record::{Reason, Verdict};
use crate::yaml::counted;

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
            let unmet = unmet(rule, facts, now);
            let decided = decided_by.is_some_and(|by| std::ptr::eq(by, rule));
            RuleExplanation {
                name: Arc::clone(&rule.name),
                description: rule.description.clone(),
                action: rule.action,
                file: Arc::clone(&rule.file),
                line: rule.line,
                matches: unmet.is_empty(),
                decided,
                detail: unmet
                    .is_empty()
                    .then(|| matched(rule, facts, decided, outcome.reason))
                    .flatten(),
                unmet,
            }
        });
        Explanation {
            rules: rules.collect(),
            listener: facts.listener.to_owned(),
            peer: facts.peer.to_string(),
            source: canonical(facts.source).map(|source| source.to_string()),
            verdict: if outcome.allow {
                Verdict::Allow
            } else {
                Verdict::Deny
            },
            reason: (!outcome.allow).then_some(outcome.reason),
            detail: (!outcome.allow).then(|| outcome.detail(facts)),
            nearest: (outcome.reason == Reason::NoAllowRule)
                .then(|| self.nearest(facts, now))
                .flatten(),
            rule: outcome.by.name().cloned(),
            description: outcome.by.description().cloned(),
            audited: outcome
                .audited
                .iter()
                .map(|rule| Arc::clone(&rule.name))
                .collect(),
            expires: outcome.expires().map(crate::clock::rfc3339),
        }
    }

    /// The allow rule that failed in the fewest conditions, for a peer that nothing allowed.
    #[must_use]
    pub fn nearest(&self, facts: &Facts<'_>, now: SystemTime) -> Option<Nearest> {
        let allow = self
            .policy
            .rules()
            .iter()
            .filter(|rule| rule.action == Action::Allow);
        let (unmet, rule) = allow
            .map(|rule| (unmet(rule, facts, now), rule))
            .min_by_key(|(unmet, _)| unmet.len())?;
        Some(Nearest {
            rule: Arc::clone(&rule.name),
            description: rule.description.clone(),
            file: Arc::clone(&rule.file),
            line: rule.line,
            unmet,
        })
    }
}

fn unmet(rule: &Rule, facts: &Facts<'_>, now: SystemTime) -> Vec<UnmetCondition> {
    let unmet = rule.first_unmet(facts, now).into_iter();
    unmet
        .map(|unmet| UnmetCondition {
            condition: unmet.condition(),
            detail: unmet.describe(facts),
        })
        .collect()
}

/// What to add about a rule whose conditions all hold.
fn matched(rule: &Rule, facts: &Facts<'_>, decided: bool, reason: Reason) -> Option<String> {
    let why = match (rule.action, decided, reason) {
        (Action::Deny, true, _) if rule.source.is_some() && facts.source.is_none() => {
            "the peer has no known address, which a deny rule with `source` counts as matching"
        }
        (_, true, _) => return None,
        (Action::Audit, ..) => "audit rules mark and do not decide",
        (Action::Allow, false, Reason::DenyRule) => "matches, but a deny rule wins",
        (Action::Allow | Action::Deny, false, _) => "matches, but an earlier rule decided",
    };
    Some(why.to_owned())
}

impl Unmet<'_> {
    /// The field of the rule that does not hold.
    #[must_use]
    pub fn condition(&self) -> &'static str {
        match self {
            Self::To(_) => "to",
            Self::From(_) | Self::OwnTrustDomain => "from",
            Self::Source(_) | Self::NoAddress(_) => "source",
            Self::NotBefore(_) => "not_before",
            Self::Expires(_) => "expires",
        }
    }

    /// The condition in words, with the values on both sides.
    #[must_use]
    pub fn describe(&self, facts: &Facts<'_>) -> String {
        match self {
            Self::To(names) => format!("listener `{}` is not {}", facts.listener, any_of(names)),
            Self::From(patterns) => format!("`{}` is not {}", facts.peer, any_of(patterns)),
            Self::OwnTrustDomain => format!(
                "without `from`, only our own trust domain `{}` is allowed, and the peer is of `{}`",
                facts.own_trust_domain,
                facts.peer.trust_domain()
            ),
            Self::Source(networks) => match facts.source {
                Some(address) => format!("`{}` is not in {}", address.to_canonical(), any_of(networks)),
                None => format!("the peer's address is unknown, so not in {}", any_of(networks)),
            },
            Self::NoAddress(networks) => {
                format!(
                    "the peer's address is unknown, so not known to be in {}",
                    any_of(networks)
                )
            }
            Self::NotBefore(at) => format!("the rule begins at {}", crate::clock::rfc3339(*at)),
            Self::Expires(at) => format!("the rule ended at {}", crate::clock::rfc3339(*at)),
        }
    }
}

/// The most values of a condition that are written out.
const MAX_SHOWN: usize = 4;

fn any_of<T: fmt::Display>(values: &[T]) -> String {
    let shown: Vec<String> = values
        .iter()
        .take(MAX_SHOWN)
        .map(|value| format!("`{value}`"))
        .collect();
    let rest = values.len().saturating_sub(shown.len());
    match rest {
        0 => shown.join(" or "),
        rest => format!("{} or one of {rest} more", shown.join(", ")),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} to listener `{}`",
            self.verdict, self.peer, self.listener
        )?;
        if let Some(source) = &self.source {
            write!(f, " from {source}")?;
        }
        match &self.rule {
            Some(rule) => write!(f, "\ndecided by rule `{rule}`")?,
            None => write!(f, "\nno allow rule matches: what is not allowed is denied")?,
        }
        if let Some(expires) = &self.expires {
            write!(f, ", until {expires}")?;
        }
        write!(f, "\n\n{}", counted(self.rules.len(), "rule"))?;
        for rule in &self.rules {
            let mark = match (rule.decided, rule.matches) {
                (true, _) => "=>",
                (false, true) => " +",
                (false, false) => " -",
            };
            write!(
                f,
                "\n{mark} {} ({}, {}:{})",
                rule.name, rule.action, rule.file, rule.line
            )?;
            for UnmetCondition { condition, detail } in &rule.unmet {
                write!(f, "\n     {condition}: {detail}")?;
            }
            if let Some(detail) = &rule.detail {
                write!(f, "\n     {detail}")?;
            }
        }
        Ok(())
    }
}
