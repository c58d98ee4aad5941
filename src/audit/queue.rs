//! The bounded queue to the thread that writes, and what the rest of the process sees of the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{oneshot, watch};

use super::chain::Hash;
use super::checkpoint::Signer;
use crate::config::settings::{self, AuditSync, OnAuditFailure};
use crate::record::audit::{Event, Refusal};
use crate::record::{Reason, Receipt};

/// Entries that wait for the disk before more are lost: some megabytes.
pub(super) const QUEUE: usize = 8192;
/// How long the writer lets entries gather, where nobody waits for an answer: one write for what comes in bursts.
const GATHER: Duration = Duration::from_millis(20);
/// So many do not wait for more.
const MANY: usize = 512;
/// Refusals without a verdict that have an entry each, in [`REFUSALS_WITHIN`].
const MAX_REFUSALS: u32 = 100;
const REFUSALS_WITHIN: Duration = Duration::from_secs(1);
/// For what still waits when the process ends.
const END: Duration = Duration::from_secs(5);

/// What the writer is sent.
pub(super) enum Message {
    /// An entry, and who waits for it.
    Event(Event, Option<oneshot::Sender<bool>>),
    /// From here on this key signs.
    Signer(Option<Arc<Signer>>),
    /// Answered when everything before it is signed, written and confirmed.
    Flush(oneshot::Sender<()>),
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
    /// Writing fails, or nobody writes any more. Set before the queue is looked through for those who wait, and asked
    /// under its lock, so that nobody begins to wait afterwards.
    failing_now: AtomicBool,
    /// Entries that could not be kept, for the metric.
    lost: Counter,
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
    /// Connections that are turned away by the thousand: see [`Refusals`].
    refusals: Refusals,
    end: bool,
    /// Nobody writes any more.
    gone: bool,
}

/// Connections that were turned away without a verdict. Anybody can make these, by knocking: so many a second have an entry each,
/// what comes on top is counted, and becomes one entry for each listener and reason.
#[derive(Default)]
struct Refusals {
    since: Option<Instant>,
    told: u32,
    /// The first of each, and how many there were.
    more: BTreeMap<(Arc<str>, Reason), (Refusal, u64)>,
}

impl Refusals {
    /// The refusal, if it is to have an entry of its own.
    fn take(&mut self, refusal: Box<Refusal>) -> Option<Box<Refusal>> {
        if self.since.is_none_or(|since| since.elapsed() >= REFUSALS_WITHIN) {
            self.since = Some(Instant::now());
            self.told = 0;
        }
        if self.told < MAX_REFUSALS {
            self.told += 1;
            return Some(refusal);
        }
        let more = self.more.entry(refusal.cause()).or_insert_with(|| (*refusal, 0));
        more.1 = more.1.saturating_add(1);
        None
    }

    /// Those that were counted, once their time is over.
    fn counted(&mut self, all: bool) -> Vec<Event> {
        if self.more.is_empty() || !(all || self.is_over()) {
            return Vec::new();
        }
        let more = std::mem::take(&mut self.more).into_values();
        more.map(|(refusal, count)| Event::Refusal(Box::new(refusal.standing_for(count))))
            .collect()
    }

    fn is_over(&self) -> bool {
        self.since.is_none_or(|since| since.elapsed() >= REFUSALS_WITHIN)
    }
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

pub(super) fn new(settings: &settings::Audit, lost: Counter) -> (AuditLog, AuditGuard, Arc<Shared>) {
    let (told, ended) = std::sync::mpsc::channel();
    let shared = Arc::new(Shared {
        waiting: Mutex::default(),
        wake: Condvar::new(),
        failing_now: AtomicBool::new(false),
        lost,
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
        let admits = event.admits();
        let mut waiting = shared.waiting();
        let event = match event {
            Event::Refusal(refusal) => match waiting.refusals.take(refusal) {
                Some(refusal) => Event::Refusal(refusal),
                None => return Receipt::Kept,
            },
            other => other,
        };
        let failing = shared.failing_now.load(Ordering::Relaxed);
        let refused = shared.denies && admits;
        if waiting.gone || waiting.messages.len() >= QUEUE {
            waiting.lost = waiting.lost.saturating_add(1);
            drop(waiting);
            shared.count_lost(1);
            return if refused { Receipt::Lost } else { Receipt::Kept };
        }
        let (answer, kept) = if admits && shared.waits && !failing {
            let (answer, kept) = oneshot::channel();
            (Some(answer), Some(kept))
        } else {
            (None, None)
        };
        waiting.messages.push_back(Message::Event(event, answer));
        let urgent = kept.is_some() || waiting.messages.len() == 1 || waiting.messages.len() == MANY;
        drop(waiting);
        if urgent {
            shared.wake.notify_one();
        }
        match kept {
            // The writer answers, or drops what it was to answer with, and then nothing is kept.
            Some(kept) => Receipt::Pending(Box::pin(async { kept.await.unwrap_or(false) })),
            // What is told of it is written when there is writing again; nobody is let in until then.
            None if failing && refused => Receipt::Lost,
            None => Receipt::Kept,
        }
    }

    /// Has everything up to here written and signed, and confirmed by the disk as far as the settings ask.
    pub async fn flush(&self) {
        let (answer, done) = oneshot::channel();
        {
            let mut waiting = self.0.waiting();
            if waiting.gone {
                return;
            }
            waiting.messages.push_back(Message::Flush(answer));
        }
        self.0.wake.notify_one();
        // A writer that goes away gives up what waits.
        let _ = done.await;
    }

    /// Signs with this from now on; the log up to here is signed with the one before.
    pub fn sign_with(&self, signer: Option<Arc<Signer>>) {
        self.0.waiting().messages.push_back(Message::Signer(signer));
        self.0.wake.notify_one();
    }

    /// Why nobody may be let in at the moment.
    #[must_use]
    pub fn refuses(&self) -> Option<&'static str> {
        let refusing = self.0.denies && self.0.failing_now.load(Ordering::Relaxed);
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
            if !waiting.refusals.more.is_empty() && waiting.refusals.is_over() {
                break;
            }
            let until = if waiting.refusals.more.is_empty() {
                until
            } else {
                until.min(Instant::now() + REFUSALS_WITHIN)
            };
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
        let end = waiting.end;
        let counted = waiting.refusals.counted(end);
        waiting
            .messages
            .extend(counted.into_iter().map(|event| Message::Event(event, None)));
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
        self.failing_now.store(why.is_some(), Ordering::Relaxed);
        self.failing.send_replace(why.map(Arc::from));
        if why.is_some() {
            for message in &mut self.waiting().messages {
                if let Message::Event(_, answer) = message
                    && let Some(answer) = answer.take()
                {
                    // Who asked may be gone.
                    let _ = answer.send(self.answer_while_failing());
                }
            }
        }
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

    /// Counts entries that could not be kept, when that is known.
    pub(super) fn count_lost(&self, lost: u64) {
        self.lost.inc_by(lost);
        let mut status = self.status();
        status.lost = status.lost.saturating_add(lost);
    }

    /// Gives up what waits: nobody will write it. How many entries that were.
    pub(super) fn give_up(&self) -> usize {
        let mut waiting = self.waiting();
        waiting.gone = true;
        let given_up = std::mem::take(&mut waiting.messages);
        given_up
            .iter()
            .filter(|message| matches!(message, Message::Event(..)))
            .count()
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
