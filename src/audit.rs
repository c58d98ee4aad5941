//! The audit log: who asked for what, what was said and why, in a file that shows when somebody has changed it.
//!
//! **What there is.** One JSON object a line ([`crate::record::audit::Entry`]), appended to one file, the active segment.
//! Each line carries the SHA-256 of the line before it ([`chain`]), through all segments and all processes that wrote
//! them. From time to time a checkpoint, an entry of its own, signs the line before it with the SVID's key
//! ([`checkpoint`]). When the active segment is large or old enough it is renamed after the number of its first entry,
//! compressed, and in the end removed ([`segment`], [`tend`]).
//!
//! **What it shows.** Whoever edits, inserts, removes or reorders lines breaks the chain; who makes the chain anew cannot
//! make the signatures anew without the SVID's key. Not more: who holds the pod's identity can sign, and a log whose end was
//! cut off shows that only against a hash that was kept elsewhere (`svidecar_audit_head_hash`, `audit verify --head`).
//!
//! **Who writes.** One thread ([`writer`]), behind a bounded queue ([`queue`]). It takes what waits, writes it with one call
//! and, as `audit.sync` says, has it written to the disk before it answers: a group commit. Who gives a verdict waits for
//! nobody, unless it lets somebody in and `sync` is `always`: then for that answer.
//!
//! During an upgrade two processes do, an old sidecar that drains and the new one, in turn ([`turn`]), so that there is one chain.
//!
//! **Who sends it on.** Sinks ([`sink`]) read the files and remember how far they are; the writer knows nothing of them.
//!
//! **What can fail.** The disk: what could not be written stays in the writer's hands, what comes meanwhile in the queue, and
//! what that has no room for is counted and becomes an entry of its own (`gap`) as soon as writing works again. Meanwhile
//! `on_failure: deny` lets nobody in. A crash: a line without its end is taken away at the next start, kept beside the
//! log, and noted (`repair`). Redaction ([`crate::redaction`]) comes before everything: what it takes away never reaches the
//! writer's buffer.

mod chain;
mod checkpoint;
mod look;
mod queue;
mod segment;
mod sink;
mod tend;
mod turn;
pub mod verify;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use chain::{Hash, NoHash};
pub use checkpoint::Signer;
pub use look::look;
pub use queue::{AuditGuard, AuditLog, Status};
pub use sink::{Sink, SinkHandle, SinkStatus};

use arc_swap::ArcSwap;

use crate::clock::SharedClock;
use crate::config::settings;
use crate::record::DecisionIds;
use crate::redaction::Redactor;
use crate::telemetry::metrics::AuditMetrics;
use writer::Writer;

/// Why the audit log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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
    /// Another process writes to it: two that know nothing of each other would break the chain.
    #[error("`{}` is written by another process: each sidecar needs an audit log of its own", .0.display())]
    InUse(PathBuf),
    /// The other process that shares the log writes to it without an end.
    #[error(
        "`{}` is held by an older sidecar of the same supervisor, in the midst of a write: its disk fails it, or it is \
         stopped. See the log of the older one (`svidecar_audit_failing`), mend the disk or end that process, and try again",
        .0.display()
    )]
    OthersTurn(PathBuf),
    /// What is there is no audit log.
    #[error(
        "`{}` holds no audit log ({why}): nothing is written to it. Move it away, or name another file", path.display()
    )]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
}

/// A log that was opened, and has no thread yet.
#[derive(Debug)]
pub struct OpenedAudit {
    settings: settings::Audit,
    opened: segment::Opened,
}

/// The right to write the log, for a supervisor to hold and to hand to its children.
#[derive(Debug)]
pub struct Lock(pub File);

impl Lock {
    /// Takes it; it is given back when the last copy of the descriptor is closed.
    ///
    /// # Errors
    /// [`OpenError::InUse`] where another process holds it, or the system's.
    pub fn take(settings: &settings::Audit) -> Result<Self, OpenError> {
        turn::lock(&settings.path).map(Self)
    }
}
/// Where each listener's connections go, by the listener's name. Another config may say it otherwise.
pub type Upstreams = Arc<ArcSwap<HashMap<Arc<str>, Arc<str>>>>;

/// What the log's entries say beside what happened.
#[derive(Debug)]
pub struct Surroundings {
    /// The host's name.
    pub host: Arc<str>,
    /// Where each listener's connections go.
    pub upstreams: Upstreams,
    /// Gives ids to entries of the log itself.
    pub ids: Arc<DecisionIds>,
    /// The time of day.
    pub clock: SharedClock,
    /// What is counted.
    pub metrics: AuditMetrics,
    /// Whether connections have traces, whose ids entries then name.
    pub traced: bool,
    /// Takes out what must not leave.
    pub redactor: Option<Arc<Redactor>>,
}

/// Opens the log, and starts no thread. With a `lock` that was handed over, the log is shared with all who hold it ([`turn`]).
///
/// # Errors
/// See [`OpenError`].
pub fn open(settings: &settings::Audit, lock: Option<Lock>) -> Result<OpenedAudit, OpenError> {
    let mut opened = segment::open(&settings.path, lock.map(|lock| lock.0))?;
    opened.turn.give();
    Ok(OpenedAudit {
        settings: settings.clone(),
        opened,
    })
}

impl OpenedAudit {
    /// Mends the log's end where a crash has torn it, and starts the thread that writes.
    ///
    /// # Errors
    /// When the end cannot be mended, or the system has no thread.
    pub fn start(mut self, surroundings: Surroundings) -> io::Result<(AuditLog, AuditGuard)> {
        let (log, guard, shared) = queue::new(&self.settings, surroundings.metrics.lost.clone());
        let torn = self.opened.mend(&self.settings.path)?;
        let writer = Writer::new(self.settings, self.opened, torn, surroundings, shared);
        std::thread::Builder::new()
            .name("svidecar-audit".to_owned())
            .spawn(move || writer.run())?;
        Ok((log, guard))
    }
}

#[cfg(test)]
mod tests;
