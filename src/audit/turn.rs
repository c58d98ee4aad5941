//! Whose turn it is to write, where two processes share the log: an old sidecar that drains and the new one that takes its
//! place, children of one supervisor.
//!
//! Two locks on two files beside the log. `audit.jsonl.lock` says that the log is somebody's: held by a process that writes
//! alone, or by a supervisor, whose children are handed its descriptor and so hold the same lock (flock(2): it belongs to
//! the open file description). `audit.jsonl.turn` is taken by one of those children for as long as it chains and writes a
//! batch, so that there is one chain. Whoever takes it looks first how far the other has come.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::OpenError;
use super::segment::{MODE, beside};

/// How long the other's turn is waited for: a batch takes milliseconds, unless the disk fails it, too.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to look meanwhile.
const LOOK: Duration = Duration::from_millis(1);

/// The right to write.
#[derive(Debug)]
pub(super) struct Turn {
    /// Held as long as the log is written.
    _lock: File,
    /// Where others may write, too: the file that says whose turn it is.
    shared: Option<File>,
    held: bool,
}

impl Turn {
    /// Of a process that writes alone.
    ///
    /// # Errors
    /// [`OpenError::InUse`] where another does, or the system's.
    pub(super) fn alone(path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            _lock: lock(path)?,
            shared: None,
            held: true,
        })
    }

    /// Of one that writes by `lock`, which others hold, too. Not its turn yet.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn shared(lock: File, path: &Path) -> Result<Self, OpenError> {
        let file = open(path, "turn").map_err(|error| OpenError::System {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self {
            _lock: lock,
            shared: Some(file),
            held: false,
        })
    }

    /// Waits until it is our turn. True where it was not before: another may have written meanwhile.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when another keeps it, and the system's.
    pub(super) fn take(&mut self) -> io::Result<bool> {
        let Some(file) = self.shared.as_ref().filter(|_| !self.held) else {
            return Ok(false);
        };
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.held = true;
                    return Ok(true);
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= PATIENCE => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the other process that writes the audit log does not come to an end",
                    ));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Lets the others write.
    pub(super) fn give(&mut self) {
        if let Some(file) = &self.shared {
            // Cannot fail for an open file; were it to, closing it at our end would do.
            let _ = file.unlock();
            self.held = false;
        }
    }
}

/// Makes the log ours.
///
/// # Errors
/// [`OpenError::InUse`] where it is another's, or the system's.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::System {
        path: path.to_owned(),
        error,
    };
    let file = open(path, "lock").map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn open(path: &Path, ending: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(beside(path, ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_one_processs_and_goes_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let lock = lock(&path).unwrap();
        let mut one = Turn::shared(lock.try_clone().unwrap(), &path).unwrap();
        let mut other = Turn::shared(lock.try_clone().unwrap(), &path).unwrap();
        assert!(one.take().unwrap(), "another may have written");
        assert!(!one.take().unwrap(), "it is still ours");
        let refused = other.take().unwrap_err();
        assert!(refused.to_string().contains("does not come to an end"));
        one.give();
        assert!(other.take().unwrap());
        drop(other);
        assert!(one.take().unwrap(), "who goes gives it back");
    }

    #[test]
    fn who_has_no_share_is_refused_until_the_last_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let supervisor = lock(&path).unwrap();
        let child = Turn::shared(supervisor.try_clone().unwrap(), &path).unwrap();
        assert!(matches!(Turn::alone(&path), Err(OpenError::InUse(_))));
        drop(supervisor);
        assert!(matches!(Turn::alone(&path), Err(OpenError::InUse(_))));
        drop(child);
        let mut alone = Turn::alone(&path).unwrap();
        assert!(!alone.take().unwrap());
        alone.give();
        assert!(!alone.take().unwrap(), "nobody else can have written");
    }
}
