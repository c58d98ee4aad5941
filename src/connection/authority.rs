//! The authority over open connections: after every change of policy, bundles or identity, and when a chain or a rule
//! runs out, it finds the connections that would not be admitted any more and ends them as the settings say.
//!
//! It is one task. It wakes when told of a change and twice a second besides, to see the wall clock jump. What it
//! asks of a connection is what admission asked, by the same functions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::live::{IdentityView, Live};
use super::registry::{Entry, lock};
use crate::authorize;
use crate::authorize::PolicyView;
use crate::config::settings::{OnChange, OpenConnections};
use crate::identity::material::Bundle;
use crate::record::{Direction, Ending, Reason};
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
            // Its chains' ends are to be seen, whatever else is found about it and only logged.
            if entry.expires() > now {
                live.registry.note_expiry(entry);
            }
            let finding = judge(entry, &self.identity, &self.policy, now, &mut verified)
                .into_iter()
                .flatten()
                .map(|order| (action(&live.open_connections, order.reason), order))
                .min_by_key(|(action, _)| patience(*action));
            let Some((action, order)) = finding else {
                *lock(&entry.noted) = None;
                continue;
            };
            match action {
                OnChange::Close => {
                    entry.order_close(order);
                }
                OnChange::Drain(time) => {
                    let deadline = self
                        .draining
                        .get(&entry.id)
                        .copied()
                        .unwrap_or_else(|| Instant::now() + time);
                    if deadline <= Instant::now() {
                        entry.order_close(order);
                    } else {
                        draining.insert(entry.id, deadline);
                    }
                }
                OnChange::Log => {
                    if lock(&entry.noted).replace(order.reason) != Some(order.reason) {
                        tracing::warn!(
                            id = entry.id, listener = %entry.listener.name, peer_id = %entry.peer.id,
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

/// How long a connection is suffered: of several findings the one that ends it soonest decides, so that a change which
/// is only logged does not hide one that closes.
const fn patience(action: OnChange) -> (u8, Duration) {
    match action {
        OnChange::Close => (0, Duration::ZERO),
        OnChange::Drain(time) => (1, time),
        OnChange::Log => (2, Duration::ZERO),
    }
}

/// The results of one scan's verifications: connections of the same peer share them.
#[derive(Default)]
struct Verified<'e>(HashMap<(Direction, &'e [CertificateDer<'static>]), Result<(), Refusal>>);

/// Why `entry` would not be admitted now: every cause, in the order in which it would be refused.
fn judge<'e>(
    entry: &'e Entry,
    identity: &IdentityView,
    policy: &PolicyView,
    now: SystemTime,
    verified: &mut Verified<'e>,
) -> [Option<Ending>; 3] {
    [
        judge_expiry(entry, now),
        judge_identity(entry, identity, now, verified),
        judge_policy(entry, identity, policy, now),
    ]
}

/// Checks a connection that has just registered against an identity that is newer than the one its handshake used.
#[must_use]
pub fn recheck(entry: &Entry, identity: &IdentityView, now: SystemTime) -> Option<Ending> {
    judge_expiry(entry, now).or_else(|| judge_identity(entry, identity, now, &mut Verified::default()))
}

fn judge_expiry(entry: &Entry, now: SystemTime) -> Option<Ending> {
    let order = |reason, detail: String| Some(Ending::with(reason, detail));
    let until = crate::clock::rfc3339;
    if entry.own.not_after <= now {
        return order(
            Reason::OwnExpired,
            format!("our SVID ran out at {}", until(entry.own.not_after)),
        );
    }
    if entry.peer.not_after <= now {
        let detail = format!("the peer's chain ran out at {}", until(entry.peer.not_after));
        return order(Reason::PeerExpired, detail);
    }
    None
}

fn judge_identity<'e>(
    entry: &'e Entry,
    identity: &IdentityView,
    now: SystemTime,
    verified: &mut Verified<'e>,
) -> Option<Ending> {
    let order = |reason, detail: String| Some(Ending::with(reason, detail));
    match identity {
        IdentityView::Missing {
            reason: Reason::IdentityExpired,
            ..
        } => None,
        IdentityView::Missing { detail, .. } => order(
            Reason::IdentityChange,
            format!("our identity was withdrawn: {detail}"),
        ),
        IdentityView::Held(context) if context.material.svid.id != entry.own.id => order(
            Reason::IdentityChange,
            format!("our identity is now {}", context.material.svid.id),
        ),
        IdentityView::Held(context) => judge_bundle(entry, context, now, verified),
    }
}

fn judge_bundle<'e>(
    entry: &'e Entry,
    context: &Context,
    now: SystemTime,
    verified: &mut Verified<'e>,
) -> Option<Ending> {
    let current = context.material.bundles.get(entry.peer.id.trust_domain());
    if same_bundle(lock(&entry.bundle).as_ref(), current) {
        return None;
    }
    let side = match entry.direction {
        Direction::Inbound => PeerSide::Client,
        Direction::Outbound => PeerSide::Server,
    };
    // Whether a chain that ran out ends the connection is a question of its own: here, whether it was one of theirs.
    let at = if entry.peer.not_after <= now {
        entry
            .peer
            .not_after
            .checked_sub(Duration::from_secs(1))
            .unwrap_or(now)
    } else {
        now
    };
    let outcome = verified
        .0
        .entry((entry.direction, &entry.peer.chain))
        .or_insert_with(|| verify_chain(&context.store, &entry.peer.chain, side, at).map(drop));
    match outcome {
        Ok(()) => {
            *lock(&entry.bundle) = current.cloned();
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
    let own = match identity {
        IdentityView::Held(context) => &context.material.svid.id,
        IdentityView::Missing { .. } => &entry.own.id,
    };
    let who = authorize::Inbound {
        listener: &entry.listener.name,
        peer: &entry.peer.id,
        source: entry.peer_addr.ip(),
        own_trust_domain: own.trust_domain(),
    };
    let denial = authorize::inbound(policy, &who, now).err()?;
    let admitted_by = lock(&entry.decision)
        .as_ref()
        .map(|decision| decision.policy_generation);
    let reason = if admitted_by == Some(policy.generation) {
        Reason::RuleExpired
    } else {
        Reason::PolicyChange
    };
    Some(Ending::with(reason, denial.detail))
}

#[cfg(test)]
mod tests;
