//! The changes that the admin endpoint makes.

use std::time::Duration;

use serde_json::{Map, Value};

use super::policy::{last_reload, path_of};
use super::state::View;
use crate::lifecycle::readiness::Condition;
use crate::record::{Ending, Reason};
use crate::telemetry::metrics::Document;

/// How long it is waited for files that are being written, or that lie on a file system that does not answer.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(8);

impl View {
    /// Reads the config and every document that it names again, and tells what came of each.
    pub(super) async fn read_again(&self) -> Option<Value> {
        let number = self.reloads.ask();
        let read = self.reloads.answered(Document::ALL, number);
        tokio::time::timeout(RELOAD_TIMEOUT, read).await.ok()?;
        let running = self.running.load_full();
        let named = |document: &Document| {
            *document == Document::Config || path_of(&running.settings, *document).is_some()
        };
        let answer = |document: &Document| {
            let result = if named(document) {
                last_reload(&self.reloads, *document)
            } else {
                Value::Null
            };
            (document.as_str().to_owned(), result)
        };
        Some(Value::Object(
            Document::ALL.iter().map(answer).collect::<Map<_, _>>(),
        ))
    }

    /// Stops accepting, and tells how many connections are open.
    pub(super) fn accept_no_more(&self) -> usize {
        if !self.drain_asked.send_replace(true) {
            let why = "asked at the admin endpoint to accept no more connections; SIGTERM ends the process";
            self.readiness.set(Condition::NotDraining, false, why);
        }
        self.live.capacity.connections()
    }

    /// Tells an open connection to end; false where there is none of this number.
    pub(super) fn close_connection(&self, number: u64) -> bool {
        let found = self.live.registry.find(number);
        if let Some(entry) = &found {
            // One that was told to end before ends for that reason.
            entry.order_close(Ending::with(
                Reason::ClosedByOperator,
                "closed at the admin endpoint",
            ));
        }
        found.is_some()
    }
}
