//! Remembers whose chains were verified, so that no signature is checked twice and all connections of one
//! certificate share one [`VerifiedPeer`].
//!
//! A cache belongs to one [`super::TrustStore`]: other bundles are another store with another, empty cache, so that
//! nothing verified by authorities of before can be found. What is found was presented byte for byte the same (the
//! hash only leads to it), by a peer that plays the same side, and its path is valid at the time that is asked about,
//! from the leaf to the authority. Refusals are not remembered: they cost the one who causes them, and their text
//! depends on the time.
//!
//! All workers share it behind one lock, which is held for a look-up and a comparison of about a kilobyte; hashing
//! and verifying happen outside of it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::{PeerSide, VerifiedPeer};

/// The most chains that are remembered.
const MAX_ENTRIES: usize = 4096;
/// The most bytes that the remembered certificates have together; a usual chain has about one thousand.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The longest chain that is remembered.
const MAX_REMEMBERED: usize = 8 * 1024;

/// The verified chains of one trust store.
pub(super) struct Cache {
    /// With a key of its own, so that nobody can aim at one place.
    hasher: RandomState,
    inner: Mutex<Inner>,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<u64, Slot>,
    /// The places of `slots`, each once, in the order in which they are asked to go.
    queue: VecDeque<u64>,
    bytes: usize,
}

struct Slot {
    side: PeerSide,
    peer: Arc<VerifiedPeer>,
    bytes: usize,
    /// Asked for since it was last asked to go.
    used: bool,
}

/// A chain as it is presented.
#[derive(Clone, Copy)]
pub(super) struct Presented<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
    pub(super) side: PeerSide,
}

impl Presented<'_> {
    fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.leaf.as_ref()).chain(self.others.iter().map(AsRef::as_ref))
    }

    fn bytes(&self) -> usize {
        self.certificates().map(<[u8]>::len).sum()
    }

    fn is(&self, slot: &Slot) -> bool {
        slot.side == self.side && self.certificates().eq(slot.peer.chain.iter().map(AsRef::as_ref))
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_limits(MAX_ENTRIES, MAX_BYTES)
    }
}

impl Cache {
    fn with_limits(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            inner: Mutex::default(),
            max_entries,
            max_bytes,
        }
    }

    /// Who presented exactly this before, if its path is valid at `now`.
    pub(super) fn find(&self, presented: &Presented<'_>, now: SystemTime) -> Option<Arc<VerifiedPeer>> {
        let place = self.place(presented);
        let mut inner = self.lock();
        let slot = inner.slots.get_mut(&place)?;
        if !presented.is(slot) || now < slot.peer.not_before || slot.peer.not_after < now {
            // Another path may be valid, and if none is, the search says why.
            return None;
        }
        slot.used = true;
        Some(slot.peer.clone())
    }

    /// Remembers a peer that was just verified, in the place of what is there.
    pub(super) fn insert(&self, presented: &Presented<'_>, peer: &Arc<VerifiedPeer>) {
        // It is remembered before the peer has shown that it holds the key: one who pads a chain that it has seen must
        // not push out those that are in use.
        if presented.bytes() > MAX_REMEMBERED {
            return;
        }
        let place = self.place(presented);
        let slot = Slot {
            side: presented.side,
            peer: peer.clone(),
            bytes: presented.bytes(),
            used: false,
        };
        let mut inner = self.lock();
        inner.bytes = inner.bytes.saturating_add(slot.bytes);
        match inner.slots.insert(place, slot) {
            Some(old) => inner.bytes = inner.bytes.saturating_sub(old.bytes),
            None => inner.queue.push_back(place),
        }
        while inner.slots.len() > self.max_entries || inner.bytes > self.max_bytes {
            if !inner.evict() {
                break;
            }
        }
    }

    fn place(&self, presented: &Presented<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u8(match presented.side {
            PeerSide::Client => 0,
            PeerSide::Server => 1,
        });
        for certificate in presented.certificates() {
            hasher.write_usize(certificate.len());
            hasher.write(certificate);
        }
        hasher.finish()
    }

    /// Also after a panic elsewhere: at worst a slot is missing from the queue, and stays.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Removes the first in the queue that was not used since its last turn. Ends: a turn takes its mark from each.
    fn evict(&mut self) -> bool {
        while let Some(place) = self.queue.pop_front() {
            match self.slots.get_mut(&place) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.queue.push_back(place);
                }
                Some(_) => {
                    if let Some(slot) = self.slots.remove(&place) {
                        self.bytes = self.bytes.saturating_sub(slot.bytes);
                    }
                    return true;
                }
                None => {}
            }
        }
        false
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::spiffe::SpiffeId;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn chain(certificates: &[&[u8]]) -> Vec<CertificateDer<'static>> {
        certificates
            .iter()
            .map(|bytes| CertificateDer::from(bytes.to_vec()))
            .collect()
    }

    fn presented<'a>(chain: &'a [CertificateDer<'a>], side: PeerSide) -> Presented<'a> {
        let (leaf, others) = chain.split_first().unwrap();
        Presented { leaf, others, side }
    }

    /// What a verification of `chain` would have answered; valid from second 10 to second 20.
    fn peer(chain: &[CertificateDer<'static>]) -> Arc<VerifiedPeer> {
        Arc::new(VerifiedPeer {
            id: Arc::new(SpiffeId::new("spiffe://example.org/a").unwrap()),
            chain: chain.into(),
            not_before: at(10),
            not_after: at(20),
            issued: at(10),
            serial: "".into(),
            key_hash: [0; 32],
            key_type: String::new(),
        })
    }

    fn put(cache: &Cache, certificates: &[&[u8]]) -> Arc<VerifiedPeer> {
        let chain = chain(certificates);
        let peer = peer(&chain);
        cache.insert(&presented(&chain, PeerSide::Client), &peer);
        peer
    }

    /// Bytes, slots, and places in the queue.
    fn size(cache: &Cache) -> (usize, usize, usize) {
        let inner = cache.lock();
        (inner.bytes, inner.slots.len(), inner.queue.len())
    }

    fn has(cache: &Cache, certificates: &[&[u8]]) -> bool {
        let chain = chain(certificates);
        cache.find(&presented(&chain, PeerSide::Client), at(15)).is_some()
    }

    #[test]
    fn only_the_very_same_bytes_of_the_same_side_are_found() {
        let cache = Cache::default();
        let kept = put(&cache, &[b"leaf", b"ca"]);
        let same = chain(&[b"leaf", b"ca"]);
        let found = cache.find(&presented(&same, PeerSide::Client), at(15)).unwrap();
        assert!(Arc::ptr_eq(&found, &kept));
        assert!(cache.find(&presented(&same, PeerSide::Server), at(15)).is_none());
        for other in [
            &[&b"leaf"[..], b"cb"] as &[&[u8]],
            &[b"leaf"],
            &[b"leafca"],
            &[b"leafc", b"a"],
            &[b"leaf", b"ca", b""],
            &[b"ca", b"leaf"],
            &[b"leaf", b"ca", b"ca"],
        ] {
            assert!(!has(&cache, other), "{other:?}");
        }
    }

    #[test]
    fn a_place_that_another_chain_holds_is_a_miss() {
        // As if the two chains had the same hash.
        let cache = Cache::default();
        put(&cache, &[b"one"]);
        let two = chain(&[b"two"]);
        let two = presented(&two, PeerSide::Client);
        let place = cache.place(&two);
        let slot = cache.lock().slots.drain().next().unwrap().1;
        cache.lock().slots.insert(place, slot);
        assert!(cache.find(&two, at(15)).is_none());
    }

    #[test]
    fn found_only_while_the_whole_path_is_valid() {
        let cache = Cache::default();
        put(&cache, &[b"leaf"]);
        let chain = chain(&[b"leaf"]);
        for (now, found) in [(9, false), (10, true), (20, true), (21, false), (11, true)] {
            let peer = cache.find(&presented(&chain, PeerSide::Client), at(now));
            assert_eq!(peer.is_some(), found, "at {now}");
        }
    }

    #[test]
    fn bounded_by_entries_and_what_is_used_stays() {
        let cache = Cache::with_limits(3, 1000);
        for name in [b"a", b"b", b"c"] {
            put(&cache, &[name]);
        }
        assert!(has(&cache, &[b"a"]));
        put(&cache, &[b"d"]);
        assert!(has(&cache, &[b"a"]), "it was used");
        assert!(!has(&cache, &[b"b"]), "it was the oldest of those that were not");
        assert!(has(&cache, &[b"c"]) && has(&cache, &[b"d"]));
        // All are in use: one goes nevertheless.
        put(&cache, &[b"e"]);
        assert_eq!(size(&cache), (3, 3, 3));
    }

    #[test]
    fn bounded_by_bytes_and_the_sum_is_kept() {
        let cache = Cache::with_limits(100, 10);
        put(&cache, &[b"1234", b"1"]);
        put(&cache, &[b"12345"]);
        assert_eq!(size(&cache), (10, 2, 2));
        // The same again takes the place of the first.
        put(&cache, &[b"12345"]);
        assert_eq!(size(&cache), (10, 2, 2));
        put(&cache, &[b"x"]);
        assert_eq!(size(&cache), (6, 2, 2));
        assert!(!has(&cache, &[b"1234", b"1"]));
        // One that is too large alone is not kept, and takes all others with it at worst.
        put(&cache, &[b"12345678901"]);
        assert_eq!(size(&cache), (0, 0, 0));
    }
}
