//! The X.509-SVID profile of a certificate.
//!
//! Owns what the [X509-SVID] standard asks of a single certificate: [`check_leaf`] for the one a workload presents,
//! [`check_intermediate`] for a signing certificate a peer sends along, [`check_authority`] for one out of a bundle.
//! Promises that each accepts only what the standard allows, whatever the bytes, and names the rule otherwise.
//! Leaves the signatures, the path and the validity in time to `tls::verify`, which knows bundles and the clock.
//!
//! Each MUST of the standard, with what is done about it and the test's name: `docs/verification.md`.
//!
//! [X509-SVID]: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md

mod errors;
#[cfg(test)]
pub(crate) mod forge;
mod key;
pub mod rule;
mod san;
#[cfg(test)]
pub(crate) mod tests;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{BasicConstraints, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use super::SpiffeId;
pub use errors::{CaError, Defect, LeafError};

/// The most bytes one certificate may have. An SVID with an ML-DSA-87 signature and a 2048-byte ID has about 8 KiB.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The most bytes a SPIFFE ID may have (SPIFFE-ID section 2.3).
pub const MAX_ID_BYTES: usize = 2048;

/// What a leaf that keeps to the profile says of itself. Nothing in it is proven before its chain is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The SPIFFE ID in the URI SAN; it has a path.
    pub id: SpiffeId,
    /// When the certificate becomes valid.
    pub not_before: SystemTime,
    /// The last instant at which it is valid.
    pub not_after: SystemTime,
    /// The serial number in lower-case hexadecimal, two digits a byte, without a sign byte.
    pub serial: String,
    /// SHA-256 over SubjectPublicKeyInfo in DER (RFC 5280 section 4.1.2.7).
    pub key_hash: [u8; 32],
    /// The key's kind for people, such as `EC P-256` or `RSA 2048`.
    pub key_type: String,
    /// The extended key usage, where the certificate has one.
    pub extended_key_usage: Option<ExtendedUsage>,
}

impl Leaf {
    /// Whether the certificate may be presented by a TLS server (X509-SVID section 4.4). Without the extension it may.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.extended_key_usage.is_none_or(|usage| usage.server_auth)
    }

    /// Whether the certificate may be presented by a TLS client (X509-SVID section 4.4). Without the extension it may.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        self.extended_key_usage.is_none_or(|usage| usage.client_auth)
    }
}

/// What an extended key usage extension allows. `anyExtendedKeyUsage` counts as neither: the standard asks for the
/// two by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedUsage {
    /// `id-kp-serverAuth` is set.
    pub server_auth: bool,
    /// `id-kp-clientAuth` is set.
    pub client_auth: bool,
}

/// When a signing certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it becomes valid.
    pub not_before: SystemTime,
    /// The last instant at which it is valid.
    pub not_after: SystemTime,
}

/// Checks a leaf against X509-SVID sections 2 to 5.2 and RFC 5280, alone: its chain is not looked at.
///
/// # Errors
/// The first rule that the certificate breaks.
pub fn check_leaf(der: &[u8]) -> Result<Leaf, LeafError> {
    let cert = parse(der)?;
    let id = leaf_id(&cert)?;
    if basic_constraints(&cert)?.is_some_and(|constraints| constraints.ca) {
        return Err(LeafError::IsCa);
    }
    check_leaf_key_usage(&cert)?;
    let key_type = key::key_type(cert.public_key())?;
    let Validity {
        not_before,
        not_after,
    } = validity(&cert)?;
    Ok(Leaf {
        id,
        not_before,
        not_after,
        serial: serial(&cert),
        key_hash: key::key_hash(cert.public_key()),
        key_type,
        extended_key_usage: extended_key_usage(&cert)?,
    })
}

/// Checks a signing certificate that a peer sent: a CA with `keyCertSign` whose SPIFFE ID, if any, has no path
/// (X509-SVID sections 3.2, 4.1 and 4.3).
///
/// # Errors
/// The first rule that the certificate breaks.
pub fn check_intermediate(der: &[u8]) -> Result<Validity, CaError> {
    let cert = parse(der)?;
    check_signing(&cert)?;
    if key_usage(&cert)?.is_none() {
        return Err(CaError::NoKeyUsage);
    }
    validity(&cert).map_err(CaError::from)
}

/// Checks an authority out of a bundle. As [`check_intermediate`], but a key usage extension may be missing: the
/// root of an existing PKI is no SVID of its own (X509-SVID section 3.2 only says SHOULD), and RFC 5280 section
/// 6.1.1 takes nothing but name and key from an anchor. Where it is there it must hold `keyCertSign`.
///
/// # Errors
/// The first rule that the certificate breaks.
pub fn check_authority(der: &[u8]) -> Result<Validity, CaError> {
    let cert = parse(der)?;
    check_signing(&cert)?;
    validity(&cert).map_err(CaError::from)
}

/// The `pathLenConstraint` of a signing certificate: how many signing certificates may stand between it and a leaf
/// (X509-SVID section 4.1).
///
/// # Errors
/// The certificate does not parse.
pub fn path_len(der: &[u8]) -> Result<Option<u32>, CaError> {
    let cert = parse(der)?;
    Ok(basic_constraints(&cert)?.and_then(|constraints| constraints.path_len_constraint))
}

/// The first URI of a certificate, for a message about one that was refused: fit for a log line, and proof of nothing.
#[must_use]
pub fn claimed_name(der: &[u8]) -> Option<String> {
    let cert = parse(der).ok()?;
    let extension = extension(&cert, &OID_X509_EXT_SUBJECT_ALT_NAME).ok()??;
    san::uris(extension.value).ok()?.first().map(|uri| shown(uri))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Defect> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(Defect::TooLarge { found: der.len() });
    }
    let (rest, cert) = X509Certificate::from_der(der).map_err(|e| Defect::Malformed(cause(&e)))?;
    if !rest.is_empty() {
        return Err(Defect::TrailingBytes { found: rest.len() });
    }
    if cert.version() != X509Version::V3 {
        return Err(Defect::NotVersion3 {
            found: u64::from(cert.version().0) + 1,
        });
    }
    if cert.extensions_map().is_err() {
        return Err(Defect::RepeatedExtension);
    }
    if cert.signature_algorithm != cert.tbs_certificate.signature {
        return Err(Defect::SignatureAlgorithmsDiffer);
    }
    key::check_signature_algorithm(&cert.signature_algorithm)?;
    Ok(cert)
}

fn cause<E: std::fmt::Display>(error: &x509_parser::nom::Err<E>) -> String {
    match error {
        x509_parser::nom::Err::Incomplete(_) => "it is cut short".to_owned(),
        x509_parser::nom::Err::Error(e) | x509_parser::nom::Err::Failure(e) => e.to_string(),
    }
}

/// The one SPIFFE ID of a leaf (X509-SVID sections 2, 3.1 and 5.2).
fn leaf_id(cert: &X509Certificate<'_>) -> Result<SpiffeId, LeafError> {
    let extension = extension(cert, &OID_X509_EXT_SUBJECT_ALT_NAME)?.ok_or(LeafError::NoUriSan)?;
    let mut uris = san::uris(extension.value)?.into_iter();
    let uri = uris.next().ok_or(LeafError::NoUriSan)?;
    if uris.len() > 0 {
        return Err(LeafError::SeveralUriSans {
            found: uris.len().saturating_add(1),
        });
    }
    let id = parse_id(uri)?;
    if id.path().is_empty() {
        return Err(LeafError::NoPath { id: id.to_string() });
    }
    if !extension.critical && cert.subject().iter_rdn().next().is_none() {
        return Err(LeafError::SanNotCritical);
    }
    Ok(id)
}

/// A SPIFFE ID as the standard writes it (SPIFFE-ID section 2). The parser of the `spiffe` crate folds the case of
/// scheme and trust domain, as section 2.4 has it; in a certificate a trust domain "MUST be lowercase" (2.1), and
/// everything that compares IDs compares bytes, so that only the one spelling is taken.
fn parse_id(uri: &[u8]) -> Result<SpiffeId, Defect> {
    let bad = |problem: &str, rule| Defect::InvalidId {
        uri: shown(uri),
        problem: problem.to_owned(),
        rule,
    };
    if uri.len() > MAX_ID_BYTES {
        let problem = format!("it has {} bytes and may have {MAX_ID_BYTES}", uri.len());
        return Err(bad(&problem, rule::ID_LENGTH));
    }
    let text = std::str::from_utf8(uri).map_err(|_| bad("it is not ASCII", rule::ID_PATH_CHARACTERS))?;
    let id = SpiffeId::new(text).map_err(|e| bad(&e.to_string(), rule::of_id(&e)))?;
    if id.to_string() != text {
        let rule = if text.starts_with("spiffe:") {
            rule::ID_LOWERCASE
        } else {
            rule::ID_SCHEME
        };
        return Err(bad("scheme and trust domain must be lowercase", rule));
    }
    Ok(id)
}

/// A name out of a certificate, fit for a log line: no control character, not long.
fn shown(name: &[u8]) -> String {
    const MAX_SHOWN: usize = 256;
    let start = name.get(..MAX_SHOWN).unwrap_or(name);
    let dots = if start.len() < name.len() { "…" } else { "" };
    format!("{}{dots}", start.escape_ascii())
}

fn check_leaf_key_usage(cert: &X509Certificate<'_>) -> Result<(), LeafError> {
    let (usage, critical) = key_usage(cert)?.ok_or(LeafError::NoKeyUsage)?;
    if !critical {
        return Err(LeafError::KeyUsageNotCritical);
    }
    if usage.key_cert_sign() {
        return Err(LeafError::KeyCertSign);
    }
    if usage.crl_sign() {
        return Err(LeafError::CrlSign);
    }
    if !usage.digital_signature() {
        return Err(LeafError::NoDigitalSignature);
    }
    Ok(())
}

fn check_signing(cert: &X509Certificate<'_>) -> Result<(), CaError> {
    if !basic_constraints(cert)?.is_some_and(|constraints| constraints.ca) {
        return Err(CaError::NotCa);
    }
    if key_usage(cert)?.is_some_and(|(usage, _)| !usage.key_cert_sign()) {
        return Err(CaError::NoKeyCertSign);
    }
    key::key_type(cert.public_key())?;
    let Some(extension) = extension(cert, &OID_X509_EXT_SUBJECT_ALT_NAME)? else {
        return Ok(());
    };
    let uris = san::uris(extension.value)?;
    // A CA of an existing PKI may carry any URI; one that claims a SPIFFE ID is an SVID and bound by the standard.
    let claims_id = uris
        .iter()
        .any(|uri| uri.get(..7).is_some_and(|s| s.eq_ignore_ascii_case(b"spiffe:")));
    if !claims_id {
        return Ok(());
    }
    if uris.len() > 1 {
        return Err(CaError::SeveralUriSans { found: uris.len() });
    }
    for uri in uris {
        let id = parse_id(uri)?;
        if !id.path().is_empty() {
            return Err(CaError::IdWithPath { id: id.to_string() });
        }
    }
    Ok(())
}

fn extension<'c, 'a>(
    cert: &'c X509Certificate<'a>,
    oid: &Oid<'_>,
) -> Result<Option<&'c X509Extension<'a>>, Defect> {
    cert.get_extension_unique(oid)
        .map_err(|_| Defect::RepeatedExtension)
}

fn basic_constraints<'c>(cert: &'c X509Certificate<'_>) -> Result<Option<&'c BasicConstraints>, Defect> {
    match extension(cert, &OID_X509_EXT_BASIC_CONSTRAINTS)?.map(X509Extension::parsed_extension) {
        None => Ok(None),
        Some(ParsedExtension::BasicConstraints(constraints)) => Ok(Some(constraints)),
        Some(_) => Err(Defect::Malformed("its basic constraints do not parse".to_owned())),
    }
}

fn key_usage<'c>(cert: &'c X509Certificate<'_>) -> Result<Option<(&'c KeyUsage, bool)>, Defect> {
    let Some(extension) = extension(cert, &OID_X509_EXT_KEY_USAGE)? else {
        return Ok(None);
    };
    match extension.parsed_extension() {
        ParsedExtension::KeyUsage(usage) => Ok(Some((usage, extension.critical))),
        _ => Err(Defect::Malformed("its key usage does not parse".to_owned())),
    }
}

fn extended_key_usage(cert: &X509Certificate<'_>) -> Result<Option<ExtendedUsage>, Defect> {
    match extension(cert, &OID_X509_EXT_EXTENDED_KEY_USAGE)?.map(X509Extension::parsed_extension) {
        None => Ok(None),
        Some(ParsedExtension::ExtendedKeyUsage(usage)) => Ok(Some(ExtendedUsage {
            server_auth: usage.server_auth,
            client_auth: usage.client_auth,
        })),
        Some(_) => Err(Defect::Malformed(
            "its extended key usage does not parse".to_owned(),
        )),
    }
}

fn validity(cert: &X509Certificate<'_>) -> Result<Validity, Defect> {
    let instant = |time: ASN1Time| {
        let seconds = time.timestamp();
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        }
        .ok_or_else(|| Defect::Malformed("its validity is beyond what this machine can tell".to_owned()))
    };
    let validity = cert.validity();
    Ok(Validity {
        not_before: instant(validity.not_before)?,
        not_after: instant(validity.not_after)?,
    })
}

fn serial(cert: &X509Certificate<'_>) -> String {
    let bytes = cert.raw_serial();
    let digits = match bytes.split_first() {
        Some((0, rest)) if !rest.is_empty() => rest,
        _ => bytes,
    };
    HEXLOWER.encode(digits)
}
