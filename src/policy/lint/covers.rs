//! Whether one rule matches all that another matches.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::policy::compile::Surroundings;
use crate::policy::ids::IdSet;
use crate::policy::networks::NetworkSet;
use crate::policy::rule::{Action, Rule};
use crate::record::Direction;
use crate::spiffe::IdPattern;
use crate::spiffe::pattern::set_covers;

/// What is known of the config.
pub(super) struct Known<'a> {
    /// Our own trust domain as a pattern.
    own: Option<IdPattern>,
    /// All inbound listeners.
    inbound: Option<HashSet<&'a str>>,
    all_networks: [IpNet; 2],
}

impl<'a> Known<'a> {
    pub(super) fn of(surroundings: Surroundings<'a>) -> Self {
        let own = surroundings.own_trust_domain;
        Self {
            own: own.and_then(|own| format!("{}/**", own.id_string()).parse().ok()),
            inbound: surroundings.listeners.map(|listeners| {
                let inbound = listeners.iter().filter(|l| l.direction == Direction::Inbound);
                inbound.map(|listener| &*listener.name).collect()
            }),
            all_networks: [Ipv4Net::default().into(), Ipv6Net::default().into()],
        }
    }

    /// Our own trust domain as a pattern, where it is known.
    pub(super) const fn own_pattern(&self) -> Option<&IdPattern> {
        self.own.as_ref()
    }

    /// Whether `not_from` leaves nobody.
    pub(super) fn excludes_all_ids(&self, rule: &Rule) -> bool {
        let (Some(not_from), Who::Patterns(patterns)) = (&rule.not_from, self.who(rule)) else {
            return false;
        };
        patterns
            .into_iter()
            .all(|pattern| set_covers(not_from.patterns(), pattern))
    }

    /// Whether `not_source` leaves no address.
    pub(super) fn excludes_all_networks(&self, rule: &Rule) -> bool {
        let Some(not_source) = &rule.not_source else {
            return false;
        };
        let excluded = aggregate(Some(not_source));
        self.networks(rule)
            .iter()
            .all(|network| within(network, &excluded))
    }

    /// Whom a rule is about, `not_from` aside.
    fn who<'r>(&'r self, rule: &'r Rule) -> Who<'r> {
        match (&rule.from, rule.action, &self.own) {
            (Some(from), ..) => Who::Patterns(from.patterns().collect()),
            (None, Action::Allow, Some(own)) => Who::Patterns(vec![own]),
            (None, Action::Allow, None) => Who::Own,
            (None, ..) => Who::Everybody,
        }
    }

    fn networks(&self, rule: &Rule) -> Vec<IpNet> {
        match &rule.source {
            Some(source) => source.networks().copied().collect(),
            None => self.all_networks.to_vec(),
        }
    }
}

enum Who<'r> {
    Patterns(Vec<&'r IdPattern>),
    /// Our own trust domain, whichever it is.
    Own,
    Everybody,
}

/// Whether `wide` matches all that `narrow` matches. `work` goes down by what is looked at; at its end the answer is no.
pub(super) fn covers(wide: &Rule, narrow: &Rule, known: &Known<'_>, work: &mut usize) -> bool {
    times_cover(wide, narrow)
        && listeners_cover(wide, narrow, known)
        && spend(work, [wide, narrow])
        && ids_cover(wide, narrow, known)
        && sources_cover(wide, narrow, known)
}

fn spend(work: &mut usize, rules: [&Rule; 2]) -> bool {
    let cost = |rule: &Rule| {
        let ids = [&rule.from, &rule.not_from].into_iter().flatten();
        let networks = [&rule.source, &rule.not_source].into_iter().flatten();
        let ids: usize = ids.map(|list| list.patterns().count()).sum();
        let networks: usize = networks.map(|list| list.networks().count()).sum();
        ids.saturating_add(networks).max(1)
    };
    let [wide, narrow] = rules.map(cost);
    // Each pattern of the one is compared with those of the other.
    let cost = wide.saturating_mul(narrow);
    let left = work.checked_sub(cost);
    *work = left.unwrap_or(0);
    left.is_some()
}

fn times_cover(wide: &Rule, narrow: &Rule) -> bool {
    let begins = |rule: &Rule| rule.not_before.unwrap_or(SystemTime::UNIX_EPOCH);
    let ends = match (wide.expires, narrow.expires) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => wide >= narrow,
        (Some(_), None) => false,
    };
    ends && (wide.not_before.is_none() || begins(wide) <= begins(narrow))
}

fn listeners_cover(wide: &Rule, narrow: &Rule, known: &Known<'_>) -> bool {
    let unresolved = |rule: &Rule| rule.ports.as_ref().is_some_and(|ports| ports.listeners.is_none());
    if unresolved(wide) || unresolved(narrow) {
        return false;
    }
    let Some(wide) = wide.listeners() else { return true };
    let wide: HashSet<&Arc<str>> = wide.into_iter().collect();
    match (narrow.listeners(), &known.inbound) {
        (Some(narrow), _) => narrow.iter().all(|name| wide.contains(*name)),
        (None, Some(inbound)) => inbound
            .iter()
            .all(|name| wide.iter().any(|other| &***other == *name)),
        (None, None) => false,
    }
}

fn ids_cover(wide: &Rule, narrow: &Rule, known: &Known<'_>) -> bool {
    let patterns = match known.who(narrow) {
        Who::Patterns(patterns) => patterns,
        Who::Own => {
            let all = matches!(known.who(wide), Who::Own | Who::Everybody);
            return all && wide.not_from.is_none();
        }
        Who::Everybody => {
            let all = matches!(known.who(wide), Who::Everybody);
            return all && excludes_no_more(wide, narrow, |_| true);
        }
    };
    let included = match known.who(wide) {
        Who::Everybody => true,
        Who::Own => false,
        Who::Patterns(wide) => patterns
            .iter()
            .all(|pattern| set_covers(wide.iter().copied(), pattern)),
    };
    included
        && excludes_no_more(wide, narrow, |excluded| {
            patterns.iter().any(|pattern| pattern.meets(excluded))
        })
}

/// Whether whom `wide` excludes, of those that `narrow` is about, `narrow` excludes as well.
fn excludes_no_more(wide: &Rule, narrow: &Rule, is_about: impl Fn(&IdPattern) -> bool) -> bool {
    let mut excluded = wide.not_from.iter().flat_map(IdSet::patterns);
    let by_narrow = || narrow.not_from.iter().flat_map(IdSet::patterns);
    excluded.all(|pattern| !is_about(pattern) || set_covers(by_narrow(), pattern))
}

fn sources_cover(wide: &Rule, narrow: &Rule, known: &Known<'_>) -> bool {
    let asks = |rule: &Rule| rule.source.is_some() || rule.not_source.is_some();
    if !asks(wide) {
        return true;
    }
    // A peer without an address: a deny rule matches it, another only when it does not ask.
    if wide.action != Action::Deny && !asks(narrow) {
        return false;
    }
    let networks = known.networks(narrow);
    if wide.source.is_some() {
        let source = aggregate(wide.source.as_ref());
        if !networks.iter().all(|network| within(network, &source)) {
            return false;
        }
    }
    let excluded = aggregate(narrow.not_source.as_ref());
    let mut by_wide = wide.not_source.iter().flat_map(NetworkSet::networks);
    by_wide.all(|network| {
        let meets = |other: &IpNet| other.contains(network) || network.contains(other);
        !networks.iter().any(meets) || within(network, &excluded)
    })
}

/// The networks with neighbours joined: what they hold together, one of these holds.
fn aggregate(networks: Option<&NetworkSet>) -> Vec<IpNet> {
    let networks = networks.into_iter().flat_map(NetworkSet::networks);
    IpNet::aggregate(&networks.copied().collect())
}

fn within(network: &IpNet, aggregated: &[IpNet]) -> bool {
    aggregated.iter().any(|wide| wide.contains(network))
}
