//! TLS 1.3 session resumption (RFC 8446 sections 2.2 and 4.6.1), and why it admits nobody that a full handshake would
//! not.
//!
//! - **What a ticket is bound to.** A [`Ticketer`](tickets::Ticketer) and a [`Sessions`](sessions::Sessions) belong to
//!   one listener of one [`Context`](super::configs::Context), that is to one generation of bundles and one SVID of
//!   ours. When either changes, the keys of all tickets we gave and all tickets we were given are gone, and a full
//!   handshake follows.
//! - **How long it lives.** For [`MAX_LIFETIME`] at most, and never beyond the end of either chain. Each resumption
//!   gives a new ticket; the chains do not get longer by it, so that a lineage ends with them.
//! - **Who the peer is** in a resumed session: the chain of the handshake that the lineage began with, and nothing
//!   else. rustls does not verify it again, so [`super::handshake`] does, against the same trust store, and for a
//!   server against the listener's `peer` patterns. Then the connection is registered and authorized as any other.
//! - **Forward secrecy.** psk_dhe_ke alone: a new key exchange each time, the hybrid one first as always. No early data.
//!   An X25519 share alone would be cheaper, and the pre-shared key would still carry the secrecy of the first
//!   exchange; but a server that does not know the ticket goes on to a full handshake with that very share, which
//!   would then be without post-quantum protection, and whoever gets at a ticket key later could with a quantum
//!   computer open what was resumed.
//!
//! A ticket is taken once: see [`sessions`]. That a server takes the same ticket twice does no harm without early data.

pub(super) mod sessions;
#[cfg(test)]
mod tests;
pub(super) mod tickets;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::clock::SharedClock;

/// The longest that a ticket may be used.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// Our clock, for rustls, which dates tickets.
#[derive(Debug)]
pub(super) struct Time(pub(super) SharedClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let now = self.0.now().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// The whole seconds from `now` to `until`, [`MAX_LIFETIME`] at most; `None` where not one is left.
fn seconds_left(now: SystemTime, until: SystemTime) -> Option<u32> {
    let left = until.duration_since(now).ok()?.min(MAX_LIFETIME);
    u32::try_from(left.as_secs()).ok().filter(|seconds| *seconds > 0)
}
