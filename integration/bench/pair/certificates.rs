//! Throw-away certificates as files: one authority, one SVID for each side.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use svidecar::spiffe::SpiffeId;
use svidecar::workload_api::authority::leaf_params;

use crate::Result;

pub(crate) const TRUST_DOMAIN: &str = "bench.test";
pub(crate) const CLIENT_ID: &str = "spiffe://bench.test/client";
pub(crate) const SERVER_ID: &str = "spiffe://bench.test/server";

const LIFE: Duration = Duration::from_secs(86_400);

/// Where the files are: `ca.crt`, and `client` and `server` each with `.crt` and `.key`.
pub(crate) struct Certificates(PathBuf);

impl Certificates {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// ECDSA P-256, as SPIRE issues by default.
pub(crate) fn write(folder: &Path) -> Result<Certificates> {
    let now = SystemTime::now();
    let mut authority = CertificateParams::default();
    authority.distinguished_name = DistinguishedName::new();
    authority
        .distinguished_name
        .push(DnType::CommonName, "svidecar benchmark");
    authority.subject_alt_names = vec![SanType::URI(format!("spiffe://{TRUST_DOMAIN}").try_into()?)];
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.not_before = (now - Duration::from_secs(60)).into();
    authority.not_after = (now + 2 * LIFE).into();
    let key = KeyPair::generate()?;
    fs::write(folder.join("ca.crt"), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    for (side, id) in [("client", CLIENT_ID), ("server", SERVER_ID)] {
        let key = KeyPair::generate()?;
        let leaf = leaf_params(&SpiffeId::new(id)?, LIFE, now)?.signed_by(&key, &issuer)?;
        fs::write(folder.join(format!("{side}.crt")), leaf.pem())?;
        fs::write(folder.join(format!("{side}.key")), key.serialize_pem())?;
    }
    Ok(Certificates(folder.to_owned()))
}
