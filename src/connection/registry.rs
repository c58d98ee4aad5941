//! The connections that are open, each with what it was admitted on, so that a change can find those it concerns.
//!
//! A connection registers *before* it is checked against policy and bundles. A change that comes later finds it here;
//! a change that came earlier is already in the snapshot that the check loads. None falls in between.
//!
//! What is asked of a connection after a change is the same for all that share a [`Basis`]: the listener, the peer's
//! verified chain, its address, and the SVID of ours. So the registry keeps bases, each once, with the connections that
//! rest on it, and those that ask ([`super::authority`]) ask about bases. Fifty thousand connections of a thousand
//! peers are a thousand questions, and connections are touched only where the answer is no. The ends of the chains are
//! kept in order; everything else that a change names (a listener, a peer, a trust domain, our identity) is a look at
//! a basis, which costs less than keeping an index of it at every connection would.
//!
//! It is divided into shards by the peer's ID, and whoever reads it takes a slice at a time, so that a worker that
//! registers or removes a connection waits for microseconds at most.

mod entry;
mod shard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use atomic_waker::AtomicWaker;

use crate::record::{Direction, Ending};
use crate::tls::verify::VerifiedPeer;
pub use entry::{Basis, Entry, OtherIdentity, Registration, Renewal, Trust};
use shard::Shard;

/// Enough that workers seldom meet at one.
const SHARDS: usize = 16;

/// The open connections.
#[derive(Debug)]
pub struct Registry {
    shards: Arc<[Mutex<Shard>; SHARDS]>,
    /// With a key of its own, so that nobody can aim at one shard.
    hasher: RandomState,
    next_id: AtomicU64,
    next_basis: AtomicU64,
    /// Bases of connections that were admitted or renewed since they were last taken, by number.
    fresh: Mutex<BTreeMap<u64, Arc<Basis>>>,
    /// That all must end, also those that come now.
    end_of_all: OnceLock<Ending>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            shards: Arc::default(),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(1),
            next_basis: AtomicU64::new(1),
            fresh: Mutex::default(),
            end_of_all: OnceLock::new(),
        }
    }
}

/// A registered connection; taken out of the registry when dropped.
#[derive(Debug)]
pub struct Registered {
    /// What was registered.
    pub entry: Arc<Entry>,
    shards: Arc<[Mutex<Shard>; SHARDS]>,
    shard: usize,
}

impl Registered {
    /// Resolves when the connection is told to end.
    pub fn told_to_end(&self) -> impl Future<Output = Ending> + Send + use<> {
        let entry = self.entry.clone();
        poll_fn(move |cx| entry.poll_order(cx))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(shard) = self.shards.get(self.shard) {
            lock(shard).remove(&self.entry);
        }
    }
}

impl Registry {
    /// The number of the next connection.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a connection.
    #[must_use]
    pub fn register(&self, facts: Registration) -> Registered {
        let shard = self.shard_of(&facts.peer);
        let basis = Basis {
            number: self.next_basis.fetch_add(1, Ordering::Relaxed),
            listener: facts.listener,
            direction: facts.direction,
            source: match facts.direction {
                Direction::Inbound => facts.source.ip(),
                Direction::Outbound => None,
            },
            destination: match facts.direction {
                Direction::Inbound => None,
                Direction::Outbound => facts.destination.as_deref().copied(),
            },
            trust: Mutex::new(Trust::new(facts.bundle, &facts.peer)),
            peer: facts.peer,
            own: facts.own,
        };
        let entry = self.lock(shard).add(basis, |basis| Entry {
            id: facts.id,
            peer_addr: facts.peer_addr,
            source: facts.source,
            destination: facts.destination,
            local: OnceLock::new(),
            since: facts.since,
            traffic: Arc::default(),
            decision: OnceLock::new(),
            basis: ArcSwap::new(basis),
            order: OnceLock::new(),
            can_renew: AtomicBool::new(false),
            renewal_due: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        // After the entry is visible: who ends all either finds it or has said so before.
        if let Some(order) = self.end_of_all.get() {
            entry.order_close(order.clone());
        }
        Registered {
            entry,
            shards: self.shards.clone(),
            shard,
        }
    }

    /// Puts an open connection on its renewed chains. It is found by what they are and when they end from now on, and
    /// [`Self::take_fresh`] has it asked about anew: to be called once the new chain is verified, and followed by
    /// `Live::changed.notify_one()`.
    ///
    /// # Errors
    /// When an ID is not that of before; the connection is left as it was.
    pub fn renew(&self, entry: &Arc<Entry>, renewal: Renewal) -> Result<(), OtherIdentity> {
        let before = entry.basis();
        let Renewal { peer, own } = renewal;
        let (peer, trust) = match peer {
            Some((peer, bundle)) => {
                let trust = Trust::new(bundle, &peer);
                (peer, trust)
            }
            None => (before.peer.clone(), before.trust()),
        };
        let own = own.unwrap_or_else(|| before.own.clone());
        if peer.id != before.peer.id || own.id != before.own.id {
            return Err(OtherIdentity);
        }
        let shard = self.shard_of(&peer);
        let basis = self.lock(shard).rebase(
            entry,
            Basis {
                number: self.next_basis.fetch_add(1, Ordering::Relaxed),
                listener: before.listener.clone(),
                direction: before.direction,
                source: before.source,
                destination: before.destination,
                peer,
                own,
                trust: Mutex::new(trust),
            },
        );
        if let Some(basis) = basis {
            lock(&self.fresh).insert(basis.number, basis);
        }
        Ok(())
    }

    /// Tells every connection to end, and those that register from now on. Later calls do nothing.
    pub fn end_all(&self, order: &Ending) {
        if self.end_of_all.set(order.clone()).is_ok() {
            for entry in self.snapshot() {
                entry.order_close(order.clone());
            }
        }
    }

    /// All entries, in no order. Those that come or go meanwhile may be missing or not.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<Entry>> {
        self.entries().collect()
    }

    /// As [`Self::snapshot`], one after the other; nothing is locked between two slices.
    pub fn entries(&self) -> impl Iterator<Item = Arc<Entry>> + Send + '_ {
        let slices = self.slices(|shard, after| {
            let slice = shard.entries_after(after);
            slice.last().map(|(place, _)| *place).map(|last| (slice, last))
        });
        slices.flatten().map(|(_, entry)| entry)
    }

    /// The connections that the application sees come from `local`: one, or none.
    #[must_use]
    pub fn at_application(&self, local: SocketAddr) -> Vec<Arc<Entry>> {
        let slices = self.slices(|shard, after| {
            let slice = shard.entries_after(after);
            let last = slice.last().map(|(place, _)| *place)?;
            let found = slice.into_iter().map(|(_, entry)| entry);
            let found: Vec<_> = found.filter(|entry| entry.local.get() == Some(&local)).collect();
            Some((found, last))
        });
        slices.flatten().collect()
    }

    /// The connection of this number, while it is open.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<Arc<Entry>> {
        let mut slices = self.slices(|shard, after| {
            let slice = shard.entries_after(after);
            let last = slice.last().map(|(place, _)| *place)?;
            let mut found = slice.into_iter().map(|(_, entry)| entry);
            Some((found.find(|entry| entry.id == id).into_iter().collect(), last))
        });
        slices.find_map(|mut found| found.pop())
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bases, a slice at a time; nothing is locked between two slices. One that is made meanwhile may be missing: its
    /// connections are checked by what is in force when they register.
    pub fn bases(&self) -> impl Iterator<Item = Vec<Arc<Basis>>> + Send + '_ {
        self.slices(|shard, after| {
            let slice = shard.bases_after(after);
            slice.last().map(|basis| basis.number).map(|last| (slice, last))
        })
    }

    /// The bases whose earlier end lies after `after`, up to and with `until`.
    #[must_use]
    pub fn ended(&self, after: SystemTime, until: SystemTime) -> Vec<Arc<Basis>> {
        self.shards
            .iter()
            .flat_map(|shard| lock(shard).ended(after, until))
            .collect()
    }

    /// The first end of a basis after `after`.
    #[must_use]
    pub fn next_end(&self, after: SystemTime) -> Option<SystemTime> {
        self.shards
            .iter()
            .filter_map(|shard| lock(shard).next_end(after))
            .min()
    }

    /// The connections that rest on a basis, a slice at a time, as [`Self::bases`] gives them.
    pub fn members<'a>(&'a self, basis: &Basis) -> impl Iterator<Item = Vec<Arc<Entry>>> + Send + 'a {
        let (number, shard) = (basis.number, self.shard_of(&basis.peer));
        let mut after = Some(0);
        std::iter::from_fn(move || {
            let slice = self.lock(shard).members_after(number, after?);
            // Numbers of connections begin at 1.
            after = slice.last().map(|entry| entry.id);
            (!slice.is_empty()).then_some(slice)
        })
    }

    /// Notes that a basis was verified anew: by another bundle, which may have moved its ends.
    pub fn verified(&self, basis: &Basis, trust: Trust) {
        self.lock(self.shard_of(&basis.peer)).set_trust(basis, trust);
    }

    /// Notes that a connection was admitted: it is asked about once more, since what admitted it may have been in force for no
    /// longer than between two looks.
    pub fn admitted(&self, entry: &Entry) {
        let basis = entry.basis();
        lock(&self.fresh).insert(basis.number, basis);
    }

    /// The bases of those that were admitted or renewed since this was last asked.
    #[must_use]
    pub fn take_fresh(&self) -> Vec<Arc<Basis>> {
        std::mem::take(&mut *lock(&self.fresh)).into_values().collect()
    }

    /// What `next` finds in each shard, called with the last that it found until it finds no more.
    fn slices<'a, T, P: Default + Send + 'a>(
        &'a self,
        next: impl Fn(&Shard, &P) -> Option<(Vec<T>, P)> + Send + 'a,
    ) -> impl Iterator<Item = Vec<T>> + Send + 'a {
        let mut shards = self.shards.iter();
        let mut current = shards.next().map(|shard| (shard, P::default()));
        std::iter::from_fn(move || {
            loop {
                let (shard, after) = current.take()?;
                let found = next(&lock(shard), &after);
                match found {
                    Some((slice, last)) => {
                        current = Some((shard, last));
                        return Some(slice);
                    }
                    None => current = shards.next().map(|shard| (shard, P::default())),
                }
            }
        })
    }

    fn shard_of(&self, peer: &VerifiedPeer) -> usize {
        // Which bits are left is all the same.
        #[expect(clippy::cast_possible_truncation, reason = "a hash")]
        let hash = self.hasher.hash_one(&*peer.id) as usize;
        hash % SHARDS
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        let [first, ..] = &*self.shards;
        // The index is below their number.
        lock(self.shards.get(shard).unwrap_or(first))
    }
}

/// Locks, also after a panic elsewhere: no holder leaves the data half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
