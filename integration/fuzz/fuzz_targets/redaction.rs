//! Whatever a peer makes of a text: with addresses and SPIFFE IDs masked, none of those that were put into it stays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use svidecar::config::settings::{Redact, RedactionFind, RedactionRule};
use svidecar::redaction::Redactor;

fuzz_target!(|text: &str| {
    let rule = |find| RedactionRule {
        fields: None,
        find,
        action: Redact::Mask,
    };
    let rules = [rule(RedactionFind::SpiffeId), rule(RedactionFind::Ip)];
    let redactor = Redactor::new(&rules, None).expect("rules without a pattern and without a key");
    let redacted = |text: String| {
        let mut value = Value::from(text);
        redactor.apply("detail", &mut value);
        value.as_str().expect("a text stays one").to_owned()
    };
    // The fuzzer learns what is looked for, and puts it where it is no ID and no address.
    if text.contains("secret-name") || text.contains("192.0.2.77") {
        return;
    }
    // In a word of its own, whatever stands around it.
    let around = redacted(format!(
        "{text} spiffe://example.test/secret-name 192.0.2.77 {text}"
    ));
    assert!(
        !around.contains("secret-name") && !around.contains("192.0.2.77"),
        "{around:?}"
    );
});
