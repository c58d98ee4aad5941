//! The authority over open connections: after every change of policy, bundles or identity, and when a chain or a rule
//! runs out, it finds the connections that would not be admitted any more and ends them as the settings say.
//!
//! It is one task. It wakes when told of a change and twice a second besides, to see the wall clock jump. What it
//! asks of a connection is what admission asked, by the same functions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::live::{IdentityView, Live};
use super::registry::{Entry, lock};
use crate::authorize;
use crate::authorize::PolicyView;
use crate::config::settings::{OnChange, OpenConnections};
use crate::identity::material::Bundle;
use crate::record::{Direction, Ending, Reason};
use crate::tls::configs::Context;
use crate::tls::verify::{PeerSide, Refusal, VerifiedPeer, verify_chain};

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
    next_rule_expiry: Option<SystemTime>,
    /// When the last scan was; a clock that went backwards since makes us scan again.
    scanned_at: SystemTime,
    /// Connections that were given time to end by themselves, and until when.
    draining: HashMap<u64, Instant>,
}

impl Authority {
    fn new(live: Arc<Live>) -> Self {
        let (identity, policy, now) = (live.identity(), live.policy(), live.clock.now());
        let next_rule_expiry = policy.policy.next_expiry(now);
        Self {
            live,
            identity,
            policy,
            next_rule_expiry,
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
            || due(self.next_rule_expiry)
            || due(self.live.registry.earliest_expiry())
            || now < self.scanned_at
            || self.draining.values().any(|deadline| *deadline <= Instant::now());
        if must_scan {
            self.next_rule_expiry = policy.policy.next_expiry(now);
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
            let Some((action, order)) = finding else {
                *lock(&entry.noted) = None;
                continue;
            };
            match action {
                OnChange::Close => {
                    entry.order_close(order);
                }
                OnChange::Drain(time) => {
                    let anew = Instant::now() + time;
                    let deadline = self
                        .draining
                        .get(&entry.id)
                        .map_or(anew, |begun| anew.min(*begun));
                    if deadline <= Instant::now() {
                        entry.order_close(order);
                    } else {
                        draining.insert(entry.id, deadline);
                    }
                }
                OnChange::Log => {
                    if lock(&entry.noted).replace(order.reason) != Some(order.reason) {
                        tracing::warn!(
                            id = entry.id, listener = %entry.listener.name, peer_id = %entry.peer().id,
                            reason = %order.reason, detail = order.detail,
                            "an open connection would not be admitted any more; it lives on as the settings say"
                        );
                    }
                }
            }
        }
        self.draining = draining;
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
fn strictest(settings: &OpenConnections, found: impl Iterator<Item = Ending>) -> Option<(OnChange, Ending)> {
    found
        .map(|order| (action(settings, order.reason), order))
        .min_by_key(|(action, _)| match action {
            OnChange::Close => (0, Duration::ZERO),
            OnChange::Drain(time) => (1, *time),
            OnChange::Log => (2, Duration::ZERO),
        })
}

/// The results of one scan's verifications: connections of the same peer share them, refusals too. Told apart by where
/// the shared `VerifiedPeer` lies, which is kept with its result: a renewal may take it from its connection meanwhile.
#[derive(Default)]
struct Verified(HashMap<(Direction, usize), Outcome>);

/// The peer as it was, and the end of its chain now.
type Outcome = (Arc<VerifiedPeer>, Result<SystemTime, Refusal>);

/// Every cause for which `entry` would not be admitted now, the one that says most first.
fn judge(
    entry: &Entry,
    identity: &IdentityView,
    policy: &PolicyView,
    now: SystemTime,
    verified: &mut Verified,
) -> impl Iterator<Item = Ending> {
    judge_trust(entry, identity, now, verified).chain(judge_policy(entry, identity, policy, now))
}

/// Checks a connection that has just registered against an identity that is newer than the one its handshake used.
#[must_use]
pub fn recheck(entry: &Entry, identity: &IdentityView, now: SystemTime) -> Option<Ending> {
    judge_trust(entry, identity, now, &mut Verified::default()).next()
}

/// All but policy.
fn judge_trust(
    entry: &Entry,
    identity: &IdentityView,
    now: SystemTime,
    verified: &mut Verified,
) -> impl Iterator<Item = Ending> {
    // First, as a renewed authority moves the chain's end.
    let bundle = match identity {
        IdentityView::Held(context) => judge_bundle(entry, context, now, verified),
        IdentityView::Missing { .. } => None,
    };
    let ends = judge_ends(entry, now);
    ends.into_iter()
        .chain(judge_identity(entry, identity))
        .chain(bundle)
}

fn judge_ends(entry: &Entry, now: SystemTime) -> Option<Ending> {
    let until = crate::clock::rfc3339;
    let (peer_ends, own_ends) = {
        let trust = lock(&entry.trust);
        (trust.not_after, trust.own.not_after)
    };
    if own_ends <= now {
        let detail = format!("our SVID ran out at {}", until(own_ends));
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
        IdentityView::Held(context) if context.material.svid.id != entry.own().id => {
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
) -> Option<Ending> {
    let mut trust = lock(&entry.trust);
    let peer = trust.peer.clone();
    let current = context.material.bundles.get(peer.id.trust_domain());
    if same_bundle(trust.bundle.as_ref(), current) {
        return None;
    }
    let side = match entry.direction {
        Direction::Inbound => PeerSide::Client,
        Direction::Outbound => PeerSide::Server,
    };
    // That time ran out is another finding: what is asked here is whether these authorities vouch for the chain.
    let at = now.min(trust.not_after);
    let key = (entry.direction, Arc::as_ptr(&peer).addr());
    let (_, outcome) = verified.0.entry(key).or_insert_with(|| {
        let outcome = verify_chain(&context.store, &peer.chain, side, at).map(|peer| peer.not_after);
        (peer, outcome)
    });
    match outcome {
        Ok(not_after) => {
            trust.bundle = current.cloned();
            trust.not_after = *not_after;
            None
        }
        Err(refusal) => Some(Ending::with(Reason::BundleChange, refusal.to_string())),
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
) -> Option<Ending> {
    if entry.direction == Direction::Outbound {
        // Its `peer` list is in the config, which the connection keeps as it was.
        return None;
    }
    let (own, peer) = (entry.own(), entry.peer());
    let own = match identity {
        IdentityView::Held(context) => &context.material.svid.id,
        IdentityView::Missing { .. } => &own.id,
    };
    let who = authorize::Inbound {
        listener: &entry.listener.name,
        peer: &peer.id,
        source: entry.peer_addr.ip(),
        own_trust_domain: own.trust_domain(),
    };
    let Err(denial) = authorize::inbound(policy, &who, now) else {
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
    Some(Ending::with(reason, denial.detail))
}

#[cfg(test)]
mod tests;
