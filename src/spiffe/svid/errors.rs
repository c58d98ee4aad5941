//! Why a certificate is no X.509-SVID. Each message quotes the rule in the standard's own words.

use thiserror::Error;

use super::rule::{self, Rule};

/// What is wrong with a certificate whatever its part in a chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Defect {
    /// It is larger than we read (our own limit: [`super::MAX_CERTIFICATE_BYTES`]).
    #[error(
        "the certificate has {found} bytes; {} are the most that are read",
        super::MAX_CERTIFICATE_BYTES
    )]
    TooLarge {
        /// Its size in bytes.
        found: usize,
    },
    /// It is no DER-encoded X.509 certificate (RFC 5280 section 4.1).
    #[error("the certificate does not parse: {0}")]
    Malformed(String),
    /// Bytes follow the certificate.
    #[error("{found} bytes follow the end of the certificate")]
    TrailingBytes {
        /// How many.
        found: usize,
    },
    /// It cannot have extensions (RFC 5280 section 4.1.2.1).
    #[error("{}: this certificate has version {found}", rule::VERSION_3)]
    NotVersion3 {
        /// Its version as people count, from 1.
        found: u64,
    },
    /// One extension is there twice (RFC 5280 section 4.2).
    #[error("{}", rule::EXTENSION_ONCE)]
    RepeatedExtension,
    /// The signed and the unsigned signature algorithm differ (RFC 5280 section 4.1.1.2).
    #[error("{}", rule::ALGORITHMS_AGREE)]
    SignatureAlgorithmsDiffer,
    /// It is signed with an algorithm that is broken or that we do not know.
    #[error("signed with {found}: {}", rule::SIGNATURES)]
    UnsupportedSignature {
        /// The algorithm's name, or its object identifier.
        found: String,
    },
    /// Its key is too weak or of a kind that we do not take.
    #[error("its key is {found}: {}", rule::KEYS)]
    UnsupportedKey {
        /// The key's kind and size.
        found: String,
    },
    /// The subject alternative name does not parse (RFC 5280 section 4.2.1.6).
    #[error("the subject alternative name does not parse: {0}")]
    MalformedSan(&'static str),
    /// The URI SAN is no SPIFFE ID (SPIFFE-ID section 2, X509-SVID section 5.2).
    #[error("the URI SAN `{uri}` is no SPIFFE ID: {problem}; {rule}")]
    InvalidId {
        /// The URI, escaped and cut.
        uri: String,
        /// What is wrong with it.
        problem: String,
        /// The rule of the SPIFFE-ID standard that it breaks.
        rule: Rule,
    },
}

/// Why a certificate is no leaf X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LeafError {
    /// What no certificate may be.
    #[error(transparent)]
    Defect(#[from] Defect),
    /// It has no URI SAN (X509-SVID section 2).
    #[error("{}: this certificate has none", rule::ONE_URI_SAN)]
    NoUriSan,
    /// It has several URI SANs (X509-SVID sections 2 and 5.2).
    #[error("{}: this certificate has {found}", rule::SEVERAL_URI_SANS)]
    SeveralUriSans {
        /// How many.
        found: usize,
    },
    /// Its ID names a trust domain, not a workload (X509-SVID sections 3.1 and 5.2).
    #[error("{}: this one is `{id}`", rule::LEAF_HAS_PATH)]
    NoPath {
        /// The ID.
        id: String,
    },
    /// It has neither a subject nor a critical SAN (X509-SVID section 3.1).
    #[error("{}: there is no subject and it is not", rule::SAN_CRITICAL)]
    SanNotCritical,
    /// It is a CA (X509-SVID sections 4.1 and 5.2).
    #[error("{}: this one is a CA", rule::LEAF_IS_NO_CA)]
    IsCa,
    /// It has no key usage (X509-SVID section 4.3).
    #[error("{}: this certificate has none", rule::KEY_USAGE_SET)]
    NoKeyUsage,
    /// Its key usage is not critical (X509-SVID section 4.3).
    #[error("{}: in this certificate it is not", rule::KEY_USAGE_CRITICAL)]
    KeyUsageNotCritical,
    /// Its key is not for signatures (X509-SVID section 4.3).
    #[error("{}: this one does not", rule::LEAF_SIGNS_DATA)]
    NoDigitalSignature,
    /// Its key may sign certificates (X509-SVID sections 4.3 and 5.2).
    #[error("{}: this one sets `keyCertSign`", rule::LEAF_SIGNS_NO_CERTIFICATES)]
    KeyCertSign,
    /// Its key may sign revocation lists (X509-SVID sections 4.3 and 5.2).
    #[error("{}: this one sets `cRLSign`", rule::LEAF_SIGNS_NO_CERTIFICATES)]
    CrlSign,
}

/// Why a certificate may not sign SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CaError {
    /// What no certificate may be.
    #[error(transparent)]
    Defect(#[from] Defect),
    /// It is no CA (X509-SVID section 4.1).
    #[error("{}: this one does not", rule::CA_IS_CA)]
    NotCa,
    /// It has no key usage (X509-SVID section 4.3).
    #[error("{}: this certificate has none", rule::KEY_USAGE_SET)]
    NoKeyUsage,
    /// Its key usage does not hold `keyCertSign` (X509-SVID section 4.3).
    #[error("{}: this one does not", rule::CA_SIGNS)]
    NoKeyCertSign,
    /// It has a SPIFFE ID and further URIs (X509-SVID section 2).
    #[error("{}: this signing certificate has {found}", rule::ONE_URI_SAN)]
    SeveralUriSans {
        /// How many.
        found: usize,
    },
    /// Its ID names a workload (X509-SVID section 3.2).
    #[error("{}: this one is `{id}`", rule::CA_HAS_NO_PATH)]
    IdWithPath {
        /// The ID.
        id: String,
    },
}

impl Defect {
    /// The rule that is broken.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        match self {
            Self::TooLarge { .. } => rule::CERTIFICATE_SIZE,
            Self::Malformed(_) | Self::TrailingBytes { .. } => rule::DER,
            Self::NotVersion3 { .. } => rule::VERSION_3,
            Self::RepeatedExtension => rule::EXTENSION_ONCE,
            Self::SignatureAlgorithmsDiffer => rule::ALGORITHMS_AGREE,
            Self::UnsupportedSignature { .. } => rule::SIGNATURES,
            Self::UnsupportedKey { .. } => rule::KEYS,
            Self::MalformedSan(_) => rule::GENERAL_NAMES,
            Self::InvalidId { rule, .. } => *rule,
        }
    }
}

impl LeafError {
    /// The rule that is broken.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        match self {
            Self::Defect(defect) => defect.rule(),
            Self::NoUriSan => rule::ONE_URI_SAN,
            Self::SeveralUriSans { .. } => rule::SEVERAL_URI_SANS,
            Self::NoPath { .. } => rule::LEAF_HAS_PATH,
            Self::SanNotCritical => rule::SAN_CRITICAL,
            Self::IsCa => rule::LEAF_IS_NO_CA,
            Self::NoKeyUsage => rule::KEY_USAGE_SET,
            Self::KeyUsageNotCritical => rule::KEY_USAGE_CRITICAL,
            Self::NoDigitalSignature => rule::LEAF_SIGNS_DATA,
            Self::KeyCertSign | Self::CrlSign => rule::LEAF_SIGNS_NO_CERTIFICATES,
        }
    }
}

impl CaError {
    /// The rule that is broken.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        match self {
            Self::Defect(defect) => defect.rule(),
            Self::NotCa => rule::CA_IS_CA,
            Self::NoKeyUsage => rule::KEY_USAGE_SET,
            Self::NoKeyCertSign => rule::CA_SIGNS,
            Self::SeveralUriSans { .. } => rule::ONE_URI_SAN,
            Self::IdWithPath { .. } => rule::CA_HAS_NO_PATH,
        }
    }
}
