//! Verdicts become records: what is known of a connection, and what was said of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::Serving;
use super::authority::Finding;
use super::live::Live;
use super::registry::{Basis, Entry};
use super::renewal;
use crate::authorize::{self, Denial, Permit, PolicyView};
use crate::record::decision::{VERSION, bounded};
use crate::record::{
    Candidate, Decision, Direction, Ending, Kind, LogLine, Nearest, PeerAddr, PolicyHash, Reason, Verdict,
};
use crate::spiffe::SpiffeId;
use crate::tls::handshake::Failure;

/// Whom a verdict is about.
struct About<'a> {
    connection: u64,
    listener: &'a Arc<str>,
    direction: Direction,
    peer_addr: PeerAddr,
    source: Option<IpAddr>,
    peer_id: Option<&'a Arc<SpiffeId>>,
    own_id: Option<&'a Arc<SpiffeId>>,
    serial: Option<&'a Arc<str>>,
}

impl<'a> About<'a> {
    /// An open connection, and what it rests on.
    fn open(entry: &Entry, basis: &'a Basis) -> Self {
        Self {
            connection: entry.id,
            listener: &basis.listener.name,
            direction: basis.direction,
            peer_addr: entry.peer_addr,
            source: entry.source.ip(),
            peer_id: Some(&basis.peer.id),
            own_id: Some(&basis.own.id),
            serial: Some(&basis.peer.serial),
        }
    }

    /// A verdict of which nothing but itself is known.
    fn verdict(&self, live: &Live, policy: &PolicyView, kind: Kind, verdict: Verdict) -> Decision {
        // An outbound listener's `peer` list is in the config.
        let by_policy = self.direction == Direction::Inbound;
        Decision {
            id: live.decisions.next(),
            version: VERSION,
            time: live.clock.now(),
            kind,
            connection: self.connection,
            listener: self.listener.clone(),
            direction: self.direction,
            peer_addr: self.peer_addr,
            source: self.source,
            peer_id: self.peer_id.cloned(),
            own_id: self.own_id.cloned(),
            serial: self.serial.cloned(),
            verdict,
            enforced: true,
            reason: None,
            detail: None,
            rule: None,
            description: None,
            audited: Vec::new(),
            nearest: None,
            check: None,
            candidate: None,
            budget: None,
            policy_generation: if by_policy { policy.generation } else { 0 },
            policy_hash: PolicyHash::of(policy.admission.policy.content_hash()).filter(|_| by_policy),
        }
    }
}

impl Decision {
    /// Takes over what authorization said.
    fn set_terms(&mut self, terms: &authorize::Decision) {
        self.rule = terms.rule.clone();
        self.description = terms.description.clone();
        self.audited.clone_from(&terms.audited);
        self.budget = terms
            .rule
            .clone()
            .filter(|_| terms.reason == Some(Reason::OverBudget));
        self.candidate = terms.candidate.as_deref().map(|said| {
            Box::new(Candidate {
                verdict: said.verdict,
                rule: said.rule.clone(),
            })
        });
    }

    /// Why the peer is denied, with the nearest miss in words.
    fn set_denial(&mut self, reason: Reason, detail: &str, nearest: Option<Box<Nearest>>) {
        self.reason = Some(reason);
        self.detail = Some(match &nearest {
            Some(nearest) => bounded(&format!("{detail}; the nearest is {nearest}")),
            None => bounded(detail),
        });
        self.nearest = nearest;
    }
}

impl Serving<'_> {
    /// A verdict about this connection, with what is known of it so far and nothing of the grounds. To be filled in and
    /// handed to [`Self::decided`].
    pub(super) fn verdict(&self, policy: &PolicyView, kind: Kind, verdict: Verdict) -> Decision {
        let draft = &self.draft;
        let about = About {
            connection: draft.id,
            listener: &self.listener.settings.name,
            direction: self.listener.direction,
            peer_addr: draft.peer_addr,
            source: draft.source().ip(),
            peer_id: draft.peer_id.as_ref(),
            own_id: draft.own_id.as_ref(),
            serial: draft.serial.as_ref(),
        };
        about.verdict(&self.worker.live, policy, kind, verdict)
    }

    /// Records a verdict. It is the connection's from here on, up to another one.
    pub(super) fn decided(&mut self, decision: Decision) -> Arc<Decision> {
        let decision = Arc::new(decision);
        if decision.kind == Kind::Admission {
            self.listener.metrics.decided(&decision);
        }
        self.draft.decision = Some(decision.clone());
        self.receipt = self
            .worker
            .live
            .records
            .decision(&decision, LogLine::OfConnection);
        decision
    }

    /// Records what policy said of a peer.
    pub(super) fn authorized(
        &mut self,
        policy: &PolicyView,
        who: &authorize::Facts<'_>,
        now: SystemTime,
        result: &Result<Permit, Denial>,
    ) -> Arc<Decision> {
        let terms = match result {
            Ok(permit) => permit.decision(),
            Err(denial) => &denial.decision,
        };
        let mut decision = self.verdict(policy, Kind::Admission, terms.verdict);
        decision.set_terms(terms);
        if let Some(candidate) = &terms.candidate {
            let (rule, other) = (terms.rule.as_ref(), candidate.rule.as_ref());
            self.listener.metrics.diverged(candidate.change, rule, other);
        }
        if let Some(reason) = terms.reason {
            decision.enforced = result.is_err();
            let nearest = authorize::nearest(policy, who, terms, now);
            decision.set_denial(reason, terms.detail.as_deref().unwrap_or_default(), nearest);
        }
        self.decided(decision)
    }

    /// Records what the `peer` list said of a server.
    pub(super) fn expected(&mut self, result: &Result<Permit, Denial>) -> Arc<Decision> {
        let terms = match result {
            Ok(permit) => permit.decision(),
            Err(denial) => &denial.decision,
        };
        let policy = self.worker.live.policy();
        let mut decision = self.verdict(&policy, Kind::Admission, terms.verdict);
        decision.set_terms(terms);
        if let Err(denial) = result {
            decision.set_denial(denial.reason, terms.detail.as_deref().unwrap_or_default(), None);
        }
        self.decided(decision)
    }

    /// Records that a peer did not pass the handshake. Not every failure is a verdict: a peer that goes away, or that
    /// speaks no TLS, was not judged.
    pub(super) fn handshake_failed(&mut self, failure: &Failure) {
        let kind = match (failure.reason, &failure.check) {
            (Reason::PeerNotExpected, _) => Kind::Admission,
            (_, Some(_)) => Kind::Handshake,
            (_, None) => return,
        };
        let policy = self.worker.live.policy();
        let mut decision = self.verdict(&policy, kind, Verdict::Deny);
        decision.set_denial(failure.reason, &failure.detail, None);
        decision.check.clone_from(&failure.check);
        self.decided(decision);
    }

    /// The end of a connection that was judged anew before it was open.
    pub(super) fn overtaken(&mut self, entry: &Entry, finding: &Finding) -> Ending {
        let live = &self.worker.live;
        let verdict = finding.verdict(entry, live, &live.policy(), None, true);
        Ending::by(self.decided(verdict))
    }
}

impl Finding {
    /// The record of the verdict; `enforced` unless the settings let the connection live on.
    pub(super) fn verdict(
        &self,
        entry: &Entry,
        live: &Live,
        policy: &PolicyView,
        nearest: Option<&Nearest>,
        enforced: bool,
    ) -> Decision {
        let basis = entry.basis();
        let about = About::open(entry, &basis);
        let mut decision = about.verdict(live, policy, Kind::OpenConnection, Verdict::Deny);
        if let Some(terms) = &self.terms {
            decision.set_terms(terms);
        }
        let nearest = nearest.cloned().map(Box::new);
        decision.set_denial(self.reason_for(entry, policy), &self.detail, nearest);
        decision.check.clone_from(&self.check);
        decision.enforced = enforced;
        decision
    }
}

impl renewal::Found {
    /// The record of the verdict about a peer's renewal: refused for `refused`, not taken, or taken.
    pub(super) fn verdict(&self, entry: &Entry, live: &Live, refused: Option<&str>) -> Decision {
        let basis = entry.basis();
        let about = About {
            // That of the newer certificate, once it is known whose it is.
            serial: Some(&self.peer.as_ref().unwrap_or(&basis.peer).serial),
            ..About::open(entry, &basis)
        };
        let why = refused.or(self.kept.as_deref());
        let verdict = if why.is_some() {
            Verdict::Deny
        } else {
            Verdict::Allow
        };
        let mut decision = about.verdict(live, &live.policy(), Kind::Renewal, verdict);
        decision.enforced = self.kept.is_none();
        decision.check.clone_from(&self.check);
        if let Some(terms) = &self.terms {
            decision.set_terms(terms);
            if let (None, Some(reason)) = (why, terms.reason) {
                // Policy says no and is only audited.
                decision.verdict = Verdict::Deny;
                decision.enforced = false;
                decision.set_denial(reason, terms.detail.as_deref().unwrap_or_default(), None);
            }
        }
        if let Some(why) = why {
            decision.set_denial(Reason::RenewalRefused, why, None);
        }
        decision
    }
}
