//! A policy that is asked beside the one in force, and decides nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use crate::policy::{Admission, DenyList, Facts, Outcome};
use crate::record::{Divergence, Verdict};
use crate::spiffe::SpiffeId;

/// The divergences that are kept apart. Peers, of whom there may be any number, are part of what tells them apart; the
/// one that was seen longest ago goes first.
const MAX_LISTED: usize = 256;

/// A candidate policy in use. Clones are one: what is noted of one is noted of all.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Counts candidates from 1 up in this process.
    pub generation: u64,
    /// The policy, with the deny list in force.
    pub admission: Admission,
    /// When it was first asked.
    pub since: SystemTime,
    notes: Arc<Notes>,
}

/// What a candidate says that the policy in force does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diverging {
    /// Which way it differs.
    pub change: Divergence,
    /// `allow` or `deny`.
    pub verdict: Verdict,
    /// The rule of it that decides.
    pub rule: Option<Arc<str>>,
}

/// Decisions of one peer that the candidate would make otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diverged {
    /// The listener.
    pub listener: Arc<str>,
    /// The peer.
    pub peer: SpiffeId,
    /// Which way the candidate differs.
    pub change: Divergence,
    /// The rule that decides in the policy in force.
    pub rule: Option<Arc<str>>,
    /// The rule that decides in the candidate.
    pub candidate_rule: Option<Arc<str>>,
    /// How often.
    pub count: u64,
    /// The last time.
    pub last: SystemTime,
    /// Where the peer came from then.
    pub source: Option<IpAddr>,
}

/// What was noted of a candidate.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Decisions that it would have made otherwise: denied, and allowed.
    pub would_deny: u64,
    /// See `would_deny`.
    pub would_allow: u64,
    /// The last of them, the newest first.
    pub diverged: Vec<Diverged>,
    /// Decisions of those that are not listed any more.
    pub not_listed: u64,
    /// The open connections that it would have ended when it was read; unknown until they were asked about.
    pub open_connections_denied: Option<usize>,
}

#[derive(Debug, Default)]
struct Notes {
    would_deny: AtomicU64,
    would_allow: AtomicU64,
    listed: Mutex<Listed>,
    open_connections_denied: OnceLock<usize>,
}

#[derive(Debug, Default)]
struct Listed {
    diverged: HashMap<Key, Seen>,
    not_listed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    listener: Arc<str>,
    peer: SpiffeId,
    change: Divergence,
    rule: Option<Arc<str>>,
    candidate_rule: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Seen {
    count: u64,
    last: SystemTime,
    source: Option<IpAddr>,
}

impl Candidate {
    pub(super) fn new(admission: Admission, generation: u64, since: SystemTime) -> Self {
        Self {
            generation,
            admission,
            since,
            notes: Arc::default(),
        }
    }

    pub(super) fn with_deny_list(&self, deny_list: Arc<DenyList>) -> Self {
        Self {
            admission: Admission::new(self.admission.policy.clone(), deny_list),
            ..self.clone()
        }
    }

    /// Asks the candidate what was decided. Allocates only where it says something else, which it notes.
    pub(super) fn ask(
        &self,
        facts: &Facts<'_>,
        decided: &Outcome<'_>,
        now: SystemTime,
    ) -> Option<Box<Diverging>> {
        // One that cannot be asked says nothing: it decides nothing either way, and the panic is in the log.
        let outcome = super::ask(&self.admission, facts, now)?;
        let change = match (decided.allow, outcome.allow) {
            (true, false) => Divergence::WouldDeny,
            (false, true) => Divergence::WouldAllow,
            _ => return None,
        };
        let rule = outcome.by.name().cloned();
        self.notes.add(
            Key {
                listener: facts.listener.into(),
                peer: facts.peer.clone(),
                change,
                rule: decided.by.name().cloned(),
                candidate_rule: rule.clone(),
            },
            facts.source,
            now,
        );
        Some(Box::new(Diverging {
            change,
            verdict: super::verdict(outcome.allow),
            rule,
        }))
    }

    /// Notes how many of the open connections it would have ended. The first answer stays.
    pub fn set_open_connections_denied(&self, count: usize) {
        let _ = self.notes.open_connections_denied.set(count);
    }

    /// What was noted so far.
    #[must_use]
    pub fn listing(&self) -> Listing {
        self.notes.listing()
    }
}

impl Notes {
    fn add(&self, key: Key, source: Option<IpAddr>, now: SystemTime) {
        let total = match key.change {
            Divergence::WouldDeny => &self.would_deny,
            Divergence::WouldAllow => &self.would_allow,
        };
        total.fetch_add(1, Ordering::Relaxed);
        let mut listed = self.lock();
        if listed.diverged.len() >= MAX_LISTED && !listed.diverged.contains_key(&key) {
            listed.make_room();
        }
        let seen = listed.diverged.entry(key).or_insert(Seen {
            count: 0,
            last: now,
            source,
        });
        seen.count = seen.count.saturating_add(1);
        (seen.last, seen.source) = (now, source);
    }

    fn listing(&self) -> Listing {
        let listed = self.lock();
        let mut diverged: Vec<_> = listed
            .diverged
            .iter()
            .map(|(key, seen)| Diverged {
                listener: key.listener.clone(),
                peer: key.peer.clone(),
                change: key.change,
                rule: key.rule.clone(),
                candidate_rule: key.candidate_rule.clone(),
                count: seen.count,
                last: seen.last,
                source: seen.source,
            })
            .collect();
        let not_listed = listed.not_listed;
        drop(listed);
        diverged.sort_by_key(|one| std::cmp::Reverse(one.last));
        Listing {
            would_deny: self.would_deny.load(Ordering::Relaxed),
            would_allow: self.would_allow.load(Ordering::Relaxed),
            diverged,
            not_listed,
            open_connections_denied: self.open_connections_denied.get().copied(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn make_room(&mut self) {
        let oldest = self
            .diverged
            .iter()
            .min_by_key(|(_, seen)| seen.last)
            .map(|(key, _)| key.clone());
        if let Some(seen) = oldest.and_then(|key| self.diverged.remove(&key)) {
            self.not_listed = self.not_listed.saturating_add(seen.count);
        }
    }
}
