//! A compiled rule and its conditions.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::Serialize;

use super::facts::Facts;
use super::ids::IdSet;
use crate::spiffe::{IdPattern, SpiffeId, TrustDomain};

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Admits, unless a deny rule matches too.
    Allow,
    /// Refuses, whatever else matches.
    Deny,
    /// Decides nothing; the record names it.
    Audit,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        })
    }
}

/// A rule in force.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) name: Arc<str>,
    pub(super) description: Option<Arc<str>>,
    pub(super) action: Action,
    pub(super) to: Option<Box<[Arc<str>]>>,
    pub(super) from: Option<IdSet>,
    pub(super) source: Option<Box<[IpNet]>>,
    pub(super) not_before: Option<SystemTime>,
    pub(super) expires: Option<SystemTime>,
    pub(super) file: Arc<str>,
    pub(super) line: u32,
}

/// The first condition of a rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'r> {
    /// The rule is about other listeners.
    To(&'r [Arc<str>]),
    /// The peer's ID is none of those.
    From(&'r [IdPattern]),
    /// An allow rule without `from`, and the peer is of another trust domain than ours.
    OwnTrustDomain,
    /// The peer's address is in none of these networks.
    Source(&'r [IpNet]),
    /// The peer has no IP address, and the rule wants one.
    NoAddress(&'r [IpNet]),
    /// The rule begins then.
    NotBefore(SystemTime),
    /// The rule is gone since then.
    Expires(SystemTime),
}

impl Rule {
    /// The rule's name, unique in the policy.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the rule says of itself.
    #[must_use]
    pub const fn description(&self) -> Option<&Arc<str>> {
        self.description.as_ref()
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// The listeners it is about; `None` for all.
    #[must_use]
    pub fn to(&self) -> Option<&[Arc<str>]> {
        self.to.as_deref()
    }

    /// The peers it is about, as written; `None` when `from` is left out.
    #[must_use]
    pub fn from(&self) -> Option<&[IdPattern]> {
        self.from.as_ref().map(IdSet::written)
    }

    /// The networks that the peer's address must be in; `None` when `source` is left out.
    #[must_use]
    pub fn source(&self) -> Option<&[IpNet]> {
        self.source.as_deref()
    }

    /// When it begins.
    #[must_use]
    pub fn not_before(&self) -> Option<SystemTime> {
        self.not_before
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    pub(super) const fn is_deny(&self) -> bool {
        matches!(self.action, Action::Deny)
    }

    /// The file and line it stands in.
    #[must_use]
    pub const fn place(&self) -> (&Arc<str>, u32) {
        (&self.file, self.line)
    }

    /// Whether the rule is over at `now`: from the instant in `expires` on.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether the rule can say different things at a listener to different own trust domains.
    #[must_use]
    pub fn depends_on_own_trust_domain(&self, listener: &str) -> bool {
        let here = self
            .to
            .as_ref()
            .is_none_or(|to| to.iter().any(|name| **name == *listener));
        here && self.action == Action::Allow && self.from.is_none()
    }

    /// The first condition that does not hold; `None` when the rule matches. The one place where conditions are
    /// judged: deciding and explaining both ask here.
    #[must_use]
    pub fn first_unmet(&self, facts: &Facts<'_>, now: SystemTime) -> Option<Unmet<'_>> {
        if let Some(to) = &self.to
            && !to.iter().any(|name| **name == *facts.listener)
        {
            return Some(Unmet::To(to));
        }
        if let Some(unmet) = self.unmet_from(facts.peer, facts.own_trust_domain) {
            return Some(unmet);
        }
        if let Some(source) = &self.source
            && let Some(unmet) = self.unmet_source(source, facts.source)
        {
            return Some(unmet);
        }
        if let Some(begins) = self.not_before
            && now < begins
        {
            return Some(Unmet::NotBefore(begins));
        }
        match self.expires {
            Some(expires) if self.is_expired(now) => Some(Unmet::Expires(expires)),
            _ => None,
        }
    }

    fn unmet_from(&self, peer: &SpiffeId, own: &TrustDomain) -> Option<Unmet<'_>> {
        match (&self.from, self.action) {
            (Some(from), _) => (!from.matches(peer)).then_some(Unmet::From(from.written())),
            // Another trust domain is admitted only where a pattern names it.
            (None, Action::Allow) => (peer.trust_domain() != own).then_some(Unmet::OwnTrustDomain),
            (None, Action::Deny | Action::Audit) => None,
        }
    }

    fn unmet_source<'r>(&self, networks: &'r [IpNet], address: Option<IpAddr>) -> Option<Unmet<'r>> {
        let Some(address) = address else {
            // Whether the peer is in the networks cannot be known. A deny must not be escaped by coming from where
            // nobody can tell, so it matches; an allow must not be earned that way, so it does not.
            return (self.action != Action::Deny).then_some(Unmet::NoAddress(networks));
        };
        let address = address.to_canonical();
        (!networks.iter().any(|network| network.contains(&address))).then_some(Unmet::Source(networks))
    }
}
