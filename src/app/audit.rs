//! What the control runtime tells the audit log: what verdicts rest on, and how it changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::policy::in_force;
use super::shared::Control;
use super::{AppError, Started};
use crate::audit::{AuditGuard, AuditLog, OpenedAudit, Signer, Sink, SinkHandle, Surroundings};
use crate::clock::rfc3339;
use crate::config::Difference;
use crate::config::settings::{self, AuditSink, Settings};
use crate::connection::live::{IdentityView, Live};
use crate::identity::material::{Bundle, Material};
use crate::lifecycle::readiness::{Condition, Readiness};
use crate::record::DecisionIds;
use crate::record::audit::{Actor, Change, EntryKind, EntryOutcome, Event, Operation};
use crate::spiffe::TrustDomain;
use crate::telemetry::metrics::{AuditMetrics, Document, Metrics, Signal};
use crate::tls::configs::Context;
use crate::yaml::Diagnostic;

/// Starts the log's thread.
pub(super) fn start(
    opened: OpenedAudit,
    started: &Started,
    ids: &Arc<DecisionIds>,
    metrics: AuditMetrics,
) -> Result<(AuditLog, AuditGuard), AppError> {
    let host = rustix::system::uname();
    let surroundings = Surroundings {
        host: host.nodename().to_string_lossy().into(),
        upstreams: started.upstreams.clone(),
        ids: Arc::clone(ids),
        clock: started.clock.clone(),
        metrics,
        traced: started.settings.traces.is_some(),
        redactor: started.redactor.clone(),
    };
    Ok(opened.start(surroundings)?)
}

/// The sinks of the log, which do not run yet.
pub(super) fn sinks(log: Option<&AuditLog>, settings: &Settings, metrics: &Metrics) -> Vec<Sink> {
    let (Some(log), Some(audit)) = (log, &settings.audit) else {
        return Vec::new();
    };
    let sink = |sink: &AuditSink| {
        let exports = metrics.exports(Signal::Logs);
        Sink::new(sink, audit, log, metrics.audit.sink(&sink.name), exports)
    };
    audit.sinks.iter().map(sink).collect()
}

/// Shows in readiness whether the log can be written.
pub(super) async fn watch(
    mut failing: watch::Receiver<Option<Arc<str>>>,
    readiness: Readiness,
    denies: bool,
) {
    loop {
        match failing.borrow_and_update().as_deref() {
            None => readiness.set(Condition::Audit, true, "written"),
            Some(why) => {
                let what = if denies {
                    "nobody is let in"
                } else {
                    "what is not recorded is counted"
                };
                readiness.set(
                    Condition::Audit,
                    !denies,
                    format!("cannot be written: {why}; {what}"),
                )
            }
        };
        if failing.changed().await.is_err() {
            return;
        }
    }
}

/// What was done, and by whom.
pub(super) struct Done {
    pub(super) kind: EntryKind,
    pub(super) actor: Actor,
    pub(super) operation: Operation,
    pub(super) outcome: EntryOutcome,
}

impl Done {
    pub(super) const fn well(kind: EntryKind, actor: Actor, operation: Operation) -> Self {
        Self {
            kind,
            actor,
            operation,
            outcome: EntryOutcome::Success,
        }
    }
}

/// Who tells the audit log of changes, and shows how the log is.
pub(super) struct Auditor {
    pub(super) live: Arc<Live>,
    /// Where there is one.
    pub(super) log: Option<AuditLog>,
    /// Where it is sent on to.
    pub(super) sinks: Vec<SinkHandle>,
    /// As the config has it.
    pub(super) settings: Option<settings::Audit>,
}

impl Auditor {
    /// Records a change, where there is an audit log.
    pub(super) fn tell(&self, done: Done, detail: Option<String>, data: Value) {
        let Some(log) = &self.log else { return };
        let own_id = match &*self.live.identity() {
            IdentityView::Held(context) => Some(context.material.svid.id.clone()),
            IdentityView::Missing { .. } => None,
        };
        let Done {
            kind,
            actor,
            operation,
            outcome,
        } = done;
        let change = Change {
            id: self.live.decisions.next(),
            time: self.live.clock.now(),
            kind,
            actor,
            operation,
            outcome,
            detail,
            own_id,
            policy_generation: Some(self.live.policy().generation),
            data,
        };
        // Nobody is let in by it: what cannot be kept is counted.
        let _ = log.record(Event::Change(Box::new(change)));
    }

    /// How the log is; `None` where there is none.
    pub(super) fn show(&self) -> Option<Value> {
        let (log, settings) = (self.log.as_ref()?, self.settings.as_ref()?);
        let status = log.status();
        let sinks: Vec<_> = self.sinks.iter().map(SinkHandle::status).collect();
        let sinks = sinks
            .iter()
            .map(|sink| json!({ "name": sink.name, "lag": sink.lag, "problem": sink.problem }));
        Some(json!({
            "file": settings.path.display().to_string(),
            "failing": log.failing().borrow().as_deref(),
            "on_failure": settings.on_failure.as_str(),
            "records": status.written,
            "head": status.head.map(|(_, hash)| hash.to_string()),
            "head_seq": status.head.map(|(seq, _)| seq),
            "durable_seq": status.durable,
            "last_checkpoint": status.last_checkpoint.map(rfc3339),
            "lost": status.lost,
            "sinks": sinks.collect::<Vec<_>>(),
        }))
    }
}

impl Control {
    /// Records a change, where there is an audit log.
    pub(super) fn audit(&self, done: Done, detail: Option<String>, data: Value) {
        self.view.auditor.tell(done, detail, data);
    }

    /// The process begins, and by which settings.
    pub(super) fn audit_start(&self) {
        let data = json!({ "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id() });
        self.audit(
            Done::well(EntryKind::Process, Actor::Svidecar, Operation::Start),
            None,
            data,
        );
        self.audit_config(None);
    }

    /// The config is in force, the first or with what is different, or a newer one is refused.
    pub(super) fn audit_config(&self, reading: Option<Result<&Difference, &[Diagnostic]>>) {
        let running = self.running();
        let names: Vec<_> = running.settings.listeners.iter().map(|l| &*l.name).collect();
        let mut data = json!({
            "path": self.view.config.display().to_string(),
            "generation": running.generation,
            "content_hash": running.settings.content_hash,
            "listeners": names,
        });
        let mut done = Done::well(EntryKind::Configuration, Actor::Files, Operation::Load);
        let mut detail = None;
        match (reading, data.as_object_mut()) {
            (Some(Ok(difference)), Some(data)) => {
                let sections = &difference.sections;
                data.insert("added".to_owned(), json!(difference.added));
                data.insert("removed".to_owned(), json!(difference.removed));
                data.insert("changed".to_owned(), json!(difference.changed));
                data.insert("sections".to_owned(), json!(sections));
                if let Some((before, now)) = difference.mode {
                    data.insert("mode".to_owned(), json!(now.as_str()));
                    data.insert("mode_before".to_owned(), json!(before.as_str()));
                }
            }
            (Some(Err(problems)), Some(data)) => {
                let mut errors = problems.iter().filter(|problem| problem.is_error());
                done.outcome = EntryOutcome::Failure;
                detail = errors.next().map(Diagnostic::summary);
                data.insert(
                    "problems".to_owned(),
                    json!(errors.count() + usize::from(detail.is_some())),
                );
            }
            _ => {}
        }
        self.audit(done, detail, data);
    }

    /// A document is in force, as the settings name it.
    pub(super) fn audit_document(&self, document: Document, problems: &[Diagnostic]) {
        let view = self.live.policy();
        let (generation, hash) = match in_force(&view, document) {
            Some((generation, hash, _)) => (Some(generation), Some(hash)),
            None => (None, None),
        };
        let failed = problems.iter().any(Diagnostic::is_error);
        let done = Done {
            kind: kind(document),
            actor: Actor::Files,
            operation: Operation::Load,
            outcome: if failed {
                EntryOutcome::Failure
            } else {
                EntryOutcome::Success
            },
        };
        let detail = problems
            .iter()
            .find(|problem| problem.is_error())
            .map(Diagnostic::summary);
        let data = json!({
            "generation": generation,
            "content_hash": hash,
            "problems": problems.iter().filter(|problem| problem.is_error()).count(),
        });
        self.audit(done, detail, data);
    }

    /// The config names this document no more, and none is in force.
    pub(super) fn audit_no_document(&self, document: Document) {
        let done = Done::well(kind(document), Actor::Files, Operation::Remove);
        let detail = "the config names none any more".to_owned();
        self.audit(done, Some(detail), Value::Null);
    }

    /// We have another SVID; what signs is its key from here on.
    pub(super) fn audit_identity(&self, context: &Context, before: Option<&Material>) {
        let Some(log) = &self.view.auditor.log else { return };
        let svid = &context.material.svid;
        log.sign_with(Some(Arc::new(Signer {
            svid: svid.clone(),
            key: context.key.clone(),
        })));
        if before.is_none_or(|before| before.svid.serial != svid.serial || before.svid.id != svid.id) {
            let data = json!({
                "spiffe_id": svid.id.to_string(),
                "serial": svid.serial,
                "key_type": svid.key_type,
                "not_before": rfc3339(svid.not_before),
                "not_after": rfc3339(svid.not_after),
            });
            let done = Done::well(EntryKind::Identity, Actor::IdentitySource, Operation::Rotate);
            self.audit(done, None, data);
        }
        let none = BTreeMap::new();
        let old = before.map_or(&none, |before| &before.bundles);
        self.audit_bundles(old, &context.material.bundles);
    }

    /// We hold no SVID any more, or never did.
    pub(super) fn audit_no_identity(&self, why: &str) {
        let Some(log) = &self.view.auditor.log else { return };
        log.sign_with(None);
        let done = Done::well(EntryKind::Identity, Actor::IdentitySource, Operation::Remove);
        self.audit(done, Some(why.to_owned()), Value::Null);
    }

    /// An update that could not be used.
    pub(super) fn audit_unusable_identity(&self, why: &str) {
        let done = Done {
            outcome: EntryOutcome::Failure,
            ..Done::well(EntryKind::Identity, Actor::IdentitySource, Operation::Rotate)
        };
        self.audit(done, Some(why.to_owned()), Value::Null);
    }

    fn audit_bundles(
        &self,
        old: &BTreeMap<TrustDomain, Arc<Bundle>>,
        new: &BTreeMap<TrustDomain, Arc<Bundle>>,
    ) {
        let tell = |bundle: &Bundle, operation| {
            let data = json!({
                "trust_domain": bundle.trust_domain.as_str(),
                "authorities": bundle.authorities.len(),
                "not_after": bundle.not_after().map(rfc3339),
            });
            self.audit(
                Done::well(EntryKind::Bundle, Actor::IdentitySource, operation),
                None,
                data,
            );
        };
        for (trust_domain, bundle) in new {
            match old.get(trust_domain) {
                None => tell(bundle, Operation::Add),
                Some(before) if before != bundle => tell(bundle, Operation::Change),
                Some(_) => {}
            }
        }
        for (trust_domain, bundle) in old {
            if !new.contains_key(trust_domain) {
                tell(bundle, Operation::Remove);
            }
        }
    }
}

/// What entries about this document are of.
const fn kind(document: Document) -> EntryKind {
    match document {
        Document::Config => EntryKind::Configuration,
        Document::Policy => EntryKind::Policy,
        Document::DenyList => EntryKind::DenyList,
        Document::Candidate => EntryKind::Candidate,
    }
}
