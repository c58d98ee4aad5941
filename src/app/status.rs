//! The state of the whole sidecar at one moment, as `/api/v1/status` shows it. Bounded: so many connections are looked
//! at, so many peers and rules are listed.

mod listeners;
mod peers;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::confine;
use super::policy::last_reload;
use super::state::{View, connection};
use crate::admin::{AdminState as _, Status};
use crate::clock::rfc3339;
use crate::connection::registry::{Entry, lock};
use crate::identity::material::Svid;
use crate::telemetry::decisions::{Filter, MAX_KEPT};
use crate::telemetry::metrics::{Document, ProcessUse};

/// Open connections that are looked at; where there are more, peers are told by these alone.
const MAX_LOOKED_AT: usize = 50_000;
/// SVIDs that are remembered.
const MAX_ROTATIONS: usize = 10;

/// The SVIDs that were taken into use, the newest first.
#[derive(Debug, Default)]
pub(super) struct Rotations(Mutex<VecDeque<Rotation>>);

#[derive(Clone, Debug)]
struct Rotation {
    at: SystemTime,
    id: String,
    serial: Arc<str>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Rotations {
    /// Notes which SVID is in use from `now` on. One that was in use already (when a bundle alone changed) is no new one.
    pub(super) fn note(&self, svid: &Svid, now: SystemTime) {
        let mut all = lock(&self.0);
        let id = svid.id.to_string();
        if all
            .front()
            .is_some_and(|last| *last.serial == *svid.serial && last.id == id)
        {
            return;
        }
        all.push_front(Rotation {
            at: now,
            id,
            serial: (*svid.serial).into(),
            not_before: svid.not_before,
            not_after: svid.not_after,
        });
        all.truncate(MAX_ROTATIONS);
    }

    fn show(&self) -> Vec<Value> {
        let all = lock(&self.0).clone();
        all.iter()
            .map(|one| {
                json!({
                    "time": rfc3339(one.at),
                    "id": one.id,
                    "serial": one.serial,
                    "not_before": rfc3339(one.not_before),
                    "not_after": rfc3339(one.not_after),
                })
            })
            .collect()
    }
}

impl View {
    /// All of it, with the newest `shown` connections.
    pub(super) fn whole(&self, shown: usize) -> Status {
        let registry = &self.live.registry;
        let total = registry.len();
        let mut entries: Vec<Arc<Entry>> = registry.entries().take(MAX_LOOKED_AT).collect();
        let (verdicts, _) = self.decisions.recent(&Filter::default(), MAX_KEPT);
        let (peers, peers_total) = peers::of(&entries, &verdicts);
        newest(&mut entries, shown);
        let process = ProcessUse::now();
        let snapshot = self.readiness.snapshot();
        let mut identity = self.identity();
        if let Value::Object(fields) = &mut identity {
            fields.insert("recent_rotations".to_owned(), self.rotations.show().into());
        }
        let fields = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "time": rfc3339(self.live.clock.now()),
            "started": rfc3339(self.started),
            "pid": std::process::id(),
            "readiness": snapshot,
            "config": self.config_state(),
            "identity": identity,
            "listeners": self.listener_states(),
            "peers": peers,
            "peers_total": peers_total,
            "policy": self.policy_state(),
            "limits": self.limits(&process),
            "process": {
                "cpu_seconds": process.cpu_seconds,
                "resident_bytes": process.resident_bytes.map(whole),
                "threads": process.threads.map(whole),
            },
            "sandbox": confine::show(&self.confined),
            "audit": self.audit_state(),
            "losses": {
                "log_lines": self.log_lines_dropped.count(),
                "decisions": self.decisions.dropped(),
                "access_log_lines": self.metrics.access_log_lines_dropped.get(),
                "spans": self.metrics.spans_dropped.get(),
            },
        });
        Status {
            fields: match fields {
                Value::Object(fields) => fields,
                _ => Map::new(),
            },
            total,
            in_handshake_or_closing: self.live.capacity.connections().saturating_sub(total),
            shown: entries.iter().map(|entry| connection(entry)).collect(),
        }
    }

    /// The config in force, and how the file was read last.
    fn config_state(&self) -> Value {
        let running = self.running.load();
        json!({
            "path": self.config.display().to_string(),
            "generation": running.generation,
            "content_hash": running.settings.content_hash,
            "since": rfc3339(running.since),
            "last_reload": last_reload(&self.reloads, Document::Config),
        })
    }

    /// The audit log, with what each sink will never send.
    fn audit_state(&self) -> Option<Value> {
        let mut audit = self.auditor.show()?;
        let sinks = audit.get_mut("sinks").and_then(Value::as_array_mut);
        for sink in sinks.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(name) = sink.get("name").and_then(Value::as_str) {
                let lost = self.metrics.audit.sink(&name.into()).lost.get();
                sink.insert("lost".to_owned(), lost.into());
            }
        }
        Some(audit)
    }

    fn limits(&self, process: &ProcessUse) -> Value {
        let (terms, capacity) = (self.live.terms(), &self.live.capacity);
        let limits = &terms.limits;
        json!({
            "max_connections": { "limit": limits.max_connections, "used": capacity.connections() },
            "max_handshakes": { "limit": limits.max_handshakes, "used": capacity.handshakes() },
            "open_files": {
                "limit": process.max_open_files.map(whole),
                "used": process.open_files.map(whole),
            },
        })
    }
}

/// A number that is counted, as one without a fraction; infinity is no number in JSON and becomes `null`.
fn whole(number: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; what is too large becomes the largest"
    )]
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

/// Leaves the newest `shown`, the newest first.
fn newest(entries: &mut Vec<Arc<Entry>>, shown: usize) {
    let by_age = |a: &Arc<Entry>, b: &Arc<Entry>| b.id.cmp(&a.id);
    if shown < entries.len() {
        entries.select_nth_unstable_by(shown, by_age);
        entries.truncate(shown);
    }
    entries.sort_unstable_by(by_age);
}
