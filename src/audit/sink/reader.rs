//! Reads entries from the log's files, from a number on, while they are written, renamed, compressed and removed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::audit::chain::Link;
use crate::audit::segment;

/// Entries that are read at once.
const BATCH: usize = 512;
/// Bytes that are read at once, and a line more.
const BATCH_BYTES: usize = 1 << 20;

/// One entry: its line without the line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::audit) struct Line(pub(in crate::audit) Vec<u8>);

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Consecutive entries.
    pub(super) lines: Vec<Line>,
    /// The number of the entry after them.
    pub(super) next: u64,
    /// Entries before them that are not there any more.
    pub(super) missing: u64,
}

/// Where reading is.
pub(super) struct Reader {
    path: PathBuf,
    next: u64,
    open: Option<Box<dyn io::BufRead + Send>>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads the log at `path` from entry `next` on.
    pub(super) const fn new(path: PathBuf, next: u64) -> Self {
        Self {
            path,
            next,
            open: None,
            begun: Vec::new(),
        }
    }

    /// The next entries, as many as there are and fit. Blocking. No lines mean that all that is written was read.
    pub(super) fn batch(&mut self) -> io::Result<Batch> {
        let mut batch = Batch::default();
        // Once in the file that is open, and once in the one that comes after it.
        for _ in 0..2 {
            if self.open.is_none() {
                self.open(&mut batch)?;
            }
            if let Err(error) = self.read(&mut batch) {
                self.open = None;
                self.begun.clear();
                return Err(error);
            }
            if !batch.lines.is_empty() {
                break;
            }
            // At the end of this file: looked for anew the next time.
            self.open = None;
            self.begun.clear();
        }
        batch.next = self.next;
        Ok(batch)
    }

    /// Opens the file in which the next entry is, or must come.
    fn open(&mut self, batch: &mut Batch) -> io::Result<()> {
        let older = segment::older(&self.path)?;
        let active = segment::first_entry(&self.path)?;
        let all = older.iter().map(|older| (older.first, &older.path));
        let all: Vec<_> = all.chain(active.map(|first| (first, &self.path))).collect();
        let Some((first, path)) = all
            .iter()
            .rev()
            .find(|(first, _)| *first <= self.next)
            .or_else(|| all.first())
        else {
            return Ok(());
        };
        if *first > self.next {
            batch.missing = first - self.next;
            self.next = *first;
        }
        self.open = Some(segment::lines(path)?);
        Ok(())
    }

    fn read(&mut self, batch: &mut Batch) -> io::Result<()> {
        let Some(file) = &mut self.open else { return Ok(()) };
        let mut bytes = 0;
        let mut line = Vec::new();
        while batch.lines.len() < BATCH && bytes < BATCH_BYTES {
            if !segment::read_line(&mut **file, &mut line)? {
                break;
            }
            self.begun.append(&mut line);
            if self.begun.last() != Some(&b'\n') {
                // Its end is still to be written.
                break;
            }
            self.begun.pop();
            let whole = std::mem::take(&mut self.begun);
            let link =
                Link::read(&whole).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            // Entries before the one that is due were sent already.
            if link.seq >= self.next {
                batch.missing = batch.missing.saturating_add(link.seq - self.next);
                self.next = link.seq.saturating_add(1);
                bytes += whole.len();
                batch.lines.push(Line(whole));
            }
        }
        Ok(())
    }
}
