//! The verdicts' file: one JSON object a line, written by a thread of its own, rotated by size.
//!
//! Our own rotation, because what is lost must be counted: file-rotate 0.8 forgets the error when it cannot open a file
//! and then reports every write as done.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use crate::record::Decision;

/// Verdicts that wait for a slow disk before more are dropped.
const QUEUE: usize = 8192;
/// What is written at once.
const BATCH: usize = 64 * 1024;
/// How often to look whether the file is still the one at its path.
const LOOK: Duration = Duration::from_secs(1);
/// For what still waits when the process ends.
const END: Duration = Duration::from_secs(1);
/// Who may read it: our own user.
const MODE: u32 = 0o600;

/// Where verdicts are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionFileOptions {
    /// The file that is written; older ones are beside it with `.1`, `.2` and so on, the newest being `.1`.
    pub path: PathBuf,
    /// The most bytes of one file. A line is never cut, and one that is longer has a file for itself.
    pub max_size: u64,
    /// How many older files are kept.
    pub keep: u32,
}

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something else is at its path.
    #[error("`{}` is no regular file: name one that does not exist yet, or one that svidecar made", .0.display())]
    NoFile(PathBuf),
    /// The system says no.
    #[error(
        "cannot write `{}`: {error}: its folder must exist, and our user must be allowed to make files in it",
        path.display()
    )]
    System {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A file that was opened and has no thread yet.
#[derive(Debug)]
pub struct OpenedDecisionFile(Writer);

/// What the thread is sent.
#[derive(Debug)]
enum Message {
    Verdict(Arc<Decision>),
    /// Wakes it, to see that it is over.
    End,
}

/// The queue to the thread that writes.
#[derive(Debug)]
pub struct DecisionFile {
    queue: SyncSender<Message>,
    dropped: Counter,
}

/// Keeps the thread; dropping it writes what still waits, for a second at most.
#[derive(Debug)]
#[must_use = "dropping the guard ends the file"]
pub struct DecisionFileGuard {
    queue: SyncSender<Message>,
    end: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl DecisionFile {
    /// Opens the file, and starts no thread.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: DecisionFileOptions) -> Result<OpenedDecisionFile, OpenError> {
        let mut writer = Writer {
            options,
            file: None,
            size: 0,
            whole: true,
            full: false,
            buffer: Vec::new(),
            buffered: 0,
            lost: None,
            looked: Instant::now(),
            dropped: Counter::default(),
        };
        writer.open()?;
        Ok(OpenedDecisionFile(writer))
    }

    /// Queues a verdict; one that finds the queue full is counted and gone.
    pub(super) fn record(&self, decision: &Arc<Decision>) {
        if self
            .queue
            .try_send(Message::Verdict(Arc::clone(decision)))
            .is_err()
        {
            self.dropped.inc();
        }
    }

    /// How many did not reach the file.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

impl OpenedDecisionFile {
    /// Starts the thread that writes. What does not reach the file is counted in `dropped`.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(self, dropped: Counter) -> io::Result<(DecisionFile, DecisionFileGuard)> {
        let mut writer = self.0;
        writer.dropped = dropped.clone();
        let (queue, verdicts) = mpsc::sync_channel(QUEUE);
        let (ending, ended) = mpsc::channel();
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        std::thread::Builder::new()
            .name("svidecar-record".to_owned())
            .spawn(move || {
                writer.run(&verdicts, &told);
                // Nobody may wait for it any more.
                let _ = ending.send(());
            })?;
        let guard = DecisionFileGuard {
            queue: queue.clone(),
            end,
            ended,
        };
        Ok((DecisionFile { queue, dropped }, guard))
    }
}

impl Drop for DecisionFileGuard {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        // Finds no room only while the thread is at work, and then it looks by itself.
        let _ = self.queue.try_send(Message::End);
        let _ = self.ended.recv_timeout(END);
    }
}

/// The thread's side.
#[derive(Debug)]
struct Writer {
    options: DecisionFileOptions,
    /// Absent after an error, until it can be opened again.
    file: Option<File>,
    /// Bytes in the file.
    size: u64,
    /// Whether the file ends with a whole line.
    whole: bool,
    /// Whether the next line belongs into a new one.
    full: bool,
    buffer: Vec<u8>,
    /// The lines in the buffer.
    buffered: u64,
    /// While writing fails: how many were lost since.
    lost: Option<u64>,
    looked: Instant,
    dropped: Counter,
}

impl Writer {
    fn run(&mut self, messages: &Receiver<Message>, end: &AtomicBool) {
        while !end.load(Ordering::Acquire) {
            let Ok(first) = messages.recv() else { break };
            self.take(first);
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            self.flush();
        }
        while let Ok(message) = messages.try_recv() {
            self.take(message);
        }
        self.flush();
    }

    /// Adds a line to the buffer, and writes that when it is full or the file is.
    fn take(&mut self, message: Message) {
        let Message::Verdict(decision) = message else {
            return;
        };
        // Neither turning it into JSON nor writing to memory can fail.
        let mut line = serde_json::to_vec(&*decision).unwrap_or_default();
        line.push(b'\n');
        let before = if self.full { 0 } else { self.size };
        let before = before.saturating_add(as_u64(self.buffer.len()));
        if before > 0 && before.saturating_add(as_u64(line.len())) > self.options.max_size {
            self.flush();
            self.full = true;
        }
        self.buffer.extend_from_slice(&line);
        self.buffered += 1;
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.ensure_open().and_then(|()| self.write());
        self.settle(written.map_err(|e| e.to_string()));
        self.buffer.clear();
        self.buffered = 0;
    }

    fn write(&mut self) -> Result<(), OpenError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let result = if self.whole { Ok(()) } else { file.write_all(b"\n") };
        match result.and_then(|()| file.write_all(&self.buffer)) {
            Ok(()) => {
                self.size += as_u64(self.buffer.len()) + u64::from(!self.whole);
                self.whole = true;
                Ok(())
            }
            Err(error) => {
                // What was half written is taken back; where that fails too, a line feed parts it from what comes.
                self.whole &= file.set_len(self.size).is_ok();
                self.file = None;
                Err(self.system(error))
            }
        }
    }

    /// Says that writing fails, once, and that it works again.
    fn settle(&mut self, result: Result<(), String>) {
        let path = self.options.path.display();
        match (result, self.lost) {
            (Ok(()), None) => {}
            (Ok(()), Some(lost)) => {
                self.lost = None;
                tracing::warn!(%path, lost, "verdicts are written to their file again");
            }
            (Err(error), lost) => {
                if lost.is_none() {
                    tracing::error!(%path, error, "verdicts cannot be written to their file; they are counted as dropped until they can");
                }
                self.dropped.inc_by(self.buffered);
                self.lost = Some(lost.unwrap_or(0) + self.buffered);
            }
        }
    }

    /// Moves the file to `.1`, that to `.2` and so on.
    fn move_on(&self) -> io::Result<()> {
        let absent_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let path = &self.options.path;
        for number in (1..self.options.keep).rev() {
            absent_is_fine(fs::rename(older(path, number), older(path, number + 1)))?;
        }
        if self.options.keep == 0 {
            absent_is_fine(fs::remove_file(path))
        } else {
            absent_is_fine(fs::rename(path, older(path, 1)))
        }
    }

    /// Opens the file where it is not open, or where somebody has moved it away.
    fn ensure_open(&mut self) -> Result<(), OpenError> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let opened = self.file.as_ref().and_then(|file| file.metadata().ok());
            let there = fs::symlink_metadata(&self.options.path).ok();
            let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
            if opened.map(place) != there.map(place) {
                self.file = None;
            }
        }
        if self.file.is_none() {
            self.open()?;
        }
        // While that fails nothing is written: the bound holds.
        if self.full && self.size > 0 {
            self.move_on().map_err(|error| self.system(error))?;
            self.open()?;
        }
        self.full = false;
        Ok(())
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let path = self.options.path.clone();
        // Asked before opening: to open a pipe waits for its reader.
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Err(OpenError::NoFile(path));
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(MODE);
        let opened = options.open(&path).and_then(|mut file| {
            file.set_permissions(Permissions::from_mode(MODE))?;
            let size = file.metadata()?.len();
            let whole = size == 0 || ends_with_line_feed(&mut file)?;
            Ok((file, size, whole))
        });
        let (file, size, whole) = opened.map_err(|error| self.system(error))?;
        (self.file, self.size, self.whole) = (Some(file), size, whole);
        Ok(())
    }

    fn system(&self, error: io::Error) -> OpenError {
        OpenError::System {
            path: self.options.path.clone(),
            error,
        }
    }
}

/// A process that died while it wrote leaves a line without an end.
fn ends_with_line_feed(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn older(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
