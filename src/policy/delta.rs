//! Whom a change of the rules can concern: what is asked before the open connections are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::evaluate::Policy;
use super::ids::{IdSet, Ids};
use super::networks::{NetworkSet, Networks};
use super::rule::Rule;
use crate::spiffe::SpiffeId;

/// With more rules than this, looking at each costs more than deciding anew, which finds its rules by index.
const MANY: usize = 32;

/// The rules that make the difference, each as it was and as it is. A peer at a listener that none of them is about is
/// answered as before. Adding none takes nothing away: the default concerns nobody.
#[derive(Clone, Debug, Default)]
pub struct Delta<'p> {
    rules: Vec<&'p Rule>,
    /// It may concern anybody.
    anybody: bool,
}

impl<'p> Delta<'p> {
    /// That anybody may be concerned.
    #[must_use]
    pub const fn anybody() -> Self {
        Self {
            rules: Vec::new(),
            anybody: true,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.anybody |= other.anybody || self.rules.len() > MANY;
        self
    }

    /// Whether nobody is concerned.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.anybody
    }

    /// Whether the answer to a peer at a listener may be another one now.
    #[must_use]
    pub fn may_concern(&self, listener: &str, peer: &SpiffeId) -> bool {
        self.anybody
            || self
                .rules
                .iter()
                .any(|rule| rule.is_about(listener) && rule.may_match(peer))
    }

    fn of(rules: Vec<&'p Rule>) -> Self {
        Self::default().and(Self {
            rules,
            anybody: false,
        })
    }
}

impl Policy {
    /// The rules in which this policy and a later one differ, by what they match and do.
    #[must_use]
    pub fn differences<'p>(&'p self, later: &'p Self) -> Delta<'p> {
        if !self.trusts_as(later) {
            return Delta::anybody();
        }
        let mut before: HashMap<&str, &Rule> =
            self.rules().iter().map(|rule| (&**rule.name(), rule)).collect();
        let mut same = Same::default();
        let mut changed = Vec::new();
        for rule in later.rules() {
            match before.remove(&**rule.name()) {
                Some(old) if same.rules(old, rule) => {}
                old => changed.extend(old.into_iter().chain([rule])),
            }
            if changed.len() > MANY {
                return Delta::anybody();
            }
        }
        changed.extend(before.into_values());
        Delta::of(changed)
    }

    /// The rules that begin or end after `after`, up to and with `until`.
    #[must_use]
    pub fn due(&self, after: SystemTime, until: SystemTime) -> Delta<'_> {
        let due = |at: &SystemTime| after < *at && *at <= until;
        let rules = self.rules().iter();
        Delta::of(
            rules
                .filter(|rule| [rule.not_before, rule.expires].iter().flatten().any(due))
                .collect(),
        )
    }
}

/// Compares what rules say. Sets that many rules share are compared once.
#[derive(Default)]
struct Same {
    ids: HashMap<(usize, usize), bool>,
    networks: HashMap<(usize, usize), bool>,
}

impl Same {
    fn rules(&mut self, a: &Rule, b: &Rule) -> bool {
        a.action == b.action
            && a.to == b.to
            && a.listeners() == b.listeners()
            && a.not_before == b.not_before
            && a.expires == b.expires
            && self.peers(a.from.as_ref(), b.from.as_ref())
            && self.peers(a.not_from.as_ref(), b.not_from.as_ref())
            && self.sources(a.source.as_ref(), b.source.as_ref())
            && self.sources(a.not_source.as_ref(), b.not_source.as_ref())
    }

    fn peers(&mut self, a: Option<&IdSet>, b: Option<&IdSet>) -> bool {
        let equal = |a: &Ids, b: &Ids| a.patterns() == b.patterns();
        parts(a.map(IdSet::parts), b.map(IdSet::parts), &mut self.ids, equal)
    }

    fn sources(&mut self, a: Option<&NetworkSet>, b: Option<&NetworkSet>) -> bool {
        let equal = |a: &Networks, b: &Networks| a.networks() == b.networks();
        parts(
            a.map(NetworkSet::parts),
            b.map(NetworkSet::parts),
            &mut self.networks,
            equal,
        )
    }
}

/// Whether two lists have the same parts, in order. What two parts were found to be is kept: both live while it is.
fn parts<T>(
    a: Option<&[Arc<T>]>,
    b: Option<&[Arc<T>]>,
    known: &mut HashMap<(usize, usize), bool>,
    equal: impl Fn(&T, &T) -> bool,
) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return a.is_none() && b.is_none();
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            let key = (Arc::as_ptr(a).addr(), Arc::as_ptr(b).addr());
            *known.entry(key).or_insert_with(|| equal(a, b))
        })
}
