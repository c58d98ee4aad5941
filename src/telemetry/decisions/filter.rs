//! Which verdicts somebody wants to see.

use crate::record::{Decision, DecisionId, Kind, Verdict};
use crate::spiffe::IdPattern;

/// What a verdict must have; what is left out may be anything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Its id.
    pub id: Option<DecisionId>,
    /// The number of its connection.
    pub connection: Option<u64>,
    /// What it is about.
    pub kind: Option<Kind>,
    /// What was said.
    pub verdict: Option<Verdict>,
    /// The listener's name.
    pub listener: Option<String>,
    /// The verified peer, as a pattern of policies.
    pub peer: Option<IdPattern>,
}

impl Filter {
    /// Whether a verdict has it all.
    #[must_use]
    pub fn takes(&self, decision: &Decision) -> bool {
        self.id.is_none_or(|id| decision.id == id)
            && self.connection.is_none_or(|number| decision.connection == number)
            && self.kind.is_none_or(|kind| decision.kind == kind)
            && self.verdict.is_none_or(|verdict| decision.verdict == verdict)
            && self
                .listener
                .as_ref()
                .is_none_or(|name| **name == *decision.listener)
            && self.peer.as_ref().is_none_or(|pattern| {
                let peer = decision.peer_id.as_deref();
                peer.is_some_and(|peer| pattern.matches(peer))
            })
    }
}
