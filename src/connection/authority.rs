//! The authority over open connections: after every change of policy, bundles, identity or config, and when a chain or a rule
//! runs out, it finds the connections that would not be admitted any more and ends them as the settings say.
//!
//! It is one task. It wakes when told of a change, when something ends, and twice a second besides, to see the wall clock
//! jump. What it asks is what admission asked, by the same functions ([`mod@judge`]), once for each basis that the change
//! can concern ([`change`]); it touches only the connections for which the answer is no ([`held`]).

mod change;
mod held;
mod judge;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::live::{IdentityView, Live, Terms};
use super::registry::{Basis, Entry};
use crate::authorize::{Admission, PolicyView};
use crate::config::settings::{OnChange, OpenConnections};
use crate::record::{Ending, LogLine, Nearest, Reason};
use change::Change;
use held::Held;
pub(super) use judge::{Finding, recheck};
use judge::{Verified, judge};

/// How soon a jump of the clock is seen. What is due by a clock that runs is seen when it is.
const TICK: Duration = Duration::from_millis(500);
/// For how long it works before other tasks of the thread get their turn.
const TURN: Duration = Duration::from_millis(1);
/// Connections that are told to end at once. More wait a moment, so that the workers that see to their end do not keep
/// those that live on waiting: fifty thousand take under half a second.
const AT_ONCE: usize = 128;
const MOMENT: Duration = Duration::from_millis(1);
/// What the nearest misses of one look may take together; findings after that are recorded without.
const TIME_TO_EXPLAIN: Duration = Duration::from_millis(50);

/// Watches over the open connections of `live` for as long as it is polled. What changes after this call is seen: call
/// it before the first connection can come.
pub fn watch(live: Arc<Live>) -> impl Future<Output = ()> + Send {
    let mut authority = Authority::new(live);
    async move {
        loop {
            // A change or something that is due, whichever comes first.
            let _ = tokio::time::timeout(authority.rest(), authority.live.changed.notified()).await;
            authority.look().await;
        }
    }
}

/// How many of the open connections `admission` would not let in, which is asked and not done.
pub async fn count_refused(live: &Live, admission: &Admission) -> usize {
    let (identity, now) = (live.identity(), live.clock.now());
    let mut pace = Pace::new();
    let mut refused = 0_usize;
    for slice in live.registry.bases() {
        for basis in slice {
            pace.step().await;
            if judge::refused_by(&basis, &identity, admission, now) {
                let members = live.registry.members(&basis).map(|slice| slice.len());
                refused = refused.saturating_add(members.sum());
            }
        }
    }
    refused
}

/// What watches over the open connections: `watch` is this in a loop.
#[derive(Debug)]
pub struct Authority {
    live: Arc<Live>,
    identity: Arc<IdentityView>,
    policy: Arc<PolicyView>,
    terms: Arc<Terms>,
    /// When a rule of the policy begins or ends next.
    next_rule: Option<SystemTime>,
    /// The time of day of the last look. What ended before is dealt with; a clock that shows less went backwards.
    looked_at: SystemTime,
    /// Connections that are not admitted any more and live on.
    held: Held,
    /// The bases asked about in this look.
    asked: usize,
    /// What its nearest misses took.
    explained: Duration,
    pace: Pace,
}

impl Authority {
    /// Sees what changes from now on.
    #[must_use]
    pub fn new(live: Arc<Live>) -> Self {
        let (identity, policy, now) = (live.identity(), live.policy(), live.clock.now());
        let terms = Arc::clone(&live.terms());
        Self {
            next_rule: policy.admission.next_change(now),
            live,
            identity,
            policy,
            terms,
            looked_at: now,
            held: Held::default(),
            asked: 0,
            explained: Duration::ZERO,
            pace: Pace::new(),
        }
    }

    /// How long nothing is due.
    fn rest(&self) -> Duration {
        let now = self.live.clock.now();
        let until = |time: SystemTime| time.duration_since(now).unwrap_or_default();
        let end = self.live.registry.next_end(self.looked_at).map(until);
        let rule = self.next_rule.map(until);
        let deadline = self
            .held
            .next_deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        [end, rule, deadline]
            .into_iter()
            .flatten()
            .fold(TICK, Duration::min)
    }

    /// Asks again about those that something may have changed for.
    pub async fn look(&mut self) {
        self.live.budgets.forget_unused();
        // Before the snapshots: who comes or is renewed afterwards is judged by them or by the next ones. What a change is
        // compared with is the last look, and somebody may have come by what was in force only in between.
        let live = self.live.clone();
        let mut asked = live.registry.take_fresh();
        let (identity, policy, now) = (live.identity(), live.policy(), live.clock.now());
        let terms = Arc::clone(&live.terms());
        let (old_policy, new_policy) = (self.policy.clone(), policy.clone());
        let change = Change::between(
            (&self.identity, &old_policy, self.looked_at, self.next_rule),
            (&identity, &new_policy, now),
        )
        .and_of_config(&self.terms, &terms);
        asked.extend(live.registry.ended(self.looked_at, now));
        self.next_rule = policy.admission.next_change(now);
        self.identity = identity;
        self.policy = policy;
        self.terms = terms;
        self.looked_at = now;
        (self.asked, self.explained) = (0, Duration::ZERO);

        let mut verified = Verified::default();
        let mut good = Vec::new();
        for basis in asked {
            self.ask(&basis, &mut verified, &mut good).await;
        }
        if !change.is_nothing() {
            for slice in live.registry.bases() {
                for basis in slice.iter().filter(|basis| change.concerns(basis)) {
                    self.ask(basis, &mut verified, &mut good).await;
                }
            }
        }
        self.held.admitted_again(&good);
        for (entry, verdict) in self.held.overdue(Instant::now()) {
            if entry.order_close(Ending::by(verdict)) {
                self.pace.ordered().await;
            }
        }
    }

    /// Asks about all connections that rest on `basis`. Where they would be admitted now, its number goes to `good`.
    async fn ask(&mut self, basis: &Basis, verified: &mut Verified, good: &mut Vec<u64>) {
        let live = self.live.clone();
        self.asked = self.asked.saturating_add(1);
        self.pace.step().await;
        let findings = judge(
            basis,
            &live.registry,
            &self.identity,
            (&self.policy, &self.terms),
            self.looked_at,
            verified,
        );
        let Some((action, finding)) = strictest(&self.terms.open_connections, findings) else {
            good.push(basis.number());
            return;
        };
        // Once for all that rest on it.
        let nearest = self.nearest(basis, &finding);
        for slice in live.registry.members(basis) {
            for entry in slice {
                // One that was renewed since is asked about with its new basis.
                if entry.basis().number() == basis.number() {
                    self.found(&entry, &finding, nearest.as_deref(), action).await;
                }
            }
            self.pace.step().await;
        }
    }

    /// The rule that comes nearest, for as many as there is time for: it is for people, and closing is not to wait.
    fn nearest(&mut self, basis: &Basis, finding: &Finding) -> Option<Box<Nearest>> {
        if self.explained >= TIME_TO_EXPLAIN {
            return None;
        }
        let begun = std::time::Instant::now();
        let nearest = finding.nearest(basis, &self.identity, &self.policy, self.looked_at);
        self.explained += begun.elapsed();
        nearest
    }

    /// Does what the settings want with a connection that would not be admitted any more, and records the verdict.
    async fn found(
        &mut self,
        entry: &Arc<Entry>,
        finding: &Finding,
        nearest: Option<&Nearest>,
        action: OnChange,
    ) {
        let (live, policy) = (&self.live, &self.policy);
        let verdict = |enforced, line| {
            let verdict = Arc::new(finding.verdict(entry, live, policy, nearest, enforced));
            // Nobody is let in: what the audit log cannot keep, it counts.
            let _ = live.records.decision(&verdict, line);
            verdict
        };
        let reason = finding.reason_for(entry, policy);
        match action {
            // It was told already, and that was recorded.
            OnChange::Close if entry.order().is_some() => {}
            OnChange::Close => {
                entry.order_close(Ending::by(verdict(true, LogLine::OfConnection)));
                self.pace.ordered().await;
            }
            OnChange::Drain(time) => {
                let until = Instant::now() + time;
                self.held
                    .drain(entry, until, reason, || verdict(true, LogLine::Own));
            }
            OnChange::Log => self.held.note(entry, reason, || verdict(false, LogLine::Own)),
        }
    }
}

/// Leaves the thread, and the workers, time for others.
#[derive(Debug)]
struct Pace {
    turn: std::time::Instant,
    ordered: usize,
}

impl Pace {
    fn new() -> Self {
        Self {
            turn: std::time::Instant::now(),
            ordered: 0,
        }
    }

    /// To be called before each piece of work.
    async fn step(&mut self) {
        if self.turn.elapsed() >= TURN {
            tokio::task::yield_now().await;
            self.turn = std::time::Instant::now();
        }
    }

    /// To be called after each connection that was told to end.
    async fn ordered(&mut self) {
        self.ordered = self.ordered.saturating_add(1);
        if self.ordered >= AT_ONCE {
            self.ordered = 0;
            tokio::time::sleep(MOMENT).await;
        }
    }
}

/// What the settings want for a reason.
const fn action(settings: &OpenConnections, reason: Reason) -> OnChange {
    match reason {
        // It is for emergencies: no setting keeps a connection from it.
        Reason::DenyListChange | Reason::Internal => OnChange::Close,
        Reason::BundleChange => settings.on_bundle_change,
        Reason::IdentityChange => settings.on_identity_change,
        Reason::PeerExpired | Reason::OwnExpired => settings.on_expiry,
        _ => settings.on_policy_change,
    }
}

/// Of what was found the one that the settings treat most strictly: what one of them lets live must not hide the
/// connection from another.
fn strictest(
    settings: &OpenConnections,
    found: impl Iterator<Item = Finding>,
) -> Option<(OnChange, Finding)> {
    found
        .map(|finding| (action(settings, finding.reason), finding))
        .min_by_key(|(action, _)| match action {
            OnChange::Close => (0, Duration::ZERO),
            OnChange::Drain(time) => (1, *time),
            OnChange::Log => (2, Duration::ZERO),
        })
}

#[cfg(test)]
mod tests;
