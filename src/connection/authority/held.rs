//! Connections that would not be admitted any more and live on: for a while, or with a word in the log.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use crate::connection::registry::Entry;
use crate::record::{Ending, Reason};

/// The connections that are let live, by number.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<u64, One>);

#[derive(Debug)]
struct One {
    entry: Weak<Entry>,
    /// Until when it may end by itself; `None` for ever.
    until: Option<Instant>,
    order: Ending,
    /// What was logged of it last, so that it is said once.
    said: Option<Reason>,
}

impl Held {
    /// Gives a connection time until `until`. What was given before is not made longer.
    pub(super) fn drain(&mut self, entry: &Arc<Entry>, until: Instant, order: Ending) {
        let one = self.one(entry, &order);
        one.until = Some(one.until.map_or(until, |begun| begun.min(until)));
        one.order = order;
    }

    /// Lets a connection live, and says so.
    pub(super) fn note(&mut self, entry: &Arc<Entry>, order: Ending) {
        let one = self.one(entry, &order);
        one.until = None;
        if one.said.replace(order.reason) != Some(order.reason) {
            let basis = entry.basis();
            tracing::warn!(
                id = entry.id, listener = %basis.listener.name, peer_id = %basis.peer.id,
                reason = %order.reason, detail = order.detail,
                "an open connection would not be admitted any more; it lives on as the settings say"
            );
        }
        one.order = order;
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

    /// Those whose time is over, with their orders.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(Arc<Entry>, Ending)> {
        let over = |one: &One| one.until.is_some_and(|until| until <= now);
        self.0
            .extract_if(|_, one| over(one))
            .filter_map(|(_, one)| Some((one.entry.upgrade()?, one.order)))
            .collect()
    }

    /// When the next one's time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|one| one.until).min()
    }

    /// What was only logged of a connection.
    #[cfg(test)]
    pub(super) fn said(&self, entry: &Entry) -> Option<Reason> {
        self.0.get(&entry.id).and_then(|one| one.said)
    }

    fn one(&mut self, entry: &Arc<Entry>, order: &Ending) -> &mut One {
        self.0.entry(entry.id).or_insert_with(|| One {
            entry: Arc::downgrade(entry),
            until: None,
            order: order.clone(),
            said: None,
        })
    }
}
