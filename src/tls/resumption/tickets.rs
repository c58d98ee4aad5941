//! The tickets that we give as a server: the session itself, sealed with a key that only this listener of this context
//! has. Nothing is stored.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::seconds_left;
use crate::clock::SharedClock;
use crate::tls::verify::peer_until;

/// The most that a session may have to go into a ticket, most of it the client's chain. A client must send the ticket
/// in its first message: a larger one costs more than it saves.
pub(in crate::tls) const MAX_SESSION: usize = 8 * 1024;
/// The most tickets of one key. Nonces are random; NIST SP 800-38D section 8.3 allows 2^32.
const MAX_TICKETS: u32 = u32::MAX;

/// Makes and reads tickets.
pub(in crate::tls) struct Ticketer {
    key: RandomizedNonceKey,
    clock: SharedClock,
    /// The end of our own SVID.
    own_until: SystemTime,
    made: AtomicU32,
}

impl Ticketer {
    /// With a fresh key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(in crate::tls) fn new(clock: SharedClock, own_until: SystemTime) -> Result<Self, Unspecified> {
        let mut key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(key.as_mut())?;
        Ok(Self {
            key: RandomizedNonceKey::new(&AES_256_GCM, key.as_ref())?,
            clock,
            own_until,
            made: AtomicU32::new(0),
        })
    }

    /// For how many seconds the session at hand may be resumed; `None` when not at all.
    fn seconds(&self) -> Option<u32> {
        // Without a verified peer there is nobody whose session it is.
        seconds_left(self.clock.now(), peer_until()?.min(self.own_until))
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let until = self
            .clock
            .now()
            .checked_add(Duration::from_secs(self.seconds()?.into()))?;
        if session.len() > MAX_SESSION {
            return None;
        }
        self.made
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |made| {
                (made < MAX_TICKETS).then(|| made.saturating_add(1))
            })
            .ok()?;
        let mut sealed = Zeroizing::new(Vec::with_capacity(8 + session.len() + AES_256_GCM.tag_len()));
        sealed.extend_from_slice(&millis(until).to_be_bytes());
        sealed.extend_from_slice(session);
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::empty(), &mut *sealed)
            .ok()?;
        Some([nonce.as_ref(), sealed.as_slice()].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        if sealed.len() > 8 + MAX_SESSION + AES_256_GCM.tag_len() {
            return None;
        }
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = self
            .key
            .open_in_place(Nonce::from(nonce), Aad::empty(), &mut sealed)
            .ok()?;
        let (until, session) = opened.split_first_chunk::<8>()?;
        // A session that is over is none: a full handshake follows, where a refusal would only be repeated.
        (millis(self.clock.now()) <= u64::from_be_bytes(*until)).then(|| session.to_vec())
    }
}

fn millis(time: SystemTime) -> u64 {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    /// Asked for the session that was sealed just before.
    fn lifetime(&self) -> u32 {
        self.seconds().unwrap_or_default()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher)
    }
}

// The key must not reach a log.
impl std::fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}
