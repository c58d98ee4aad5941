//! Whom a change concerns: what open connections are asked again for.

use super::*;
use crate::policy::delta::Delta;

fn concerns(delta: &Delta<'_>, listener: &str, peer: &str) -> bool {
    delta.may_concern(listener, &SpiffeId::new(peer).unwrap())
}

/// The same rules, compiled for other listeners.
fn of(listeners: Option<&[ListenerName]>) -> Policy {
    let file = file::read(
        "p",
        "rules: [{name: a, action: allow, from: ['spiffe://home/x']}]",
    );
    let surroundings = Surroundings {
        listeners,
        own_trust_domain: None,
    };
    compile(vec![file], surroundings, at(0)).unwrap().0
}

#[test]
fn what_listeners_trust_concerns_everybody() {
    let known = listeners();
    let changed = |change: &dyn Fn(&mut Vec<ListenerName>)| {
        let mut listeners = listeners();
        change(&mut listeners);
        listeners
    };
    let third = || Some(vec![TrustDomain::new("third").unwrap()]);
    let added = |trust: &dyn Fn() -> Option<Vec<TrustDomain>>| {
        changed(&|listeners| {
            let mut listener = listeners[0].clone();
            (listener.name, listener.trust) = (Arc::from("new"), trust());
            listeners.push(listener);
        })
    };
    for (what, listeners, same) in [
        ("nothing", known.clone(), true),
        ("another order", changed(&|all| all.reverse()), true),
        ("another port", changed(&|all| all[0].port = None), true),
        ("one domain more", changed(&|all| all[0].trust = third()), false),
        ("another domain", changed(&|all| all[1].trust = third()), false),
        (
            "one domain less",
            changed(&|all| all[1].trust = Some(Vec::new())),
            false,
        ),
        ("no longer known", changed(&|all| all[1].trust = None), false),
        (
            "a policy decides about inbound ones",
            changed(&|all| all[2].trust = third()),
            true,
        ),
        (
            "one that trusts nobody, as if it were not there",
            added(&|| Some(Vec::new())),
            true,
        ),
        ("one that trusts somebody", added(&third), false),
        (
            "one that was not there and trusts anybody",
            added(&|| None),
            false,
        ),
    ] {
        let (before, after) = (of(Some(&known)), of(Some(&listeners)));
        for (from, to) in [(&before, &after), (&after, &before)] {
            let delta = from.differences(to);
            assert_eq!(delta.is_empty(), same, "{what}");
            assert_eq!(concerns(&delta, "orders", "spiffe://home/y"), !same, "{what}");
        }
    }
    // Where no listener is known any is accepted; where there is none nobody is.
    let (unknown, none) = (of(None), of(Some(&[])));
    assert_eq!(
        (unknown.trust("orders"), none.trust("orders")),
        (None, Some(&[][..]))
    );
    assert!(!unknown.differences(&none).is_empty() && !none.differences(&unknown).is_empty());
    assert!(unknown.differences(&of(None)).is_empty());
}

#[test]
fn many_rules_concern_everybody() {
    let rules = |count: u64| {
        let rule = |n| {
            format!(
                "{{name: r{n}, action: allow, from: ['spiffe://home/r{n}'], expires: 1970-01-01T00:00:10Z}}"
            )
        };
        let all: Vec<String> = (0..count).map(rule).collect();
        compiled(&format!("rules: [{}]", all.join(", "))).policy
    };
    let none = rules(0);
    for (count, anybody) in [(1, false), (32, false), (33, true)] {
        let some = rules(count);
        for delta in [
            none.differences(&some),
            some.differences(&none),
            some.due(at(9), at(10)),
            some.due(at(9), at(10)).and(Delta::default()),
        ] {
            assert!(concerns(&delta, "orders", "spiffe://home/r0"), "{count}");
            assert_eq!(
                concerns(&delta, "orders", "spiffe://home/other"),
                anybody,
                "{count}"
            );
        }
        for (after, until) in [(8, 9), (10, 11)] {
            assert!(some.due(at(after), at(until)).is_empty());
        }
    }
    // Together they are many.
    let (some, others) = (rules(20), rules(13));
    let both = none.differences(&some).and(none.differences(&others));
    assert!(concerns(&both, "orders", "spiffe://home/other"));
}

#[test]
fn anybody_stays_anybody() {
    let anybody = [
        Delta::anybody(),
        Delta::anybody().and(Delta::default()),
        Delta::default().and(Delta::anybody()),
    ];
    for delta in anybody {
        assert!(!delta.is_empty() && concerns(&delta, "orders", "spiffe://home/x"));
    }
    let nobody = Delta::default().and(Delta::default());
    assert!(nobody.is_empty() && !concerns(&nobody, "orders", "spiffe://home/x"));
}

/// Whatever of a rule is changed, those whom it named before or names now are asked again, and nobody else.
#[test]
fn each_field_makes_a_difference() {
    let sets = "ids: {web: ['spiffe://home/x', 'spiffe://home/y']}\nnetworks: {inside: [10.0.0.0/8]}\n";
    let policy = |sets: &str, rest: &str| {
        compiled(&format!("{sets}rules:\n  - {{name: r, from: [$web], {rest}}}")).policy
    };
    let before = policy(sets, "action: allow, source: [$inside], not_source: [$inside]");
    for (sets, rest, same) in [
        (
            sets,
            "action: allow, source: [$inside], not_source: [$inside]",
            true,
        ),
        (
            sets,
            "description: d, action: allow, source: [$inside], not_source: [$inside]",
            true,
        ),
        (
            sets,
            "action: allow, source: [10.0.0.0/8], not_source: [$inside]",
            true,
        ),
        (
            sets,
            "action: deny, source: [$inside], not_source: [$inside]",
            false,
        ),
        (sets, "action: allow, source: [$inside]", false),
        (sets, "action: allow, not_source: [$inside]", false),
        (
            sets,
            "action: allow, source: [$inside, 192.0.2.1], not_source: [$inside]",
            false,
        ),
        (
            sets,
            "action: allow, source: [10.0.0.0/9], not_source: [$inside]",
            false,
        ),
        (
            sets,
            "action: allow, source: [$inside], not_source: [10.0.0.0/9]",
            false,
        ),
        (
            sets,
            "action: allow, source: [$inside], not_source: [$inside], not_from: ['spiffe://home/z']",
            false,
        ),
        (
            sets,
            "action: allow, source: [$inside], not_source: [$inside], ports: [8443]",
            false,
        ),
        (
            sets,
            "action: allow, source: [$inside], not_source: [$inside], to: [orders]",
            false,
        ),
        (
            sets,
            "action: allow, source: [$inside], not_source: [$inside], expires: 2100-01-01T00:00:00Z",
            false,
        ),
        (
            sets,
            "action: allow, source: [$inside], not_source: [$inside], not_before: 2100-01-01T00:00:00Z",
            false,
        ),
        (
            &sets.replace("home/y", "home/z"),
            "action: allow, source: [$inside], not_source: [$inside]",
            false,
        ),
        (
            &sets.replace("10.0", "11.0"),
            "action: allow, source: [$inside], not_source: [$inside]",
            false,
        ),
    ] {
        let after = policy(sets, rest);
        for (from, to) in [(&before, &after), (&after, &before)] {
            let delta = from.differences(to);
            assert_eq!(delta.is_empty(), same, "{sets}{rest}");
            assert_eq!(
                concerns(&delta, "orders", "spiffe://home/x"),
                !same,
                "{sets}{rest}"
            );
            assert!(!concerns(&delta, "orders", "spiffe://home/other"), "{sets}{rest}");
        }
    }
}
