//! Listeners that the config has no more: their connections are given `limits.drain_timeout` and then cut, those included
//! that were still on the way when the listener was closed. One that comes back before that is not seen out any more: policy
//! and config judge its connections again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::app::shared::Control;
use crate::config::settings::Listener;
use crate::connection::live::Terms;
use crate::connection::registry::Entry;
use crate::record::{Ending, Reason};

/// How often it is looked whether connections are left.
const LOOK: Duration = Duration::from_millis(250);
/// Connections that are told to end at once; more wait a moment, so that the workers see to those that live on, too.
const AT_ONCE: usize = 128;
const MOMENT: Duration = Duration::from_millis(1);

/// Sees a removed listener out, in all `versions` that connections came to. Returns when nobody has any of them any more,
/// or the listener is back.
pub(super) async fn see_out(
    control: Arc<Control>,
    versions: Vec<Weak<Listener>>,
    name: Arc<str>,
    time: Duration,
) {
    let deadline = Instant::now() + time;
    let mut cut = 0_usize;
    // Whoever serves a connection of it has it, from its acceptance to its end.
    while versions.iter().any(|version| version.strong_count() > 0) {
        if !control.are_leaving(&versions) {
            tracing::info!(listener = %name, "a removed listener is back; its connections stay");
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            cut = cut.saturating_add(cut_all(&control, &versions).await);
        }
        tokio::time::sleep(if left.is_zero() { LOOK } else { left.min(LOOK) }).await;
    }
    // The records of the last ones, which are made after they have let go, are counted yet.
    tokio::time::sleep(LOOK).await;
    control.has_left(&versions, &name);
    if cut > 0 {
        tracing::warn!(listener = %name, cut, "a removed listener has no connection any more; some were cut");
    } else {
        tracing::info!(listener = %name, "a removed listener has no connection any more; every one had finished");
    }
}

async fn cut_all(control: &Control, versions: &[Weak<Listener>]) -> usize {
    let is_its = |entry: &Arc<Entry>| {
        let basis = entry.basis();
        let its = Arc::as_ptr(&basis.listener);
        versions.iter().any(|version| std::ptr::eq(its, version.as_ptr()))
    };
    let entries: Vec<_> = control.live.registry.entries().filter(is_its).collect();
    let mut cut = 0_usize;
    for entry in entries {
        if !control.live.terms().is_leaving(&entry.basis().listener) {
            continue;
        }
        let detail = "the config has this listener no more, and `limits.drain_timeout` is over";
        if entry.order_close(Ending::with(Reason::ListenerRemoved, detail)) {
            cut = cut.saturating_add(1);
            if cut.is_multiple_of(AT_ONCE) {
                tokio::time::sleep(MOMENT).await;
            }
        }
    }
    cut
}

impl Control {
    /// Whether any of these versions of a listener is still one that was removed.
    fn are_leaving(&self, versions: &[Weak<Listener>]) -> bool {
        let terms = self.live.terms();
        let mut leaving = terms.leaving.iter();
        leaving.any(|leaving| versions.iter().any(|version| version.ptr_eq(leaving)))
    }

    /// Forgets a listener that was removed. Its series go, unless a listener of that name is there again.
    fn has_left(&self, versions: &[Weak<Listener>], name: &Arc<str>) {
        let mut terms = Terms::clone(&self.live.terms());
        let left = |leaving: &Weak<Listener>| versions.iter().any(|version| version.ptr_eq(leaving));
        terms.leaving.retain(|leaving| !left(leaving));
        let is_back = terms.listeners.contains_key(name)
            || terms
                .leaving
                .iter()
                .filter_map(Weak::upgrade)
                .any(|other| other.name == *name);
        self.live.set_terms(terms);
        if !is_back {
            self.metrics.remove_listener(name);
        }
    }
}
