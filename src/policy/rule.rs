//! A compiled rule and its conditions.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::facts::Facts;
use super::ids::IdSet;
use super::networks::NetworkSet;
use crate::spiffe::{SpiffeId, TrustDomain};

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
    pub(super) ports: Option<Ports>,
    pub(super) from: Option<IdSet>,
    pub(super) not_from: Option<IdSet>,
    pub(super) source: Option<NetworkSet>,
    pub(super) not_source: Option<NetworkSet>,
    pub(super) not_before: Option<SystemTime>,
    pub(super) expires: Option<SystemTime>,
    pub(super) file: Arc<str>,
    pub(super) line: u32,
}

/// The ports of a rule.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub(super) written: Box<[u16]>,
    /// The inbound listeners that listen on one of them; `None` when listeners were not known.
    pub(super) listeners: Option<Box<[Arc<str>]>>,
}

/// The conditions that a rule may have, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    To,
    Ports,
    From,
    NotFrom,
    Source,
    NotSource,
    NotBefore,
    Expires,
}

impl Condition {
    pub(super) const ALL: [Self; 8] = [
        Self::To,
        Self::Ports,
        Self::From,
        Self::NotFrom,
        Self::Source,
        Self::NotSource,
        Self::NotBefore,
        Self::Expires,
    ];

    /// The field of the rule.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::To => "to",
            Self::Ports => "ports",
            Self::From => "from",
            Self::NotFrom => "not_from",
            Self::Source => "source",
            Self::NotSource => "not_source",
            Self::NotBefore => "not_before",
            Self::Expires => "expires",
        }
    }
}

/// How a condition does not hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unmet<'r> {
    /// The rule is about other listeners.
    To(&'r [Arc<str>]),
    /// The rule is about listeners of other ports.
    Ports(&'r Ports),
    /// The peer's ID is none of those.
    From(&'r IdSet),
    /// An allow rule without `from`, and the peer is of another trust domain than ours.
    OwnTrustDomain,
    /// The peer's ID is one of those.
    NotFrom(&'r IdSet),
    /// The peer's address is in none of these networks, or not known.
    Source(&'r NetworkSet),
    /// The peer's address is in one of these networks, or not known.
    NotSource(&'r NetworkSet),
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
    pub const fn action(&self) -> Action {
        self.action
    }

    /// The listeners it names in `to`; `None` when that is left out.
    #[must_use]
    pub fn to(&self) -> Option<&[Arc<str>]> {
        self.to.as_deref()
    }

    /// The ports it names in `ports`; `None` when that is left out.
    #[must_use]
    pub fn ports(&self) -> Option<&[u16]> {
        self.ports.as_ref().map(|ports| &*ports.written)
    }

    /// The peers it is about, as written, `$name` for a set; `None` when `from` is left out.
    #[must_use]
    pub fn from(&self) -> Option<&[Arc<str>]> {
        self.from.as_ref().map(IdSet::written)
    }

    /// The peers it is not about, as written.
    #[must_use]
    pub fn not_from(&self) -> Option<&[Arc<str>]> {
        self.not_from.as_ref().map(IdSet::written)
    }

    /// The networks that the peer's address must be in, as written; `None` when `source` is left out.
    #[must_use]
    pub fn source(&self) -> Option<&[Arc<str>]> {
        self.source.as_ref().map(NetworkSet::written)
    }

    /// The networks that the peer's address must not be in, as written.
    #[must_use]
    pub fn not_source(&self) -> Option<&[Arc<str>]> {
        self.not_source.as_ref().map(NetworkSet::written)
    }

    /// When it begins.
    #[must_use]
    pub const fn not_before(&self) -> Option<SystemTime> {
        self.not_before
    }

    /// Its lists with the values of named sets in place of their names: each field, and `None` where it is left out.
    #[must_use]
    pub fn resolved(&self) -> [(&'static str, Option<Vec<String>>); 4] {
        fn ids(set: &Option<IdSet>) -> Option<Vec<String>> {
            Some(set.as_ref()?.patterns().map(ToString::to_string).collect())
        }
        fn networks(set: &Option<NetworkSet>) -> Option<Vec<String>> {
            Some(set.as_ref()?.networks().map(ToString::to_string).collect())
        }
        [
            ("from", ids(&self.from)),
            ("not_from", ids(&self.not_from)),
            ("source", networks(&self.source)),
            ("not_source", networks(&self.not_source)),
        ]
    }

    /// When it ends.
    #[must_use]
    pub const fn expires(&self) -> Option<SystemTime> {
        self.expires
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

    /// Whether the rule is about a listener, by `to` and `ports`.
    #[must_use]
    pub fn is_about(&self, listener: &str) -> bool {
        self.unmet_to(listener).is_none() && self.unmet_ports(listener).is_none()
    }

    /// Whether the rule can say different things at a listener to different own trust domains.
    #[must_use]
    pub fn depends_on_own_trust_domain(&self, listener: &str) -> bool {
        self.is_about(listener) && self.action == Action::Allow && self.from.is_none()
    }

    /// Whether the rule may match a peer, as far as its ID tells.
    pub(super) fn may_match(&self, peer: &SpiffeId) -> bool {
        self.from.as_ref().is_none_or(|from| from.matches(peer))
    }

    /// The listeners that `to` and `ports` leave; `None` for all that there are.
    pub(super) fn listeners(&self) -> Option<Vec<&Arc<str>>> {
        listeners(self.to.as_deref(), self.ports.as_ref())
    }

    /// Whether all conditions hold.
    pub(super) fn matches(&self, facts: &Facts<'_>, now: SystemTime) -> bool {
        self.unmet(facts, now).next().is_none()
    }

    /// The conditions that do not hold, in their order. The one place where conditions are judged: deciding asks for the
    /// first, explaining for all.
    pub(super) fn unmet(&self, facts: &Facts<'_>, now: SystemTime) -> impl Iterator<Item = Unmet<'_>> {
        Condition::ALL
            .into_iter()
            .filter_map(move |condition| self.judge(condition, facts, now))
    }

    fn judge(&self, condition: Condition, facts: &Facts<'_>, now: SystemTime) -> Option<Unmet<'_>> {
        match condition {
            Condition::To => self.unmet_to(facts.listener),
            Condition::Ports => self.unmet_ports(facts.listener),
            Condition::From => match (&self.from, self.action) {
                (Some(from), _) => (!from.matches(facts.peer)).then_some(Unmet::From(from)),
                // Another trust domain is admitted only where a pattern names it.
                (None, Action::Allow) => {
                    let own: &TrustDomain = facts.own_trust_domain;
                    (facts.peer.trust_domain() != own).then_some(Unmet::OwnTrustDomain)
                }
                (None, Action::Deny | Action::Audit) => None,
            },
            Condition::NotFrom => {
                let not_from = self.not_from.as_ref()?;
                not_from.matches(facts.peer).then_some(Unmet::NotFrom(not_from))
            }
            Condition::Source => {
                let source = self.source.as_ref()?;
                (!self.within(facts.source, |address| source.contains(address)))
                    .then_some(Unmet::Source(source))
            }
            Condition::NotSource => {
                let not_source = self.not_source.as_ref()?;
                (!self.within(facts.source, |address| !not_source.contains(address)))
                    .then_some(Unmet::NotSource(not_source))
            }
            Condition::NotBefore => self
                .not_before
                .filter(|begins| now < *begins)
                .map(Unmet::NotBefore),
            Condition::Expires => self.expires.filter(|ends| now >= *ends).map(Unmet::Expires),
        }
    }

    fn unmet_to(&self, listener: &str) -> Option<Unmet<'_>> {
        let to = self.to.as_deref()?;
        (!to.iter().any(|name| **name == *listener)).then_some(Unmet::To(to))
    }

    /// Which listener has which port may not be known offline. As with addresses, a deny then matches, the others not.
    fn unmet_ports(&self, listener: &str) -> Option<Unmet<'_>> {
        let ports = self.ports.as_ref()?;
        let holds = match &ports.listeners {
            Some(listeners) => listeners.iter().any(|name| **name == *listener),
            None => self.action == Action::Deny,
        };
        (!holds).then_some(Unmet::Ports(ports))
    }

    /// Judges the peer's address. Where it has none, whether the condition holds cannot be known: a deny must not be
    /// escaped by coming from where nobody can tell, so it matches; an allow must not be earned that way, so it does not.
    fn within(&self, address: Option<IpAddr>, holds: impl FnOnce(IpAddr) -> bool) -> bool {
        match address {
            Some(address) => holds(address.to_canonical()),
            None => self.action == Action::Deny,
        }
    }
}

/// The listeners that `to` and `ports` leave; `None` for all that there are.
pub(super) fn listeners<'r>(
    to: Option<&'r [Arc<str>]>,
    ports: Option<&'r Ports>,
) -> Option<Vec<&'r Arc<str>>> {
    let by_port = ports.and_then(|ports| ports.listeners.as_deref());
    match (to, by_port) {
        (None, None) => None,
        (Some(names), None) | (None, Some(names)) => Some(names.iter().collect()),
        (Some(to), Some(by_port)) => Some(to.iter().filter(|name| by_port.contains(name)).collect()),
    }
}

impl Unmet<'_> {
    pub(super) const fn condition(&self) -> Condition {
        match self {
            Self::To(_) => Condition::To,
            Self::Ports(_) => Condition::Ports,
            Self::From(_) | Self::OwnTrustDomain => Condition::From,
            Self::NotFrom(_) => Condition::NotFrom,
            Self::Source(_) => Condition::Source,
            Self::NotSource(_) => Condition::NotSource,
            Self::NotBefore(_) => Condition::NotBefore,
            Self::Expires(_) => Condition::Expires,
        }
    }
}
