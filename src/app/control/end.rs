//! The end of a process: open connections finish, or are cut.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::app::audit::Done;
use crate::app::shared::Control;
use crate::lifecycle::drain::{Drain, Drained};
use crate::lifecycle::readiness::Condition;
use crate::lifecycle::signal::{Signal, Signals};
use crate::record::audit::{Actor, EntryKind, Operation};
use crate::record::{Ending, Reason};

/// How long connections that were told to end may take to say goodbye.
const FORCED_END: Duration = Duration::from_secs(2);

/// Lets connections finish, and forces those that do not; returns how many were cut. Nothing is accepted any more. `guard`
/// resolves, with its name, when a part ends that watches over open connections: they must not outlive it.
pub(super) async fn end(
    control: &Control,
    drain: &Drain,
    signals: &mut Signals,
    patience: Duration,
    superseded: bool,
    guard: impl Future<Output = &'static str>,
) -> usize {
    let open = control.live.capacity.connections();
    let (actor, why) = if superseded {
        (Actor::Svidecar, "another process has taken over")
    } else {
        (Actor::Signal, "shutting down")
    };
    let drained = Done::well(EntryKind::Process, actor, Operation::Drain);
    control.audit(drained, None, json!({ "open_connections": open }));
    control.readiness.set(Condition::NotDraining, false, why);
    tracing::info!(
        open,
        drain_timeout_s = patience.as_secs_f64(),
        "{why}: no new connections; open ones may finish"
    );
    let again = async {
        // What else comes does not matter any more. Who was superseded drains already when the first signal comes.
        loop {
            match signals.next().await {
                Signal::Terminate { again } if again || !superseded => return,
                Signal::Terminate { .. } | Signal::Reload => {}
            }
        }
    };
    let at_once = async {
        tokio::select! {
            () = again => {}
            name = guard => tracing::error!("{name} ended unexpectedly while connections were open: they are cut"),
        }
    };
    let cut = tokio::select! {
        drained = drain.drain(patience) => match drained {
            Drained::Complete => 0,
            Drained::Forced { remaining } => {
                control.live.registry.end_all(&Ending::new(Reason::DrainTimeout));
                remaining
            }
        },
        () = at_once => {
            control.live.shutdown_now.store(true, Ordering::Relaxed);
            // Not the tokens: a worker may hold one for a listener that it has not left yet.
            let remaining = control.live.capacity.connections();
            drain.force();
            control.live.registry.end_all(&Ending::new(Reason::Shutdown));
            remaining
        }
    };
    // They are told to end and say why to their peers; that takes a moment.
    let _ = tokio::time::timeout(FORCED_END, drain.finished()).await;
    let stopped = Done::well(EntryKind::Process, Actor::Svidecar, Operation::Stop);
    control.audit(stopped, None, json!({ "cut_connections": cut }));
    if cut > 0 {
        tracing::warn!(cut, "ended; connections were cut");
    } else {
        tracing::info!("ended; every connection had finished");
    }
    cut
}
