//! Why a certificate is no X.509-SVID. Each message quotes the rule in the standard's own words.

use thiserror::Error;

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
    #[error(
        "\"when extensions are used … version MUST be 3\" (RFC 5280 4.1.2.1): this certificate has version {found}"
    )]
    NotVersion3 {
        /// Its version as people count, from 1.
        found: u64,
    },
    /// One extension is there twice (RFC 5280 section 4.2).
    #[error(
        "\"a certificate MUST NOT include more than one instance of a particular extension\" (RFC 5280 4.2)"
    )]
    RepeatedExtension,
    /// The signed and the unsigned signature algorithm differ (RFC 5280 section 4.1.1.2).
    #[error(
        "\"this field MUST contain the same algorithm identifier as the signature field in the sequence tbsCertificate\" \
         (RFC 5280 4.1.1.2)"
    )]
    SignatureAlgorithmsDiffer,
    /// It is signed with an algorithm that is broken or that we do not know.
    #[error(
        "signed with {found}: only SHA-256, SHA-384 or SHA-512 with RSA or ECDSA, and Ed25519, are accepted"
    )]
    UnsupportedSignature {
        /// The algorithm's name, or its object identifier.
        found: String,
    },
    /// Its key is too weak or of a kind that we do not take.
    #[error(
        "its key is {found}: only EC P-256, P-384 and P-521, Ed25519, and RSA of 2048 to 8192 bits are accepted"
    )]
    UnsupportedKey {
        /// The key's kind and size.
        found: String,
    },
    /// The subject alternative name does not parse (RFC 5280 section 4.2.1.6).
    #[error("the subject alternative name does not parse: {0}")]
    MalformedSan(&'static str),
    /// The URI SAN is no SPIFFE ID (SPIFFE-ID section 2, X509-SVID section 5.2).
    #[error("the URI SAN `{uri}` is no SPIFFE ID: {problem}")]
    InvalidId {
        /// The URI, escaped and cut.
        uri: String,
        /// The rule of the SPIFFE-ID standard that it breaks.
        problem: String,
    },
}

/// Why a certificate is no leaf X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LeafError {
    /// What no certificate may be.
    #[error(transparent)]
    Defect(#[from] Defect),
    /// It has no URI SAN (X509-SVID section 2).
    #[error("\"an X.509 SVID MUST contain exactly one URI SAN\" (X509-SVID 2): this certificate has none")]
    NoUriSan,
    /// It has several URI SANs (X509-SVID sections 2 and 5.2).
    #[error(
        "\"SVIDs containing more than one URI SAN MUST be rejected\" (X509-SVID 5.2): this certificate has {found}"
    )]
    SeveralUriSans {
        /// How many.
        found: usize,
    },
    /// Its ID names a trust domain, not a workload (X509-SVID sections 3.1 and 5.2).
    #[error(
        "\"leaf certificate SPIFFE IDs MUST have a non-root path component\" (X509-SVID 3.1): this one is `{id}`"
    )]
    NoPath {
        /// The ID.
        id: String,
    },
    /// It has neither a subject nor a critical SAN (X509-SVID section 3.1).
    #[error(
        "\"the URI SAN extension MUST be marked as critical if Subject is omitted\" (X509-SVID 3.1): there is no subject \
         and it is not"
    )]
    SanNotCritical,
    /// It is a CA (X509-SVID sections 4.1 and 5.2).
    #[error("\"leaf certificates MUST set the `cA` field to `false`\" (X509-SVID 4.1): this one is a CA")]
    IsCa,
    /// It has no key usage (X509-SVID section 4.3).
    #[error(
        "\"the key usage extension MUST be set on all SVIDs\" (X509-SVID 4.3): this certificate has none"
    )]
    NoKeyUsage,
    /// Its key usage is not critical (X509-SVID section 4.3).
    #[error(
        "the key usage extension \"MUST be marked critical\" (X509-SVID 4.3): in this certificate it is not"
    )]
    KeyUsageNotCritical,
    /// Its key is not for signatures (X509-SVID section 4.3).
    #[error("\"leaf SVIDs MUST set `digitalSignature`\" (X509-SVID 4.3): this one does not")]
    NoDigitalSignature,
    /// Its key may sign certificates (X509-SVID sections 4.3 and 5.2).
    #[error(
        "\"leaf SVIDs MUST NOT set `keyCertSign` or `cRLSign`\" (X509-SVID 4.3): this one sets `keyCertSign`"
    )]
    KeyCertSign,
    /// Its key may sign revocation lists (X509-SVID sections 4.3 and 5.2).
    #[error(
        "\"leaf SVIDs MUST NOT set `keyCertSign` or `cRLSign`\" (X509-SVID 4.3): this one sets `cRLSign`"
    )]
    CrlSign,
}

/// Why a certificate may not sign SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CaError {
    /// What no certificate may be.
    #[error(transparent)]
    Defect(#[from] Defect),
    /// It is no CA (X509-SVID section 4.1).
    #[error("\"signing certificates MUST set the `cA` field to `true`\" (X509-SVID 4.1): this one does not")]
    NotCa,
    /// It has no key usage (X509-SVID section 4.3).
    #[error(
        "\"the key usage extension MUST be set on all SVIDs\" (X509-SVID 4.3): this certificate has none"
    )]
    NoKeyUsage,
    /// Its key usage does not hold `keyCertSign` (X509-SVID section 4.3).
    #[error("\"SVID signing certificates MUST set `keyCertSign`\" (X509-SVID 4.3): this one does not")]
    NoKeyCertSign,
    /// It has a SPIFFE ID and further URIs (X509-SVID section 2).
    #[error(
        "\"an X.509 SVID MUST contain exactly one URI SAN\" (X509-SVID 2): this signing certificate has {found}"
    )]
    SeveralUriSans {
        /// How many.
        found: usize,
    },
    /// Its ID names a workload (X509-SVID section 3.2).
    #[error(
        "\"the SPIFFE ID of a signing certificate MUST NOT have a path component\" (X509-SVID 3.2): this one is `{id}`"
    )]
    IdWithPath {
        /// The ID.
        id: String,
    },
}
