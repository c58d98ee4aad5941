//! The metrics, and their text form.
//!
//! Everything that a connection touches is resolved once, into the [`ListenerMetrics`] of its listener: counting
//! is then an atomic addition. No label takes a value that a peer chooses: listeners and rules come from our own
//! files, `result`, `reason`, `verdict`, `direction` and `flow` are closed sets, and the SVID's `id` is ours.

mod exposition;
mod process;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric as _};
use prometheus_client::registry::{Registry, Unit};

use super::log::DroppedLines;
use crate::record::{ConnectionRecord, Direction, Reason, RecordSink, Verdict};

pub use exposition::Exposition;

/// The `rule` label of a decision whose rule is not in force any more (the policy was replaced in between).
pub const OTHER_RULE: &str = "(other)";

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
    workload_api_connected: Gauge,
    policy_reload_success: Counter,
    policy_reload_failure: Counter,
    policy_generation: Gauge<u64, AtomicU64>,
}

/// The handles of one listener.
pub struct ListenerMetrics {
    labels: ListenerLabels,
    families: Families,
    /// One for each of [`Reason::ALL`], in its order.
    connections: Vec<Counter>,
    open: Gauge,
    /// Payload from the one who connected to the one who was connected to.
    pub bytes_up: Counter,
    /// Payload the other way.
    pub bytes_down: Counter,
    handshake: Histogram,
    decisions: ArcSwap<Decisions>,
}

/// Which of the two directions of a connection: the `flow` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// From the one who connected to the one who was connected to.
    Up,
    /// The other way.
    Down,
}

impl Flow {
    /// Every value, in the order of the documentation.
    pub const ALL: &'static [Self] = &[Self::Up, Self::Down];

    /// The word used as label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How reading a policy went: the `result` label of `policy_reload_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new policy is in force.
    Success,
    /// The last good policy stays in force.
    Failure,
}

impl ReloadResult {
    /// Every value, in the order of the documentation.
    pub const ALL: &'static [Self] = &[Self::Success, Self::Failure];

    /// The word used as label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// An open connection in `connections_open`; counted out when dropped.
#[must_use = "the connection counts as open only while this is held"]
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
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
        let workload_api_connected = Gauge::default();
        registry.register(
            "workload_api_connected",
            "Whether the identity source answers: 1 or 0",
            workload_api_connected.clone(),
        );
        let reload = Family::<ReloadLabels, Counter>::default();
        registry.register(
            "policy_reload",
            "Policies read, at start and after",
            reload.clone(),
        );
        let reload_counter = |result: ReloadResult| {
            reload.get_or_create_owned(&ReloadLabels {
                result: result.as_str(),
            })
        };
        let policy_generation = Gauge::default();
        registry.register(
            "policy_generation",
            "The number of the policy in force, counted from 1 in this process",
            policy_generation.clone(),
        );
        registry.register(
            "build",
            "What this binary was built from",
            Info::new(build_labels()),
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
            workload_api_connected,
            policy_reload_success: reload_counter(ReloadResult::Success),
            policy_reload_failure: reload_counter(ReloadResult::Failure),
            policy_generation,
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
        if let Some(known) = self.listeners.load().get(name)
            && known.labels.direction == direction.as_str()
        {
            return Arc::clone(known);
        }
        let made = Arc::new(ListenerMetrics::new(name, direction, &self.families));
        let mut all = HashMap::clone(&self.listeners.load());
        if let Some(replaced) = all.insert(Arc::clone(name), Arc::clone(&made)) {
            replaced.remove_series();
        }
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

    /// Counts one reading of the policy.
    pub fn policy_reloaded(&self, result: ReloadResult) {
        match result {
            ReloadResult::Success => self.policy_reload_success.inc(),
            ReloadResult::Failure => self.policy_reload_failure.inc(),
        };
    }

    /// The number of the policy in force.
    pub fn set_policy_generation(&self, generation: u64) {
        self.policy_generation.set(generation);
    }

    /// All metrics as text.
    #[must_use]
    pub fn encode(&self, exposition: Exposition) -> String {
        exposition::encode(&self.registry, exposition)
    }
}

impl RecordSink for Metrics {
    fn record(&self, record: &ConnectionRecord) {
        Self::record(self, record);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl ListenerMetrics {
    /// Counts a connection as open while the value lives.
    pub fn open(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// The counter of one direction's payload bytes; to be kept by the one who moves them.
    #[must_use]
    pub const fn bytes(&self, flow: Flow) -> &Counter {
        match flow {
            Flow::Up => &self.bytes_up,
            Flow::Down => &self.bytes_down,
        }
    }

    /// A TLS handshake that completed, and how long it took.
    pub fn handshake(&self, took: Duration) {
        self.handshake.observe(took.as_secs_f64());
    }

    /// Counts one decision of authorization. `rule` is `None` where no rule decided; [`Verdict::None`] is no
    /// decision and not counted.
    pub fn decided(&self, rule: Option<&str>, verdict: Verdict) {
        self.decisions.load().count(rule, verdict);
    }

    /// The rules (inbound) or `peer` patterns (outbound) in force for this listener, each with the verdicts it can
    /// give. Counts of rules that stay are kept, the series of others are removed.
    pub fn set_rules<'a>(&self, rules: impl IntoIterator<Item = (&'a str, Verdict)>) {
        let next = Decisions::new(&self.labels, &self.families.decisions, rules);
        let previous = self.decisions.swap(Arc::new(next));
        let current = self.decisions.load();
        for (rule, verdict) in previous.keys() {
            if !current.contains(rule, verdict) {
                self.families
                    .decisions
                    .remove(&self.labels.decision(rule, verdict));
            }
        }
    }

    fn new(name: &Arc<str>, direction: Direction, families: &Families) -> Self {
        let labels = ListenerLabels {
            listener: Arc::clone(name),
            direction: direction.as_str(),
        };
        let bytes = |flow: Flow| families.bytes.get_or_create_owned(&labels.bytes(flow));
        // All reasons exist from the start: a rate over a series that springs into life at 1 misses the first event.
        let connections = Reason::ALL
            .iter()
            .map(|reason| {
                families
                    .connections
                    .get_or_create_owned(&labels.connection(*reason))
            })
            .collect();
        Self {
            connections,
            open: families.open.get_or_create_owned(&labels),
            bytes_up: bytes(Flow::Up),
            bytes_down: bytes(Flow::Down),
            handshake: families.handshake.get_or_create_owned(&labels),
            decisions: ArcSwap::from_pointee(Decisions::new(&labels, &families.decisions, [])),
            families: families.clone(),
            labels,
        }
    }

    fn finished(&self, reason: Reason) {
        // `ALL` lists the variants in order of declaration, so that the discriminant is the place.
        if let Some(counter) = self.connections.get(reason as usize) {
            counter.inc();
        }
    }

    fn remove_series(&self) {
        for reason in Reason::ALL {
            self.families.connections.remove(&self.labels.connection(*reason));
        }
        for flow in Flow::ALL {
            self.families.bytes.remove(&self.labels.bytes(*flow));
        }
        self.families.open.remove(&self.labels);
        self.families.handshake.remove(&self.labels);
        for (rule, verdict) in self.decisions.load().keys() {
            self.families
                .decisions
                .remove(&self.labels.decision(rule, verdict));
        }
    }
}

impl fmt::Debug for ListenerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerMetrics")
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// The decision counters of one listener: those of its rules, and two catch-alls, so that the set is closed.
#[derive(Default)]
struct Decisions {
    by_rule: HashMap<Arc<str>, PerVerdict>,
}

#[derive(Default)]
struct PerVerdict {
    allow: Option<Counter>,
    deny: Option<Counter>,
}

impl PerVerdict {
    const fn counter(&self, verdict: Verdict) -> Option<&Counter> {
        match verdict {
            Verdict::Allow => self.allow.as_ref(),
            Verdict::Deny => self.deny.as_ref(),
            Verdict::None => None,
        }
    }
}

impl Decisions {
    fn new<'a>(
        labels: &ListenerLabels,
        family: &Family<DecisionLabels, Counter>,
        rules: impl IntoIterator<Item = (&'a str, Verdict)>,
    ) -> Self {
        let mut by_rule = HashMap::<Arc<str>, PerVerdict>::new();
        // The empty rule is default deny; an empty label is the same as none to Prometheus.
        let fixed = [
            ("", Verdict::Deny),
            (OTHER_RULE, Verdict::Allow),
            (OTHER_RULE, Verdict::Deny),
        ];
        for (rule, verdict) in fixed.into_iter().chain(rules) {
            let counter = || Some(family.get_or_create_owned(&labels.decision(rule, verdict)));
            let entry = by_rule.entry(rule.into()).or_default();
            match verdict {
                Verdict::Allow => entry.allow = counter(),
                Verdict::Deny => entry.deny = counter(),
                Verdict::None => {}
            }
        }
        Self { by_rule }
    }

    fn count(&self, rule: Option<&str>, verdict: Verdict) {
        let counter = |rule| self.by_rule.get(rule).and_then(|c| c.counter(verdict));
        if let Some(counter) = counter(rule.unwrap_or("")).or_else(|| counter(OTHER_RULE)) {
            counter.inc();
        }
    }

    fn contains(&self, rule: &str, verdict: Verdict) -> bool {
        self.by_rule
            .get(rule)
            .is_some_and(|c| c.counter(verdict).is_some())
    }

    fn keys(&self) -> impl Iterator<Item = (&Arc<str>, Verdict)> {
        self.by_rule.iter().flat_map(|(rule, counters)| {
            [Verdict::Allow, Verdict::Deny]
                .into_iter()
                .filter(|verdict| counters.counter(*verdict).is_some())
                .map(move |verdict| (rule, verdict))
        })
    }
}

/// The families that have one series for each listener.
#[derive(Clone)]
struct Families {
    connections: Family<ConnectionLabels, Counter>,
    open: Family<ListenerLabels, Gauge>,
    bytes: Family<BytesLabels, Counter>,
    handshake: Family<ListenerLabels, Histogram>,
    decisions: Family<DecisionLabels, Counter>,
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let families = Self {
            connections: Family::default(),
            open: Family::default(),
            bytes: Family::default(),
            handshake: Family::new_with_constructor(|| Histogram::new(HANDSHAKE_BUCKETS)),
            decisions: Family::default(),
        };
        registry.register(
            "connections",
            "Connections that ended, by outcome",
            families.connections.clone(),
        );
        registry.register(
            "connections_open",
            "Connections that are open",
            families.open.clone(),
        );
        registry.register("bytes", "Payload bytes forwarded", families.bytes.clone());
        registry.register_with_unit(
            "handshake",
            "Time from acceptance (inbound) or dialling (outbound) to the end of the TLS handshake",
            Unit::Seconds,
            families.handshake.clone(),
        );
        registry.register(
            "authorization_decisions",
            "Decisions of authorization by the rule that decided",
            families.decisions.clone(),
        );
        families
    }
}

/// A handshake takes two signatures and two round trips; what is slower than a second is trouble.
const HANDSHAKE_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: Arc<str>,
    direction: &'static str,
}

impl ListenerLabels {
    fn connection(&self, reason: Reason) -> ConnectionLabels {
        ConnectionLabels {
            listener: Arc::clone(&self.listener),
            direction: self.direction,
            result: reason.outcome().as_str(),
            reason: reason.as_str(),
        }
    }

    fn bytes(&self, flow: Flow) -> BytesLabels {
        BytesLabels {
            listener: Arc::clone(&self.listener),
            direction: self.direction,
            flow: flow.as_str(),
        }
    }

    fn decision(&self, rule: &str, verdict: Verdict) -> DecisionLabels {
        DecisionLabels {
            listener: Arc::clone(&self.listener),
            rule: rule.into(),
            verdict: verdict.as_str(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    listener: Arc<str>,
    direction: &'static str,
    result: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BytesLabels {
    listener: Arc<str>,
    direction: &'static str,
    flow: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    listener: Arc<str>,
    rule: Arc<str>,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

/// The ends of what we hold, published whole, so that a scrape never sees a half-made set.
#[derive(Debug, Default)]
struct Expiries {
    svid: ArcSwap<Option<(String, i64)>>,
    bundles: ArcSwap<BTreeMap<String, i64>>,
}

impl Collector for Expiries {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some((id, end)) = &**self.svid.load() {
            let help = "When the SVID we present runs out";
            let mut family = encoder.encode_descriptor(
                "svid_expiry_timestamp",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            ConstGauge::new(*end).encode(family.encode_family(&[("id", id.as_str())])?)?;
        }
        let bundles = self.bundles.load();
        if !bundles.is_empty() {
            let help = "When the last authority of a trust domain's bundle runs out";
            let mut family = encoder.encode_descriptor(
                "bundle_expiry_timestamp",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            for (trust_domain, end) in bundles.iter() {
                ConstGauge::new(*end)
                    .encode(family.encode_family(&[("trust_domain", trust_domain.as_str())])?)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct LogLinesDropped(Option<DroppedLines>);

impl Collector for LogLinesDropped {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let dropped = ConstCounter::new(self.0.as_ref().map_or(0, DroppedLines::count));
        let help = "Log lines dropped because whoever reads them is too slow";
        dropped.encode(encoder.encode_descriptor(
            "log_lines_dropped",
            help,
            None,
            ConstCounter::<u64>::TYPE,
        )?)
    }
}

/// The version and the commit, which the build hands in as `SVIDECAR_COMMIT`.
fn build_labels() -> Vec<(&'static str, &'static str)> {
    vec![
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", option_env!("SVIDECAR_COMMIT").unwrap_or("unknown")),
        ("os", std::env::consts::OS),
        ("arch", std::env::consts::ARCH),
    ]
}

fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

#[cfg(test)]
mod tests;
