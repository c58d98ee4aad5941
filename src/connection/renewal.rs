//! Renews open connections: tells peers of our newer SVID when it has come, and judges theirs.
//!
//! [`pace`] decides when, for all connections; a [`Renewals`] acts for one of them, in its task. A peer's newer SVID passes
//! what a handshake asks, by the same functions: the proof ([`crate::tls::renewal`]), the chain against the bundles of
//! now, the very ID that the connection was admitted with, and policy. The protocol, its limits, and why each answer is
//! what it is: `docs/renewal.md`.

mod pace;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rustls::AlertDescription;
use tokio::time::Instant;

use super::authority;
use super::live::{IdentityView, Live};
use super::registry::{Entry, Renewal, lock};
use crate::authorize::{self, Denial, PolicyView};
use crate::config::settings::OnChange;
use crate::forward::renewing::{Refused, Renewing};
use crate::identity::material::Svid;
use crate::record::{Direction, Reason, RenewalResult};
use crate::spiffe::TrustDomain;
use crate::telemetry::metrics::ListenerMetrics;
use crate::tls::configs::Context;
use crate::tls::renewal::{Heard, NotOffered, Verdict};
use crate::tls::session::Session;
use crate::tls::verify::{PathProblem, PeerSide, Refusal, VerifiedPeer, verify_chain};
pub use pace::pace;

/// How soon after one renewal was answered a peer may send the next. It bounds what its renewals cost: a signature and a
/// chain to verify, about a tenth of a millisecond with usual keys, a second.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Renews one connection.
#[derive(Debug)]
pub(super) struct Renewals {
    live: Arc<Live>,
    entry: Arc<Entry>,
    metrics: Arc<ListenerMetrics>,
    rare: Option<Box<Rare>>,
}

/// What only a connection has that was renewed.
#[derive(Debug, Default)]
struct Rare {
    /// What we told the peer of, until it answers.
    offered: Option<Arc<Svid>>,
    /// When we last answered the peer.
    answered: Option<Instant>,
    /// That the peer's newer SVID was not taken was said.
    kept: bool,
}

impl Renewals {
    /// For a connection whose session may renew; `None` where the peer is known not to understand it.
    pub(super) fn of(
        live: &Arc<Live>,
        entry: &Arc<Entry>,
        metrics: &Arc<ListenerMetrics>,
        session: &mut Session,
    ) -> Option<Box<dyn Renewing>> {
        let link = session.renewal()?;
        // A client knows it of its server. A server has yet to be told.
        entry.can_renew.store(link.may_offer(), Ordering::Release);
        Some(Box::new(Self {
            live: live.clone(),
            entry: entry.clone(),
            metrics: metrics.clone(),
            rare: None,
        }))
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn count(&self, result: RenewalResult, detail: Option<&str>) {
        self.metrics.renewal(result);
        tracing::debug!(
            id = self.entry.id, listener = %self.entry.listener.name, peer_id = %self.entry.peer().id,
            %result, detail, expires = crate::clock::rfc3339(self.entry.expires()),
            "renewal of an open connection"
        );
    }

    /// What became of our renewal.
    fn answered(&mut self, verdict: Verdict) {
        let Some(own) = self.rare().offered.take() else {
            return;
        };
        if verdict == Verdict::Kept {
            self.count(RenewalResult::OwnKept, None);
            return;
        }
        let renewal = Renewal {
            own: Some(own),
            peer: None,
        };
        // It was made of the same ID; were it not, the connection would end with what it rests on.
        if self.live.registry.renew(&self.entry, renewal).is_ok() {
            self.live.changed.notify_one();
            self.count(RenewalResult::OwnAccepted, None);
        }
    }

    fn judge(
        &mut self,
        renewal: &crate::tls::renewal::Renewal,
        session: &mut Session,
    ) -> Result<Verdict, Refused> {
        let now = Instant::now();
        let last = self.rare().answered.replace(now);
        if last.is_some_and(|last| now.duration_since(last) < MIN_INTERVAL) {
            return Err(Refused {
                alert: AlertDescription::UnexpectedMessage,
                detail: format!("renewals less than {} s apart", MIN_INTERVAL.as_secs()),
            });
        }
        session.check_renewal(renewal).map_err(|flaw| Refused {
            alert: flaw.alert(),
            detail: flaw.to_string(),
        })?;
        let identity = self.live.identity();
        let policy = self.live.policy();
        let IdentityView::Held(context) = &*identity else {
            // Nothing to judge it by.
            return Ok(self.kept("we hold no identity"));
        };
        let peer = match self.verified(renewal, context) {
            Ok(peer) => peer,
            Err(refusal) if may_heal(&refusal) => return Ok(self.kept(&refusal.to_string())),
            Err(refusal) => {
                return Err(Refused {
                    alert: refusal.alert(),
                    detail: refusal.to_string(),
                });
            }
        };
        if peer.id != self.entry.peer().id {
            return Err(Refused {
                alert: AlertDescription::AccessDenied,
                detail: format!("the renewal is of `{}`", peer.id),
            });
        }
        if peer.not_after < lock(&self.entry.trust).not_after {
            return Ok(self.kept("its chain ends before that of the connection does"));
        }
        let own = context.material.svid.id.trust_domain();
        if let Err(denial) = admitted(&self.entry, &peer, &policy, own, self.live.clock.now()) {
            return self.denied(&denial);
        }
        let bundle = context.material.bundles.get(peer.id.trust_domain()).cloned();
        let renewal = Renewal {
            peer: Some((peer, bundle)),
            own: None,
        };
        self.live
            .registry
            .renew(&self.entry, renewal)
            .map_err(|error| Refused {
                alert: AlertDescription::AccessDenied,
                detail: error.to_string(),
            })?;
        self.rare().kept = false;
        self.look_again(&identity, &policy);
        Ok(Verdict::Accepted)
    }

    fn verified(
        &self,
        renewal: &crate::tls::renewal::Renewal,
        context: &Context,
    ) -> Result<Arc<VerifiedPeer>, Refusal> {
        let side = match self.entry.direction {
            Direction::Inbound => PeerSide::Client,
            Direction::Outbound => PeerSide::Server,
        };
        verify_chain(&context.store, &renewal.chain(), side, self.live.clock.now())
    }

    /// The connection rests on what it rested on. It is said once, however often the peer tries.
    fn kept(&mut self, why: &str) -> Verdict {
        if !std::mem::replace(&mut self.rare().kept, true) {
            tracing::warn!(
                id = self.entry.id, listener = %self.entry.listener.name, peer_id = %self.entry.peer().id,
                "the peer's newer SVID is not taken, and its old one counts to its end: {why}"
            );
        }
        Verdict::Kept
    }

    /// Policy does not admit the newer certificate. Where the settings let a connection live on that policy does not admit,
    /// it does so to the end of what it was admitted with.
    fn denied(&mut self, denial: &Denial) -> Result<Verdict, Refused> {
        let closes = self.live.open_connections.on_policy_change == OnChange::Close;
        if closes || denial.reason == Reason::DenyList {
            return Err(Refused {
                alert: AlertDescription::AccessDenied,
                detail: denial.detail.clone(),
            });
        }
        Ok(self.kept(&denial.detail))
    }

    /// What came into force while the renewal was judged may have passed the connection by: as at registration, it is asked
    /// again.
    fn look_again(&self, identity: &Arc<IdentityView>, policy: &Arc<PolicyView>) {
        self.live.changed.notify_one();
        let (identity_now, policy_now) = (self.live.identity(), self.live.policy());
        let now = self.live.clock.now();
        if !Arc::ptr_eq(identity, &identity_now)
            && let Some(order) = authority::recheck(&self.entry, &identity_now, now)
        {
            self.entry.order_close(order);
        }
        if !Arc::ptr_eq(policy, &policy_now) {
            let (peer, own) = (self.entry.peer(), self.entry.own());
            let own = own.id.trust_domain();
            if let Err(denial) = admitted(&self.entry, &peer, &policy_now, own, now)
                && self.live.open_connections.on_policy_change == OnChange::Close
            {
                let order = crate::record::Ending::with(Reason::PolicyChange, denial.detail);
                self.entry.order_close(order);
            }
        }
    }
}

impl Renewing for Renewals {
    fn begin(&mut self, session: &mut Session) {
        let Some(link) = session.renewal() else { return };
        link.greet();
        if link.may_offer() && lags(&self.entry, &self.live.identity()) {
            // The handshake was older than the SVID.
            self.entry.order_renewal();
        }
    }

    fn is_due(&self) -> bool {
        self.entry.renewal_is_due()
    }

    fn say(&mut self, session: &mut Session) {
        if !self.entry.take_renewal_order() {
            return;
        }
        let identity = self.live.identity();
        let (IdentityView::Held(context), Some(link)) = (&*identity, session.renewal()) else {
            return;
        };
        if !lags(&self.entry, &identity) {
            return;
        }
        match link.offer(&context.material.svid.chain, &context.key) {
            Ok(()) => {
                self.rare().offered = Some(context.material.svid.clone());
                self.count(RenewalResult::OwnSent, None);
            }
            // It is ordered anew.
            Err(NotOffered::NotNow) => {}
            Err(error) => {
                // It would fail again.
                self.entry.can_renew.store(false, Ordering::Release);
                tracing::warn!(id = self.entry.id, %error, "an open connection cannot be renewed");
            }
        }
    }

    fn hear(&mut self, heard: Heard, session: &mut Session) -> Result<(), Refused> {
        self.entry.can_renew.store(true, Ordering::Release);
        match heard {
            Heard::Hello => {
                if lags(&self.entry, &self.live.identity()) {
                    self.entry.order_renewal();
                }
            }
            Heard::Answer(verdict) => self.answered(verdict),
            Heard::Renewal(renewal) => {
                let judged = self.judge(&renewal, session);
                let result = match &judged {
                    Ok(Verdict::Accepted) => RenewalResult::PeerAccepted,
                    Ok(Verdict::Kept) => RenewalResult::PeerKept,
                    Err(_) => RenewalResult::PeerRefused,
                };
                self.count(
                    result,
                    judged.as_ref().err().map(|refused| refused.detail.as_str()),
                );
                let verdict = judged?;
                if let Some(link) = session.renewal() {
                    link.answer(verdict);
                }
            }
        }
        Ok(())
    }
}

/// Whether we hold a newer SVID than the one that the connection rests on.
fn lags(entry: &Entry, identity: &IdentityView) -> bool {
    let IdentityView::Held(context) = identity else {
        return false;
    };
    let (now, then) = (&context.material.svid, entry.own());
    now.id == then.id && now.not_after > then.not_after
}

/// What may be otherwise in a while, when a bundle has come or a clock has gone on.
const fn may_heal(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::UnknownTrustDomain { .. }
            | Refusal::NotYetValid { .. }
            | Refusal::Path {
                problem: PathProblem::NoPath | PathProblem::BadSignature,
                ..
            }
    )
}

/// Asks what admission asked, about the newer certificate.
fn admitted(
    entry: &Entry,
    peer: &VerifiedPeer,
    policy: &PolicyView,
    own: &TrustDomain,
    now: SystemTime,
) -> Result<(), Denial> {
    match entry.direction {
        Direction::Inbound => {
            let who = authorize::Inbound {
                listener: &entry.listener.name,
                peer: &peer.id,
                source: entry.peer_addr.ip(),
                own_trust_domain: own,
            };
            authorize::inbound(policy, &who, now).map(drop)
        }
        Direction::Outbound => authorize::outbound(&entry.listener.kind, &peer.id).map(drop),
    }
}
