//! What is left of records.

mod finding;

use serde_json::json;

use super::*;
use crate::config::settings::RedactionProfile;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// What can be no address.
const SPARED: &str = "version 1.2.3, at 12:30:45.123, 2026-11-27T01:10:30.500000Z, a:b, aa:bb:cc:dd:ee:ff, 4711, h2::codec=debug, \
                      svidecar::connection, 1.2.840.113549.1.1.11, 300.1.2.3";

fn rule(fields: &[&str], find: RedactionFind, action: Redact) -> RedactionRule {
    let fields: Vec<_> = fields.iter().map(|field| (*field).to_owned()).collect();
    RedactionRule {
        fields: (!fields.is_empty()).then_some(fields),
        find,
        action,
    }
}

fn keep(keep: usize) -> Redact {
    Redact::KeepPrefix {
        keep,
        ipv4: 24,
        ipv6: 48,
    }
}

fn redacted(rules: &[RedactionRule], field: &str, value: Value) -> Value {
    let mut value = value;
    Redactor::new(rules, Some(KEY)).unwrap().apply(field, &mut value);
    value
}

#[test]
fn each_action_on_each_kind() {
    use RedactionFind::{Ip, Pattern, SpiffeId, Value as Whole};
    let hash = |text: &str| Redactor::new(&[], Some(KEY)).unwrap().hashed(text);
    let id = "`spiffe://example.org/ns/shop/sa/web` is not `spiffe://example.org/**`.";
    for (find, action, text, left) in [
        (Whole, Redact::Mask, "a b", "***".to_owned()),
        (Whole, Redact::Hash, "a b", hash("a b")),
        (Whole, keep(2), "grüße", "gr…".to_owned()),
        (Whole, keep(9), "grüße", "grüße".to_owned()),
        (Whole, Redact::Mask, "", String::new()),
        (Ip, keep(0), "10.1.2.3:99", "10.1.2.0/24".to_owned()),
        (Ip, keep(0), "[2001:db8:1:2::3]:99", "2001:db8:1::/48".to_owned()),
        (Ip, keep(0), "::ffff:10.1.2.3", "10.1.2.0/24".to_owned()),
        (
            Ip,
            Redact::Mask,
            "10.1.2.3 is not in 10.9.0.0/16.",
            "*** is not in ***.".to_owned(),
        ),
        (
            Ip,
            Redact::Mask,
            "from fe80::1%eth0, and [::1]",
            "from ***, and ***".to_owned(),
        ),
        (Ip, Redact::Drop, "at 10.1.2.3!", "at !".to_owned()),
        (Ip, Redact::Hash, "10.1.2.3:99", hash("10.1.2.3")),
        (Ip, Redact::Mask, SPARED, SPARED.to_owned()),
        (SpiffeId, Redact::Mask, id, "`***` is not `***`.".to_owned()),
        (
            SpiffeId,
            keep(2),
            id,
            "`spiffe://example.org/ns/shop/…` is not `spiffe://example.org/**`.".to_owned(),
        ),
        (
            SpiffeId,
            keep(0),
            "spiffe://example.org/a.",
            "spiffe://example.org/….".to_owned(),
        ),
        (
            SpiffeId,
            keep(0),
            "spiffe://example.org",
            "spiffe://example.org".to_owned(),
        ),
        (
            SpiffeId,
            Redact::Hash,
            "spiffe://example.org/a",
            format!("spiffe://example.org/{}", hash("/a")),
        ),
        (
            Pattern("order [0-9]+".to_owned()),
            Redact::Mask,
            "order 12 of order 7",
            "*** of ***".to_owned(),
        ),
        (Pattern("x*".to_owned()), Redact::Mask, "axxb", "a***b".to_owned()),
    ] {
        let rules = [rule(&[], find, action)];
        assert_eq!(redacted(&rules, "detail", text.into()), left, "{rules:?} {text}");
    }
}

/// `peer_id` of a verdict is `peer` and `actor` of its entry.
#[test]
fn a_rule_about_a_field_is_about_all_its_names() {
    let id = "spiffe://example.org/ada";
    for (named, touched, left) in [
        ("peer_id", &["peer_id", "peer", "actor"][..], &["own_id"][..]),
        ("peer", &["peer_id", "peer", "actor"], &["own_id"]),
        ("own_id", &["own_id", "actor"], &["peer", "peer_id"]),
        ("actor", &["actor"], &["peer", "peer_id", "own_id"]),
    ] {
        let rules = [rule(&[named], RedactionFind::Value, Redact::Mask)];
        for field in touched {
            assert_eq!(redacted(&rules, field, id.into()), "***", "{named}: {field}");
        }
        for field in left {
            assert_eq!(redacted(&rules, field, id.into()), id, "{named}: {field}");
        }
        // A word of a closed set.
        assert_eq!(redacted(&rules, "actor", "admin_token".into()), "admin_token");
        let list: Vec<_> = touched.iter().map(|field| format!("`{field}`")).collect();
        let words = in_words(&rules).remove(0);
        assert!(list.iter().all(|field| words.contains(field)), "{words}");
        assert!(words.starts_with(&format!("`{named}`")), "{words}");
    }
}

#[test]
fn numbers_are_taken_as_they_are_written_and_words_within_stay() {
    let hash = Redactor::new(&[], Some(KEY)).unwrap().hashed("4711");
    let value = json!({ "n": 4711, "b": true, "none": null });
    for (find, action, left) in [
        (
            RedactionFind::Value,
            Redact::Mask,
            json!({ "n": "***", "b": "***", "none": null }),
        ),
        (
            RedactionFind::Pattern("[0-9]+".to_owned()),
            Redact::Hash,
            json!({ "n": hash, "b": true, "none": null }),
        ),
        (
            RedactionFind::Pattern("^47".to_owned()),
            Redact::Drop,
            json!({ "n": "11", "b": true, "none": null }),
        ),
        (RedactionFind::Value, Redact::Drop, Value::Null),
        (
            RedactionFind::Value,
            keep(4),
            json!({ "n": 4711, "b": true, "none": null }),
        ),
        (RedactionFind::Ip, Redact::Mask, value.clone()),
    ] {
        let rules = [rule(&["data"], find, action)];
        assert_eq!(redacted(&rules, "data", value.clone()), left, "{rules:?}");
    }
    let all = [rule(&[], RedactionFind::Value, Redact::Mask)];
    for (field, value, left) in [
        (
            "nearest",
            json!({ "rule": "r", "unmet": [{ "condition": "from", "detail": "d" }] }),
            json!({ "rule": "***", "unmet": [{ "condition": "from", "detail": "***" }] }),
        ),
        (
            "candidate",
            json!({ "verdict": "deny", "rule": "r" }),
            json!({ "verdict": "deny", "rule": "***" }),
        ),
        (
            "check",
            json!({ "certificate": "leaf", "standard": "s", "rule": "r" }),
            json!({ "certificate": "leaf", "standard": "***", "rule": "***" }),
        ),
    ] {
        assert_eq!(redacted(&all, field, value), left, "{field}");
    }
}

#[test]
fn rules_are_applied_in_order_to_the_fields_they_name() {
    let rules = [
        rule(&["rule", "detail"], RedactionFind::Value, Redact::Mask),
        rule(&["serial", "nearest"], RedactionFind::Value, Redact::Drop),
        rule(&[], RedactionFind::Ip, Redact::Mask),
    ];
    assert_eq!(redacted(&rules, "rule", "a".into()), "***");
    assert_eq!(redacted(&rules, "serial", "0a".into()), Value::Null);
    assert_eq!(redacted(&rules, "nearest", json!({ "rule": "a" })), Value::Null);
    assert_eq!(redacted(&rules, "source", "10.1.2.3".into()), "***");
    let nested = json!({ "unmet": [{ "condition": "source", "detail": "`10.1.2.3` is out" }], "n": 1 });
    let left = json!({ "unmet": [{ "condition": "source", "detail": "`***` is out" }], "n": 1 });
    assert_eq!(redacted(&rules, "check", nested), left);
    let all = [rule(&[], RedactionFind::Value, Redact::Drop)];
    for field in UNTOUCHED {
        assert_eq!(redacted(&all, field, "kept".into()), "kept", "{field}");
    }
}

#[test]
fn profiles_leave_no_address_and_no_path_of_an_id() {
    let record = json!({
        "peer": "spiffe://example.org/people/ada",
        "peer_addr": "10.1.2.3:4711",
        "source": "2001:db8:1:2::3",
        "serial": "0a1b",
        "detail": "`spiffe://example.org/people/ada` from 10.1.2.3 is not `spiffe://example.org/people/bob`",
        "nearest": { "rule": "r", "unmet": [{ "condition": "from", "detail": "`spiffe://example.org/people/ada`" }] },
    });
    for profile in RedactionProfile::ALL {
        let redactor = Redactor::new(&profile::rules(*profile), Some(KEY)).unwrap();
        let mut left = record.clone();
        for (field, value) in left.as_object_mut().unwrap() {
            redactor.apply(field, value);
        }
        let text = left.to_string();
        for personal in ["people", "ada", "bob", "10.1.2.3", "4711", "1:2::3", "0a1b"] {
            assert!(!text.contains(personal), "{profile:?}: {personal} in {text}");
        }
        // Entries of one peer can still be told to be of one.
        let peer = left["peer"].as_str().unwrap();
        assert!(peer.starts_with("spiffe://example.org/hmac:"), "{peer}");
        assert!(left["detail"].as_str().unwrap().contains(peer), "{text}");
    }
    let other = Redactor::new(
        &profile::rules(RedactionProfile::Gdpr),
        Some(b"another key of some length"),
    )
    .unwrap();
    let mut value = record["peer"].clone();
    other.apply("peer", &mut value);
    assert_ne!(
        value,
        redacted(
            &profile::rules(RedactionProfile::Gdpr),
            "peer",
            record["peer"].clone()
        )
    );
}

/// The file of verdicts is redacted as the audit log is, and fits its schema likewise.
#[test]
fn what_is_left_of_a_verdict_fits_its_schema() {
    use crate::record::decision::{FIELDS, tests::denial};

    let schema = include_str!("../../config/schema/decision.schema.json");
    let validator = jsonschema::draft202012::new(&serde_json::from_str(schema).unwrap()).unwrap();
    let whole = |action| vec![rule(&[], RedactionFind::Value, action)];
    let mut all = vec![
        whole(Redact::Mask),
        whole(Redact::Hash),
        whole(Redact::Drop),
        whole(keep(1)),
    ];
    all.extend(RedactionProfile::ALL.iter().map(|named| profile::rules(*named)));
    for rules in all {
        let mut line = Vec::new();
        let redactor = Redactor::new(&rules, Some(KEY)).unwrap();
        redactor.write_json(&denial(), &FIELDS, &mut line).unwrap();
        let told: Value = serde_json::from_slice(&line).unwrap();
        let problems: Vec<_> = validator.iter_errors(&told).map(|e| e.to_string()).collect();
        assert_eq!(problems, Vec::<String>::new(), "{rules:?} {told:#}");
    }
}

#[test]
fn what_cannot_be_applied_is_refused() {
    let hashing = [rule(&[], RedactionFind::Ip, Redact::Hash)];
    assert_eq!(Redactor::new(&hashing, None).unwrap_err(), RedactorError::NoKey);
    let bad = [rule(&[], RedactionFind::Pattern("(".to_owned()), Redact::Mask)];
    assert!(matches!(
        Redactor::new(&bad, None),
        Err(RedactorError::Pattern { .. })
    ));
    assert!(Redactor::new(&[], None).is_ok());
}

#[test]
fn rules_in_words() {
    let words = in_words(&profile::rules(RedactionProfile::Gdpr));
    assert_eq!(
        words,
        [
            "all fields: every SPIFFE ID keeps its trust domain; its path becomes a keyed hash",
            "all fields: every IP address becomes its network (IPv4 /24, IPv6 /48), without its port",
            "`serial`: the whole value becomes a keyed hash",
        ]
    );
}
