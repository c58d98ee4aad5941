//! What the admin endpoint shows: read-only views, never a private key.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admin::AdminState;
use crate::clock::rfc3339;
use crate::config::settings::PolicyMode;
use crate::connection::live::Live;
use crate::connection::registry::{Entry, lock};
use crate::identity::material::{Bundle, Svid};
use crate::identity::source::State;
use crate::lifecycle::readiness::{Readiness, Snapshot};
use crate::policy::Rule;
use crate::telemetry::metrics::{Exposition, Metrics};

/// How the last reading of the policy went.
#[derive(Clone, Debug)]
pub(super) struct LastReload {
    pub(super) at: SystemTime,
    /// The problems; none when it went well.
    pub(super) problems: Vec<String>,
}

/// Implements what the admin endpoint asks for.
pub(super) struct View {
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    pub(super) identity: watch::Receiver<Arc<State>>,
    pub(super) policy_path: Option<String>,
    pub(super) last_reload: Mutex<Option<LastReload>>,
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
        let state = self.identity.borrow().clone();
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
        let reload = lock(&self.last_reload).clone();
        json!({
            "generation": view.generation,
            "mode": match view.mode { PolicyMode::Enforce => "enforce", PolicyMode::Audit => "audit" },
            "path": self.policy_path,
            "since": rfc3339(view.since),
            "content_hash": view.admission.policy.content_hash(),
            "rules": view.admission.policy.rules().iter().map(rule).collect::<Vec<_>>(),
            "last_reload": reload.map(|reload| json!({
                "at": rfc3339(reload.at),
                "result": if reload.problems.is_empty() { "success" } else { "failure" },
                "problems": reload.problems,
            })),
        })
    }

    fn connections(&self, limit: usize) -> Value {
        let mut entries = self.live.registry.snapshot();
        let total = entries.len();
        entries.sort_unstable_by_key(|entry| entry.id);
        entries.truncate(limit);
        json!({
            "total": total,
            "in_handshake_or_closing": self.live.capacity.connections().saturating_sub(total),
            "connections": entries.iter().map(|entry| connection(entry)).collect::<Vec<_>>(),
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
        "to": rule.to(),
        "from": rule.from().map(|from| from.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "source": rule.source().map(|source| source.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "expires": rule.expires().map(rfc3339),
        "file": file,
        "line": line,
    })
}

fn connection(entry: &Entry) -> Value {
    let decision = entry.decision.get();
    json!({
        "id": entry.id,
        "listener": entry.listener.name,
        "direction": entry.direction,
        "peer_addr": entry.peer_addr,
        "peer_id": entry.peer.id.to_string(),
        "own_id": entry.own.id.to_string(),
        "verdict": decision.as_ref().map(|d| d.verdict),
        "rule": decision.as_ref().and_then(|d| d.rule.clone()),
        "policy_generation": decision.as_ref().map(|d| d.policy_generation),
        "since": rfc3339(entry.since),
        "expires": rfc3339(entry.expires()),
        "bytes_up": entry.traffic.up.load(Ordering::Relaxed),
        "bytes_down": entry.traffic.down.load(Ordering::Relaxed),
    })
}
