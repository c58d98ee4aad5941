//! A part of the registry behind one lock: the bases of some peers and the connections that rest on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;
use std::time::SystemTime;

use super::{Basis, Entry, Trust, lock};

/// What is copied while the lock is held: some ten microseconds.
const SLICE: usize = 256;

/// The number of a basis and of a connection that rests on it.
type Place = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Those of one basis lie side by side.
    entries: BTreeMap<Place, Arc<Entry>>,
    bases: BTreeMap<u64, Arc<Basis>>,
    /// What a new connection can rest on together with others.
    joinable: HashMap<Key, u64>,
    /// When each basis ends.
    ends: BTreeSet<(SystemTime, u64)>,
}

/// What makes two bases one. The addresses of what is shared; a basis that is kept keeps them from being given to others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    listener: usize,
    source: Option<IpAddr>,
    destination: Option<SocketAddr>,
    peer: usize,
    own: usize,
    bundle: usize,
}

impl Key {
    fn of(basis: &Basis) -> Self {
        let bundle = lock(&basis.trust).bundle.as_ref().map(Arc::as_ptr);
        Self {
            listener: Arc::as_ptr(&basis.listener).addr(),
            source: basis.source,
            destination: basis.destination,
            peer: Arc::as_ptr(&basis.peer).addr(),
            own: Arc::as_ptr(&basis.own).addr(),
            bundle: bundle.map_or(0, <*const _>::addr),
        }
    }
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a connection that rests on `basis`, or on one like it that is here.
    pub(super) fn add(&mut self, basis: Basis, entry: impl FnOnce(Arc<Basis>) -> Entry) -> Arc<Entry> {
        let basis = self.join(basis);
        let number = basis.number;
        let entry = Arc::new(entry(basis));
        self.entries.insert((number, entry.id), entry.clone());
        entry
    }

    /// Moves a connection to another basis, which is returned; `None` for one that is not here any more.
    pub(super) fn rebase(&mut self, entry: &Arc<Entry>, basis: Basis) -> Option<Arc<Basis>> {
        if !self.take(entry) {
            return None;
        }
        let basis = self.join(basis);
        entry.basis.store(basis.clone());
        self.entries.insert((basis.number, entry.id), entry.clone());
        Some(basis)
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.take(entry);
    }

    pub(super) fn set_trust(&mut self, basis: &Basis, trust: Trust) {
        if !self.bases.contains_key(&basis.number) {
            *lock(&basis.trust) = trust;
            return;
        }
        self.forget(basis);
        *lock(&basis.trust) = trust;
        self.ends.insert((basis.expires(), basis.number));
        // Where there is another like it by now, both are kept: each has its connections.
        self.joinable.entry(Key::of(basis)).or_insert(basis.number);
    }

    pub(super) fn entries_after(&self, after: &Place) -> Vec<(Place, Arc<Entry>)> {
        self.entries
            .range((Excluded(after), Unbounded))
            .take(SLICE)
            .map(|(place, entry)| (*place, entry.clone()))
            .collect()
    }

    pub(super) fn bases_after(&self, after: &u64) -> Vec<Arc<Basis>> {
        self.bases
            .range((Excluded(after), Unbounded))
            .take(SLICE)
            .map(|(_, basis)| basis.clone())
            .collect()
    }

    pub(super) fn members_after(&self, basis: u64, after: u64) -> Vec<Arc<Entry>> {
        self.entries
            .range((Excluded((basis, after)), Included((basis, u64::MAX))))
            .take(SLICE)
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    pub(super) fn ended(&self, after: SystemTime, until: SystemTime) -> Vec<Arc<Basis>> {
        if until <= after {
            return Vec::new();
        }
        self.ends
            .range((Excluded((after, u64::MAX)), Included((until, u64::MAX))))
            .filter_map(|(_, number)| self.bases.get(number).cloned())
            .collect()
    }

    pub(super) fn next_end(&self, after: SystemTime) -> Option<SystemTime> {
        self.ends
            .range((Excluded((after, u64::MAX)), Unbounded))
            .next()
            .map(|(end, _)| *end)
    }

    fn join(&mut self, basis: Basis) -> Arc<Basis> {
        let key = Key::of(&basis);
        if let Some(known) = self.joinable.get(&key).and_then(|number| self.bases.get(number)) {
            return known.clone();
        }
        let basis = Arc::new(basis);
        self.joinable.insert(key, basis.number);
        self.ends.insert((basis.expires(), basis.number));
        self.bases.insert(basis.number, basis.clone());
        basis
    }

    /// Takes a connection out, and its basis with the last of its connections. Whether it was here.
    fn take(&mut self, entry: &Entry) -> bool {
        let basis = entry.basis();
        let number = basis.number;
        let was_here = self.entries.remove(&(number, entry.id)).is_some();
        let rest = self.entries.range((number, 0)..=(number, u64::MAX)).next();
        if rest.is_none() && self.bases.remove(&number).is_some() {
            self.forget(&basis);
        }
        was_here
    }

    /// Takes a basis out of what finds it.
    fn forget(&mut self, basis: &Basis) {
        self.ends.remove(&(basis.expires(), basis.number));
        let key = Key::of(basis);
        if self.joinable.get(&key) == Some(&basis.number) {
            self.joinable.remove(&key);
        }
    }
}
