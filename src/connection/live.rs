//! What every connection decides by: who we are now, which policy is in force now, and what the config says of
//! connections.
//!
//! Each is one immutable snapshot behind an atomic pointer with a single writer (the identity, the policy and the config
//! tasks of [`crate::app`], which share a thread). A connection loads a snapshot once and uses it throughout a decision; the authority over open
//! connections ([`super::authority`]) is told of every change.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use super::budget::Budgets;
use super::capacity::Capacity;
use super::loops::Loops;
use super::own::OwnEndpoint;
use super::registry::Registry;
use crate::authorize::PolicyView;
use crate::clock::SharedClock;
use crate::config::settings::{Limits, Listener, OpenConnections, PolicyMode};
use crate::record::{DecisionIds, Reason, RecordSink};
use crate::tls::configs::Context;

/// Who we are at the moment.
#[derive(Debug)]
pub enum IdentityView {
    /// We hold a valid SVID.
    Held(Arc<Context>),
    /// We hold none: every connection is refused.
    Missing {
        /// [`Reason::NoIdentity`] or [`Reason::IdentityExpired`].
        reason: Reason,
        /// What is known about the cause.
        detail: String,
    },
}

/// What the config says of connections, beside policy. Replaced as a whole when it is read again.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Bounds on times and numbers.
    pub limits: Limits,
    /// What a change does to open connections.
    pub open_connections: OpenConnections,
    /// The listeners in force, by name.
    pub listeners: HashMap<Arc<str>, Arc<Listener>>,
    /// Those that were removed and still have connections, which are given time.
    pub leaving: Vec<Weak<Listener>>,
}

impl Terms {
    /// Where nothing is known of the listeners yet.
    #[must_use]
    pub fn new(limits: Limits, open_connections: OpenConnections) -> Self {
        Self {
            limits,
            open_connections,
            ..Self::default()
        }
    }

    /// What became of a listener: the one in force that goes by its name and faces the same way, or itself.
    #[must_use]
    pub fn now<'a>(&'a self, then: &'a Arc<Listener>) -> &'a Arc<Listener> {
        self.listeners
            .get(&then.name)
            .filter(|now| now.direction() == then.direction())
            .unwrap_or(then)
    }

    /// Whether it was removed.
    #[must_use]
    pub fn is_leaving(&self, listener: &Arc<Listener>) -> bool {
        self.leaving
            .iter()
            .any(|leaving| std::ptr::eq(leaving.as_ptr(), Arc::as_ptr(listener)))
    }
}

/// Shared by everything that serves connections.
pub struct Live {
    identity: ArcSwap<IdentityView>,
    policy: ArcSwap<PolicyView>,
    terms: ArcSwap<Terms>,
    /// Told after every change of the three.
    pub changed: Notify,
    /// Told after every change of our identity: connections may have to be renewed.
    pub rotated: Notify,
    /// The connections that are open.
    pub registry: Registry,
    /// How many more may be.
    pub capacity: Capacity,
    /// What each identity uses.
    pub budgets: Arc<Budgets>,
    /// The time of day.
    pub clock: SharedClock,
    /// Gives every verdict its name.
    pub decisions: Arc<DecisionIds>,
    /// Where verdicts and finished connections are recorded.
    pub records: Arc<dyn RecordSink>,
    /// The redirected connections that are being set up.
    pub loops: Arc<Loops>,
    /// Takes the connections that end at ourselves.
    pub own: OwnEndpoint,
    /// Set when a second signal asked for the end at once.
    pub shutdown_now: AtomicBool,
}

impl Live {
    /// Begins with no identity and a policy that denies all.
    #[must_use]
    pub fn new(
        clock: SharedClock,
        records: Arc<dyn RecordSink>,
        limits: Limits,
        open_connections: OpenConnections,
        mode: PolicyMode,
    ) -> Self {
        let now = clock.now();
        Self {
            identity: ArcSwap::from_pointee(IdentityView::Missing {
                reason: Reason::NoIdentity,
                detail: "the identity source has not answered yet".to_owned(),
            }),
            policy: ArcSwap::from_pointee(PolicyView::deny_all(mode, now)),
            terms: ArcSwap::from_pointee(Terms::new(limits.clone(), open_connections)),
            changed: Notify::new(),
            rotated: Notify::new(),
            registry: Registry::default(),
            capacity: Capacity::new(&limits),
            budgets: Arc::default(),
            clock,
            decisions: decision_ids(),
            records,
            loops: Arc::default(),
            own: OwnEndpoint::default(),
            shutdown_now: AtomicBool::new(false),
        }
    }

    /// With these names for verdicts: others give names in the same process, too.
    #[must_use]
    pub fn naming_by(self, decisions: Arc<DecisionIds>) -> Self {
        Self { decisions, ..self }
    }

    /// Who we are now.
    #[must_use]
    pub fn identity(&self) -> Arc<IdentityView> {
        self.identity.load_full()
    }

    /// Which policy is in force now.
    #[must_use]
    pub fn policy(&self) -> Arc<PolicyView> {
        self.policy.load_full()
    }

    /// What the config says of connections now.
    #[must_use]
    pub fn terms(&self) -> Guard<Arc<Terms>> {
        self.terms.load()
    }

    /// Publishes what the config says of connections from now on.
    pub fn set_terms(&self, terms: Terms) {
        self.capacity.set(&terms.limits);
        self.terms.store(Arc::new(terms));
        self.changed.notify_one();
    }

    /// Publishes who we are from now on.
    pub fn set_identity(&self, view: IdentityView) {
        self.identity.store(Arc::new(view));
        self.changed.notify_one();
        self.rotated.notify_one();
    }

    /// Publishes the policy that is in force from now on.
    pub fn set_policy(&self, view: PolicyView) {
        // First: who has the new policy finds its budgets.
        self.budgets
            .put(view.admission.policy.all_budgets().map(Arc::clone));
        self.policy.store(Arc::new(view));
        self.changed.notify_one();
    }
}

/// Names that tell the verdicts of this process from those of others.
#[must_use]
pub fn decision_ids() -> Arc<DecisionIds> {
    let mut bytes = [0; 8];
    // The names of verdicts are no secret: less than perfect chance will do.
    let random = match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => fastrand::u64(..),
    };
    Arc::new(DecisionIds::new(random))
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
