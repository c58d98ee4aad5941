//! Ids as text, and what the record looks like from outside.

use serde_json::Value;

use super::*;

/// A denial with every field filled in.
pub(crate) fn denial() -> Decision {
    Decision {
        id: DecisionIds::new(0x4f2a_90c1_d3e7).next(),
        version: VERSION,
        time: SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500),
        kind: Kind::Admission,
        connection: 7,
        listener: "orders".into(),
        direction: Direction::Inbound,
        peer_addr: PeerAddr::Ip([10, 1, 2, 3].into(), 99),
        source: Some([10, 1, 2, 3].into()),
        peer_id: Some(Arc::new("spiffe://example.org/web".parse().unwrap())),
        own_id: Some(Arc::new("spiffe://example.org/orders".parse().unwrap())),
        serial: Some("0a1b".into()),
        verdict: Verdict::Deny,
        enforced: true,
        reason: Some(Reason::NoAllowRule),
        detail: Some("two words".into()),
        rule: Some("no-web".into()),
        description: Some("web must not".into()),
        audited: vec!["watch".into()],
        nearest: Some(Box::new(Nearest {
            rule: "storefront".into(),
            unmet: vec![Unmet {
                condition: "from",
                detail: "`a` is not `b`".into(),
            }],
        })),
        check: Some(Box::new(Check {
            certificate: Certificate::Intermediate(Some(2)),
            standard: "X509-SVID 4.3",
            rule: "SVID signing certificates MUST set `keyCertSign`",
        })),
        candidate: Some(Box::new(Candidate {
            verdict: Verdict::Allow,
            rule: Some("next".into()),
        })),
        budget: Some("batch".into()),
        policy_generation: 3,
        policy_hash: PolicyHash::of("00ff00ff00ff0123"),
    }
}

/// An admission of which nothing is known that need not be.
pub(crate) fn bare() -> Decision {
    Decision {
        source: None,
        peer_addr: PeerAddr::Unix,
        peer_id: None,
        own_id: None,
        serial: None,
        verdict: Verdict::Allow,
        reason: None,
        detail: None,
        rule: None,
        description: None,
        audited: Vec::new(),
        nearest: None,
        check: None,
        candidate: None,
        budget: None,
        policy_generation: 0,
        policy_hash: None,
        ..denial()
    }
}

#[test]
fn an_id_is_read_as_it_is_printed_and_no_other_way() {
    let ids = DecisionIds::new(u64::MAX);
    assert_eq!(ids.next().to_string(), "ffffffffffff-1");
    assert_eq!(ids.next().to_string(), "ffffffffffff-2");
    for text in [
        "4f2a90c1d3e7-17",
        "000000000000-1",
        "ffffffffffff-18446744073709551615",
    ] {
        let id: DecisionId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
    }
    for text in [
        "",
        "-",
        "17",
        "4f2a90c1d3e7",
        "4f2a90c1d3e7-",
        "4f2a90c1d3e7-0",
        "4f2a90c1d3e7-01",
        "4f2a90c1d3e7-+1",
        "4f2a90c1d3e7--1",
        "4f2a90c1d3e7-1 ",
        " 4f2a90c1d3e7-1",
        "4f2a90c1d3e7-18446744073709551616",
        "4F2A90C1D3E7-1",
        "4f2a90c1d3e-1",
        "4f2a90c1d3e77-1",
        "+f2a90c1d3e7-1",
        "4f2a90c1d3eg-1",
    ] {
        assert_eq!(text.parse::<DecisionId>(), Err(NoDecisionId), "{text}");
    }
}

#[test]
fn a_policy_is_known_by_the_beginning_of_its_hash() {
    let hash = |text: &str| PolicyHash::of(text).map(|hash| hash.to_string());
    assert_eq!(hash("00ff00ff00ff0123").as_deref(), Some("00ff00ff00ff"));
    assert_eq!(hash(""), None);
    assert_eq!(hash("00ff"), None);
}

#[test]
fn every_field_is_there_in_its_order_also_when_it_is_null() {
    for record in [denial(), bare()] {
        let text = serde_json::to_string(&record).unwrap();
        let mut at = 0;
        for field in FIELDS {
            let key = format!("\"{field}\":");
            at = text[at..].find(&key).map(|found| at + found).unwrap_or_else(|| {
                panic!("`{field}` is not in its place in {text}");
            });
        }
        let Value::Object(fields) = serde_json::from_str(&text).unwrap() else {
            panic!("no object: {text}")
        };
        assert_eq!(fields.len(), FIELDS.len(), "{text}");
    }
}

#[test]
fn a_nearest_miss_reads_as_a_sentence() {
    let unmet = |condition, detail: &str| Unmet {
        condition,
        detail: detail.into(),
    };
    let nearest = Nearest {
        rule: "web".into(),
        unmet: vec![
            unmet("from", "`a` is not `b`"),
            unmet("expires", "the rule ended"),
        ],
    };
    assert_eq!(
        nearest.to_string(),
        "rule `web` but for `from`: `a` is not `b`, and `expires`: the rule ended"
    );
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(&*bounded("short"), "short");
    let long = bounded(&"ä".repeat(MAX_TEXT));
    assert!(long.len() <= MAX_TEXT + '…'.len_utf8(), "{}", long.len());
    assert!(long.ends_with("ä…"));
}

/// An open connection keeps its record: what it takes counts some ten thousand times.
#[test]
fn a_record_is_small_while_nobody_is_denied() {
    assert!(size_of::<Decision>() <= 320, "{}", size_of::<Decision>());
    assert!(bare().weight() < 400, "{}", bare().weight());
    assert!(denial().weight() > bare().weight());
}

const SCHEMA: &str = include_str!("../../../config/schema/decision.schema.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Panics with what is wrong where a record is not of the published form.
pub(crate) fn must_fit_the_schema(record: &Value) {
    static VALIDATOR: std::sync::OnceLock<jsonschema::Validator> = std::sync::OnceLock::new();
    let validator = VALIDATOR.get_or_init(|| jsonschema::draft202012::new(&schema()).unwrap());
    let wrong: Vec<_> = validator.iter_errors(record).map(|e| e.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:#?} in {record:#}");
}

#[test]
fn records_are_of_the_published_form() {
    for record in [denial(), bare()] {
        must_fit_the_schema(&serde_json::to_value(record).unwrap());
    }
    for kind in Kind::ALL {
        must_fit_the_schema(
            &serde_json::to_value(Decision {
                kind: *kind,
                ..bare()
            })
            .unwrap(),
        );
    }
    for reason in Reason::ALL {
        let reason = Some(*reason);
        must_fit_the_schema(&serde_json::to_value(Decision { reason, ..bare() }).unwrap());
    }
    for certificate in [
        Certificate::None,
        Certificate::Leaf,
        Certificate::Intermediate(None),
        Certificate::Intermediate(Some(3)),
        Certificate::Authority,
        Certificate::Chain,
    ] {
        let check = Some(Box::new(Check {
            certificate,
            standard: "X509-SVID 4.3",
            rule: "a rule",
        }));
        must_fit_the_schema(&serde_json::to_value(Decision { check, ..bare() }).unwrap());
    }
}

/// The properties are exactly the fields, all of them required, and so on inside; the words are those of the closed sets.
#[test]
fn the_published_form_says_no_more_and_no_less_than_the_record_has() {
    fn keys(value: &Value) -> Vec<&String> {
        value.as_object().unwrap().keys().collect()
    }
    let (schema, record) = (schema(), serde_json::to_value(denial()).unwrap());
    let unmet = "/properties/nearest/properties/unmet/items";
    for (place, shown) in [
        ("", ""),
        ("/properties/nearest", "/nearest"),
        (unmet, "/nearest/unmet/0"),
        ("/properties/check", "/check"),
        ("/properties/candidate", "/candidate"),
    ] {
        let object = schema.pointer(place).unwrap();
        assert_eq!(
            keys(&object["properties"]),
            keys(record.pointer(shown).unwrap()),
            "{place}"
        );
        let mut required: Vec<_> = object["required"].as_array().unwrap().iter().collect();
        required.sort_by_key(|name| name.as_str());
        assert_eq!(required, keys(&object["properties"]), "{place}");
        assert_eq!(object["additionalProperties"], false, "{place}");
        for (name, property) in object["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{place}: {name}");
        }
    }
    let words = |field: &str| schema["properties"][field]["enum"].clone();
    let list = |all: Vec<&'static str>| serde_json::json!(all);
    assert_eq!(
        words("kind"),
        list(Kind::ALL.iter().map(|w| w.as_str()).collect())
    );
    assert_eq!(
        words("direction"),
        list(Direction::ALL.iter().map(|w| w.as_str()).collect())
    );
    assert_eq!(words("verdict"), serde_json::json!(["allow", "deny"]));
    let mut reasons: Vec<_> = Reason::ALL.iter().map(|w| Some(w.as_str())).collect();
    reasons.push(None);
    assert_eq!(words("reason"), serde_json::json!(reasons));
    assert_eq!(schema["properties"]["version"]["const"], VERSION);
}
