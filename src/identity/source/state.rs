//! What a source publishes: the material, and how things stand.

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::material::Material;

/// What to check when the agent says that it issues no identity.
pub const DENIED_ADVICE: &str = "no identity issued: check that a registration entry exists for this workload, that its \
     selectors match, and that its parent is this agent";

/// The identity at one moment.
#[derive(Clone, Debug)]
pub struct State {
    /// What to use now. `None` when there is none yet, or it was withdrawn, or it expired.
    pub material: Option<Arc<Material>>,
    /// In one word, and why.
    pub status: Status,
    /// Whether the source is connected and has answered. For files: whether they could be read.
    pub connected: bool,
    /// When the source last gave something usable.
    pub last_update: Option<SystemTime>,
    /// What is wrong at present, also while an SVID is held; `None` when nothing is.
    pub last_problem: Option<String>,
    /// How many times the SVID was replaced by another one.
    pub rotations: u64,
}

/// What the identity comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing was heard of the source yet.
    Waiting {
        /// What is waited for.
        why: String,
    },
    /// There is material to use. [`State::last_problem`] says if something is wrong all the same.
    Ready,
    /// The source gives SVIDs, but not the wanted one.
    Selecting {
        /// Which one is wanted.
        wanted: String,
    },
    /// The source says that it issues no identity to us.
    Denied,
    /// The SVID ran out before the source gave another one.
    Expired,
    /// What the source gave may not be used.
    Refused {
        /// Why.
        why: String,
    },
    /// There is no word from the source.
    Unreachable {
        /// Why.
        why: String,
    },
    /// No further attempt will be made. Material may still be there, until it expires.
    Fatal {
        /// Why.
        why: String,
    },
}

impl Status {
    /// The word used in logs and pages.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Ready => "ready",
            Self::Selecting { .. } => "selecting",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Fatal { .. } => "fatal",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Waiting { why } => f.write_str(why),
            Self::Ready => f.write_str("ready"),
            Self::Selecting { wanted } => write!(f, "the source does not give the wanted SVID ({wanted})"),
            Self::Denied => f.write_str(DENIED_ADVICE),
            Self::Expired => f.write_str("the SVID expired before the source gave another one"),
            Self::Refused { why } => write!(f, "what the source gave cannot be used: {why}"),
            Self::Unreachable { why } | Self::Fatal { why } => f.write_str(why),
        }
    }
}

impl State {
    /// Whether there is nothing to tell those who know `other`.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let generation = |state: &Self| state.material.as_ref().map(|material| material.generation);
        generation(self) == generation(other)
            && self.status == other.status
            && self.connected == other.connected
            && self.last_update == other.last_update
            && self.last_problem == other.last_problem
    }
}
