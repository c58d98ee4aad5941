//! What can be wrong with an answer, in words.

use std::time::SystemTime;

use super::der;
use crate::clock::rfc3339;

/// Something wrong with one part of an answer, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {defect}")]
pub struct Problem {
    /// Which part, such as ``SVID `spiffe://example.org/web` ``.
    pub part: String,
    /// What is wrong with it.
    pub defect: Defect,
}

/// What can be wrong with a part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// The source's name for it is no SPIFFE ID, or no trust domain.
    #[error("the source names it `{name}`, which is {why}")]
    Name {
        /// The name, cut.
        name: String,
        /// Why it is none.
        why: String,
    },
    /// The certificates are not DER one after the other.
    #[error("the certificates cannot be read: {0}")]
    Encoding(#[from] der::SplitError),
    /// No certificate at all.
    #[error("it holds no certificate")]
    Empty,
    /// A certificate breaks its profile. Counted from 1, the leaf is 1.
    #[error("certificate {number} breaks the X509-SVID profile: {why}")]
    Profile {
        /// Its place.
        number: usize,
        /// The rule it breaks.
        why: String,
    },
    /// The leaf is another identity's.
    #[error("the leaf's ID is `{leaf}`: it must be the one the source names")]
    OtherId {
        /// The ID in the leaf.
        leaf: String,
    },
    /// The private key is of no known kind, or damaged.
    #[error("the private key cannot be read: it must be an unencrypted EC, RSA or Ed25519 key")]
    UnreadableKey,
    /// The private key is another certificate's.
    #[error("the private key does not belong to the leaf")]
    OtherKey,
    /// A certificate of the chain has run out.
    #[error("it expired at {}: check this machine's clock, and that the source still renews", rfc3339(*.0))]
    Expired(SystemTime),
    /// Not yet valid; used all the same, because the peers' clocks decide.
    #[error("it is valid only from {}: this machine's clock is behind, or its issuer's ahead", rfc3339(*.0))]
    NotYetValid(SystemTime),
    /// The bundle of its trust domain is bad.
    #[error("the bundle of its trust domain cannot be used: {0}")]
    OwnBundle(Box<Defect>),
    /// Its bundle did not sign it.
    #[error("its chain does not lead to its own trust domain's bundle: {0}")]
    Chain(String),
    /// A federated entry for a trust domain of ours.
    #[error("a federated bundle cannot replace our own trust domain's: ignored")]
    OwnDomain,
    /// Two entries for one trust domain.
    #[error("there is another entry for the same trust domain: this one is ignored")]
    Repeated,
    /// Unreadable; an earlier one stays in force.
    #[error("{0}; the last good one stays in force")]
    KeptLastGood(Box<Defect>),
}

/// Why a whole answer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No SVID in it.
    #[error("the answer holds no SVID: a source with nothing to give must say so by `PermissionDenied`")]
    NoSvid,
    /// More of something than is read.
    #[error("the answer holds {found} {what}: {most} are the most that are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// The wanted SVID is bad.
    #[error("{0}")]
    Wanted(Problem),
}
