//! Looks after older segments: compresses them, and removes those beyond `keep` and `keep_for`. On a thread of its own that
//! ends when that is done, so that nobody waits for it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::segment::{self, Older};
use crate::config::settings;

/// Sees to the older segments: one thread at most.
#[derive(Debug, Default)]
pub(super) struct Tender(Option<JoinHandle<()>>);

impl Tender {
    /// Begins, unless it is under way: then what is new is seen to after the next segment.
    pub(super) fn start(&mut self, settings: &settings::Audit) {
        if self.0.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let settings = settings.clone();
        let thread = std::thread::Builder::new().name("svidecar-tend".to_owned());
        match thread.spawn(move || tend(&settings)) {
            Ok(thread) => self.0 = Some(thread),
            Err(error) => tracing::warn!(%error, "older segments of the audit log cannot be seen to now"),
        }
    }

    /// Waits until it is done.
    pub(super) fn wait(self) {
        if let Some(thread) = self.0 {
            // A panic there is in the log.
            let _ = thread.join();
        }
    }
}

fn tend(settings: &settings::Audit) {
    let failed = |what: &str, path: &Path, error: &io::Error| {
        tracing::warn!(path = %path.display(), %error, "a segment of the audit log cannot be {what}");
    };
    let older = match segment::older(&settings.path) {
        Ok(older) => older,
        Err(error) => return failed("found", &settings.path, &error),
    };
    let surplus = older
        .len()
        .saturating_sub(usize::try_from(settings.keep).unwrap_or(usize::MAX));
    for (place, segment) in older.iter().enumerate() {
        if place < surplus || is_over_age(segment, settings) {
            match fs::remove_file(&segment.path) {
                Ok(()) => {
                    tracing::info!(path = %segment.path.display(), "removed a segment of the audit log, as `audit.keep` says")
                }
                // By the other process that shares the log.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failed("removed", &segment.path, &error),
            }
        } else if settings.compress
            && !segment.compressed
            && let Err(error) = compress(&segment.path)
        {
            failed("compressed", &segment.path, &error);
        }
    }
}

fn is_over_age(segment: &Older, settings: &settings::Audit) -> bool {
    let Some(most) = settings.keep_for else {
        return false;
    };
    let changed = fs::metadata(&segment.path).and_then(|meta| meta.modified());
    // By the time of its last entry, or of its compression, which follows at once.
    changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > most))
}

/// Whole, or not at all: the plain one goes when the other is on the disk. Where the other process that shares the log is at
/// it, it is left to that.
fn compress(plain: &Path) -> io::Result<()> {
    let done = segment::beside(plain, "gz");
    let temporary = segment::beside(plain, "gz.tmp");
    let mut from = match File::open(plain) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&temporary)?;
    // Who has the lock on the file of this name may rename it; whose file has lost its name came too late.
    match file.try_lock() {
        Ok(()) if segment::is_at(&file, &temporary)? => file.set_len(0)?,
        Ok(()) | Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut encoder = GzEncoder::new(BufWriter::new(file), Compression::default());
    io::copy(&mut from, &mut encoder)?;
    let mut written = encoder.finish()?;
    written.flush()?;
    let file = written.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let times = fs::FileTimes::new().set_modified(from.metadata()?.modified()?);
    file.set_times(times)?;
    fs::rename(&temporary, &done)?;
    segment::sync_folder(plain)?;
    match fs::remove_file(plain) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
