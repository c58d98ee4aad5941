//! Parse, print, parse again gives the same pattern; a pattern without wildcards matches the ID it spells, and only
//! IDs of its trust domain match.
#![no_main]

use libfuzzer_sys::fuzz_target;
use svidecar::spiffe::{IdPattern, SpiffeId, TrustDomain};

fuzz_target!(|text: &str| {
    let Ok(pattern) = text.parse::<IdPattern>() else {
        return;
    };
    let printed = pattern.to_string();
    assert_eq!(
        printed.parse().as_ref(),
        Ok(&pattern),
        "{text:?} is printed as {printed:?}"
    );
    if printed.contains('*') {
        return;
    }
    let id = SpiffeId::new(&printed).expect("a pattern without wildcards is an ID");
    assert!(pattern.matches(&id), "{printed:?} does not match itself");
    let elsewhere = TrustDomain::new("elsewhere.test").expect("a trust domain");
    if id.trust_domain() != &elsewhere {
        let segments: Vec<_> = id.path().split('/').skip(1).collect();
        if let Ok(other) = SpiffeId::from_segments(elsewhere, &segments) {
            assert!(!pattern.matches(&other), "{printed:?} matches {other}");
        }
    }
});
