//! The audit log's settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Otlp;

/// The audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The file that is written. Older ones are beside it, named after their first entry.
    pub path: PathBuf,
    /// What happens to new connections while it cannot be written.
    pub on_failure: OnAuditFailure,
    /// When the disk must have confirmed an entry.
    pub sync: AuditSync,
    /// With [`AuditSync::Interval`]: how long the disk may take.
    pub sync_interval: Duration,
    /// A file as large as this is the last one's end: the next begins.
    pub max_size: u64,
    /// Likewise one as old as this.
    pub max_age: Duration,
    /// How many older files are kept.
    pub keep: u32,
    /// How long older files are kept; as long as `keep` allows where it is not said.
    pub keep_for: Option<Duration>,
    /// Whether older files are compressed.
    pub compress: bool,
    /// How often the log is signed, where there is something new to sign.
    pub checkpoint_every: Duration,
    /// Where it is sent on to.
    pub sinks: Vec<AuditSink>,
}

/// Somebody whom the audit log is sent on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSink {
    /// Its name, unique among them.
    pub name: Arc<str>,
    /// The collector.
    pub otlp: Otlp,
}

/// What happens to new connections while the audit log cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAuditFailure {
    /// They are refused.
    Deny,
    /// They are served, and what is not recorded is counted.
    Continue,
}

impl OnAuditFailure {
    /// The word in the config file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Continue => "continue",
        }
    }
}

/// When the disk must have confirmed an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditSync {
    /// Before the peer whom it lets in is served.
    Always,
    /// Within an interval.
    Interval,
    /// Whenever the system likes. What was written outlives the process, not the machine.
    Os,
}
