//! A certificate authority of one trust domain, in memory, for development and tests.
//!
//! Its certificates follow the X509-SVID profile and look like SPIRE's: ECDSA P-256, a self-signed authority whose
//! URI SAN is the trust domain's SPIFFE ID, leaves with `digitalSignature` and both extended key usages. Validity
//! starts ten seconds early, for machines whose clocks differ a little.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::proto::X509Svid;
use crate::spiffe::{SpiffeId, TrustDomain};

/// How much earlier than its making a certificate becomes valid.
pub const BACKDATE: Duration = Duration::from_secs(10);

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library refused: a name it cannot write, or no randomness.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The life asked for ends outside of what a certificate can say.
    #[error("a certificate cannot live for {0:?}: it would end after the year 9999")]
    Life(Duration),
    /// The ID belongs to somebody else's trust domain.
    #[error("`{id}` is not in the trust domain `{trust_domain}`")]
    Foreign {
        /// The ID asked for.
        id: String,
        /// The authority's own trust domain.
        trust_domain: TrustDomain,
    },
}

/// A certificate authority of one trust domain.
pub struct Authority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// The issuing certificates between a leaf and the root, from the leaf's issuer up; the root is not among them.
    intermediates: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// A leaf with its private key.
pub struct Issued {
    /// Leaf first, then the authority's intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: KeyPair,
}

impl Authority {
    /// A new self-signed authority that lives for `life` from `now`.
    pub fn new(trust_domain: TrustDomain, life: Duration, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = authority_params(&trust_domain, life, now, None)?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            trust_domain,
            issuer: Issuer::new(params, key),
            root: certificate.clone(),
            certificate,
            intermediates: Vec::new(),
        })
    }

    /// A new authority below this one. What it issues carries its certificate, and is verified by this one's root.
    pub fn intermediate(&self, life: Duration, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = authority_params(&self.trust_domain, life, now, Some(0))?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let mut intermediates = vec![certificate.clone()];
        intermediates.extend(self.intermediates.iter().cloned());
        Ok(Self {
            trust_domain: self.trust_domain.clone(),
            issuer: Issuer::new(params, key),
            certificate,
            intermediates,
            root: self.root.clone(),
        })
    }

    /// The same key, certified anew for `life`: what renewing a root looks like.
    #[cfg(test)]
    pub(crate) fn renewed(&self, life: Duration, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::try_from(self.issuer.key().serialize_der())?;
        let mut params = authority_params(&self.trust_domain, life, now, None)?;
        // Under its old name.
        let (_, old) = x509_parser::parse_x509_certificate(&self.root).unwrap();
        let name = old.subject().iter_common_name().next().unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str().unwrap());
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            trust_domain: self.trust_domain.clone(),
            issuer: Issuer::new(params, key),
            root: certificate.clone(),
            certificate,
            intermediates: Vec::new(),
        })
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The certificate that signs leaves.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The self-signed certificate that belongs into the trust domain's bundle.
    #[must_use]
    pub const fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Issues an X.509-SVID for `id`, in the form in which the Workload API hands it over.
    ///
    /// # Errors
    /// When `id` is of another trust domain, or the certificate cannot be made.
    pub fn issue(
        &self,
        id: &SpiffeId,
        hint: Option<&str>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<X509Svid, AuthorityError> {
        if id.trust_domain() != &self.trust_domain {
            return Err(AuthorityError::Foreign {
                id: id.to_string(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        let issued = self.sign(&leaf_params(id, ttl, now)?)?;
        Ok(X509Svid {
            spiffe_id: id.to_string(),
            x509_svid: issued.chain.iter().flat_map(|der| der.iter().copied()).collect(),
            x509_svid_key: issued.key.serialize_der(),
            bundle: self.root.to_vec(),
            hint: hint.unwrap_or_default().to_owned(),
        })
    }

    /// Signs any leaf, defective ones too: what tests of a verifier need. Start from [`leaf_params`].
    pub fn sign(&self, params: &CertificateParams) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.intermediates.iter().cloned());
        Ok(Issued { chain, key })
    }
}

/// What a good X.509-SVID leaf says (X509-SVID sections 2 to 4).
pub fn leaf_params(
    id: &SpiffeId,
    ttl: Duration,
    now: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(&id.to_string(), ttl, now)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn authority_params(
    trust_domain: &TrustDomain,
    life: Duration,
    now: SystemTime,
    path_length: Option<u8>,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(&trust_domain.id_string(), life, now)?;
    params.is_ca =
        IsCa::Ca(path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Webpki matches issuers by name: authorities that follow one another are told apart at a glance, too.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("svidecar {:08x}", fastrand::u32(..)));
    Ok(params)
}

fn base_params(uri: &str, life: Duration, now: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "svidecar embedded Workload API");
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.not_before = OffsetDateTime::from(now.checked_sub(BACKDATE).unwrap_or(now));
    let end = OffsetDateTime::from(now)
        .checked_add(time::Duration::try_from(life).map_err(|_| AuthorityError::Life(life))?)
        .filter(|end| end.year() <= 9999)
        .ok_or(AuthorityError::Life(life))?;
    params.not_after = end;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
