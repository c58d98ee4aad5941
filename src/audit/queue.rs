//! The bounded queue to the thread that writes, and what the rest of the process sees of the log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};

use super::chain::Hash;
use super::checkpoint::Signer;
use crate::config::settings::{self, AuditSync, OnAuditFailure};
use crate::record::audit::Event;
use crate::record::{Receipt, Verdict};

/// Entries that wait for the disk before more are lost: some megabytes.
pub(super) const QUEUE: usize = 8192;
/// How long the writer lets entries gather, where nobody waits for an answer: one write for what comes in bursts.
const GATHER: Duration = Duration::from_millis(5);
/// So many do not wait for more.
const MANY: usize = 512;
/// For what still waits when the process ends.
const END: Duration = Duration::from_secs(5);

/// What the writer is sent.
pub(super) enum Message {
    /// An entry, and who waits for it.
    Event(Event, Option<oneshot::Sender<bool>>),
    /// From here on this key signs.
    Signer(Option<Arc<Signer>>),
}

/// What is known of the log.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The number and hash of the last entry that was written.
    pub head: Option<(u64, Hash)>,
    /// The number of the last entry that is on the disk, as far as the system can be believed.
    pub durable: Option<u64>,
    /// When the log was last signed.
    pub last_checkpoint: Option<SystemTime>,
    /// Entries that were written by this process.
    pub written: u64,
    /// Entries that could not be kept.
    pub lost: u64,
}

/// The log as those see it who write to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<Shared>);

/// Keeps the thread; dropping it writes what still waits, for five seconds at most.
#[derive(Debug)]
#[must_use = "dropping the guard ends the log"]
pub struct AuditGuard {
    shared: Arc<Shared>,
    ended: std::sync::mpsc::Receiver<()>,
}

/// What both sides of the queue hold.
#[derive(Debug)]
pub(super) struct Shared {
    waiting: Mutex<Waiting>,
    /// Tells the writer that there is something.
    wake: Condvar,
    /// Nobody is let in: see [`AuditLog::refuses`].
    refusing: AtomicBool,
    /// Who gives a verdict that lets somebody in waits until it is on the disk.
    waits: bool,
    denies: bool,
    status: Mutex<Status>,
    failing: watch::Sender<Option<Arc<str>>>,
    /// The number of the entry that is to come.
    next: watch::Sender<u64>,
    /// Says that the writer has ended, by being dropped.
    ended: Mutex<Option<std::sync::mpsc::Sender<()>>>,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// How many had no room since the writer last looked.
    lost: u64,
    end: bool,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("messages", &self.messages.len())
            .finish_non_exhaustive()
    }
}

/// What the writer found.
pub(super) struct Taken {
    pub(super) messages: VecDeque<Message>,
    pub(super) lost: u64,
    pub(super) end: bool,
}

pub(super) fn new(settings: &settings::Audit) -> (AuditLog, AuditGuard, Arc<Shared>) {
    let (told, ended) = std::sync::mpsc::channel();
    let shared = Arc::new(Shared {
        waiting: Mutex::default(),
        wake: Condvar::new(),
        refusing: AtomicBool::new(false),
        waits: settings.sync == AuditSync::Always,
        denies: settings.on_failure == OnAuditFailure::Deny,
        status: Mutex::default(),
        failing: watch::Sender::new(None),
        next: watch::Sender::new(0),
        ended: Mutex::new(Some(told)),
    });
    let guard = AuditGuard {
        shared: Arc::clone(&shared),
        ended,
    };
    (AuditLog(Arc::clone(&shared)), guard, shared)
}

impl AuditLog {
    /// Takes what happened. Called where it happens: one short lock, and an allocation where an answer is waited for.
    pub fn record(&self, event: Event) -> Receipt {
        let shared = &self.0;
        let admits = matches!(&event, Event::Verdict(decision) if decision.verdict == Verdict::Allow);
        let (answer, kept) = if admits && shared.waits {
            let (answer, kept) = oneshot::channel();
            (Some(answer), Some(kept))
        } else {
            (None, None)
        };
        let mut waiting = shared.waiting();
        if waiting.messages.len() >= QUEUE {
            waiting.lost = waiting.lost.saturating_add(1);
            return if shared.denies {
                Receipt::Lost
            } else {
                Receipt::Kept
            };
        }
        waiting.messages.push_back(Message::Event(event, answer));
        let urgent = kept.is_some() || waiting.messages.len() == 1 || waiting.messages.len() == MANY;
        drop(waiting);
        if urgent {
            shared.wake.notify_one();
        }
        match kept {
            // The writer answers or is gone, and then nothing is kept.
            Some(kept) => Receipt::Pending(Box::pin(async { kept.await.unwrap_or(false) })),
            None => Receipt::Kept,
        }
    }

    /// Signs with this from now on; the log up to here is signed with the one before.
    pub fn sign_with(&self, signer: Option<Arc<Signer>>) {
        self.0.waiting().messages.push_back(Message::Signer(signer));
        self.0.wake.notify_one();
    }

    /// Why nobody may be let in at the moment.
    #[must_use]
    pub fn refuses(&self) -> Option<&'static str> {
        let refusing = self.0.refusing.load(Ordering::Relaxed);
        refusing.then_some("the audit log cannot be written, and without a record nobody is let in")
    }

    /// What is known of the log.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status().clone()
    }

    /// The number of the entry that is to come: all before it are written.
    #[must_use]
    pub fn next(&self) -> u64 {
        *self.0.next.borrow()
    }

    /// Tells when entries were written.
    #[must_use]
    pub fn grown(&self) -> watch::Receiver<u64> {
        self.0.next.subscribe()
    }

    /// Why it cannot be written, while that is so.
    #[must_use]
    pub fn failing(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.failing.subscribe()
    }
}

impl Drop for AuditGuard {
    fn drop(&mut self) {
        self.shared.waiting().end = true;
        self.shared.wake.notify_one();
        let _ = self.ended.recv_timeout(END);
    }
}

impl Shared {
    /// Waits for something to write, until then at most.
    pub(super) fn take(&self, until: Instant) -> Taken {
        let mut waiting = self.waiting();
        while waiting.messages.is_empty() && waiting.lost == 0 && !waiting.end {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.wait(waiting, left);
        }
        if !self.waits && !waiting.end && !waiting.messages.is_empty() {
            let until = Instant::now() + GATHER;
            while waiting.messages.len() < MANY && !waiting.end {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                waiting = self.wait(waiting, left);
            }
        }
        Taken {
            messages: std::mem::take(&mut waiting.messages),
            lost: std::mem::take(&mut waiting.lost),
            end: waiting.end,
        }
    }

    /// Lets time pass, unless the process ends; whether it does.
    pub(super) fn pause(&self, until: Instant) -> bool {
        let mut waiting = self.waiting();
        while !waiting.end {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.wait(waiting, left);
        }
        waiting.end
    }

    /// Shows that writing fails, or that it works.
    pub(super) fn set_failing(&self, why: Option<&str>) {
        self.refusing
            .store(why.is_some() && self.denies, Ordering::Relaxed);
        self.failing.send_replace(why.map(Arc::from));
    }

    /// What an entry's maker is told while writing fails.
    pub(super) const fn answer_while_failing(&self) -> bool {
        !self.denies
    }

    /// Shows that all entries before this one are written.
    pub(super) fn set_next(&self, next: u64) {
        self.next
            .send_if_modified(|before| std::mem::replace(before, next) != next);
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who waits for the end. Called by the writer when it has ended, in order or not.
    pub(super) fn ended(&self) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, waiting: MutexGuard<'a, Waiting>, left: Duration) -> MutexGuard<'a, Waiting> {
        let waited = self.wake.wait_timeout(waiting, left);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
