//! The thread that writes: takes what waits, chains it ([`entries`]), writes it with one call, and has the disk confirm it
//! ([`disk`]).

mod disk;
mod entries;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use super::Surroundings;
use super::chain::Head;
use super::checkpoint::Signer;
use super::queue::{Message, Shared};
use super::segment::{Active, Opened, Torn};
use super::tend::Tender;
use super::turn::Turn;
use crate::config::settings::{self, AuditSync};

/// What is written with one call.
const BATCH: usize = 1024 * 1024;
/// A checkpoint is due after so many entries, whatever the time.
pub(super) const CHECKPOINT_ENTRIES: u64 = 1000;
/// How often older segments are looked after while no new one begins.
const TEND: Duration = Duration::from_secs(3600);
/// Nothing is due.
const NEVER: Duration = Duration::from_secs(3600);

pub(super) struct Writer {
    settings: settings::Audit,
    surroundings: Surroundings,
    shared: Arc<Shared>,
    head: Head,
    active: Active,
    /// The right to write, given back when the thread ends. While the batch holds a line it is our turn.
    turn: Turn,
    torn: Option<Torn>,
    signer: Option<Arc<Signer>>,
    /// Entries since the last checkpoint.
    unsigned: u64,
    signed_at: Instant,
    /// Messages that were taken and not looked at yet.
    backlog: VecDeque<Message>,
    /// Lines that are chained and not written yet.
    batch: Vec<u8>,
    /// The number of the batch's first line, and when it was made.
    batch_first: Option<(u64, SystemTime)>,
    batch_entries: u64,
    /// Who waits for them.
    answers: Vec<oneshot::Sender<bool>>,
    /// Entries that had no room in the queue, and are not accounted for yet.
    lost: u64,
    /// Since when something is written that the disk has not confirmed.
    unconfirmed: Option<Instant>,
    looked: Instant,
    /// When to try again, while writing fails.
    failing: Option<Instant>,
    tender: Tender,
    tended: Instant,
    /// When a segment that is full may be ended, after that failed.
    no_rotation_before: Option<Instant>,
    /// Entries that the disk failed to confirm: from the first to the last.
    doubtful: Option<(u64, u64)>,
}

/// Tells that the thread has ended, however it did.
struct Ended {
    shared: Arc<Shared>,
    failing: Gauge,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.failing.set(1);
        self.shared
            .set_failing(Some("the thread that writes the audit log has ended"));
        let lost = self.shared.give_up();
        self.shared.count_lost(as_u64(lost));
        self.shared.ended();
    }
}

impl Writer {
    pub(super) fn new(
        settings: settings::Audit,
        opened: Opened,
        torn: Option<Torn>,
        surroundings: Surroundings,
        shared: Arc<Shared>,
    ) -> Self {
        let Opened {
            active, head, turn, ..
        } = opened;
        Self {
            settings,
            surroundings,
            shared,
            head,
            active,
            turn,
            torn,
            signer: None,
            unsigned: 0,
            signed_at: Instant::now(),
            backlog: VecDeque::new(),
            batch: Vec::new(),
            batch_first: None,
            batch_entries: 0,
            answers: Vec::new(),
            lost: 0,
            unconfirmed: None,
            looked: Instant::now(),
            failing: None,
            tender: Tender::default(),
            tended: Instant::now(),
            no_rotation_before: None,
            doubtful: None,
        }
    }

    pub(super) fn run(self) {
        // Outlives the writer: who is told may open the log again.
        let _ended = Ended {
            shared: Arc::clone(&self.shared),
            failing: self.surroundings.metrics.failing.clone(),
        };
        self.serve();
    }

    fn serve(mut self) {
        self.publish();
        self.begin();
        self.leave();
        loop {
            if let Some(retry) = self.failing {
                let end = self.shared.pause(retry);
                self.try_again();
                self.leave();
                if self.failing.is_some() {
                    if end {
                        break;
                    }
                    continue;
                }
            }
            let taken = self.shared.take(self.due());
            self.backlog.extend(taken.messages);
            // Counted when they had no room; accounted for in the log when there is writing.
            self.lost = self.lost.saturating_add(taken.lost);
            self.work();
            if taken.end && self.backlog.is_empty() && self.failing.is_none() && self.enter() {
                self.checkpoint();
                self.commit();
                self.confirm();
                break;
            }
            self.leave();
        }
        self.publish();
        if self.failing.is_some() {
            let waiting = self
                .batch_entries
                .saturating_add(as_u64(self.backlog.len() + self.shared.give_up()));
            self.shared.count_lost(waiting);
            tracing::error!(
                waiting,
                "the process ends, and the audit log could not be written to the last"
            );
        }
        self.tender.wait();
    }

    fn begin(&mut self) {
        self.begin_anew();
        self.commit();
        self.tend();
    }

    /// Waits for our turn, and goes on where the other process has come to. False where that fails.
    fn enter(&mut self) -> bool {
        let entered = self.turn.take().and_then(|newly| match newly {
            true => self.active.catch_up(self.head, &self.settings.path).map(Some),
            false => Ok(None),
        });
        match entered {
            Ok(None) => true,
            Ok(Some((head, torn))) => {
                self.head = head;
                self.torn = torn;
                self.begin_anew();
                true
            }
            Err(error) => {
                self.leave();
                self.fail(&error);
                false
            }
        }
    }

    /// Lets the other process write, unless there are lines that ours is not done with.
    fn leave(&mut self) {
        if self.batch.is_empty() {
            self.turn.give();
        }
    }

    /// Everything that is at hand, and what is due.
    fn work(&mut self) {
        if !self.enter() {
            return;
        }
        while self.failing.is_none() {
            let Some(message) = self.backlog.pop_front() else {
                break;
            };
            match message {
                Message::Signer(signer) => {
                    self.checkpoint();
                    self.signer = signer;
                }
                Message::Flush(answer) => {
                    self.checkpoint();
                    self.commit();
                    self.confirm();
                    self.publish();
                    // Who asked may be gone.
                    let _ = answer.send(());
                }
                Message::Event(event, answer) => {
                    if self.is_full() && !self.rotate() {
                        self.backlog.push_front(Message::Event(event, answer));
                        break;
                    }
                    if self.append(&event) {
                        self.answers.extend(answer);
                    } else if let Some(answer) = answer {
                        let _ = answer.send(self.shared.answer_while_failing());
                    }
                }
            }
            if self.batch.len() >= BATCH {
                self.commit();
            }
        }
        if self.failing.is_none() {
            self.account_for_lost();
            let due = self.signed_at.elapsed() >= self.settings.checkpoint_every;
            if self.unsigned >= CHECKPOINT_ENTRIES || (self.unsigned > 0 && due) {
                self.checkpoint();
            }
            self.commit();
            // By its age alone a segment may be full while nothing comes.
            if self.is_full() {
                self.rotate();
                self.commit();
            }
            if self.tended.elapsed() >= TEND {
                self.tend();
            }
        }
        let waited = self.unconfirmed.map_or(Duration::ZERO, |since| since.elapsed());
        if self.settings.sync == AuditSync::Interval && waited >= self.settings.sync_interval {
            self.confirm();
        }
        self.publish();
    }

    /// When there is something to do even if nothing comes.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let mut due = now + NEVER;
        if let Some(since) = self
            .unconfirmed
            .filter(|_| self.settings.sync == AuditSync::Interval)
        {
            due = due.min(since + self.settings.sync_interval);
        }
        if self.unsigned > 0 && self.signer.is_some() {
            due = due.min(self.signed_at + self.settings.checkpoint_every);
        }
        if let Some((_, since)) = self.active.first {
            let age = self
                .surroundings
                .clock
                .now()
                .duration_since(since)
                .unwrap_or_default();
            due = due.min(now + self.settings.max_age.saturating_sub(age));
        }
        if let Some(retry) = self.no_rotation_before {
            due = due.max(retry.min(now + NEVER));
        }
        due.max(now)
    }

    fn tend(&mut self) {
        self.tended = Instant::now();
        self.tender.start(&self.settings);
    }

    fn publish(&self) {
        if !self.batch.is_empty() {
            return;
        }
        let Some(last) = self.head.last() else { return };
        self.shared.status().head = Some((last, self.head.hash));
        self.shared.set_next(self.head.next);
        let short = i64::try_from(self.head.hash.short()).unwrap_or(0);
        self.surroundings.metrics.head.set(short);
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
