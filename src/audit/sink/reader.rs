//! Reads entries from the log's files, from a number on, while they are written, renamed, compressed and removed.
//!
//! The file at the log's path stays open at its end, so that each line is read once; what was renamed meanwhile is read to its
//! end before the next file. Whether the log is still the one that was read before is seen by the hash of the last line
//! that was: once, when reading begins.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use crate::audit::chain::{Hash, Head, Link};
use crate::audit::segment;

/// Entries that are read at once.
const BATCH: usize = 512;
/// Bytes that are read at once, and a line more.
const BATCH_BYTES: usize = 1 << 20;
/// How often files are looked for that are renamed and removed at the same time.
const LOOKS: u32 = 8;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number.
    pub(super) seq: u64,
    /// Its line, without the line feed.
    pub(super) text: Vec<u8>,
}

impl Line {
    /// Where reading goes on after it.
    pub(super) fn head(&self) -> Head {
        Head::after(self.seq, &self.text)
    }
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Consecutive entries.
    pub(super) lines: Vec<Line>,
    /// Entries before them that are not there any more.
    pub(super) missing: u64,
    /// Why reading began again at the oldest entry, where it did.
    pub(super) anew: Option<&'static str>,
}

/// Where reading is.
pub(super) struct Reader {
    path: PathBuf,
    /// The next entry; none for the oldest that there is.
    next: Option<u64>,
    /// The last line that was read by whoever read before us, until it was compared.
    before: Option<Head>,
    open: Option<Segment>,
    /// The first entry of the file that was read to its end before the one that is open, or that is to be opened.
    passed: Option<u64>,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
    /// Lines that were looked at.
    #[cfg(test)]
    pub(super) looked_at: u64,
}

struct Segment {
    /// The number of its first entry.
    first: u64,
    lines: Box<dyn io::BufRead + Send>,
    /// Tells it from other files; none for one that does not grow.
    file: Option<File>,
    /// Known not to be at the log's path any more: nothing will come behind its end.
    done: bool,
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
    /// Reads the log at `path`, from where somebody is who has read it before, else from the oldest entry on.
    pub(super) const fn new(path: PathBuf, from: Option<Head>) -> Self {
        Self {
            path,
            next: match from {
                Some(head) => Some(head.next),
                None => None,
            },
            before: from,
            open: None,
            passed: None,
            begun: Vec::new(),
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// The next entries, as many as there are before number `end`, and fit. Blocking. No lines mean that all these were read.
    pub(super) fn batch(&mut self, end: u64) -> io::Result<Batch> {
        let mut batch = Batch::default();
        if self.before.is_some_and(|before| before.next > end) {
            self.start_anew(&mut batch, "the log is shorter than what was sent of it");
        }
        // As often as files follow one another that hold nothing for us; each is read to its end, so this ends.
        while batch.lines.is_empty() && self.next.is_none_or(|next| next < end) {
            if self.open.is_none() && !self.open(&mut batch)? {
                break;
            }
            if let Err(error) = self.read(end, &mut batch) {
                self.close();
                self.passed = None;
                // What was read is handed out; the error comes again.
                if batch.lines.is_empty() {
                    return Err(error);
                }
            }
            if batch.lines.is_empty() && !self.is_left(&mut batch)? {
                break;
            }
        }
        Ok(batch)
    }

    /// At the end of the open file: whether there may be something in another one, or still in this.
    fn is_left(&mut self, batch: &mut Batch) -> io::Result<bool> {
        let Some(open) = &mut self.open else {
            // Reading began anew.
            return Ok(batch.anew.is_some());
        };
        if open.done {
            self.passed = Some(open.first);
            self.close();
            return Ok(true);
        }
        let grows = match &open.file {
            Some(file) => segment::is_at(file, &self.path)?,
            None => false,
        };
        // What came between its end and its renaming is still to be read.
        open.done = !grows;
        Ok(!grows)
    }

    fn close(&mut self) {
        self.open = None;
        self.begun.clear();
    }

    /// From the oldest entry on.
    fn start_anew(&mut self, batch: &mut Batch, why: &'static str) {
        self.close();
        (self.next, self.before, self.passed) = (None, None, None);
        batch.lines.clear();
        batch.missing = 0;
        batch.anew = Some(why);
    }

    /// Opens the file in which the next entry is, or must come; whether there is one.
    fn open(&mut self, batch: &mut Batch) -> io::Result<bool> {
        // The line before it, too, where that is to be compared.
        let wanted = self.next.map(|next| match self.before {
            Some(_) => next.saturating_sub(1),
            None => next,
        });
        for look in 1..=LOOKS {
            // Opened before the others are listed: wherever it is moved in between, we have it.
            let active = segment::open_first(&self.path)?;
            let older = segment::older(&self.path)?;
            let firsts = || older.iter().map(|older| older.first);
            let firsts = || firsts().chain(active.as_ref().map(|(first, _)| *first));
            let covering = |wanted| firsts().filter(|first| *first <= wanted).max();
            let found = match self.passed {
                Some(passed) => firsts().filter(|first| *first > passed).min(),
                None => {
                    let found = wanted.and_then(covering).or_else(|| self.next.and_then(covering));
                    found.or_else(|| firsts().min())
                }
            };
            let Some(first) = found else { return Ok(false) };
            let gap = self.next.map_or(0, |next| first.saturating_sub(next));
            if gap > 0 && look == 1 {
                // Perhaps it was renamed while the folder was listed.
                continue;
            }
            let segment = match active.filter(|(active, _)| *active == first) {
                Some((_, file)) => Segment {
                    first,
                    lines: Box::new(BufReader::with_capacity(64 * 1024, file.try_clone()?)),
                    file: Some(file),
                    done: false,
                },
                None => {
                    let Some(older) = older.iter().find(|older| older.first == first) else {
                        return Ok(false);
                    };
                    let lines = match segment::lines(&older.path) {
                        // Compressed or removed meanwhile.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        lines => lines?,
                    };
                    Segment {
                        first,
                        lines,
                        file: None,
                        done: true,
                    }
                }
            };
            if gap > 0 {
                batch.missing = batch.missing.saturating_add(gap);
                self.next = Some(first);
                self.before = None;
            }
            self.open = Some(segment);
            return Ok(true);
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "its files change faster than they can be opened",
        ))
    }

    fn read(&mut self, end: u64, batch: &mut Batch) -> io::Result<()> {
        let mut bytes = 0;
        let mut line = Vec::new();
        while batch.lines.len() < BATCH && bytes < BATCH_BYTES && self.next.is_none_or(|next| next < end) {
            let Some(open) = &mut self.open else { break };
            if !segment::read_line(&mut *open.lines, &mut line)? {
                break;
            }
            self.begun.append(&mut line);
            if self.begun.last() != Some(&b'\n') {
                // Its end is still to be written.
                break;
            }
            self.begun.pop();
            let text = std::mem::take(&mut self.begun);
            let link =
                Link::read(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            #[cfg(test)]
            {
                self.looked_at += 1;
            }
            if !self.is_as_before(&link, &text) {
                let why = "the log is not the one that was sent so far: its entries have other hashes";
                self.start_anew(batch, why);
                break;
            }
            // Entries before the one that is due were sent already.
            let next = self.next.unwrap_or(link.seq);
            if link.seq >= next {
                batch.missing = batch.missing.saturating_add(link.seq - next);
                self.next = Some(link.seq.saturating_add(1));
                self.before = None;
                bytes += text.len();
                batch.lines.push(Line { seq: link.seq, text });
            }
        }
        Ok(())
    }

    /// Whether the line does not speak against our having read this log before.
    fn is_as_before(&self, link: &Link, text: &[u8]) -> bool {
        match self.before {
            Some(before) if link.seq.checked_add(1) == Some(before.next) => Hash::of(text) == before.hash,
            Some(before) if link.seq == before.next => link.prev == before.hash,
            _ => true,
        }
    }
}
