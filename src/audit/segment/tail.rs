//! The end of the log: found after the last whole entry, mended where a crash has torn it (what comes after that entry is kept
//! in a file beside the log and taken out of it), and caught up with where another process has written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Active, MODE, beside, is_at, lines, older, open_active, read_line, sync_folder};
use crate::audit::chain::{Hash, Head, Link};
use crate::clock::parse_rfc3339;

/// How far from the end the last whole entry is looked for: what one write holds at most, and a line more.
const TAIL: u64 = 2 * 1024 * 1024;

/// How often an older segment is looked for that loses its name meanwhile.
const LOOKS: usize = 5;

/// What a crash left behind the last whole entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::audit) struct Torn {
    pub(in crate::audit) bytes: u64,
    pub(in crate::audit) hash: Hash,
    pub(in crate::audit) kept: Option<PathBuf>,
}

impl Active {
    /// Takes out what is behind the first `whole` bytes, and keeps it in a file of its own, if there is room for one.
    pub(super) fn mend(&mut self, whole: u64, path: &Path) -> io::Result<Option<Torn>> {
        if whole == self.size {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(self.size.saturating_sub(whole)).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, whole)?;
        let kept = keep(&bytes, path).map_err(|error| {
            tracing::warn!(%error, "the torn end of the audit log cannot be kept beside it, and is taken out all the same");
        });
        self.file.set_len(whole)?;
        self.file.sync_all()?;
        let torn = Torn {
            bytes: self.size.saturating_sub(whole),
            hash: Hash::of(&bytes),
            kept: kept.ok(),
        };
        self.size = whole;
        Ok(Some(torn))
    }

    /// Goes on where another process has come to, in this file and in those that it began after it. To be called when it is
    /// our turn. Returns the head then, and what a crash of the other's has left of a line.
    ///
    /// # Errors
    /// When what is there does not continue the log, and the system's.
    pub(in crate::audit) fn catch_up(&mut self, head: Head, path: &Path) -> io::Result<(Head, Option<Torn>)> {
        let strange = || io::Error::other("another file was put in its place");
        let (mut head, mut torn) = (head, None);
        let size = self.file.metadata()?.len();
        if size != self.size {
            self.size = size;
            let tail = Tail::read(&self.file, size)?;
            (head, torn) = self.cut(tail, head, path)?;
        }
        if !is_at(&self.file, path)? {
            let mut next = open_active(path)?;
            let tail = Tail::read(&next.file, next.size)?;
            match tail.head {
                Some(there) if there.next < head.next => return Err(strange()),
                Some(_) => {}
                // Begun by the other, perhaps after more segments of its own; or by us, where ours was moved away.
                None => head = later(head, path)?,
            }
            let torn_there;
            (head, torn_there) = next.cut(tail, head, path)?;
            torn = torn.or(torn_there);
            *self = next;
            sync_folder(path)?;
        }
        Ok((head, torn))
    }

    /// The head after the last whole entry of the file's `tail`, behind which nothing is left then; `empty` where there is none.
    fn cut(&mut self, tail: Tail, empty: Head, path: &Path) -> io::Result<(Head, Option<Torn>)> {
        let (head, whole) = match tail.head {
            Some(head) => (head, tail.whole),
            None if self.size == 0 || tail.is_a_torn_beginning() => (empty, 0),
            None => return Err(io::Error::other("none of its last lines is an entry")),
        };
        let torn = self.mend(whole, path)?;
        self.first = first_of(&self.file)?;
        Ok((head, torn))
    }
}

/// Puts bytes into a file of their own beside the log.
fn keep(bytes: &[u8], path: &Path) -> io::Result<PathBuf> {
    let kept = (0_u32..)
        .map(|number| beside(path, &format!("torn.{number}")))
        .find(|name| !name.exists())
        .unwrap_or_else(|| beside(path, "torn"));
    let mut options = OpenOptions::new();
    let mut copy = options.write(true).create_new(true).mode(MODE).open(&kept)?;
    let written = copy
        .write_all(bytes)
        .and_then(|()| copy.sync_all())
        .and_then(|()| sync_folder(path));
    match written {
        Ok(()) => Ok(kept),
        Err(error) => {
            // Half of it would be taken for the whole.
            let _ = fs::remove_file(&kept);
            Err(error)
        }
    }
}

/// The end of a segment.
pub(super) struct Tail {
    /// After the last whole entry; `None` where there is none.
    pub(super) head: Option<Head>,
    /// How many bytes there are up to that entry's end.
    pub(super) whole: u64,
    /// What was looked at.
    bytes: Vec<u8>,
    /// Whether that is all.
    all: bool,
}

impl Tail {
    pub(super) fn read(file: &File, size: u64) -> io::Result<Self> {
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
    pub(super) fn is_a_torn_beginning(&self) -> bool {
        self.all && !self.bytes.contains(&b'\n') && is_a_beginning(&self.bytes)
    }
}

/// Whether it is what a crash can leave of an entry: its first bytes, or zeros in their place.
pub(in crate::audit) fn is_a_beginning(bytes: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"{\"version\":1,\"seq\":";
    let known = bytes.len().min(BEGINNING.len());
    bytes.get(..known) == BEGINNING.get(..known) || bytes.iter().all(|b| *b == 0)
}

/// The number and time of a segment's first entry.
pub(super) fn first_of(file: &File) -> io::Result<Option<(u64, SystemTime)>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    read_line(&mut BufReader::new(file), &mut line)?;
    let link = Link::read(line.trim_ascii_end()).ok();
    Ok(link.and_then(|link| Some((link.seq, parse_rfc3339(&link.time)?))))
}

/// The head after all older segments, or ours where that is later: where they were moved away.
fn later(ours: Head, path: &Path) -> io::Result<Head> {
    let mut tries = 0;
    let last = loop {
        tries += 1;
        let Some(last) = older(path)?.pop() else {
            return Ok(ours);
        };
        match head_of(&last.path) {
            // Compressed between the two looks, and under its other name now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < LOOKS => {}
            head => {
                break head?
                    .ok_or_else(|| io::Error::other("the last line of an older segment is no entry"))?;
            }
        }
    };
    Ok(if last.next > ours.next { last } else { ours })
}

/// The head after the last line of an older segment.
pub(super) fn head_of(path: &Path) -> io::Result<Option<Head>> {
    let mut lines = lines(path)?;
    let (mut line, mut last) = (Vec::new(), Vec::new());
    while read_line(&mut *lines, &mut line)? {
        std::mem::swap(&mut line, &mut last);
    }
    let last = last.strip_suffix(b"\n").unwrap_or(&last);
    Ok(Link::read(last).ok().map(|link| Head::after(link.seq, last)))
}
