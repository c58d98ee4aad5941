//! Tables for expectations, recorded decisions, differences and suggestions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::diff::diff;
use super::expectations::{self, Subject as Tested};
use super::judge::{Coverage, Subject, judge};
use super::recorded::{Problem, ReadError, Recorded};
use super::suggest::{Scope, suggest};
use crate::policy::{self, Admission, DenyList, Policy, Surroundings, deny_list};
use crate::record::decision::VERSION;
use crate::spiffe::TrustDomain;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn policy(text: &str) -> Policy {
    let file = policy::file::read("p.yaml", text);
    policy::compile(vec![file], Surroundings::default(), now())
        .unwrap()
        .0
}

fn admission(rules: &str) -> Admission {
    Admission::new(Arc::new(policy(rules)), Arc::new(DenyList::empty()))
}

/// One line of a decisions file; `changes` overrides its fields.
fn line(number: u32, changes: &serde_json::Value) -> String {
    let mut line = json!({
        "version": VERSION,
        "id": format!("0123456789ab-{number}"),
        "time": format!("2026-11-26T10:00:{number:02}.000000Z"),
        "kind": "admission",
        "listener": "orders",
        "direction": "inbound",
        "peer_addr": "10.0.0.7:40000",
        "source": null,
        "peer_id": "spiffe://example.org/storefront",
        "own_id": "spiffe://example.org/orders",
        "verdict": "allow",
        "enforced": true,
        "something_new": 1,
    });
    for (key, value) in changes.as_object().unwrap() {
        line[key] = value.clone();
    }
    format!("{line}\n")
}

fn recorded(lines: &[serde_json::Value]) -> Recorded {
    let text: String = lines
        .iter()
        .zip(1..)
        .map(|(changes, number)| line(number, changes))
        .collect();
    Recorded::read(text.as_bytes(), "d.jsonl").unwrap()
}

#[test]
fn equal_questions_are_counted() {
    let recorded = recorded(&[
        json!({}),
        json!({ "peer_addr": "10.0.0.7:40001" }),
        json!({ "peer_addr": "[::ffff:10.0.0.7]:40001", "verdict": "deny" }),
        json!({ "peer_addr": "192.0.2.1:1", "source": "10.0.0.7", "verdict": "deny", "enforced": false }),
        json!({ "peer_addr": "unix" }),
        json!({ "direction": "outbound" }),
        json!({ "kind": "handshake", "peer_id": null }),
        json!({ "kind": "open_connection", "verdict": "deny" }),
    ]);
    assert_eq!(recorded.passed_over, 3);
    assert_eq!(recorded.decisions(), 5);
    let found: Vec<_> = recorded
        .questions
        .iter()
        .map(|(question, answers)| {
            (
                question.to_string(),
                answers.count,
                answers.admitted,
                &*answers.last_id,
            )
        })
        .collect();
    let peer = "spiffe://example.org/storefront to `orders`";
    assert_eq!(
        found,
        [
            (peer.to_owned(), 1, 1, "0123456789ab-5"),
            (format!("{peer} from 10.0.0.7"), 4, 3, "0123456789ab-4"),
        ]
    );
    let (first, last) = recorded.span().unwrap();
    assert_eq!(
        (first, last),
        ("2026-11-26T10:00:01.000000Z", "2026-11-26T10:00:05.000000Z")
    );
}

#[test]
fn what_is_no_record_is_told_with_its_line() {
    let good = line(1, &json!({}));
    let long = "x".repeat(1 << 20);
    type Is = fn(&Problem) -> bool;
    let table: &[(String, Is)] = &[
        ("rules: []\n".to_owned(), |p| matches!(p, Problem::Json(_))),
        ("{\"version\": 99}\n".to_owned(), |p| {
            matches!(p, Problem::Version { found: 99 })
        }),
        (line(2, &json!({ "version": 99 })), |p| {
            matches!(p, Problem::Version { found: 99 })
        }),
        (line(2, &json!({ "peer_id": "no" })), |p| {
            matches!(p, Problem::Value { field: "peer_id", .. })
        }),
        (line(2, &json!({ "own_id": "no" })), |p| {
            matches!(p, Problem::Value { field: "own_id", .. })
        }),
        (line(2, &json!({ "peer_addr": "no" })), |p| {
            matches!(
                p,
                Problem::Value {
                    field: "peer_addr",
                    ..
                }
            )
        }),
        (line(2, &json!({ "source": "no" })), |p| {
            matches!(p, Problem::Value { field: "source", .. })
        }),
        (line(2, &json!({ "listener": "a]\nb" })), |p| {
            matches!(
                p,
                Problem::Value {
                    field: "listener",
                    ..
                }
            )
        }),
        (long, |p| matches!(p, Problem::TooLong)),
    ];
    for (bad, is_it) in table {
        let text = format!("{good}\n{bad}");
        match Recorded::read(text.as_bytes(), "d.jsonl") {
            Err(ReadError::Line { line: 3, problem, .. }) if is_it(&problem) => {}
            other => panic!("{}: {other:?}", bad.get(..80).unwrap_or(bad)),
        }
    }
}

const OLD: &str = "rules:
  - { name: everybody, action: allow, from: ['spiffe://example.org/**'] }
";
const NEW: &str = "rules:
  - { name: shop, action: allow, to: [orders], from: ['spiffe://example.org/storefront'] }
  - { name: partner, action: allow, from: ['spiffe://partner.example/**'], source: [10.0.0.0/8] }
";

#[test]
fn a_difference_is_told_by_identity_with_both_rules() {
    let recorded = recorded(&[
        json!({}),
        json!({ "peer_id": "spiffe://example.org/reports" }),
        json!({ "peer_id": "spiffe://example.org/reports", "peer_addr": "10.0.0.8:1" }),
        json!({ "peer_id": "spiffe://partner.example/a", "verdict": "deny" }),
        json!({ "peer_id": "spiffe://partner.example/a", "peer_addr": "192.0.2.1:1", "verdict": "deny" }),
        json!({ "direction": "outbound" }),
    ]);
    let diff = diff(&recorded, &admission(OLD), &admission(NEW), now());
    assert_eq!(
        (
            diff.decisions,
            diff.changed,
            diff.by_another_rule,
            diff.passed_over
        ),
        (5, 3, 1, 1)
    );
    assert_eq!(
        diff.to_string(),
        "\
5 decisions from 2026-11-26T10:00:01.000000Z to 2026-11-26T10:00:05.000000Z: 3 would change, of 2 identities

spiffe://example.org/reports
  allow -> deny at `orders`, seen 2 times, last 2026-11-26T10:00:03.000000Z (0123456789ab-3)
    from 10.0.0.7, 10.0.0.8
    old: allow by rule `everybody` (p.yaml:2)
    new: deny: no allow rule of listener `orders` names it

spiffe://partner.example/a
  deny -> allow at `orders`, seen once, last 2026-11-26T10:00:04.000000Z (0123456789ab-4)
    from 10.0.0.7
    old: deny: no allow rule of listener `orders` names it
    new: allow by rule `partner` (p.yaml:3)

1 decision would have the same verdict by another rule"
    );
    let none = super::diff::diff(&recorded, &admission(OLD), &admission(OLD), now());
    assert!(none.to_string().ends_with(": none would change"), "{none}");
}

#[test]
fn rules_are_compared_by_what_they_say() {
    let old = policy(
        "rules:
  - { name: gone, action: allow, from: ['spiffe://example.org/a'] }
  - { name: same, description: before, action: allow, from: ['spiffe://example.org/a', 'spiffe://example.org/b'] }
  - { name: other, action: allow, from: ['spiffe://example.org/a'], expires: 2036-01-01T00:00:00Z }
",
    );
    let new = policy(
        "ids: { both: ['spiffe://example.org/b', 'spiffe://example.org/a'] }
rules:
  - { name: other, action: deny, from: ['spiffe://example.org/a', 'spiffe://example.org/c'], source: [10.0.0.0/8] }
  - { name: same, action: allow, from: [$both] }
  - { name: come, action: audit }
",
    );
    assert_eq!(
        super::rules::rules(&old, &new).to_string(),
        "\
- gone (p.yaml:2)
+ come (p.yaml:5)
~ other
    action: allow -> deny
    from: spiffe://example.org/a -> spiffe://example.org/a, spiffe://example.org/c
    source: (left out) -> 10.0.0.0/8
    expires: 2036-01-01T00:00:00.000000Z -> (left out)"
    );
    assert_eq!(
        super::rules::rules(&new, &new).to_string(),
        "no rule says anything else"
    );
}

#[test]
fn a_suggestion_admits_exactly_what_was_seen() {
    let recorded = recorded(&[
        json!({}),
        json!({ "listener": "stock" }),
        json!({ "peer_id": "spiffe://example.org/web", "listener": "stock" }),
        json!({ "peer_id": "spiffe://example.org/web", "peer_addr": "10.0.0.9:1" }),
        json!({ "peer_id": "spiffe://example.org/batch", "peer_addr": "unix" }),
        json!({ "peer_id": "spiffe://example.org/tried", "verdict": "deny", "enforced": false }),
        json!({ "peer_id": "spiffe://example.org/refused", "verdict": "deny" }),
    ]);
    let all_scopes = [false, true]
        .into_iter()
        .flat_map(|refused| [false, true].map(|sources| Scope { refused, sources }));
    for scope in all_scopes {
        let text = suggest(&recorded, scope, "d.jsonl\nrules: []");
        let admission = admission(&text);
        for (question, answers) in &recorded.questions {
            // The same question from another address.
            for source in [question.source, Some("203.0.113.1".parse().unwrap()), None] {
                let facts = policy::Facts {
                    listener: &question.listener,
                    peer: &question.peer,
                    source,
                    own_trust_domain: &question.own_trust_domain,
                    certificate: None,
                };
                let wanted = (answers.admitted > 0 || scope.refused)
                    && (!scope.sources || source == question.source || question.source.is_none());
                let outcome = admission.evaluate(&facts, now());
                assert_eq!(outcome.allow, wanted, "{scope:?} {question} {source:?}\n{text}");
            }
        }
        let stranger = Recorded::default();
        assert!(suggest(&stranger, scope, "x").ends_with("rules: []\n"));
    }
    let text = suggest(&recorded, Scope::default(), "d.jsonl");
    let rules: Vec<&str> = text.lines().skip_while(|line| line.starts_with('#')).collect();
    assert_eq!(
        rules.join("\n"),
        r#"rules:
  - name: suggested-1-2-peers-to-orders
    description: seen 2 times
    action: allow
    to: ["orders"]
    from:
      - "spiffe://example.org/batch"
      - "spiffe://example.org/tried"
  - name: suggested-2-2-peers-to-2-listeners
    description: seen 4 times
    action: allow
    to: ["orders", "stock"]
    from:
      - "spiffe://example.org/storefront"
      - "spiffe://example.org/web""#
    );
}

const TESTS: &str = "
policy: p.yaml
trust_domain: example.org
at: 2027-01-15T08:00:00Z
tests:
  - { name: one, from: spiffe://example.org/storefront, to: orders, expect: allow, by: shop }
  - { name: two, from: spiffe://example.org/reports, to: orders, expect: deny, reason: no_allow_rule }
  - { name: three, from: spiffe://example.org/reports, to: orders, expect: allow }
  - { name: four, from: spiffe://example.org/storefront, to: orders, expect: allow, by: partner }
  - { name: five, from: spiffe://example.org/storefront, to: orders, expect: deny,
      certificate: { serial: '0A:1b' }, by: stolen, reason: deny_list }
";

#[test]
fn expectations_are_judged_and_covered() {
    let tests = expectations::read("p.test.yaml", TESTS).unwrap();
    let list = deny_list::read("deny.yaml", "deny: [{ name: stolen, serials: ['0a1b'] }]");
    let subject = Subject {
        admission: Admission::new(
            Arc::new(policy(NEW)),
            Arc::new(deny_list::compile(list, now()).unwrap().0),
        ),
        own_trust_domain: Some(TrustDomain::new("example.org").unwrap()),
        listeners: None,
    };
    let mut coverage = Coverage::default();
    let results: Vec<Option<String>> = tests
        .tests
        .iter()
        .map(|test| {
            judge(&subject, test, now(), &mut coverage)
                .err()
                .map(|failure| failure.message)
        })
        .collect();
    let place = "(p.yaml:2)";
    assert_eq!(
        results,
        [
            None,
            None,
            Some("expected allow, got deny: no allow rule of listener `orders` names it".to_owned()),
            Some(format!(
                "expected allow by `partner`, got allow by rule `shop` {place}"
            )),
            None,
        ]
    );
    let untouched: Vec<_> = coverage
        .untouched(&subject)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(untouched, [Arc::<str>::from("partner")]);

    let with_listeners = Subject {
        listeners: Some(vec!["order".into()]),
        ..subject
    };
    let failure = judge(&with_listeners, &tests.tests[0], now(), &mut coverage).unwrap_err();
    assert_eq!(
        failure.message,
        "`orders` is no inbound listener of the config; did you mean `order`?"
    );
}

#[test]
fn without_our_trust_domain_a_rule_that_asks_for_it_has_no_answer() {
    let text = "policy: p.yaml\ntests: [{ name: a, from: spiffe://b.example/x, to: orders, expect: allow }]";
    let tests = expectations::read("p.test.yaml", text).unwrap();
    let subject = |rules| Subject {
        admission: admission(rules),
        own_trust_domain: None,
        listeners: None,
    };
    let mut coverage = Coverage::default();
    let own = subject("rules: [{ name: own, action: allow }]");
    let failure = judge(&own, &tests.tests[0], now(), &mut coverage).unwrap_err();
    assert!(
        failure.message.starts_with("rule `own` has no `from`"),
        "{}",
        failure.message
    );
    let any = subject("rules: [{ name: any, action: allow, from: ['spiffe://b.example/**'] }]");
    judge(&any, &tests.tests[0], now(), &mut coverage).unwrap();
}

#[test]
fn bad_files_of_expectations_are_told_with_their_place() {
    let test = |rest: &str| {
        format!("config: c.yaml\ntests:\n  - name: t\n    from: spiffe://a/b\n    to: o\n{rest}")
    };
    let table = [
        (String::new(), "the file is empty"),
        ("tests: [1]".to_owned(), "does not say what it tests"),
        (
            "config: c.yaml\npolicy: p".to_owned(),
            "`config` and `policy` exclude each other",
        ),
        ("config: c.yaml".to_owned(), "`tests` is missing"),
        ("config: c.yaml\ntests: []".to_owned(), "`tests` is an empty list"),
        (
            "policy: p\ntrust_domain: spiffe://a/b\ntests: [{}]".to_owned(),
            "is no trust domain",
        ),
        (test(""), "`expect` is missing in `tests[0]`"),
        (test("    expect: alow\n"), "did you mean `allow`?"),
        (
            test("    expect: allow\n    reason: deny_rule\n"),
            "only a denial has a reason",
        ),
        (
            test("    expect: deny\n    reason: deny_rul\n"),
            "did you mean `deny_rule`?",
        ),
        (
            test("    expect: deny\n    source: 10.0.0.0/8\n"),
            "is no IP address",
        ),
        (
            test("    expect: deny\n    at: tomorrow\n"),
            "is no point in time",
        ),
        (
            test("    expect: deny\n    certificate: { serial: xyz }\n"),
            "is no serial number",
        ),
        (
            test("    expect: deny\n    certificate: { key: abc }\n"),
            "is no key hash",
        ),
        (
            test("    expect: deny\n    method: GET\n"),
            "unknown field `method`",
        ),
        (
            "config: c\ntests: [{ name: t, from: 'spiffe://a/**', to: o, expect: deny }]".to_owned(),
            "a test is about one peer",
        ),
        (
            "config: c\ntests: [{ name: t, from: 'spiffe://a', to: o, expect: deny }]".to_owned(),
            "is the ID of a trust domain",
        ),
    ];
    for (text, expected) in table {
        let found: Vec<String> = expectations::read("t.test.yaml", &text)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{text}\n{found:?}"
        );
    }
    let good = expectations::read("t.test.yaml", &test("    expect: deny\n")).unwrap();
    assert_eq!(good.subject, Tested::Config("c.yaml".into()));
}

#[test]
fn the_published_schema_of_expectations_says_what_is_read() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../config/schema/policy-test.schema.json")).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let test = "/properties/tests/items/properties";
    for (place, read) in [
        ("/properties", expectations::FILE),
        (test, expectations::TEST),
        (
            &format!("{test}/certificate/properties"),
            expectations::CERTIFICATE,
        ),
    ] {
        let mut properties: Vec<&str> = schema
            .pointer(place)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .map(|key| &**key)
            .collect();
        let mut read = read.to_vec();
        properties.sort_unstable();
        read.sort_unstable();
        assert_eq!(properties, read, "{place}");
    }
    let denials = schema.pointer(&format!("{test}/reason/enum")).unwrap();
    assert_eq!(denials, &serde_json::to_value(super::DENIALS).unwrap());

    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let example = include_str!("../../config/tutorial/draft/orders.test.yaml");
    for (text, good) in [
        (example, true),
        (TESTS, true),
        (
            "tests: [{ name: a, from: 'spiffe://a/b', to: o, expect: deny }]",
            false,
        ),
        (
            "config: c\npolicy: p\ntests: [{ name: a, from: 'spiffe://a/b', to: o, expect: deny }]",
            false,
        ),
        (
            "config: c\ntests: [{ name: a, from: 'spiffe://a/**', to: o, expect: deny }]",
            false,
        ),
        (
            "config: c\ntests: [{ name: a, from: 'spiffe://a/b', to: o, expect: refuse }]",
            false,
        ),
    ] {
        let document: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(validator.is_valid(&document), good, "{text}");
        assert_eq!(expectations::read("t", text).is_ok(), good, "{text}");
    }
}
