//! May this peer use this listener? The answer is a [`Permit`], which forwarding requires and only this module can
//! make, or a [`Denial`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::settings::{ListenerKind, PolicyMode};
use crate::policy::{Facts, Policy};
use crate::record::{Reason, Verdict};
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
    /// The rule or `peer` pattern that decided, if one did.
    pub rule: Option<Arc<str>>,
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
    let facts = Facts {
        listener: who.listener,
        peer: who.peer,
        source: who.source,
        own_trust_domain: who.own_trust_domain,
    };
    let outcome = view.policy.evaluate(&facts, now);
    let decision = Arc::new(Decision {
        verdict: if outcome.allow {
            Verdict::Allow
        } else {
            Verdict::Deny
        },
        rule: outcome.rule,
        audited: outcome.audited,
        policy_generation: view.generation,
    });
    if outcome.allow || view.mode == PolicyMode::Audit {
        return Ok(Permit { decision });
    }
    let detail = match (&decision.rule, outcome.reason) {
        (Some(rule), _) => format!("rule `{rule}` denies it"),
        (None, _) => format!("no allow rule of listener `{}` names it", who.listener),
    };
    Err(Denial {
        decision,
        reason: outcome.reason,
        detail,
    })
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
    let decision = |verdict, rule| {
        Arc::new(Decision {
            verdict,
            rule,
            audited: Vec::new(),
            policy_generation: 0,
        })
    };
    match pattern {
        Some(pattern) => Ok(Permit {
            decision: decision(Verdict::Allow, Some(pattern.text().clone())),
        }),
        None => Err(Denial {
            decision: decision(Verdict::Deny, None),
            reason: Reason::PeerNotExpected,
            detail: format!("no `peer` pattern of this listener names `{peer}`"),
        }),
    }
}
