//! Parse, print, parse again gives the same ID, of the characters that the standard allows; an ID is a pattern that matches
//! it, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svidecar::spiffe::{IdPattern, SpiffeId};

fuzz_target!(|text: &str| {
    let Ok(id) = SpiffeId::new(text) else { return };
    let printed = id.to_string();
    assert_eq!(
        SpiffeId::new(&printed).as_ref(),
        Ok(&id),
        "{text:?} is printed as {printed:?}"
    );
    let domain = id.trust_domain_name();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    assert!(
        !domain.is_empty() && domain.len() <= 255 && domain.bytes().all(plain),
        "{printed:?}"
    );
    for segment in id.path().split('/').skip(1) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let dots = segment == "." || segment == "..";
        assert!(
            !segment.is_empty() && !dots && segment.bytes().all(plain),
            "{printed:?}"
        );
    }
    // What is longer than an ID may be (SPIFFE-ID section 2.3) is refused where certificates are read.
    if id.path().is_empty() || printed.len() > 2048 {
        assert!(
            printed.parse::<IdPattern>().is_err(),
            "a pattern needs a path and has bounds"
        );
        return;
    }
    let pattern: IdPattern = printed.parse().expect("an ID with a path is a pattern");
    assert!(pattern.matches(&id) && pattern.distance(&id) == 0);
    assert_eq!(pattern.as_exact().as_ref(), Some(&id));
    let longer = SpiffeId::new(format!("{printed}-")).ok();
    assert!(
        !longer.is_some_and(|other| pattern.matches(&other)),
        "{printed:?}"
    );
});
