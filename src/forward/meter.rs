//! Counts payload as it moves, for the connection's own record and for the listener's metrics, and holds it back where a
//! budget says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pace::Pace;
use crate::record::Direction;
use crate::telemetry::metrics::{Flow, ListenerMetrics};

/// Payload bytes of one connection, counted while it runs.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the one who connected to the one who was connected to.
    pub up: AtomicU64,
    /// The other way.
    pub down: AtomicU64,
}

/// Counts the two directions of a relay.
#[derive(Debug)]
pub struct Meter {
    direction: Direction,
    traffic: Arc<Traffic>,
    listener: Arc<ListenerMetrics>,
    pace: Option<Box<Pace>>,
}

impl Meter {
    /// A meter for a connection of a listener that faces `direction`.
    #[must_use]
    pub const fn new(direction: Direction, traffic: Arc<Traffic>, listener: Arc<ListenerMetrics>) -> Self {
        Self {
            direction,
            traffic,
            listener,
            pace: None,
        }
    }

    /// The same, which holds payload back.
    #[must_use]
    pub fn paced(self, pace: Option<Box<Pace>>) -> Self {
        Self { pace, ..self }
    }

    /// What payload is held back to, if anything.
    pub(super) fn pace(&mut self) -> Option<&mut Pace> {
        self.pace.as_deref_mut()
    }

    /// Payload that came out of TLS and was written on.
    pub fn opened(&self, bytes: usize) {
        self.count(bytes, self.direction == Direction::Inbound);
    }

    /// Payload that went into TLS: its records were written.
    pub fn sealed(&self, bytes: usize) {
        self.count(bytes, self.direction == Direction::Outbound);
    }

    fn count(&self, bytes: usize, up: bool) {
        let bytes = bytes as u64;
        let (own, flow) = if up {
            (&self.traffic.up, Flow::Up)
        } else {
            (&self.traffic.down, Flow::Down)
        };
        own.fetch_add(bytes, Ordering::Relaxed);
        self.listener.bytes(flow).inc_by(bytes);
    }
}
