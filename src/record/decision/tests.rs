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
