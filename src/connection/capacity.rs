//! How many connections there may be at once. A full house refuses at once instead of letting peers queue, and the
//! connections still in their handshake have a cap of their own, so that peers who never finish one cannot fill
//! the house.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::record::Reason;

/// The two counters with their caps.
#[derive(Debug)]
pub struct Capacity {
    connections: Arc<Counter>,
    handshakes: Arc<Counter>,
}

#[derive(Debug)]
struct Counter {
    taken: AtomicUsize,
    cap: usize,
}

/// A taken place, given back when dropped.
#[must_use]
#[derive(Debug)]
pub struct Place(Arc<Counter>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counter {
    fn take(this: &Arc<Self>) -> Option<Place> {
        this.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < this.cap).then_some(taken + 1)
            })
            .ok()
            .map(|_| Place(this.clone()))
    }
}

impl Capacity {
    /// Nothing taken yet.
    #[must_use]
    pub fn new(max_connections: usize, max_handshakes: usize) -> Self {
        let counter = |cap| {
            Arc::new(Counter {
                taken: AtomicUsize::new(0),
                cap,
            })
        };
        Self {
            connections: counter(max_connections),
            handshakes: counter(max_handshakes),
        }
    }

    /// A place for a new connection, to be held until its end, and one for its handshake.
    ///
    /// # Errors
    /// Which cap was reached: [`Reason::MaxConnections`] or [`Reason::MaxHandshakes`].
    pub fn admit(&self) -> Result<(Place, Place), Reason> {
        let connection = Counter::take(&self.connections).ok_or(Reason::MaxConnections)?;
        let handshake = Counter::take(&self.handshakes).ok_or(Reason::MaxHandshakes)?;
        Ok((connection, handshake))
    }

    /// Connections at the moment, those in their handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_caps_hold_and_places_come_back() {
        let capacity = Capacity::new(2, 1);
        let (connection, handshake) = capacity.admit().unwrap();
        assert_eq!(capacity.admit().unwrap_err(), Reason::MaxHandshakes);
        // The place taken before the handshake cap was found full is given back.
        assert_eq!(capacity.connections(), 1);
        drop(handshake);
        let (second, handshake) = capacity.admit().unwrap();
        drop(handshake);
        assert_eq!(capacity.admit().unwrap_err(), Reason::MaxConnections);
        drop((connection, second));
        assert_eq!(capacity.connections(), 0);
    }
}
