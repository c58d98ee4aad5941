//! A plain evaluator, written from the documentation with none of the compiled form's code, beside the real one.

mod generate;
mod plain;

use proptest::prelude::*;

use self::generate::{facts, world};
use self::plain::{PlainFacts, World};
use super::*;
use crate::policy::delta::Delta;
use crate::policy::deny_list;
use crate::policy::evaluate::Decided;

/// The evaluator, and the rules of which a warning says that they decide nothing.
fn admission(world: &World) -> (Admission, Vec<String>) {
    let listeners: Vec<ListenerName> = world.listeners.iter().map(plain::Listener::known).collect();
    let own = world.own.map(|own| TrustDomain::new(own).unwrap());
    let surroundings = Surroundings {
        listeners: world.listeners_known.then_some(listeners.as_slice()),
        own_trust_domain: own.as_ref(),
    };
    // Two files: sets are shared between them.
    let (sets, rules) = world.policy_files();
    let files = vec![file::read("a", &sets), file::read("b", &rules)];
    let (policy, warnings) = compile(files, surroundings, at(0))
        .unwrap_or_else(|found| panic!("generated policies are good\n{sets}\n{rules}\n{found:#?}"));
    let idle = warnings
        .iter()
        .filter_map(|warning| idle(&warning.message))
        .collect();
    let text = world.deny_file();
    let list = deny_list::compile(deny_list::read("d", &text), at(0))
        .unwrap_or_else(|found| panic!("generated deny lists are good\n{text}\n{found:#?}"))
        .0;
    (Admission::new(Arc::new(policy), Arc::new(list)), idle)
}

/// The rule that a warning says decides nothing.
fn idle(warning: &str) -> Option<String> {
    let says = ["can never match", "never decides", "allows nothing"];
    let (rule, rest) = warning.strip_prefix("rule `")?.split_once('`')?;
    says.iter()
        .any(|words| rest.contains(words))
        .then(|| rule.to_owned())
}

/// Decided and explained as the plain evaluator says.
fn agrees(world: &World, asked: &PlainFacts) {
    let (admission, idle) = admission(world);
    let asked = &PlainFacts {
        own: world.own.unwrap_or(asked.own),
        ..asked.clone()
    };
    let id = SpiffeId::new(&asked.peer).unwrap();
    let own = TrustDomain::new(asked.own).unwrap();
    let key = asked.certificate.map(|(_, key, _)| [key; 32]);
    let certificate = asked
        .certificate
        .zip(key.as_ref())
        .map(|((serial, _, issued), key_hash)| CertificateFacts {
            serial,
            key_hash,
            issued: at(issued),
        });
    let facts = Facts {
        listener: asked.listener,
        peer: &id,
        source: asked.source,
        own_trust_domain: &own,
        certificate,
    };
    let expected = plain::decide(world, asked);
    let outcome = admission.evaluate(&facts, at(asked.now));
    assert_eq!(outcome.allow, expected.allow);
    assert_eq!(outcome.reason, expected.reason);
    assert_eq!(outcome.by.name().map(|name| name.to_string()), expected.by);
    assert_eq!(audited(&outcome), expected.audited);
    assert_eq!(outcome.expires(), expected.expires.map(at));
    assert_eq!(
        admission.next_change(at(asked.now)),
        plain::next_change(world, asked.now).map(at)
    );
    // Warnings speak of the listeners that there are.
    if let Decider::Rule(rule) = outcome.by
        && asked.listener != "fourth"
    {
        assert!(
            !idle.contains(&rule.name().to_string()),
            "{} decided",
            rule.name()
        );
    }
    let budgets = admission.policy.budgets(asked.listener, &id);
    let budgets: Vec<String> = budgets.map(|budget| budget.name.to_string()).collect();
    assert_eq!(budgets, plain::budgets(world, asked));

    // The explanation says the same, about all rules, those the index left out included.
    let explanation = admission.explain(&facts, at(asked.now));
    assert_eq!(explanation.rule.map(|rule| rule.to_string()), expected.by);
    assert_eq!(explanation.reason, (!expected.allow).then_some(expected.reason));
    for (said, rule) in explanation.rules.iter().zip(&world.rules) {
        let unmet: Vec<&str> = said.unmet.iter().map(|unmet| unmet.condition).collect();
        assert_eq!(unmet, plain::unmet(world, rule, asked), "{}", said.name);
        assert_eq!(said.matches, unmet.is_empty());
        assert_eq!(
            said.decided,
            expected.by.as_deref() == Some(&*said.name) && expected.reason != Reason::DenyList
        );
    }
    let nearest = explanation.nearest.map(|nearest| nearest.unmet.len());
    assert_eq!(nearest, expected.nearest);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn deciding_agrees_with_the_plain_evaluator(world in world(0..8), asked in facts()) {
        agrees(&world, &asked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// So many that what is found by index is not found by trying.
    #[test]
    fn deciding_agrees_with_the_plain_evaluator_about_many_rules(
        world in world(30..80),
        asked in prop::collection::vec(facts(), 8),
    ) {
        for asked in &asked {
            agrees(&world, asked);
        }
    }
}

/// Asked before and after, whoever a change does not concern gets the same answer.
fn unconcerned(
    world: &World,
    asked: &PlainFacts,
    delta: &Delta<'_>,
    (before, then): (&Admission, u64),
    (after, now): (&Admission, u64),
) {
    let id = SpiffeId::new(&asked.peer).unwrap();
    let own = TrustDomain::new(world.own.unwrap_or(asked.own)).unwrap();
    let facts = Facts {
        listener: asked.listener,
        peer: &id,
        source: asked.source,
        own_trust_domain: &own,
        certificate: None,
    };
    let (first, second) = (
        before.policy.decide(&facts, at(then)),
        after.policy.decide(&facts, at(now)),
    );
    let allows = |decided: &Decided<'_>| decided.rule.is_some_and(|rule| rule.action() == Action::Allow);
    let same =
        allows(&first) == allows(&second) && first.not_trusted.is_some() == second.not_trusted.is_some();
    assert!(
        same || delta.may_concern(asked.listener, &id),
        "{} at `{}` is answered otherwise, and {delta:?} does not know of it",
        asked.peer,
        asked.listener
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whether the rules changed or time did.
    #[test]
    fn whom_a_change_does_not_concern_is_answered_as_before(
        world in world(0..8),
        later in world(1..8),
        edited in 0_usize..8,
        asked in prop::collection::vec(facts(), 8),
    ) {
        let mut later = later;
        later.listeners.clone_from(&world.listeners);
        (later.listeners_known, later.own) = (world.listeners_known, world.own);
        // Often a change is small: one rule, or what a named set holds.
        let mut small = world.clone();
        if let (Some(old), Some(new)) = (small.rules.get_mut(edited), later.rules.first()) {
            old.clone_from(new);
        }
        let mut sets = world.clone();
        sets.ids.clone_from(&later.ids);
        let [before, changed @ ..] = [&world, &small, &sets, &later].map(|world| admission(world).0);
        for asked in &asked {
            for after in &changed {
                let delta = before.policy.differences(&after.policy);
                unconcerned(&world, asked, &delta, (&before, asked.now), (after, asked.now));
            }
            let earlier = asked.now.saturating_sub(3);
            let due = before.policy.due(at(earlier), at(asked.now));
            unconcerned(&world, asked, &due, (&before, earlier), (&before, asked.now));
        }
        assert!(before.policy.differences(&admission(&world).0.policy).is_empty());
    }
}
