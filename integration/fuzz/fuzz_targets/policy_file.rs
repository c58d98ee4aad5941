//! Any text is answered: a policy, or what is wrong with it. What a policy says of some facts is what its explanation
//! says, rule by rule; and its rules written out anew are read back as the same rules.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use svidecar::policy::file::{Item, WrittenRule};
use svidecar::policy::{Admission, DenyList, Facts, Policy, Surroundings, compile, file};
use svidecar::spiffe::{SpiffeId, TrustDomain};

fuzz_target!(|text: &str| {
    let read = file::read("policy.yaml", text);
    let rules = read.rules.clone();
    let good = read.findings.errors() == 0;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Ok((policy, _)) = compile(vec![read], Surroundings::default(), now) {
        explain(policy, &rules, now);
    }
    if good {
        read_back(&rules);
    }
});

/// Asks about the first IDs and addresses that the policy itself names: they meet its conditions most often.
fn explain(policy: Policy, rules: &[WrittenRule], now: SystemTime) {
    let admission = Admission::new(Arc::new(policy), Arc::new(DenyList::empty()));
    let own = TrustDomain::new("example.org").expect("a trust domain");
    let patterns = rules.iter().flat_map(|rule| rule.from.iter().flatten());
    let peers =
        patterns.filter_map(|item| SpiffeId::new(item.text.replace("**", "x").replace('*', "y")).ok());
    let address = Some(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)));
    for peer in peers.take(3) {
        for source in [None, address] {
            let facts = Facts {
                listener: "orders",
                peer: &peer,
                source,
                own_trust_domain: &own,
                certificate: None,
            };
            let outcome = admission.evaluate(&facts, now);
            let explanation = admission.explain(&facts, now);
            let matching = |action: &str| {
                let of_action = explanation
                    .rules
                    .iter()
                    .filter(move |rule| rule.action.to_string() == action);
                of_action
                    .filter(|rule| rule.matches)
                    .map(|rule| rule.name.clone())
                    .collect::<Vec<_>>()
            };
            let (allow, deny, audit) = (matching("allow"), matching("deny"), matching("audit"));
            assert_eq!(outcome.allow, deny.is_empty() && !allow.is_empty());
            assert_eq!(outcome.by.name(), deny.first().or(allow.first()));
            let audited: Vec<_> = outcome.audited.iter().map(|rule| rule.name().clone()).collect();
            assert_eq!(audited, audit);
            assert_eq!(
                explanation.nearest.is_some(),
                outcome.by.name().is_none() && !names(rules, "allow").is_empty()
            );
        }
    }
}

fn names<'r>(rules: &'r [WrittenRule], action: &str) -> Vec<&'r str> {
    let rules = rules.iter().filter(|rule| rule.action.to_string() == action);
    rules.map(|rule| &*rule.name.0).collect()
}

fn read_back(rules: &[WrittenRule]) {
    let mut text = "rules:".to_owned();
    if rules.is_empty() {
        text.push_str(" []");
    }
    for rule in rules {
        text.push_str(&format!(
            "\n  - name: '{}'\n    action: {}",
            rule.name.0, rule.action
        ));
        if let Some(description) = &rule.description {
            // JSON's strings are YAML's.
            text.push_str(&format!("\n    description: {}", quoted(description)));
        }
        if let Some(to) = &rule.to {
            let names: Vec<String> = to.iter().map(|(name, _)| quoted(name)).collect();
            text.push_str(&format!("\n    to: [{}]", names.join(", ")));
        }
        if let Some(ports) = &rule.ports {
            let ports: Vec<u16> = ports.iter().map(|(port, _)| *port).collect();
            text.push_str(&format!("\n    ports: {ports:?}"));
        }
        list(&mut text, "from", &rule.from);
        list(&mut text, "not_from", &rule.not_from);
        list(&mut text, "source", &rule.source);
        list(&mut text, "not_source", &rule.not_source);
        for (field, time) in [("not_before", rule.not_before), ("expires", rule.expires)] {
            if let Some((time, _)) = time {
                text.push_str(&format!("\n    {field}: '{}'", svidecar::clock::rfc3339(time)));
            }
        }
    }
    let again = file::read("policy.yaml", &text);
    assert_eq!(
        again.findings.errors(),
        0,
        "{text}\n{:?}",
        again.findings.into_list()
    );
    assert_eq!(again.rules.len(), rules.len(), "{text}");
    for (one, other) in rules.iter().zip(&again.rules) {
        assert_eq!(one.name.0, other.name.0);
        assert_eq!(one.action, other.action);
        assert_eq!(one.description, other.description);
        assert_eq!(texts(&one.from), texts(&other.from));
        assert_eq!(texts(&one.not_from), texts(&other.not_from));
        assert_eq!(texts(&one.source), texts(&other.source));
        assert_eq!(texts(&one.not_source), texts(&other.not_source));
        assert_eq!(
            one.ports.as_ref().map(Vec::len),
            other.ports.as_ref().map(Vec::len)
        );
    }
}

fn list<T>(text: &mut String, field: &str, items: &Option<Vec<Item<T>>>) {
    if let Some(items) = items {
        let items: Vec<String> = items.iter().map(|item| quoted(&item.text)).collect();
        text.push_str(&format!("\n    {field}: [{}]", items.join(", ")));
    }
}

fn texts<T>(items: &Option<Vec<Item<T>>>) -> Option<Vec<&str>> {
    items
        .as_ref()
        .map(|items| items.iter().map(|item| &*item.text).collect())
}

/// A text as YAML reads it back whatever is in it.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_ascii_graphic() || c == ' ' => quoted.push(c),
            c => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}
