//! What is read, whatever becomes of the files.

use super::*;

/// No bound.
const ALL: u64 = u64::MAX;

/// The numbers of the entries that are read next, and how many are missing.
fn read(reader: &mut Reader) -> (Vec<u64>, u64) {
    let batch = reader.batch(ALL).unwrap();
    assert_eq!(batch.anew, None);
    (numbers(&batch), batch.missing)
}

fn numbers(batch: &Batch) -> Vec<u64> {
    for line in &batch.lines {
        let entry: serde_json::Value = serde_json::from_slice(&line.text).unwrap();
        assert_eq!(entry["seq"], line.seq);
    }
    batch.lines.iter().map(|line| line.seq).collect()
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
fn nothing_is_read_from_the_first_that_may_not_be_sent_on() {
    let files = Files::new();
    files.append(&Files::text(0..10));
    let mut reader = files.reader(0);
    for (end, expected) in [(4, 0..4), (4, 4..4), (5, 4..5), (ALL, 5..10)] {
        let batch = reader.batch(end).unwrap();
        assert_eq!(numbers(&batch), expected.collect::<Vec<_>>(), "{end}");
    }
}

#[test]
fn each_line_is_read_once() {
    let files = Files::new();
    let mut reader = files.reader(0);
    let mut came = Vec::new();
    for seq in 0..200 {
        files.append(&Files::text(seq..seq + 1));
        // Also when it is asked for in vain.
        for _ in 0..3 {
            came.extend(read(&mut reader).0);
        }
        if seq % 50 == 49 {
            files.rotate(seq - 49);
        }
    }
    assert_eq!(came, (0..200).collect::<Vec<_>>());
    assert_eq!(reader.looked_at, 200);
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

/// The writer is one or two files before the reader, so that these two meet wherever they can.
#[test]
fn nothing_is_missed_while_files_are_renamed() {
    const LAST: u64 = 3000;
    let files = Files::new();
    let text = Files::text(0..LAST);
    let lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    let active = files.active();
    let (tell, told) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut seen = 0;
        for (first, lines) in (0..).step_by(3).zip(lines.chunks(3)) {
            for (seq, line) in (first..).zip(lines) {
                append(&active, line);
                // In every other file the reader is awaited: at its first line, or at another.
                while seq % 8 == 0 && seen <= seq {
                    // One that fell over ends the wait.
                    let Ok(next) = told.recv() else { return };
                    seen = next;
                }
            }
            fs::rename(&active, segment::older_name(&active, first)).unwrap();
            if first >= 30 {
                fs::remove_file(segment::older_name(&active, first - 30)).unwrap();
            }
        }
    });
    let (mut reader, mut next) = (files.reader(0), 0);
    while next < LAST {
        let (numbers, missing) = read(&mut reader);
        assert_eq!(missing, 0, "before {next}");
        for number in numbers {
            assert_eq!(number, next);
            next += 1;
        }
        let _ = tell.send(next);
    }
    writer.join().unwrap();
}

#[test]
fn what_was_removed_before_it_was_sent_is_counted() {
    let files = Files::new();
    files.append(&Files::text(10..12));
    let mut reader = files.reader(3);
    assert_eq!(read(&mut reader), (vec![10, 11], 7));
    assert_eq!(read(&mut reader), (vec![], 0));
    // Also in the middle; and who begins at the oldest there is misses nothing.
    files.rotate(10);
    files.append(&Files::text(15..16));
    assert_eq!(read(&mut reader), (vec![15], 3));
    let mut new = Reader::new(files.active(), None);
    assert_eq!(read(&mut new), (vec![10, 11], 0));
    assert_eq!(read(&mut new), (vec![15], 3));
}

#[test]
fn a_log_that_was_moved_away_is_read_to_its_end() {
    let files = Files::new();
    files.append(&Files::text(0..2));
    let mut reader = files.reader(0);
    assert_eq!(read(&mut reader), (vec![0, 1], 0));
    files.append(&Files::text(2..3));
    fs::rename(files.active(), files.0.path().join("elsewhere")).unwrap();
    assert_eq!(read(&mut reader), (vec![2], 0));
    assert_eq!(read(&mut reader), (vec![], 0));
    files.append(&Files::text(3..4));
    assert_eq!(read(&mut reader), (vec![3], 0));
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
    let mut reader = files.reader(0);
    for _ in 0..2 {
        assert_eq!(reader.batch(ALL).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    // What is before it is read; it stays in the way.
    let broken = Files::new();
    broken.append(&format!("{}no entry\n{}", Files::text(0..2), Files::text(2..3)));
    let mut reader = broken.reader(0);
    assert_eq!(read(&mut reader), (vec![0, 1], 0));
    for _ in 0..2 {
        assert_eq!(reader.batch(ALL).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    // Mended, it is out of the way.
    fs::write(broken.active(), Files::text(0..3)).unwrap();
    assert_eq!(read(&mut reader), (vec![2], 0));
}

/// Reads all that there is with a reader that was at entry 5 of a log: the numbers, what is missing, whether it began anew.
fn from_five(files: &Files, end: u64) -> (Vec<u64>, u64, bool) {
    let mut reader = files.reader(5);
    let (mut came, mut missing, mut anew) = (Vec::new(), 0, false);
    loop {
        let batch = reader.batch(end).unwrap();
        (missing, anew) = (missing + batch.missing, anew || batch.anew.is_some());
        if batch.lines.is_empty() {
            return (came, missing, anew);
        }
        came.extend(numbers(&batch));
    }
}

#[test]
fn another_log_in_its_place_is_read_from_its_oldest_entry_on() {
    let log = |segments: &[(&str, std::ops::Range<u64>)]| {
        let files = Files::new();
        for (place, (who, numbers)) in segments.iter().enumerate() {
            files.append(&Files::chain(who, numbers.clone()).0);
            if place + 1 < segments.len() {
                files.rotate(numbers.start);
            }
        }
        files
    };
    let all = |numbers: std::ops::Range<u64>| numbers.collect::<Vec<_>>();
    // The same log: in one file, and where the files' border is.
    for same in [
        &[("", 0..8)][..],
        &[("", 0..5), ("", 5..8)],
        &[("", 0..4), ("", 4..8)],
        &[("", 5..8)],
    ] {
        assert_eq!(from_five(&log(same), 8), (all(5..8), 0, false), "{same:?}");
    }
    // Another one.
    for other in [
        &[("x", 0..8)][..],
        &[("x", 0..5), ("x", 5..8)],
        &[("x", 0..4), ("x", 4..8)],
    ] {
        assert_eq!(from_five(&log(other), 8), (all(0..8), 0, true), "{other:?}");
    }
    assert_eq!(from_five(&log(&[("x", 5..8)]), 8), (all(5..8), 0, true));
    // Shorter: begun anew, or cut by a crash and its numbers used again.
    assert_eq!(from_five(&log(&[("x", 0..2)]), 2), (all(0..2), 0, true));
    assert_eq!(from_five(&log(&[("", 0..3)]), 3), (all(0..3), 0, true));
    // Beyond: what is between is gone.
    assert_eq!(from_five(&log(&[("x", 7..8)]), 8), (all(7..8), 2, false));
}

#[test]
fn a_chain_that_is_broken_further_on_is_sent_as_it_is() {
    let files = Files::new();
    files.append(&format!("{}{}", Files::text(0..6), Files::chain("x", 6..8).0));
    files.rotate(0);
    files.append(&Files::chain("y", 8..9).0);
    assert_eq!(from_five(&files, 9), (vec![5, 6, 7, 8], 0, false));
}
