//! What an identity source hands over, checked: our SVIDs with their keys, and the bundles to verify others with.
//!
//! One [`Material`] is one consistent answer of the source. It is made whole, then published whole; nothing
//! changes in it afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroize as _;

use crate::spiffe::{SpiffeId, TrustDomain};

/// One checked answer of the identity source.
#[derive(Debug)]
pub struct Material {
    /// Counts published materials from 1 up in this process.
    pub generation: u64,
    /// The SVID we present, chosen from those the source gave.
    pub svid: Arc<Svid>,
    /// Every usable SVID the source gave, in its order, the chosen one among them.
    pub svids: Vec<Arc<Svid>>,
    /// The authorities of each trust domain we may verify peers of, our own always among them.
    pub bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
}

/// An X.509-SVID of ours with its private key (X509-SVID section 2, Workload API section 5.2.1).
#[derive(PartialEq, Eq)]
pub struct Svid {
    /// The SPIFFE ID in the leaf.
    pub id: Arc<SpiffeId>,
    /// The operator's hint, where the source gave one (never empty).
    pub hint: Option<String>,
    /// The leaf first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8; from files also SEC1 or PKCS#1. Zeroized when dropped.
    pub key: PrivateKeyDer<'static>,
    /// When the leaf becomes valid.
    pub not_before: SystemTime,
    /// When the first certificate of the chain runs out.
    pub not_after: SystemTime,
    /// The leaf's serial number in lower-case hexadecimal.
    pub serial: String,
    /// The key's kind for people, such as `EC P-256`.
    pub key_type: String,
}

impl Svid {
    /// Whether it may be presented at `now`: from the leaf's beginning on, and before anything in the chain ends. What the
    /// clock shows is all that is known; set wrong, it fails closed.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

// The key must never reach a log by way of `{:?}`.
impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id.to_string())
            .field("hint", &self.hint)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Drop for Svid {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The X.509 authorities of one trust domain (Trust Domain and Bundle, section 4).
#[derive(Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// At least one authority.
    pub authorities: Vec<Authority>,
}

impl Bundle {
    /// When the last authority runs out, and with it the bundle.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.authorities.iter().map(|a| a.not_after).max()
    }
}

/// A CA certificate of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it becomes valid.
    pub not_before: SystemTime,
    /// When it runs out.
    pub not_after: SystemTime,
}
