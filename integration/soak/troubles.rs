//! The troubles. Each begins, lasts, and ends healed; and says what it may do to a client that is allowed.

mod machine;
mod parts;
mod peers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::weather::Effect;
use crate::world::World;

/// One trouble.
#[derive(Clone, Copy)]
pub(crate) struct Trouble {
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) what: &'static str,
    /// What must hold meanwhile, beside that no request is lost.
    pub(crate) holds: &'static str,
    pub(crate) effect: Effect,
    /// How long it lasts at least and at most, in seconds, when troubles are mixed.
    pub(crate) lasts: (f64, f64),
    /// Words for what it takes from others: those that share one do not go together.
    pub(crate) uses: &'static str,
    /// Of two that go together the deeper one begins later and ends before the other does: what refuses everybody must be
    /// over within their patience, however long the other needs to begin or to heal.
    pub(crate) depth: u8,
    /// Whether the short run has it, too.
    pub(crate) short: bool,
    /// Why it cannot be had here.
    pub(crate) missing: fn(&World) -> Option<String>,
    pub(crate) begin: fn(&Arc<World>) -> Running,
}

/// A trouble that has begun: what ends and heals it.
pub(crate) struct Running {
    repeating: Option<Repeating>,
    heal: Box<dyn FnOnce(&World)>,
}

impl Running {
    fn until(heal: impl FnOnce(&World) + 'static) -> Self {
        Self {
            repeating: None,
            heal: Box::new(heal),
        }
    }

    /// Does a thing over and over until the end comes. The thing is told how often it was done before.
    fn over_and_over(
        world: &Arc<World>,
        pause: Duration,
        mut thing: impl FnMut(&World, u32) + Send + 'static,
        heal: impl FnOnce(&World) + 'static,
    ) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(world));
        let thread = std::thread::spawn(move || {
            let mut times = 0;
            while !stopped.load(Ordering::SeqCst) {
                thing(&shared, times);
                times += 1;
                std::thread::sleep(pause);
            }
        });
        Self {
            repeating: Some(Repeating {
                stop,
                thread: Some(thread),
            }),
            heal: Box::new(heal),
        }
    }

    /// Ends it, and waits until it is healed.
    pub(crate) fn end(self, world: &World) {
        drop(self.repeating);
        (self.heal)(world);
    }
}

/// A thread that does its thing until this is dropped, so that it keeps no world alive after the test has failed.
struct Repeating {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Repeating {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            panic!("a trouble's own thread fell over");
        }
    }
}

fn always(_: &World) -> Option<String> {
    None
}

/// All of them, in the order of the short run.
pub(crate) fn all() -> Vec<Trouble> {
    vec![
        parts::AGENT_KILLED,
        parts::POLICY_REWRITTEN,
        parts::TOLD_TO_RELOAD,
        parts::APPLICATION_FLAPPING,
        peers::SLOW_CLIENTS,
        machine::DESCRIPTORS_EXHAUSTED,
        machine::DISK_FULL,
        machine::CLOCK_STEPPED,
        peers::CROWD,
        parts::AGENT_AWAY,
    ]
}
