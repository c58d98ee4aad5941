//! The log's files: the active segment at `audit.file`, and older ones beside it, named after their first entry:
//! `audit.jsonl.00000000000000012345`, with `.gz` once they are compressed. Twenty digits, so that names sort as numbers do.
//!
//! Opens the log at its end, and mends that where a crash has torn it: what comes after the last whole entry is kept in a
//! file beside the log and taken out of it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

use super::OpenError;
use super::chain::{Hash, Head, Link, MAX_LINE};
use crate::clock::parse_rfc3339;

/// Who may read the log: our own user.
const MODE: u32 = 0o600;
/// How far from the end the last whole entry is looked for: what one write holds at most, and a line more.
const TAIL: u64 = 2 * 1024 * 1024;

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
    pub(super) torn: Option<Torn>,
    /// Held as long as the log is written.
    pub(super) lock: File,
}

/// What a crash left behind the last whole entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    pub(super) bytes: u64,
    pub(super) hash: Hash,
    pub(super) kept: PathBuf,
}

/// Opens the log at `path`, or begins one.
///
/// # Errors
/// See [`OpenError`]. Nothing is changed then.
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let failed = |error| OpenError::System {
        path: path.to_owned(),
        error,
    };
    // Asked before opening: to open a pipe waits for its reader.
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let why = "it is no regular file".to_owned();
        return Err(OpenError::NotALog {
            path: path.to_owned(),
            why,
        });
    }
    let lock = lock(path)?;
    let mut active = open_active(path).map_err(failed)?;
    if active.size == 0 {
        let head = match older(path).map_err(failed)?.last() {
            Some(last) => head_of(&last.path)
                .map_err(failed)?
                .ok_or_else(|| OpenError::NotALog {
                    path: last.path.clone(),
                    why: "its last line is no entry".to_owned(),
                })?,
            None => Head::EMPTY,
        };
        return Ok(Opened {
            active,
            head,
            torn: None,
            lock,
        });
    }
    let tail = Tail::read(&active.file, active.size).map_err(failed)?;
    let Some(head) = tail.head else {
        return match tail.is_a_torn_beginning() {
            // Its first write did not come to its end.
            true => {
                let torn = tear(&mut active, 0, path).map_err(failed)?;
                let head = match older(path).map_err(failed)?.last() {
                    Some(last) => head_of(&last.path).map_err(failed)?.unwrap_or(Head::EMPTY),
                    None => Head::EMPTY,
                };
                Ok(Opened {
                    active,
                    head,
                    torn: Some(torn),
                    lock,
                })
            }
            false => Err(OpenError::NotALog {
                path: path.to_owned(),
                why: "none of its last lines is an entry".to_owned(),
            }),
        };
    };
    let torn = (tail.whole < active.size)
        .then(|| tear(&mut active, tail.whole, path))
        .transpose()
        .map_err(failed)?;
    active.first = first_of(&active.file).map_err(failed)?;
    if active.first.is_none() {
        return Err(OpenError::NotALog {
            path: path.to_owned(),
            why: "its first line is no entry".to_owned(),
        });
    }
    Ok(Opened {
        active,
        head,
        torn,
        lock,
    })
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
    file.set_permissions(Permissions::from_mode(MODE))?;
    let size = file.metadata()?.len();
    Ok(Active {
        file,
        size,
        first: None,
    })
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::System {
        path: path.to_owned(),
        error,
    };
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(beside(path, "lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The end of a segment.
struct Tail {
    /// After the last whole entry; `None` where there is none.
    head: Option<Head>,
    /// How many bytes there are up to that entry's end.
    whole: u64,
    /// What was looked at.
    bytes: Vec<u8>,
    /// Whether that is all.
    all: bool,
}

impl Tail {
    fn read(file: &File, size: u64) -> io::Result<Self> {
        let begin = size.saturating_sub(TAIL);
        let mut bytes = vec![0; usize::try_from(size - begin).unwrap_or(0)];
        file.read_exact_at(&mut bytes, begin)?;
        let (mut head, mut whole) = (None, 0);
        // From the end: a whole line that is an entry.
        let mut end = bytes.len();
        while let Some(feed) = bytes
            .get(..end)
            .and_then(|part| part.iter().rposition(|b| *b == b'\n'))
        {
            let part = bytes.get(..feed).unwrap_or_default();
            let start = part.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let line = part.get(start..).unwrap_or_default();
            if let Ok(link) = Link::read(line) {
                head = Some(Head::after(link.seq, line));
                whole = begin + u64::try_from(feed).unwrap_or(0) + 1;
                break;
            }
            end = feed;
        }
        Ok(Self {
            head,
            whole,
            bytes,
            all: begin == 0,
        })
    }

    /// Whether it looks like our own first write, cut short: the beginning of an entry, or blocks that the file system
    /// had promised and never filled.
    fn is_a_torn_beginning(&self) -> bool {
        self.all && !self.bytes.contains(&b'\n') && is_a_beginning(&self.bytes)
    }
}

/// Whether it is what a crash can leave of an entry: its first bytes, or zeros in their place.
pub(super) fn is_a_beginning(bytes: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"{\"version\":1,\"seq\":";
    let known = bytes.len().min(BEGINNING.len());
    bytes.get(..known) == BEGINNING.get(..known) || bytes.iter().all(|b| *b == 0)
}

/// Moves what is behind `whole` into a file of its own.
fn tear(active: &mut Active, whole: u64, path: &Path) -> io::Result<Torn> {
    let mut bytes = vec![0; usize::try_from(active.size - whole).unwrap_or(0)];
    active.file.read_exact_at(&mut bytes, whole)?;
    let kept = (0..)
        .map(|number| beside(path, &format!("torn.{number}")))
        .find(|name| !name.exists())
        .unwrap_or_else(|| beside(path, "torn"));
    let mut options = OpenOptions::new();
    let mut copy = options.write(true).create_new(true).mode(MODE).open(&kept)?;
    copy.write_all(&bytes)?;
    copy.sync_all()?;
    active.file.set_len(whole)?;
    active.file.sync_all()?;
    let torn = Torn {
        bytes: active.size - whole,
        hash: Hash::of(&bytes),
        kept,
    };
    active.size = whole;
    Ok(torn)
}

/// The number of the active segment's first entry; `None` while it has none, or is not there.
pub(super) fn first_entry(path: &Path) -> io::Result<Option<u64>> {
    match File::open(path) {
        Ok(file) => Ok(first_of(&file)?.map(|(first, _)| first)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number and time of a segment's first entry.
fn first_of(file: &File) -> io::Result<Option<(u64, SystemTime)>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    read_line(&mut BufReader::new(file), &mut line)?;
    let link = Link::read(line.trim_ascii_end()).ok();
    Ok(link.and_then(|link| Some((link.seq, parse_rfc3339(&link.time)?))))
}

/// The head after the last line of an older segment.
fn head_of(path: &Path) -> io::Result<Option<Head>> {
    let mut lines = lines(path)?;
    let (mut line, mut last) = (Vec::new(), Vec::new());
    while read_line(&mut *lines, &mut line)? {
        std::mem::swap(&mut line, &mut last);
    }
    let last = last.strip_suffix(b"\n").unwrap_or(&last);
    Ok(Link::read(last).ok().map(|link| Head::after(link.seq, last)))
}
