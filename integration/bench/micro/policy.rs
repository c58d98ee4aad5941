//! Deciding about one connection, by policies of a few and of many rules and about 1,000 different peers in turn; the
//! nearest miss of a denial; the deny list; and reading and compiling 10,000 rules.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion};
use svidecar::config::ListenerName;
use svidecar::policy::{
    self, Admission, CertificateFacts, DenyList, Facts, Surroundings, compile, deny_list, file,
};
use svidecar::record::Direction;
use svidecar::spiffe::{SpiffeId, TrustDomain};

const RULES: [usize; 2] = [10, 10_000];
const PEERS: usize = 1000;
/// A file holds 1 MiB at most.
const RULES_A_FILE: usize = 2000;

/// A peer, and where it comes from.
type Peer = (SpiffeId, IpAddr);

/// A kind of rule: the conditions of the one with this number.
type Conditions = fn(usize) -> String;
/// The peers of a policy of so many rules.
type Callers = fn(usize) -> Vec<Peer>;

pub(crate) fn bench(criterion: &mut Criterion) {
    decide(criterion);
    nearest(criterion);
    deny(criterion);
    load(criterion);
}

/// Each kind of rule alone, and all mixed: two thirds exact IDs, one sixth wildcards, one sixth networks.
fn decide(criterion: &mut Criterion) {
    let kinds: [(&str, Conditions, Callers); 5] = [
        ("exact", exact, called),
        ("wildcards", wildcard, called_by_wildcard),
        ("networks", network, called),
        ("mixed", mixed, called),
        ("mixed, nobody allowed", mixed, strangers),
    ];
    let mut group = criterion.benchmark_group("policy/decide");
    for rules in RULES {
        for (name, conditions, callers) in kinds {
            let admission = admission(&texts(rules, conditions));
            let peers = callers(rules);
            let allowed = evaluate_all(&admission, &peers);
            assert_eq!(allowed == PEERS, !name.contains("nobody"), "{name}: {allowed}");
            group.bench_function(BenchmarkId::new(name, rules), |bencher| {
                let mut next = peers.iter().cycle();
                let own = TrustDomain::new("example.org").unwrap();
                let now = SystemTime::now();
                bencher.iter(|| {
                    let facts = facts(next.next().unwrap(), &own, now);
                    black_box(&admission).evaluate(black_box(&facts), now).allow
                });
            });
        }
    }
    group.finish();
}

fn nearest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy/nearest");
    let own = TrustDomain::new("example.org").unwrap();
    let now = SystemTime::now();
    for rules in [10, 1000, 10_000] {
        let admission = admission(&texts(rules, mixed));
        let peers = strangers(rules);
        group.bench_function(BenchmarkId::new("mixed", rules), |bencher| {
            let mut next = peers.iter().cycle();
            bencher.iter(|| admission.nearest(&facts(next.next().unwrap(), &own, now), now));
        });
    }
    group.finish();
}

fn deny(criterion: &mut Criterion) {
    let mut text = "deny:\n".to_owned();
    for n in 0..5000 {
        writeln!(text, "  - {{ name: s{n}, serials: [\"{n:08x}\"] }}").unwrap();
        writeln!(
            text,
            "  - {{ name: i{n}, ids: [\"spiffe://example.org/gone/{n}/**\"] }}"
        )
        .unwrap();
    }
    let now = SystemTime::now();
    let list = deny_list::compile(deny_list::read("deny.yaml", &text), now)
        .unwrap()
        .0;
    let mut admission = admission(&texts(10, mixed));
    admission.deny_list = Arc::new(list);
    let peers = called(10);
    assert_eq!(evaluate_all(&admission, &peers), PEERS);
    let own = TrustDomain::new("example.org").unwrap();
    criterion.bench_function("policy/decide/mixed beside a deny list of 10000/10", |bencher| {
        let mut next = peers.iter().cycle();
        bencher.iter(|| {
            admission
                .evaluate(&facts(next.next().unwrap(), &own, now), now)
                .allow
        });
    });
}

/// From a folder of five files, as `run` reads it, and of that the parsing of one file after the other.
fn load(criterion: &mut Criterion) {
    let texts = texts(10_000, mixed);
    let folder = tempfile::tempdir().unwrap();
    for (n, text) in texts.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{n}.yaml")), text).unwrap();
    }
    let listeners = listeners();
    let mut group = criterion.benchmark_group("policy/load");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function(BenchmarkId::new("folder", 10_000), |bencher| {
        bencher
            .iter(|| policy::load(folder.path(), Surroundings::of(&listeners), SystemTime::now()).unwrap());
    });
    group.bench_function(BenchmarkId::new("parse", 10_000), |bencher| {
        bencher.iter(|| {
            let files = texts.iter().map(|text| file::read("p.yaml", text));
            files.collect::<Vec<_>>()
        });
    });
    group.finish();
}

fn evaluate_all(admission: &Admission, peers: &[Peer]) -> usize {
    let own = TrustDomain::new("example.org").unwrap();
    let now = SystemTime::now();
    peers
        .iter()
        .filter(|peer| admission.evaluate(&facts(peer, &own, now), now).allow)
        .count()
}

fn facts<'a>((peer, source): &'a Peer, own: &'a TrustDomain, now: SystemTime) -> Facts<'a> {
    Facts {
        listener: "orders",
        peer,
        source: Some(*source),
        own_trust_domain: own,
        certificate: Some(CertificateFacts::unlisted(now)),
    }
}

fn exact(n: usize) -> String {
    format!("to: [orders], from: [\"spiffe://example.org/ns/team-{n}/sa/app\"]")
}

fn wildcard(n: usize) -> String {
    match n % 2 {
        0 => format!("from: [\"spiffe://example.org/ns/*/sa/app-{n}\"]"),
        _ => format!("from: [\"spiffe://example.org/ns/team-{n}/**\"]"),
    }
}

fn network(n: usize) -> String {
    format!("source: [\"10.{}.{}.0/24\"]", n / 250, n % 250)
}

fn mixed(n: usize) -> String {
    match n % 6 {
        1 => wildcard(n),
        4 => format!("from: [\"spiffe://example.org/**\"], {}", network(n)),
        _ => exact(n),
    }
}

/// Peers that one rule each is about.
fn called(rules: usize) -> Vec<Peer> {
    peers(rules, |n| format!("spiffe://example.org/ns/team-{n}/sa/app"))
}

/// Those of rules with wildcards alone.
fn called_by_wildcard(rules: usize) -> Vec<Peer> {
    peers(rules, |n| match n % 2 {
        0 => format!("spiffe://example.org/ns/some/sa/app-{n}"),
        _ => format!("spiffe://example.org/ns/team-{n}/sa/app"),
    })
}

fn peers(rules: usize, id: impl Fn(usize) -> String) -> Vec<Peer> {
    (0..PEERS)
        .map(|peer| {
            // All kinds of rule have their turn.
            let n = (peer * 7) % rules;
            let [third, fourth] = [n / 250, n % 250].map(|part| u8::try_from(part).unwrap());
            let address = IpAddr::V4(Ipv4Addr::new(10, third, fourth, 7));
            (SpiffeId::new(id(n)).unwrap(), address)
        })
        .collect()
}

/// Peers that look like others and that no rule is about.
fn strangers(rules: usize) -> Vec<Peer> {
    (0..PEERS)
        .map(|peer| {
            let id = format!("spiffe://example.org/ns/team-{}x/sa/appp", peer % rules);
            (
                SpiffeId::new(id).unwrap(),
                IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
            )
        })
        .collect()
}

fn texts(rules: usize, conditions: Conditions) -> Vec<String> {
    let numbers: Vec<usize> = (0..rules).collect();
    numbers
        .chunks(RULES_A_FILE)
        .map(|numbers| {
            let mut text = "rules:\n".to_owned();
            for n in numbers {
                writeln!(
                    text,
                    "  - {{ name: rule-{n}, action: allow, {} }}",
                    conditions(*n)
                )
                .unwrap();
            }
            text
        })
        .collect()
}

fn listeners() -> [ListenerName; 1] {
    [ListenerName {
        name: "orders".into(),
        direction: Direction::Inbound,
        port: Some(8443),
        trust: Some(Vec::new()),
    }]
}

fn admission(texts: &[String]) -> Admission {
    let files = texts.iter().map(|text| file::read("p.yaml", text)).collect();
    let policy = compile(files, Surroundings::of(&listeners()), SystemTime::now())
        .unwrap()
        .0;
    Admission::new(Arc::new(policy), Arc::new(DenyList::empty()))
}
