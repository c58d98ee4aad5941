//! A plain evaluator, written from the documentation with none of the compiled form's code, beside the real one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct PlainRule {
    action: &'static str,
    to: Option<Vec<&'static str>>,
    from: Option<Vec<String>>,
    source: Option<Vec<(IpAddr, u8)>>,
    expires: Option<u64>,
}

const LISTENERS: [&str; 3] = ["orders", "stock", "third"];

/// Few words, so that IDs and patterns meet often.
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

/// Networks around few addresses, IPv4-mapped ones among them.
fn network() -> impl Strategy<Value = (IpAddr, u8)> {
    let v4 = (0_u32..4, 28_u8..=32).prop_map(|(low, prefix)| {
        let bits = (0x0a00_0000 + low * 5) & (u32::MAX << (32 - prefix));
        (IpAddr::V4(Ipv4Addr::from(bits)), prefix)
    });
    let mapped = (0_u32..4, 28_u8..=32).prop_map(|(low, prefix)| {
        let bits = (0x0a00_0000 + low * 5) & (u32::MAX << (32 - prefix));
        (IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped()), prefix + 96)
    });
    let v6 = (0_u128..4, 124_u8..=128).prop_map(|(low, prefix)| {
        let bits = ((0xfd00_u128 << 112) + low * 5) & (u128::MAX << (128 - prefix));
        (IpAddr::V6(Ipv6Addr::from(bits)), prefix)
    });
    prop_oneof![v4, mapped, v6]
}

fn address() -> impl Strategy<Value = Option<IpAddr>> {
    let v4 = (0_u32..24).prop_map(|low| Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + low))));
    let mapped =
        (0_u32..24).prop_map(|low| Some(IpAddr::V6(Ipv4Addr::from(0x0a00_0000 + low).to_ipv6_mapped())));
    let v6 = (0_u128..24).prop_map(|low| Some(IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) + low))));
    prop_oneof![Just(None), v4, mapped, v6]
}

fn rule() -> impl Strategy<Value = PlainRule> {
    (
        prop::sample::select(vec!["allow", "allow", "deny", "audit"]),
        prop::option::of(prop::sample::subsequence(LISTENERS.to_vec(), 1..=2)),
        prop::option::weighted(0.8, prop::collection::vec(pattern(), 1..4)),
        prop::option::weighted(0.3, prop::collection::vec(network(), 1..3)),
        prop::option::weighted(0.3, 1_u64..6),
    )
        .prop_map(|(action, to, from, source, expires)| PlainRule {
            action,
            to,
            from,
            source,
            expires,
        })
}

fn yaml(rules: &[PlainRule]) -> String {
    let quoted = |items: Vec<String>| {
        items
            .iter()
            .map(|i| format!("'{i}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = "rules:".to_owned();
    if rules.is_empty() {
        text.push_str(" []");
    }
    for (index, rule) in rules.iter().enumerate() {
        text.push_str(&format!("\n  - name: r{index}\n    action: {}", rule.action));
        if let Some(to) = &rule.to {
            text.push_str(&format!("\n    to: [{}]", to.join(", ")));
        }
        if let Some(from) = &rule.from {
            text.push_str(&format!("\n    from: [{}]", quoted(from.clone())));
        }
        if let Some(source) = &rule.source {
            let source = source
                .iter()
                .map(|(address, prefix)| format!("{address}/{prefix}"))
                .collect();
            text.push_str(&format!("\n    source: [{}]", quoted(source)));
        }
        if let Some(expires) = rule.expires {
            text.push_str(&format!("\n    expires: 1970-01-01T00:00:0{expires}Z"));
        }
    }
    text
}

fn segments_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        (["**"], _) | ([], []) => true,
        ([want, pattern @ ..], [have, path @ ..]) => {
            (*want == "*" || want == have) && segments_match(pattern, path)
        }
        _ => false,
    }
}

fn id_matches(pattern: &str, peer: &str) -> bool {
    let split = |text: &str| -> Vec<String> {
        text.trim_start_matches("spiffe://")
            .split('/')
            .map(str::to_owned)
            .collect()
    };
    let (pattern, peer) = (split(pattern), split(peer));
    let rest = |all: &[String]| -> Vec<String> { all[1..].to_vec() };
    let (p, i) = (rest(&pattern), rest(&peer));
    let p: Vec<&str> = p.iter().map(String::as_str).collect();
    let i: Vec<&str> = i.iter().map(String::as_str).collect();
    pattern[0] == peer[0] && segments_match(&p, &i)
}

/// An address as 128 bits, IPv4 in its mapped place: there the two families need no telling apart.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn in_network(address: IpAddr, (network, prefix): (IpAddr, u8)) -> bool {
    let prefix = if network.is_ipv4() { prefix + 96 } else { prefix };
    let shift = 128 - u32::from(prefix);
    bits(address).checked_shr(shift) == bits(network).checked_shr(shift)
}

fn rule_matches(rule: &PlainRule, listener: &str, peer: &str, source: Option<IpAddr>, now: u64) -> bool {
    let to = rule.to.as_ref().is_none_or(|to| to.contains(&listener));
    let from = match &rule.from {
        Some(from) => from.iter().any(|pattern| id_matches(pattern, peer)),
        None => rule.action != "allow" || peer.starts_with("spiffe://home"),
    };
    let network = match (&rule.source, source) {
        (None, _) => true,
        (Some(networks), Some(address)) => networks.iter().any(|network| in_network(address, *network)),
        (Some(_), None) => rule.action == "deny",
    };
    to && from && network && rule.expires.is_none_or(|expires| now < expires)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn deciding_agrees_with_the_plain_evaluator(
        rules in prop::collection::vec(rule(), 0..8),
        listener in prop::sample::select(vec!["orders", "stock", "third", "fourth"]),
        peer_domain in domain(),
        peer_path in path(vec!["a", "b"], 0),
        source in address(),
        now in 0_u64..7,
    ) {
        let peer = format!("spiffe://{peer_domain}{peer_path}");
        let listeners: Vec<ListenerName> = LISTENERS
            .iter()
            .map(|name| ListenerName { name: Arc::from(*name), direction: Direction::Inbound, port: None, trust: None })
            .collect();
        let files = vec![file::read("p", &yaml(&rules))];
        let policy = compile(files, Surroundings::of(&listeners), at(0)).expect("generated policies are good").0;

        let matching: Vec<usize> = rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule_matches(rule, listener, &peer, source, now))
            .map(|(index, _)| index)
            .collect();
        let first = |action: &str| matching.iter().find(|i| rules[**i].action == action).copied();
        let deciding = first("deny").or(first("allow"));
        let allow = first("deny").is_none() && first("allow").is_some();
        let audited: Vec<Arc<str>> = matching
            .iter()
            .filter(|i| rules[**i].action == "audit")
            .map(|i| Arc::from(format!("r{i}")))
            .collect();
        let expires = deciding.filter(|_| allow).and_then(|i| rules[i].expires).map(at);

        let id = SpiffeId::new(&peer).unwrap();
        let own = TrustDomain::new("home").unwrap();
        let facts = Facts { listener, peer: &id, source, own_trust_domain: &own, certificate: None };
        let admission = Admission::new(Arc::new(policy), Arc::default());
        let decision = admission.evaluate(&facts, at(now));
        prop_assert_eq!(decision.allow, allow);
        prop_assert_eq!(decision.by.name().map(|name| name.to_string()), deciding.map(|i| format!("r{i}")));
        let marks: Vec<Arc<str>> = decision.audited.iter().map(|rule| rule.name().clone()).collect();
        prop_assert_eq!(marks, audited);
        prop_assert_eq!(decision.expires(), expires);
        let ends = rules.iter().filter_map(|r| r.expires).filter(|e| *e > now).min();
        prop_assert_eq!(admission.next_change(at(now)), ends.map(at));

        // The explanation says the same, about all rules, those the index left out included.
        let explanation = admission.explain(&facts, at(now));
        prop_assert_eq!(explanation.rule.as_ref(), decision.by.name());
        let said: Vec<usize> =
            explanation.rules.iter().enumerate().filter(|(_, r)| r.matches).map(|(i, _)| i).collect();
        prop_assert_eq!(said, matching);
        prop_assert_eq!(explanation.rules.iter().filter(|r| r.decided).count(), usize::from(deciding.is_some()));
    }
}
