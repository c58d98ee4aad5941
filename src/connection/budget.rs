//! What each identity uses of its budgets: connections at once, new ones over time, bytes a second.
//!
//! Counted by the budget's name and the peer's SPIFFE ID, for all workers together. A budget whose name a new policy has
//! too keeps its counts, and its new limits hold from then on, for open connections' bytes as well. An account lives
//! while somebody uses it and until what was used has been earned again; then nothing is left of it, so that memory is
//! bounded by who is there. The lock is taken when a connection comes and when it ends, and only by peers with a budget;
//! bytes are taken from atomics ([`crate::forward::pace`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::registry::lock;
use crate::authorize::Budget;
use crate::forward::pace::{Pace, Rate};
use crate::spiffe::SpiffeId;

/// The accounts of all identities.
#[derive(Debug)]
pub struct Budgets(Mutex<Accounts>);

#[derive(Debug)]
struct Accounts {
    epoch: Instant,
    /// The budgets of the policy in force.
    in_force: HashMap<Arc<str>, Arc<Budget>>,
    by_budget: HashMap<Arc<str>, HashMap<Arc<SpiffeId>, Account>>,
    /// Accounts that nobody uses, by the time at which they may be forgotten; the number tells two of one time apart.
    leaving: BTreeMap<(Instant, u64), (Arc<str>, Arc<SpiffeId>)>,
    next: u64,
}

/// What one identity uses of one budget.
#[derive(Debug)]
struct Account {
    open: u32,
    /// New connections: up to when their rate is spoken for, in nanoseconds after the epoch, as [`Rate`] has it of bytes.
    spoken_for: u64,
    bytes: Arc<Rate>,
    /// Whether it is among those that leave.
    leaving: bool,
}

/// That a connection is counted; not any more when dropped.
#[derive(Debug)]
pub(super) struct InUse {
    budgets: Arc<Budgets>,
    peer: Arc<SpiffeId>,
    used: Box<[(Arc<str>, Arc<Rate>)]>,
}

/// That a budget is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) budget: Arc<Budget>,
    /// By what, with numbers.
    pub(super) detail: String,
}

impl Default for Budgets {
    fn default() -> Self {
        Self(Mutex::new(Accounts {
            epoch: Instant::now(),
            in_force: HashMap::new(),
            by_budget: HashMap::new(),
            leaving: BTreeMap::new(),
            next: 0,
        }))
    }
}

impl Budgets {
    /// Takes over the budgets of a policy. To be called before the policy is published: then nobody meets a budget of
    /// which nothing is known here.
    pub fn put(&self, budgets: impl IntoIterator<Item = Arc<Budget>>) {
        let mut accounts = lock(&self.0);
        accounts.in_force = budgets
            .into_iter()
            .map(|budget| (budget.name.clone(), budget))
            .collect();
        let now = accounts.since_epoch(Instant::now());
        let Accounts {
            in_force, by_budget, ..
        } = &mut *accounts;
        for (name, of_budget) in by_budget {
            let budget = in_force.get(name);
            let rate = budget.and_then(|budget| budget.connections_per_second);
            for account in of_budget.values_mut() {
                account
                    .bytes
                    .set(budget.and_then(|budget| budget.bytes_per_second));
                if let Some(rate) = rate {
                    // What a larger bucket had lent is not asked back from a smaller one.
                    account.spoken_for = account.spoken_for.min(Tokens::of(rate, now).full());
                }
            }
        }
    }

    /// Counts a connection of `peer` against `budgets`. One of them that is used up is told; the connection is then counted
    /// only if it comes in nevertheless (`enforced` is false). Nothing is done, and nobody waited for, where there are
    /// none.
    pub(super) fn enter(
        self: &Arc<Self>,
        budgets: &[&Arc<Budget>],
        peer: &Arc<SpiffeId>,
        enforced: bool,
    ) -> (Option<InUse>, Option<Over>) {
        if budgets.is_empty() {
            return (None, None);
        }
        let now = Instant::now();
        let mut accounts = lock(&self.0);
        accounts.forget_unused(now);
        // By what the policy in force says of them, which may be newer than the one that named them.
        let budgets: Vec<Arc<Budget>> = budgets
            .iter()
            .filter_map(|budget| accounts.in_force.get(&budget.name).cloned())
            .collect();
        let over = budgets.iter().find_map(|budget| accounts.over(budget, peer, now));
        if over.is_some() && enforced {
            return (None, over);
        }
        let used = budgets.iter().map(|budget| {
            let rate = accounts.count(budget, peer, now);
            (budget.name.clone(), rate)
        });
        let used: Box<[_]> = used.collect();
        drop(accounts);
        let in_use = (!used.is_empty()).then(|| InUse {
            budgets: self.clone(),
            peer: peer.clone(),
            used,
        });
        (in_use, over)
    }

    /// Forgets accounts that nobody uses and of which nothing is owed any more.
    pub fn forget_unused(&self) {
        lock(&self.0).forget_unused(Instant::now());
    }

    fn leave(&self, budget: &Arc<str>, peer: &Arc<SpiffeId>) {
        let mut accounts = lock(&self.0);
        if let Some(account) = accounts.account(budget, peer) {
            account.open = account.open.saturating_sub(1);
        }
        accounts.let_go(budget, peer);
    }

    /// How many accounts there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        lock(&self.0).by_budget.values().map(HashMap::len).sum()
    }
}

impl Accounts {
    fn account(&mut self, budget: &str, peer: &SpiffeId) -> Option<&mut Account> {
        self.by_budget.get_mut(budget)?.get_mut(peer)
    }

    /// What of the budget is used up.
    fn over(&self, budget: &Arc<Budget>, peer: &SpiffeId, now: Instant) -> Option<Over> {
        let account = self.by_budget.get(&budget.name).and_then(|of| of.get(peer));
        let open = account.map_or(0, |account| account.open);
        let detail = match (budget.connections, budget.connections_per_second) {
            (Some(most), _) if open >= most => format!(
                "budget `{}`: {open} connections of `{peer}` are open, and {most} is the most",
                budget.name
            ),
            (_, Some(rate)) => {
                let spoken_for = account.map_or(0, |account| account.spoken_for);
                if Tokens::of(rate, self.since_epoch(now)).take(spoken_for).is_some() {
                    return None;
                }
                format!(
                    "budget `{}`: more than {} new connections a second of `{peer}`, after {} at once",
                    budget.name, rate.per_second, rate.burst
                )
            }
            _ => return None,
        };
        Some(Over {
            budget: budget.clone(),
            detail,
        })
    }

    /// Counts one more; its new account, if it has none.
    fn count(&mut self, budget: &Arc<Budget>, peer: &Arc<SpiffeId>, now: Instant) -> Arc<Rate> {
        let now = self.since_epoch(now);
        let of_budget = self.by_budget.entry(budget.name.clone()).or_default();
        let account = of_budget.entry(peer.clone()).or_insert_with(|| Account {
            open: 0,
            spoken_for: 0,
            bytes: Arc::new(Rate::new(budget.bytes_per_second)),
            leaving: false,
        });
        account.open = account.open.saturating_add(1);
        if let Some(rate) = budget.connections_per_second
            && let Some(spoken_for) = Tokens::of(rate, now).take(account.spoken_for)
        {
            account.spoken_for = spoken_for;
        }
        account.bytes.clone()
    }

    /// An account that nobody uses leaves when nothing of it is spoken for any more.
    fn let_go(&mut self, budget: &Arc<str>, peer: &Arc<SpiffeId>) {
        let epoch = self.epoch;
        let Some(account) = self.account(budget, peer) else {
            return;
        };
        if account.open > 0 || account.leaving {
            return;
        }
        account.leaving = true;
        let at = account.unused_from(epoch);
        self.next += 1;
        let key = (at, self.next);
        self.leaving.insert(key, (budget.clone(), peer.clone()));
    }

    fn forget_unused(&mut self, now: Instant) {
        while let Some(first) = self.leaving.first_entry()
            && first.key().0 <= now
        {
            let (budget, peer) = first.remove();
            let epoch = self.epoch;
            let Some(account) = self.account(&budget, &peer) else {
                continue;
            };
            account.leaving = false;
            if account.open == 0 && account.unused_from(epoch) <= now {
                if let Some(of_budget) = self.by_budget.get_mut(&budget) {
                    of_budget.remove(&peer);
                    if of_budget.is_empty() {
                        self.by_budget.remove(&budget);
                    }
                }
            } else {
                // It was used meanwhile; when it is no more, it is told anew.
                self.let_go(&budget, &peer);
            }
        }
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Account {
    fn unused_from(&self, epoch: Instant) -> Instant {
        let admitted = epoch + Duration::from_nanos(self.spoken_for);
        admitted.max(self.bytes.unused_from())
    }
}

/// A bucket of new connections at one moment. All in nanoseconds.
struct Tokens {
    now: u64,
    /// How long one takes to be earned.
    each: u64,
    /// How long all take.
    all: u64,
}

impl Tokens {
    fn of(rate: crate::authorize::Rate, now: u64) -> Self {
        let each = 1_000_000_000_u64.div_ceil(u64::from(rate.per_second.max(1)));
        Self {
            now,
            each,
            all: each.saturating_mul(u64::from(rate.burst.max(1))),
        }
    }

    /// Up to when it is spoken for when it is empty.
    const fn full(&self) -> u64 {
        self.now.saturating_add(self.all)
    }

    /// One, from a bucket that is spoken for up to then; none where it is empty.
    fn take(&self, spoken_for: u64) -> Option<u64> {
        let after = spoken_for.max(self.now).saturating_add(self.each);
        (after <= self.full()).then_some(after)
    }
}

impl InUse {
    /// What the connection's payload is held back to.
    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.used.iter().map(|(_, rate)| rate.clone()))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        for (budget, _) in &self.used {
            self.budgets.leave(budget, &self.peer);
        }
    }
}

#[cfg(test)]
mod tests;
