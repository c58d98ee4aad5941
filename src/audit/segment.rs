//! The log's files: the active segment at `audit.file`, and older ones beside it, named after their first entry:
//! `audit.jsonl.00000000000000012345`, with `.gz` once they are compressed. Twenty digits, so that names sort as numbers do.
//!
//! Opens the log at its end ([`tail`]).

mod tail;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

use super::OpenError;
use super::chain::{Head, Link, MAX_LINE};
use super::turn::Turn;
use tail::{Tail, first_of, head_of};
pub(super) use tail::{Torn, is_a_beginning};

/// Who may read the log: our own user.
pub(super) const MODE: u32 = 0o600;

/// An older segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Older {
    /// The number of its first entry.
    pub(super) first: u64,
    /// Whether it is compressed. Plain ones come first: where both are there, compressing was interrupted.
    pub(super) compressed: bool,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// The older segments beside `active`, the oldest first.
pub(super) fn older(active: &Path) -> io::Result<Vec<Older>> {
    let folder = folder(active);
    let Some(name) = active.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let rest = path
            .file_name()
            .and_then(|file| file.to_str())
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        let Some(rest) = rest else { continue };
        let (digits, compressed) = match rest.strip_suffix(".gz") {
            Some(digits) => (digits, true),
            None => (rest, false),
        };
        if digits.len() == 20
            && digits.bytes().all(|b| b.is_ascii_digit())
            && let Ok(first) = digits.parse()
        {
            found.push(Older {
                first,
                compressed,
                path,
            });
        }
    }
    found.sort();
    found.dedup_by_key(|older| older.first);
    Ok(found)
}

/// The name of the segment that begins with this entry, once it is not active any more.
pub(super) fn older_name(active: &Path, first: u64) -> PathBuf {
    beside(active, &format!("{first:020}"))
}

/// `active` with another ending behind its own.
pub(super) fn beside(active: &Path, ending: &str) -> PathBuf {
    let mut name = active.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Has names in the file's folder written to the disk: a new file, or one that was renamed.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The lines of a segment, compressed or not.
pub(super) fn lines(path: &Path) -> io::Result<Box<dyn io::BufRead + Send>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|ending| ending == "gz") {
        return Ok(Box::new(BufReader::with_capacity(
            64 * 1024,
            MultiGzDecoder::new(file),
        )));
    }
    Ok(Box::new(BufReader::with_capacity(64 * 1024, file)))
}

/// Reads one line into `line`, its line feed included where it has one. `Ok(false)` at the end; an error for a line that is
/// longer than any entry.
pub(super) fn read_line(mut from: &mut dyn io::BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX).saturating_add(1);
    Read::take(&mut from, limit).read_until(b'\n', line)?;
    if line.len() > MAX_LINE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line is longer than any entry",
        ));
    }
    Ok(!line.is_empty())
}

/// The active segment.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: File,
    /// Its bytes, all of which are whole entries.
    pub(super) size: u64,
    /// The number of its first entry, and when that was written; absent while it is empty.
    pub(super) first: Option<(u64, SystemTime)>,
}

/// The log as it was found.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) active: Active,
    pub(super) head: Head,
    /// How many bytes of it are whole entries.
    whole: u64,
    /// The right to write it.
    pub(super) turn: Turn,
}

/// Opens the log at `path`, or begins one: for us alone, or to share it with whoever else holds this lock. What a crash has
/// left behind its last whole entry stays where it is, until [`Opened::mend`].
///
/// # Errors
/// See [`OpenError`]. What is there is not changed then.
pub(super) fn open(path: &Path, lock: Option<File>) -> Result<Opened, OpenError> {
    let failed = |error| OpenError::System {
        path: path.to_owned(),
        error,
    };
    let not_a_log = |path: &Path, why: &str| OpenError::NotALog {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    // Asked before opening: to open a pipe waits for its reader.
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(not_a_log(path, "it is no regular file"));
    }
    let mut turn = match lock {
        Some(lock) => Turn::shared(lock, path)?,
        None => Turn::alone(path)?,
    };
    turn.take().map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => OpenError::OthersTurn(path.to_owned()),
        _ => failed(error),
    })?;
    let mut active = open_active(path).map_err(failed)?;
    let tail = Tail::read(&active.file, active.size).map_err(failed)?;
    let (head, whole) = match tail.head {
        Some(head) => (head, tail.whole),
        // New, or its first write did not come to its end.
        None if active.size == 0 || tail.is_a_torn_beginning() => {
            let head = match older(path).map_err(failed)?.last() {
                Some(last) => head_of(&last.path)
                    .map_err(failed)?
                    .ok_or_else(|| not_a_log(&last.path, "its last line is no entry"))?,
                None => Head::EMPTY,
            };
            (head, 0)
        }
        None => return Err(not_a_log(path, "none of its last lines is an entry")),
    };
    if whole > 0 {
        active.first = first_of(&active.file).map_err(failed)?;
        if active.first.is_none() {
            return Err(not_a_log(path, "its first line is no entry"));
        }
    }
    active
        .file
        .set_permissions(Permissions::from_mode(MODE))
        .map_err(failed)?;
    Ok(Opened {
        active,
        head,
        whole,
        turn,
    })
}

impl Opened {
    /// Takes out what is behind the last whole entry. It is kept in a file of its own, if there is room for one.
    pub(super) fn mend(&mut self, path: &Path) -> io::Result<Option<Torn>> {
        if !self.turn.take()? {
            return self.active.mend(self.whole, path);
        }
        // Another may have written since it was opened. What is behind the last whole entry then shows as not ours, too.
        self.active.size = self.whole;
        let (head, torn) = self.active.catch_up(self.head, path)?;
        (self.head, self.whole) = (head, self.active.size);
        Ok(torn)
    }
}

/// Opens the active segment for appending; its `first` is not looked up.
pub(super) fn open_active(path: &Path) -> io::Result<Active> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)?;
    let size = file.metadata()?.len();
    Ok(Active {
        file,
        size,
        first: None,
    })
}

/// The file at `path`, from its beginning on, and the number of its first entry; `None` while it has none, or is not there.
///
/// # Errors
/// Also when its first line is whole and no entry.
pub(super) fn open_first(path: &Path) -> io::Result<Option<(u64, File)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut line = Vec::new();
    read_line(&mut BufReader::new(file.try_clone()?), &mut line)?;
    file.rewind()?;
    match line.strip_suffix(b"\n").map(Link::read) {
        Some(Ok(link)) => Ok(Some((link.seq, file))),
        Some(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        None => Ok(None),
    }
}

/// Whether this open file is the one at `path` now.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
