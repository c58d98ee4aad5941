//! The authority over open connections: after every change of policy, bundles or identity, and when a chain or a rule
//! runs out, it finds the connections that would not be admitted any more and ends them as the settings say.
//!
//! It is one task. It wakes when told of a change and twice a second besides, to see the wall clock jump. What it
//! asks of a connection is what admission asked, by the same functions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::live::{IdentityView, Live};
use super::registry::{Entry, lock};
use super::verdict::Finding;
use crate::authorize;
use crate::authorize::PolicyView;
use crate::config::settings::{OnChange, OpenConnections};
use crate::identity::material::Bundle;
use crate::record::{Decision, Direction, Ending, LogLine, Nearest, Reason};
use crate::tls::configs::Context;
use crate::tls::verify::{PeerSide, Refusal, verify_chain};

/// How soon a chain's end, a rule's end or a jump of the clock is seen. Changes are seen at once.
const TICK: Duration = Duration::from_millis(500);
/// Connections looked at before other tasks of the thread get their turn.
const SLICE: usize = 512;

/// Watches over the open connections of `live` for as long as it is polled.
pub async fn watch(live: Arc<Live>) {
    let mut authority = Authority::new(live);
    loop {
        // A change or a tick, whichever comes first.
        let _ = tokio::time::timeout(TICK, authority.live.changed.notified()).await;
        authority.look().await;
    }
}

struct Authority {
    live: Arc<Live>,
    identity: Arc<IdentityView>,
    policy: Arc<PolicyView>,
    next_rule_change: Option<SystemTime>,
    /// When the last scan was; a clock that went backwards since makes us scan again.
    scanned_at: SystemTime,
    /// Connections that were given time to end by themselves: until when, and the verdict.
    draining: HashMap<u64, (Instant, Arc<Decision>)>,
}

impl Authority {
    fn new(live: Arc<Live>) -> Self {
        let (identity, policy, now) = (live.identity(), live.policy(), live.clock.now());
        let next_rule_change = policy.admission.next_change(now);
        Self {
            live,
            identity,
            policy,
            next_rule_change,
            scanned_at: now,
            draining: HashMap::new(),
        }
    }

    /// Scans when something may have changed for somebody.
    async fn look(&mut self) {
        let (identity, policy, now) = (self.live.identity(), self.live.policy(), self.live.clock.now());
        let due = |time: Option<SystemTime>| time.is_some_and(|time| time <= now);
        let must_scan = !Arc::ptr_eq(&identity, &self.identity)
            || !Arc::ptr_eq(&policy, &self.policy)
            || due(self.next_rule_change)
            || due(self.live.registry.earliest_expiry())
            || now < self.scanned_at
            || self
                .draining
                .values()
                .any(|(deadline, _)| *deadline <= Instant::now());
        if must_scan {
            self.next_rule_change = policy.admission.next_change(now);
            self.identity = identity;
            self.policy = policy;
            self.scanned_at = now;
            self.scan(now).await;
        }
    }

    async fn scan(&mut self, now: SystemTime) {
        let live = self.live.clone();
        live.registry.reset_expiry();
        let entries = live.registry.snapshot();
        let mut verified = Verified::default();
        let mut nearest = Misses::default();
        let mut draining = HashMap::new();
        for (count, entry) in entries.iter().enumerate() {
            if count % SLICE == SLICE - 1 {
                tokio::task::yield_now().await;
            }
            let finding = strictest(
                &live.open_connections,
                judge(entry, &self.identity, &self.policy, now, &mut verified),
            );
            // Also of one that is let live: its chain's end may be treated otherwise than what was found now.
            if entry.expires() > now {
                live.registry.note_expiry(entry);
            }
            let Some((action, finding)) = finding else {
                *lock(&entry.noted) = None;
                continue;
            };
            let mut tell = |finding: Finding, enforced, line| {
                let nearest = nearest.of(entry, &finding, &self.identity, &self.policy, now);
                let verdict = finding.verdict(entry, &live, &self.policy, nearest, enforced);
                let verdict = Arc::new(verdict);
                live.records.decision(&verdict, line);
                verdict
            };
            match action {
                OnChange::Close => {
                    if entry.order().is_none() {
                        entry.order_close(Ending::by(tell(finding, true, LogLine::OfConnection)));
                    }
                }
                OnChange::Drain(time) => {
                    let anew = Instant::now() + time;
                    let begun = self.draining.remove(&entry.id);
                    let deadline = begun.as_ref().map_or(anew, |(deadline, _)| anew.min(*deadline));
                    let known = begun.map(|(_, verdict)| verdict);
                    let known = known.filter(|verdict| verdict.reason == Some(finding.ending.reason));
                    if deadline > Instant::now() {
                        let verdict = known.unwrap_or_else(|| tell(finding, true, LogLine::Own));
                        draining.insert(entry.id, (deadline, verdict));
                    } else if entry.order().is_none() {
                        let verdict = known.unwrap_or_else(|| tell(finding, true, LogLine::OfConnection));
                        entry.order_close(Ending::by(verdict));
                    }
                }
                OnChange::Log => {
                    let reason = finding.ending.reason;
                    if lock(&entry.noted).replace(reason) != Some(reason) {
                        tell(finding, false, LogLine::Own);
                    }
                }
            }
        }
        self.draining = draining;
    }
}

/// The nearest misses of one scan. Each looks at every rule, so that connections that ask the same share one, and there
/// are only so many: the rest of a scan's verdicts do without.
#[derive(Default)]
struct Misses(HashMap<(usize, usize, Option<IpAddr>), Option<Box<Nearest>>>);

/// With 10,000 rules some 100 ms, in slices, off the path.
const MAX_MISSES: usize = 256;

impl Misses {
    fn of(
        &mut self,
        entry: &Entry,
        finding: &Finding,
        identity: &IdentityView,
        policy: &PolicyView,
        now: SystemTime,
    ) -> Option<Box<Nearest>> {
        let terms = finding.terms.as_ref()?;
        let listener = Arc::as_ptr(&entry.listener).addr();
        let key = (listener, Arc::as_ptr(&entry.peer).addr(), entry.peer_addr.ip());
        if let Some(known) = self.0.get(&key) {
            return known.clone();
        }
        if self.0.len() >= MAX_MISSES {
            return None;
        }
        let nearest = authorize::nearest(policy, &asks(entry, identity), terms, now);
        self.0.insert(key, nearest.clone());
        nearest
    }
}

/// What the settings want for a reason.
const fn action(settings: &OpenConnections, reason: Reason) -> OnChange {
    match reason {
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
        .map(|finding| (action(settings, finding.ending.reason), finding))
        .min_by_key(|(action, _)| match action {
            OnChange::Close => (0, Duration::ZERO),
            OnChange::Drain(time) => (1, *time),
            OnChange::Log => (2, Duration::ZERO),
        })
}

/// The results of one scan's verifications: connections of the same peer share them, refusals too. Told apart by where
/// the shared `VerifiedPeer` lies, which the entries of the scan hold throughout it.
#[derive(Default)]
struct Verified(HashMap<(Direction, usize), Result<SystemTime, Refusal>>);

/// Every cause for which `entry` would not be admitted now, the one that says most first.
fn judge(
    entry: &Entry,
    identity: &IdentityView,
    policy: &PolicyView,
    now: SystemTime,
    verified: &mut Verified,
) -> impl Iterator<Item = Finding> {
    judge_trust(entry, identity, now, verified).chain(judge_policy(entry, identity, policy, now))
}

/// Checks a connection that has just registered against an identity that is newer than the one its handshake used.
#[must_use]
pub(super) fn recheck(entry: &Entry, identity: &IdentityView, now: SystemTime) -> Option<Finding> {
    judge_trust(entry, identity, now, &mut Verified::default()).next()
}

/// All but policy.
fn judge_trust(
    entry: &Entry,
    identity: &IdentityView,
    now: SystemTime,
    verified: &mut Verified,
) -> impl Iterator<Item = Finding> {
    // First, as a renewed authority moves the chain's end.
    let bundle = match identity {
        IdentityView::Held(context) => judge_bundle(entry, context, now, verified),
        IdentityView::Missing { .. } => None,
    };
    let ends = judge_ends(entry, now);
    ends.into_iter()
        .chain(judge_identity(entry, identity))
        .map(Finding::from)
        .chain(bundle)
}

fn judge_ends(entry: &Entry, now: SystemTime) -> Option<Ending> {
    let until = crate::clock::rfc3339;
    let peer_ends = lock(&entry.trust).not_after;
    if entry.own.not_after <= now {
        let detail = format!("our SVID ran out at {}", until(entry.own.not_after));
        Some(Ending::with(Reason::OwnExpired, detail))
    } else if peer_ends <= now {
        let detail = format!("the peer's chain ran out at {}", until(peer_ends));
        Some(Ending::with(Reason::PeerExpired, detail))
    } else {
        None
    }
}

fn judge_identity(entry: &Entry, identity: &IdentityView) -> Option<Ending> {
    let detail = match identity {
        // The connections that rest on it end with it.
        IdentityView::Missing {
            reason: Reason::IdentityExpired,
            ..
        } => return None,
        IdentityView::Missing { detail, .. } => format!("our identity was withdrawn: {detail}"),
        IdentityView::Held(context) if context.material.svid.id != entry.own.id => {
            format!("our identity is now {}", context.material.svid.id)
        }
        IdentityView::Held(_) => return None,
    };
    Some(Ending::with(Reason::IdentityChange, detail))
}

fn judge_bundle(
    entry: &Entry,
    context: &Context,
    now: SystemTime,
    verified: &mut Verified,
) -> Option<Finding> {
    let current = context.material.bundles.get(entry.peer.id.trust_domain());
    let mut trust = lock(&entry.trust);
    if same_bundle(trust.bundle.as_ref(), current) {
        return None;
    }
    let side = match entry.direction {
        Direction::Inbound => PeerSide::Client,
        Direction::Outbound => PeerSide::Server,
    };
    // That time ran out is another finding: what is asked here is whether these authorities vouch for the chain.
    let at = now.min(trust.not_after);
    let outcome = verified
        .0
        .entry((entry.direction, Arc::as_ptr(&entry.peer).addr()))
        .or_insert_with(|| {
            verify_chain(&context.store, &entry.peer.chain, side, at).map(|peer| peer.not_after)
        });
    match outcome {
        Ok(not_after) => {
            trust.bundle = current.cloned();
            trust.not_after = *not_after;
            None
        }
        Err(refusal) => Some(Finding {
            check: refusal.check().map(Box::new),
            ..Ending::with(Reason::BundleChange, refusal.to_string()).into()
        }),
    }
}

fn same_bundle(a: Option<&Arc<Bundle>>, b: Option<&Arc<Bundle>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    }
}

fn judge_policy(
    entry: &Entry,
    identity: &IdentityView,
    policy: &PolicyView,
    now: SystemTime,
) -> Option<Finding> {
    if entry.direction == Direction::Outbound {
        // Its `peer` list is in the config, which the connection keeps as it was.
        return None;
    }
    let Err(denial) = authorize::inbound(policy, &asks(entry, identity), now) else {
        entry.admitted_under.store(policy.generation, Ordering::Relaxed);
        return None;
    };
    let admitted_by = entry.decision.get().map(|decision| decision.policy_generation);
    let admitted_under = entry.admitted_under.load(Ordering::Relaxed);
    let reason = if admitted_by == Some(policy.generation) || admitted_under == policy.generation {
        Reason::RuleExpired
    } else {
        Reason::PolicyChange
    };
    let detail = denial.decision.detail.as_deref().map(str::to_owned);
    Some(Finding {
        terms: Some(denial.decision),
        ..Ending {
            detail,
            ..Ending::new(reason)
        }
        .into()
    })
}

/// Who asks, as admission would see it now.
fn asks<'a>(entry: &'a Entry, identity: &'a IdentityView) -> authorize::Facts<'a> {
    let own = match identity {
        IdentityView::Held(context) => &context.material.svid.id,
        IdentityView::Missing { .. } => &entry.own.id,
    };
    authorize::Facts {
        listener: &entry.listener.name,
        peer: &entry.peer.id,
        source: entry.source.ip(),
        own_trust_domain: own.trust_domain(),
        certificate: Some(super::certificate(&entry.peer)),
    }
}

#[cfg(test)]
mod tests;
