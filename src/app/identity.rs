//! Publishes who we are: builds what handshakes run with from each new material, and shows it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::AppError;
use super::shared::Control;
use crate::clock::rfc3339;
use crate::config::settings::Listener;
use crate::connection::live::IdentityView;
use crate::identity::source::{State, Status};
use crate::lifecycle::readiness::Condition;
use crate::record::Reason;
use crate::tls::configs::{self, Context};

/// How soon readiness tells of a clock that was set.
const LOOK: Duration = Duration::from_secs(1);

/// Publishes who we are whenever the identity source says something new. Ends only when it refuses us for good while
/// we hold nothing.
pub(super) async fn follow(
    control: &Control,
    mut states: watch::Receiver<Arc<State>>,
) -> Result<(), AppError> {
    let provider = configs::provider();
    let mut published: Option<u64> = None;
    let mut rotations = 0;
    loop {
        let mut unusable = None;
        let state = states.borrow_and_update().clone();
        if let (Status::Fatal { why }, None) = (&state.status, &state.material) {
            return Err(AppError::Identity(why.clone()));
        }
        control.metrics.set_workload_api_connected(state.connected);
        control
            .metrics
            .svid_rotations
            .inc_by(state.rotations.saturating_sub(rotations));
        rotations = state.rotations;
        match &state.material {
            Some(material) if published == Some(material.generation) => {}
            Some(material) => {
                // Not asked for earlier: a new config may have come in between.
                let running = control.running();
                match Context::new(
                    material.clone(),
                    &control.listeners_to_serve(&running.settings.listeners),
                    &provider,
                    &control.clock,
                    running.features(),
                ) {
                    Ok(context) => {
                        for authority in context.store.unusable() {
                            tracing::warn!("peers that depend on it are refused: {authority}");
                        }
                        published = Some(material.generation);
                        control.view.rotations.note(&material.svid, control.clock.now());
                        let context = Arc::new(context);
                        let before = control.live.identity();
                        control.live.set_identity(IdentityView::Held(context.clone()));
                        let before = match &*before {
                            IdentityView::Held(before) => Some(&*before.material),
                            IdentityView::Missing { .. } => None,
                        };
                        control.audit_identity(&context, before);
                    }
                    Err(error) => {
                        tracing::error!(%error, "an update of our identity cannot be used; the last one stays in force");
                        control.keep_identity(&error.to_string());
                        control.audit_unusable_identity(&error.to_string());
                        unusable = Some(error.to_string());
                    }
                }
            }
            None => {
                published = None;
                let reason = match state.status {
                    Status::Expired => Reason::IdentityExpired,
                    _ => Reason::NoIdentity,
                };
                let held = matches!(&*control.live.identity(), IdentityView::Held(_));
                control.live.set_identity(IdentityView::Missing {
                    reason,
                    detail: state.status.to_string(),
                });
                if held {
                    control.audit_no_identity(&state.status.to_string());
                }
            }
        }
        // Shown when handshakes go by it.
        control.view.identity.store(state.clone());
        loop {
            control.show_identity(&state, unusable.as_deref());
            match tokio::time::timeout(LOOK, states.changed()).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return Err(AppError::Identity("the identity source ended".to_owned())),
                // The clock may have been set: what was valid may not be, and the reverse.
                Err(_) => {}
            }
        }
    }
}

impl Control {
    /// Those whose connections are to be shaken hands with: these, and before them those that were removed and still have
    /// connections on the way.
    pub(super) fn listeners_to_serve(&self, listeners: &[Arc<Listener>]) -> Vec<Arc<Listener>> {
        let terms = self.live.terms();
        let leaving = terms.leaving.iter().filter_map(Weak::upgrade);
        leaving.chain(listeners.iter().cloned()).collect()
    }

    /// After an update that cannot be used: the last one stays, and where there is none, connections are refused with
    /// the true cause.
    fn keep_identity(&self, why: &str) {
        if let IdentityView::Missing { reason, .. } = *self.live.identity() {
            self.live.set_identity(IdentityView::Missing {
                reason,
                detail: why.to_owned(),
            });
        }
    }

    /// Whether connections are served with an identity at this moment.
    fn identity_is_good(&self) -> bool {
        match &*self.live.identity() {
            IdentityView::Held(context) => context.material.svid.is_valid(self.clock.now()),
            IdentityView::Missing { .. } => false,
        }
    }

    fn show_identity(&self, state: &State, unusable: Option<&str>) {
        let detail = match (&state.material, &state.last_problem) {
            (Some(material), None) => {
                format!("{} until {}", material.svid.id, rfc3339(material.svid.not_after))
            }
            (Some(material), Some(problem)) => format!(
                "{} until {}; {problem}",
                material.svid.id,
                rfc3339(material.svid.not_after)
            ),
            (None, Some(problem)) if *problem != state.status.to_string() => {
                format!("{}: {problem}", state.status)
            }
            (None, _) => state.status.to_string(),
        };
        let detail = match unusable {
            Some(why) => format!("{detail}; it cannot be used: {why}"),
            None => detail,
        };
        let early = state
            .material
            .as_deref()
            .filter(|m| self.clock.now() < m.svid.not_before);
        let detail = match early {
            Some(material) => {
                let begin = rfc3339(material.svid.not_before);
                format!("{detail}; it is valid from {begin} on, and our clock shows an earlier time")
            }
            None => detail,
        };
        self.readiness
            .set(Condition::Identity, self.identity_is_good(), detail);
        let id = state
            .material
            .as_deref()
            .map(|m| (m.svid.id.to_string(), m.svid.not_after));
        self.metrics
            .set_svid(id.as_ref().map(|(id, end)| (id.as_str(), *end)));
        let bundles = state
            .material
            .as_deref()
            .into_iter()
            .flat_map(|m| m.bundles.values());
        self.metrics
            .set_bundles(bundles.filter_map(|b| Some((b.trust_domain.as_str().to_owned(), b.not_after()?))));
    }
}
