//! An open connection, and what it rests on.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use atomic_waker::AtomicWaker;

use super::lock;
use crate::config::settings;
use crate::forward::meter::Traffic;
use crate::identity::material::{Bundle, Svid};
use crate::record::{Decision, Direction, Ending, PeerAddr};
use crate::tls::verify::VerifiedPeer;

/// What connections rest on: everything that is asked about after a change. One for all connections that share it.
#[derive(Debug)]
pub struct Basis {
    /// Unique in the registry.
    pub(super) number: u64,
    /// The listener as it was configured when the connections came.
    pub listener: Arc<settings::Listener>,
    /// The listener's direction.
    pub direction: Direction,
    /// The address that rules ask for; `None` on a unix socket, and for an outbound connection, where nobody asks.
    pub source: Option<IpAddr>,
    /// Where an outbound connection was meant to go before it was redirected to us: it says who is expected there.
    pub destination: Option<SocketAddr>,
    /// The verified peer.
    pub peer: Arc<VerifiedPeer>,
    /// The SVID we presented.
    pub own: Arc<Svid>,
    /// What last verified the peer. Written under the shard's lock, which keeps its ends in order.
    pub(super) trust: Mutex<Trust>,
}

/// What a peer's chain rests on.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The bundle that verified it.
    pub bundle: Option<Arc<Bundle>>,
    /// When the chain begins, its authority in that bundle included. A renewed authority moves it, and the end too.
    pub not_before: SystemTime,
    /// When the chain ends.
    pub not_after: SystemTime,
}

impl Trust {
    /// What a verification found.
    #[must_use]
    pub fn new(bundle: Option<Arc<Bundle>>, peer: &VerifiedPeer) -> Self {
        Self {
            bundle,
            not_before: peer.not_before,
            not_after: peer.not_after,
        }
    }
}

impl Basis {
    /// Tells it from every other.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// What last verified the peer.
    #[must_use]
    pub fn trust(&self) -> Trust {
        lock(&self.trust).clone()
    }

    /// The earlier end of the two chains.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        lock(&self.trust).not_after.min(self.own.not_after)
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Entry {
    /// As in its record.
    pub id: u64,
    /// Who connected.
    pub peer_addr: PeerAddr,
    /// For whom: `peer_addr`, but where a load balancer's PROXY header is believed.
    pub source: PeerAddr,
    /// Where it was meant to go before it was redirected to us.
    pub destination: Option<Box<SocketAddr>>,
    /// Our address of the connection to the application, which is what the application sees as its peer's.
    pub local: OnceLock<SocketAddr>,
    /// When it was accepted.
    pub since: SystemTime,
    /// What has flowed.
    pub traffic: Arc<Traffic>,
    /// The verdict that it is open on; absent until it is admitted.
    pub decision: OnceLock<Arc<Decision>>,
    /// What it rests on. Written under the shard's lock.
    pub(super) basis: ArcSwap<Basis>,
    /// That it must end, and why.
    pub(super) order: OnceLock<Ending>,
    /// Whether both ends are known to understand renewal.
    pub can_renew: AtomicBool,
    /// That our newer SVID is to be told now.
    pub(super) renewal_due: AtomicBool,
    /// Its task.
    pub(super) waker: AtomicWaker,
}

impl Entry {
    /// What it rests on now. A renewal gives it another.
    #[must_use]
    pub fn basis(&self) -> Arc<Basis> {
        self.basis.load_full()
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
    /// See [`Entry::peer_addr`].
    pub peer_addr: PeerAddr,
    /// See [`Entry::source`].
    pub source: PeerAddr,
    /// See [`Entry::destination`].
    pub destination: Option<Box<SocketAddr>>,
    /// See [`Entry::since`].
    pub since: SystemTime,
    /// See [`Basis::listener`].
    pub listener: Arc<settings::Listener>,
    /// See [`Basis::direction`].
    pub direction: Direction,
    /// See [`Basis::peer`].
    pub peer: Arc<VerifiedPeer>,
    /// The bundle that verified it in the handshake.
    pub bundle: Option<Arc<Bundle>>,
    /// See [`Basis::own`].
    pub own: Arc<Svid>,
}

/// What is new of an open connection. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// The peer's newer chain, as [`verify_chain`](crate::tls::verify::verify_chain) answered, and the bundle that it
    /// was verified with.
    pub peer: Option<(Arc<VerifiedPeer>, Option<Arc<Bundle>>)>,
    /// The newer SVID that we presented.
    pub own: Option<Arc<Svid>>,
}

/// A connection keeps its two identities while it lives: what was presented is not that peer's, or not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a renewal must be of the SPIFFE ID that the connection was admitted with")]
pub struct OtherIdentity;
