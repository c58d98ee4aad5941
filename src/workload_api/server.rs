//! The embedded Workload API: real gRPC on a unix socket, for the demo, for development and for tests.
//!
//! It owns an [`Authority`], issues an SVID for each entry, issues them anew at half of their life, and pushes every
//! change to every open stream. It attests nobody. Through its [`Handle`] it also misbehaves on demand, as agents do
//! in the field: it denies, falls silent, drops its connections, or hands out whatever it is told to.
//!
//! What it leaves to others: keeping keys from those who may open the socket. Nothing can.

mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::Code;

use super::authority::{Authority, AuthorityError};
use super::proto::{X509BundlesResponse, X509SvidResponse};
use crate::clock::SharedClock;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::bind::{BindError, unix_listener};

/// What SPIRE says when no registration entry matches the caller.
pub const NO_IDENTITY_ISSUED: &str = "no identity issued";

/// An identity to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Its hint.
    pub hint: Option<String>,
}

impl From<SpiffeId> for Entry {
    fn from(id: SpiffeId) -> Self {
        Self { id, hint: None }
    }
}

/// What every stream is told. A stream gets the present answer when it opens, and each later one.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These messages.
    Give(Arc<Given>),
    /// The stream ends with this status.
    Refuse(Code, String),
    /// Nothing at all: the stream stays open.
    Silence,
}

/// The messages of the two methods.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// For `FetchX509SVID`.
    pub svids: X509SvidResponse,
    /// For `FetchX509Bundles`.
    pub bundles: X509BundlesResponse,
}

/// A running server. Dropping it stops the server at once, its open connections too.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

/// What the handle and the server's tasks share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    answer: watch::Sender<Answer>,
    /// Counts the times that every connection was to be dropped.
    hang_ups: watch::Sender<u64>,
    clock: SharedClock,
}

#[derive(Debug)]
struct State {
    authority: Arc<Authority>,
    /// Roots of earlier authorities that are still in the bundle.
    former_roots: Vec<Vec<u8>>,
    entries: Vec<Entry>,
    ttl: Duration,
    federated: BTreeMap<TrustDomain, Vec<u8>>,
    /// When the SVIDs given out last were made.
    issued: SystemTime,
    /// Set while the answer is one that the caller chose.
    scripted: bool,
}

/// Binds the server's socket; a file there that nobody answers on is replaced. Needs a tokio runtime.
///
/// # Errors
/// When a process serves there, something that is no socket is in the way, or the system refuses.
pub fn bind(path: &std::path::Path, mode: u32) -> Result<UnixListener, BindError> {
    unix_listener(path, mode).and_then(|listener| {
        UnixListener::from_std(listener).map_err(|e| BindError::new(path.display().to_string(), e))
    })
}

/// Serves the Workload API on `listener` until the handle is dropped. Needs a tokio runtime.
///
/// # Errors
/// When an SVID cannot be issued, an entry of another trust domain among the reasons.
pub fn serve(
    listener: UnixListener,
    authority: Authority,
    entries: Vec<Entry>,
    ttl: Duration,
    clock: SharedClock,
) -> Result<Handle, AuthorityError> {
    let state = State {
        authority: Arc::new(authority),
        former_roots: Vec::new(),
        entries,
        ttl,
        federated: BTreeMap::new(),
        issued: clock.now(),
        scripted: false,
    };
    let first = state.answer()?;
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        answer: watch::Sender::new(first),
        hang_ups: watch::Sender::new(0),
        clock,
    });
    let accept = tokio::spawn(service::accept(
        listener,
        shared.answer.subscribe(),
        shared.hang_ups.subscribe(),
    ));
    let rotate = tokio::spawn(rotate_in_time(Arc::clone(&shared)));
    Ok(Handle {
        shared,
        tasks: vec![accept.abort_handle(), rotate.abort_handle()],
    })
}

impl Handle {
    /// Issues every SVID anew and pushes them; also ends a scripted misbehaviour.
    pub fn rotate(&self) -> Result<(), AuthorityError> {
        self.change(|_| {})
    }

    /// Replaces the identities to hand out. None at all means `no identity issued`.
    pub fn set_entries(&self, entries: Vec<Entry>) -> Result<(), AuthorityError> {
        self.change(|state| state.entries = entries)
    }

    /// Adds an identity after the others.
    pub fn add(&self, entry: Entry) -> Result<(), AuthorityError> {
        self.change(|state| state.entries.push(entry))
    }

    /// Takes an identity away.
    pub fn remove(&self, id: &SpiffeId) -> Result<(), AuthorityError> {
        self.change(|state| state.entries.retain(|entry| entry.id != *id))
    }

    /// Changes how long new SVIDs live.
    pub fn set_ttl(&self, ttl: Duration) -> Result<(), AuthorityError> {
        self.change(|state| state.ttl = ttl)
    }

    /// Gives out the bundle of another trust domain (DER, one certificate after the other), or with `None` no longer.
    pub fn federate(
        &self,
        trust_domain: &TrustDomain,
        bundle: Option<Vec<u8>>,
    ) -> Result<(), AuthorityError> {
        self.change(|state| match bundle {
            Some(bundle) => drop(state.federated.insert(trust_domain.clone(), bundle)),
            None => drop(state.federated.remove(trust_domain)),
        })
    }

    /// Replaces the authority. With `keep_former` the old root stays in the bundle, as in an orderly change of
    /// authorities; without, everything that the old one signed is worth nothing any more.
    pub fn set_authority(&self, authority: Authority, keep_former: bool) -> Result<(), AuthorityError> {
        self.change(|state| {
            if keep_former {
                state.former_roots.push(state.authority.root().to_vec());
            } else {
                state.former_roots.clear();
            }
            state.authority = Arc::new(authority);
        })
    }

    /// The authority that signs now.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.shared.state().authority)
    }

    /// What it gives out now, or gave out before a scripted answer.
    ///
    /// # Errors
    /// When an SVID cannot be issued.
    pub fn fresh(&self) -> Result<Option<Given>, AuthorityError> {
        Ok(match self.shared.state().answer()? {
            Answer::Give(given) => Some(Arc::unwrap_or_clone(given)),
            Answer::Refuse(..) | Answer::Silence => None,
        })
    }

    /// Ends every stream, and refuses new ones, with `PermissionDenied: no identity issued`, until the next change.
    pub fn deny(&self) {
        self.script(Answer::Refuse(
            Code::PermissionDenied,
            NO_IDENTITY_ISSUED.to_owned(),
        ));
    }

    /// Answers this to every stream, until the next change.
    pub fn script(&self, answer: Answer) {
        self.shared.state().scripted = true;
        self.shared.answer.send_replace(answer);
    }

    /// Closes every open connection without a word. New ones are served.
    pub fn hang_up(&self) {
        self.shared
            .hang_ups
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), AuthorityError> {
        self.shared.change(change)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.hang_up();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held the lock left plain values behind: each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, issues anew, and pushes the result.
    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), AuthorityError> {
        let mut state = self.state();
        change(&mut state);
        state.issued = self.clock.now();
        state.scripted = false;
        // Sent while the lock is held, so that the last change is also the last answer.
        self.answer.send_replace(state.answer()?);
        Ok(())
    }

    /// Issues anew when the SVIDs have come to half of their life, unless the present answer is a scripted one.
    fn rotate_if_due(&self) -> Result<bool, AuthorityError> {
        let due = {
            let state = self.state();
            let half = state.issued.checked_add(state.ttl / 2);
            !state.scripted && half.is_some_and(|half| half <= self.clock.now())
        };
        if due {
            self.change(|_| {})?;
        }
        Ok(due)
    }
}

impl State {
    fn answer(&self) -> Result<Answer, AuthorityError> {
        if self.entries.is_empty() {
            return Ok(Answer::Refuse(
                Code::PermissionDenied,
                NO_IDENTITY_ISSUED.to_owned(),
            ));
        }
        let mut bundle = self.authority.root().to_vec();
        bundle.extend(self.former_roots.iter().flatten());
        let mut svids = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let mut svid = self
                .authority
                .issue(&entry.id, entry.hint.as_deref(), self.ttl, self.issued)?;
            svid.bundle.clone_from(&bundle);
            svids.push(svid);
        }
        let federated_bundles: std::collections::HashMap<_, _> = self
            .federated
            .iter()
            .map(|(td, bundle)| (td.id_string(), bundle.clone()))
            .collect();
        let mut bundles = federated_bundles.clone();
        bundles.insert(self.authority.trust_domain().id_string(), bundle);
        Ok(Answer::Give(Arc::new(Given {
            svids: X509SvidResponse {
                svids,
                crl: Vec::new(),
                federated_bundles,
            },
            bundles: X509BundlesResponse {
                crl: Vec::new(),
                bundles,
            },
        })))
    }
}

/// Rotates at half of the SVIDs' life. Looks at the clock every second, or more often where lives are short, because
/// the time of day may jump while a long sleep would not notice.
async fn rotate_in_time(shared: Arc<Shared>) {
    loop {
        let ttl = shared.state().ttl;
        tokio::time::sleep((ttl / 10).clamp(Duration::from_millis(20), Duration::from_secs(1))).await;
        match shared.rotate_if_due() {
            Ok(true) => tracing::debug!("issued every SVID anew"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot issue SVIDs anew"),
        }
    }
}
