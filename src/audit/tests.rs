//! The log on a real disk: written, rotated, torn, filled up, and then verified.

mod redacted;
mod shared;
mod tampered;
mod written;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tempfile::TempDir;

use super::verify::{Expectations, Mismatch, Summary, files_of, verify};
use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::config::settings::{AuditSync, OnAuditFailure};
use crate::record::audit::{Event, Refusal};
use crate::record::decision::tests::{bare, denial};
use crate::record::{ConnectionRecord, Decision, Direction, PeerAddr, Reason, Receipt};
use crate::spiffe::TrustDomain;
use crate::tls::configs::provider;
use crate::tls::testing;
use crate::workload_api::authority::{Authority, leaf_params};

/// A folder with one log in it, and a clock of its own.
struct Scene {
    folder: TempDir,
    clock: Arc<ManualClock>,
    settings: settings::Audit,
    metrics: AuditMetrics,
    redactor: Option<Arc<Redactor>>,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let settings = settings::Audit {
            path: folder.path().join("audit.jsonl"),
            on_failure: OnAuditFailure::Deny,
            sync: AuditSync::Os,
            sync_interval: Duration::from_millis(10),
            max_size: 1 << 20,
            max_age: Duration::from_secs(86_400),
            keep: 100,
            keep_for: None,
            compress: true,
            checkpoint_every: Duration::from_secs(3600),
            sinks: Vec::new(),
        };
        Self {
            folder,
            clock: Arc::new(ManualClock::new(SystemTime::now())),
            settings,
            metrics: AuditMetrics::default(),
            redactor: None,
        }
    }

    fn open(&self) -> Result<OpenedAudit, OpenError> {
        open(&self.settings, None)
    }

    fn start(&self) -> (AuditLog, AuditGuard) {
        self.run(self.open().unwrap())
    }

    fn run(&self, opened: OpenedAudit) -> (AuditLog, AuditGuard) {
        let surroundings = Surroundings {
            host: "pod-1".into(),
            upstreams: Arc::new(ArcSwap::from_pointee(HashMap::from([(
                "orders".into(),
                "127.0.0.1:8080".into(),
            )]))),
            ids: Arc::new(DecisionIds::new(7)),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            traced: true,
            redactor: self.redactor.clone(),
        };
        opened.start(surroundings).unwrap()
    }

    /// Opens the log, has these verdicts written, and closes it.
    fn write(&self, verdicts: usize) {
        let (log, guard) = self.start();
        for _ in 0..verdicts {
            assert!(matches!(log.record(verdict(denial())), Receipt::Kept));
        }
        drop(guard);
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        files_of(self.path()).unwrap()
    }

    fn verify(&self) -> Result<Summary, Mismatch> {
        verify(&self.files(), &Expectations::default())
    }

    /// An SVID of `orders` that is valid now, and its key.
    fn signer(&self, authority: &Authority) -> Arc<Signer> {
        self.signer_as(authority, "spiffe://example.org/orders")
    }

    fn signer_as(&self, authority: &Authority, id: &str) -> Arc<Signer> {
        let id = id.parse().unwrap();
        let params = leaf_params(&id, Duration::from_secs(3600), self.clock.now()).unwrap();
        let svid = testing::svid(&authority.sign(&params).unwrap());
        let key = provider()
            .key_provider
            .load_private_key(svid.key.clone_key())
            .unwrap();
        Arc::new(Signer {
            svid: Arc::new(svid),
            key,
        })
    }

    fn authority(&self) -> Authority {
        let trust_domain = TrustDomain::new("example.org").unwrap();
        Authority::new(trust_domain, Duration::from_secs(86_400), self.clock.now()).unwrap()
    }
}

fn verdict(decision: Decision) -> Event {
    Event::Verdict(Arc::new(decision))
}

/// An authority as a bundle holds it.
fn pem(authority: &Authority) -> String {
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.encode(authority.root());
    format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n")
}

/// Somebody who knocked and was turned away.
fn refusal(number: u64) -> Refusal {
    let record = ConnectionRecord {
        id: number,
        time: SystemTime::now(),
        listener: "orders".into(),
        direction: Direction::Inbound,
        peer_addr: PeerAddr::Ip([10, 1, 2, 3].into(), 99),
        source: Some([10, 1, 2, 3].into()),
        peer_id: None,
        own_id: None,
        resumed: None,
        decision: None,
        admission: None,
        reason: Reason::NotTls,
        detail: None,
        destination: None,
        upstream: None,
        bytes_up: 0,
        bytes_down: 0,
        duration: Duration::ZERO,
        trace: None,
    };
    Refusal::of(&record, || DecisionIds::new(7).next()).unwrap()
}

/// What happened in the log itself, in order.
fn operations(text: &str) -> Vec<String> {
    let entries = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    entries
        .filter(|entry| entry["kind"] == "log")
        .map(|entry| entry["operation"].as_str().unwrap().to_owned())
        .collect()
}
