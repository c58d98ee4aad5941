//! Deciding about one connection: policies of a few and of many rules, and a peer that the last rule admits by its
//! exact ID, that the last rule admits by a pattern, or that none names.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use criterion::{BenchmarkId, Criterion};
use svidecar::policy::{Facts, Policy, compile, file};
use svidecar::spiffe::{SpiffeId, TrustDomain};

const RULES: [usize; 2] = [10, 1000];

pub(crate) fn bench(criterion: &mut Criterion) {
    let own = TrustDomain::new("example.org").unwrap();
    let now = SystemTime::now();
    let mut group = criterion.benchmark_group("policy");
    for rules in RULES {
        let last = rules - 1;
        let exact = policy(rules, |n| format!("spiffe://example.org/ns/n{n}/sa/app"));
        let pattern = policy(rules, |n| format!("spiffe://example.org/ns/n{n}/**"));
        let peer = format!("spiffe://example.org/ns/n{last}/sa/app");
        let stranger = "spiffe://example.org/stranger".to_owned();
        let cases = [
            ("exact", &exact, &peer, true),
            ("pattern", &pattern, &peer, true),
            ("nobody", &pattern, &stranger, false),
        ];
        for (name, policy, peer, allow) in cases {
            let peer = SpiffeId::new(peer).unwrap();
            let facts = Facts {
                listener: "orders",
                peer: &peer,
                source: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                own_trust_domain: &own,
            };
            assert_eq!(policy.evaluate(&facts, now).allow, allow);
            group.bench_function(BenchmarkId::new(name, rules), |bencher| {
                bencher.iter(|| black_box(policy).evaluate(black_box(&facts), now));
            });
        }
    }
    group.finish();
}

fn policy(rules: usize, from: impl Fn(usize) -> String) -> Policy {
    let mut text = "rules:\n".to_owned();
    for n in 0..rules {
        let from = from(n);
        writeln!(text, "  - {{ name: r{n}, action: allow, from: [ \"{from}\" ] }}").unwrap();
    }
    let written = file::read("policy.yaml", &text);
    compile(vec![written], None, SystemTime::now()).unwrap().0
}
