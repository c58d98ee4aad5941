//! What deciding costs, said without a clock: no allocation, and how many rules are judged.

use super::*;

#[test]
fn admitting_allocates_nothing() {
    let mut text = "rules:
  - {name: everybody-else, action: deny, from: ['spiffe://home/evil/**'], source: [10.0.0.0/8]}
  - {name: not-begun, action: deny, not_before: 2100-01-01T00:00:00Z}
"
    .to_owned();
    for n in 0..100 {
        text.push_str(&format!(
            "  - {{name: exact-{n}, action: allow, to: [orders], from: ['spiffe://home/e/{n}']}}\n"
        ));
        text.push_str(&format!(
            "  - {{name: star-{n}, action: allow, from: ['spiffe://home/*/s-{n}/**', 'spiffe://home/x/*']}}\n"
        ));
        text.push_str(&format!("  - {{name: net-{n}, action: allow, from: ['spiffe://home/n/**'], source: [10.0.{n}.0/24], not_source: [10.0.{n}.9]}}\n"));
    }
    let mut admission = compiled(&text);
    admission.deny_list = Arc::new(
        deny_list::compile(deny_list::read("d", lists::GOOD), at(100))
            .unwrap()
            .0,
    );
    let peers = [
        ("spiffe://home/e/77", "192.0.2.1"),
        ("spiffe://home/y/s-9/z/z", "fd00::1"),
        ("spiffe://home/n/z", "10.0.50.1"),
        ("spiffe://home/x/z", "::ffff:10.0.50.9"),
    ];
    for (peer, source) in peers {
        with_facts("orders", peer, Some(source), |facts| {
            let facts = Facts {
                certificate: Some(CertificateFacts::unlisted(at(100))),
                ..*facts
            };
            let mut allowed = false;
            let counted = allocation_counter::measure(|| {
                allowed = admission.evaluate(&facts, at(100)).allow;
            });
            assert!(allowed, "{peer}");
            assert_eq!(counted.count_total, 0, "{peer}");
        });
    }
}

/// Rules of all kinds, ten and ten thousand of them: as few are judged.
#[test]
fn no_more_rules_are_judged_however_many_there_are() {
    let rule = |n: usize| match n % 6 {
        1 => format!("from: ['spiffe://home/*/team-{n}/**']"),
        3 => format!("from: ['spiffe://home/ns/team-{n}/**', 'spiffe://home/ns/*/app-{n}']"),
        4 => format!(
            "from: ['spiffe://home/**'], source: [10.{}.{}.0/24]",
            n / 250,
            n % 250
        ),
        _ => format!("to: [orders], from: ['spiffe://home/ns/team-{n}/app']"),
    };
    for rules in [10, 1000, 10_000] {
        let numbers: Vec<usize> = (0..rules).collect();
        let files = numbers.chunks(2000).map(|numbers| {
            let rules = numbers
                .iter()
                .map(|n| format!("  - {{name: r{n}, action: allow, {}}}\n", rule(*n)));
            file::read("p", &format!("rules:\n{}", rules.collect::<String>()))
        });
        let (policy, warnings) = compile(files.collect(), Surroundings::of(&listeners()), at(0)).unwrap();
        assert_eq!(warnings, []);
        let admission = Admission::new(Arc::new(policy), Arc::default());
        for n in (0..1000).map(|n| n * 7 % rules) {
            let source = format!("10.{}.{}.7", n / 250, n % 250);
            let peer = format!("spiffe://home/ns/team-{n}/app");
            with_facts("orders", &peer, Some(&source), |facts| {
                index::JUDGED.set(0);
                assert!(admission.evaluate(facts, at(0)).allow);
                assert!(
                    index::JUDGED.get() <= 3,
                    "{} of {rules} rules judged for {peer}",
                    index::JUDGED.get()
                );
            });
        }
    }
}
