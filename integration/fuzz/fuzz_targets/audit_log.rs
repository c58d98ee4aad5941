//! A file that is said to be an audit log is read to an answer; one that fits is a chain: with any line but the last taken
//! out it fits no more.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use svidecar::audit::verify::{Expectations, verify};

/// In memory, where the machine's temporary files are.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("svidecar-fuzz-{}.jsonl", std::process::id())));

fn fits(bytes: &[u8]) -> Option<u64> {
    std::fs::write(&*FILE, bytes).expect("a temporary file");
    let summary = verify(&[FILE.clone()], &Expectations::default()).ok()?;
    assert!(summary.unsigned <= summary.entries && summary.checkpoints <= summary.entries);
    Some(summary.entries)
}

fuzz_target!(|bytes: &[u8]| {
    let Some(entries) = fits(bytes) else { return };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    if entries >= 3 {
        let without: Vec<u8> = lines
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != 1)
            .flat_map(|(_, line)| line.iter().copied())
            .collect();
        assert_eq!(
            fits(&without),
            None,
            "a line was taken out, and the log still fits"
        );
    }
});
