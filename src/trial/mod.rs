//! Policies tried before they bite: expectations that must hold, what recorded decisions would change under a new
//! policy, and the rules that would admit what was seen.
//!
//! All three ask the evaluator that decides about connections, [`Admission::evaluate`], and nothing else. Pure: texts
//! and readers go in, reports come out; files are read by the commands.
//!
//! [`Admission::evaluate`]: crate::policy::Admission::evaluate

pub mod diff;
pub mod expectations;
pub mod judge;
pub mod junit;
pub mod recorded;
pub mod rules;
pub mod suggest;
#[cfg(test)]
mod tests;

use crate::policy::{Admission, Facts};
use crate::record::{Reason, Verdict};
use std::time::SystemTime;

/// Why authorization denies, as far as files decide.
pub const DENIALS: [Reason; 4] = [
    Reason::DenyList,
    Reason::TrustDomainNotAccepted,
    Reason::DenyRule,
    Reason::NoAllowRule,
];

/// What the evaluator answered, in words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Answer {
    /// Allow or deny.
    pub verdict: Verdict,
    /// The rule, or entry of the deny list, that decided.
    pub by: Option<String>,
    /// Where that stands, `file:line`.
    pub place: Option<String>,
    /// Why a peer is denied.
    pub reason: Option<Reason>,
    /// That in a sentence.
    pub detail: Option<String>,
}

impl Answer {
    /// Asks the evaluator.
    #[must_use]
    pub fn of(admission: &Admission, facts: &Facts<'_>, now: SystemTime) -> Self {
        let outcome = admission.evaluate(facts, now);
        Self {
            verdict: if outcome.allow {
                Verdict::Allow
            } else {
                Verdict::Deny
            },
            by: outcome.by.name().map(ToString::to_string),
            place: outcome.by.place().map(|(file, line)| format!("{file}:{line}")),
            reason: (!outcome.allow).then_some(outcome.reason),
            detail: (!outcome.allow).then(|| outcome.detail(facts)),
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.verdict)?;
        match (&self.by, &self.place) {
            (Some(by), Some(place)) if self.reason == Some(Reason::DenyList) => {
                write!(f, " by entry `{by}` of the deny list ({place})")
            }
            (Some(by), Some(place)) => write!(f, " by rule `{by}` ({place})"),
            _ => match &self.detail {
                Some(detail) => write!(f, ": {detail}"),
                None => Ok(()),
            },
        }
    }
}
