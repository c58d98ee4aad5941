//! Lines that a thread of their own writes, to a file that is rotated by size or to standard output.
//!
//! Owns the queue, the thread, and what is lost. Promises that whoever has something to write waits for nobody: what finds the
//! queue full is dropped and counted, and so is what cannot be written. It becomes text on the thread alone.

mod file;
mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use file::RotatedFile;
use stream::Stream;

/// What waits for a slow disk or reader before more is dropped.
const QUEUE: usize = 8192;
/// What is written at once.
const BATCH: usize = 64 * 1024;
/// How long the first of several waits for the others: to be woken costs more than to write a line.
const GATHER: Duration = Duration::from_millis(20);
/// For what still waits when the process ends.
const END: Duration = Duration::from_secs(1);

/// Where lines are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file of our own.
    File(FileOptions),
    /// Standard output.
    Stdout,
}

/// A file that is rotated by size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The file that is written; older ones are beside it with `.1`, `.2` and so on, the newest being `.1`.
    pub path: PathBuf,
    /// The most bytes of one file. A line is never cut, and one that is longer has a file for itself.
    pub max_size: u64,
    /// How many older files are kept.
    pub keep: u32,
}

/// Why lines cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something else is at the file's path.
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
    /// Standard output is closed, or whoever reads it is gone.
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
}

/// What lines are made of, and how: adds one line with its line feed. Runs on the writer's thread.
pub type Render<T> = Box<dyn FnMut(&T, &mut Vec<u8>) + Send>;

/// A destination that was opened and has no thread yet.
#[derive(Debug)]
pub struct Opened(Target);

/// What the thread is sent.
#[derive(Debug)]
enum Message<T> {
    Item(T),
    /// Wakes it, to see that it is over.
    End,
}

/// The queue to the thread that writes.
#[derive(Debug)]
pub struct Lines<T> {
    queue: SyncSender<Message<T>>,
    dropped: Counter,
}

/// Keeps the thread; dropping it writes what still waits, for a second at most.
#[derive(Debug)]
#[must_use = "dropping the guard ends the writing"]
pub struct LinesGuard<T> {
    queue: SyncSender<Message<T>>,
    end: Arc<AtomicBool>,
    ended: Receiver<()>,
}

/// Opens the destination, and starts no thread.
///
/// # Errors
/// See [`OpenError`].
pub fn open(destination: Destination) -> Result<Opened, OpenError> {
    Ok(Opened(match destination {
        Destination::File(options) => Target::File(RotatedFile::open(options)?),
        Destination::Stdout => Target::Stream(Stream::stdout().map_err(OpenError::Stdout)?),
    }))
}

impl Opened {
    /// Starts the thread that writes. `what` says in the log what the lines are; those that are not written are counted in
    /// `dropped`.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start<T: Send + 'static>(
        self,
        what: &'static str,
        dropped: Counter,
        render: Render<T>,
    ) -> io::Result<(Lines<T>, LinesGuard<T>)> {
        let mut writer = Writer::new(self.0, what, dropped.clone(), render);
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let (ending, ended) = mpsc::channel();
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        std::thread::Builder::new()
            .name("svidecar-lines".to_owned())
            .spawn(move || {
                writer.run(&messages, &told);
                // Nobody may wait for it any more.
                let _ = ending.send(());
            })?;
        let guard = LinesGuard {
            queue: queue.clone(),
            end,
            ended,
        };
        Ok((Lines { queue, dropped }, guard))
    }
}

impl<T> Lines<T> {
    /// Queues what will be a line; where the queue is full it is counted and gone.
    pub fn push(&self, item: T) {
        if self.queue.try_send(Message::Item(item)).is_err() {
            self.dropped.inc();
        }
    }

    /// How many were not written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

impl<T> Drop for LinesGuard<T> {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        // Finds no room only while the thread is at work, and then it looks by itself.
        let _ = self.queue.try_send(Message::End);
        let _ = self.ended.recv_timeout(END);
    }
}

/// What the thread writes to.
#[derive(Debug)]
enum Target {
    File(RotatedFile),
    Stream(Stream),
}

impl Target {
    /// Whether a line of this length belongs into a new file, where so many bytes wait to be written to this one.
    fn parts_before(&self, waiting: u64, line: u64) -> bool {
        match self {
            Self::File(file) => file.parts_before(waiting, line),
            Self::Stream(_) => false,
        }
    }

    /// What is written next goes into a new file.
    fn part(&mut self) {
        if let Self::File(file) = self {
            file.part();
        }
    }

    /// Writes whole lines, or none as far as that is in our hands.
    fn write(&mut self, lines: &[u8]) -> Result<(), OpenError> {
        match self {
            Self::File(file) => file.write(lines),
            Self::Stream(stream) => stream.write(lines).map_err(OpenError::Stdout),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(file) => file.path().display().to_string(),
            Self::Stream(_) => "standard output".to_owned(),
        }
    }
}

/// The thread's side.
struct Writer<T> {
    target: Target,
    what: &'static str,
    render: Render<T>,
    buffer: Vec<u8>,
    /// The lines in the buffer.
    buffered: u64,
    /// While writing fails: how many were lost since.
    lost: Option<u64>,
    dropped: Counter,
}

impl<T> Writer<T> {
    fn new(target: Target, what: &'static str, dropped: Counter, render: Render<T>) -> Self {
        Self {
            target,
            what,
            render,
            buffer: Vec::new(),
            buffered: 0,
            lost: None,
            dropped,
        }
    }

    fn run(&mut self, messages: &Receiver<Message<T>>, end: &AtomicBool) {
        while !end.load(Ordering::Acquire) {
            let Ok(first) = messages.recv() else { break };
            let ends = matches!(first, Message::End);
            self.take(first);
            if !ends {
                std::thread::sleep(GATHER);
            }
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
    fn take(&mut self, message: Message<T>) {
        let Message::Item(item) = message else {
            return;
        };
        let waiting = self.buffer.len();
        (self.render)(&item, &mut self.buffer);
        let line = as_u64(self.buffer.len().saturating_sub(waiting));
        if self.target.parts_before(as_u64(waiting), line) {
            let line = self.buffer.split_off(waiting);
            self.flush();
            self.target.part();
            self.buffer.extend_from_slice(&line);
        }
        self.buffered += 1;
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.target.write(&self.buffer);
        self.settle(written.map_err(|e| e.to_string()));
        self.buffer.clear();
        self.buffered = 0;
    }

    /// Says that writing fails, once, and that it works again.
    fn settle(&mut self, result: Result<(), String>) {
        let (what, to) = (self.what, self.target.name());
        match (result, self.lost) {
            (Ok(()), None) => {}
            (Ok(()), Some(lost)) => {
                self.lost = None;
                tracing::warn!(to, lost, "{what} are written again");
            }
            (Err(error), lost) => {
                if lost.is_none() {
                    tracing::error!(
                        to,
                        error,
                        "{what} cannot be written; they are counted as dropped until they can"
                    );
                }
                self.dropped.inc_by(self.buffered);
                self.lost = Some(lost.unwrap_or(0) + self.buffered);
            }
        }
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
