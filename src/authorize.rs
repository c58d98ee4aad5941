//! May this peer use this listener? The answer is a [`Permit`], which forwarding requires and only this module can
//! make, or a [`Denial`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::settings::{ListenerKind, PolicyMode};
use crate::policy::{Action, Facts, Policy, RuleExplanation};
use crate::record::{Candidate, Nearest, Reason, Unmet, Verdict};
use crate::spiffe::{IdPattern, SpiffeId, TrustDomain};

/// The policy in force.
#[derive(Debug)]
pub struct PolicyView {
    /// Counts policies from 1 up in this process; 0 is the policy that denies all, before any was read.
    pub generation: u64,
    /// The policy.
    pub policy: Policy,
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
            policy: Policy::deny_all(),
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
    /// [`Reason::DenyRule`], [`Reason::NoAllowRule`] or [`Reason::PeerNotExpected`].
    pub reason: Reason,
    /// For the operator.
    pub detail: String,
}

/// The terms of a permit or denial. By default none were set: authorization was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What policy said. `Deny` in a permit means that policy is only audited.
    pub verdict: Verdict,
    /// Why not, where it said no.
    pub reason: Option<Reason>,
    /// The rule or `peer` pattern that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// What its description says.
    pub description: Option<Arc<str>>,
    /// The audit rules that match.
    pub audited: Vec<Arc<str>>,
    /// The generation of the policy; 0 for an outbound listener, whose `peer` list is in the config.
    pub policy_generation: u64,
    /// What the candidate policy says.
    pub candidate: Option<Box<Candidate>>,
}

impl Permit {
    /// The terms.
    #[must_use]
    pub const fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }
}

/// Who asks for an inbound listener.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The verified peer.
    pub peer: &'a SpiffeId,
    /// The peer's address, where it has one.
    pub source: Option<IpAddr>,
    /// Our own trust domain.
    pub own_trust_domain: &'a TrustDomain,
}

/// Decides about an inbound peer by the policy in force.
///
/// # Errors
/// A [`Denial`], unless policy is only audited.
pub fn inbound(view: &PolicyView, who: &Inbound<'_>, now: SystemTime) -> Result<Permit, Denial> {
    let outcome = view.policy.evaluate(&who.facts(), now);
    let decision = Arc::new(Decision {
        verdict: if outcome.allow {
            Verdict::Allow
        } else {
            Verdict::Deny
        },
        reason: (!outcome.allow).then_some(outcome.reason),
        rule: outcome.rule,
        description: None,
        audited: outcome.audited,
        policy_generation: view.generation,
        candidate: None,
    });
    if outcome.allow || view.mode == PolicyMode::Audit {
        return Ok(Permit { decision });
    }
    Err(Denial {
        detail: describe(&decision, who.listener),
        decision,
        reason: outcome.reason,
    })
}

impl<'a> Inbound<'a> {
    const fn facts(&self) -> Facts<'a> {
        Facts {
            listener: self.listener,
            peer: self.peer,
            source: self.source,
            own_trust_domain: self.own_trust_domain,
        }
    }
}

/// Why policy said no, for the operator.
#[must_use]
pub fn describe(decision: &Decision, listener: &str) -> String {
    match &decision.rule {
        Some(rule) => format!("rule `{rule}` denies it"),
        None => format!("no allow rule of listener `{listener}` names it"),
    }
}

/// For a peer that no rule allows: the rule that comes nearest to it. Asked only when a denial is recorded, as it looks at
/// every rule.
#[must_use]
pub fn nearest(
    view: &PolicyView,
    who: &Inbound<'_>,
    decision: &Decision,
    now: SystemTime,
) -> Option<Box<Nearest>> {
    if decision.reason != Some(Reason::NoAllowRule) {
        return None;
    }
    let explanation = view.policy.explain(&who.facts(), now);
    // The later a rule's first unmet condition, the more of it holds.
    let order = ["to", "from", "source", "expires"];
    let reached = |rule: &RuleExplanation| order.iter().position(|name| rule.condition == Some(*name));
    let allowing = explanation
        .rules
        .into_iter()
        .filter(|rule| rule.action == Action::Allow);
    let mut best: Option<(usize, RuleExplanation)> = None;
    for rule in allowing {
        if let Some(place) = reached(&rule).filter(|place| *place > 0)
            && best.as_ref().is_none_or(|(so_far, _)| place > *so_far)
        {
            best = Some((place, rule));
        }
    }
    let (_, rule) = best?;
    Some(Box::new(Nearest {
        rule: rule.name,
        unmet: vec![Unmet {
            condition: rule.condition?,
            detail: rule.detail.unwrap_or_default().into(),
        }],
    }))
}

/// The first of a listener's `peer` patterns that names `peer`.
#[must_use]
pub fn expected<'a>(patterns: &'a [IdPattern], peer: &SpiffeId) -> Option<&'a IdPattern> {
    patterns.iter().find(|pattern| pattern.matches(peer))
}

/// Decides about the server that answered an outbound listener's call.
///
/// # Errors
/// A [`Denial`] when no `peer` pattern names it.
pub fn outbound(kind: &ListenerKind, peer: &SpiffeId) -> Result<Permit, Denial> {
    let pattern = match kind {
        ListenerKind::Outbound { peer: patterns, .. } => expected(patterns, peer),
        ListenerKind::Inbound { .. } => None,
    };
    let decision = |verdict, reason, rule| {
        Arc::new(Decision {
            verdict,
            reason,
            rule,
            ..Decision::default()
        })
    };
    match pattern {
        Some(pattern) => Ok(Permit {
            decision: decision(Verdict::Allow, None, Some(pattern.text().clone())),
        }),
        None => Err(Denial {
            decision: decision(Verdict::Deny, Some(Reason::PeerNotExpected), None),
            reason: Reason::PeerNotExpected,
            detail: format!("no `peer` pattern of this listener names `{peer}`"),
        }),
    }
}
