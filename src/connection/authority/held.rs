//! Connections that would not be admitted any more and live on: for a while, or with a word in the log.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use crate::connection::registry::Entry;
use crate::record::{Decision, Reason};

/// The connections that are let live, by number.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<u64, One>);

#[derive(Debug)]
struct One {
    entry: Weak<Entry>,
    /// Until when it may end by itself; `None` for ever.
    until: Option<Instant>,
    /// What was recorded of it last, so that it is said once.
    verdict: Arc<Decision>,
}

impl Held {
    /// Gives a connection time until `until`. What was given before is not made longer. `verdict` records why, where that
    /// was not said yet.
    pub(super) fn drain(
        &mut self,
        entry: &Arc<Entry>,
        until: Instant,
        reason: Reason,
        verdict: impl FnOnce() -> Arc<Decision>,
    ) {
        let begun = self.0.get(&entry.id).and_then(|one| one.until);
        self.hold(
            entry,
            Some(begun.map_or(until, |begun| begun.min(until))),
            reason,
            verdict,
        );
    }

    /// Lets a connection live. `verdict` records that, where it was not said yet.
    pub(super) fn note(
        &mut self,
        entry: &Arc<Entry>,
        reason: Reason,
        verdict: impl FnOnce() -> Arc<Decision>,
    ) {
        self.hold(entry, None, reason, verdict);
    }

    fn hold(
        &mut self,
        entry: &Arc<Entry>,
        until: Option<Instant>,
        reason: Reason,
        verdict: impl FnOnce() -> Arc<Decision>,
    ) {
        let said = self
            .0
            .get(&entry.id)
            .filter(|one| one.verdict.reason == Some(reason) && one.verdict.enforced == until.is_some())
            .map(|one| one.verdict.clone());
        let one = One {
            entry: Arc::downgrade(entry),
            until,
            verdict: said.unwrap_or_else(verdict),
        };
        self.0.insert(entry.id, one);
    }

    /// Takes those out that rest on a basis of these, and those that have ended.
    pub(super) fn admitted_again(&mut self, good: &[u64]) {
        if self.0.is_empty() {
            return;
        }
        let good: BTreeSet<u64> = good.iter().copied().collect();
        self.0.retain(|_, one| {
            one.entry
                .upgrade()
                .is_some_and(|entry| !good.contains(&entry.basis().number()))
        });
    }

    /// Those whose time is over, with what was found.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(Arc<Entry>, Arc<Decision>)> {
        let over = |one: &One| one.until.is_some_and(|until| until <= now);
        self.0
            .extract_if(|_, one| over(one))
            .filter_map(|(_, one)| Some((one.entry.upgrade()?, one.verdict)))
            .collect()
    }

    /// When the next one's time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|one| one.until).min()
    }

    /// What was only logged of a connection.
    #[cfg(test)]
    pub(super) fn said(&self, entry: &Entry) -> Option<Reason> {
        let one = self.0.get(&entry.id)?;
        one.verdict.reason.filter(|_| !one.verdict.enforced)
    }
}
