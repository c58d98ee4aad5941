//! The rules that certificates are held against, in the words of those who made them: a refusal quotes them, and its
//! record names them.

use std::fmt;

/// A rule and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The standard with its section, such as `X509-SVID 4.3`; [`OWN`] for a limit of ours.
    pub standard: &'static str,
    /// Its words: but for a capital letter at the beginning and what is left out (`…`), the standard's own.
    pub words: &'static str,
}

/// What stands in place of a standard where the rule is ours.
pub const OWN: &str = "svidecar";

impl Rule {
    const fn new(standard: &'static str, words: &'static str) -> Self {
        Self { standard, words }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.standard == OWN {
            f.write_str(self.words)
        } else {
            write!(f, "\"{}\" ({})", self.words, self.standard)
        }
    }
}

macro_rules! rules {
    ($($name:ident = $standard:expr, $words:expr;)+) => {
        $(#[doc = $words] pub const $name: Rule = Rule::new($standard, $words);)+

        /// All of them, for the test that they are quoted right.
        #[cfg(test)]
        pub(crate) const ALL: &[Rule] = &[$($name,)+];
    };
}

rules! {
    ONE_URI_SAN = "X509-SVID 2", "an X.509 SVID MUST contain exactly one URI SAN";
    SEVERAL_URI_SANS = "X509-SVID 5.2", "SVIDs containing more than one URI SAN MUST be rejected";
    LEAF_HAS_PATH = "X509-SVID 3.1", "leaf certificate SPIFFE IDs MUST have a non-root path component";
    SAN_CRITICAL = "X509-SVID 3.1", "the URI SAN extension MUST be marked as critical if Subject is omitted";
    CA_HAS_NO_PATH = "X509-SVID 3.2", "the SPIFFE ID of a signing certificate MUST NOT have a path component";
    CA_IS_CA = "X509-SVID 4.1", "signing certificates MUST set the `cA` field to `true`";
    LEAF_IS_NO_CA = "X509-SVID 4.1", "leaf certificates MUST set the `cA` field to `false`";
    NAME_CONSTRAINTS =
        "X509-SVID 4.2",
        "a namespace within which all SPIFFE IDs in subsequent certificates in a certification path MUST be located";
    KEY_USAGE_SET = "X509-SVID 4.3", "the key usage extension MUST be set on all SVIDs";
    KEY_USAGE_CRITICAL = "X509-SVID 4.3", "the key usage extension … MUST be marked critical";
    CA_SIGNS = "X509-SVID 4.3", "SVID signing certificates MUST set `keyCertSign`";
    LEAF_SIGNS_DATA = "X509-SVID 4.3", "leaf SVIDs MUST set `digitalSignature`";
    LEAF_SIGNS_NO_CERTIFICATES = "X509-SVID 4.3", "leaf SVIDs MUST NOT set `keyCertSign` or `cRLSign`";
    USAGES = "X509-SVID 4.4", "fields `id-kp-serverAuth` and `id-kp-clientAuth` MUST be set";
    PATH_VALIDATION = "X509-SVID 5.1", "MUST follow RFC 5280 path validation semantics";
    ID_SCHEME = "SPIFFE-ID 2", "valid SPIFFE IDs MUST have the scheme set to `spiffe`";
    ID_TRUST_DOMAIN = "SPIFFE-ID 2.1", "the `host` part of the authority MUST NOT be empty";
    ID_LOWERCASE = "SPIFFE-ID 2.1", "the `host` part of the authority MUST be lowercase";
    ID_HOST_CHARACTERS = "SPIFFE-ID 2.1",
        "the `host` part of the authority MUST contain only letters, numbers, dots, dashes, and underscores";
    ID_SEGMENTS = "SPIFFE-ID 2.2",
        "the path component MUST NOT include segments that are empty or are relative path modifiers";
    ID_TRAILING_SLASH = "SPIFFE-ID 2.2", "the path component MUST NOT include a trailing `/`";
    ID_PATH_CHARACTERS = "SPIFFE-ID 2.2",
        "individual path segments MUST contain only letters, numbers, dots, dashes, and underscores";
    ID_LENGTH = "SPIFFE-ID 2.3", "the recommended maximum length of a SPIFFE ID is 2048 bytes";
    ID_TRUST_DOMAIN_LENGTH = "SPIFFE-ID 2.3", "a maximum length of a trust domain name is 255 bytes";
    AUTHORITY_OF_THE_TRUST_DOMAIN = "SPIFFE-ID 3",
        "an SVID is considered valid if it has been signed by an authority within the SPIFFE ID's trust domain";
    TRUST_ROOT = "SPIFFE-ID 3.1", "SPIFFE trust is rooted in a given ID's trust domain";
    DER = "RFC 5280 4.1", "encoded using the ASN.1 distinguished encoding rules (DER)";
    ALGORITHMS_AGREE = "RFC 5280 4.1.1.2",
        "this field MUST contain the same algorithm identifier as the signature field in the sequence tbsCertificate";
    VERSION_3 = "RFC 5280 4.1.2.1", "when extensions are used … version MUST be 3";
    EXTENSION_ONCE = "RFC 5280 4.2",
        "a certificate MUST NOT include more than one instance of a particular extension";
    CRITICAL_EXTENSION = "RFC 5280 4.2",
        "a certificate-using system MUST reject the certificate if it encounters a critical extension it does not \
         recognize";
    GENERAL_NAMES = "RFC 5280 4.2.1.6", "GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName";
    PATH_LENGTH = "RFC 5280 4.2.1.9",
        "the maximum number of non-self-issued intermediate certificates that may follow this certificate in a valid \
         certification path";
    PURPOSES = "RFC 5280 4.2.1.12", "the certificate MUST only be used for one of the purposes indicated";
    VALID_NOW = "RFC 5280 6.1.3", "the certificate validity period includes the current time";
    CERTIFICATE_SENT = "RFC 8446 4.4.2.4",
        "the server MAY … abort the handshake with a \"certificate_required\" alert";
    POSSESSION = "RFC 8446 4.4.3", "the receiver of a CertificateVerify message MUST verify the signature field";
    CERTIFICATE_SIZE = OWN, "a certificate has at most 16384 bytes";
    CHAIN_LENGTH = OWN, "a peer sends at most 10 certificates";
    CHAIN_SIZE = OWN, "a peer's certificates have at most 65536 bytes together";
    PATHS = OWN, "the search for a path is bounded";
    SIGNATURES = OWN, "only SHA-256, SHA-384 or SHA-512 with RSA or ECDSA, and Ed25519, are accepted";
    KEYS = OWN, "only EC P-256, P-384 and P-521, Ed25519, and RSA of 2048 to 8192 bits are accepted";
}

/// The rule that an ID breaks.
pub(super) const fn of_id(error: &::spiffe::SpiffeIdError) -> Rule {
    use ::spiffe::SpiffeIdError as E;
    match error {
        E::MissingTrustDomain => ID_TRUST_DOMAIN,
        E::BadTrustDomainChar => ID_HOST_CHARACTERS,
        E::BadPathSegmentChar => ID_PATH_CHARACTERS,
        E::EmptySegment | E::DotSegment => ID_SEGMENTS,
        E::TrailingSlash => ID_TRAILING_SLASH,
        E::SpiffeIdTooLong { .. } => ID_LENGTH,
        E::TrustDomainTooLong { .. } => ID_TRUST_DOMAIN_LENGTH,
        // Empty, another scheme, and what that crate may add.
        _ => ID_SCHEME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_quoted_with_its_place_and_our_own_is_not() {
        assert_eq!(
            ONE_URI_SAN.to_string(),
            "\"an X.509 SVID MUST contain exactly one URI SAN\" (X509-SVID 2)"
        );
        assert_eq!(PATHS.to_string(), "the search for a path is bounded");
        for rule in ALL {
            let known = ["X509-SVID ", "SPIFFE-ID ", "RFC 5280 ", "RFC 8446 "];
            let standard = known.iter().find_map(|name| rule.standard.strip_prefix(name));
            let section = standard.map(|section| section.split('.').all(|part| part.parse::<u8>().is_ok()));
            assert!(rule.standard == OWN || section == Some(true), "{rule:?}");
            assert!(rule.words.len() > 20 && !rule.words.contains("  "), "{rule:?}");
        }
    }

    #[test]
    fn our_own_limits_are_those_that_hold() {
        let certificate = crate::spiffe::svid::MAX_CERTIFICATE_BYTES.to_string();
        assert!(CERTIFICATE_SIZE.words.contains(&certificate));
        assert!(
            ID_LENGTH
                .words
                .contains(&crate::spiffe::svid::MAX_ID_BYTES.to_string())
        );
    }
}
