//! What the admin endpoint shows and does: views, never of a private key, and the way to the changes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::audit::{Auditor, Done};
use super::policy::{self, Reloads};
use super::running::Running;
use super::status::Rotations;
use crate::admin::token::TokenFile;
use crate::admin::{AdminState, Changed, Changing, Feed, NoAnswer, Question, Status};
use crate::authorize::PolicyView;
use crate::clock::rfc3339;
use crate::config::settings::PolicyMode;
use crate::connection::live::Live;
use crate::connection::registry::Entry;
use crate::identity::material::{Bundle, Svid};
use crate::identity::source::State;
use crate::lifecycle::readiness::{Readiness, Snapshot};
use crate::policy::Rule;
use crate::record::audit::EntryKind;
use crate::sandbox::Confined;
use crate::spiffe::TrustDomain;
use crate::telemetry::decisions::Decisions;
use crate::telemetry::log::{DroppedLines, LogControl};
use crate::telemetry::metrics::{Document, Exposition, Metrics};

/// Implements what the admin endpoint asks for.
pub(super) struct View {
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    pub(super) decisions: Arc<Decisions>,
    pub(super) identity: ArcSwap<State>,
    /// What is in force of the config file. Replaced by one thread alone.
    pub(super) running: ArcSwap<Running>,
    /// The config file.
    pub(super) config: PathBuf,
    pub(super) reloads: Reloads,
    /// As the config says it.
    pub(super) own_trust_domain: Option<TrustDomain>,
    pub(super) started: SystemTime,
    pub(super) rotations: Rotations,
    pub(super) log_lines_dropped: DroppedLines,
    pub(super) log: LogControl,
    pub(super) feed: Feed,
    pub(super) token: Option<TokenFile>,
    /// No connection is accepted before everything else is ready.
    pub(super) held: AtomicBool,
    /// Becomes true when no more connections are to be accepted.
    pub(super) drain_asked: watch::Sender<bool>,
    /// What the process can no longer do.
    pub(super) confined: Confined,
    pub(super) auditor: Auditor,
}

impl AdminState for View {
    fn readiness(&self) -> Snapshot {
        self.readiness.snapshot()
    }

    fn metrics(&self, openmetrics: bool) -> String {
        self.metrics.encode(if openmetrics {
            Exposition::OpenMetrics
        } else {
            Exposition::Prometheus
        })
    }

    fn identity(&self) -> Value {
        let state = self.identity.load();
        let material = state.material.as_deref();
        json!({
            "status": state.status.as_str(),
            "detail": state.status.to_string(),
            "connected": state.connected,
            "problem": state.last_problem,
            "last_update": state.last_update.map(rfc3339),
            "rotations": state.rotations,
            "generation": material.map(|m| m.generation),
            "svid": material.map(|m| svid(&m.svid)),
            "svids": material.map_or_else(Vec::new, |m| m.svids.iter().map(|s| svid(s)).collect()),
            "bundles": material.map_or_else(Vec::new, |m| m.bundles.values().map(|b| bundle(b)).collect()),
        })
    }

    fn policy(&self) -> Value {
        let view = self.live.policy();
        self.policy_with(&view, view.admission.policy.rules().iter().map(rule).collect())
    }

    fn connections(&self, limit: usize, local: Option<SocketAddr>) -> Value {
        let registry = &self.live.registry;
        let (mut entries, total) = match local {
            Some(local) => (registry.at_application(local), registry.len()),
            None => {
                let entries = registry.snapshot();
                let total = entries.len();
                (entries, total)
            }
        };
        entries.sort_unstable_by_key(|entry| entry.id);
        entries.truncate(limit);
        json!({
            "total": total,
            "in_handshake_or_closing": self.live.capacity.connections().saturating_sub(total),
            "connections": entries.iter().map(|entry| connection(entry)).collect::<Vec<_>>(),
        })
    }

    fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    fn status(&self, connections: usize) -> Status {
        self.whole(connections)
    }

    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn explain(&self, question: &Question) -> Result<Value, NoAnswer> {
        self.explanation(question)
    }

    fn token(&self) -> Option<&TokenFile> {
        self.token.as_ref()
    }

    fn reload(&self) -> Changing<'_, Option<Value>> {
        Box::pin(self.read_again())
    }

    fn drain(&self) -> usize {
        self.accept_no_more()
    }

    fn close(&self, connection: u64) -> bool {
        self.close_connection(connection)
    }

    fn log(&self) -> &LogControl {
        &self.log
    }

    fn changed(&self, change: Changed) {
        let Changed {
            actor,
            operation,
            data,
        } = change;
        let done = Done::well(EntryKind::Administration, actor, operation);
        self.auditor.tell(done, None, data);
    }
}

impl View {
    /// What is in force, with what is to be told of the rules.
    pub(super) fn policy_with(&self, view: &PolicyView, rules: Vec<Value>) -> Value {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let running = self.running.load();
        let settings = &running.settings.policy;
        json!({
            "generation": view.generation,
            "mode": match view.mode { PolicyMode::Enforce => "enforce", PolicyMode::Audit => "audit" },
            "path": path(&settings.path),
            "since": rfc3339(view.since),
            "content_hash": view.admission.policy.content_hash(),
            "rules": rules,
            "last_reload": policy::last_reload(&self.reloads, Document::Policy),
            "deny_list": policy::deny_list(view, path(&settings.deny_list).as_deref(), &self.reloads),
            "candidate": policy::candidate(view, path(&settings.candidate).as_deref(), &self.reloads),
        })
    }
}

fn svid(svid: &Svid) -> Value {
    json!({
        "id": svid.id.to_string(),
        "hint": svid.hint,
        "serial": svid.serial,
        "key_type": svid.key_type,
        "not_before": rfc3339(svid.not_before),
        "not_after": rfc3339(svid.not_after),
    })
}

fn bundle(bundle: &Bundle) -> Value {
    json!({
        "trust_domain": bundle.trust_domain.as_str(),
        "authorities": bundle.authorities.len(),
        "not_after": bundle.not_after().map(rfc3339),
    })
}

fn rule(rule: &Rule) -> Value {
    let (file, line) = rule.place();
    json!({
        "name": rule.name(),
        "action": rule.action(),
        "description": rule.description(),
        "to": rule.to(),
        "ports": rule.ports(),
        "from": rule.from(),
        "not_from": rule.not_from(),
        "source": rule.source(),
        "not_source": rule.not_source(),
        "not_before": rule.not_before().map(rfc3339),
        "expires": rule.expires().map(rfc3339),
        "file": file,
        "line": line,
    })
}

pub(super) fn connection(entry: &Entry) -> Value {
    let decision = entry.decision.get();
    let basis = entry.basis();
    json!({
        "id": entry.id,
        "listener": basis.listener.name,
        "direction": basis.direction,
        "peer_addr": entry.peer_addr,
        "source": entry.source,
        "local": entry.local.get(),
        "destination": entry.destination,
        "peer_id": basis.peer.id.to_string(),
        "own_id": basis.own.id.to_string(),
        "decision_id": decision.as_ref().map(|d| d.id),
        "verdict": decision.as_ref().map(|d| d.verdict),
        "rule": decision.as_ref().and_then(|d| d.rule.clone()),
        "policy_generation": decision.as_ref().map(|d| d.policy_generation),
        "since": rfc3339(entry.since),
        "expires": rfc3339(basis.expires()),
        "bytes_up": entry.traffic.up.load(Ordering::Relaxed),
        "bytes_down": entry.traffic.down.load(Ordering::Relaxed),
    })
}
