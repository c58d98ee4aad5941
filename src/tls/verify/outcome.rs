//! Where what a verification came to is laid for the driver of a handshake.
//!
//! rustls hands a verifier neither the connection nor a place for the answer, and its error keeps only the alert.
//! So the verifier lays what it found, the [`VerifiedPeer`] or the whole [`Refusal`], in a slot of its thread, and
//! the driver of the handshake takes it there:
//! ```text
//! lend_outcome(known);                         // what is known of the connection's peer, or nothing
//! connection.process_tls_records(bytes);       // may call the verifier, on this thread, before it returns
//! let known = take_outcome();                  // what was found, if a certificate came in these bytes
//! ```
//! That is sound because `process_tls_records` is an ordinary function: the verifier runs inside the call, on the
//! thread of the caller, and nothing else can run on that thread between the three lines as long as no `await` stands
//! among them. A verifier for each connection, with a slot of its own, would do the same at the price of a
//! `ServerConfig` for each connection, and of a lock in it, because rustls asks that a verifier be `Sync`.
//!
//! What makes and keeps session tickets ([`crate::tls::resumption`]) is called by rustls in the same way and learns
//! here whose session it is.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Refusal, VerifiedPeer};

/// What a verification came to.
pub type Outcome = Result<Arc<VerifiedPeer>, Refusal>;

thread_local! {
    static OUTCOME: RefCell<Option<Outcome>> = const { RefCell::new(None) };
}

/// Says what is known so far of the peer of the connection that rustls is about to be called for. Whatever another
/// connection may have left is gone.
pub fn lend_outcome(known: Option<Outcome>) {
    // Nobody holds a borrow across a call, so that this cannot fail; were it to, a driver that finds no verified peer
    // refuses.
    OUTCOME.with(|slot| {
        if let Ok(mut slot) = slot.try_borrow_mut() {
            *slot = known;
        }
    });
}

/// Takes what is known of the connection's peer after the call, and leaves nothing; see the head of this module for
/// the order of calls.
pub fn take_outcome() -> Option<Outcome> {
    OUTCOME.with(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| slot.take()))
}

/// When the chain of the connection's peer ends, if the peer is verified.
pub(in crate::tls) fn peer_until() -> Option<SystemTime> {
    OUTCOME.with(|slot| match slot.try_borrow().as_deref() {
        Ok(Some(Ok(peer))) => Some(peer.not_after),
        _ => None,
    })
}
