//! What a sink reads, whatever becomes of the files; and how far it remembers to be.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::audit::chain::Hash;

/// A log that consists of files alone; entries are what a reader looks at and no more.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn active(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    fn text(numbers: std::ops::Range<u64>) -> String {
        let line = |seq| {
            format!(
                "{{\"version\":1,\"seq\":{seq},\"prev\":\"{}\",\"time\":\"2026-11-27T00:00:00Z\",\"kind\":\"log\",\"operation\":\"segment\"}}\n",
                Hash::NONE
            )
        };
        numbers.map(line).collect()
    }

    fn append(&self, text: &str) {
        use std::io::Write as _;
        let mut options = fs::OpenOptions::new();
        options
            .append(true)
            .create(true)
            .open(self.active())
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// The active segment becomes an older one.
    fn rotate(&self, first: u64) {
        fs::rename(self.active(), segment::older_name(&self.active(), first)).unwrap();
    }

    fn reader(&self, next: u64) -> Reader {
        Reader::new(self.active(), next)
    }
}

/// The numbers of the entries that are read next, and how many are missing.
fn read(reader: &mut Reader) -> (Vec<u64>, u64) {
    let batch = reader.batch().unwrap();
    let numbers: Vec<_> = batch
        .lines
        .iter()
        .map(|line| {
            serde_json::from_slice::<serde_json::Value>(&line.0).unwrap()["seq"]
                .as_u64()
                .unwrap()
        })
        .collect();
    if let Some(last) = numbers.last() {
        assert_eq!(batch.next, last + 1);
    }
    (numbers, batch.missing)
}

#[test]
fn entries_are_read_from_a_number_on_while_they_come() {
    let files = Files::new();
    let mut reader = files.reader(0);
    assert_eq!(read(&mut reader), (vec![], 0));
    files.append(&Files::text(0..3));
    assert_eq!(read(&mut reader), (vec![0, 1, 2], 0));
    assert_eq!(read(&mut reader), (vec![], 0));
    let next = Files::text(3..5);
    files.append(&next[..next.len() - 20]);
    assert_eq!(read(&mut reader), (vec![3], 0));
    files.append(&next[next.len() - 20..]);
    assert_eq!(read(&mut reader), (vec![4], 0));
    assert_eq!(read(&mut files.reader(2)), (vec![2, 3, 4], 0));
}

#[test]
fn reading_goes_on_in_the_files_that_come_after() {
    let files = Files::new();
    files.append(&Files::text(0..3));
    let mut reader = files.reader(1);
    assert_eq!(read(&mut reader), (vec![1, 2], 0));
    files.append(&Files::text(3..4));
    files.rotate(0);
    files.append(&Files::text(4..6));
    files.rotate(4);
    files.append(&Files::text(6..8));
    assert_eq!(read(&mut reader), (vec![3], 0));
    assert_eq!(read(&mut reader), (vec![4, 5], 0));
    assert_eq!(read(&mut reader), (vec![6, 7], 0));
    assert_eq!(read(&mut reader), (vec![], 0));
}

#[test]
fn what_was_removed_before_it_was_sent_is_counted() {
    let files = Files::new();
    files.append(&Files::text(10..12));
    let mut reader = files.reader(3);
    assert_eq!(read(&mut reader), (vec![10, 11], 7));
    assert_eq!(read(&mut reader), (vec![], 0));
}

#[test]
fn a_batch_is_bounded() {
    let files = Files::new();
    files.append(&Files::text(0..600));
    let mut reader = files.reader(0);
    let sizes = [
        read(&mut reader).0.len(),
        read(&mut reader).0.len(),
        read(&mut reader).0.len(),
    ];
    assert_eq!(sizes, [512, 88, 0]);
}

#[test]
fn what_is_no_entry_is_an_error_and_not_passed_over() {
    let files = Files::new();
    files.append("no entry\n");
    assert!(files.reader(0).batch().is_err() || files.reader(0).batch().unwrap().lines.is_empty());
    files.append(&Files::text(0..1));
    let broken = Files::new();
    broken.append(&format!("{}no entry\n", Files::text(0..1)));
    assert!(broken.reader(0).batch().is_err());
}

#[test]
fn how_far_a_sink_is_outlives_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.jsonl.sink.collector");
    assert_eq!(read_cursor(&path), None);
    write_cursor(&path, 17).unwrap();
    write_cursor(&path, 18).unwrap();
    assert_eq!(read_cursor(&path), Some(18));
    fs::write(&path, "eighteen").unwrap();
    assert_eq!(read_cursor(&path), None);
}
