//! What the access log holds.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::record::Reason;
use crate::telemetry::lines::{Destination, FileOptions, open};
use crate::telemetry::log::tests::{logged, record};

/// What one connection after the other makes of the file.
fn written(format: Format, reasons: &[Reason]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = FileOptions {
        path: path.clone(),
        max_size: 1 << 20,
        keep: 1,
    };
    let opened = open(Destination::File(options)).unwrap();
    let dropped = Counter::default();
    let (access, guard) = AccessLog::start(opened, format, dropped.clone()).unwrap();
    for reason in reasons {
        access.record(&record(*reason));
    }
    drop(access);
    drop(guard);
    assert_eq!(dropped.get(), 0);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn its_lines_are_those_of_the_log() {
    for (format, style) in [(Format::Text, Style::Plain), (Format::Json, Style::Json)] {
        for reason in [Reason::Finished, Reason::DenyRule, Reason::NotTls] {
            let in_log = logged(style, "info", |sink| sink.record(&record(reason)));
            assert_eq!(written(format, &[reason]), in_log);
        }
    }
}

#[test]
fn every_connection_has_one_whatever_became_of_it() {
    let text = written(Format::Json, Reason::ALL);
    let reasons: Vec<String> = text
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["target"], "svidecar::connection");
            line["reason"].as_str().unwrap().to_owned()
        })
        .collect();
    let expected: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(reasons, expected);
}

/// Turning a record into text is the writer's work. What a connection pays is a copy: the record and its detail.
#[test]
fn a_connection_pays_for_a_copy_of_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let options = FileOptions {
        path: folder.path().join("access.log"),
        max_size: 1 << 20,
        keep: 1,
    };
    let opened = open(Destination::File(options)).unwrap();
    let (access, guard) = AccessLog::start(opened, Format::Json, Counter::default()).unwrap();
    let record = Arc::new(record(Reason::Finished));
    // The first one sets up what the queue keeps for this thread.
    access.record(&record);
    let counted = allocation_counter::measure(|| access.record(&record));
    assert_eq!(counted.count_total, 2);
    drop(guard);
}
