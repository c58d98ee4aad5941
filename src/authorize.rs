//! May this peer use this listener? The answer is a [`Permit`], which forwarding requires and only this module can
//! make, or a [`Denial`].

mod candidate;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::SystemTime;

pub use self::candidate::{Candidate, Diverged, Diverging, Listing};
use crate::config::settings::PolicyMode;
use crate::policy::Outcome;
pub use crate::policy::{Admission, Budget, CertificateFacts, Delta, DenyList, Facts, Policy, Rate};
use crate::record::{Nearest, Reason, Unmet, Verdict};
use crate::spiffe::{IdPattern, SpiffeId};

/// What is in force. Cloned to change a part of it; the whole is published at once.
#[derive(Clone, Debug)]
pub struct PolicyView {
    /// Counts policies from 1 up in this process; 0 is the policy that denies all, before any was read.
    pub generation: u64,
    /// The policy and the deny list.
    pub admission: Admission,
    /// Enforced or only reported.
    pub mode: PolicyMode,
    /// When the policy came into force.
    pub since: SystemTime,
    /// Counts deny lists from 1 up; 0 where none was named.
    pub deny_list_generation: u64,
    /// When the deny list came into force.
    pub deny_list_since: SystemTime,
    /// What is asked beside it.
    pub candidate: Option<Candidate>,
}

impl PolicyView {
    /// What is in force before any policy was read.
    #[must_use]
    pub fn deny_all(mode: PolicyMode, since: SystemTime) -> Self {
        Self {
            generation: 0,
            admission: Admission::deny_all(),
            mode,
            since,
            deny_list_generation: 0,
            deny_list_since: since,
            candidate: None,
        }
    }

    /// With another policy.
    #[must_use]
    pub fn with_policy(&self, policy: Arc<Policy>, generation: u64, since: SystemTime) -> Self {
        Self {
            generation,
            admission: Admission::new(policy, self.admission.deny_list.clone()),
            since,
            ..self.clone()
        }
    }

    /// With another deny list, for the candidate, too.
    #[must_use]
    pub fn with_deny_list(&self, deny_list: &Arc<DenyList>, generation: u64, since: SystemTime) -> Self {
        Self {
            admission: Admission::new(self.admission.policy.clone(), deny_list.clone()),
            deny_list_generation: generation,
            deny_list_since: since,
            candidate: self
                .candidate
                .as_ref()
                .map(|candidate| candidate.with_deny_list(deny_list.clone())),
            ..self.clone()
        }
    }

    /// With another candidate, of which nothing is known yet.
    #[must_use]
    pub fn with_candidate(&self, policy: Arc<Policy>, generation: u64, since: SystemTime) -> Self {
        let admission = Admission::new(policy, self.admission.deny_list.clone());
        Self {
            candidate: Some(Candidate::new(admission, generation, since)),
            ..self.clone()
        }
    }

    /// Applied in another mode.
    #[must_use]
    pub fn with_mode(&self, mode: PolicyMode) -> Self {
        Self { mode, ..self.clone() }
    }

    /// With no deny list, which is none that was named.
    #[must_use]
    pub fn without_deny_list(&self, since: SystemTime) -> Self {
        self.with_deny_list(&Arc::new(DenyList::empty()), 0, since)
    }

    /// With no candidate.
    #[must_use]
    pub fn without_candidate(&self) -> Self {
        Self {
            candidate: None,
            ..self.clone()
        }
    }

    /// Whether a peer of whom this was found is let in. The deny list and what a listener trusts hold in any mode.
    fn lets_in(&self, outcome: &Outcome<'_>) -> bool {
        let by_policy = matches!(outcome.reason, Reason::DenyRule | Reason::NoAllowRule);
        outcome.allow || (self.mode == PolicyMode::Audit && by_policy)
    }
}

/// That a peer may use a listener. Forwarding and the dialling of an application ask for one.
#[must_use = "a permit is the key to forwarding"]
#[derive(Debug)]
pub struct Permit {
    decision: Arc<Decision>,
}

/// That it may not.
#[derive(Debug)]
pub struct Denial {
    /// The terms.
    pub decision: Arc<Decision>,
    /// [`Reason::DenyList`], [`Reason::TrustDomainNotAccepted`], [`Reason::DenyRule`], [`Reason::NoAllowRule`],
    /// [`Reason::OverBudget`] or [`Reason::PeerNotExpected`].
    pub reason: Reason,
}

/// The terms of a permit or denial. By default none were set: authorization was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What policy said. `Deny` in a permit means that policy is only audited.
    pub verdict: Verdict,
    /// Why, when the verdict is `Deny`.
    pub reason: Option<Reason>,
    /// That in words, for the operator.
    pub detail: Option<Arc<str>>,
    /// The rule, entry of the deny list, budget, or `peer` pattern that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// What the rule or entry says of itself.
    pub description: Option<Arc<str>>,
    /// The audit rules that match.
    pub audited: Vec<Arc<str>>,
    /// The generation of the policy; 0 for an outbound listener, whose `peer` list is in the config.
    pub policy_generation: u64,
    /// What the candidate says, where it says something else.
    pub candidate: Option<Box<Diverging>>,
}

impl Permit {
    /// The terms.
    #[must_use]
    pub const fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }

    /// What becomes of it where a budget of the peer is used up.
    ///
    /// # Errors
    /// A [`Denial`], unless policy is only audited. What a policy that is only audited had denied already stays as it is.
    pub fn over_budget(self, view: &PolicyView, budget: &Budget, detail: String) -> Result<Self, Denial> {
        if self.decision.verdict == Verdict::Deny {
            return Ok(self);
        }
        let decision = Decision {
            rule: Some(budget.name.clone()),
            description: budget.description.clone(),
            audited: self.decision.audited.clone(),
            policy_generation: self.decision.policy_generation,
            candidate: self.decision.candidate.clone(),
            ..Decision::denied(Reason::OverBudget, detail)
        };
        if view.mode == PolicyMode::Audit {
            return Ok(Self {
                decision: Arc::new(decision),
            });
        }
        Err(Denial::of(decision))
    }
}

/// Decides about an inbound peer by what is in force, and notes where the candidate would decide otherwise.
///
/// # Errors
/// A [`Denial`], unless policy is only audited. The deny list and what a listener trusts hold in any mode.
pub fn inbound(view: &PolicyView, facts: &Facts<'_>, now: SystemTime) -> Result<Permit, Denial> {
    let Some(outcome) = ask(&view.admission, facts, now) else {
        return Err(Denial::of(undecided(view)));
    };
    let candidate = view
        .candidate
        .as_ref()
        .and_then(|candidate| candidate.ask(facts, &outcome, now));
    let decision = Arc::new(Decision {
        candidate,
        ..Decision::by_policy(view, &outcome, facts)
    });
    if view.lets_in(&outcome) {
        return Ok(Permit { decision });
    }
    Err(Denial {
        decision,
        reason: outcome.reason,
    })
}

/// What is in force says of an inbound peer that it would not let in: what is asked about a connection that is open.
/// Nothing is noted.
#[must_use]
pub fn refusal(view: &PolicyView, facts: &Facts<'_>, now: SystemTime) -> Option<Decision> {
    match ask(&view.admission, facts, now) {
        Some(outcome) if view.lets_in(&outcome) => None,
        Some(outcome) => Some(Decision::by_policy(view, &outcome, facts)),
        None => Some(undecided(view)),
    }
}

/// What the deny list in force says of a peer that it names.
#[must_use]
pub fn listed(view: &PolicyView, peer: &SpiffeId, certificate: &CertificateFacts<'_>) -> Option<Decision> {
    let entry = view.admission.deny_list.find(peer, Some(certificate))?;
    Some(Decision {
        rule: Some(Arc::clone(entry.name())),
        description: entry.description().cloned(),
        ..Decision::denied(Reason::DenyList, entry.describe(Some(certificate)))
    })
}

/// For a peer that no rule allows: the rule that comes nearest to it. Asked only when a denial is recorded, as it looks at
/// every rule.
#[must_use]
pub fn nearest(
    view: &PolicyView,
    facts: &Facts<'_>,
    decision: &Decision,
    now: SystemTime,
) -> Option<Box<Nearest>> {
    if decision.reason != Some(Reason::NoAllowRule) {
        return None;
    }
    let nearest = guarded(|| view.admission.nearest(facts, now))??;
    let unmet = nearest.unmet.into_iter().map(|unmet| Unmet {
        condition: unmet.condition,
        detail: crate::record::decision::bounded(&unmet.detail).as_ref().into(),
    });
    Some(Box::new(Nearest {
        rule: nearest.rule,
        unmet: unmet.collect(),
    }))
}

const UNDECIDED: &str = "the policy could not be asked: a defect of svidecar, which the log tells of";

/// Asks a policy. A panic in there is a defect, and must neither let anybody in nor end more than what it was about:
/// `None`, which is a denial.
fn ask<'a>(admission: &'a Admission, facts: &Facts<'_>, now: SystemTime) -> Option<Outcome<'a>> {
    guarded(|| admission.evaluate(facts, now))
}

fn guarded<T>(ask: impl FnOnce() -> T) -> Option<T> {
    // What is asked is immutable: nothing can be left half-changed.
    catch_unwind(AssertUnwindSafe(ask)).ok()
}

fn undecided(view: &PolicyView) -> Decision {
    Decision {
        policy_generation: view.generation,
        ..Decision::denied(Reason::Internal, UNDECIDED.to_owned())
    }
}

const fn verdict(allow: bool) -> Verdict {
    if allow { Verdict::Allow } else { Verdict::Deny }
}

/// The first of a listener's `peer` patterns that names `peer`.
#[must_use]
pub fn expected<'a>(patterns: &'a [IdPattern], peer: &SpiffeId) -> Option<&'a IdPattern> {
    patterns.iter().find(|pattern| pattern.matches(peer))
}

/// Decides about the server that answered an outbound listener's call: by the deny list in force, and by the `peer` list
/// of the listener, or of one of its destinations.
///
/// # Errors
/// A [`Denial`] when an entry of the deny list names it, or no `peer` pattern does.
pub fn outbound(
    view: &PolicyView,
    patterns: &[IdPattern],
    peer: &SpiffeId,
    certificate: &CertificateFacts<'_>,
) -> Result<Permit, Denial> {
    if let Some(decision) = listed(view, peer, certificate) {
        return Err(Denial::of(decision));
    }
    match expected(patterns, peer) {
        Some(pattern) => Ok(Permit {
            decision: Arc::new(Decision {
                verdict: Verdict::Allow,
                rule: Some(pattern.text().clone()),
                ..Decision::default()
            }),
        }),
        None => {
            let detail = format!("no `peer` pattern of this listener names `{peer}`");
            Err(Denial::of(Decision::denied(Reason::PeerNotExpected, detail)))
        }
    }
}

impl Denial {
    fn of(decision: Decision) -> Self {
        Self {
            reason: decision.reason.unwrap_or(Reason::Internal),
            decision: Arc::new(decision),
        }
    }
}

impl Decision {
    /// What the policy in force, or the deny list, answered; nothing of the candidate.
    fn by_policy(view: &PolicyView, outcome: &Outcome<'_>, facts: &Facts<'_>) -> Self {
        let audited = outcome.audited.iter();
        Self {
            verdict: verdict(outcome.allow),
            reason: (!outcome.allow).then_some(outcome.reason),
            detail: (!outcome.allow).then(|| outcome.detail(facts).into()),
            rule: outcome.by.name().cloned(),
            description: outcome.by.description().cloned(),
            audited: audited.map(|rule| Arc::clone(rule.name())).collect(),
            policy_generation: view.generation,
            candidate: None,
        }
    }

    fn denied(reason: Reason, detail: String) -> Self {
        Self {
            verdict: Verdict::Deny,
            reason: Some(reason),
            detail: Some(detail.into()),
            ..Self::default()
        }
    }
}
