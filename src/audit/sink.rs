//! Sends the log on: to a collector that speaks OTLP, and whatever else will come beside it.
//!
//! The log's files are the queue. A sink reads them from where it stopped ([`reader`]), sends some entries, and when they are
//! taken notes how far it is, in a small file beside the log. So an entry is sent at least once, after a crash perhaps twice;
//! `seq` tells which ones are the same. A sink that takes nothing holds nobody back: what is asked of the log's writer is
//! nothing at all, and the files wait as long as `audit.keep` keeps them. What was removed before it was sent is counted.

mod otlp;
mod reader;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::queue::AuditLog;
use super::segment;
use crate::config::settings::AuditSink;
use crate::telemetry::metrics::{AuditSinkMetrics, Exports};
use crate::telemetry::otlp::Stage;
use otlp::ToCollector;
use reader::Reader;

pub(super) use reader::Line;

/// How soon the files are read again after that failed.
const RETRY: Duration = Duration::from_secs(1);
/// For so long a sink may be at one request before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far a sink is.
#[derive(Clone, Debug)]
pub struct SinkStatus {
    /// Its name in the settings.
    pub name: Arc<str>,
    /// Entries that are written and not sent.
    pub lag: u64,
    /// What keeps it, if something does.
    pub problem: Option<String>,
}

/// A sink as others see it.
#[derive(Clone, Debug)]
pub struct SinkHandle(Arc<Mutex<Progress>>, AuditLog);

#[derive(Debug)]
struct Progress {
    name: Arc<str>,
    /// The next entry to send.
    next: u64,
    /// Since when it is at one request.
    sending: Option<Instant>,
    problem: Option<String>,
}

impl SinkHandle {
    /// How far it is.
    #[must_use]
    pub fn status(&self) -> SinkStatus {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = progress.sending.filter(|since| since.elapsed() >= PATIENCE);
        let stuck = stuck.map(|since| format!("nothing was taken for {} s", since.elapsed().as_secs()));
        SinkStatus {
            name: Arc::clone(&progress.name),
            lag: self.1.next().saturating_sub(progress.next),
            problem: progress.problem.clone().or(stuck),
        }
    }
}

/// A sink that was made and does not run yet.
#[derive(Debug)]
pub struct Sink {
    to: ToCollector,
    log: AuditLog,
    path: PathBuf,
    cursor: PathBuf,
    metrics: AuditSinkMetrics,
    handle: SinkHandle,
}

impl Sink {
    /// The sink of these settings for the log at `path`.
    #[must_use]
    pub fn new(
        settings: &AuditSink,
        path: &Path,
        log: &AuditLog,
        metrics: AuditSinkMetrics,
        exports: Exports,
    ) -> Self {
        let cursor = segment::beside(path, &format!("sink.{}", settings.name));
        let progress = Progress {
            name: settings.name.clone(),
            next: read_cursor(&cursor).unwrap_or(0),
            sending: None,
            problem: None,
        };
        Self {
            to: ToCollector::new(settings.otlp.clone(), exports),
            log: log.clone(),
            path: path.to_owned(),
            cursor,
            metrics,
            handle: SinkHandle(Arc::new(Mutex::new(progress)), log.clone()),
        }
    }

    /// What others see of it.
    #[must_use]
    pub fn handle(&self) -> SinkHandle {
        self.handle.clone()
    }

    /// Sends what there is and what comes, until the process ends. `process` is the number that tells it from others.
    pub async fn run(mut self, process: u64, mut stage: watch::Receiver<Stage>) {
        let mut grown = self.log.grown();
        let mut reader = Reader::new(self.path.clone(), self.progress(|progress| progress.next));
        loop {
            self.metrics
                .lag
                .set(i64::try_from(self.handle.status().lag).unwrap_or(i64::MAX));
            let (given_back, read) = match read(reader).await {
                Ok(read) => read,
                // A panic, which is in the log: from the files anew.
                Err(_) => (
                    Reader::new(self.path.clone(), self.progress(|progress| progress.next)),
                    Err(io::Error::other("reading failed")),
                ),
            };
            reader = given_back;
            let batch = match read {
                Ok(batch) => batch,
                Err(error) => {
                    let why = format!("the log cannot be read: {error}");
                    if self.progress(|progress| progress.problem.replace(why)).is_none() {
                        tracing::warn!(sink = %self.name(), %error, "the audit log cannot be read to be sent on");
                    }
                    if paused(RETRY, &mut stage).await {
                        return;
                    }
                    continue;
                }
            };
            self.progress(|progress| progress.problem = None);
            if batch.missing > 0 {
                tracing::warn!(
                    sink = %self.name(), lost = batch.missing,
                    "entries of the audit log were removed before they could be sent on"
                );
                self.metrics.lost.inc_by(batch.missing);
            }
            if batch.lines.is_empty() {
                self.advance(batch.next);
                if !self.wait(&mut grown, &mut stage).await {
                    return;
                }
                continue;
            }
            self.progress(|progress| progress.sending = Some(Instant::now()));
            let sent = self
                .to
                .send(&batch.lines, process, Stage::reached(&mut stage, Stage::Ending))
                .await;
            self.progress(|progress| progress.sending = None);
            let Some(rejected) = sent else { return };
            self.metrics.lost.inc_by(rejected);
            self.advance(batch.next);
        }
    }

    /// Waits, with all that there is sent, for more; whether there will be.
    async fn wait(&mut self, grown: &mut watch::Receiver<u64>, stage: &mut watch::Receiver<Stage>) -> bool {
        loop {
            let now = *stage.borrow();
            let next = match now {
                Stage::Running => Stage::Leaving,
                Stage::Leaving => {
                    // A drain may be waiting for it, where the collector is behind a listener of our own.
                    self.to.disconnect().await;
                    Stage::Ending
                }
                Stage::Ending => return false,
            };
            tokio::select! {
                changed = grown.changed() => return changed.is_ok(),
                () = Stage::reached(stage, next) => {}
            }
        }
    }

    fn name(&self) -> Arc<str> {
        self.progress(|progress| progress.name.clone())
    }

    fn progress<T>(&self, with: impl FnOnce(&mut Progress) -> T) -> T {
        with(&mut self.handle.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything up to here is sent.
    fn advance(&self, next: u64) {
        let before = self.progress(|progress| std::mem::replace(&mut progress.next, next));
        if before != next
            && let Err(error) = write_cursor(&self.cursor, next)
        {
            // They are sent once more after a restart.
            tracing::warn!(path = %self.cursor.display(), %error, "how far the audit log was sent on cannot be noted");
        }
    }
}

/// A batch of lines, off the thread that also hears signals.
async fn read(mut reader: Reader) -> Result<(Reader, io::Result<reader::Batch>), tokio::task::JoinError> {
    tokio::task::spawn_blocking(move || {
        let batch = reader.batch();
        (reader, batch)
    })
    .await
}

/// Lets time pass; whether the process ends meanwhile.
async fn paused(time: Duration, stage: &mut watch::Receiver<Stage>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => false,
        () = Stage::reached(stage, Stage::Ending) => true,
    }
}

/// The number of the next entry to send, as it was noted.
fn read_cursor(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whole, or not at all. Not confirmed by the disk: what is lost of it makes entries be sent twice.
fn write_cursor(path: &Path, next: u64) -> io::Result<()> {
    let temporary = segment::beside(path, "tmp");
    fs::write(&temporary, format!("{next}\n"))?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests;
