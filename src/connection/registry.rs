//! The connections that are open, each with what it was admitted on, so that a change can find those it concerns.
//!
//! A connection registers *before* it is checked against policy and bundles. A change that comes later finds it here;
//! a change that came earlier is already in the snapshot that the check loads. None falls in between.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atomic_waker::AtomicWaker;

use crate::config::settings;
use crate::forward::meter::Traffic;
use crate::identity::material::{Bundle, Svid};
use crate::record::{Decision, Direction, Ending, PeerAddr, Reason};
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
    /// For whom: `peer_addr`, but where a load balancer's PROXY header is believed.
    pub source: PeerAddr,
    /// Our address of the connection to the application, which is what the application sees as its peer's.
    pub local: OnceLock<SocketAddr>,
    /// The verified peer; one record for all connections of the same certificates.
    pub peer: Arc<VerifiedPeer>,
    /// What last verified it.
    pub trust: Mutex<Trust>,
    /// The SVID we presented.
    pub own: Arc<Svid>,
    /// When it was accepted.
    pub since: SystemTime,
    /// What has flowed.
    pub traffic: Arc<Traffic>,
    /// The verdict that let it in; absent until it is admitted.
    pub decision: OnceLock<Arc<Decision>>,
    /// The generation of the last policy that was seen to admit it, after the one in `decision`.
    pub admitted_under: AtomicU64,
    /// What was only logged of it last, so that it is said once.
    pub noted: Mutex<Option<Reason>>,
    /// That it must end, and why.
    order: OnceLock<Ending>,
    /// Its task.
    waker: AtomicWaker,
}

/// What a peer's chain rests on.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The bundle that verified it.
    pub bundle: Option<Arc<Bundle>>,
    /// When the chain ends, up to and with the authority of that bundle. A renewed authority moves it.
    pub not_after: SystemTime,
}

impl Entry {
    /// The earlier end of the two chains.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        lock(&self.trust).not_after.min(self.own.not_after)
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
    /// See [`Entry::source`].
    pub source: PeerAddr,
    /// See [`Entry::peer`].
    pub peer: Arc<VerifiedPeer>,
    /// The bundle that verified it in the handshake.
    pub bundle: Option<Arc<Bundle>>,
    /// See [`Entry::own`].
    pub own: Arc<Svid>,
    /// See [`Entry::since`].
    pub since: SystemTime,
}

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
            source: facts.source,
            local: OnceLock::new(),
            trust: Mutex::new(Trust {
                bundle: facts.bundle,
                not_after: facts.peer.not_after,
            }),
            peer: facts.peer,
            own: facts.own,
            since: facts.since,
            traffic: Arc::default(),
            decision: OnceLock::new(),
            admitted_under: AtomicU64::new(0),
            noted: Mutex::new(None),
            order: OnceLock::new(),
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
