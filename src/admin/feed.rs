//! What those who listen to the status share: one status a second, computed once for all of them, and not at all while
//! nobody listens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::AdminState;
use super::status::Rendered;

/// From one status to the next.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// The last status, and who wants one.
#[derive(Debug)]
pub struct Feed {
    latest: watch::Sender<Option<Arc<Rendered>>>,
    wanted: Mutex<Wanted>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// How many connections each listener wants to see, by its number.
    connections: BTreeMap<u64, usize>,
    next: u64,
    /// Whether a task computes.
    running: bool,
}

/// One who listens, until it is dropped.
pub(super) struct Listening {
    /// Each status as it comes, the last one at once; `None` before the first.
    pub(super) statuses: watch::Receiver<Option<Arc<Rendered>>>,
    pub(super) place: Place,
}

/// Says that somebody listens.
pub(super) struct Place {
    state: Arc<dyn AdminState>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.feed().wanted().connections.remove(&self.number);
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            latest: watch::Sender::new(None),
            wanted: Mutex::default(),
        }
    }
}

impl Feed {
    /// Listens, with so many connections in each status. The caller bounds how many listen.
    pub(super) fn listen(state: &Arc<dyn AdminState>, connections: usize) -> Listening {
        let feed = state.feed();
        let mut wanted = feed.wanted();
        let number = wanted.next;
        wanted.next = number.wrapping_add(1);
        wanted.connections.insert(number, connections);
        if !wanted.running {
            wanted.running = true;
            tokio::spawn(compute(Arc::clone(state)));
        }
        drop(wanted);
        Listening {
            statuses: feed.latest.subscribe(),
            place: Place {
                state: Arc::clone(state),
                number,
            },
        }
    }

    /// How many connections the next status shows; `None`, and nothing runs any more, when nobody listens.
    fn next(&self) -> Option<usize> {
        let mut wanted = self.wanted();
        let most = wanted.connections.values().copied().max();
        if most.is_none() {
            wanted.running = false;
            // Who comes later must not take it for a new one.
            self.latest.send_replace(None);
        }
        most
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes a status each second while somebody listens. On a helper thread: it may take longer than identity and
/// signals should wait.
async fn compute(state: Arc<dyn AdminState>) {
    while let Some(connections) = state.feed().next() {
        let due = Instant::now() + PERIOD;
        let asked = Arc::clone(&state);
        let computing = tokio::task::spawn_blocking(move || Rendered::of(asked.status(connections)));
        // A panic is in the log; the next one may do better.
        if let Ok(status) = computing.await {
            state.feed().latest.send_replace(Some(Arc::new(status)));
        }
        tokio::time::sleep_until(due).await;
    }
}
