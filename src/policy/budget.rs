//! What a peer may use at once and each second. Compiled and looked up here; counting is left to who serves connections.

use std::sync::Arc;

/// A budget in force. Each SPIFFE ID that it is about has the whole of it for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Unique among the budgets of a policy. What was counted under a name goes on under it when the policy changes.
    pub name: Arc<str>,
    /// For people.
    pub description: Option<Arc<str>>,
    /// The most connections at once.
    pub connections: Option<u32>,
    /// The most new connections over time.
    pub connections_per_second: Option<Rate>,
    /// The most payload bytes a second, both directions together. What is more is held back.
    pub bytes_per_second: Option<u64>,
    /// The file it stands in.
    pub file: Arc<str>,
    /// The line it begins in.
    pub line: u32,
}

/// How often something may happen: a bucket of `burst` tokens, filled by `per_second` tokens a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second, at least 1.
    pub per_second: u32,
    /// The most that come at once, at least 1: `per_second` where the file does not say it.
    pub burst: u32,
}
