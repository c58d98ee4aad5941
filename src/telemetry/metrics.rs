//! The metrics, and their text form.
//!
//! Everything that a connection touches is resolved once, into the [`ListenerMetrics`] of its listener: counting
//! is then an atomic addition to a number of the thread's own (`sharded`). No label takes a value that a peer chooses: listeners and rules come from our own
//! files, `result`, `reason`, `verdict`, `direction` and `flow` are closed sets, and the SVID's `id` is ours.

mod audit;
mod collect;
mod divergences;
mod documents;
mod exports;
mod exposition;
mod labels;
mod listener;
mod process;
mod sandbox;
mod sharded;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::log::DroppedLines;
use crate::build_info;
use crate::record::{ConnectionRecord, Direction};
use collect::{Expiries, LogLinesDropped, unix_seconds};
use documents::{Documents, Reloads};
use exports::ExportLabels;
use labels::Families;
use sandbox::SandboxLabels;

pub use audit::{AuditMetrics, AuditSinkMetrics};
pub use documents::{Document, InForce, ReloadResult};
pub use exports::{ExportResult, Exports, Signal};
pub use exposition::Exposition;
pub use listener::{DecisionCount, Flow, ListenerMetrics, ListenerSnapshot, OTHER_RULE, OpenConnection};
pub use process::ProcessUse;
pub use sharded::{Counter as ShardedCounter, HistogramSnapshot};

/// Every metric of the process. One per process; shared by `Arc`.
pub struct Metrics {
    registry: Registry,
    families: Families,
    listeners: ArcSwap<HashMap<Arc<str>, Arc<ListenerMetrics>>>,
    /// Serializes changes to `listeners`; readers never take it.
    listeners_change: Mutex<()>,
    expiries: Arc<Expiries>,
    /// SVIDs published after the first one.
    pub svid_rotations: Counter,
    /// Verdicts that did not reach their file.
    pub decisions_dropped: Counter,
    /// What is counted of the audit log.
    pub audit: AuditMetrics,
    /// Lines that the access log lost.
    pub access_log_lines_dropped: Counter,
    /// Spans that no collector took.
    pub spans_dropped: Counter,
    exports: Family<ExportLabels, Counter>,
    workload_api_connected: Gauge,
    sandbox: Family<SandboxLabels, Gauge>,
    reloads: Reloads,
    documents: Arc<Documents>,
}

impl Metrics {
    /// All metrics at zero. `dropped` is the log's count of lines it had no room for.
    #[must_use]
    pub fn new(dropped: Option<DroppedLines>) -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(process::ProcessCollector));
        let registry = root.sub_registry_with_prefix("svidecar");
        let families = Families::register(registry);
        let svid_rotations = Counter::default();
        registry.register(
            "svid_rotations",
            "SVIDs taken into use after the first one",
            svid_rotations.clone(),
        );
        let decisions_dropped = Counter::default();
        registry.register(
            "decisions_dropped",
            "Verdicts that did not reach `telemetry.decisions.file`",
            decisions_dropped.clone(),
        );
        let audit = AuditMetrics::default();
        audit.register(registry);
        let access_log_lines_dropped = Counter::default();
        registry.register(
            "access_log_lines_dropped",
            "Lines of the access log dropped because whoever takes them is too slow, or cannot",
            access_log_lines_dropped.clone(),
        );
        let spans_dropped = Counter::default();
        registry.register(
            "spans_dropped",
            "Spans that no collector took",
            spans_dropped.clone(),
        );
        let exports = Family::<ExportLabels, Counter>::default();
        registry.register(
            "otlp_exports",
            "Requests to collectors, each try counted, by what became of them",
            exports.clone(),
        );
        let workload_api_connected = Gauge::default();
        registry.register(
            "workload_api_connected",
            "Whether the identity source answers: 1 or 0",
            workload_api_connected.clone(),
        );
        let sandbox = sandbox::register(registry);
        let reloads = Reloads::register(registry);
        let documents = Arc::new(Documents::default());
        registry.register_collector(Box::new(Arc::clone(&documents)));
        registry.register(
            "build",
            "What this binary was built from",
            Info::new(build_info::labels()),
        );
        registry.register_collector(Box::new(LogLinesDropped(dropped)));
        let expiries = Arc::new(Expiries::default());
        registry.register_collector(Box::new(Arc::clone(&expiries)));
        Self {
            families,
            listeners: ArcSwap::default(),
            listeners_change: Mutex::new(()),
            expiries,
            svid_rotations,
            decisions_dropped,
            audit,
            access_log_lines_dropped,
            spans_dropped,
            exports,
            workload_api_connected,
            sandbox,
            reloads,
            documents,
            registry: root,
        }
    }

    /// The handles of a listener, made at the first call. Call when a listener is set up, not for each connection.
    #[must_use]
    pub fn listener(&self, name: &Arc<str>, direction: Direction) -> Arc<ListenerMetrics> {
        let _changing = self
            .listeners_change
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all = HashMap::clone(&self.listeners.load());
        match all.get(name) {
            Some(known) if known.is(direction) => return Arc::clone(known),
            // Before the new ones are made: not every label set says the direction, so they share some.
            Some(replaced) => replaced.remove_series(),
            None => {}
        }
        let made = Arc::new(ListenerMetrics::new(name, direction, &self.families));
        all.insert(Arc::clone(name), Arc::clone(&made));
        self.listeners.store(Arc::new(all));
        made
    }

    /// Takes the series of a listener out of the exposition, once it is gone and its connections have ended.
    pub fn remove_listener(&self, name: &str) {
        let _changing = self
            .listeners_change
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all = HashMap::clone(&self.listeners.load());
        if let Some(removed) = all.remove(name) {
            removed.remove_series();
            self.listeners.store(Arc::new(all));
        }
    }

    /// What each listener has counted, in the order of their names.
    #[must_use]
    pub fn snapshots(&self) -> Vec<ListenerSnapshot> {
        let all = self.listeners.load();
        let mut snapshots: Vec<ListenerSnapshot> = all.values().map(|listener| listener.snapshot()).collect();
        snapshots.sort_by(|a, b| a.listener.cmp(&b.listener));
        snapshots
    }

    /// Counts one finished connection in `connections_total`. Bytes, decisions and handshakes are counted when they
    /// happen, by way of [`ListenerMetrics`]. A record of an unknown listener is not counted.
    pub fn record(&self, record: &ConnectionRecord) {
        if let Some(listener) = self.listeners.load().get(&record.listener) {
            listener.finished(record.reason);
        }
    }

    /// Our own SVID's ID and end, or that we hold none.
    pub fn set_svid(&self, svid: Option<(&str, SystemTime)>) {
        self.expiries
            .svid
            .store(Arc::new(svid.map(|(id, end)| (id.to_owned(), unix_seconds(end)))));
    }

    /// Every trust domain that we hold a bundle of, and when its last authority runs out.
    pub fn set_bundles(&self, bundles: impl IntoIterator<Item = (String, SystemTime)>) {
        let bundles = bundles
            .into_iter()
            .map(|(trust_domain, end)| (trust_domain, unix_seconds(end)))
            .collect();
        self.expiries.bundles.store(Arc::new(bundles));
    }

    /// Whether the identity source answers.
    pub fn set_workload_api_connected(&self, connected: bool) {
        self.workload_api_connected.set(i64::from(connected));
    }

    /// Whether this part of the sandbox holds. `part` is one of a closed set.
    pub fn set_sandbox(&self, part: &'static str, holds: bool) {
        let gauge = self.sandbox.get_or_create(&SandboxLabels { part });
        gauge.set(i64::from(holds));
    }

    /// Counts one reading of a document.
    pub fn policy_reloaded(&self, document: Document, result: ReloadResult) {
        self.reloads.count(document, result);
    }

    /// What is in force of a document. Called by one thread alone.
    pub fn set_in_force(&self, document: Document, in_force: Option<InForce>) {
        self.documents.set(document, in_force);
    }

    /// The counters of what is sent to collectors. Their series exist from the first call on.
    #[must_use]
    pub fn exports(&self, signal: Signal) -> Exports {
        Exports::new(signal, &self.exports)
    }

    /// Begins anew to count what a candidate policy decides otherwise.
    pub fn reset_divergences(&self) {
        self.families.divergences.reset();
    }

    /// All metrics as text.
    #[must_use]
    pub fn encode(&self, exposition: Exposition) -> String {
        exposition::encode(&self.registry, exposition)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
