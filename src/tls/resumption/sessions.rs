//! The tickets that we were given as a client, by the server of one outbound listener.
//!
//! Each is used once (RFC 8446 appendix C.4: otherwise an observer could tell that two connections are one client's),
//! the newest first: it is the one that a server which restarted meanwhile most probably knows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::clock::SharedClock;
use crate::tls::renewal::capability;
use crate::tls::verify::peer_until;

/// The most tickets that are kept. Each is about two kilobytes, the server's chain among them; as many connections
/// can be begun at once without a full handshake.
const MAX_TICKETS: usize = 64;

/// The tickets of one listener.
pub(in crate::tls) struct Sessions {
    clock: SharedClock,
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    session: Tls13ClientSessionValue,
    /// The end of the server's chain.
    until: SystemTime,
    /// Whether the server understands renewal, which it does not say again.
    renews: bool,
}

impl Sessions {
    /// None yet.
    pub(in crate::tls) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            kept: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn insert_tls13_ticket(&self, _server: ServerName<'static>, session: Tls13ClientSessionValue) {
        // Of a server that is not verified there is no session; `tls::session` lends the peer.
        let Some(until) = peer_until() else { return };
        let mut kept = self.lock();
        if kept.len() >= MAX_TICKETS {
            kept.pop_front();
        }
        let renews = capability::lent();
        kept.push_back(Kept {
            session,
            until,
            renews,
        });
    }

    /// The listener dials one name, so that it is not asked for. Where that stands for several servers, each with a key of
    /// its own, a ticket that meets another than its maker is spent for a full handshake.
    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let now = self.clock.now();
        let mut kept = self.lock();
        while let Some(newest) = kept.pop_back() {
            // With a chain that is over the handshake would succeed, and we refuse it then.
            if now <= newest.until {
                capability::lend(newest.renews);
                return Some(newest.session);
            }
        }
        None
    }

    // The first group that is offered is always the hybrid one: see the head of `super`.
    fn set_kx_hint(&self, _server: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    // TLS 1.2 is not offered.
    fn set_tls12_session(&self, _server: ServerName<'static>, _session: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
