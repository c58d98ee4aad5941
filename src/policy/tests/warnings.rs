//! What is warned of. That no warning is wrong, `oracle` shows.

use super::*;

fn warnings(text: &str) -> Vec<String> {
    let own = TrustDomain::new("home").unwrap();
    let listeners = listeners();
    let surroundings = Surroundings {
        listeners: Some(&listeners),
        own_trust_domain: Some(&own),
    };
    let (_, warnings) = compile(vec![file::read("p.yaml", text)], surroundings, at(100)).unwrap();
    warnings.iter().map(|warning| warning.message.clone()).collect()
}

/// Each text, and the warning it gives: none where it is empty.
pub(super) const TABLE: &[(&str, &str)] = &[
    // Never matching.
    (
        "rules: [{name: r, action: allow, to: [stock], ports: [8443]}]",
        "no listener of `to` listens on a port",
    ),
    (
        "rules: [{name: r, action: allow, to: [orders], ports: [8443]}]",
        "",
    ),
    (
        "rules: [{name: r, action: allow, from: ['spiffe://home/a', 'spiffe://home/b/*'], not_from: ['spiffe://home/**']}]",
        "excludes everybody",
    ),
    (
        "rules: [{name: r, action: allow, not_from: ['spiffe://home/**']}]",
        "excludes everybody",
    ),
    (
        "rules: [{name: r, action: deny, not_from: ['spiffe://home/**']}]",
        "",
    ),
    (
        "rules: [{name: r, action: allow, from: ['spiffe://home/**'], not_from: ['spiffe://home/a/**', 'spiffe://home/*']}]",
        "",
    ),
    // Only together do they exclude everybody.
    (
        "rules: [{name: r, action: allow, from: ['spiffe://home/a/**'], not_from: ['spiffe://home/a', 'spiffe://home/a/*', 'spiffe://home/*/*/*/**']}]",
        "excludes everybody",
    ),
    (
        "rules: [{name: r, action: allow, source: [10.0.0.0/9, 10.128.0.0/9], not_source: [10.0.0.0/8]}]",
        "excludes every address",
    ),
    (
        "rules: [{name: r, action: allow, not_source: [0.0.0.0/1, 128.0.0.0/1, '::/0']}]",
        "excludes every address",
    ),
    ("rules: [{name: r, action: allow, not_source: [0.0.0.0/0]}]", ""),
    // It matches peers without an address.
    (
        "rules: [{name: r, action: deny, source: [10.0.0.0/8], not_source: [10.0.0.0/8]}]",
        "",
    ),
    (
        "rules: [{name: r, action: allow, not_before: 1970-01-02T00:00:00Z, expires: 1970-01-02T00:00:00Z}]",
        "it begins at",
    ),
    (
        "rules: [{name: r, action: allow, expires: 1970-01-01T00:01:40Z}]",
        "ended at",
    ),
    (
        "rules: [{name: r, action: allow, expires: 1970-01-08T00:01:40Z}]",
        "ends within a week",
    ),
    (
        "rules: [{name: r, action: allow, expires: 1970-01-08T00:01:41Z}]",
        "",
    ),
    // Trust domains.
    (
        "rules: [{name: r, action: allow, from: ['spiffe://hoem/a']}]",
        "names trust domain `hoem`",
    ),
    (
        "rules: [{name: r, action: deny, from: ['spiffe://hoem/a']}]",
        "names trust domain `hoem`",
    ),
    (
        "rules: [{name: r, action: allow, to: [orders], from: ['spiffe://partner/a']}]",
        "no listener that it is about accepts",
    ),
    (
        "rules: [{name: r, action: allow, to: [stock], from: ['spiffe://partner/a']}]",
        "",
    ),
    // Shadowed.
    (
        "rules: [{name: a, action: allow, from: ['spiffe://home/**']}, {name: b, action: allow, from: ['spiffe://home/x/*']}]",
        "rule `b` never decides: rule `a` (p.yaml:1)",
    ),
    (
        "rules: [{name: a, action: allow, from: ['spiffe://home/x/*']}, {name: b, action: allow, from: ['spiffe://home/**']}]",
        "",
    ),
    (
        "rules: [{name: a, action: allow}, {name: b, action: allow, from: ['spiffe://home/x']}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, from: ['spiffe://home/**']}, {name: b, action: allow}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, to: [orders]}, {name: b, action: allow}]",
        "",
    ),
    (
        "rules: [{name: a, action: allow, to: [orders, stock]}, {name: b, action: allow}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, ports: [8443, 9443]}, {name: b, action: allow, to: [stock]}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, source: [10.0.0.0/8]}, {name: b, action: allow, source: [10.1.0.0/16]}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, source: [10.0.0.0/8]}, {name: b, action: allow}]",
        "",
    ),
    // Peers without an address get in by `b` alone.
    (
        "rules: [{name: a, action: allow, source: [0.0.0.0/0, '::/0']}, {name: b, action: allow}]",
        "",
    ),
    (
        "rules: [{name: a, action: deny, from: ['spiffe://home/a'], source: [0.0.0.0/0, '::/0']}, {name: b, action: deny, from: ['spiffe://home/a']}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, not_source: [10.0.0.0/8]}, {name: b, action: allow, source: [192.0.2.0/24]}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, not_source: [10.0.0.0/8]}, {name: b, action: allow, source: [10.1.0.0/16]}]",
        "",
    ),
    (
        "rules: [{name: a, action: allow, not_from: ['spiffe://home/x']}, {name: b, action: allow, from: ['spiffe://home/y/*']}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, not_from: ['spiffe://home/x']}, {name: b, action: allow, from: ['spiffe://home/*']}]",
        "",
    ),
    (
        "rules: [{name: a, action: allow, not_from: ['spiffe://home/x']}, {name: b, action: allow, from: ['spiffe://home/*'], not_from: ['spiffe://home/x']}]",
        "rule `b` never decides",
    ),
    (
        "rules: [{name: a, action: allow, expires: 2027-01-01T00:00:00Z}, {name: b, action: allow}]",
        "",
    ),
    (
        "rules: [{name: a, action: allow, not_before: 2027-01-01T00:00:00Z}, {name: b, action: allow}]",
        "",
    ),
    (
        "rules: [{name: a, action: allow}, {name: b, action: allow, not_before: 2027-01-01T00:00:00Z, expires: 2028-01-01T00:00:00Z}]",
        "rule `b` never decides",
    ),
    // All audit rules that match are named.
    ("rules: [{name: a, action: audit}, {name: b, action: audit}]", ""),
    // A deny that removes all that an allow gives, wherever it stands.
    (
        "rules: [{name: a, action: allow, from: ['spiffe://home/ci/*']}, {name: d, action: deny, from: ['spiffe://home/ci/**']}]",
        "rule `a` allows nothing: deny rule `d`",
    ),
    (
        "rules: [{name: d, action: deny, source: [10.0.0.0/8]}, {name: a, action: allow, source: [10.1.0.0/16]}]",
        "rule `a` allows nothing",
    ),
    (
        "rules: [{name: d, action: deny, source: [10.0.0.0/8]}, {name: a, action: allow}]",
        "",
    ),
    (
        "rules: [{name: d, action: deny, expires: 2027-01-01T00:00:00Z}, {name: a, action: allow}]",
        "",
    ),
    // Sets.
    (
        "ids: {s: ['spiffe://home/a']}\nrules: [{name: r, action: allow}]",
        "nothing uses the set `s` of `ids`",
    ),
    (
        "networks: {s: [10.0.0.0/8]}\nrules: [{name: r, action: allow}]",
        "nothing uses the set `s` of `networks`",
    ),
    (
        "ids: {s: ['spiffe://home/a'], t: [$s]}\nrules: [{name: r, action: allow, from: [$t]}]",
        "",
    ),
    (
        "ids: {s: ['spiffe://home/a']}\nrules: []\nbudgets: [{name: b, from: [$s], connections: 1}]",
        "",
    ),
];

#[test]
fn what_is_warned_of() {
    for (text, needle) in TABLE {
        let found = warnings(text);
        assert_eq!(found.len(), usize::from(!needle.is_empty()), "{text}\n{found:#?}");
        assert!(
            found.iter().all(|warning| warning.contains(needle)),
            "{text}\n{found:#?}"
        );
    }
}

#[test]
fn without_the_config_nothing_is_said_of_it() {
    let text = "rules: [{name: r, action: allow, to: [nowhere], ports: [1], from: ['spiffe://hoem/a']}]";
    let (_, warnings) = compile(vec![file::read("p", text)], Surroundings::default(), at(0)).unwrap();
    assert_eq!(warnings, []);
}
