//! How many connections there may be at once. A full house refuses at once instead of letting peers queue, and the
//! connections still in their handshake have a cap of their own, so that peers who never finish one cannot fill
//! the house.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::registry::lock;
use crate::config::settings::Limits;
use crate::record::{Ending, Reason};

const NO_CAP: usize = usize::MAX;

/// The counters with their caps.
#[derive(Debug)]
pub struct Capacity {
    connections: Arc<Counter>,
    handshakes: Arc<Counter>,
    by_source: Arc<BySource>,
}

/// Handshakes in flight by where they come from. As many entries as there are handshakes at most.
#[derive(Debug)]
struct BySource {
    /// [`NO_CAP`] where nobody counts.
    cap: AtomicUsize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A taken place among the handshakes from one source, given back when dropped.
#[must_use]
#[derive(Debug)]
pub struct FromSource {
    all: Arc<BySource>,
    source: IpAddr,
}

impl Drop for FromSource {
    fn drop(&mut self) {
        let mut taken = lock(&self.all.taken);
        if let Some(count) = taken.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

#[derive(Debug)]
struct Counter {
    taken: AtomicUsize,
    cap: AtomicUsize,
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
        let cap = this.cap.load(Ordering::Relaxed);
        this.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < cap).then_some(taken + 1)
            })
            .ok()
            .map(|_| Place(this.clone()))
    }
}

impl Capacity {
    /// Nothing taken yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let counter = |cap| {
            Arc::new(Counter {
                taken: AtomicUsize::new(0),
                cap: AtomicUsize::new(cap),
            })
        };
        Self {
            connections: counter(limits.max_connections),
            handshakes: counter(limits.max_handshakes),
            by_source: Arc::new(BySource {
                cap: AtomicUsize::new(limits.max_handshakes_per_source.unwrap_or(NO_CAP)),
                taken: Mutex::default(),
            }),
        }
    }

    /// With other caps from now on. Who is above a lower one stays; a cap by source counts those that come from here on.
    pub fn set(&self, limits: &Limits) {
        self.connections
            .cap
            .store(limits.max_connections, Ordering::Relaxed);
        self.handshakes
            .cap
            .store(limits.max_handshakes, Ordering::Relaxed);
        let by_source = limits.max_handshakes_per_source.unwrap_or(NO_CAP);
        self.by_source.cap.store(by_source, Ordering::Relaxed);
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

    /// A place for a handshake among those from the same source, if there is a cap on them. IPv6 is counted by networks of
    /// 64 bits, as whoever has one address has all of those (RFC 4291 section 2.5.4).
    ///
    /// # Errors
    /// When the cap was reached, with [`Reason::MaxHandshakesPerSource`].
    pub fn handshake_from(&self, source: IpAddr) -> Result<Option<FromSource>, Ending> {
        let all = &self.by_source;
        let cap = all.cap.load(Ordering::Relaxed);
        if cap == NO_CAP {
            return Ok(None);
        }
        let source = network(source);
        let mut taken = lock(&all.taken);
        let count = taken.entry(source).or_default();
        if *count >= cap {
            let detail = match source {
                IpAddr::V4(ip) => format!("{count} handshakes from {ip} are in flight"),
                IpAddr::V6(ip) => format!("{count} handshakes from {ip}/64 are in flight"),
            };
            return Err(Ending::with(Reason::MaxHandshakesPerSource, detail));
        }
        *count += 1;
        drop(taken);
        Ok(Some(FromSource {
            all: all.clone(),
            source,
        }))
    }

    /// Connections at the moment, those in their handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.taken.load(Ordering::Relaxed)
    }

    /// Of these, those in their handshake.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.handshakes.taken.load(Ordering::Relaxed)
    }
}

/// What counts as one source.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(max_connections: usize, max_handshakes: usize, per_source: Option<usize>) -> Capacity {
        Capacity::new(&Limits {
            max_connections,
            max_handshakes,
            max_handshakes_per_source: per_source,
            ..Limits::default()
        })
    }

    #[test]
    fn handshakes_are_capped_by_source() {
        let capacity = capacity(100, 100, Some(2));
        let from = |source: &str| capacity.handshake_from(source.parse().unwrap());
        for [one, two, three, elsewhere] in [
            ["192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"],
            [
                "2001:db8::1",
                "2001:db8::2",
                "2001:db8::ffff:0:0:1",
                "2001:db8:0:1::1",
            ],
        ] {
            let held = (from(one).unwrap(), from(two).unwrap());
            let refused = from(three).unwrap_err();
            assert_eq!(refused.reason, Reason::MaxHandshakesPerSource);
            assert!(refused.detail.unwrap().starts_with("2 handshakes from"));
            drop(from(elsewhere).unwrap());
            drop(held.0);
            drop(from(three).unwrap());
        }
        assert!(
            lock(&capacity.by_source.taken).is_empty(),
            "nothing is kept of who has gone"
        );
    }

    #[test]
    fn without_a_cap_nobody_is_counted() {
        let capacity = capacity(100, 100, None);
        for _ in 0..1000 {
            assert!(capacity.handshake_from([192, 0, 2, 1].into()).unwrap().is_none());
        }
    }

    #[test]
    fn other_caps_hold_from_when_they_are_set() {
        let of = |max_connections, max_handshakes, max_handshakes_per_source| Limits {
            max_connections,
            max_handshakes,
            max_handshakes_per_source,
            ..Limits::default()
        };
        let capacity = capacity(3, 3, None);
        let source = || capacity.handshake_from([192, 0, 2, 1].into());
        let held: Vec<_> = (0..3).map(|_| capacity.admit().unwrap()).collect();
        assert!(source().unwrap().is_none());
        capacity.set(&of(4, 3, Some(1)));
        assert_eq!(capacity.admit().unwrap_err(), Reason::MaxHandshakes);
        let one = source().unwrap();
        assert!(one.is_some());
        assert_eq!(source().unwrap_err().reason, Reason::MaxHandshakesPerSource);
        capacity.set(&of(2, 2, None));
        assert!(source().unwrap().is_none());
        drop(one);
        assert_eq!(capacity.admit().unwrap_err(), Reason::MaxConnections);
        assert_eq!(capacity.connections(), 3, "nobody is sent away");
        drop(held);
        drop(capacity.admit().unwrap());
    }

    #[test]
    fn both_caps_hold_and_places_come_back() {
        let capacity = capacity(2, 1, None);
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
