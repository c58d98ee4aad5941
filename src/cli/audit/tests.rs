//! What the command prints; whether a log fits is tested where it is verified.

use super::*;
use crate::audit::Hash;

fn args(head: Option<&str>) -> VerifyArgs {
    VerifyArgs {
        files: vec!["audit.jsonl".into()],
        head: head.map(str::to_owned),
        bundle: None,
        signer: Vec::new(),
        allow_unsigned: false,
        only: false,
        json: false,
    }
}

#[test]
fn a_log_that_fits_is_told_with_what_was_not_checked() {
    let summary = Summary {
        files: 2,
        first: Some(1),
        entries: 3,
        last: Some((3, Hash::NONE, "2026-11-27T00:00:00.000000Z".to_owned())),
        checkpoints: 1,
        unsigned: 1,
        signers: [("spiffe://example.org/orders (0a)".to_owned(), 1)].into(),
        lost: 7,
        repairs: 1,
        torn: 5,
    };
    let zeros = "0".repeat(64);
    assert_eq!(
        text_of(&Ok(summary.clone()), &args(None)),
        format!(
            "fits: 3 entries in 2 files, 1 good checkpoint\n\
             begins with entry 1: what was before it is not here\n\
             head: {zeros} (entry 3, 2026-11-27T00:00:00.000000Z)\n\
             signed by spiffe://example.org/orders (0a): 1 checkpoint\n\
             1 entry comes after the last checkpoint: chained, not signed\n\
             whose SVIDs these are was not checked: name a bundle (--bundle)\n\
             whether the end was cut off was not checked: name a hash that was kept (--head)\n\
             the log says that 7 entries could not be kept\n\
             a torn end was taken out 1 time\n\
             5 bytes behind the last whole line: of a write under way, or cut short by a crash\n"
        )
    );
    let told = json_of(&Ok(summary), &args(Some("00")));
    assert_eq!(
        (&told["fits"], &told["head_checked"], &told["last"]),
        (&true.into(), &true.into(), &3.into())
    );
}

#[test]
fn the_place_of_a_mismatch_is_told() {
    let mismatch = || Mismatch::Entry {
        path: "a.jsonl".into(),
        line: 4,
        what: "wrong".to_owned(),
    };
    assert_eq!(
        text_of(&Err(mismatch()), &args(None)),
        "does not fit: a.jsonl:4: wrong\n"
    );
    let told = json_of(&Err(mismatch()), &args(None));
    assert_eq!((&told["file"], &told["line"]), (&"a.jsonl".into(), &4.into()));
}

#[test]
fn hashes_are_read_as_the_metric_and_the_log_have_them() {
    assert_eq!(parse_head("AABBCCDDEEFF"), Ok("aabbccddeeff".to_owned()));
    assert!(parse_head(&"0".repeat(64)).is_ok());
    for bad in ["", "aabbccddeef", "xabbccddeeff", &"0".repeat(65)] {
        assert!(parse_head(bad).unwrap_err().contains("printf"), "{bad}");
    }
}
