//! What is left of records.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::settings::RedactionProfile;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

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
        (
            Ip,
            Redact::Mask,
            "version 1.2.3, 12:30, a:b, 1.2.3.4.5, ab/10.1.2.3",
            "version 1.2.3, 12:30, a:b, 1.2.3.4.5, ab/10.1.2.3".to_owned(),
        ),
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

proptest! {
    /// Whatever a text holds, no address and no path of an ID stays in it, and redacting again changes nothing more.
    #[test]
    fn nothing_stays(before in "[a-z :,`./0-9]{0,20}", a in any::<[u8; 4]>(), after in "[ ,`!]?[a-z ]{0,9}") {
        let ip = IpAddr::from(a);
        let text = format!("{before} {ip} spiffe://td/secret{after}");
        let rules = [rule(&[], RedactionFind::Ip, Redact::Mask), rule(&[], RedactionFind::SpiffeId, Redact::Mask)];
        let left = redacted(&rules, "detail", text.into());
        let shown = left.as_str().unwrap();
        prop_assert!(!shown.contains("secret") && !shown.contains(&ip.to_string()), "{}", shown);
        prop_assert_eq!(&redacted(&rules, "detail", left.clone()), &left);
    }
}
