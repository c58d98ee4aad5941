//! A sink and its reader, whatever becomes of the files and whatever the collector says.

mod files;
mod sent;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A log that consists of files alone; entries are what a reader looks at and no more, and truly chained.
#[derive(Clone)]
struct Files(Arc<TempDir>);

impl Files {
    fn new() -> Self {
        Self(Arc::new(TempDir::new().unwrap()))
    }

    fn active(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    /// The head before the entry of this number.
    fn head(next: u64) -> Head {
        Self::chain("", 0..next).1
    }

    fn text(numbers: std::ops::Range<u64>) -> String {
        Self::chain("", numbers).0
    }

    /// Entries that say `who` in a chain from 0 on, those of these numbers as text, and the head behind them.
    fn chain(who: &str, numbers: std::ops::Range<u64>) -> (String, Head) {
        let (mut text, mut head) = (String::new(), Head::EMPTY);
        for seq in 0..numbers.end {
            let line = format!(
                "{{\"version\":1,\"seq\":{seq},\"prev\":\"{}\",\"time\":\"2026-11-27T00:00:00Z\",\"kind\":\"log\",\
                 \"operation\":\"segment\",\"host\":\"{who}:{seq}:\"}}",
                head.hash
            );
            head = Head::after(seq, line.as_bytes());
            if seq >= numbers.start {
                text.push_str(&line);
                text.push('\n');
            }
        }
        (text, head)
    }

    fn append(&self, text: &str) {
        append(&self.active(), text);
    }

    /// The active segment becomes an older one.
    fn rotate(&self, first: u64) {
        fs::rename(self.active(), segment::older_name(&self.active(), first)).unwrap();
    }

    /// A reader for whom everything before this entry was read by another.
    fn reader(&self, next: u64) -> Reader {
        Reader::new(self.active(), Some(Self::head(next)))
    }
}

fn append(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
