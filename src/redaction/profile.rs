//! Named lists of rules: what a law calls personal data, and what becomes of it here. No profile makes its user compliant: it
//! is the technical measure, and what else a law asks for is the operator's.

use crate::config::settings::{Redact, RedactionFind, RedactionProfile, RedactionRule};

/// IPv4 addresses keep a network of 256, IPv6 addresses a site.
const NETWORKS: Redact = Redact::KeepPrefix {
    keep: 0,
    ipv4: 24,
    ipv6: 48,
};

/// The rules of a profile.
///
/// - `gdpr`: Regulation (EU) 2016/679. Addresses are personal data (recital 30; CJEU C-582/14); identifiers of workloads are
///   where they name people. IDs are pseudonymised (article 4(5)): their paths become keyed hashes, and the key is
///   the additional information that is kept apart. Addresses are cut to networks. Certificates' serial numbers are hashed.
/// - `pipl`: the Personal Information Protection Law of the PRC. De-identified (articles 51 and 73(3)): addresses and
///   paths of IDs become keyed hashes, serial numbers are left out.
#[must_use]
pub fn rules(profile: RedactionProfile) -> Vec<RedactionRule> {
    let everywhere = |find, action| RedactionRule {
        fields: None,
        find,
        action,
    };
    let serials = |action| RedactionRule {
        fields: Some(vec!["serial".to_owned()]),
        find: RedactionFind::Value,
        action,
    };
    match profile {
        RedactionProfile::Gdpr => vec![
            everywhere(RedactionFind::SpiffeId, Redact::Hash),
            everywhere(RedactionFind::Ip, NETWORKS),
            serials(Redact::Hash),
        ],
        RedactionProfile::Pipl => vec![
            everywhere(RedactionFind::SpiffeId, Redact::Hash),
            everywhere(RedactionFind::Ip, Redact::Hash),
            serials(Redact::Drop),
        ],
    }
}
