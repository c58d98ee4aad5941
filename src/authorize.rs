//! May this peer use this listener? The answer is a [`Permit`], which forwarding requires and only this module can
//! make, or a [`Denial`].

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::settings::{ListenerKind, PolicyMode};
pub use crate::policy::{Admission, CertificateFacts, Facts, Nearest};
use crate::record::{Reason, Verdict};
use crate::spiffe::{IdPattern, SpiffeId};

/// What is in force.
#[derive(Debug)]
pub struct PolicyView {
    /// Counts policies from 1 up in this process; 0 is the policy that denies all, before any was read.
    pub generation: u64,
    /// The policy and the deny list.
    pub admission: Admission,
    /// Enforced or only reported.
    pub mode: PolicyMode,
    /// When it came into force.
    pub since: SystemTime,
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
        }
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
    /// [`Reason::DenyList`], [`Reason::TrustDomainNotAccepted`], [`Reason::DenyRule`], [`Reason::NoAllowRule`] or
    /// [`Reason::PeerNotExpected`].
    pub reason: Reason,
    /// For the operator.
    pub detail: String,
    /// With [`Reason::NoAllowRule`]: the allow rule that came nearest.
    pub nearest: Option<Nearest>,
}

/// The terms of a permit or denial. By default none were set: authorization was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What policy said. `Deny` in a permit means that policy is only audited.
    pub verdict: Verdict,
    /// Why, when the verdict is `Deny`.
    pub reason: Option<Reason>,
    /// The rule, entry of the deny list, or `peer` pattern that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// What the rule or entry says of itself.
    pub description: Option<Arc<str>>,
    /// The audit rules that match.
    pub audited: Vec<Arc<str>>,
    /// The generation of the policy; 0 for an outbound listener, whose `peer` list is in the config.
    pub policy_generation: u64,
}

impl Permit {
    /// The terms.
    #[must_use]
    pub const fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }
}

/// Decides about an inbound peer by what is in force.
///
/// # Errors
/// A [`Denial`], unless policy is only audited. The deny list and what a listener trusts hold in any mode.
pub fn inbound(view: &PolicyView, facts: &Facts<'_>, now: SystemTime) -> Result<Permit, Denial> {
    let outcome = view.admission.evaluate(facts, now);
    let reason = (!outcome.allow).then_some(outcome.reason);
    let decision = Arc::new(Decision {
        verdict: if outcome.allow {
            Verdict::Allow
        } else {
            Verdict::Deny
        },
        reason,
        rule: outcome.by.name().cloned(),
        description: outcome.by.description().cloned(),
        audited: outcome
            .audited
            .iter()
            .map(|rule| Arc::clone(rule.name()))
            .collect(),
        policy_generation: view.generation,
    });
    let by_policy = matches!(outcome.reason, Reason::DenyRule | Reason::NoAllowRule);
    if outcome.allow || (view.mode == PolicyMode::Audit && by_policy) {
        return Ok(Permit { decision });
    }
    Err(Denial {
        decision,
        reason: outcome.reason,
        detail: outcome.detail(facts),
        nearest: (outcome.reason == Reason::NoAllowRule)
            .then(|| view.admission.nearest(facts, now))
            .flatten(),
    })
}

/// The first of a listener's `peer` patterns that names `peer`.
#[must_use]
pub fn expected<'a>(patterns: &'a [IdPattern], peer: &SpiffeId) -> Option<&'a IdPattern> {
    patterns.iter().find(|pattern| pattern.matches(peer))
}

/// Decides about the server that answered an outbound listener's call: by the deny list in force, and by the listener's
/// `peer` list.
///
/// # Errors
/// A [`Denial`] when an entry of the deny list names it, or no `peer` pattern does.
pub fn outbound(
    view: &PolicyView,
    kind: &ListenerKind,
    peer: &SpiffeId,
    certificate: &CertificateFacts<'_>,
) -> Result<Permit, Denial> {
    if let Some(entry) = view.admission.deny_list.find(peer, Some(certificate)) {
        let decision = Decision {
            rule: Some(Arc::clone(entry.name())),
            description: entry.description().cloned(),
            ..Decision::of(Verdict::Deny, Some(Reason::DenyList))
        };
        return Err(Denial {
            decision: Arc::new(decision),
            reason: Reason::DenyList,
            detail: entry.describe(Some(certificate)),
            nearest: None,
        });
    }
    let pattern = match kind {
        ListenerKind::Outbound { peer: patterns, .. } => expected(patterns, peer),
        ListenerKind::Inbound { .. } => None,
    };
    match pattern {
        Some(pattern) => Ok(Permit {
            decision: Arc::new(Decision {
                rule: Some(pattern.text().clone()),
                ..Decision::of(Verdict::Allow, None)
            }),
        }),
        None => Err(Denial {
            decision: Arc::new(Decision::of(Verdict::Deny, Some(Reason::PeerNotExpected))),
            reason: Reason::PeerNotExpected,
            detail: format!("no `peer` pattern of this listener names `{peer}`"),
            nearest: None,
        }),
    }
}

impl Decision {
    fn of(verdict: Verdict, reason: Option<Reason>) -> Self {
        Self {
            verdict,
            reason,
            ..Self::default()
        }
    }
}
