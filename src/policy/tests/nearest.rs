//! Which rule came nearest, and that it is said.

use super::*;

fn nearest(admission: &Admission, peer: &str, source: Option<&str>) -> Nearest {
    with_facts("orders", peer, source, |facts| {
        assert!(!admission.evaluate(facts, at(50)).allow);
        let nearest = admission.nearest(facts, at(50));
        assert_eq!(nearest, admission.explain(facts, at(50)).nearest);
        nearest.unwrap()
    })
}

#[test]
fn the_fewest_unmet_conditions_then_the_closest_id_then_the_order() {
    let policy = compiled(
        "rules:
  - { name: other-listener-and-id, action: allow, to: [stock], from: ['spiffe://home/ns/shop/sa/wep'] }
  - { name: far, action: allow, from: ['spiffe://home/ns/shop/sa/reports'] }
  - { name: near, action: allow, from: ['spiffe://partner/**', 'spiffe://home/ns/shop/sa/webb'] }
  - { name: as-near, action: allow, from: ['spiffe://home/ns/shop/sa/webb'] }
  - { name: address, action: allow, from: ['spiffe://home/ns/shop/sa/batch'], source: [10.0.0.0/8] }
  - { name: twice, action: allow, from: ['spiffe://home/ns/shop/sa/job'], source: [10.0.0.0/8], expires: 1970-01-01T00:00:01Z }
  - { name: deny, action: deny, from: ['spiffe://home/ns/shop/sa/we'], to: [stock] }
  - { name: audit, action: audit, from: ['spiffe://home/ns/shop/sa/web'] }
",
    );
    for (peer, rule, unmet) in [
        ("spiffe://home/ns/shop/sa/web", "near", &["from"][..]),
        ("spiffe://home/ns/shop/sa/batch", "address", &["source"]),
        ("spiffe://home/ns/shop/sa/report", "far", &["from"]),
        ("spiffe://home/ns/shop/sa/wep", "other-listener-and-id", &["to"]),
    ] {
        let found = nearest(&policy, peer, Some("192.0.2.1"));
        let conditions: Vec<&str> = found.unmet.iter().map(|unmet| unmet.condition).collect();
        assert_eq!((&*found.rule, conditions.as_slice()), (rule, unmet), "{peer}");
    }
    let text = nearest(&policy, "spiffe://home/ns/shop/sa/job", Some("192.0.2.1")).to_string();
    // One unmet condition is nearer than two, whatever they are.
    assert_eq!(
        text,
        "rule `near` (p.yaml:4) but for from: `spiffe://home/ns/shop/sa/job` is not `spiffe://partner/**` or `spiffe://home/ns/shop/sa/webb`"
    );
}

#[test]
fn nothing_is_near_where_nothing_is_allowed() {
    let policy = compiled("rules: [{name: d, action: deny, from: ['spiffe://home/x']}]");
    with_facts("orders", "spiffe://home/y", None, |facts| {
        assert_eq!(policy.nearest(facts, at(0)), None);
    });
}

/// Of more rules than are all judged, the likely ones are.
#[test]
fn in_a_long_policy_the_near_ones_are_still_found() {
    let mut text = "rules:".to_owned();
    for n in 0..3000 {
        text.push_str(&format!(
            "\n  - {{name: r{n}, action: allow, from: ['spiffe://home/ns/team-{n}/sa/app'], source: [10.0.0.0/8]}}"
        ));
    }
    text.push_str("\n  - {name: wide, action: allow, to: [stock], from: ['spiffe://home/ns/*/sa/job'], source: [10.0.0.0/8]}");
    // As near, but no allow rule.
    text.push_str("\n  - {name: deny, action: deny, from: ['spiffe://home/ns/team-2345/sa/app'], source: [172.16.0.0/12]}");
    let policy = compiled(&text);
    for (peer, source, rule) in [
        // A typing error in the midst of them.
        ("spiffe://home/ns/team-1500/sa/ap", "10.1.1.1", "r1500"),
        ("spiffe://home/ns/team-2345/sa/app", "192.0.2.1", "r2345"),
        ("spiffe://home/ns/team-77/sa/job", "10.1.1.1", "wide"),
    ] {
        assert_eq!(&*nearest(&policy, peer, Some(source)).rule, rule, "{peer}");
    }
}

#[test]
fn a_refused_trust_domain_says_what_is_accepted() {
    let file = file::read(
        "p",
        "rules: [{name: a, action: allow, from: ['spiffe://partner/**', 'spiffe://third/**']}]",
    );
    let listeners = listeners();
    let (policy, _) = compile(vec![file], Surroundings::of(&listeners), at(0)).unwrap();
    let admission = Admission::new(Arc::new(policy), Arc::default());
    let told = |listener: &str, peer: &str| {
        with_facts(listener, peer, None, |facts| {
            let outcome = admission.evaluate(facts, at(0));
            let explanation = admission.explain(facts, at(0));
            let nothing_allows = outcome.reason == Reason::NoAllowRule;
            assert_eq!(explanation.nearest.is_some(), nothing_allows);
            (outcome.allow, outcome.reason, outcome.detail(facts))
        })
    };
    let (allow, reason, detail) = told("orders", "spiffe://partner/x");
    assert_eq!((allow, reason), (false, Reason::TrustDomainNotAccepted));
    assert_eq!(
        detail,
        "trust domain `partner` is not accepted by listener `orders`, only `home`"
    );
    assert!(told("stock", "spiffe://partner/x").0);
    let (.., detail) = told("stock", "spiffe://third/x");
    assert_eq!(
        detail,
        "trust domain `third` is not accepted by listener `stock`, only `home` or `partner`"
    );
    // A listener that the config does not have accepts nobody but our own.
    assert_eq!(
        told("nowhere", "spiffe://partner/x").1,
        Reason::TrustDomainNotAccepted
    );
    assert_eq!(told("nowhere", "spiffe://home/x").1, Reason::NoAllowRule);
}
