//! What is written to the audit log: one entry for every verdict, for every connection that was turned away without one,
//! and for every change of what verdicts rest on.
//!
//! An [`Event`] is what happened, as its maker knows it; an [`Entry`] is the line that becomes of it, which also has a place
//! in the log's chain. The form is published (`config/schema/audit.schema.json`) and versioned: within a version fields
//! and words are added, never changed or taken away. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::decision::{Kind as DecisionKind, bounded};
use super::{
    Candidate, Check, ConnectionRecord, Decision, DecisionId, Direction, Nearest, PeerAddr, PolicyHash,
    Reason, TraceId, Verdict, display_option, rfc3339,
};
use crate::spiffe::SpiffeId;

/// The version of the entry's form.
pub const VERSION: u32 = 1;

/// The names of an entry's fields, in the order in which they are written.
pub const FIELDS: [&str; 33] = [
    "version",
    "seq",
    "prev",
    "id",
    "time",
    "kind",
    "actor",
    "operation",
    "outcome",
    "reason",
    "detail",
    "listener",
    "direction",
    "connection",
    "peer_addr",
    "source",
    "peer",
    "own_id",
    "serial",
    "upstream",
    "rule",
    "description",
    "audited",
    "nearest",
    "check",
    "candidate",
    "budget",
    "enforced",
    "policy_generation",
    "policy_hash",
    "trace_id",
    "host",
    "data",
];

/// The fields of records of all kinds that no redaction can touch: the place in the chain, the time, and words from closed sets.
pub const UNTOUCHED: &[&str] = &[
    "version",
    "seq",
    "prev",
    "id",
    "time",
    "kind",
    "operation",
    "outcome",
    "connection",
    "direction",
    "verdict",
    "enforced",
    "reason",
    "result",
    "policy_generation",
    "policy_hash",
    "decision_id",
    "admission_id",
    "trace_id",
    "resumed",
    "bytes_up",
    "bytes_down",
    "duration_ms",
];

closed_set! {
    /// What an entry is about.
    EntryKind {
        /// A verdict: a connection asks to be let in (inbound), or a server answered us (outbound).
        Admission = "admission",
        /// A verdict: the peer's certificates did not pass.
        Handshake = "handshake",
        /// A verdict: a connection that was let in is judged again.
        OpenConnection = "open_connection",
        /// A verdict: the peer of an open connection presents a newer certificate.
        Renewal = "renewal",
        /// A connection was turned away before anything was said of its peer.
        Refusal = "refusal",
        /// The policy in force.
        Policy = "policy",
        /// The deny list in force.
        DenyList = "deny_list",
        /// The candidate policy.
        Candidate = "candidate",
        /// Our own SVID.
        Identity = "identity",
        /// The bundle of a trust domain.
        Bundle = "bundle",
        /// The config file.
        Configuration = "configuration",
        /// The process: its start, its drain, its end.
        Process = "process",
        /// Somebody changed something at the admin endpoint.
        Administration = "administration",
        /// The log itself.
        Log = "log",
    }
}

closed_set! {
    /// What was done.
    Operation {
        /// A connection was made to a listener.
        Connect = "connect",
        /// A peer showed its certificates.
        Handshake = "handshake",
        /// An open connection was judged again.
        Continue = "continue",
        /// A peer showed a newer certificate.
        Renew = "renew",
        /// Something was read and put into force.
        Load = "load",
        /// Our SVID became another one, or the first.
        Rotate = "rotate",
        /// Something is there that was not.
        Add = "add",
        /// Something became another.
        Change = "change",
        /// Something is not there any more.
        Remove = "remove",
        /// The process began its work.
        Start = "start",
        /// No new connections; open ones may finish.
        Drain = "drain",
        /// The process is about to end.
        Stop = "stop",
        /// An open connection was ended by hand.
        Close = "close",
        /// What is logged was changed.
        SetLogLevel = "set_log_level",
        /// A file of the log begins.
        Segment = "segment",
        /// The log up to here is signed.
        Checkpoint = "checkpoint",
        /// Entries are missing here, because they could not be kept.
        Gap = "gap",
        /// The end of the log was torn by a crash and is taken away.
        Repair = "repair",
    }
}

closed_set! {
    /// What came of it.
    EntryOutcome {
        /// The verdict: allowed.
        Allow = "allow",
        /// The verdict: denied.
        Deny = "deny",
        /// Turned away without a verdict.
        Refused = "refused",
        /// A change was made.
        Success = "success",
        /// A change was not made: what was in force still is.
        Failure = "failure",
    }
}

closed_set! {
    /// Who made a change that is no peer's doing.
    Actor {
        /// svidecar itself.
        Svidecar = "svidecar",
        /// Whoever writes its files.
        Files = "files",
        /// The Workload API, or who delivers identities as files.
        IdentitySource = "identity_source",
        /// Who sends signals.
        Signal = "signal",
        /// Who reaches the admin endpoint's unix socket.
        AdminSocket = "admin_socket",
        /// Who holds the admin endpoint's token.
        AdminToken = "admin_token",
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A verdict was given.
    Verdict(Arc<Decision>),
    /// A connection was turned away, and nothing was said of its peer.
    Refusal(Box<Refusal>),
    /// Something changed.
    Change(Box<Change>),
}

/// What is told of a connection that was turned away without a verdict.
#[derive(Clone, Debug)]
pub struct Refusal {
    id: DecisionId,
    time: SystemTime,
    reason: Reason,
    detail: Option<String>,
    listener: Arc<str>,
    direction: Direction,
    connection: u64,
    peer_addr: PeerAddr,
    source: Option<IpAddr>,
    own_id: Option<Arc<SpiffeId>>,
    data: Option<Value>,
}

impl Event {
    /// Whether it is the verdict on which somebody is let in: allowed, or denied where policy is only audited.
    #[must_use]
    pub fn admits(&self) -> bool {
        match self {
            Self::Verdict(decision) => {
                let lets_in = decision.verdict == Verdict::Allow || !decision.enforced;
                decision.kind == DecisionKind::Admission && lets_in
            }
            Self::Refusal(_) | Self::Change(_) => false,
        }
    }
}

impl Refusal {
    /// What it has in common with others like it.
    #[must_use]
    pub fn cause(&self) -> (Arc<str>, Reason) {
        (self.listener.clone(), self.reason)
    }

    /// The same for so many of its kind, from wherever they came.
    #[must_use]
    pub fn standing_for(self, count: u64) -> Self {
        Self {
            detail: Some(format!(
                "{count} connections within a second, of which this tells together"
            )),
            data: Some(serde_json::json!({ "count": count })),
            source: None,
            ..self
        }
    }

    /// Of a connection's record, where it is one; `id` gives the entry its name.
    #[must_use]
    pub fn of(record: &ConnectionRecord, id: impl FnOnce() -> DecisionId) -> Option<Self> {
        // One that was let in by a verdict, and turned away because that could not be recorded.
        let unrecorded = record.reason == Reason::AuditUnavailable;
        let refused =
            record.outcome() == super::Outcome::Refused && (record.decision.is_none() || unrecorded);
        refused.then(|| Self {
            id: id(),
            time: record.time,
            reason: record.reason,
            detail: record.detail.clone(),
            listener: record.listener.clone(),
            direction: record.direction,
            connection: record.id,
            peer_addr: record.peer_addr,
            source: record.source,
            own_id: record.own_id.clone(),
            data: None,
        })
    }
}

/// A change of what verdicts rest on, or of the log itself.
#[derive(Clone, Debug)]
pub struct Change {
    /// Names the entry.
    pub id: DecisionId,
    /// When it was made.
    pub time: SystemTime,
    /// What it is about.
    pub kind: EntryKind,
    /// Who made it.
    pub actor: Actor,
    /// What was done.
    pub operation: Operation,
    /// What came of it.
    pub outcome: EntryOutcome,
    /// For a person.
    pub detail: Option<String>,
    /// The SVID we present, where one is held.
    pub own_id: Option<Arc<SpiffeId>>,
    /// The policy's generation, where there is one.
    pub policy_generation: Option<u64>,
    /// What the kind has to say beyond the fixed fields: numbers, hashes, names. An object.
    pub data: Value,
}

/// One line of the log. Every field is always present; what is not known, or plays no part, is `null`.
#[derive(Clone, Debug, Serialize)]
pub struct Entry<'a> {
    /// [`VERSION`].
    pub version: u32,
    /// Counts the log's entries from 0 up, through all of its files.
    pub seq: u64,
    /// The SHA-256 of the line before this one, without its line feed; 64 zeros in the very first.
    pub prev: &'a str,
    /// Names the entry; a verdict's id is that of its decision record.
    pub id: DecisionId,
    /// When it happened.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// What it is about.
    pub kind: EntryKind,
    /// Who did it: the peer's verified SPIFFE ID, or one of [`Actor`].
    pub actor: Option<String>,
    /// What was done.
    pub operation: Operation,
    /// What came of it.
    pub outcome: EntryOutcome,
    /// Why, in a word of the closed set.
    pub reason: Option<Reason>,
    /// Why, for a person.
    pub detail: Option<Arc<str>>,
    /// The listener's name.
    pub listener: Option<&'a str>,
    /// The listener's direction.
    pub direction: Option<Direction>,
    /// The connection's number.
    pub connection: Option<u64>,
    /// Who connected to the listener.
    pub peer_addr: Option<PeerAddr>,
    /// The address that `source` in policies is about.
    pub source: Option<IpAddr>,
    /// The verified SPIFFE ID at the other end.
    #[serde(serialize_with = "display_option")]
    pub peer: Option<Arc<SpiffeId>>,
    /// The SPIFFE ID we presented.
    #[serde(serialize_with = "display_option")]
    pub own_id: Option<Arc<SpiffeId>>,
    /// The serial number of the peer's verified certificate.
    pub serial: Option<&'a str>,
    /// Where the listener's connections go.
    pub upstream: Option<&'a str>,
    /// The rule, deny list entry or `peer` pattern that decided.
    pub rule: Option<&'a str>,
    /// What the description of that rule says.
    pub description: Option<&'a str>,
    /// The audit rules that matched.
    pub audited: &'a [Arc<str>],
    /// Where no rule allowed it: the one that failed in the fewest conditions.
    pub nearest: Option<&'a Nearest>,
    /// Where a certificate did not pass: which, and what it should have been.
    pub check: Option<&'a Check>,
    /// What the candidate policy says, where it says something else.
    pub candidate: Option<&'a Candidate>,
    /// The budget that decided.
    pub budget: Option<&'a str>,
    /// Whether a verdict has its effect.
    pub enforced: Option<bool>,
    /// The generation of the policy in force.
    pub policy_generation: Option<u64>,
    /// Which policy that is.
    pub policy_hash: Option<PolicyHash>,
    /// The trace that the connection's spans are in, where traces are made.
    pub trace_id: Option<TraceId>,
    /// The name of the host that wrote it, in Kubernetes the pod's.
    pub host: &'a str,
    /// What the kind has to say beyond the fixed fields.
    pub data: Option<&'a Value>,
}

impl<'a> Entry<'a> {
    /// The entry of `event` at its place in the chain. `upstream` says where a listener's connections go.
    #[must_use]
    pub fn new(
        event: &'a Event,
        (seq, prev): (u64, &'a str),
        host: &'a str,
        upstream: impl FnOnce(&str) -> Option<&'a str>,
    ) -> Self {
        match event {
            Event::Verdict(decision) => Self {
                upstream: upstream(&decision.listener),
                ..Self::of_verdict(decision, (seq, prev), host)
            },
            Event::Refusal(refusal) => Self {
                time: refusal.time,
                operation: Operation::Connect,
                outcome: EntryOutcome::Refused,
                reason: Some(refusal.reason),
                detail: refusal.detail.as_deref().map(bounded),
                listener: Some(&refusal.listener),
                direction: Some(refusal.direction),
                connection: Some(refusal.connection),
                peer_addr: Some(refusal.peer_addr),
                source: refusal.source,
                own_id: refusal.own_id.clone(),
                upstream: upstream(&refusal.listener),
                data: refusal.data.as_ref(),
                ..Self::bare(refusal.id, EntryKind::Refusal, (seq, prev), host)
            },
            Event::Change(change) => Self {
                time: change.time,
                actor: Some(change.actor.as_str().to_owned()),
                operation: change.operation,
                outcome: change.outcome,
                detail: change.detail.as_deref().map(bounded),
                own_id: change.own_id.clone(),
                policy_generation: change.policy_generation,
                data: Some(&change.data),
                ..Self::bare(change.id, change.kind, (seq, prev), host)
            },
        }
    }

    fn of_verdict(decision: &'a Decision, place: (u64, &'a str), host: &'a str) -> Self {
        let (kind, operation) = match decision.kind {
            DecisionKind::Admission => (EntryKind::Admission, Operation::Connect),
            DecisionKind::Handshake => (EntryKind::Handshake, Operation::Handshake),
            DecisionKind::OpenConnection => (EntryKind::OpenConnection, Operation::Continue),
            DecisionKind::Renewal => (EntryKind::Renewal, Operation::Renew),
        };
        Self {
            time: decision.time,
            // Outbound it is we who ask: the peer answers.
            actor: match decision.direction {
                Direction::Inbound => decision.peer_id.as_ref().map(ToString::to_string),
                Direction::Outbound => decision.own_id.as_ref().map(ToString::to_string),
            },
            operation,
            outcome: match decision.verdict {
                Verdict::Allow => EntryOutcome::Allow,
                Verdict::Deny | Verdict::None => EntryOutcome::Deny,
            },
            reason: decision.reason,
            detail: decision.detail.clone(),
            listener: Some(&decision.listener),
            direction: Some(decision.direction),
            connection: Some(decision.connection),
            peer_addr: Some(decision.peer_addr),
            source: decision.source,
            peer: decision.peer_id.clone(),
            own_id: decision.own_id.clone(),
            serial: decision.serial.as_deref(),
            rule: decision.rule.as_deref(),
            description: decision.description.as_deref(),
            audited: &decision.audited,
            nearest: decision.nearest.as_deref(),
            check: decision.check.as_deref(),
            candidate: decision.candidate.as_deref(),
            budget: decision.budget.as_deref(),
            enforced: Some(decision.enforced),
            policy_generation: Some(decision.policy_generation),
            policy_hash: decision.policy_hash,
            ..Self::bare(decision.id, kind, place, host)
        }
    }

    fn bare(id: DecisionId, kind: EntryKind, (seq, prev): (u64, &'a str), host: &'a str) -> Self {
        Self {
            version: VERSION,
            seq,
            prev,
            id,
            time: SystemTime::UNIX_EPOCH,
            kind,
            actor: None,
            operation: Operation::Connect,
            outcome: EntryOutcome::Success,
            reason: None,
            detail: None,
            listener: None,
            direction: None,
            connection: None,
            peer_addr: None,
            source: None,
            peer: None,
            own_id: None,
            serial: None,
            upstream: None,
            rule: None,
            description: None,
            audited: &[],
            nearest: None,
            check: None,
            candidate: None,
            budget: None,
            enforced: None,
            policy_generation: None,
            policy_hash: None,
            trace_id: None,
            host,
            data: None,
        }
    }
}

#[cfg(test)]
mod tests;
