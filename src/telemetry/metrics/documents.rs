//! The config, and the documents that say who may connect: how reading them went, and which are in force.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::collect::unix_seconds;
use super::labels::{DocumentLabels, ReloadLabels};

/// Which document: the `document` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Document {
    /// The config file.
    Config,
    /// `policy.path`.
    Policy,
    /// `policy.deny_list`.
    DenyList,
    /// `policy.candidate`.
    Candidate,
}

impl Document {
    /// Every value, in the order of the documentation.
    pub const ALL: &'static [Self] = &[Self::Config, Self::Policy, Self::DenyList, Self::Candidate];

    /// The word used as label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Policy => "policy",
            Self::DenyList => "deny_list",
            Self::Candidate => "candidate",
        }
    }
}

/// How reading a document went: the `result` label of `policy_reload_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// What was read is in force.
    Success,
    /// The last good one stays in force.
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

/// A document in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Counts up from 1 in this process.
    pub generation: u64,
    /// SHA-256 over its files, in hexadecimal.
    pub content_hash: String,
    /// Where it was read from.
    pub source: String,
    /// Since when.
    pub since: SystemTime,
}

/// What is in force, put together at each scrape.
#[derive(Debug, Default)]
pub(super) struct Documents(ArcSwap<BTreeMap<Document, InForce>>);

impl Documents {
    /// Called by one thread alone.
    pub(super) fn set(&self, document: Document, in_force: Option<InForce>) {
        let mut all = BTreeMap::clone(&self.0.load());
        match in_force {
            Some(in_force) => all.insert(document, in_force),
            None => all.remove(&document),
        };
        self.0.store(all.into());
    }
}

impl Collector for Documents {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all = self.0.load();
        let generations = [
            (
                Document::Config,
                "config_generation",
                "The number of the config in force, counted from 1 in this process",
            ),
            (
                Document::Policy,
                "policy_generation",
                "The number of the policy in force, counted from 1 in this process",
            ),
            (
                Document::DenyList,
                "deny_list_generation",
                "The number of the deny list in force, counted from 1 in this process",
            ),
            (
                Document::Candidate,
                "candidate_generation",
                "The number of the candidate policy that is asked, counted from 1 in this process",
            ),
        ];
        for (document, name, help) in generations {
            // There is always a policy: the one that denies all, before any was read.
            let generation = match all.get(&document) {
                None if document != Document::Policy => continue,
                in_force => in_force.map_or(0, |in_force| in_force.generation),
            };
            ConstGauge::new(generation).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        if all.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "policy_since_timestamp",
            "Since when a document is in force, with its content's hash and where it was read from",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (document, in_force) in all.iter() {
            let labels = [
                ("document", document.as_str()),
                ("content_hash", in_force.content_hash.as_str()),
                ("source", in_force.source.as_str()),
            ];
            ConstGauge::new(unix_seconds(in_force.since)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// How reading went: a counter for each document and result, and for each document whether the newest is refused. All are
/// there from the start.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    counts: Vec<((Document, ReloadResult), Counter)>,
    failing: Vec<(Document, Gauge)>,
}

impl Reloads {
    /// Registers both metrics.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let count = Family::<ReloadLabels, Counter>::default();
        let failing = Family::<DocumentLabels, Gauge>::default();
        let mut reloads = Self::default();
        for document in Document::ALL {
            for result in ReloadResult::ALL {
                let labels = ReloadLabels {
                    document: document.as_str(),
                    result: result.as_str(),
                };
                let counter = count.get_or_create_owned(&labels);
                reloads.counts.push(((*document, *result), counter));
            }
            let labels = DocumentLabels {
                document: document.as_str(),
            };
            reloads
                .failing
                .push((*document, failing.get_or_create_owned(&labels)));
        }
        registry.register(
            "policy_reload",
            "Configs, policies, deny lists and candidates read, at start and after",
            count,
        );
        registry.register(
            "policy_reload_failing",
            "1 while what was read last of a document could not be used",
            failing,
        );
        reloads
    }

    pub(super) fn count(&self, document: Document, result: ReloadResult) {
        if let Some((_, counter)) = self.counts.iter().find(|(which, _)| *which == (document, result)) {
            counter.inc();
        }
        if let Some((_, failing)) = self.failing.iter().find(|(which, _)| *which == document) {
            failing.set(i64::from(result == ReloadResult::Failure));
        }
    }
}
