//! The connections that are open, each with what it was admitted on, so that a change can find those it concerns.
//!
//! A connection registers *before* it is checked against policy and bundles. A change that comes later finds it here;
//! a change that came earlier is already in the snapshot that the check loads. None falls in between.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atomic_waker::AtomicWaker;

use crate::authorize::Decision;
use crate::config::settings;
use crate::forward::meter::Traffic;
use crate::identity::material::{Bundle, Svid};
use crate::record::{Direction, Ending, PeerAddr, Reason};
use crate::tls::verify::VerifiedPeer;

/// What an open connection was admitted on.
#[derive(Debug)]
pub struct Entry {
    /// As in its record.
    pub id: u64,
    /// The listener as it was configured when the connection came.
    pub listener: Arc<settings::Listener>,
    /// The listener's direction.
    pub direction: Direction,
    /// Who connected.
    pub peer_addr: PeerAddr,
    /// What it rests on now. A renewal replaces the two identities.
    pub trust: Mutex<Trust>,
    /// When it was accepted.
    pub since: SystemTime,
    /// What has flowed.
    pub traffic: Arc<Traffic>,
    /// The terms it is open on; absent until it is admitted.
    pub decision: OnceLock<Arc<Decision>>,
    /// The generation of the last policy that was seen to admit it, after the one in `decision`.
    pub admitted_under: AtomicU64,
    /// What was only logged of it last, so that it is said once.
    pub noted: Mutex<Option<Reason>>,
    /// That it must end, and why.
    order: OnceLock<Ending>,
    /// Whether both ends are known to understand renewal.
    pub can_renew: AtomicBool,
    /// That our newer SVID is to be told now.
    renewal_due: AtomicBool,
    /// Its task.
    waker: AtomicWaker,
}

/// What a connection rests on.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The verified peer; one record for all connections of the same certificates.
    pub peer: Arc<VerifiedPeer>,
    /// The SVID we presented last.
    pub own: Arc<Svid>,
    /// The bundle that verified the peer.
    pub bundle: Option<Arc<Bundle>>,
    /// When the peer's chain ends, up to and with the authority of that bundle. A renewed authority moves it.
    pub not_after: SystemTime,
}

impl Entry {
    /// The earlier end of the two chains.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        let trust = lock(&self.trust);
        trust.not_after.min(trust.own.not_after)
    }

    /// The verified peer.
    #[must_use]
    pub fn peer(&self) -> Arc<VerifiedPeer> {
        lock(&self.trust).peer.clone()
    }

    /// The SVID we presented last.
    #[must_use]
    pub fn own(&self) -> Arc<Svid> {
        lock(&self.trust).own.clone()
    }

    /// Has the connection's task tell the peer of our newer SVID.
    pub fn order_renewal(&self) {
        self.renewal_due.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether that is to be done.
    #[must_use]
    pub fn renewal_is_due(&self) -> bool {
        self.renewal_due.load(Ordering::Acquire)
    }

    /// Takes the order.
    pub fn take_renewal_order(&self) -> bool {
        self.renewal_due.swap(false, Ordering::AcqRel)
    }

    /// Tells the connection to end. Returns false when it was told before.
    pub fn order_close(&self, order: Ending) -> bool {
        let first = self.order.set(order).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    /// Why the connection was told to end, if it was.
    #[must_use]
    pub fn order(&self) -> Option<&Ending> {
        self.order.get()
    }

    /// Ready when the connection is told to end. Only its own task may ask: one task is woken.
    pub fn poll_order(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Some(order) = self.order.get() {
            return Poll::Ready(order.clone());
        }
        self.waker.register(cx.waker());
        // The order may have come before the waker was there to be woken.
        self.order
            .get()
            .map_or(Poll::Pending, |order| Poll::Ready(order.clone()))
    }
}

/// The facts of a connection that is about to be checked.
#[derive(Debug)]
pub struct Registration {
    /// See [`Entry::id`].
    pub id: u64,
    /// See [`Entry::listener`].
    pub listener: Arc<settings::Listener>,
    /// See [`Entry::direction`].
    pub direction: Direction,
    /// See [`Entry::peer_addr`].
    pub peer_addr: PeerAddr,
    /// See [`Trust::peer`].
    pub peer: Arc<VerifiedPeer>,
    /// The bundle that verified it in the handshake.
    pub bundle: Option<Arc<Bundle>>,
    /// See [`Trust::own`].
    pub own: Arc<Svid>,
    /// See [`Entry::since`].
    pub since: SystemTime,
}

/// What is new of an open connection. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// The peer's newer chain, as [`verify_chain`](crate::tls::verify::verify_chain) answered, and the bundle that it
    /// was verified with.
    pub peer: Option<(Arc<VerifiedPeer>, Option<Arc<Bundle>>)>,
    /// The newer SVID of ours that the peer has accepted.
    pub own: Option<Arc<Svid>>,
}

/// A connection keeps its two identities while it lives: what was presented is not that peer's, or not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a renewal must be of the SPIFFE ID that the connection was admitted with")]
pub struct OtherIdentity;

/// The open connections.
#[derive(Debug)]
pub struct Registry {
    entries: Arc<Mutex<HashMap<u64, Arc<Entry>>>>,
    next_id: AtomicU64,
    /// Milliseconds since the epoch: no chain of an entry ends before. Lowered by registration, recomputed by scans.
    earliest_expiry: AtomicU64,
    /// That all must end, also those that come now.
    end_of_all: OnceLock<Ending>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            entries: Arc::default(),
            next_id: AtomicU64::new(1),
            earliest_expiry: AtomicU64::new(u64::MAX),
            end_of_all: OnceLock::new(),
        }
    }
}

/// A registered connection; taken out of the registry when dropped.
#[derive(Debug)]
pub struct Registered {
    /// What was registered.
    pub entry: Arc<Entry>,
    entries: Arc<Mutex<HashMap<u64, Arc<Entry>>>>,
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
        lock(&self.entries).remove(&self.entry.id);
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
        let entry = Arc::new(Entry {
            id: facts.id,
            listener: facts.listener,
            direction: facts.direction,
            peer_addr: facts.peer_addr,
            trust: Mutex::new(Trust {
                bundle: facts.bundle,
                not_after: facts.peer.not_after,
                peer: facts.peer,
                own: facts.own,
            }),
            since: facts.since,
            traffic: Arc::default(),
            decision: OnceLock::new(),
            admitted_under: AtomicU64::new(0),
            noted: Mutex::new(None),
            order: OnceLock::new(),
            can_renew: AtomicBool::new(false),
            renewal_due: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        lock(&self.entries).insert(entry.id, entry.clone());
        // After the entry is visible: a scan that misses the entry then sees the lowered bound afterwards.
        self.earliest_expiry
            .fetch_min(millis(entry.expires()), Ordering::SeqCst);
        // Likewise: who ends all either finds the entry or has said so before.
        if let Some(order) = self.end_of_all.get() {
            entry.order_close(order.clone());
        }
        Registered {
            entry,
            entries: self.entries.clone(),
        }
    }

    /// Puts an open connection on its renewed chains.
    ///
    /// # Errors
    /// When an ID is not that of before; the connection is left as it was.
    pub fn renew(&self, entry: &Arc<Entry>, renewal: Renewal) -> Result<(), OtherIdentity> {
        let mut trust = lock(&entry.trust);
        let (peer, own) = (renewal.peer.as_ref(), renewal.own.as_ref());
        if peer.is_some_and(|(peer, _)| peer.id != trust.peer.id)
            || own.is_some_and(|own| own.id != trust.own.id)
        {
            return Err(OtherIdentity);
        }
        if let Some((peer, bundle)) = renewal.peer {
            trust.not_after = peer.not_after;
            trust.peer = peer;
            trust.bundle = bundle;
        }
        if let Some(own) = renewal.own {
            trust.own = own;
        }
        drop(trust);
        // An end that is now earlier than all others must be looked for.
        self.note_expiry(entry);
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

    /// All entries at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Before this time no chain of an open connection ends.
    #[must_use]
    pub fn earliest_expiry(&self) -> Option<SystemTime> {
        match self.earliest_expiry.load(Ordering::SeqCst) {
            u64::MAX => None,
            millis => UNIX_EPOCH.checked_add(Duration::from_millis(millis)),
        }
    }

    /// Begins a scan: forgets the bound, which [`Self::note_expiry`] and new registrations then make anew.
    pub fn reset_expiry(&self) {
        self.earliest_expiry.store(u64::MAX, Ordering::SeqCst);
    }

    /// Lowers the bound to the end of `entry`, if that is earlier.
    pub fn note_expiry(&self, entry: &Entry) {
        self.earliest_expiry
            .fetch_min(millis(entry.expires()), Ordering::SeqCst);
    }
}

fn millis(time: SystemTime) -> u64 {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// Locks, also after a panic elsewhere: no holder leaves the data half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
