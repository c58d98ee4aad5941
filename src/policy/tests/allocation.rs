//! Deciding about a peer that is admitted allocates nothing.

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
