//! Any bytes as the sealed stream: no panic, no record longer than the standard allows, and none that opens.
#![no_main]

mod tls;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use svidecar::tls::record::{HEADER, MAX_RECORD, Opener, RecordError, record_length};

thread_local! {
    static OPENER: RefCell<Opener> = RefCell::new({
        let secrets = tls::established(true).1;
        Opener::new(secrets.rx.0, &secrets.rx.1).unwrap()
    });
}

fuzz_target!(|input: &[u8]| {
    let mut stream = input.to_vec();
    let mut rest = stream.as_mut_slice();
    loop {
        match record_length(rest) {
            Ok(None) => return assert!(rest.len() < HEADER),
            Ok(Some(length)) => {
                assert!((HEADER..=MAX_RECORD).contains(&length));
                let Some((record, after)) = rest.split_at_mut_checked(length) else {
                    return;
                };
                // A record that does not open uses no number: the opener serves again.
                let opened = OPENER.with_borrow_mut(|opener| opener.open(record));
                assert_eq!(opened, Err(RecordError::BadMac));
                rest = after;
            }
            Err(RecordError::UnexpectedType(content_type)) => return assert_ne!(content_type, 23),
            Err(error) => return assert_eq!(error, RecordError::Overflow),
        }
    }
});
