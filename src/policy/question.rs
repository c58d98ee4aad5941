//! What a person asks of a policy ("would this peer be admitted to that listener?") is read here: by `policy explain`
//! and by the admin endpoint alike.

use std::sync::Arc;

use super::Policy;
use crate::config::settings::ListenerName;
use crate::record::Direction;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::yaml::{closest, one_of};

/// The peer that is asked about.
///
/// # Errors
/// Why the text is no workload's ID.
pub fn peer(text: &str) -> Result<SpiffeId, String> {
    let peer = SpiffeId::new(text).map_err(|error| error.to_string())?;
    if peer.path().is_empty() {
        return Err("a workload's ID has a path".to_owned());
    }
    Ok(peer)
}

/// Sees that `to` is an inbound listener.
///
/// # Errors
/// What it is instead, and which there are.
pub fn inbound(to: &str, listeners: &[ListenerName]) -> Result<(), String> {
    let inbound: Vec<&str> = listeners
        .iter()
        .filter(|l| l.direction == Direction::Inbound)
        .map(|l| &*l.name)
        .collect();
    if inbound.contains(&to) {
        return Ok(());
    }
    let outbound = listeners.iter().any(|listener| *listener.name == *to);
    Err(match closest(to, &inbound) {
        _ if outbound => "an outbound listener, where `peer` in the config says who may answer".to_owned(),
        Some(word) => format!("no inbound listener; did you mean `{word}`?"),
        None if inbound.is_empty() => "the config has no inbound listener".to_owned(),
        None => format!("no inbound listener; there is {}", one_of(&inbound)),
    })
}

/// Our own trust domain, where it is known, as `said`. Where it is not, any will do unless an allow rule asks for it.
///
/// # Errors
/// The name of that rule: there is no answer then.
pub fn own_trust_domain(
    said: Option<&TrustDomain>,
    policy: &Policy,
    to: &str,
    peer: &SpiffeId,
) -> Result<TrustDomain, Arc<str>> {
    if let Some(domain) = said {
        return Ok(domain.clone());
    }
    let mut rules = policy.rules().iter();
    match rules.find(|rule| rule.depends_on_own_trust_domain(to)) {
        Some(rule) => Err(rule.name().clone()),
        None => Ok(peer.trust_domain().clone()),
    }
}
