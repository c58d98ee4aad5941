//! What is known when it is decided.

use std::net::IpAddr;
use std::time::SystemTime;

use crate::spiffe::{SpiffeId, TrustDomain};

/// What is known of a connection when it asks to be admitted. The peer's ID is one that TLS has verified.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The inbound listener that it reached.
    pub listener: &'a str,
    /// Who it is.
    pub peer: &'a SpiffeId,
    /// Where it comes from; `None` on a unix socket.
    pub source: Option<IpAddr>,
    /// The trust domain of our own SVID.
    pub own_trust_domain: &'a TrustDomain,
    /// The certificate that the peer proved to hold the key of. `None` where nothing is known of it: an entry of the
    /// deny list that looks at certificates then counts as hitting.
    pub certificate: Option<CertificateFacts<'a>>,
}

/// What a deny list asks of a verified leaf certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateFacts<'a> {
    /// The serial number in lower-case hexadecimal, two digits a byte, without a sign byte.
    pub serial: &'a str,
    /// SHA-256 over SubjectPublicKeyInfo in DER (RFC 5280 section 4.1.2.7).
    pub key_hash: &'a [u8; 32],
    /// When it became valid, which is when it was issued as far as a certificate tells.
    pub issued: SystemTime,
}

impl CertificateFacts<'_> {
    /// A certificate issued at `now`, with a serial number and a key that no list can name: what a question means that
    /// is about a peer, and about no certificate of it in particular.
    #[must_use]
    pub const fn unlisted(now: SystemTime) -> Self {
        Self {
            // No certificate has an empty serial number, and no key this hash.
            serial: "",
            key_hash: &[0; 32],
            issued: now,
        }
    }
}
