//! Policies, deny lists and facts of few words, so that they meet often.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use proptest::prelude::*;

use super::plain::{Listener, PlainBudget, PlainEntry, PlainFacts, PlainRule, What, World};

type Texts = Vec<String>;

const LISTENERS: [&str; 3] = ["orders", "stock", "third"];
const PORTS: [u16; 2] = [8443, 9443];
const SERIALS: [&str; 3] = ["0a", "0b", "1c2d"];

fn path(words: Vec<&'static str>, least: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(words), least..4)
        .prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect())
}

fn domain() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["home", "partner"])
}

fn pattern() -> impl Strategy<Value = String> {
    let with_tail = (domain(), path(vec!["a", "b", "*"], 0)).prop_map(|(d, p)| format!("spiffe://{d}{p}/**"));
    let exact = (domain(), path(vec!["a", "b"], 1)).prop_map(|(d, p)| format!("spiffe://{d}{p}"));
    let stars = (domain(), path(vec!["a", "b", "*"], 1)).prop_map(|(d, p)| format!("spiffe://{d}{p}"));
    prop_oneof![1 => with_tail, 2 => exact, 1 => stars]
}

fn four(low: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + low)
}

fn six(low: u128) -> Ipv6Addr {
    Ipv6Addr::from((0xfd00_u128 << 112) + low)
}

/// Networks and addresses around few addresses, IPv4-mapped ones among them.
fn network() -> impl Strategy<Value = String> {
    let v4 = (0_u32..4, 28_u8..=32).prop_map(|(low, prefix)| {
        let bits = four(low * 5).to_bits() & (u32::MAX << (32 - prefix));
        format!("{}/{prefix}", Ipv4Addr::from(bits))
    });
    let mapped = (0_u32..4, 28_u8..=32).prop_map(|(low, prefix)| {
        let bits = four(low * 5).to_bits() & (u32::MAX << (32 - prefix));
        format!("{}/{}", Ipv4Addr::from(bits).to_ipv6_mapped(), prefix + 96)
    });
    let v6 = (0_u128..4, 124_u8..=128).prop_map(|(low, prefix)| {
        let bits = six(low * 5).to_bits() & (u128::MAX << (128 - prefix));
        format!("{}/{prefix}", Ipv6Addr::from(bits))
    });
    let all = prop::sample::select(vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()]);
    let one = (0_u32..8).prop_map(|low| four(low).to_string());
    prop_oneof![4 => v4, 2 => mapped, 4 => v6, 1 => all, 2 => one]
}

fn address() -> impl Strategy<Value = Option<IpAddr>> {
    let v4 = (0_u32..24).prop_map(|low| Some(IpAddr::V4(four(low))));
    let mapped = (0_u32..24).prop_map(|low| Some(IpAddr::V6(four(low).to_ipv6_mapped())));
    let v6 = (0_u128..24).prop_map(|low| Some(IpAddr::V6(six(low))));
    prop_oneof![Just(None), v4, mapped, v6]
}

/// A list of values, with a named set among them at times.
fn list(
    value: BoxedStrategy<String>,
    sets: Vec<&'static str>,
    size: Range<usize>,
) -> impl Strategy<Value = Texts> {
    let set = prop::sample::select(sets).prop_map(|name| format!("${name}"));
    prop::collection::vec(prop_oneof![5 => value, 1 => set], size)
}

fn ids(size: Range<usize>) -> impl Strategy<Value = Texts> {
    list(pattern().boxed(), vec!["i0", "i1"], size)
}

fn networks(size: Range<usize>) -> impl Strategy<Value = Texts> {
    list(network().boxed(), vec!["n0", "n1"], size)
}

/// Two sets, the second with the first in it at times, large enough now and then to be looked up and not tried.
fn sets(
    value: BoxedStrategy<String>,
    names: [&'static str; 2],
) -> impl Strategy<Value = BTreeMap<&'static str, Texts>> {
    let first = prop::collection::vec(value.clone(), 1..12);
    let second = list(value, vec![names[0]], 1..3);
    (first, second).prop_map(move |(first, second)| BTreeMap::from([(names[0], first), (names[1], second)]))
}

fn rule() -> impl Strategy<Value = PlainRule> {
    let wheres = (
        prop::option::weighted(0.3, prop::sample::subsequence(LISTENERS.to_vec(), 1..=2)),
        prop::option::weighted(0.2, prop::sample::subsequence(PORTS.to_vec(), 1..=2)),
    );
    let whos = (
        prop::option::weighted(0.8, ids(1..4)),
        prop::option::weighted(0.2, ids(1..3)),
        prop::option::weighted(0.3, networks(1..3)),
        prop::option::weighted(0.2, networks(1..3)),
    );
    let times = (
        prop::option::weighted(0.2, 1_u64..6),
        prop::option::weighted(0.3, 1_u64..6),
    );
    let action = prop::sample::select(vec!["allow", "allow", "allow", "deny", "audit"]);
    (action, wheres, whos, times).prop_map(|(action, (to, ports), who, (not_before, expires))| {
        let (from, not_from, source, not_source) = who;
        PlainRule {
            action,
            to,
            ports,
            from,
            not_from,
            source,
            not_source,
            not_before,
            expires,
        }
    })
}

fn entry() -> impl Strategy<Value = PlainEntry> {
    let patterns = || prop::collection::vec(pattern(), 1..4);
    let by_id = patterns().prop_map(|ids| PlainEntry {
        what: What::Ids(ids),
        from: None,
    });
    let what = prop_oneof![
        prop::sample::subsequence(SERIALS.to_vec(), 1..=2).prop_map(What::Serials),
        prop::collection::vec(0_u8..3, 1..3).prop_map(What::Keys),
        (0_u64..6).prop_map(What::IssuedBefore),
    ];
    let by_certificate =
        (what, prop::option::of(patterns())).prop_map(|(what, from)| PlainEntry { what, from });
    prop_oneof![by_id, by_certificate]
}

pub(super) fn world(rules: Range<usize>) -> impl Strategy<Value = World> {
    let trust = || prop::option::of(prop::sample::subsequence(vec!["home", "partner", "third"], 0..=2));
    let budget = (
        prop::option::weighted(0.3, prop::sample::subsequence(LISTENERS.to_vec(), 1..=2)),
        prop::option::weighted(0.7, ids(1..4)),
    )
        .prop_map(|(to, from)| PlainBudget { to, from });
    (
        prop::collection::vec(trust(), 3),
        (prop::bool::weighted(0.8), prop::option::of(domain())),
        sets(pattern().boxed(), ["i0", "i1"]),
        sets(network().boxed(), ["n0", "n1"]),
        prop::collection::vec(rule(), rules),
        prop::collection::vec(budget, 0..3),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(entry(), 1..4)],
    )
        .prop_map(
            |(trust, (listeners_known, own), ids, networks, rules, budgets, deny)| {
                let listeners = LISTENERS.iter().zip(trust).enumerate();
                World {
                    listeners: listeners
                        // Two listeners share a port on different addresses.
                        .map(|(i, (name, trust))| Listener {
                            name,
                            port: PORTS[i % 2],
                            trust,
                        })
                        .collect(),
                    listeners_known,
                    own,
                    ids,
                    networks,
                    rules,
                    budgets,
                    deny,
                }
            },
        )
}

pub(super) fn facts() -> impl Strategy<Value = PlainFacts> {
    let certificate = (prop::sample::select(SERIALS.to_vec()), 0_u8..3, 0_u64..7);
    (
        prop::sample::select(vec!["orders", "stock", "third", "fourth"]),
        (domain(), path(vec!["a", "b"], 0)).prop_map(|(domain, path)| format!("spiffe://{domain}{path}")),
        address(),
        domain(),
        prop::option::weighted(0.8, certificate),
        0_u64..7,
    )
        .prop_map(|(listener, peer, source, own, certificate, now)| PlainFacts {
            listener,
            peer,
            source,
            own,
            certificate,
            now,
        })
}
