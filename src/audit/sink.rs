//! Sends the log on: to a collector that speaks OTLP, and whatever else will come beside it.
//!
//! The log's files are the queue. A sink reads them from where it stopped ([`reader`]), sends some entries, and when they are
//! taken notes how far it is, in a small file beside the log. So an entry is sent at least once, after a crash perhaps twice, or
//! when an old process ends in the midst of a request and a new one goes on;
//! `seq` tells which ones are the same. A sink that takes nothing holds nobody back: what is asked of the log's writer is
//! nothing at all, and the files wait as long as `audit.keep` keeps them. Lost is only what was removed before it was sent,
//! and what a collector that takes others says is bad; it is counted.
//!
//! Where the disk confirms entries (`audit.sync`), none is sent before: a collector never has one that a crash can take
//! from the log. If the log is not the one that was sent so far (moved away, or cut by a crash of the machine), all of it
//! is sent.
//!
//! Of two processes that share the log one sends to a sink: a lock on a file beside that note says which. The other waits for
//! it, and goes on where the first one was.

mod cursor;
mod otlp;
mod reader;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::chain::Head;
use super::queue::AuditLog;
use super::{OpenError, segment, turn};
use crate::config::settings::{self, AuditSink, AuditSync};
use crate::telemetry::metrics::{AuditSinkMetrics, Exports};
use crate::telemetry::otlp::Stage;
use otlp::ToCollector;
use reader::{Batch, Reader};

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
pub struct SinkHandle {
    name: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    log: AuditLog,
    /// Why the collector takes nothing.
    trouble: watch::Receiver<Option<Arc<str>>>,
}

#[derive(Debug)]
struct Progress {
    /// Where to go on: `None` at the oldest entry.
    head: Option<Head>,
    /// Since when it is at one request.
    sending: Option<Instant>,
    problem: Option<String>,
}

impl SinkHandle {
    /// How far it is.
    #[must_use]
    pub fn status(&self) -> SinkStatus {
        let trouble = self.trouble.borrow().as_deref().map(str::to_owned);
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = progress.sending.filter(|since| since.elapsed() >= PATIENCE);
        let stuck = stuck.map(|since| format!("nothing was taken for {} s", since.elapsed().as_secs()));
        SinkStatus {
            name: Arc::clone(&self.name),
            lag: self
                .log
                .next()
                .saturating_sub(progress.head.map_or(0, |head| head.next)),
            problem: progress.problem.clone().or(trouble).or(stuck),
        }
    }

    fn update<T>(&self, with: impl FnOnce(&mut Progress) -> T) -> T {
        with(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A sink that was made and does not run yet.
#[derive(Debug)]
pub struct Sink {
    to: ToCollector,
    log: AuditLog,
    path: PathBuf,
    cursor: PathBuf,
    sync: AuditSync,
    /// How soon to look whether the disk has confirmed more.
    confirmed_every: Duration,
    metrics: AuditSinkMetrics,
    handle: SinkHandle,
}

impl Sink {
    /// The sink of these settings for the log of those.
    #[must_use]
    pub fn new(
        settings: &AuditSink,
        audit: &settings::Audit,
        log: &AuditLog,
        metrics: AuditSinkMetrics,
        exports: Exports,
    ) -> Self {
        let cursor = segment::beside(&audit.path, &format!("sink.{}", settings.name));
        let progress = Progress {
            head: cursor::read(&cursor),
            sending: None,
            problem: None,
        };
        let to = ToCollector::new(settings.otlp.clone(), exports);
        Self {
            handle: SinkHandle {
                name: Arc::clone(&settings.name),
                progress: Arc::new(Mutex::new(progress)),
                log: log.clone(),
                trouble: to.trouble(),
            },
            to,
            log: log.clone(),
            path: audit.path.clone(),
            cursor,
            sync: audit.sync,
            confirmed_every: audit.sync_interval / 4,
            metrics,
        }
    }

    /// What others see of it.
    #[must_use]
    pub fn handle(&self) -> SinkHandle {
        self.handle.clone()
    }

    /// Sends what there is and what comes; at the end of the process what is written by then. `process` is the number that
    /// tells it from others.
    pub async fn run(mut self, process: u64, mut stage: watch::Receiver<Stage>) {
        let Some(_ours) = self.begin(&mut stage).await else {
            return;
        };
        let mut grown = self.log.grown();
        let mut reader = self.reader();
        loop {
            self.show_lag();
            // Seen before reading: what is written when the end begins is read.
            let ending = *stage.borrow() == Stage::Ending;
            let end = self.end();
            let (given_back, read) = match read(reader, end).await {
                Ok(read) => read,
                // A panic, which is in the log: from the files anew.
                Err(_) => (self.reader(), Err(io::Error::other("reading failed"))),
            };
            reader = given_back;
            let batch = match read {
                Ok(batch) => batch,
                Err(error) => {
                    let why = format!("the log cannot be read: {error}");
                    if self.handle.update(|it| it.problem.replace(why)).is_none() {
                        tracing::warn!(sink = %self.handle.name, %error, "the audit log cannot be read to be sent on");
                    }
                    if paused(RETRY, &mut stage).await {
                        return;
                    }
                    continue;
                }
            };
            self.handle.update(|it| it.problem = None);
            self.say(&batch);
            if batch.lines.is_empty() {
                let confirmed = self.log.next() <= end;
                if ending && confirmed {
                    return;
                }
                if !self.wait(confirmed, &mut grown, &mut stage).await {
                    return;
                }
            } else if !self.send(&batch, process, &mut grown, &mut stage).await {
                return;
            }
        }
    }

    /// Waits until no other process sends to this sink, and finds where to go on. What it returns is to be held for as long
    /// as entries are sent; `None` where the process ends before.
    async fn begin(&mut self, stage: &mut watch::Receiver<Stage>) -> Option<File> {
        let mut said = false;
        let ours = loop {
            match turn::lock(&self.cursor) {
                Ok(ours) => break ours,
                Err(OpenError::InUse(_)) if !said => {
                    said = true;
                    tracing::info!(sink = %self.handle.name, "another process still sends the audit log on; waiting for it");
                }
                Err(OpenError::InUse(_)) => {}
                Err(error) => {
                    let why = error.to_string();
                    if self.handle.update(|it| it.problem.replace(why)).is_none() {
                        tracing::warn!(sink = %self.handle.name, %error, "the audit log cannot be sent on");
                    }
                }
            }
            self.show_lag();
            if paused(RETRY, stage).await {
                return None;
            }
        };
        let head = cursor::read(&self.cursor);
        self.handle.update(|it| it.head = head);
        Some(ours)
    }

    /// Says what is to be known of what was read.
    fn say(&self, batch: &Batch) {
        let sink = &self.handle.name;
        if let Some(why) = batch.anew {
            self.handle.update(|it| it.head = None);
            tracing::warn!(%sink, "the audit log is sent on again from its oldest entry: {why}");
        }
        if batch.missing > 0 {
            tracing::warn!(
                %sink, lost = batch.missing,
                "entries of the audit log were removed before they could be sent on"
            );
            self.metrics.lost.inc_by(batch.missing);
        }
    }

    /// Sends a batch, piece by piece, and notes how far it is after each; whether it came to its end before the process.
    async fn send(
        &mut self,
        batch: &Batch,
        process: u64,
        grown: &mut watch::Receiver<u64>,
        stage: &mut watch::Receiver<Stage>,
    ) -> bool {
        let mut lines = batch.lines.as_slice();
        while !lines.is_empty() {
            self.handle.update(|it| it.sending = Some(Instant::now()));
            let sent = {
                let ending = Stage::reached(stage, Stage::Ending);
                let sending = self.to.send(lines, process, ending);
                tokio::pin!(sending);
                loop {
                    tokio::select! {
                        sent = &mut sending => break sent,
                        // It may take for ever, and the lag grows meanwhile.
                        Ok(()) = grown.changed() => show_lag(&self.metrics, &self.handle),
                    }
                }
            };
            self.handle.update(|it| it.sending = None);
            let Some(sent) = sent else { return false };
            let (done, left) = lines.split_at_checked(sent.lines).unwrap_or((lines, &[]));
            lines = left;
            if let (Some(first), Some(last)) = (done.first(), done.last()) {
                if sent.lost > 0 {
                    tracing::warn!(
                        sink = %self.handle.name, lost = sent.lost, from_seq = first.seq, to_seq = last.seq,
                        "the collector will not take entries of the audit log; they are in the log alone"
                    );
                    self.metrics.lost.inc_by(sent.lost);
                }
                self.advance(last.head());
            }
        }
        true
    }

    /// Waits, with all sent that can be, for more; whether there will be. What is written and not `confirmed` comes by itself.
    async fn wait(
        &mut self,
        confirmed: bool,
        grown: &mut watch::Receiver<u64>,
        stage: &mut watch::Receiver<Stage>,
    ) -> bool {
        loop {
            let now = *stage.borrow();
            let next = match now {
                Stage::Running => Stage::Leaving,
                Stage::Leaving => {
                    // A drain may be waiting for it, where the collector is behind a listener of our own.
                    self.to.disconnect().await;
                    Stage::Ending
                }
                Stage::Ending if confirmed => return true,
                Stage::Ending => {
                    tokio::time::sleep(self.confirmed_every).await;
                    return true;
                }
            };
            tokio::select! {
                changed = grown.changed() => return changed.is_ok(),
                () = tokio::time::sleep(self.confirmed_every), if !confirmed => return true,
                () = Stage::reached(stage, next) => {}
            }
        }
    }

    /// The number of the first entry that must not be sent yet.
    fn end(&self) -> u64 {
        let written = self.log.next();
        match self.sync {
            AuditSync::Os => written,
            AuditSync::Interval | AuditSync::Always => {
                let durable = self.log.status().durable;
                durable
                    .map_or(0, |durable| durable.saturating_add(1))
                    .min(written)
            }
        }
    }

    /// Reads from where the sink is.
    fn reader(&self) -> Reader {
        Reader::new(self.path.clone(), self.handle.update(|it| it.head))
    }

    fn show_lag(&self) {
        show_lag(&self.metrics, &self.handle);
    }

    /// Everything up to here is done with.
    fn advance(&self, head: Head) {
        self.handle.update(|it| it.head = Some(head));
        self.show_lag();
        if let Err(error) = cursor::write(&self.cursor, &head) {
            // They are sent once more after a restart.
            tracing::warn!(path = %self.cursor.display(), %error, "how far the audit log was sent on cannot be noted");
        }
    }
}

fn show_lag(metrics: &AuditSinkMetrics, handle: &SinkHandle) {
    metrics
        .lag
        .set(i64::try_from(handle.status().lag).unwrap_or(i64::MAX));
}

/// A batch of lines, off the thread that also hears signals. Nothing is looked at before anything may be sent.
async fn read(mut reader: Reader, end: u64) -> Result<(Reader, io::Result<Batch>), tokio::task::JoinError> {
    if end == 0 {
        return Ok((reader, Ok(Batch::default())));
    }
    tokio::task::spawn_blocking(move || {
        let batch = reader.batch(end);
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

#[cfg(test)]
mod tests;
