//! Puts policies into force: reads the files again when they change or a signal asks for it, keeps the last good one, and
//! shows both.

use std::path::PathBuf;
use std::sync::Arc;

use super::load_policy;
use super::shared::Control;
use super::state::LastReload;
use crate::authorize::PolicyView;
use crate::config::settings::{Listener, ListenerKind};
use crate::connection::registry::lock;
use crate::lifecycle::readiness::Condition;
use crate::policy::{Action, Admission, Policy};
use crate::record::Verdict;
use crate::reload::{self, Fingerprint};
use crate::telemetry::metrics::{ListenerMetrics, ReloadResult};
use crate::yaml::{Diagnostic, counted};

/// Reads the policy again when its files change or a signal asks for it.
pub(super) async fn follow(control: Arc<Control>, path: PathBuf, mut seen: Fingerprint) {
    let mut generation = 1;
    loop {
        let asked = tokio::time::timeout(reload::PERIOD, control.reload_asked.notified())
            .await
            .is_ok();
        let looked_at = path.clone();
        // A dead network file system must not hold up identity and signals.
        let now = match tokio::task::spawn_blocking(move || reload::fingerprint(&looked_at)).await {
            Ok(now) if now == seen && !asked => continue,
            Ok(now) => now,
            // A panic, which is in the log.
            Err(_) => continue,
        };
        seen = now;
        let (settings, time) = (control.settings.clone(), control.clock.now());
        let name = path.display().to_string();
        let loaded = tokio::task::spawn_blocking(move || load_policy(&settings, time))
            .await
            .unwrap_or_else(|error| {
                Err(vec![Diagnostic::of_file(
                    &name,
                    format!("reading it failed: {error}"),
                )])
            });
        match loaded {
            Ok((policy, warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{}", warning.summary());
                }
                control.metrics.policy_reloaded(ReloadResult::Success);
                if policy.content_hash() == control.live.policy().admission.policy.content_hash() {
                    tracing::info!(generation, "the policy was read again and has not changed");
                    control.show_policy(&[]);
                } else {
                    generation += 1;
                    control.set_policy(policy, generation);
                    tracing::info!(generation, "a new policy is in force");
                }
            }
            Err(problems) => {
                control.metrics.policy_reloaded(ReloadResult::Failure);
                for problem in problems.iter().filter(|p| p.is_error()) {
                    tracing::error!(
                        generation,
                        "the new policy is refused, the last good one stays in force: {}",
                        problem.summary()
                    );
                }
                control.show_policy(&problems);
            }
        }
    }
}

impl Control {
    /// Puts a policy into force.
    pub(super) fn set_policy(&self, policy: Policy, generation: u64) {
        for (listener, metrics) in self.settings.listeners.iter().zip(&self.listeners) {
            set_rules(metrics, listener, &policy);
        }
        self.metrics.set_policy_generation(generation);
        self.live.set_policy(PolicyView {
            generation,
            admission: Admission::new(Arc::new(policy), Arc::default()),
            mode: self.settings.policy.mode,
            since: self.clock.now(),
        });
        self.show_policy(&[]);
    }

    /// Shows the policy in force, and what is wrong with the newest files.
    fn show_policy(&self, problems: &[Diagnostic]) {
        let view = self.live.policy();
        let problems: Vec<String> = problems
            .iter()
            .filter(|p| p.is_error())
            .map(|p| p.summary())
            .collect();
        let rules = counted(view.admission.policy.rules().len(), "rule");
        let detail = match problems.first() {
            None => format!("generation {}, {rules}", view.generation),
            Some(first) => format!(
                "generation {} stays in force: the files have {}, the first: {first}",
                view.generation,
                counted(problems.len(), "error")
            ),
        };
        self.readiness.set(Condition::Policy, true, detail);
        *lock(&self.view.last_reload) = Some(LastReload {
            at: self.clock.now(),
            problems,
        });
    }
}

/// The rules that can decide for a listener, for the metric that counts decisions.
fn set_rules(metrics: &ListenerMetrics, listener: &Listener, policy: &Policy) {
    match &listener.kind {
        ListenerKind::Inbound { .. } => {
            metrics.set_rules(policy.rules().iter().filter_map(|rule| {
                let concerns = rule.to().is_none_or(|to| to.contains(&listener.name));
                let verdict = match rule.action() {
                    Action::Allow => Verdict::Allow,
                    Action::Deny => Verdict::Deny,
                    Action::Audit => return None,
                };
                concerns.then_some((rule.name().as_ref(), verdict))
            }));
        }
        ListenerKind::Outbound { peer, .. } => {
            let patterns: Vec<_> = peer.iter().map(ToString::to_string).collect();
            metrics.set_rules(patterns.iter().map(|pattern| (pattern.as_str(), Verdict::Allow)));
        }
    }
}
