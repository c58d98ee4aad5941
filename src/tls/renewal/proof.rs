//! What a renewal proves, and how: a signature, by the key of the newer leaf, over what binds it to its connection.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{AlertDescription, SignatureScheme};
use zeroize::Zeroizing;

use super::message::Renewal;
use crate::tls::signing;
use crate::tls::traffic::TrafficSecret;
use crate::tls::verify::PeerSide;

/// The exporter's label (RFC 8446 section 7.5). Labels that begin so need not be registered (RFC 5705 section 4).
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL svidecar renewal v1";

/// What tells a connection from every other: a secret that both of its ends know and nobody else. In a resumed session
/// it is another than in the session before.
pub struct Binding(Zeroizing<[u8; 32]>);

impl Binding {
    /// Exports it from a connection's exporter secret; `None` if the library fails.
    pub(in crate::tls) fn new(exporter_secret: &TrafficSecret) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        exporter_secret.export(EXPORTER_LABEL, bytes.as_mut())?;
        Some(Self(bytes))
    }

    /// For tests, which compare it with what stock peers export.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> [u8; 32] {
        *self.0
    }
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Binding(..)")
    }
}

/// What is wrong with a renewal that was well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is not the next of its connection.
    #[error("renewal {found} came where {expected} was due")]
    Sequence {
        /// Its number.
        found: u32,
        /// The next.
        expected: u32,
    },
    /// It is signed with something that TLS 1.3 does not sign with, or that does not fit the leaf's key.
    #[error("the renewal is signed with {0:?}, which its certificate's key does not do")]
    Scheme(SignatureScheme),
    /// Its leaf is no certificate.
    #[error("the renewal's first certificate cannot be read")]
    Leaf,
    /// The key of its leaf did not make the signature, or made it for another connection, another end or another number.
    #[error("the renewal's signature is wrong: it was not made by its certificate's key for this connection")]
    Signature,
}

impl Flaw {
    /// The alert that tells the peer, as RFC 8446 sections 4.4.2 and 4.4.3 have it for a handshake's certificate.
    #[must_use]
    pub const fn alert(&self) -> AlertDescription {
        match self {
            Self::Sequence { .. } => AlertDescription::UnexpectedMessage,
            Self::Scheme(_) => AlertDescription::IllegalParameter,
            Self::Leaf => AlertDescription::BadCertificate,
            Self::Signature => AlertDescription::DecryptError,
        }
    }
}

/// What the signature is over: the connection, the number, and the certificates, under words of its own
/// ([`signing::message`]).
#[must_use]
pub fn signed(binding: &Binding, by: PeerSide, sequence: u32, list: &[u8]) -> Zeroizing<Vec<u8>> {
    let purpose: &[u8] = match by {
        PeerSide::Client => b"svidecar renewal v1, client",
        PeerSide::Server => b"svidecar renewal v1, server",
    };
    let shown = digest(&SHA256, list);
    signing::message(
        purpose,
        &[binding.0.as_ref(), &sequence.to_be_bytes(), shown.as_ref()],
    )
}

/// Checks that the key of the renewal's leaf made its signature over `signed`.
///
/// # Errors
/// That it did not, or can't have.
pub fn verify(renewal: &Renewal, signed: &[u8]) -> Result<(), Flaw> {
    let chain = renewal.chain();
    let leaf = chain.first().ok_or(Flaw::Leaf)?;
    signing::verify(leaf, renewal.scheme, signed, &renewal.signature).map_err(|flaw| match flaw {
        signing::Flaw::Scheme(scheme) => Flaw::Scheme(scheme),
        signing::Flaw::Leaf => Flaw::Leaf,
        signing::Flaw::Signature => Flaw::Signature,
    })
}
