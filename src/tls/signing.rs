//! Signatures by an SVID's key outside of the TLS handshake: of renewals, and of the audit log's checkpoints.
//!
//! Whoever signs chooses the words that come first, as a CertificateVerify has its own (RFC 8446 section 4.4.3): see
//! [`message`]. So no signature can be taken for one that was made for another purpose.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;
use webpki::EndEntityCert;
use zeroize::Zeroizing;

/// What is signed with: what TLS 1.3 signs with (RFC 8446 section 4.2.3), of what `tls::verify` takes as a leaf's key.
pub const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// What is wrong with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// TLS 1.3 does not sign so, or this certificate's key does not.
    Scheme(SignatureScheme),
    /// The certificate cannot be read.
    Leaf,
    /// The certificate's key did not make it, or made it over something else.
    Signature,
}

/// What a signature is over: 64 blanks, the purpose, a zero byte, and then what is to be signed (as RFC 8446 section 4.4.3).
#[must_use]
pub fn message(purpose: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut all: Vec<&[u8]> = vec![&[0x20; 64], purpose, b"\0"];
    all.extend(parts);
    Zeroizing::new(all.concat())
}

/// Signs; `None` for a key that TLS 1.3 does not sign with, or where the library fails.
#[must_use]
pub fn sign(key: &Arc<dyn SigningKey>, message: &[u8]) -> Option<(SignatureScheme, Vec<u8>)> {
    let signer = key.choose_scheme(SCHEMES)?;
    let signature = signer.sign(message).ok()?;
    Some((signer.scheme(), signature))
}

/// Checks that the key of `leaf` made `signature` over `message`. Who the leaf is, and whether it is trusted, is another
/// question.
///
/// # Errors
/// That it did not, or can't have.
pub fn verify(
    leaf: &CertificateDer<'_>,
    scheme: SignatureScheme,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Flaw> {
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| Flaw::Leaf)?;
    let algorithms: WebPkiSupportedAlgorithms =
        provider::default_provider().signature_verification_algorithms;
    if !SCHEMES.contains(&scheme) {
        return Err(Flaw::Scheme(scheme));
    }
    // The first of a scheme is the one that TLS 1.3 means: there the scheme fixes the curve.
    let algorithm = algorithms
        .mapping
        .iter()
        .find(|(known, _)| *known == scheme)
        .and_then(|(_, algorithms)| algorithms.first())
        .ok_or(Flaw::Scheme(scheme))?;
    leaf.verify_signature(*algorithm, message, signature)
        .map_err(|error| match error {
            webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Flaw::Scheme(scheme),
            _ => Flaw::Signature,
        })
}
