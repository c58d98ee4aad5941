//! Conditions in words.

use std::fmt;
use std::net::IpAddr;

use crate::policy::facts::Facts;
use crate::policy::rule::{Action, Rule, Unmet};
use crate::record::Reason;

/// The most values of a condition that are written out.
const MAX_SHOWN: usize = 4;

/// What to add about a rule whose conditions all hold.
pub(super) fn matched(rule: &Rule, facts: &Facts<'_>, decided: bool, reason: Reason) -> Option<String> {
    let by_address = rule.source.is_some() || rule.not_source.is_some();
    let why = match (rule.action, decided, reason) {
        (Action::Deny, true, _) if by_address && facts.source.is_none() => {
            "the peer has no known address, which a deny rule with `source` or `not_source` counts as matching"
        }
        (_, true, _) => return None,
        (Action::Audit, ..) => "audit rules mark and do not decide",
        (_, false, Reason::DenyList) => "matches, but the deny list wins",
        (_, false, Reason::TrustDomainNotAccepted) => {
            "matches, but the listener does not accept the peer's trust domain"
        }
        (Action::Allow, false, Reason::DenyRule) => "matches, but a deny rule wins",
        (Action::Allow | Action::Deny, false, _) => "matches, but an earlier rule decided",
    };
    Some(why.to_owned())
}

impl Unmet<'_> {
    /// The condition in words, with the values on both sides.
    pub(in crate::policy) fn describe(&self, facts: &Facts<'_>) -> String {
        let Facts { listener, peer, .. } = facts;
        match self {
            Self::To(names) => format!("listener `{listener}` is not {}", any_of(names)),
            Self::Ports(ports) if ports.listeners.is_none() => format!(
                "which port listener `{listener}` has is not known, so not known to be {}",
                any_of(&ports.written)
            ),
            Self::Ports(ports) => {
                format!(
                    "listener `{listener}` does not listen on {}",
                    any_of(&ports.written)
                )
            }
            Self::From(from) => format!("`{peer}` is not {}", any_of(from.written())),
            Self::OwnTrustDomain => format!(
                "without `from`, only our own trust domain `{}` is allowed, and the peer is of `{}`",
                facts.own_trust_domain,
                peer.trust_domain()
            ),
            Self::NotFrom(not_from) => {
                let excluded = not_from.patterns().find(|pattern| pattern.matches(peer));
                match excluded {
                    Some(pattern) => format!("`{peer}` is excluded by `{pattern}`"),
                    None => format!("`{peer}` is {}", any_of(not_from.written())),
                }
            }
            Self::Source(source) => match facts.source.map(|address| address.to_canonical()) {
                Some(address) => format!("`{address}` is not in {}", any_of(source.written())),
                None => format!(
                    "the peer's address is unknown, so not known to be in {}",
                    any_of(source.written())
                ),
            },
            Self::NotSource(not_source) => match facts.source.map(|address| address.to_canonical()) {
                Some(address) => excluded_by(address, not_source),
                None => format!(
                    "the peer's address is unknown, so not known to be outside {}",
                    any_of(not_source.written())
                ),
            },
            Self::NotBefore(at) => format!("the rule begins at {}", crate::clock::rfc3339(*at)),
            Self::Expires(at) => format!("the rule ended at {}", crate::clock::rfc3339(*at)),
        }
    }
}

fn excluded_by(address: IpAddr, not_source: &crate::policy::networks::NetworkSet) -> String {
    match not_source.networks().find(|network| network.contains(&address)) {
        Some(network) => format!("`{address}` is excluded by `{network}`"),
        None => format!("`{address}` is in {}", any_of(not_source.written())),
    }
}

/// "`a`, `b` or one of 7 more".
pub(super) fn any_of<T: fmt::Display>(values: &[T]) -> String {
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
