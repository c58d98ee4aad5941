//! Readiness: named conditions that each say whether they hold and, for a person, why not.
//!
//! The process is ready while all conditions hold. It has started once it was ready for the first time; that
//! never goes back, so that a passing trouble later does not look like a failed start to an orchestrator.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// What must hold for the process to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// We hold an SVID that is valid now.
    Identity,
    /// A policy is in force.
    Policy,
    /// Every listener is bound.
    Listeners,
    /// The audit log can be written, or nothing depends on that.
    Audit,
    /// The process is not on its way out.
    NotDraining,
}

impl Condition {
    /// Every value, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Identity,
        Self::Policy,
        Self::Listeners,
        Self::Audit,
        Self::NotDraining,
    ];

    /// The word used in `/readyz`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Policy => "policy",
            Self::Listeners => "listeners",
            Self::Audit => "audit",
            Self::NotDraining => "not_draining",
        }
    }
}

/// The state of one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionState {
    /// Which one, as [`Condition::as_str`] says it.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What there is to know, for a person.
    pub detail: String,
}

/// All conditions at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Whether all conditions hold.
    pub ready: bool,
    /// Whether they all held once.
    pub started: bool,
    /// In the order of [`Condition::ALL`].
    pub conditions: Vec<ConditionState>,
}

/// The conditions, shared by all that set or show them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    started: bool,
    conditions: [(Condition, bool, String); 5],
}

impl Readiness {
    /// At the start only [`Condition::NotDraining`] holds.
    #[must_use]
    pub fn new() -> Self {
        let waiting = |text: &str| (false, text.to_owned());
        let conditions = [
            Condition::Identity,
            Condition::Policy,
            Condition::Listeners,
            Condition::Audit,
            Condition::NotDraining,
        ];
        let state = State {
            started: false,
            conditions: conditions.map(|condition| {
                let (ok, detail) = match condition {
                    Condition::Identity => waiting("no SVID yet"),
                    Condition::Policy => waiting("not loaded yet"),
                    Condition::Listeners => waiting("not bound yet"),
                    Condition::Audit => waiting("not opened yet"),
                    Condition::NotDraining => (true, String::new()),
                };
                (condition, ok, detail)
            }),
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Waits until every condition holds, but for those that are `left_out`. Cancel safe.
    pub async fn hold_but(&self, left_out: &[Condition]) {
        let holds = |state: &State| {
            let mut asked = state
                .conditions
                .iter()
                .filter(|(which, ..)| !left_out.contains(which));
            asked.all(|(_, ok, _)| *ok)
        };
        let mut changes = self.changes();
        while !holds(&self.lock()) {
            // The sender lives in `self`, so that waiting cannot fail.
            let _ = changes.changed().await;
        }
    }

    /// Sets one condition. The detail is shown whether it holds or not. Returns whether `ok` changed.
    pub fn set(&self, condition: Condition, ok: bool, detail: impl Into<String>) -> bool {
        let mut state = self.lock();
        let (mut changed, mut told) = (false, false);
        for (which, now, text) in &mut state.conditions {
            if *which == condition {
                let detail = detail.into();
                changed = *now != ok;
                told = changed || *text != detail;
                *now = ok;
                *text = detail;
                break;
            }
        }
        state.started |= state.conditions.iter().all(|(_, ok, _)| *ok);
        drop(state);
        if told {
            self.0.changed.send_replace(());
        }
        changed
    }

    /// All conditions at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot {
            ready: state.conditions.iter().all(|(_, ok, _)| *ok),
            started: state.started,
            conditions: state
                .conditions
                .iter()
                .map(|(which, ok, detail)| ConditionState {
                    name: which.as_str(),
                    ok: *ok,
                    detail: detail.clone(),
                })
                .collect(),
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_while_all_hold_and_started_for_ever_after() {
        let readiness = Readiness::new();
        let state = || (readiness.snapshot().ready, readiness.snapshot().started);
        assert_eq!(state(), (false, false));
        assert!(readiness.set(Condition::Identity, true, "spiffe://example.org/a"));
        assert!(readiness.set(Condition::Policy, true, ""));
        assert!(readiness.set(Condition::Audit, true, ""));
        assert_eq!(state(), (false, false));
        assert!(readiness.set(Condition::Listeners, true, ""));
        assert_eq!(state(), (true, true));
        assert!(readiness.set(Condition::Identity, false, "expired"));
        assert_eq!(state(), (false, true));
        assert!(!readiness.set(Condition::Identity, false, "still expired"));
        let shown = readiness.snapshot();
        let names: Vec<_> = shown.conditions.iter().map(|c| c.name).collect();
        assert_eq!(
            names,
            Condition::ALL.iter().map(|c| c.as_str()).collect::<Vec<_>>()
        );
        assert_eq!(shown.conditions[0].detail, "still expired");
        assert!(!shown.conditions[0].ok);
    }

    #[tokio::test]
    async fn whoever_waits_for_conditions_is_told() {
        let readiness = Readiness::new();
        readiness.set(Condition::Identity, true, "");
        readiness.set(Condition::Policy, true, "");
        let setter = readiness.clone();
        let waiting = readiness.hold_but(&[Condition::Listeners]);
        let setting = async move {
            tokio::task::yield_now().await;
            setter.set(Condition::Audit, true, "");
        };
        tokio::join!(waiting, setting);
        assert!(!readiness.snapshot().ready);
        // A detail is a change, too; the same again is none.
        let mut changes = readiness.changes();
        readiness.set(Condition::Audit, true, "");
        assert!(!changes.has_changed().unwrap());
        readiness.set(Condition::Audit, true, "written");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
    }

    #[test]
    fn a_drain_before_the_start_is_no_start() {
        let readiness = Readiness::new();
        readiness.set(Condition::NotDraining, false, "SIGTERM");
        readiness.set(Condition::Identity, true, "");
        readiness.set(Condition::Policy, true, "");
        readiness.set(Condition::Listeners, true, "");
        readiness.set(Condition::Audit, true, "");
        assert!(!readiness.snapshot().started);
    }
}
