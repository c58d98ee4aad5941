//! The one evaluator: everything that says who may connect, as one immutable value.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::deny_list::{DenyList, Entry};
use super::evaluate::Policy;
use super::facts::Facts;
use super::rule::Rule;
use crate::record::Reason;
use crate::spiffe::TrustDomain;

/// A policy and a deny list, which decide together. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The rules, budgets, and what each listener trusts.
    pub policy: Arc<Policy>,
    /// The emergency brake: what it names is refused whatever the policy says.
    pub deny_list: Arc<DenyList>,
}

/// The answer. It borrows from the [`Admission`] that gave it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Outcome<'a> {
    /// Whether the peer is admitted.
    pub allow: bool,
    /// Why not, when `allow` is false: [`Reason::DenyList`], [`Reason::TrustDomainNotAccepted`], [`Reason::DenyRule`] or
    /// [`Reason::NoAllowRule`]. [`Reason::Finished`] otherwise.
    pub reason: Reason,
    /// What decided; [`Decider::Nothing`] with [`Reason::NoAllowRule`].
    pub by: Decider<'a>,
    /// The audit rules that match. Usually empty, which allocates nothing.
    pub audited: Vec<&'a Rule>,
}

/// What decided.
#[derive(Clone, Copy, Debug)]
pub enum Decider<'a> {
    /// The first matching deny rule, else the first matching allow rule.
    Rule(&'a Rule),
    /// The first entry of the deny list that hits.
    Entry(&'a Entry),
    /// The listener accepts these trust domains beside our own, and the peer's is neither.
    Trust(&'a [TrustDomain]),
    /// No rule allowed it.
    Nothing,
}

impl Admission {
    /// A policy and a deny list.
    #[must_use]
    pub const fn new(policy: Arc<Policy>, deny_list: Arc<DenyList>) -> Self {
        Self { policy, deny_list }
    }

    /// What stands in until a policy is loaded: nothing is admitted.
    #[must_use]
    pub fn deny_all() -> Self {
        Self::new(Arc::new(Policy::deny_all()), Arc::new(DenyList::empty()))
    }

    /// Decides about a connection, in this order: the deny list, the listener's trust, deny rules, allow rules. What
    /// nothing allows is denied.
    pub fn evaluate(&self, facts: &Facts<'_>, now: SystemTime) -> Outcome<'_> {
        let refused = self
            .deny_list
            .find(facts.peer, facts.certificate.as_ref())
            .map(|entry| (Reason::DenyList, Decider::Entry(entry)))
            .or_else(|| {
                let beside_own = self.policy.not_trusted(facts)?;
                Some((Reason::TrustDomainNotAccepted, Decider::Trust(beside_own)))
            });
        let (decided, audited) = self.policy.decide(facts, now);
        let (allow, reason, by) = match (refused, decided) {
            (Some((reason, by)), _) => (false, reason, by),
            (None, Some(rule)) if rule.is_deny() => (false, Reason::DenyRule, Decider::Rule(rule)),
            (None, Some(rule)) => (true, Reason::Finished, Decider::Rule(rule)),
            (None, None) => (false, Reason::NoAllowRule, Decider::Nothing),
        };
        Outcome {
            allow,
            reason,
            by,
            audited,
        }
    }

    /// The next instant at which a rule begins or ends, and answers may change without a new policy.
    #[must_use]
    pub fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        self.policy.next_change(now)
    }
}

impl<'a> Outcome<'a> {
    /// When the rule that admitted the peer ends. Ask again then: another may admit it still.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        match self.by {
            Decider::Rule(rule) if self.allow => rule.expires(),
            _ => None,
        }
    }

    /// When the deny rule that decided began, where it says so in `not_before`.
    #[must_use]
    pub fn began(&self) -> Option<SystemTime> {
        match self.by {
            Decider::Rule(rule) if !self.allow => rule.not_before(),
            _ => None,
        }
    }

    /// Why the peer is refused, in one line for the operator; empty when it is admitted.
    #[must_use]
    pub fn detail(&self, facts: &Facts<'_>) -> String {
        if self.allow {
            return String::new();
        }
        match self.by {
            Decider::Rule(rule) => format!("rule `{}` denies it", rule.name()),
            Decider::Entry(entry) => entry.describe(facts.certificate.as_ref()),
            Decider::Trust(beside_own) => not_accepted(facts, beside_own),
            Decider::Nothing => format!("no allow rule of listener `{}` names it", facts.listener),
        }
    }
}

impl<'a> Decider<'a> {
    /// The name of the rule or entry.
    #[must_use]
    pub fn name(&self) -> Option<&'a Arc<str>> {
        match *self {
            Self::Rule(rule) => Some(rule.name()),
            Self::Entry(entry) => Some(entry.name()),
            Self::Trust(_) | Self::Nothing => None,
        }
    }

    /// What the rule or entry says of itself.
    #[must_use]
    pub fn description(&self) -> Option<&'a Arc<str>> {
        match *self {
            Self::Rule(rule) => rule.description(),
            Self::Entry(entry) => entry.description(),
            Self::Trust(_) | Self::Nothing => None,
        }
    }

    /// The file and line in which the rule or entry stands.
    #[must_use]
    pub fn place(&self) -> Option<(&'a Arc<str>, u32)> {
        match *self {
            Self::Rule(rule) => Some(rule.place()),
            Self::Entry(entry) => Some(entry.place()),
            Self::Trust(_) | Self::Nothing => None,
        }
    }
}

fn not_accepted(facts: &Facts<'_>, beside_own: &[TrustDomain]) -> String {
    let own = facts.own_trust_domain.as_str();
    let accepted: Vec<&str> = std::iter::once(own)
        .chain(beside_own.iter().map(TrustDomain::as_str))
        .collect();
    format!(
        "trust domain `{}` is not accepted by listener `{}`, only {}",
        facts.peer.trust_domain(),
        facts.listener,
        crate::yaml::one_of(&accepted)
    )
}

/// The address that conditions are judged by: IPv4-mapped ones count as IPv4.
pub(super) fn canonical(source: Option<IpAddr>) -> Option<IpAddr> {
    source.map(|address| address.to_canonical())
}
