//! Sets of SPIFFE IDs: exact ones are looked up, patterns tried.

use std::collections::HashSet;

use crate::spiffe::{IdPattern, SpiffeId};

/// The IDs that any of several patterns matches.
#[derive(Clone, Debug)]
pub(super) struct IdSet {
    exact: HashSet<SpiffeId>,
    patterns: Box<[IdPattern]>,
    /// As written, for people.
    written: Box<[IdPattern]>,
}

impl IdSet {
    pub(super) fn new(written: Vec<IdPattern>) -> Self {
        let mut exact = HashSet::new();
        let mut patterns = Vec::new();
        for pattern in &written {
            match pattern.as_exact() {
                Some(id) => {
                    exact.insert(id);
                }
                None => patterns.push(pattern.clone()),
            }
        }
        Self {
            exact,
            patterns: patterns.into(),
            written: written.into(),
        }
    }

    pub(super) fn matches(&self, id: &SpiffeId) -> bool {
        self.exact.contains(id) || self.patterns.iter().any(|pattern| pattern.matches(id))
    }

    pub(super) const fn exact(&self) -> &HashSet<SpiffeId> {
        &self.exact
    }

    pub(super) const fn patterns(&self) -> &[IdPattern] {
        &self.patterns
    }

    pub(super) const fn written(&self) -> &[IdPattern] {
        &self.written
    }
}
