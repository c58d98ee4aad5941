//! Why a peer is refused: what the record says, and what the peer is told.

use std::time::SystemTime;

use rustls::{AlertDescription, CertificateError};
use thiserror::Error;

use super::{MAX_CHAIN_BYTES, MAX_CHAIN_CERTIFICATES, PeerSide};
use crate::clock::rfc3339;
use crate::record::{Certificate, Check, Reason};
use crate::spiffe::SpiffeId;
use crate::spiffe::svid::rule::{self, Rule};
use crate::spiffe::svid::{CaError, Defect, LeafError, Validity};

/// Why a peer's certificates are refused. The text is for the operator; the peer gets [`Refusal::certificate_error`]
/// as an alert, which says as much as TLS can and nothing of our authorities.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It sent no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// It sent more certificates than we read.
    #[error("the peer sent {found} certificates: {MAX_CHAIN_CERTIFICATES} are the most that are read")]
    ChainTooLong {
        /// How many.
        found: usize,
    },
    /// It sent larger certificates than we read.
    #[error("the peer sent {found} bytes of certificates: {MAX_CHAIN_BYTES} are the most that are read")]
    ChainTooLarge {
        /// How many bytes.
        found: usize,
    },
    /// Its leaf is no X.509-SVID.
    #[error("{error}{}", claimed.as_ref().map(|name| format!("; the peer claims `{name}`")).unwrap_or_default())]
    Leaf {
        /// The rule that it breaks.
        error: LeafError,
        /// The first URI in it, where it has one; proof of nothing.
        claimed: Option<String>,
    },
    /// Its leaf is not meant for the part it plays (X509-SVID section 4.4, RFC 5280 section 4.2.1.12).
    #[error(
        "the peer claims `{id}`, but the extended key usage of its certificate lacks `{}`, which a TLS {} needs \
         (X509-SVID 4.4)", side.usage(), side.word()
    )]
    WrongUsage {
        /// The ID it claims.
        id: SpiffeId,
        /// The part it plays.
        side: PeerSide,
    },
    /// We hold no bundle of its trust domain (SPIFFE-ID section 3.1).
    #[error(
        "the peer claims `{id}`, and we hold no bundle of `{}`: federate with that trust domain and let the registration \
         entry say `federatesWith`", id.trust_domain()
    )]
    UnknownTrustDomain {
        /// The ID it claims.
        id: SpiffeId,
    },
    /// A certificate of its chain is over.
    #[error("the peer claims `{id}`, but {link} expired at {}", rfc3339(*not_after))]
    Expired {
        /// The ID it claims.
        id: SpiffeId,
        /// Which certificate.
        link: Link,
        /// When.
        not_after: SystemTime,
    },
    /// A certificate of its chain is not valid yet.
    #[error("the peer claims `{id}`, but {link} is not valid before {}: do the clocks agree?", rfc3339(*not_before))]
    NotYetValid {
        /// The ID it claims.
        id: SpiffeId,
        /// Which certificate.
        link: Link,
        /// From when on.
        not_before: SystemTime,
    },
    /// No valid path leads from its leaf to an authority of its trust domain (X509-SVID section 5.1).
    #[error(
        "the peer claims `{id}`, but {problem}{}",
        ignored.as_ref().map(|i| format!("; {i}")).unwrap_or_default()
    )]
    Path {
        /// The ID it claims.
        id: SpiffeId,
        /// What the search for a path came to.
        problem: PathProblem,
        /// A certificate that was left out of the search.
        ignored: Option<Ignored>,
    },
    /// It is who it says, and not among those that may answer here.
    #[error("`{id}` answered, and no `peer` pattern of the listener names it")]
    NotExpected {
        /// Its verified ID.
        id: SpiffeId,
    },
}

impl PeerSide {
    const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    const fn usage(self) -> &'static str {
        match self {
            Self::Client => "id-kp-clientAuth",
            Self::Server => "id-kp-serverAuth",
        }
    }
}

impl Refusal {
    /// The word in log, record and metrics.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoCertificate => Reason::NoCertificate,
            Self::ChainTooLong { .. }
            | Self::ChainTooLarge { .. }
            | Self::Leaf { .. }
            | Self::WrongUsage { .. } => Reason::BadCertificate,
            Self::UnknownTrustDomain { .. } => Reason::UnknownTrustDomain,
            Self::Expired { .. } => Reason::CertificateExpired,
            Self::NotYetValid { .. } => Reason::CertificateNotYetValid,
            Self::Path { problem, .. } => problem.reason(),
            Self::NotExpected { .. } => Reason::PeerNotExpected,
        }
    }

    /// What rustls makes the alert of (RFC 8446 section 6.2): `unsupported_certificate` for a key or a usage that does
    /// not fit, `certificate_expired` for a time that does not, `unknown_ca` where no authority of ours fits,
    /// `access_denied` for a verified peer that is not expected, `bad_certificate` for the rest.
    #[must_use]
    pub const fn certificate_error(&self) -> CertificateError {
        match self {
            Self::Leaf {
                error: LeafError::Defect(Defect::UnsupportedKey { .. } | Defect::UnsupportedSignature { .. }),
                ..
            }
            | Self::WrongUsage { .. } => CertificateError::InvalidPurpose,
            Self::NoCertificate
            | Self::ChainTooLong { .. }
            | Self::ChainTooLarge { .. }
            | Self::Leaf { .. } => CertificateError::BadEncoding,
            Self::UnknownTrustDomain { .. } => CertificateError::UnknownIssuer,
            Self::Expired { .. } => CertificateError::Expired,
            Self::NotYetValid { .. } => CertificateError::NotValidYet,
            Self::Path { problem, .. } => problem.certificate_error(),
            Self::NotExpected { .. } => CertificateError::ApplicationVerificationFailure,
        }
    }

    /// The alert that rustls sends for it in a handshake.
    #[must_use]
    pub fn alert(&self) -> AlertDescription {
        match self {
            Self::NoCertificate => AlertDescription::CertificateRequired,
            _ => self.certificate_error().into(),
        }
    }

    /// Which certificate is at fault, and the rule it breaks, in the standard's own words. None for a peer that is who it
    /// says.
    #[must_use]
    pub fn check(&self) -> Option<Check> {
        let (certificate, rule) = match self {
            Self::NoCertificate => (Certificate::None, rule::CERTIFICATE_SENT),
            Self::ChainTooLong { .. } => (Certificate::Chain, rule::CHAIN_LENGTH),
            Self::ChainTooLarge { .. } => (Certificate::Chain, rule::CHAIN_SIZE),
            Self::Leaf { error, .. } => (Certificate::Leaf, error.rule()),
            Self::WrongUsage { .. } => (Certificate::Leaf, rule::USAGES),
            Self::UnknownTrustDomain { .. } => (Certificate::Leaf, rule::TRUST_ROOT),
            Self::Expired { link, .. } | Self::NotYetValid { link, .. } => {
                (link.certificate(), rule::VALID_NOW)
            }
            // Where a certificate is missing from the path, the one that was left out is the likely one.
            Self::Path {
                problem: PathProblem::NoPath,
                ignored: Some(ignored),
                ..
            } => (
                Certificate::Intermediate(Some(ignored.position)),
                ignored.error.rule(),
            ),
            Self::Path { problem, .. } => (Certificate::Chain, problem.rule()),
            Self::NotExpected { .. } => return None,
        };
        Some(Check {
            certificate,
            standard: rule.standard,
            rule: rule.words,
        })
    }

    /// The peer's ID where its chain was verified: only for [`Refusal::NotExpected`]. An ID that is merely claimed is
    /// in the text, and nowhere else.
    #[must_use]
    pub const fn verified_id(&self) -> Option<&SpiffeId> {
        match self {
            Self::NotExpected { id } => Some(id),
            _ => None,
        }
    }
}

/// Which certificate of a chain is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The peer's own.
    Leaf,
    /// A signing certificate that the peer sent.
    Intermediate,
    /// The authority in our bundle.
    Authority,
}

impl Link {
    const fn certificate(self) -> Certificate {
        match self {
            Self::Leaf => Certificate::Leaf,
            Self::Intermediate => Certificate::Intermediate(None),
            Self::Authority => Certificate::Authority,
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Leaf => "its certificate",
            Self::Intermediate => "an intermediate certificate it sent",
            Self::Authority => "the authority in our bundle that its chain ends at",
        })
    }
}

/// A certificate of the peer's that cannot sign and was left out of the search for a path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("certificate {position} of its chain was left out: {error}")]
pub struct Ignored {
    /// Its place in what the peer sent, from 1 for the leaf.
    pub position: usize,
    /// Why it cannot sign.
    pub error: Box<CaError>,
}

/// What the search for a path came to (RFC 5280 section 6).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathProblem {
    /// No certificate and no authority bears the issuer's name.
    #[error("its chain does not end at an authority in our bundle of that trust domain")]
    NoPath,
    /// The issuer's name fits and its key does not. CAs of different trust domains often share a subject.
    #[error("its chain is not signed by an authority in our bundle of that trust domain")]
    BadSignature,
    /// A CA's name constraints exclude a name, or constrain URIs, which webpki always refuses.
    #[error(
        "its chain breaks the name constraints of a CA, or a CA constrains URI names, which is not supported \
         (X509-SVID 4.2)"
    )]
    NameConstraints,
    /// More CAs than a `pathLenConstraint` allows (X509-SVID section 4.1).
    #[error(
        "its chain has more signing certificates than a `pathLenConstraint` in it allows (X509-SVID 4.1)"
    )]
    PathLen,
    /// A CA's extended key usage does not allow what the leaf is used for.
    #[error("an extended key usage in its chain does not allow this use (X509-SVID 4.4)")]
    Usage,
    /// A signature in the chain is of a kind we do not take.
    #[error("a signature in its chain uses an algorithm that is not accepted for that key")]
    Algorithm,
    /// A critical extension is unknown (RFC 5280 section 4.2: such a certificate must be refused).
    #[error("a certificate of its chain has a critical extension that is not known here (RFC 5280 4.2)")]
    CriticalExtension,
    /// A search without end was cut off.
    #[error("its certificates allow more paths, or longer ones, than are tried")]
    TooComplex,
    /// A certificate does not parse, or breaks RFC 5280 in another way.
    #[error("a certificate of its chain is not valid: {0}")]
    Invalid(String),
}

impl PathProblem {
    const fn rule(&self) -> Rule {
        match self {
            Self::NoPath | Self::BadSignature => rule::AUTHORITY_OF_THE_TRUST_DOMAIN,
            Self::NameConstraints => rule::NAME_CONSTRAINTS,
            Self::PathLen => rule::PATH_LENGTH,
            Self::Usage => rule::PURPOSES,
            Self::Algorithm => rule::SIGNATURES,
            Self::CriticalExtension => rule::CRITICAL_EXTENSION,
            Self::TooComplex => rule::PATHS,
            Self::Invalid(_) => rule::PATH_VALIDATION,
        }
    }

    const fn reason(&self) -> Reason {
        match self {
            Self::CriticalExtension | Self::Invalid(_) => Reason::BadCertificate,
            Self::NoPath
            | Self::BadSignature
            | Self::NameConstraints
            | Self::PathLen
            | Self::Usage
            | Self::Algorithm
            | Self::TooComplex => Reason::UntrustedChain,
        }
    }

    const fn certificate_error(&self) -> CertificateError {
        match self {
            Self::NoPath | Self::BadSignature => CertificateError::UnknownIssuer,
            Self::Usage | Self::Algorithm => CertificateError::InvalidPurpose,
            Self::CriticalExtension => CertificateError::UnhandledCriticalExtension,
            Self::NameConstraints | Self::PathLen | Self::TooComplex | Self::Invalid(_) => {
                CertificateError::BadEncoding
            }
        }
    }
}

impl From<&webpki::Error> for PathProblem {
    fn from(error: &webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::UnknownIssuer => Self::NoPath,
            E::InvalidSignatureForPublicKey => Self::BadSignature,
            E::NameConstraintViolation | E::MalformedNameConstraint | E::InvalidNetworkMaskConstraint => {
                Self::NameConstraints
            }
            E::PathLenConstraintViolated => Self::PathLen,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::Usage,
            E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            E::UnsupportedCriticalExtension => Self::CriticalExtension,
            E::MaximumNameConstraintComparisonsExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumSignatureChecksExceeded => Self::TooComplex,
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// Refuses what is not valid at `now`.
pub(super) fn check_time(
    id: &SpiffeId,
    link: Link,
    validity: Validity,
    now: SystemTime,
) -> Result<(), Refusal> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    if now > not_after {
        return Err(Refusal::Expired {
            id: id.clone(),
            link,
            not_after,
        });
    }
    if now < not_before {
        return Err(Refusal::NotYetValid {
            id: id.clone(),
            link,
            not_before,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
