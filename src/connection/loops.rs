//! Finds the connection that comes back to where it began. The rules that redirect what the application calls must
//! leave out what we call ourselves, by the user that we run as; where they name another user, each connection that we
//! make comes back to us and makes the next one.
//!
//! Both ends of such a connection are ours, and both know the same two addresses: who calls, and whom it means to call.
//! Each end tells them here before it does more; the later of the two finds that they are here already. The system has
//! no two connections with the same pair at once, so that nobody else is taken for us.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Pair = (SocketAddr, SocketAddr);

/// The connections of transparent listeners that are being set up: those that were redirected to us, and those that are
/// made for them. One that is passed through is, until something comes back from where it goes. No more than twice as many as there are connections. One lock for all workers: it is held for the time
/// of a look, twice a connection, and only for connections that were redirected.
#[derive(Debug, Default)]
pub struct Loops(Mutex<HashSet<Pair>>);

/// That a connection is being set up; it is forgotten when this is dropped.
#[derive(Debug)]
pub struct Between {
    loops: Arc<Loops>,
    pair: Pair,
}

impl Loops {
    /// Tells of a connection from `caller` to `called`; `None` when its other end was told of, too: both are ours.
    pub fn enter(self: &Arc<Self>, caller: SocketAddr, called: SocketAddr) -> Option<Between> {
        let pair = (caller, called);
        self.lock().insert(pair).then(|| Between {
            loops: self.clone(),
            pair,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Pair>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.loops.lock().remove(&self.pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_end_of_a_connection_finds_the_first() {
        let loops = Arc::<Loops>::default();
        let us = "10.0.0.1:40000".parse().unwrap();
        let there = "10.0.0.2:80".parse().unwrap();
        let elsewhere = "10.0.0.2:81".parse().unwrap();
        let first = loops.enter(us, there).unwrap();
        assert!(loops.enter(us, there).is_none());
        // The second was not let in, and its end changes nothing for the first.
        assert!(loops.enter(us, there).is_none());
        // One local port may have connections to several places.
        let other = loops.enter(us, elsewhere).unwrap();
        drop(first);
        assert!(loops.enter(us, there).is_some());
        drop(other);
        assert!(loops.lock().is_empty());
    }
}
