//! Whatever the bytes: no panic, and what is taken for a leaf has one canonical ID with a path and is no signing
//! certificate as well.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svidecar::spiffe::SpiffeId;
use svidecar::spiffe::svid::{MAX_ID_BYTES, check_authority, check_intermediate, check_leaf, path_len};

fuzz_target!(|der: &[u8]| {
    let intermediate = check_intermediate(der);
    let authority = check_authority(der);
    let _ = path_len(der);
    if intermediate.is_ok() {
        assert_eq!(
            intermediate.ok(),
            authority.clone().ok(),
            "an intermediate may be an authority, too"
        );
    }
    match check_leaf(der) {
        Ok(leaf) => {
            let text = leaf.id.to_string();
            assert!(text.len() <= MAX_ID_BYTES);
            assert!(leaf.id.path().len() > 1);
            assert_eq!(SpiffeId::new(&text).as_ref(), Ok(&leaf.id));
            assert!(
                der.windows(text.len()).any(|part| part == text.as_bytes()),
                "the ID stands in the bytes"
            );
            assert!(authority.is_err(), "a leaf signs nothing");
        }
        Err(error) => assert!(
            !error.to_string().contains(char::is_control),
            "fit for a log line"
        ),
    }
});
