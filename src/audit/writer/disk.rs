//! The file: lines get there, the disk confirms them, and one file follows another.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::{BATCH, Message, Writer, as_u64};
use crate::audit::segment;
use crate::config::settings::AuditSync;

/// How soon writing is tried again after it failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often to look whether the file is still the one at its path.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a segment is ended after that failed.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

impl Writer {
    /// Whether the next entry belongs into a new segment.
    pub(super) fn is_full(&self) -> bool {
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
    pub(super) fn rotate(&mut self) -> bool {
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
    pub(super) fn commit(&mut self) {
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
    pub(super) fn confirm(&mut self) {
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
    pub(super) fn fail(&mut self, error: &io::Error) {
        if self.failing.is_none() {
            tracing::error!(
                path = %self.settings.path.display(), %error, on_failure = self.settings.on_failure.as_str(),
                "the audit log cannot be written; it is tried again twice a second"
            );
        }
        self.failing = Some(Instant::now() + RETRY);
        self.shared.set_failing(Some(&error.to_string()));
        self.surroundings.metrics.failing.set(1);
        let answer_now = self.shared.answer_while_failing();
        let backlog = self.backlog.iter_mut().filter_map(|message| match message {
            Message::Event(_, answer) => answer.take(),
            Message::Signer(_) | Message::Flush(_) => None,
        });
        for answer in self.answers.drain(..).chain(backlog) {
            let _ = answer.send(answer_now);
        }
    }

    pub(super) fn try_again(&mut self) {
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
}
