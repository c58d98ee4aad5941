//! The `policy` section, and which trust domains a listener accepts.

use super::*;

fn policy(fields: &str) -> String {
    format!("identity: {{ socket: unix:///a.sock }}\npolicy: {{ {fields} }}\n{IN}")
}

/// Only calls, and so needs no policy.
fn only_outbound(fields: &str) -> String {
    format!(
        "identity: {{ socket: unix:///a.sock }}\npolicy: {{ {fields} }}\noutbound: \
         [{{ name: pay, {OUT}, peer: ['spiffe://td/pay'] }}]\n"
    )
}

fn trust(settings: &Settings) -> Vec<&str> {
    let ListenerKind::Inbound { trust, .. } = &settings.listeners[0].kind else {
        panic!("an inbound listener")
    };
    trust.iter().map(|domain| domain.as_str()).collect()
}

#[test]
fn a_deny_list_and_a_candidate_are_named_beside_the_policy() {
    let settings = good(&policy("path: p, deny_list: deny.yaml, candidate: next/"));
    let path = |name: &str| Some(Path::new("/etc/svidecar").join(name));
    assert_eq!(settings.policy.path, path("p"));
    assert_eq!(settings.policy.deny_list, path("deny.yaml"));
    assert_eq!(settings.policy.candidate, path("next"));
    let settings = good(&with(IN));
    assert_eq!(settings.policy.deny_list, None);
    assert_eq!(settings.policy.candidate, None);
}

#[test]
fn one_that_only_calls_may_have_a_deny_list_alone() {
    let settings = good(&only_outbound("deny_list: deny.yaml"));
    assert_eq!(settings.policy.path, None);
    assert!(settings.policy.deny_list.is_some());
    let found = checked(&only_outbound("mode: enforce")).unwrap_err();
    assert!(found[0].message.contains("`path` is missing"), "{found:?}");
    let found = checked(&only_outbound("deny_list: d, candidate: c")).unwrap_err();
    assert!(found[0].message.contains("`path` is missing"), "{found:?}");
    let found = checked(&policy("deny_list: d")).unwrap_err();
    assert!(found[0].message.contains("`path` is missing"), "{found:?}");
}

#[test]
fn a_candidate_that_is_the_policy_is_a_mistake() {
    for same in ["p", "./p"] {
        let found = checked(&policy(&format!("path: p, candidate: {same}"))).unwrap_err();
        assert!(
            found[0].message.contains("`policy.candidate` is `policy.path`"),
            "{found:?}"
        );
    }
}

#[test]
fn a_listener_accepts_the_federated_domains_that_it_names() {
    assert_eq!(trust(&good(&with(IN))), Vec::<&str>::new());
    let two = good(&inbound("trust: [partner.example, other.example]"));
    assert_eq!(trust(&two), ["partner.example", "other.example"]);
    let refused = [
        ("trust: []", "is an empty list"),
        (
            "trust: [partner.example, partner.example]",
            "in `inbound[0].trust` twice",
        ),
        ("trust: ['spiffe://partner.example']", "is no trust domain"),
        ("trust: ['*']", "is no trust domain"),
        ("trust: [Partner Example]", "is no trust domain"),
    ];
    for (fields, message) in refused {
        let found = checked(&inbound(fields)).unwrap_err();
        assert_eq!(found.len(), 1, "{fields}: {found:?}");
        assert!(found[0].to_string().contains(message), "{fields}: {found:?}");
    }
    let found = checked(&outbound(&format!(
        "{OUT}, peer: ['spiffe://td/pay'], trust: [td]"
    )))
    .unwrap_err();
    assert!(found[0].message.contains("unknown field `trust`"), "{found:?}");
}
