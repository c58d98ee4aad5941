//! Every refusal names the certificate and the rule, in the words that its text quotes.

use std::time::UNIX_EPOCH;

use super::*;
use crate::record::Certificate as C;

fn id() -> SpiffeId {
    "spiffe://example.org/web".parse().unwrap()
}

fn defects() -> Vec<(Defect, Rule)> {
    let found = || "x".to_owned();
    vec![
        (Defect::TooLarge { found: 1 }, rule::CERTIFICATE_SIZE),
        (Defect::Malformed(found()), rule::DER),
        (Defect::TrailingBytes { found: 1 }, rule::DER),
        (Defect::NotVersion3 { found: 1 }, rule::VERSION_3),
        (Defect::RepeatedExtension, rule::EXTENSION_ONCE),
        (Defect::SignatureAlgorithmsDiffer, rule::ALGORITHMS_AGREE),
        (Defect::UnsupportedSignature { found: found() }, rule::SIGNATURES),
        (Defect::UnsupportedKey { found: found() }, rule::KEYS),
        (Defect::MalformedSan("x"), rule::GENERAL_NAMES),
        (
            Defect::InvalidId {
                uri: found(),
                problem: found(),
                rule: rule::ID_SEGMENTS,
            },
            rule::ID_SEGMENTS,
        ),
    ]
}

fn leaf_errors() -> Vec<(LeafError, Rule)> {
    let own = [
        (LeafError::NoUriSan, rule::ONE_URI_SAN),
        (LeafError::SeveralUriSans { found: 2 }, rule::SEVERAL_URI_SANS),
        (LeafError::NoPath { id: "x".into() }, rule::LEAF_HAS_PATH),
        (LeafError::SanNotCritical, rule::SAN_CRITICAL),
        (LeafError::IsCa, rule::LEAF_IS_NO_CA),
        (LeafError::NoKeyUsage, rule::KEY_USAGE_SET),
        (LeafError::KeyUsageNotCritical, rule::KEY_USAGE_CRITICAL),
        (LeafError::NoDigitalSignature, rule::LEAF_SIGNS_DATA),
        (LeafError::KeyCertSign, rule::LEAF_SIGNS_NO_CERTIFICATES),
        (LeafError::CrlSign, rule::LEAF_SIGNS_NO_CERTIFICATES),
    ];
    let defects = defects().into_iter();
    defects
        .map(|(defect, rule)| (defect.into(), rule))
        .chain(own)
        .collect()
}

fn ca_errors() -> Vec<(CaError, Rule)> {
    let own = [
        (CaError::NotCa, rule::CA_IS_CA),
        (CaError::NoKeyUsage, rule::KEY_USAGE_SET),
        (CaError::NoKeyCertSign, rule::CA_SIGNS),
        (CaError::SeveralUriSans { found: 2 }, rule::ONE_URI_SAN),
        (CaError::IdWithPath { id: "x".into() }, rule::CA_HAS_NO_PATH),
    ];
    let defects = defects().into_iter();
    defects
        .map(|(defect, rule)| (defect.into(), rule))
        .chain(own)
        .collect()
}

fn path_problems() -> Vec<(PathProblem, Rule)> {
    vec![
        (PathProblem::NoPath, rule::AUTHORITY_OF_THE_TRUST_DOMAIN),
        (PathProblem::BadSignature, rule::AUTHORITY_OF_THE_TRUST_DOMAIN),
        (PathProblem::NameConstraints, rule::NAME_CONSTRAINTS),
        (PathProblem::PathLen, rule::PATH_LENGTH),
        (PathProblem::Usage, rule::PURPOSES),
        (PathProblem::Algorithm, rule::SIGNATURES),
        (PathProblem::CriticalExtension, rule::CRITICAL_EXTENSION),
        (PathProblem::TooComplex, rule::PATHS),
        (PathProblem::Invalid("x".into()), rule::PATH_VALIDATION),
    ]
}

fn expired(link: Link) -> Refusal {
    Refusal::Expired {
        id: id(),
        link,
        not_after: UNIX_EPOCH,
    }
}

fn path(problem: PathProblem, ignored: Option<(usize, CaError)>) -> Refusal {
    let ignored = ignored.map(|(position, error)| Ignored {
        position,
        error: Box::new(error),
    });
    Refusal::Path {
        id: id(),
        problem,
        ignored,
    }
}

/// All that there are, each with the certificate and the rule.
fn refusals() -> Vec<(Refusal, C, Rule)> {
    let usage = |side| Refusal::WrongUsage { id: id(), side };
    let early = |link| Refusal::NotYetValid {
        id: id(),
        link,
        not_before: UNIX_EPOCH,
    };
    let mut all = vec![
        (Refusal::NoCertificate, C::None, rule::CERTIFICATE_SENT),
        (Refusal::ChainTooLong { found: 11 }, C::Chain, rule::CHAIN_LENGTH),
        (Refusal::ChainTooLarge { found: 1 }, C::Chain, rule::CHAIN_SIZE),
        (usage(PeerSide::Client), C::Leaf, rule::USAGES),
        (usage(PeerSide::Server), C::Leaf, rule::USAGES),
        (
            Refusal::UnknownTrustDomain { id: id() },
            C::Leaf,
            rule::TRUST_ROOT,
        ),
        (expired(Link::Leaf), C::Leaf, rule::VALID_NOW),
        (
            expired(Link::Intermediate),
            C::Intermediate(None),
            rule::VALID_NOW,
        ),
        (expired(Link::Authority), C::Authority, rule::VALID_NOW),
        (early(Link::Leaf), C::Leaf, rule::VALID_NOW),
    ];
    for (error, rule) in leaf_errors() {
        all.push((Refusal::Leaf { error, claimed: None }, C::Leaf, rule));
    }
    for (problem, rule) in path_problems() {
        all.push((path(problem, None), C::Chain, rule));
    }
    for (error, rule) in ca_errors() {
        let refusal = path(PathProblem::NoPath, Some((3, error)));
        all.push((refusal, C::Intermediate(Some(3)), rule));
    }
    // What was left out is not the cause where a path was found and is bad.
    let refusal = path(PathProblem::PathLen, Some((2, CaError::NotCa)));
    all.push((refusal, C::Chain, rule::PATH_LENGTH));
    all
}

#[test]
fn every_refusal_names_the_certificate_and_the_rule() {
    for (refusal, certificate, rule) in refusals() {
        let expected = Check {
            certificate,
            standard: rule.standard,
            rule: rule.words,
        };
        assert_eq!(refusal.check(), Some(expected), "{refusal}");
    }
    assert_eq!(Refusal::NotExpected { id: id() }.check(), None);
}

/// A person reads the text, a program the record: where the text quotes a standard, it is the same.
#[test]
fn texts_quote_the_rule_that_the_record_names() {
    let quoting = leaf_errors()
        .into_iter()
        .map(|(error, rule)| (error.to_string(), rule))
        .chain(
            ca_errors()
                .into_iter()
                .map(|(error, rule)| (error.to_string(), rule)),
        );
    for (text, rule) in quoting {
        // That something does not parse is said in the parser's words.
        let parsing = [rule::DER, rule::GENERAL_NAMES, rule::CERTIFICATE_SIZE].contains(&rule);
        assert!(parsing || text.contains(&rule.to_string()), "{text}");
    }
}

#[test]
fn our_own_limits_are_told_as_they_are() {
    assert!(
        rule::CHAIN_LENGTH
            .words
            .contains(&MAX_CHAIN_CERTIFICATES.to_string())
    );
    assert!(rule::CHAIN_SIZE.words.contains(&MAX_CHAIN_BYTES.to_string()));
}
