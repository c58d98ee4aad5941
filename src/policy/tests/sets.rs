//! Named sets, ports and budgets: what they mean and what is refused.

use super::*;
use crate::yaml::Diagnostic;

fn errors(files: &[&str]) -> Vec<String> {
    let names = ["a.yaml", "b.yaml"];
    let files = names
        .iter()
        .zip(files)
        .map(|(name, text)| file::read(name, text))
        .collect();
    let mut found = compile(files, Surroundings::of(&listeners()), at(0))
        .err()
        .unwrap_or_default();
    found.retain(Diagnostic::is_error);
    found.iter().map(ToString::to_string).collect()
}

/// Each file has exactly one error, which says this.
#[test]
fn refusals() {
    let rule = |rest: &str| format!("rules: [{{name: r, action: allow, {rest}}}]");
    let sets = "ids: {web: ['spiffe://home/a']}\nnetworks: {inside: [10.0.0.0/8]}\n";
    let with_sets = |rest: &str| format!("{sets}{}", rule(rest));
    let deep: String = (0..18).map(|n| format!("  s{n}: [$s{}]\n", n + 1)).collect();
    let many: String = (0..10_000).map(|n| format!("'spiffe://home/{n}', ")).collect();
    let table = [
        ("ids: []".to_owned(), "`ids` must be a mapping, not a list"),
        (
            "ids: {}".to_owned(),
            "`ids` has 0 entries; it may have 1 to 10000",
        ),
        ("ids: {a: []}".to_owned(), "`ids.a` is an empty list"),
        (
            "ids: {a: 'spiffe://home/a'}".to_owned(),
            "`ids.a` must be a list, not text",
        ),
        ("ids: {a: }".to_owned(), "`ids.a` has no value"),
        (
            "ids: {a b: ['spiffe://home/a']}".to_owned(),
            "`a b` cannot be a set's name",
        ),
        (
            "ids:\n  a: ['spiffe://home/a']\n  a: ['spiffe://home/b']".to_owned(),
            "3:3: `ids.a` is here twice, first in line 2",
        ),
        (
            "ids: {a: ['spiffe://home/b*']}".to_owned(),
            "`spiffe://home/b*` is no SPIFFE ID pattern",
        ),
        (
            "networks: {a: [10.1.0.0/8]}".to_owned(),
            "has bits set beyond its prefix",
        ),
        (
            "ids: {a: [$a]}".to_owned(),
            "the set `a` is made of itself: `a` holds `a`",
        ),
        (
            "ids: {a: [$b], b: [$c], c: [$a]}".to_owned(),
            "the set `a` is made of itself: `a` holds `b` holds `c` holds `a`",
        ),
        ("ids: {a: [$b]}".to_owned(), "there is no set `b` of `ids`"),
        (
            format!("ids:\n{deep}  s18: ['spiffe://home/a']"),
            "more than 16 deep",
        ),
        (
            format!("ids:\n  a: [{many}]\n  b: [$a, 'spiffe://home/x']"),
            "3:3: the set `b` holds more than 10000 values",
        ),
        (rule("from: [$web]"), "no file of the policy has `ids`"),
        (with_sets("from: [$wep]"), "3:41: there is no set `wep` of `ids`"),
        (with_sets("from: [$wep]"), "did you mean `$web`?"),
        (with_sets("from: [$x-y-z]"), "the sets of `ids` are `web`"),
        (
            with_sets("from: [$inside]"),
            "`inside` is a set of `networks`, which has no place here",
        ),
        (
            with_sets("not_source: [$web]"),
            "`web` is a set of `ids`, which has no place here",
        ),
        (with_sets("from: [$]"), "`` cannot be a set's name"),
        (rule("not_from: []"), "`rules[0].not_from` is an empty list"),
        (rule("not_source: [a]"), "neither an IP address nor a network"),
        (rule("not_before: 2027-01-01"), "`2027-01-01` is no point in time"),
        (rule("description: ''"), "`rules[0].description` is empty"),
        (
            rule("description: [a]"),
            "`rules[0].description` must be text, not a list",
        ),
        (
            rule(&format!("description: {}", "a".repeat(1001))),
            "longer than 1000 characters",
        ),
        (rule("ports: []"), "`rules[0].ports` is an empty list"),
        (rule("ports: [0]"), "whole numbers from 1 to 65535"),
        (rule("ports: [65536]"), "whole numbers from 1 to 65535"),
        (rule("ports: ['8443']"), "whole numbers from 1 to 65535"),
        (rule("ports: [8443, 8443]"), "`8443` is in `ports` twice"),
        (
            rule("ports: [8444]"),
            "`ports` names 8444, on which no inbound listener listens",
        ),
        (rule("ports: [8444]"), "8443 (`orders`), 9443 (`stock`)"),
        (rule("ports: [9001]"), "an outbound listener does"),
        ("budgets: {}".to_owned(), "`budgets` must be a list"),
        ("budgets: [{name: b}]".to_owned(), "`budgets[0]` bounds nothing"),
        (
            "budgets: [{connections: 1}]".to_owned(),
            "`name` is missing in `budgets[0]`",
        ),
        (
            "budgets: [{name: b, connection: 1}]".to_owned(),
            "did you mean `connections`?",
        ),
        (
            "budgets: [{name: b, connections: 0}]".to_owned(),
            "a whole number from 1",
        ),
        (
            "budgets: [{name: b, connections: 1, burst: 2}]".to_owned(),
            "`burst` goes with `connections_per_second`",
        ),
        (
            "budgets: [{name: b, connections: 1, to: [ordres]}]".to_owned(),
            "did you mean `orders`?",
        ),
        (
            "budgets: [{name: b, connections: 1, from: [$x]}]".to_owned(),
            "there is no set `x`",
        ),
        (
            "budgets: [{name: b, bytes_per_second: 10MB}]".to_owned(),
            "for example `64KiB`, `10MiB` or `1GiB`",
        ),
        (
            "budgets: [{name: b, bytes_per_second: 12}]".to_owned(),
            "must be from 1KiB to 1TiB",
        ),
        (
            "budgets: [{name: b, bytes_per_second: 99999999999TiB}]".to_owned(),
            "bytes",
        ),
        (
            "budgets: [{name: b, connections: 1}, {name: b, connections: 2}]".to_owned(),
            "budget `b` is here twice, first in a.yaml:1",
        ),
    ];
    for (text, needle) in table {
        let found = errors(&[&text]);
        assert_eq!(found.len(), 1, "{}\n{found:#?}", &text[..text.len().min(300)]);
        assert!(
            found[0].contains(needle),
            "wanted {needle}\n{}",
            &found[0][..found[0].len().min(600)]
        );
    }
}

#[test]
fn what_lists_hold_together_has_a_bound() {
    let values: String = (0..6000).map(|n| format!("'spiffe://home/{n}', ")).collect();
    let rules: String = (0..100)
        .map(|n| format!("  - {{name: r{n}, action: allow, from: [$big]}}\n"))
        .collect();
    let found = errors(&[&format!("ids: {{big: [{values}]}}\nrules:\n{rules}")]);
    assert_eq!(found.len(), 1);
    // The 84th rule is the one too many.
    assert!(
        found[0].contains("a.yaml:86:") && found[0].contains("more than 500000 values"),
        "{}",
        found[0]
    );
}

#[test]
fn sets_are_shared_by_files_and_named_once() {
    let sets = "ids: {web: ['spiffe://home/a', 'spiffe://home/b/*']}\nnetworks: {inside: [10.0.0.0/8]}";
    let rules =
        "rules: [{name: r, action: allow, from: [$web, 'spiffe://home/c'], source: [$inside, 192.0.2.0/24]}]";
    assert_eq!(errors(&[sets, rules]), Vec::<String>::new());
    let twice = errors(&[sets, "ids: {web: ['spiffe://home/x']}"]);
    assert_eq!(twice.len(), 1);
    assert!(
        twice[0].contains("b.yaml:1:7: the set `web` of `ids` is here twice, first in a.yaml:1"),
        "{}",
        twice[0]
    );

    let policy = compiled(&format!("{sets}\n{rules}"));
    for (peer, source, expected) in [
        ("spiffe://home/a", "10.1.1.1", "allow by r"),
        ("spiffe://home/b/x", "192.0.2.1", "allow by r"),
        ("spiffe://home/c", "10.1.1.1", "allow by r"),
        ("spiffe://home/d", "10.1.1.1", "deny"),
        ("spiffe://home/a", "11.1.1.1", "deny"),
    ] {
        assert_eq!(
            verdict(&policy, "orders", peer, Some(source), 0),
            expected,
            "{peer} {source}"
        );
    }
    // As it was written is how it is told.
    let told = with_facts("orders", "spiffe://home/d", Some("11.1.1.1"), |facts| {
        policy.explain(facts, at(0)).rules[0].unmet.clone()
    });
    assert_eq!(
        told[0].detail,
        "`spiffe://home/d` is not `$web` or `spiffe://home/c`"
    );
    assert_eq!(told[1].detail, "`11.1.1.1` is not in `$inside` or `192.0.2.0/24`");
}

#[test]
fn a_rule_tells_all_that_is_written() {
    let policy = compiled(
        "ids: {web: ['spiffe://home/a', 'spiffe://home/b']}
networks: {inside: [10.0.0.0/8]}
rules:
  - {name: full, description: why, action: deny, to: [orders], ports: [8443], from: [$web], not_from: ['spiffe://home/b'],
     source: [$inside, 192.0.2.7], not_source: [10.1.0.0/16], not_before: 1970-01-01T00:00:10Z, expires: 1970-01-01T00:00:20Z}
  - {name: bare, action: audit}",
    )
    .policy;
    let [full, bare] = policy.rules() else {
        panic!("two rules")
    };
    let written = |rule: &Rule| {
        [
            rule.to(),
            rule.from(),
            rule.not_from(),
            rule.source(),
            rule.not_source(),
        ]
        .map(|list| list.map(|list| list.join(" ")))
    };
    let list = |text: &str| Some(text.to_owned());
    assert_eq!(
        written(full),
        [
            list("orders"),
            list("$web"),
            list("spiffe://home/b"),
            list("$inside 192.0.2.7"),
            list("10.1.0.0/16"),
        ]
    );
    assert_eq!(written(bare), [const { None }; 5]);
    let resolved = |rule: &Rule| {
        rule.resolved()
            .map(|(field, list)| (field, list.map(|list| list.join(" "))))
    };
    assert_eq!(
        resolved(full),
        [
            ("from", list("spiffe://home/a spiffe://home/b")),
            ("not_from", list("spiffe://home/b")),
            ("source", list("10.0.0.0/8 192.0.2.7/32")),
            ("not_source", list("10.1.0.0/16")),
        ]
    );
    assert!(resolved(bare).iter().all(|(_, list)| list.is_none()));
    assert_eq!((full.ports(), bare.ports()), (Some(&[8443][..]), None));
    assert_eq!((full.not_before(), bare.not_before()), (Some(at(10)), None));
    assert_eq!((full.expires(), bare.expires()), (Some(at(20)), None));
    assert_eq!((full.action(), bare.action()), (Action::Deny, Action::Audit));
    assert_eq!(full.description().map(|text| &**text), Some("why"));
    assert_eq!(bare.description(), None);
    assert_eq!(
        (&**full.place().0, full.place().1, bare.place().1),
        ("p.yaml", 4, 6)
    );
    assert_eq!([19, 20].map(|now| full.is_expired(at(now))), [false, true]);
    assert!(!bare.is_expired(at(20)));
}

/// Only an allow rule without `from` names our own trust domain, and only where it is about the listener.
#[test]
fn which_rules_ask_for_our_own_trust_domain() {
    for (rest, depends) in [
        ("action: allow", true),
        ("action: allow, to: [orders]", true),
        ("action: allow, ports: [8443]", true),
        ("action: allow, to: [stock]", false),
        ("action: allow, ports: [9443]", false),
        ("action: allow, from: ['spiffe://home/x']", false),
        ("action: deny", false),
        ("action: audit", false),
    ] {
        let policy = compiled(&format!("rules: [{{name: r, {rest}}}]")).policy;
        assert_eq!(
            policy.rules()[0].depends_on_own_trust_domain("orders"),
            depends,
            "{rest}"
        );
    }
}

#[test]
fn exclusions() {
    let policy = compiled(
        "rules:
  - {name: a, action: allow, from: ['spiffe://home/**'], not_from: ['spiffe://home/x/*'], not_source: [10.1.0.0/16]}
  - {name: d, action: deny, to: [stock], from: ['spiffe://home/y'], not_source: [10.0.0.0/8]}",
    );
    for (listener, peer, source, expected) in [
        ("orders", "spiffe://home/x", Some("10.0.0.1"), "allow by a"),
        ("orders", "spiffe://home/x/y", Some("10.0.0.1"), "deny"),
        ("orders", "spiffe://home/x", Some("10.1.0.1"), "deny"),
        ("orders", "spiffe://home/x", Some("::ffff:10.1.0.1"), "deny"),
        // Not known to be outside.
        ("orders", "spiffe://home/x", None, "deny"),
        ("stock", "spiffe://home/y", Some("10.0.0.1"), "allow by a"),
        ("stock", "spiffe://home/y", Some("192.0.2.1"), "deny by d"),
        ("stock", "spiffe://home/y", None, "deny by d"),
    ] {
        assert_eq!(
            verdict(&policy, listener, peer, source, 0),
            expected,
            "{listener} {peer} {source:?}"
        );
    }
    let told = with_facts("orders", "spiffe://home/x/y", Some("10.1.0.1"), |facts| {
        policy.explain(facts, at(0)).rules[0].unmet.clone()
    });
    assert_eq!(
        told[0].detail,
        "`spiffe://home/x/y` is excluded by `spiffe://home/x/*`"
    );
    assert_eq!(told[1].detail, "`10.1.0.1` is excluded by `10.1.0.0/16`");
}

#[test]
fn ports_are_those_of_listeners() {
    let text = "rules: [{name: a, action: allow, ports: [8443]}, {name: d, action: deny, ports: [9443]}]";
    let policy = compiled(text);
    for (listener, expected) in [
        ("orders", "allow by a"),
        ("stock", "deny by d"),
        ("nowhere", "deny"),
    ] {
        assert_eq!(verdict(&policy, listener, "spiffe://home/x", None, 0), expected);
    }
    // Where no listener is known, an allow rule does not match and a deny rule does.
    let (policy, _) = compile(vec![file::read("p", text)], Surroundings::default(), at(0)).unwrap();
    let policy = Admission::new(Arc::new(policy), Arc::default());
    assert_eq!(
        verdict(&policy, "orders", "spiffe://home/x", None, 0),
        "deny by d"
    );
}

#[test]
fn rules_begin() {
    let policy = compiled(
        "rules: [{name: a, action: allow}, {name: d, action: deny, not_before: 1970-01-01T00:00:10Z, expires: 1970-01-01T00:00:20Z}]",
    );
    for (now, expected) in [
        (9, "allow by a"),
        (10, "deny by d"),
        (19, "deny by d"),
        (20, "allow by a"),
    ] {
        assert_eq!(
            verdict(&policy, "orders", "spiffe://home/x", None, now),
            expected,
            "{now}"
        );
    }
    assert_eq!(
        decide(&policy, "orders", "spiffe://home/x", None, 15).began(),
        Some(at(10))
    );
    // An allow rule's beginning is no reason to end anything.
    let begun = compiled("rules: [{name: a, action: allow, not_before: 1970-01-01T00:00:10Z}]");
    assert_eq!(
        decide(&begun, "orders", "spiffe://home/x", None, 15).began(),
        None
    );
    for (now, expected) in [(0, Some(10)), (10, Some(20)), (20, None)] {
        assert_eq!(policy.next_change(at(now)), expected.map(at));
    }
}

#[test]
fn budgets_are_found_by_listener_and_peer() {
    let policy = compiled(
        "rules: []
budgets:
  - {name: all, description: told, bytes_per_second: 1MiB}
  - {name: orders, to: [orders], from: ['spiffe://home/**', 'spiffe://home/x'], connections: 3, connections_per_second: 2}
  - {name: port, ports: [9443], from: ['spiffe://home/x'], connections_per_second: 2, burst: 9}",
    );
    let of = |listener: &str, peer: &str| {
        let peer = SpiffeId::new(peer).unwrap();
        let budgets = policy.policy.budgets(listener, &peer);
        budgets.map(|budget| budget.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of("orders", "spiffe://home/x"), ["all", "orders"]);
    assert_eq!(of("stock", "spiffe://home/x"), ["all", "port"]);
    assert_eq!(of("stock", "spiffe://partner/x"), ["all"]);
    let all: Vec<_> = policy.policy.all_budgets().collect();
    assert_eq!(all[0].bytes_per_second, Some(1 << 20));
    assert_eq!(all[0].description.as_deref(), Some("told"));
    assert_eq!(
        all[1].connections_per_second,
        Some(Rate {
            per_second: 2,
            burst: 2
        })
    );
    assert_eq!(
        all[2].connections_per_second,
        Some(Rate {
            per_second: 2,
            burst: 9
        })
    );
    assert_eq!((all[1].connections, all[1].line), (Some(3), 4));
}

#[test]
fn sets_of_sets_do_not_multiply_without_bound() {
    let ids: String = (0..1000).map(|n| format!("'spiffe://home/{n}', ")).collect();
    let text = |sets: usize| {
        let sets: String = (0..sets).map(|n| format!("  s{n}: [$base]\n")).collect();
        format!("ids:\n  base: [{ids}]\n{sets}rules: []\n")
    };
    // Unused ones are warnings.
    assert_eq!(errors(&[&text(500)]), Vec::<String>::new());
    let found = errors(&[&text(2000)]);
    let said = found
        .iter()
        .filter(|error| error.contains("hold more than 500000 values together"));
    assert_eq!(said.count(), 1, "{found:?}");
}
