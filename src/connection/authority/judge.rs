//! What is asked about open connections: whatever admission asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::authorize::{self, Admission, Facts, PolicyView};
use crate::clock::rfc3339;
use crate::connection::certificate;
use crate::connection::live::{IdentityView, Terms};
use crate::connection::registry::{Basis, Entry, Registry, Trust};
use crate::identity::material::Bundle;
use crate::record::{Check, Direction, Nearest, Reason};
use crate::tls::configs::Context;
use crate::tls::verify::{PeerSide, Refusal, VerifiedPeer, verify_chain};

/// Why a connection would not be admitted now.
#[derive(Clone, Debug)]
pub(in crate::connection) struct Finding {
    /// The cause.
    pub(in crate::connection) reason: Reason,
    /// What a person needs beyond it.
    pub(in crate::connection) detail: Arc<str>,
    /// For a verdict of policy: what to say of a connection that this very policy had admitted, so that it was time
    /// alone that changed it.
    by_time: Option<Reason>,
    /// What authorization said, where it was that.
    pub(in crate::connection) terms: Option<Arc<authorize::Decision>>,
    /// A check that the peer's chain does not pass any more.
    pub(in crate::connection) check: Option<Box<Check>>,
}

impl Finding {
    fn new(reason: Reason, detail: impl Into<Arc<str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            by_time: None,
            terms: None,
            check: None,
        }
    }

    fn by_terms(reason: Reason, terms: authorize::Decision) -> Self {
        Self {
            terms: Some(Arc::new(terms.clone())),
            ..Self::new(reason, terms.detail.unwrap_or_default())
        }
    }

    /// The cause, as it is told to one of the connections.
    pub(in crate::connection) fn reason_for(&self, entry: &Entry, policy: &PolicyView) -> Reason {
        let admitted_by = entry.decision.get().map(|decision| decision.policy_generation);
        match self.by_time {
            Some(by_time) if admitted_by == Some(policy.generation) => by_time,
            _ => self.reason,
        }
    }

    /// For a connection that no rule allows any more: the rule that comes nearest.
    pub(super) fn nearest(
        &self,
        basis: &Basis,
        identity: &IdentityView,
        policy: &PolicyView,
        now: SystemTime,
    ) -> Option<Box<Nearest>> {
        authorize::nearest(policy, &facts(basis, identity), self.terms.as_ref()?, now)
    }
}

/// The verifications of one look: bases of the same peer share them, refusals too. Told apart by where the shared
/// `VerifiedPeer` lies, which this keeps.
#[derive(Default)]
pub(super) struct Verified(HashMap<(Direction, usize), Verification>);

type Verification = (Arc<VerifiedPeer>, Result<Arc<VerifiedPeer>, Refusal>);

/// Every cause for which a connection on `basis` would not be admitted now, the one that says most first.
pub(super) fn judge(
    basis: &Basis,
    registry: &Registry,
    identity: &IdentityView,
    (policy, terms): (&PolicyView, &Terms),
    now: SystemTime,
    verified: &mut Verified,
) -> impl Iterator<Item = Finding> + use<> {
    let by_policy = match basis.direction {
        Direction::Inbound => judge_client(basis, identity, (policy, terms), now),
        Direction::Outbound => judge_server(basis, policy, terms),
    };
    judge_trust(basis, registry, identity, now, verified).chain(by_policy)
}

/// Checks a connection that has just registered against an identity that is newer than the one its handshake used.
#[must_use]
pub(in crate::connection) fn recheck(
    entry: &Entry,
    registry: &Registry,
    identity: &IdentityView,
    now: SystemTime,
) -> Option<Finding> {
    judge_trust(&entry.basis(), registry, identity, now, &mut Verified::default()).next()
}

/// All but policy.
fn judge_trust(
    basis: &Basis,
    registry: &Registry,
    identity: &IdentityView,
    now: SystemTime,
    verified: &mut Verified,
) -> impl Iterator<Item = Finding> + use<> {
    // First, as a renewed authority moves the chain's end.
    let bundle = match identity {
        IdentityView::Held(context) => judge_bundle(basis, registry, context, now, verified),
        IdentityView::Missing { .. } => None,
    };
    let ends = judge_ends(basis, now);
    ends.into_iter()
        .chain(judge_identity(basis, identity))
        .chain(bundle)
}

/// Whether both chains are valid now. A clock that was set back before a chain began makes it as invalid as one that
/// passed its end: what the clock shows is all that is known, and it fails closed.
fn judge_ends(basis: &Basis, now: SystemTime) -> Option<Finding> {
    let trust = basis.trust();
    let own = &basis.own;
    let (reason, detail) = if own.not_after <= now {
        let end = rfc3339(own.not_after);
        (Reason::OwnExpired, format!("our SVID ran out at {end}"))
    } else if now < own.not_before {
        let (begin, now) = (rfc3339(own.not_before), rfc3339(now));
        let detail = format!("our SVID is valid from {begin} on, and the clock was set back to {now}");
        (Reason::OwnExpired, detail)
    } else if trust.not_after <= now {
        let end = rfc3339(trust.not_after);
        (Reason::PeerExpired, format!("the peer's chain ran out at {end}"))
    } else if now < trust.not_before {
        let (begin, now) = (rfc3339(trust.not_before), rfc3339(now));
        let detail =
            format!("the peer's chain is valid from {begin} on, and the clock was set back to {now}");
        (Reason::PeerExpired, detail)
    } else {
        return None;
    };
    Some(Finding::new(reason, detail))
}

fn judge_identity(basis: &Basis, identity: &IdentityView) -> Option<Finding> {
    let detail = match identity {
        // The connections that rest on it end with it.
        IdentityView::Missing {
            reason: Reason::IdentityExpired,
            ..
        } => return None,
        IdentityView::Missing { detail, .. } => format!("our identity was withdrawn: {detail}"),
        IdentityView::Held(context) if context.material.svid.id != basis.own.id => {
            format!("our identity is now {}", context.material.svid.id)
        }
        IdentityView::Held(_) => return None,
    };
    Some(Finding::new(Reason::IdentityChange, detail))
}

fn judge_bundle(
    basis: &Basis,
    registry: &Registry,
    context: &Context,
    now: SystemTime,
    verified: &mut Verified,
) -> Option<Finding> {
    let current = context.material.bundles.get(basis.peer.id.trust_domain());
    let trust = basis.trust();
    if same_bundle(trust.bundle.as_ref(), current) {
        return None;
    }
    let side = match basis.direction {
        Direction::Inbound => PeerSide::Client,
        Direction::Outbound => PeerSide::Server,
    };
    // That it is not valid in time is another finding: what is asked here is whether these authorities vouch for it.
    let at = now.max(trust.not_before).min(trust.not_after);
    let (_, outcome) = verified
        .0
        .entry((basis.direction, Arc::as_ptr(&basis.peer).addr()))
        .or_insert_with(|| {
            let found = verify_chain(&context.store, &basis.peer.chain, side, at);
            (basis.peer.clone(), found)
        });
    match outcome {
        Ok(peer) => {
            registry.verified(basis, Trust::new(current.cloned(), peer));
            None
        }
        Err(refusal) => Some(Finding {
            check: refusal.check().map(Box::new),
            ..Finding::new(Reason::BundleChange, refusal.to_string())
        }),
    }
}

fn same_bundle(a: Option<&Arc<Bundle>>, b: Option<&Arc<Bundle>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    }
}

/// Asks about a server what was asked when it answered: by the `peer` list that its listener has now.
fn judge_server(basis: &Basis, policy: &PolicyView, terms: &Terms) -> Option<Finding> {
    let listener = terms.now(&basis.listener);
    let certificate = certificate(&basis.peer);
    if Arc::ptr_eq(listener, &basis.listener) {
        let listed = authorize::listed(policy, &basis.peer.id, &certificate)?;
        return Some(Finding::by_terms(Reason::DenyListChange, listed));
    }
    let denial = authorize::outbound(
        policy,
        listener.expected(basis.destination),
        &basis.peer.id,
        &certificate,
    )
    .err()?;
    let reason = match denial.reason {
        Reason::DenyList => Reason::DenyListChange,
        _ => Reason::PolicyChange,
    };
    Some(Finding::by_terms(
        reason,
        authorize::Decision::clone(&denial.decision),
    ))
}

fn judge_client(
    basis: &Basis,
    identity: &IdentityView,
    (policy, terms): (&PolicyView, &Terms),
    now: SystemTime,
) -> Option<Finding> {
    let facts = facts(basis, identity);
    let refusal = authorize::refusal(policy, &facts, now)?;
    let (reason, by_time) = match refusal.reason.unwrap_or(Reason::Internal) {
        Reason::DenyList => (Reason::DenyListChange, None),
        // Policy does not know a listener any more that was removed. When its connections end is decided already; who is
        // denied by a rule ends at once all the same.
        Reason::TrustDomainNotAccepted | Reason::NoAllowRule if terms.is_leaving(&basis.listener) => {
            return None;
        }
        // What the listener trusts is another list, or our own trust domain another one.
        Reason::TrustDomainNotAccepted if facts.own_trust_domain == basis.own.id.trust_domain() => {
            (Reason::PolicyChange, None)
        }
        Reason::TrustDomainNotAccepted => (Reason::IdentityChange, None),
        Reason::Internal => (Reason::Internal, None),
        reason => {
            let by_time = match reason {
                Reason::DenyRule => Reason::RuleBegan,
                _ => Reason::RuleExpired,
            };
            // A policy that admitted it when it came into force has changed its mind with the time.
            let reason = match authorize::refusal(policy, &facts, policy.since) {
                None => by_time,
                Some(_) => Reason::PolicyChange,
            };
            (reason, Some(by_time))
        }
    };
    Some(Finding {
        by_time,
        ..Finding::by_terms(reason, refusal)
    })
}

/// Whether `admission` would refuse an inbound connection on `basis`.
pub(super) fn refused_by(
    basis: &Basis,
    identity: &IdentityView,
    admission: &Admission,
    now: SystemTime,
) -> bool {
    basis.direction == Direction::Inbound && !admission.evaluate(&facts(basis, identity), now).allow
}

fn facts<'a>(basis: &'a Basis, identity: &'a IdentityView) -> Facts<'a> {
    let own = match identity {
        IdentityView::Held(context) => &context.material.svid.id,
        IdentityView::Missing { .. } => &basis.own.id,
    };
    Facts {
        listener: &basis.listener.name,
        peer: &basis.peer.id,
        source: basis.source,
        own_trust_domain: own.trust_domain(),
        certificate: Some(certificate(&basis.peer)),
    }
}
