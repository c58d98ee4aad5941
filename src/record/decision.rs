//! The record of one verdict: who asked for what, what was said, and why.
//!
//! One type for every verdict and for everybody who tells of it: the log line of the connection, `/api/v1/decisions`
//! and its stream, the decisions' file, and whatever reads these later. Its form is published
//! (`config/schema/decision.schema.json`) and versioned: within a version fields and words are added, never changed or
//! taken away. Pure: the time and the random part of the ids are handed in.

mod id;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

pub use self::id::{DecisionId, DecisionIds, NoDecisionId, PolicyHash};
use super::{Direction, PeerAddr, Reason, Verdict, display_option, rfc3339};
use crate::spiffe::SpiffeId;

/// The version of the record's form.
pub const VERSION: u32 = 1;

/// The names of a record's fields, in the order in which they are written.
pub const FIELDS: [&str; 25] = [
    "id",
    "version",
    "time",
    "kind",
    "connection",
    "listener",
    "direction",
    "peer_addr",
    "source",
    "peer_id",
    "own_id",
    "serial",
    "verdict",
    "enforced",
    "reason",
    "detail",
    "rule",
    "description",
    "audited",
    "nearest",
    "check",
    "candidate",
    "budget",
    "policy_generation",
    "policy_hash",
];

/// The longest text in a record, in bytes; the rest is cut and marked by `…`. What a record takes in memory is bounded
/// with it.
pub const MAX_TEXT: usize = 4096;

closed_set! {
    /// What a verdict is about.
    Kind {
        /// A connection asks to be let in (inbound), or a server answered us (outbound).
        Admission = "admission",
        /// The peer's certificates did not pass, in the TLS handshake or when its session was resumed.
        Handshake = "handshake",
        /// A connection that was let in is judged again, after a change or because time ran out.
        OpenConnection = "open_connection",
        /// The peer of an open connection presents a newer certificate on it.
        Renewal = "renewal",
    }
}

/// The record of one verdict. Every field is always present; what is not known, or plays no part, is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Names this verdict in the log, the API, the file and the metric's exemplar.
    pub id: DecisionId,
    /// [`VERSION`].
    pub version: u32,
    /// When the verdict was given.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// What it is about.
    pub kind: Kind,
    /// The connection's number: `id` in its log line and in `/api/v1/connections`.
    pub connection: u64,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The listener's direction.
    pub direction: Direction,
    /// Who connected to the listener.
    pub peer_addr: PeerAddr,
    /// The address that `source` in policies is about; absent on a unix socket.
    pub source: Option<IpAddr>,
    /// The verified SPIFFE ID at the other end. An ID that is merely claimed stands in `detail` alone.
    #[serde(serialize_with = "display_option")]
    pub peer_id: Option<Arc<SpiffeId>>,
    /// The SPIFFE ID we presented, or were about to.
    #[serde(serialize_with = "display_option")]
    pub own_id: Option<Arc<SpiffeId>>,
    /// The serial number of the peer's verified certificate, in lower-case hexadecimal.
    pub serial: Option<Arc<str>>,
    /// `allow` or `deny`.
    pub verdict: Verdict,
    /// Whether the verdict has its effect. Not in `policy.mode: audit`, nor where `open_connections` says `log`.
    pub enforced: bool,
    /// Why the peer is denied; absent when it is allowed.
    pub reason: Option<Reason>,
    /// What a person needs beyond the reason: the rule in words, the nearest miss, the check that failed.
    pub detail: Option<Arc<str>>,
    /// The rule, deny list entry or `peer` pattern that decided.
    pub rule: Option<Arc<str>>,
    /// The description of that rule or entry.
    pub description: Option<Arc<str>>,
    /// The audit rules that matched: they mark, and decide nothing.
    pub audited: Vec<Arc<str>>,
    /// Where no rule allowed it: the rule that failed in the fewest conditions.
    pub nearest: Option<Box<Nearest>>,
    /// Where a certificate did not pass: which, and what it should have been.
    pub check: Option<Box<Check>>,
    /// What the candidate policy says to the same question, where it says something else.
    pub candidate: Option<Box<Candidate>>,
    /// The budget that the peer is counted against, where one decided.
    pub budget: Option<Arc<str>>,
    /// The generation of the policy in force; 0 for an outbound listener, whose `peer` list is in the config.
    pub policy_generation: u64,
    /// Which policy that is, by its content; absent where the generation is 0.
    pub policy_hash: Option<PolicyHash>,
}

impl Decision {
    /// About how many bytes it takes in memory, the names that it shares with others included.
    #[must_use]
    pub fn weight(&self) -> usize {
        let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let id = |id: &Option<Arc<SpiffeId>>| id.as_ref().map_or(0, |id| id.path().len() + 64);
        let nearest = self.nearest.as_ref().map_or(0, |nearest| {
            let unmet = nearest.unmet.iter();
            unmet
                .map(|unmet| size_of::<Unmet>() + unmet.detail.len())
                .sum::<usize>()
                + size_of::<Nearest>()
                + nearest.rule.len()
        });
        let check = self
            .check
            .as_ref()
            .map_or(0, |check| size_of::<Check>() + check.rule.len());
        let audited: usize = self.audited.iter().map(|rule| rule.len() + 16).sum();
        size_of::<Self>()
            + self.listener.len()
            + text(&self.serial)
            + text(&self.detail)
            + text(&self.rule)
            + text(&self.description)
            + text(&self.budget)
            + id(&self.peer_id)
            + id(&self.own_id)
            + audited
            + nearest
            + check
            + self.candidate.as_ref().map_or(0, |_| size_of::<Candidate>() + 64)
    }
}

/// The rule that would have allowed a peer with the fewest changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// Its name.
    pub rule: Arc<str>,
    /// Its conditions that do not hold.
    pub unmet: Vec<Unmet>,
}

impl fmt::Display for Nearest {
    /// For people: `rule `web` but for `from`: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}`", self.rule)?;
        for (place, unmet) in self.unmet.iter().enumerate() {
            let link = if place == 0 { " but for" } else { ", and" };
            write!(f, "{link} `{}`: {}", unmet.condition, unmet.detail)?;
        }
        Ok(())
    }
}

/// A condition of a rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unmet {
    /// The field of the rule: `to`, `ports`, `from`, `not_from`, `source`, `not_source`, `not_before` or `expires`.
    pub condition: &'static str,
    /// The condition with the values on both sides.
    pub detail: Box<str>,
}

/// A check of certificates that failed, by the standard that asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which certificate.
    pub certificate: Certificate,
    /// The standard with its section, such as `X509-SVID 4.3`; `svidecar` for a limit of our own.
    pub standard: &'static str,
    /// The rule, in the standard's own words where it is one.
    pub rule: &'static str,
}

/// Which certificate of those that a peer presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// None was sent, or the message that carries them was not taken.
    None,
    /// The peer's own: `leaf`.
    Leaf,
    /// A signing certificate that the peer sent: `intermediate N`, where the leaf is 1; without N where it is not known
    /// which.
    Intermediate(Option<usize>),
    /// The authority in our bundle: `authority`.
    Authority,
    /// What they are together: `chain`.
    Chain,
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Leaf => f.write_str("leaf"),
            Self::Intermediate(Some(place)) => write!(f, "intermediate {place}"),
            Self::Intermediate(None) => f.write_str("intermediate"),
            Self::Authority => f.write_str("authority"),
            Self::Chain => f.write_str("chain"),
        }
    }
}

impl Serialize for Certificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a candidate policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// `allow` or `deny`.
    pub verdict: Verdict,
    /// Its rule that decides.
    pub rule: Option<Arc<str>>,
}

/// A text for a record: cut at [`MAX_TEXT`] bytes.
#[must_use]
pub fn bounded(text: &str) -> Arc<str> {
    if text.len() <= MAX_TEXT {
        return text.into();
    }
    let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", text.get(..end.unwrap_or(0)).unwrap_or_default()).into()
}

#[cfg(test)]
pub(crate) mod tests;
