//! Tables for the semantics; `oracle` holds the property tests, `files` the refusals.

mod cost;
mod delta;
mod files;
mod lists;
mod nearest;
mod oracle;
mod schema;
mod sets;
mod warnings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::config::ListenerName;
use crate::record::{Direction, Reason};
use crate::spiffe::{SpiffeId, TrustDomain};

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// `stock` accepts the trust domain `partner` beside our own, the others none.
pub(super) fn listeners() -> Vec<ListenerName> {
    let partner = TrustDomain::new("partner").unwrap();
    let listener = |name: &str, direction, port, trust| ListenerName {
        name: Arc::from(name),
        direction,
        port: Some(port),
        trust: Some(trust),
    };
    vec![
        listener("orders", Direction::Inbound, 8443, Vec::new()),
        listener("stock", Direction::Inbound, 9443, vec![partner]),
        listener("payments", Direction::Outbound, 9001, Vec::new()),
    ]
}

/// As [`listeners`], of which it is not known whom they trust.
fn trusting() -> Vec<ListenerName> {
    let mut listeners = listeners();
    listeners.iter_mut().for_each(|listener| listener.trust = None);
    listeners
}

pub(super) fn compiled(text: &str) -> Admission {
    let file = file::read("p.yaml", text);
    let (policy, _) = compile(vec![file], Surroundings::of(&trusting()), at(0)).unwrap();
    Admission::new(Arc::new(policy), Arc::default())
}

fn with_facts<T>(listener: &str, peer: &str, source: Option<&str>, with: impl FnOnce(&Facts<'_>) -> T) -> T {
    let peer = SpiffeId::new(peer).unwrap();
    let own = TrustDomain::new("home").unwrap();
    let source: Option<IpAddr> = source.map(|text| text.parse().unwrap());
    with(&Facts {
        listener,
        peer: &peer,
        source,
        own_trust_domain: &own,
        certificate: None,
    })
}

fn decide<'a>(
    admission: &'a Admission,
    listener: &str,
    peer: &str,
    source: Option<&str>,
    now: u64,
) -> Outcome<'a> {
    with_facts(listener, peer, source, |facts| admission.evaluate(facts, at(now)))
}

fn audited(outcome: &Outcome<'_>) -> Vec<String> {
    outcome
        .audited
        .iter()
        .map(|rule| rule.name().to_string())
        .collect()
}

/// "allow by x", "deny by y" or "deny".
fn verdict(admission: &Admission, listener: &str, peer: &str, source: Option<&str>, now: u64) -> String {
    let outcome = decide(admission, listener, peer, source, now);
    let word = if outcome.allow { "allow" } else { "deny" };
    let expected = match (outcome.allow, outcome.by.name().is_some()) {
        (true, _) => Reason::Finished,
        (false, true) => Reason::DenyRule,
        (false, false) => Reason::NoAllowRule,
    };
    assert_eq!(outcome.reason, expected);
    outcome
        .by
        .name()
        .map_or(word.to_owned(), |rule| format!("{word} by {rule}"))
}

#[test]
fn default_is_deny() {
    assert_eq!(
        verdict(&Admission::deny_all(), "orders", "spiffe://home/a", None, 0),
        "deny"
    );
    assert_eq!(
        verdict(&compiled("rules: []"), "orders", "spiffe://home/a", None, 0),
        "deny"
    );
}

#[test]
fn deny_wins_wherever_it_stands() {
    for order in [["allow", "deny"], ["deny", "allow"]] {
        let [a, b] = order;
        let policy = compiled(&format!(
            "rules: [{{name: {a}, action: {a}, from: ['spiffe://home/**']}}, {{name: {b}, action: {b}, from: ['spiffe://home/x']}}]"
        ));
        if a == "allow" {
            assert_eq!(
                verdict(&policy, "orders", "spiffe://home/x", None, 0),
                "deny by deny"
            );
            assert_eq!(
                verdict(&policy, "orders", "spiffe://home/y", None, 0),
                "allow by allow"
            );
        } else {
            assert_eq!(
                verdict(&policy, "orders", "spiffe://home/x", None, 0),
                "deny by deny"
            );
        }
    }
}

#[test]
fn the_first_matching_rule_is_named() {
    let policy = compiled(
        "rules: [{name: a1, action: allow, from: ['spiffe://home/x']}, {name: a2, action: allow},
                 {name: d1, action: deny, to: [stock]}, {name: d2, action: deny, to: [stock], from: ['spiffe://home/x']}]",
    );
    assert_eq!(
        verdict(&policy, "orders", "spiffe://home/x", None, 0),
        "allow by a1"
    );
    assert_eq!(
        verdict(&policy, "orders", "spiffe://home/y", None, 0),
        "allow by a2"
    );
    assert_eq!(
        verdict(&policy, "stock", "spiffe://home/x", None, 0),
        "deny by d1"
    );
}

#[test]
fn from_left_out() {
    let allow = compiled("rules: [{name: a, action: allow}]");
    assert_eq!(
        verdict(&allow, "orders", "spiffe://home/x", None, 0),
        "allow by a"
    );
    assert_eq!(verdict(&allow, "orders", "spiffe://partner/x", None, 0), "deny");
    let deny = compiled(
        "rules: [{name: a, action: allow, from: ['spiffe://partner/**']}, {name: d, action: deny, source: [10.0.0.0/8]},
                 {name: m, action: audit}]",
    );
    assert_eq!(
        verdict(&deny, "orders", "spiffe://partner/x", Some("10.1.1.1"), 0),
        "deny by d"
    );
    assert_eq!(
        verdict(&deny, "orders", "spiffe://partner/x", Some("11.1.1.1"), 0),
        "allow by a"
    );
    let decision = decide(&deny, "orders", "spiffe://partner/x", Some("11.1.1.1"), 0);
    assert_eq!(audited(&decision), ["m"]);
}

#[test]
fn audit_decides_nothing() {
    let policy = compiled("rules: [{name: m, action: audit, from: ['spiffe://home/**']}]");
    let decision = decide(&policy, "orders", "spiffe://home/x", None, 0);
    assert!(!decision.allow && decision.by.name().is_none());
    assert_eq!(audited(&decision), ["m"]);
    assert!(
        decide(&policy, "orders", "spiffe://partner/x", None, 0)
            .audited
            .is_empty()
    );
}

#[test]
fn sources() {
    let policy = compiled(
        "rules: [{name: v4, action: allow, source: [10.0.0.0/8, 192.0.2.7]}, {name: v6, action: allow, source: ['fd00::/8']},
                 {name: mapped, action: allow, to: [stock], source: ['::ffff:172.16.0.0/108']}]",
    );
    for (listener, source, expected) in [
        ("orders", Some("10.255.0.1"), "allow by v4"),
        ("orders", Some("::ffff:10.0.0.1"), "allow by v4"),
        ("orders", Some("192.0.2.7"), "allow by v4"),
        ("orders", Some("192.0.2.8"), "deny"),
        ("orders", Some("fd12::1"), "allow by v6"),
        ("orders", Some("fe80::1"), "deny"),
        ("orders", Some("172.16.0.1"), "deny"),
        ("stock", Some("172.31.255.255"), "allow by mapped"),
        ("stock", Some("172.32.0.0"), "deny"),
        ("orders", None, "deny"),
    ] {
        assert_eq!(
            verdict(&policy, listener, "spiffe://home/x", source, 0),
            expected,
            "{source:?}"
        );
    }
}

#[test]
fn an_unknown_address_never_helps() {
    let policy = compiled(
        "rules: [{name: a, action: allow}, {name: d, action: deny, to: [stock], source: [10.0.0.0/8]},
                 {name: m, action: audit, source: [10.0.0.0/8]}]",
    );
    assert_eq!(verdict(&policy, "stock", "spiffe://home/x", None, 0), "deny by d");
    assert_eq!(
        verdict(&policy, "orders", "spiffe://home/x", None, 0),
        "allow by a"
    );
    assert!(
        decide(&policy, "orders", "spiffe://home/x", None, 0)
            .audited
            .is_empty()
    );
}

#[test]
fn rules_end() {
    let policy = compiled(
        "rules: [{name: a, action: allow, expires: 1970-01-01T00:01:40Z}, {name: d, action: deny, expires: '1970-01-01T01:00:50+01:00'}]",
    );
    for (now, expected) in [
        (49, "deny by d"),
        (50, "allow by a"),
        (99, "allow by a"),
        (100, "deny"),
    ] {
        assert_eq!(
            verdict(&policy, "orders", "spiffe://home/x", None, now),
            expected,
            "{now}"
        );
    }
    assert_eq!(
        decide(&policy, "orders", "spiffe://home/x", None, 60).expires(),
        Some(at(100))
    );
    assert_eq!(
        decide(&policy, "orders", "spiffe://home/x", None, 0).expires(),
        None
    );
    for (now, expected) in [(0, Some(50)), (50, Some(100)), (99, Some(100)), (100, None)] {
        assert_eq!(policy.next_change(at(now)), expected.map(at));
    }
}

#[test]
fn who_decided_says_what_it_is_for() {
    let policy = compiled(
        "rules:
  - { name: told, description: Ticket 17, action: allow, from: ['spiffe://home/x'] }
  - { name: untold, action: allow, from: ['spiffe://home/y'] }
",
    );
    for (peer, description, line) in [
        ("spiffe://home/x", Some("Ticket 17"), Some(2)),
        ("spiffe://home/y", None, Some(3)),
        ("spiffe://home/z", None, None),
    ] {
        let by = decide(&policy, "orders", peer, None, 0).by;
        assert_eq!(by.description().map(|text| &**text), description, "{peer}");
        assert_eq!(by.place().map(|(_, line)| line), line, "{peer}");
    }
}

#[test]
fn a_listener_no_rule_names_gets_the_rules_about_all() {
    let policy = compiled(
        "rules: [{name: s, action: allow, to: [stock]}, {name: d, action: deny, from: ['spiffe://home/bad']},
                 {name: a, action: allow, from: ['spiffe://home/good']}]",
    );
    assert_eq!(
        verdict(&policy, "orders", "spiffe://home/good", None, 0),
        "allow by a"
    );
    assert_eq!(
        verdict(&policy, "orders", "spiffe://home/bad", None, 0),
        "deny by d"
    );
    assert_eq!(verdict(&policy, "orders", "spiffe://home/other", None, 0), "deny");
    assert_eq!(
        verdict(&policy, "stock", "spiffe://home/bad", None, 0),
        "deny by d"
    );
}

#[test]
fn an_explanation_tells_every_condition_of_each_rule_that_does_not_hold() {
    let policy = compiled(
        "rules:
  - { name: to, action: allow, to: [stock] }
  - { name: from, action: allow, from: ['spiffe://home/a', 'spiffe://home/b/*'] }
  - { name: own, action: allow }
  - { name: source, action: allow, from: ['spiffe://partner/**'], source: [10.0.0.0/8] }
  - { name: over, action: deny, expires: 1970-01-01T00:00:01Z }
  - { name: yes, action: allow, from: ['spiffe://partner/x'] }
  - { name: later, action: allow, from: ['spiffe://partner/*'] }
  - { name: mark, action: audit }
",
    );
    let peer = SpiffeId::new("spiffe://partner/x").unwrap();
    let own = TrustDomain::new("home").unwrap();
    let source = Some("192.0.2.1".parse().unwrap());
    let facts = Facts {
        listener: "orders",
        peer: &peer,
        source,
        own_trust_domain: &own,
        certificate: None,
    };
    let text = policy.explain(&facts, at(5)).to_string();
    let expected = "\
allow: spiffe://partner/x to listener `orders` from 192.0.2.1
decided by rule `yes` (p.yaml:7)

8 rules
 - to (allow, p.yaml:2)
     to: listener `orders` is not `stock`
     from: without `from`, only our own trust domain `home` is allowed, and the peer is of `partner`
 - from (allow, p.yaml:3)
     from: `spiffe://partner/x` is not `spiffe://home/a` or `spiffe://home/b/*`
 - own (allow, p.yaml:4)
     from: without `from`, only our own trust domain `home` is allowed, and the peer is of `partner`
 - source (allow, p.yaml:5)
     source: `192.0.2.1` is not in `10.0.0.0/8`
 - over (deny, p.yaml:6)
     expires: the rule ended at 1970-01-01T00:00:01.000000Z
=> yes (allow, p.yaml:7)
 + later (allow, p.yaml:8)
     matches, but an earlier rule decided
 + mark (audit, p.yaml:9)
     audit rules mark and do not decide";
    assert_eq!(text, expected);
    let json = serde_json::to_value(policy.explain(&facts, at(5))).unwrap();
    assert_eq!(json["verdict"], "allow");
    assert_eq!(json["rules"][3]["unmet"][0]["condition"], "source");
    assert_eq!(json["audited"][0], "mark");
}
