//! The plain evaluator.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::ListenerName;
use crate::record::{Direction, Reason};
use crate::spiffe::TrustDomain;

type Texts = Vec<String>;

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) listeners: Vec<Listener>,
    pub(super) listeners_known: bool,
    /// Our own trust domain, where the config says it.
    pub(super) own: Option<&'static str>,
    pub(super) ids: BTreeMap<&'static str, Texts>,
    pub(super) networks: BTreeMap<&'static str, Texts>,
    pub(super) rules: Vec<PlainRule>,
    pub(super) budgets: Vec<PlainBudget>,
    pub(super) deny: Vec<PlainEntry>,
}

#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) name: &'static str,
    pub(super) port: u16,
    pub(super) trust: Option<Vec<&'static str>>,
}

#[derive(Clone, Debug)]
pub(super) struct PlainRule {
    pub(super) action: &'static str,
    pub(super) to: Option<Vec<&'static str>>,
    pub(super) ports: Option<Vec<u16>>,
    pub(super) from: Option<Texts>,
    pub(super) not_from: Option<Texts>,
    pub(super) source: Option<Texts>,
    pub(super) not_source: Option<Texts>,
    pub(super) not_before: Option<u64>,
    pub(super) expires: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct PlainBudget {
    pub(super) to: Option<Vec<&'static str>>,
    pub(super) from: Option<Texts>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Ids(Texts),
    Serials(Vec<&'static str>),
    Keys(Vec<u8>),
    IssuedBefore(u64),
}

#[derive(Clone, Debug)]
pub(super) struct PlainEntry {
    pub(super) what: What,
    pub(super) from: Option<Texts>,
}

#[derive(Clone, Debug)]
pub(super) struct PlainFacts {
    pub(super) listener: &'static str,
    pub(super) peer: String,
    pub(super) source: Option<IpAddr>,
    pub(super) own: &'static str,
    /// Serial number, the byte that its key's hash is made of, time of issue.
    pub(super) certificate: Option<(&'static str, u8, u64)>,
    pub(super) now: u64,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) allow: bool,
    pub(super) reason: Reason,
    pub(super) by: Option<String>,
    pub(super) audited: Vec<String>,
    pub(super) expires: Option<u64>,
    /// How many conditions the nearest miss failed in.
    pub(super) nearest: Option<usize>,
}

pub(super) fn decide(world: &World, asked: &PlainFacts) -> Expected {
    let matching: Vec<usize> = (0..world.rules.len())
        .filter(|i| unmet(world, &world.rules[*i], asked).is_empty())
        .collect();
    let first = |action: &str| {
        matching
            .iter()
            .find(|i| world.rules[**i].action == action)
            .copied()
    };
    let named = |i: usize| Some(format!("r{i}"));
    let (allow, reason, by, expires) = if let Some(i) = world.deny.iter().position(|e| hits(e, asked)) {
        (false, Reason::DenyList, Some(format!("d{i}")), None)
    } else if !trusted(world, asked) {
        (false, Reason::TrustDomainNotAccepted, None, None)
    } else if let Some(i) = first("deny") {
        (false, Reason::DenyRule, named(i), None)
    } else if let Some(i) = first("allow") {
        (true, Reason::Finished, named(i), world.rules[i].expires)
    } else {
        (false, Reason::NoAllowRule, None, None)
    };
    let misses = world.rules.iter().filter(|rule| rule.action == "allow");
    let nearest = misses.map(|rule| unmet(world, rule, asked).len()).min();
    Expected {
        allow,
        reason,
        by,
        audited: matching
            .iter()
            .filter(|i| world.rules[**i].action == "audit")
            .map(|i| format!("r{i}"))
            .collect(),
        expires,
        nearest: nearest.filter(|_| reason == Reason::NoAllowRule),
    }
}

fn trusted(world: &World, asked: &PlainFacts) -> bool {
    let domain = domain_of(&asked.peer);
    if domain == asked.own || !world.listeners_known {
        return true;
    }
    match world.listeners.iter().find(|l| l.name == asked.listener) {
        Some(listener) => listener
            .trust
            .as_ref()
            .is_none_or(|trust| trust.contains(&domain)),
        None => false,
    }
}

/// Without a certificate, what looks at one hits.
fn hits(entry: &PlainEntry, asked: &PlainFacts) -> bool {
    let from = entry.from.as_ref().is_none_or(|from| any_id(from, &asked.peer));
    from && match (&entry.what, asked.certificate) {
        (What::Ids(ids), _) => any_id(ids, &asked.peer),
        (_, None) => true,
        (What::Serials(serials), Some((serial, ..))) => serials.contains(&serial),
        (What::Keys(keys), Some((_, key, _))) => keys.contains(&key),
        (What::IssuedBefore(time), Some((.., issued))) => issued < *time,
    }
}

/// The names of the conditions of a rule that do not hold.
pub(super) fn unmet(world: &World, rule: &PlainRule, asked: &PlainFacts) -> Vec<&'static str> {
    let ids = |list: &Option<Texts>| list.as_ref().map(|list| expand(&world.ids, list));
    let networks = |list: &Option<Texts>| list.as_ref().map(|list| expand(&world.networks, list));
    let deny = rule.action == "deny";
    let port = world
        .listeners
        .iter()
        .find(|l| l.name == asked.listener)
        .map(|l| l.port);
    let to = rule.to.as_ref().is_none_or(|to| to.contains(&asked.listener));
    let ports = match &rule.ports {
        None => true,
        // Which port a listener has is only in the config.
        Some(_) if !world.listeners_known => deny,
        Some(ports) => port.is_some_and(|port| ports.contains(&port)),
    };
    let from = match ids(&rule.from) {
        Some(from) => any_id(&from, &asked.peer),
        None => rule.action != "allow" || domain_of(&asked.peer) == asked.own,
    };
    let not_from = ids(&rule.not_from).is_some_and(|list| any_id(&list, &asked.peer));
    let source = match (networks(&rule.source), asked.source) {
        (None, _) => true,
        (Some(_), None) => deny,
        (Some(list), Some(address)) => any_network(&list, address),
    };
    let not_source = match (networks(&rule.not_source), asked.source) {
        (None, _) => true,
        (Some(_), None) => deny,
        (Some(list), Some(address)) => !any_network(&list, address),
    };
    let conditions = [
        ("to", to),
        ("ports", ports),
        ("from", from),
        ("not_from", !not_from),
        ("source", source),
        ("not_source", not_source),
        (
            "not_before",
            rule.not_before.is_none_or(|begins| begins <= asked.now),
        ),
        ("expires", rule.expires.is_none_or(|ends| asked.now < ends)),
    ];
    let unmet = conditions.into_iter().filter(|(_, holds)| !holds);
    unmet.map(|(name, _)| name).collect()
}

pub(super) fn budgets(world: &World, asked: &PlainFacts) -> Vec<String> {
    let has = |budget: &PlainBudget| {
        let from = budget.from.as_ref().map(|from| expand(&world.ids, from));
        budget.to.as_ref().is_none_or(|to| to.contains(&asked.listener))
            && from.is_none_or(|from| any_id(&from, &asked.peer))
    };
    let all = world.budgets.iter().enumerate();
    all.filter(|(_, budget)| has(budget))
        .map(|(i, _)| format!("b{i}"))
        .collect()
}

pub(super) fn next_change(world: &World, now: u64) -> Option<u64> {
    let times = world
        .rules
        .iter()
        .flat_map(|rule| [rule.not_before, rule.expires]);
    times.flatten().filter(|time| *time > now).min()
}

fn expand(sets: &BTreeMap<&'static str, Texts>, list: &[String]) -> Texts {
    let mut texts = Vec::new();
    for text in list {
        match text.strip_prefix('$') {
            Some(name) => texts.extend(expand(sets, &sets[name])),
            None => texts.push(text.clone()),
        }
    }
    texts
}

fn domain_of(id: &str) -> &str {
    id["spiffe://".len()..].split('/').next().unwrap()
}

fn any_id(patterns: &[String], peer: &str) -> bool {
    let peer: Vec<&str> = peer["spiffe://".len()..].split('/').collect();
    patterns.iter().any(|pattern| {
        let pattern: Vec<&str> = pattern["spiffe://".len()..].split('/').collect();
        pattern[0] == peer[0] && segments_match(&pattern[1..], &peer[1..])
    })
}

fn segments_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        (["**"], _) | ([], []) => true,
        (["*", pattern @ ..], [_, path @ ..]) => segments_match(pattern, path),
        ([want, pattern @ ..], [have, path @ ..]) => want == have && segments_match(pattern, path),
        _ => false,
    }
}

/// An address as 128 bits, IPv4 in its mapped place: there the two families need no telling apart.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn any_network(networks: &[String], address: IpAddr) -> bool {
    networks.iter().any(|network| {
        let (network, prefix) = network.split_once('/').unwrap_or((network, "128"));
        let network: IpAddr = network.parse().unwrap();
        let prefix: u32 = prefix.parse().unwrap();
        let prefix = if network.is_ipv4() && prefix <= 32 {
            prefix + 96
        } else {
            prefix
        };
        // Networks of IPv6 hold no IPv4, however wide they are.
        let family = prefix >= 96 || !address.to_canonical().is_ipv4();
        family && bits(address).checked_shr(128 - prefix) == bits(network).checked_shr(128 - prefix)
    })
}

impl Listener {
    pub(super) fn known(&self) -> ListenerName {
        let trust = self.trust.as_ref();
        ListenerName {
            name: Arc::from(self.name),
            direction: Direction::Inbound,
            port: Some(self.port),
            trust: trust.map(|trust| trust.iter().map(|name| TrustDomain::new(name).unwrap()).collect()),
        }
    }
}

impl World {
    /// One file with the sets, one with rules and budgets.
    pub(super) fn policy_files(&self) -> (String, String) {
        let sets = |sets: &BTreeMap<&'static str, Texts>| {
            let sets = sets
                .iter()
                .map(|(name, list)| format!("  {name}: {}\n", quoted(list)));
            sets.collect::<String>()
        };
        let first = format!("ids:\n{}networks:\n{}", sets(&self.ids), sets(&self.networks));
        let mut text = "rules:".to_owned();
        if self.rules.is_empty() {
            text.push_str(" []");
        }
        for (index, rule) in self.rules.iter().enumerate() {
            text.push_str(&format!("\n  - name: r{index}\n    action: {}", rule.action));
            field(&mut text, "to", rule.to.as_deref().map(quoted));
            field(
                &mut text,
                "ports",
                rule.ports.as_ref().map(|ports| format!("{ports:?}")),
            );
            field(&mut text, "from", rule.from.as_deref().map(quoted));
            field(&mut text, "not_from", rule.not_from.as_deref().map(quoted));
            field(&mut text, "source", rule.source.as_deref().map(quoted));
            field(&mut text, "not_source", rule.not_source.as_deref().map(quoted));
            field(&mut text, "not_before", rule.not_before.map(instant));
            field(&mut text, "expires", rule.expires.map(instant));
        }
        if !self.budgets.is_empty() {
            text.push_str("\nbudgets:");
        }
        for (index, budget) in self.budgets.iter().enumerate() {
            text.push_str(&format!("\n  - name: b{index}\n    connections: 1"));
            field(&mut text, "to", budget.to.as_deref().map(quoted));
            field(&mut text, "from", budget.from.as_deref().map(quoted));
        }
        (first, text)
    }

    pub(super) fn deny_file(&self) -> String {
        let mut text = "deny:".to_owned();
        if self.deny.is_empty() {
            text.push_str(" []");
        }
        for (index, entry) in self.deny.iter().enumerate() {
            text.push_str(&format!("\n  - name: d{index}"));
            let (name, value) = match &entry.what {
                What::Ids(ids) => ("ids", quoted(ids)),
                What::Serials(serials) => ("serials", quoted(serials)),
                What::Keys(keys) => {
                    let keys: Texts = keys
                        .iter()
                        .map(|key| format!("sha256:{}", format!("{key:02x}").repeat(32)))
                        .collect();
                    ("keys", quoted(&keys))
                }
                What::IssuedBefore(time) => ("issued_before", instant(*time)),
            };
            field(&mut text, name, Some(value));
            field(&mut text, "from", entry.from.as_deref().map(quoted));
        }
        text
    }
}

fn field(text: &mut String, name: &str, value: Option<String>) {
    if let Some(value) = value {
        text.push_str(&format!("\n    {name}: {value}"));
    }
}

fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("'{}'", item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

fn instant(seconds: u64) -> String {
    format!("1970-01-01T00:00:0{seconds}Z")
}
