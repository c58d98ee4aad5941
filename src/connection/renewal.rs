//! Renews open connections: tells peers of our newer SVID when it has come, and judges theirs.
//!
//! [`mod@pace`] decides when, for all connections; a [`Renewals`] acts for one of them, in its task. A peer's newer SVID passes
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

use super::live::{IdentityView, Live};
use super::registry::{Entry, Renewal};
use crate::authorize::{self, Denial, Permit, PolicyView};
use crate::config::settings::OnChange;
use crate::forward::renewing::{Refused, Renewing};
use crate::identity::material::Svid;
use crate::record::{Check, Direction, LogLine, Reason, RenewalResult};
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
    /// When the peer last answered us.
    heard: Option<Instant>,
    /// That the peer's newer SVID was not taken was said.
    kept: bool,
}

/// What was found of a peer's renewal: what its record tells.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Who it is of, once its chain was verified.
    pub(super) peer: Option<Arc<VerifiedPeer>>,
    /// What authorization said.
    pub(super) terms: Option<Arc<authorize::Decision>>,
    /// The check of certificates that it did not pass.
    pub(super) check: Option<Box<Check>>,
    /// Why it was not taken, without ending the connection.
    pub(super) kept: Option<String>,
    /// The same in a word that names nobody, where it is to be said in the log.
    said: Option<&'static str>,
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

    /// Counts and logs. Who the peer is stands in the connection's records alone, which redaction knows: its number leads
    /// there.
    fn count(&self, result: RenewalResult) {
        self.metrics.renewal(result);
        let basis = self.entry.basis();
        tracing::debug!(
            id = self.entry.id, listener = %basis.listener.name,
            %result, expires = crate::clock::rfc3339(basis.expires()),
            "renewal of an open connection"
        );
    }

    /// What became of our renewal.
    fn answered(&mut self, verdict: Verdict) {
        self.rare().heard = Some(Instant::now());
        let Some(own) = self.rare().offered.take() else {
            return;
        };
        if verdict == Verdict::Kept {
            self.count(RenewalResult::OwnKept);
            return;
        }
        let renewal = Renewal {
            own: Some(own),
            peer: None,
        };
        // It was made of the same ID; were it not, the connection would end with what it rests on.
        if self.live.registry.renew(&self.entry, renewal).is_ok() {
            self.live.changed.notify_one();
            self.count(RenewalResult::OwnAccepted);
        }
    }

    /// Judges the peer's renewal, and notes in `found` what its record tells.
    fn judge(
        &mut self,
        renewal: &crate::tls::renewal::Renewal,
        session: &mut Session,
        found: &mut Found,
    ) -> Result<Verdict, Refused> {
        let now = Instant::now();
        let last = self.rare().answered.replace(now);
        if last.is_some_and(|last| now.duration_since(last) < MIN_INTERVAL) {
            let detail = format!("renewals less than {} s apart", MIN_INTERVAL.as_secs());
            return Err(Refused::new(AlertDescription::UnexpectedMessage, detail));
        }
        session
            .check_renewal(renewal)
            .map_err(|flaw| Refused::new(flaw.alert(), flaw.to_string()))?;
        let identity = self.live.identity();
        let policy = self.live.policy();
        let IdentityView::Held(context) = &*identity else {
            // Nothing to judge it by.
            return Ok(self.kept(Reason::NoIdentity.as_str(), "we hold no identity", found));
        };
        let peer = match self.verified(renewal, context) {
            Ok(peer) => peer,
            Err(refusal) => {
                found.check = refusal.check().map(Box::new);
                if may_heal(&refusal) {
                    return Ok(self.kept(refusal.reason().as_str(), &refusal.to_string(), found));
                }
                return Err(Refused::new(refusal.alert(), refusal.to_string()));
            }
        };
        found.peer = Some(peer.clone());
        let basis = self.entry.basis();
        if peer.id != basis.peer.id {
            let detail = format!("the renewal is of `{}`", peer.id);
            return Err(Refused::new(AlertDescription::AccessDenied, detail));
        }
        if peer.not_after < basis.trust().not_after {
            let why = "its chain ends before that of the connection does";
            return Ok(self.kept(why, why, found));
        }
        let own = context.material.svid.id.trust_domain();
        match admitted(&self.entry, &peer, &policy, own, self.live.clock.now()) {
            Ok(permit) => found.terms = Some(permit.decision().clone()),
            Err(denial) => {
                found.terms = Some(denial.decision.clone());
                return self.denied(&denial, found);
            }
        }
        let bundle = context.material.bundles.get(peer.id.trust_domain()).cloned();
        let renewal = Renewal {
            peer: Some((peer, bundle)),
            own: None,
        };
        self.live
            .registry
            .renew(&self.entry, renewal)
            .map_err(|error| Refused::new(AlertDescription::AccessDenied, error.to_string()))?;
        self.rare().kept = false;
        // Whatever came into force while it was judged: the authority asks about what was renewed.
        self.live.changed.notify_one();
        Ok(Verdict::Accepted)
    }

    /// Records the verdict about a renewal. One that ends the connection becomes the connection's.
    fn record(&self, judged: Result<Verdict, Refused>, found: &Found) -> Result<Verdict, Refused> {
        let detail = judged.as_ref().err().map(|refused| &*refused.detail);
        let decision = found.verdict(&self.entry, &self.live, detail);
        if let Some(word) = found.said {
            tracing::warn!(
                id = self.entry.id, listener = %self.entry.basis().listener.name, decision_id = %decision.id,
                "the peer's newer SVID is not taken, and its old one counts to its end: {word}"
            );
        }
        let decision = Arc::new(decision);
        // The connection is open already: what the audit log cannot keep, it counts.
        let _ = self.live.records.decision(&decision, LogLine::OfConnection);
        judged.map_err(|refused| Refused {
            decision: Some(decision),
            ..refused
        })
    }

    fn verified(
        &self,
        renewal: &crate::tls::renewal::Renewal,
        context: &Context,
    ) -> Result<Arc<VerifiedPeer>, Refusal> {
        let side = match self.entry.basis().direction {
            Direction::Inbound => PeerSide::Client,
            Direction::Outbound => PeerSide::Server,
        };
        verify_chain(&context.store, &renewal.chain(), side, self.live.clock.now())
    }

    /// The connection rests on what it rested on. It is said once, however often the peer tries: in the log by `word`, which
    /// names nobody; `why` may, and is the verdict's.
    fn kept(&mut self, word: &'static str, why: &str, found: &mut Found) -> Verdict {
        found.kept = Some(why.to_owned());
        let said = std::mem::replace(&mut self.rare().kept, true);
        found.said = (!said).then_some(word);
        Verdict::Kept
    }

    /// Policy does not admit the newer certificate. Where the settings let a connection live on that policy does not admit,
    /// it does so to the end of what it was admitted with.
    fn denied(&mut self, denial: &Denial, found: &mut Found) -> Result<Verdict, Refused> {
        let closes = self.live.open_connections.on_policy_change == OnChange::Close;
        let detail = denial.decision.detail.as_deref().unwrap_or_default();
        if closes || denial.reason == Reason::DenyList {
            return Err(Refused::new(AlertDescription::AccessDenied, detail));
        }
        Ok(self.kept(denial.reason.as_str(), detail, found))
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
        // The peer would take it ill (see `judge`). The next round orders it anew.
        let heard = self.rare.as_ref().and_then(|rare| rare.heard);
        if heard.is_some_and(|heard| heard.elapsed() < MIN_INTERVAL) {
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
                self.count(RenewalResult::OwnSent);
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
                let mut found = Found::default();
                let judged = self.judge(&renewal, session, &mut found);
                let result = match &judged {
                    Ok(Verdict::Accepted) => RenewalResult::PeerAccepted,
                    Ok(Verdict::Kept) => RenewalResult::PeerKept,
                    Err(_) => RenewalResult::PeerRefused,
                };
                self.count(result);
                let judged = self.record(judged, &found);
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
    let (now, then) = (&context.material.svid, entry.basis());
    now.id == then.own.id && now.not_after > then.own.not_after
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
) -> Result<Permit, Denial> {
    let basis = entry.basis();
    let certificate = super::certificate(peer);
    match basis.direction {
        Direction::Inbound => {
            let facts = authorize::Facts {
                listener: &basis.listener.name,
                peer: &peer.id,
                source: basis.source,
                own_trust_domain: own,
                certificate: Some(certificate),
            };
            authorize::inbound(policy, &facts, now)
        }
        Direction::Outbound => {
            let expected = basis.listener.expected(basis.destination);
            authorize::outbound(policy, expected, &peer.id, &certificate)
        }
    }
}
