//! Who is at the other end: verifies a peer's certificate chain as the X509-SVID standard wants it.
//!
//! Owns the one function, [`verify_chain`], that decides it, for handshakes in both directions and for every later
//! look at an open connection; and [`PeerVerifier`], which lets rustls ask it. Promises that a [`VerifiedPeer`] has a
//! leaf that keeps to the whole profile, and a chain that ends at an authority of the trust domain *in the leaf's own
//! ID*, every part of it valid now. Leaves to others: that the peer holds the key (the TLS signature, rustls), and
//! whether it may do anything (`authorize`).
//!
//! A chain that was verified is remembered by its [`TrustStore`] (`cache`): connections of one peer share one
//! [`VerifiedPeer`], and the signatures in its chain are checked once, its validity in time at each use.
//!
//! There is no clock tolerance, neither way: an SVID's short life is what replaces revocation, and issuers date
//! `notBefore` back (SPIRE by ten seconds). What is checked and what is not: `docs/verification.md`.

mod cache;
mod outcome;
mod peer_verifier;
mod refusal;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, aws_lc_rs as algs};

use crate::spiffe::SpiffeId;
use crate::spiffe::svid::{self, CaError, Leaf, Validity};
use cache::Presented;
pub(super) use outcome::peer_until;
pub use outcome::{Outcome, lend_outcome, take_outcome};
pub use peer_verifier::PeerVerifier;
pub use refusal::{Ignored, Link, PathProblem, Refusal};
use store::{Anchors, Selection};
pub use store::{TrustStore, TrustStoreError, Unusable};

/// The most certificates a peer may send. A path has at most six between leaf and authority (webpki's limit);
/// some send their root and a cross-signed certificate along.
pub const MAX_CHAIN_CERTIFICATES: usize = 10;

/// The most bytes a peer's certificates may have together; what rustls reads of a handshake message, too.
pub const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// The signature algorithms taken inside a chain: no SHA-1, RSA from 2048 to 8192 bits.
static CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algs::ECDSA_P256_SHA256,
    algs::ECDSA_P256_SHA384,
    algs::ECDSA_P256_SHA512,
    algs::ECDSA_P384_SHA256,
    algs::ECDSA_P384_SHA384,
    algs::ECDSA_P384_SHA512,
    algs::ECDSA_P521_SHA256,
    algs::ECDSA_P521_SHA384,
    algs::ECDSA_P521_SHA512,
    algs::ED25519,
    algs::RSA_PKCS1_2048_8192_SHA256,
    algs::RSA_PKCS1_2048_8192_SHA384,
    algs::RSA_PKCS1_2048_8192_SHA512,
    algs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// The part that the peer, whose certificates are looked at, plays in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSide {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

/// A peer whose chain was verified; what [`verify_chain`] answers. One for all connections of the same certificates.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifiedPeer {
    /// The SPIFFE ID in its leaf.
    pub id: Arc<SpiffeId>,
    /// All that it sent, the leaf first: what a later [`verify_chain`] is asked about.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// The first instant at which the chain is valid: the latest beginning among the leaf, the intermediates that
    /// were used, and the authority.
    pub not_before: SystemTime,
    /// The last instant at which the chain is valid: the earliest end among the leaf, the intermediates that were
    /// used, and the authority.
    pub not_after: SystemTime,
    /// When the leaf became valid, which is when it was issued as far as a certificate tells: SPIRE dates it ten seconds
    /// back.
    pub issued: SystemTime,
    /// The leaf's serial number in lower-case hexadecimal.
    pub serial: Arc<str>,
    /// SHA-256 over the leaf's SubjectPublicKeyInfo in DER (RFC 5280 section 4.1.2.7).
    pub key_hash: [u8; 32],
    /// The leaf's key, such as `EC P-256`.
    pub key_type: String,
}

/// Verifies `chain` (the leaf first, as TLS sends it) of a peer that plays `side`, at `now`.
///
/// Further certificates may come in any order, and ones that lead nowhere do no harm, as RFC 8446 section 4.4.2
/// advises; only those that X509-SVID section 3.2 calls signing certificates are used.
///
/// # Errors
/// Why the peer is refused.
pub fn verify_chain(
    store: &TrustStore,
    chain: &[CertificateDer<'_>],
    side: PeerSide,
    now: SystemTime,
) -> Result<Arc<VerifiedPeer>, Refusal> {
    let (leaf, others) = chain.split_first().ok_or(Refusal::NoCertificate)?;
    verify_parts(store, leaf, others, side, now)
}

fn verify_parts(
    store: &TrustStore,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    side: PeerSide,
    now: SystemTime,
) -> Result<Arc<VerifiedPeer>, Refusal> {
    check_size(leaf, others)?;
    let presented = Presented { leaf, others, side };
    if let Some(peer) = store.verified.find(&presented, now) {
        return Ok(peer);
    }
    let peer = Arc::new(verify_anew(store, leaf, others, side, now)?);
    store.verified.insert(&presented, &peer);
    Ok(peer)
}

fn verify_anew(
    store: &TrustStore,
    leaf_der: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    side: PeerSide,
    now: SystemTime,
) -> Result<VerifiedPeer, Refusal> {
    let leaf = svid::check_leaf(leaf_der).map_err(|error| Refusal::Leaf {
        error,
        claimed: svid::claimed_name(leaf_der),
    })?;
    let fits = match side {
        PeerSide::Client => leaf.may_connect(),
        PeerSide::Server => leaf.may_serve(),
    };
    if !fits {
        return Err(Refusal::WrongUsage { id: leaf.id, side });
    }
    let Some(anchors) = store.anchors(leaf.id.trust_domain()) else {
        return Err(Refusal::UnknownTrustDomain { id: leaf.id });
    };
    let validity = Validity {
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    };
    refusal::check_time(&leaf.id, Link::Leaf, validity, now)?;

    let Validity {
        not_before,
        not_after,
    } = Path::new(&leaf, leaf_der, others).verify(anchors, side, now)?;
    let chain = std::iter::once(leaf_der)
        .chain(others)
        .map(|cert| cert.clone().into_owned())
        .collect();
    Ok(VerifiedPeer {
        id: Arc::new(leaf.id),
        chain,
        not_before,
        not_after,
        issued: leaf.not_before,
        serial: leaf.serial.into(),
        key_hash: leaf.key_hash,
        key_type: leaf.key_type,
    })
}

fn check_size(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    let certificates = others.len().saturating_add(1);
    if certificates > MAX_CHAIN_CERTIFICATES {
        return Err(Refusal::ChainTooLong { found: certificates });
    }
    let bytes = others
        .iter()
        .fold(leaf.len(), |sum, cert| sum.saturating_add(cert.len()));
    if bytes > MAX_CHAIN_BYTES {
        return Err(Refusal::ChainTooLarge { found: bytes });
    }
    Ok(())
}

/// The search for a path from one leaf to an authority.
struct Path<'a> {
    leaf: &'a Leaf,
    leaf_der: &'a CertificateDer<'a>,
    /// The signing certificates among those that the peer sent.
    issuers: Vec<CertificateDer<'a>>,
    /// The validity of each of `issuers`.
    validities: Vec<Validity>,
    /// The first that is no signing certificate.
    ignored: Option<Ignored>,
}

impl<'a> Path<'a> {
    fn new(leaf: &'a Leaf, leaf_der: &'a CertificateDer<'a>, others: &'a [CertificateDer<'_>]) -> Self {
        let mut path = Self {
            leaf,
            leaf_der,
            issuers: Vec::new(),
            validities: Vec::new(),
            ignored: None,
        };
        // webpki checks the CA flag of an issuer but not its key usage, so that what may not sign is left out here.
        for (position, der) in (2..).zip(others) {
            match svid::check_intermediate(der) {
                Ok(validity) => {
                    path.issuers.push(CertificateDer::from(der.as_ref()));
                    path.validities.push(validity);
                }
                Err(error) => path.ignore(position, error),
            }
        }
        path
    }

    fn ignore(&mut self, position: usize, error: CaError) {
        if self.ignored.is_none() {
            self.ignored = Some(Ignored {
                position,
                error: Box::new(error),
            });
        }
    }

    /// Finds a path that is valid now, and from when until when all of it is.
    fn verify(self, anchors: &Anchors, side: PeerSide, now: SystemTime) -> Result<Validity, Refusal> {
        let end_entity = EndEntityCert::try_from(self.leaf_der)
            .map_err(|error| self.refusal(PathProblem::from(&error)))?;
        let error = match self.search(&end_entity, &anchors.valid(now), side, now) {
            Ok(validity) => return Ok(validity),
            Err(error) => error,
        };
        // webpki knows no validity of anchors. That one which is over would have fitted is worth telling.
        let over = anchors.invalid(now);
        if let Some(validity) = self.anchor_that_fits(&end_entity, &over, side, now) {
            refusal::check_time(&self.leaf.id, Link::Authority, validity, now)?;
        }
        Err(match error {
            webpki::Error::CertExpired { not_after, .. } => Refusal::Expired {
                id: self.leaf.id.clone(),
                link: Link::Intermediate,
                not_after: instant(not_after),
            },
            webpki::Error::CertNotValidYet { not_before, .. } => Refusal::NotYetValid {
                id: self.leaf.id.clone(),
                link: Link::Intermediate,
                not_before: instant(not_before),
            },
            error => self.refusal(PathProblem::from(&error)),
        })
    }

    fn search(
        &self,
        end_entity: &EndEntityCert<'_>,
        selection: &Selection<'_>,
        side: PeerSide,
        now: SystemTime,
    ) -> Result<Validity, webpki::Error> {
        let path = self.build(end_entity, selection, side, now)?;
        // Whatever is used is one of those that were handed in; were it not, the path would be valid now alone.
        let only_now = Validity {
            not_before: now,
            not_after: now,
        };
        let mut all = Validity {
            not_before: self.leaf.not_before,
            not_after: self.leaf.not_after,
        };
        for used in path.intermediate_certificates() {
            let der = used.der();
            let known = self.issuers.iter().zip(&self.validities);
            let mut known = known.filter(|(issuer, _)| **issuer == der);
            all = overlap(all, known.next().map_or(only_now, |(_, validity)| *validity));
        }
        let anchor = selection.facts(path.anchor());
        Ok(overlap(all, anchor.map_or(only_now, |facts| facts.validity)))
    }

    fn anchor_that_fits(
        &self,
        end_entity: &EndEntityCert<'_>,
        selection: &Selection<'_>,
        side: PeerSide,
        now: SystemTime,
    ) -> Option<Validity> {
        if selection.is_empty() {
            return None;
        }
        let path = self.build(end_entity, selection, side, now).ok()?;
        selection.facts(path.anchor()).map(|facts| facts.validity)
    }

    fn build<'p>(
        &'p self,
        end_entity: &'p EndEntityCert<'_>,
        selection: &'p Selection<'_>,
        side: PeerSide,
        now: SystemTime,
    ) -> Result<VerifiedPath<'p>, webpki::Error> {
        let usage = match side {
            PeerSide::Client => KeyUsage::client_auth(),
            PeerSide::Server => KeyUsage::server_auth(),
        };
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        // webpki leaves an anchor's pathLenConstraint aside; an authority that sets one means it.
        let within_path_len = |path: &VerifiedPath<'_>| {
            let limit = selection.facts(path.anchor()).and_then(|facts| facts.path_len);
            let issuers = path
                .intermediate_certificates()
                .filter(|cert| cert.subject() != cert.issuer())
                .count();
            match limit {
                Some(limit) if issuers > limit as usize => Err(webpki::Error::PathLenConstraintViolated),
                _ => Ok(()),
            }
        };
        end_entity.verify_for_usage(
            CHAIN_ALGORITHMS,
            selection.anchors(),
            &self.issuers,
            now,
            usage,
            None,
            Some(&within_path_len),
        )
    }

    fn refusal(&self, problem: PathProblem) -> Refusal {
        Refusal::Path {
            id: self.leaf.id.clone(),
            problem,
            ignored: self.ignored.clone(),
        }
    }
}

fn overlap(a: Validity, b: Validity) -> Validity {
    Validity {
        not_before: a.not_before.max(b.not_before),
        not_after: a.not_after.min(b.not_after),
    }
}

fn instant(time: UnixTime) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(time.as_secs()))
        .unwrap_or(UNIX_EPOCH)
}
