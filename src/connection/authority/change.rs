//! What is different since the last look, and whom it can concern.

use std::sync::Arc;
use std::time::SystemTime;

use crate::authorize::{Delta, PolicyView};
use crate::connection::live::{IdentityView, Terms};
use crate::connection::registry::Basis;
use crate::record::Direction;
use crate::spiffe::TrustDomain;

/// A change, as the question whom it can concern.
#[derive(Debug)]
pub(super) struct Change<'a> {
    /// Our identity is another or gone, the clock went backwards, or what was found is treated otherwise: nothing that was
    /// found before is sure to hold.
    everything: bool,
    /// Trust domains whose bundle changed, came or went.
    bundles: Vec<TrustDomain>,
    /// Rules that are others now, or that began or ended.
    rules: Delta<'a>,
    /// The deny list, which is asked about servers, too.
    deny_list: bool,
    /// What listeners expect of servers: their `peer` lists.
    servers: bool,
}

impl<'a> Change<'a> {
    /// What changed between two looks. With the earlier comes when a rule was to begin or end next.
    pub(super) fn between(
        (identity, policy, looked_at, next_rule): (
            &IdentityView,
            &'a PolicyView,
            SystemTime,
            Option<SystemTime>,
        ),
        (new_identity, new_policy, now): (&IdentityView, &'a PolicyView, SystemTime),
    ) -> Self {
        let (old, new) = (&policy.admission, &new_policy.admission);
        let mut rules = Delta::default();
        if !Arc::ptr_eq(&old.policy, &new.policy) {
            rules = old.policy.differences(&new.policy);
        }
        if next_rule.is_some_and(|at| at <= now) {
            // The new policy's are as new as it is, or were due in the old one, too.
            rules = rules.and(old.policy.due(looked_at, now));
        }
        if policy.mode != new_policy.mode {
            rules = Delta::anybody();
        }
        let mut change = Self {
            everything: now < looked_at,
            bundles: Vec::new(),
            rules,
            deny_list: !Arc::ptr_eq(&old.deny_list, &new.deny_list),
            servers: false,
        };
        match (identity, new_identity) {
            (same, new) if std::ptr::eq(same, new) => {}
            (IdentityView::Held(old), IdentityView::Held(new))
                if old.material.svid.id == new.material.svid.id =>
            {
                let (old, new) = (&old.material.bundles, &new.material.bundles);
                let changed = old
                    .iter()
                    .filter(|(domain, bundle)| new.get(*domain) != Some(*bundle))
                    .map(|(domain, _)| domain);
                let came = new.keys().filter(|domain| !old.contains_key(*domain));
                change.bundles = changed.chain(came).cloned().collect();
            }
            _ => change.everything = true,
        }
        change
    }

    /// With what is different in the config. What inbound listeners trust is in the policy.
    pub(super) fn and_of_config(mut self, terms: &Arc<Terms>, new_terms: &Arc<Terms>) -> Self {
        if !Arc::ptr_eq(terms, new_terms) {
            self.servers = true;
            self.everything |= terms.open_connections != new_terms.open_connections;
        }
        self
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.everything
            && self.rules.is_empty()
            && !self.deny_list
            && !self.servers
            && self.bundles.is_empty()
    }

    /// Whether what was found of `basis` may be different now.
    pub(super) fn concerns(&self, basis: &Basis) -> bool {
        self.everything
            || self.deny_list
            || (self.servers && basis.direction == Direction::Outbound)
            || (basis.direction == Direction::Inbound
                && self.rules.may_concern(&basis.listener.name, &basis.peer.id))
            || self.bundles.contains(basis.peer.id.trust_domain())
    }
}
