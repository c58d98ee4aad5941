//! What is in force beside a candidate, and what happens when nobody can be asked.

use std::time::Duration;

use super::*;
use crate::policy::{Surroundings, compile, file};
use crate::record::Divergence;
use crate::spiffe::TrustDomain;

const WEB: &str = "spiffe://example.org/web";
const BATCH: &str = "spiffe://example.org/batch";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn policy(text: &str) -> Arc<Policy> {
    let (policy, _) = compile(vec![file::read("p.yaml", text)], Surroundings::default(), now()).unwrap();
    Arc::new(policy)
}

fn view(active: &str, candidate: &str) -> PolicyView {
    PolicyView::deny_all(PolicyMode::Enforce, now())
        .with_policy(policy(active), 1, now())
        .with_candidate(policy(candidate), 1, now())
}

fn ask_for(view: &PolicyView, peer: &str) -> Result<Permit, Denial> {
    let (peer, own) = (
        SpiffeId::new(peer).unwrap(),
        TrustDomain::new("example.org").unwrap(),
    );
    let facts = Facts {
        listener: "orders",
        peer: &peer,
        source: None,
        own_trust_domain: &own,
        certificate: Some(CertificateFacts::unlisted(now())),
    };
    inbound(view, &facts, now())
}

fn allow(name: &str, id: &str) -> String {
    format!("rules: [{{name: {name}, action: allow, from: ['{id}']}}]")
}

#[test]
fn a_candidate_decides_nothing_and_every_divergence_is_noted() {
    let view = view(&allow("web", WEB), &allow("batch", BATCH));
    for _ in 0..3 {
        let permit = ask_for(&view, WEB).unwrap();
        let said = permit.decision().candidate.as_deref().unwrap();
        assert_eq!(
            (said.change, said.verdict, &said.rule),
            (Divergence::WouldDeny, Verdict::Deny, &None)
        );
    }
    let denial = ask_for(&view, BATCH).unwrap_err();
    assert_eq!(denial.reason, Reason::NoAllowRule);
    let said = denial.decision.candidate.as_deref().unwrap();
    assert_eq!(
        (said.change, said.verdict),
        (Divergence::WouldAllow, Verdict::Allow)
    );
    assert_eq!(said.rule.as_deref(), Some("batch"));
    // Both deny.
    let denial = ask_for(&view, "spiffe://example.org/x").unwrap_err();
    assert_eq!(denial.decision.candidate, None);

    let listing = view.candidate.as_ref().unwrap().listing();
    assert_eq!(
        (listing.would_deny, listing.would_allow, listing.not_listed),
        (3, 1, 0)
    );
    let web = listing
        .diverged
        .iter()
        .find(|one| one.peer.to_string() == WEB)
        .unwrap();
    assert_eq!(
        (web.count, web.rule.as_deref(), web.candidate_rule.as_deref()),
        (3, Some("web"), None)
    );
    assert_eq!(listing.diverged.len(), 2);
}

#[test]
fn the_listing_is_bounded_and_keeps_count() {
    let view = view("rules: [{name: all, action: allow}]", "rules: []");
    for n in 0..1000 {
        let _ = ask_for(&view, &format!("spiffe://example.org/{n}")).unwrap();
    }
    let listing = view.candidate.unwrap().listing();
    assert_eq!(listing.diverged.len(), 256);
    assert_eq!(listing.would_deny, 1000);
    assert_eq!(listing.not_listed, 1000 - 256);
}

#[test]
fn another_deny_list_keeps_what_was_noted_and_another_candidate_does_not() {
    let view = view(&allow("web", WEB), "rules: []");
    let _ = ask_for(&view, WEB).unwrap();
    let listed = view.with_deny_list(&Arc::default(), 2, now());
    assert_eq!(listed.candidate.unwrap().listing().would_deny, 1);
    let replaced = view.with_candidate(policy("rules: []"), 2, now());
    assert_eq!(replaced.candidate.unwrap().listing().would_deny, 0);
}

#[test]
fn before_any_policy_was_read_everybody_is_denied() {
    for mode in [PolicyMode::Enforce, PolicyMode::Audit] {
        let view = PolicyView::deny_all(mode, now());
        let answer = ask_for(&view, WEB);
        // Where policy is only audited it lets in, and says that it would not.
        let decision = match (&answer, mode) {
            (Err(denial), PolicyMode::Enforce) => &denial.decision,
            (Ok(permit), PolicyMode::Audit) => permit.decision(),
            _ => panic!("{answer:?}"),
        };
        assert_eq!(decision.verdict, Verdict::Deny);
        // What listeners trust holds in any mode, and they trust nobody beside our own domain yet.
        let foreign = ask_for(&view, "spiffe://partner.example/web").unwrap_err();
        assert_eq!(foreign.reason, Reason::TrustDomainNotAccepted);
    }
}

#[test]
fn what_cannot_be_asked_is_denied() {
    assert_eq!(guarded(|| 1), Some(1));
    assert_eq!(guarded(|| -> u8 { panic!("as the test wants it") }), None);
    let denial = undecided(&PolicyView::deny_all(PolicyMode::Audit, now()));
    assert_eq!(
        (denial.reason, denial.verdict),
        (Some(Reason::Internal), Verdict::Deny)
    );
    let detail = denial.detail.unwrap();
    assert!(detail.contains("defect"), "{detail}");
}
