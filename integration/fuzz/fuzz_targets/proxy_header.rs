//! A PROXY header is read the same whatever comes behind it, is incomplete up to its last byte, and what is wrong stays
//! wrong. What a header says, written again, says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svidecar::proxy_protocol::{Caller, MAX_HEADER, Origin, Progress, encode_v1, encode_v2, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let mut first = None;
    for end in 0..bytes.len() {
        let read = parse(&bytes[..end]);
        if read != Ok(Progress::Incomplete) {
            first = Some(end);
            assert_eq!(read, whole, "more bytes than {end} change the answer");
            break;
        }
    }
    match whole {
        Ok(Progress::Complete { origin, length }) => {
            assert!(length <= bytes.len() && length <= MAX_HEADER);
            assert_eq!(
                first.unwrap_or(bytes.len()),
                length,
                "decided by other bytes than its own"
            );
            if let Origin::Of { source, destination } = origin {
                // Short enough that what is written can be read.
                let caller = Caller {
                    custom: Some((0xd0, &bytes[..length.min(64)])),
                    ..Caller::default()
                };
                let again = encode_v2(Some((source, destination)), &caller).expect("it fits");
                for header in [encode_v1(source, destination), again] {
                    let length = header.len();
                    let Ok(Progress::Complete {
                        origin: told,
                        length: read,
                    }) = parse(&header)
                    else {
                        panic!("what is written is not read: {header:?}");
                    };
                    assert_eq!(read, length);
                    // Of two families both are written as IPv6.
                    let Origin::Of {
                        source: s,
                        destination: d,
                    } = told
                    else {
                        panic!("{told:?}");
                    };
                    let same = |a: std::net::SocketAddr, b: std::net::SocketAddr| {
                        (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
                    };
                    assert!(same(s, source) && same(d, destination), "{told:?} for {origin:?}");
                }
            }
        }
        Ok(Progress::Incomplete) => assert!(bytes.len() < MAX_HEADER, "a header that never ends"),
        Err(_) => {}
    }
});
