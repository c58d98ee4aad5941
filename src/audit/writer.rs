//! The thread that writes: takes what waits, chains it, writes it with one call, and has the disk confirm it.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Surroundings;
use super::chain::{Head, MAX_LINE};
use super::checkpoint::Signer;
use super::queue::{Message, Shared};
use super::segment::{self, Active, Opened, Torn};
use super::tend::Tender;
use super::turn::Turn;
use crate::config::settings::{self, AuditSync};
use crate::record::TraceId;
use crate::record::audit::{Actor, Change, Entry, EntryKind, EntryOutcome, Event, FIELDS, Operation};

/// What is written with one call.
const BATCH: usize = 1024 * 1024;
/// How soon writing is tried again after it failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often to look whether the file is still the one at its path.
const LOOK: Duration = Duration::from_secs(1);
/// A checkpoint is due after so many entries, whatever the time.
pub(super) const CHECKPOINT_ENTRIES: u64 = 1000;
/// How often older segments are looked after while no new one begins.
const TEND: Duration = Duration::from_secs(3600);
/// How soon a segment is ended after that failed.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);
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

    /// What a new segment begins with, and what is to be said of a torn end.
    fn begin_anew(&mut self) {
        if self.active.size == 0 {
            self.head_segment();
        }
        if let Some(torn) = self.torn.take() {
            tracing::warn!(
                bytes = torn.bytes,
                kept = torn.kept.as_ref().map(|kept| kept.display().to_string()),
                "the end of the audit log was torn, as by a crash, and is taken out of it"
            );
            let data = json!({
                "bytes": torn.bytes,
                "sha256": torn.hash.to_string(),
                "kept": torn.kept.as_ref().and_then(|kept| kept.file_name()).map(|name| name.to_string_lossy().into_owned()),
            });
            self.note(
                Operation::Repair,
                Some("the log's end was torn, as by a crash".to_owned()),
                data,
            );
        }
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

    /// Chains an entry, and adds its line to the batch. False where it cannot be kept, which is counted.
    fn append(&mut self, event: &Event) -> bool {
        let prev = self.head.hash.to_string();
        let upstreams = self.surroundings.upstreams.load();
        let mut entry = Entry::new(
            event,
            (self.head.next, &prev),
            &self.surroundings.host,
            |listener| upstreams.get(listener).map(AsRef::as_ref),
        );
        if let (true, Some(connection)) = (self.surroundings.traced, entry.connection) {
            entry.trace_id = Some(TraceId::of(entry.id.process(), connection));
        }
        let start = self.batch.len();
        // Strings and numbers cannot fail, nor can writing to memory.
        let written = match &self.surroundings.redactor {
            // What the log says of itself must be what it is: signatures are over it.
            Some(redactor) if entry.kind != EntryKind::Log => {
                redactor.write_json(&entry, &FIELDS, &mut self.batch)
            }
            _ => serde_json::to_writer(&mut self.batch, &entry),
        };
        if written.is_err() || self.batch.len() - start > MAX_LINE {
            self.batch.truncate(start);
            self.lost = self.lost.saturating_add(1);
            self.shared.count_lost(1);
            return false;
        }
        let line = self.batch.get(start..).unwrap_or_default();
        let now = self.surroundings.clock.now();
        self.batch_first.get_or_insert((self.head.next, now));
        self.head = Head::after(self.head.next, line);
        self.batch.push(b'\n');
        self.batch_entries += 1;
        self.unsigned += 1;
        true
    }

    /// An entry of the log about itself.
    fn note(&mut self, operation: Operation, detail: Option<String>, data: Value) {
        let change = Change {
            id: self.surroundings.ids.next(),
            time: self.surroundings.clock.now(),
            kind: EntryKind::Log,
            actor: Actor::Svidecar,
            operation,
            outcome: EntryOutcome::Success,
            detail,
            own_id: None,
            policy_generation: None,
            data,
        };
        self.append(&Event::Change(Box::new(change)));
    }

    fn tend(&mut self) {
        self.tended = Instant::now();
        self.tender.start(&self.settings);
    }

    fn head_segment(&mut self) {
        let mut random = [0; 16];
        // Were the system to give no randomness there would be no TLS either; the chain holds without.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let data = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            // What makes this log another than every other, from its first entry on.
            "nonce": format!("{:032x}", u128::from_be_bytes(random)),
        });
        self.note(Operation::Segment, None, data);
    }

    /// Signs what was chained since the last time.
    fn checkpoint(&mut self) {
        if self.unsigned == 0 {
            return;
        }
        let now = self.surroundings.clock.now();
        let signer = self.signer.as_ref().filter(|signer| signer.svid.is_valid(now));
        let data = signer.and_then(|signer| signer.sign(self.head.next, &self.head.hash, now));
        // Also where there is nobody who could sign: the next time is as far away.
        self.signed_at = Instant::now();
        let Some(data) = data else { return };
        let change = Change {
            id: self.surroundings.ids.next(),
            time: now,
            kind: EntryKind::Log,
            actor: Actor::Svidecar,
            operation: Operation::Checkpoint,
            outcome: EntryOutcome::Success,
            detail: None,
            own_id: None,
            policy_generation: None,
            data,
        };
        self.append(&Event::Change(Box::new(change)));
        self.unsigned = 0;
        self.shared.status().last_checkpoint = Some(now);
    }

    fn account_for_lost(&mut self) {
        if let Some((first, last)) = self.doubtful.take() {
            let detail =
                format!("the disk failed to confirm entries {first} to {last}; they may not be on it");
            self.note(
                Operation::Gap,
                Some(detail),
                json!({ "lost": 0, "unconfirmed": [first, last] }),
            );
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            let detail = format!("{lost} entries could not be kept before this one");
            self.note(Operation::Gap, Some(detail), json!({ "lost": lost }));
        }
    }

    /// Whether the next entry belongs into a new segment.
    fn is_full(&self) -> bool {
        if self.no_rotation_before.is_some_and(|then| Instant::now() < then) {
            return false;
        }
        let size = self.active.size.saturating_add(as_u64(self.batch.len()));
        let first = self.active.first.or(self.batch_first);
        let age = first.and_then(|(_, since)| self.surroundings.clock.now().duration_since(since).ok());
        size >= self.settings.max_size || age.is_some_and(|age| age >= self.settings.max_age)
    }

    /// Ends the active segment and begins the next. False while nothing can be written. Where the file cannot be renamed it goes
    /// on beyond its size: the log is worth more than its files' sizes.
    fn rotate(&mut self) -> bool {
        self.checkpoint();
        self.commit();
        // Whatever `sync` says: no write comes to it any more that would be confirmed.
        self.unconfirmed.get_or_insert_with(Instant::now);
        self.sync();
        if self.failing.is_some() {
            return false;
        }
        let Some((first, _)) = self.active.first else {
            return true;
        };
        let path = &self.settings.path;
        let name = segment::older_name(path, first);
        let begun = if name.exists() || segment::beside(&name, "gz").exists() {
            Err(io::Error::from(io::ErrorKind::AlreadyExists))
        } else {
            fs::rename(path, &name)
        };
        if let Err(error) = begun {
            tracing::warn!(from = %path.display(), to = %name.display(), %error, "a file of the audit log cannot be renamed; it goes on in it");
            self.no_rotation_before = Some(Instant::now() + ROTATE_AGAIN);
            return true;
        }
        self.no_rotation_before = None;
        let next = segment::open_active(path).and_then(|next| {
            segment::sync_folder(path)?;
            Ok(next)
        });
        match next {
            Ok(next) => {
                self.active = next;
                self.head_segment();
                self.tend();
                true
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// Writes the batch, and where `sync` is `always` has the disk confirm it, before who waits for it is told.
    fn commit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.write() {
            Ok(()) => self.committed(),
            Err(error) => self.fail(&error),
        }
    }

    /// The batch is written.
    fn committed(&mut self) {
        self.surroundings.metrics.written.inc_by(self.batch_entries);
        self.shared.status().written += self.batch_entries;
        self.batch.clear();
        self.batch.shrink_to(BATCH);
        self.batch_entries = 0;
        self.batch_first = None;
        for answer in self.answers.drain(..) {
            // Who asked may be gone.
            let _ = answer.send(true);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.look()?;
        let written = self.active.file.write_all(&self.batch).and_then(|()| {
            if self.settings.sync == AuditSync::Always {
                self.active.file.sync_data()?;
            }
            Ok(())
        });
        if let Err(error) = written {
            // What was half written is taken back; what can't be is found when the file is opened again.
            let _ = self.active.file.set_len(self.active.size);
            return Err(error);
        }
        self.active.size = self.active.size.saturating_add(as_u64(self.batch.len()));
        self.active.first = self.active.first.or(self.batch_first);
        match self.settings.sync {
            AuditSync::Always => self.shared.status().durable = self.head.last(),
            AuditSync::Interval => {
                self.unconfirmed.get_or_insert_with(Instant::now);
            }
            AuditSync::Os => {}
        }
        Ok(())
    }

    /// Has the disk confirm what was written, where the settings ask for that.
    fn confirm(&mut self) {
        if self.settings.sync != AuditSync::Os {
            self.sync();
        }
    }

    fn sync(&mut self) {
        if self.failing.is_some() || self.unconfirmed.is_none() {
            return;
        }
        let Err(error) = self.active.file.sync_data() else {
            self.unconfirmed = None;
            self.shared.status().durable = self.head.last();
            return;
        };
        // The system says so once, and takes what it could not write for written.
        let durable = self.shared.status().durable;
        let first = durable.map_or(0, |durable| durable.saturating_add(1));
        self.doubtful = self
            .head
            .last()
            .map(|last| (self.doubtful.map_or(first, |(first, _)| first), last));
        self.unconfirmed = None;
        self.fail(&error);
    }

    /// Sees whether the file was moved away or removed; then another is begun, where the chain goes on.
    fn look(&mut self) -> io::Result<()> {
        if self.looked.elapsed() < LOOK && self.failing.is_none() {
            return Ok(());
        }
        self.looked = Instant::now();
        let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let there = fs::symlink_metadata(&self.settings.path).ok().map(place);
        if there != self.active.file.metadata().ok().map(place) {
            let next = segment::open_active(&self.settings.path)?;
            if next.size > 0 {
                return Err(io::Error::other("another file was put in its place"));
            }
            tracing::warn!(path = %self.settings.path.display(), "the audit log was moved away; it goes on in a new file");
            self.active = next;
            segment::sync_folder(&self.settings.path)?;
        }
        Ok(())
    }

    /// Notes that writing fails. What is in the batch stays there; who waits is told what the settings say.
    fn fail(&mut self, error: &io::Error) {
        if self.failing.is_none() {
            tracing::error!(
                path = %self.settings.path.display(), %error, on_failure = self.settings.on_failure.as_str(),
                "the audit log cannot be written; it is tried again twice a second"
            );
        }
        self.failing = Some(Instant::now() + RETRY);
        self.surroundings.metrics.failing.set(1);
        self.shared.set_failing(Some(&error.to_string()));
        let answer_now = self.shared.answer_while_failing();
        let backlog = self.backlog.iter_mut().filter_map(|message| match message {
            Message::Event(_, answer) => answer.take(),
            Message::Signer(_) | Message::Flush(_) => None,
        });
        for answer in self.answers.drain(..).chain(backlog) {
            let _ = answer.send(answer_now);
        }
    }

    fn try_again(&mut self) {
        if !self.enter() {
            return;
        }
        // Whatever a failed write has left behind the last whole entry.
        let mended = self
            .look()
            .and_then(|()| self.active.file.set_len(self.active.size));
        let mended = mended.and_then(|()| match self.batch.is_empty() {
            // Nothing to write: the file, or what was asked of its folder, must do.
            true => self.active.file.sync_all(),
            false => self.write(),
        });
        match mended {
            Ok(()) => {
                self.failing = None;
                self.surroundings.metrics.failing.set(0);
                self.committed();
                self.shared.set_failing(None);
                tracing::warn!(path = %self.settings.path.display(), "the audit log is written again");
            }
            Err(error) => self.fail(&error),
        }
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
