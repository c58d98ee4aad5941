//! Checkpoints: the log up to a line, signed with the key of the SVID that we hold.
//!
//! What is signed is the checkpoint's place: its number, the hash of the line before it, and its time; under a purpose of its
//! own ([`crate::tls::signing`]). The certificates go with it, so that the signature can be checked when the SVID has
//! long run out; whether these certificates are to be trusted is told by a bundle of that time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::chain::Hash;
use crate::clock::parse_rfc3339;
use crate::identity::material::Svid;
use crate::spiffe::svid;
use crate::tls::signing::{self, Flaw};

const PURPOSE: &[u8] = b"svidecar audit checkpoint v1";

/// Signs with an SVID's key.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The certificates that go with the signature.
    pub svid: Arc<Svid>,
    /// Their key.
    pub key: Arc<dyn SigningKey>,
}

impl Signer {
    /// The `data` of a checkpoint at this place; `None` if the key cannot sign.
    pub(super) fn sign(&self, seq: u64, prev: &Hash, time: SystemTime) -> Option<Value> {
        let (scheme, signature) = signing::sign(&self.key, &message(seq, prev, time))?;
        let chain: Vec<_> = self.svid.chain.iter().map(|cert| BASE64.encode(cert)).collect();
        Some(json!({
            "spiffe_id": self.svid.id.to_string(),
            "serial": self.svid.serial,
            "scheme": scheme.as_str(),
            "signature": BASE64.encode(signature),
            "chain": chain,
        }))
    }
}

fn message(seq: u64, prev: &Hash, time: SystemTime) -> Zeroizing<Vec<u8>> {
    // As the line shows it: to the microsecond.
    let micros = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_micros();
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    signing::message(
        PURPOSE,
        &[&seq.to_be_bytes(), prev.bytes(), &micros.to_be_bytes()],
    )
}

/// A checkpoint as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) seq: u64,
    pub(super) prev: Hash,
    pub(super) time: String,
    pub(super) data: Data,
}

/// What its `data` holds.
#[derive(Debug, Deserialize)]
pub(super) struct Data {
    spiffe_id: String,
    serial: String,
    scheme: String,
    signature: String,
    chain: Vec<String>,
}

/// What a good checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// The ID in the leaf.
    pub(super) spiffe_id: String,
    /// The leaf's serial number.
    pub(super) serial: String,
    /// When it was signed.
    pub(super) time: SystemTime,
    /// The leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl Checkpoint {
    /// Checks the signature, and that the certificate is the SVID that the checkpoint names. Not whether it is trusted.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn check(&self) -> Result<Signed, String> {
        let time = parse_rfc3339(&self.time).ok_or("its time is no RFC 3339 time")?;
        let decode = |text: &str| {
            BASE64
                .decode(text)
                .map_err(|_| "it holds something that is no base64")
        };
        let signature = decode(&self.data.signature)?;
        let chain = self.data.chain.iter().take(32);
        let chain: Vec<_> = chain
            .map(|cert| decode(cert).map(CertificateDer::from))
            .collect::<Result<_, _>>()?;
        let leaf = chain.first().ok_or("it holds no certificate")?;
        let scheme = scheme(&self.data.scheme).ok_or_else(|| {
            format!(
                "it is signed with `{}`, which no SVID's key does",
                self.data.scheme
            )
        })?;
        signing::verify(leaf, scheme, &message(self.seq, &self.prev, time), &signature).map_err(|flaw| {
            match flaw {
                Flaw::Signature => {
                    "its signature was not made over this place of the log by its certificate's key"
                }
                Flaw::Scheme(_) => "its signature is of another kind than its certificate's key makes",
                Flaw::Leaf => "its certificate cannot be read",
            }
        })?;
        let found = svid::check_leaf(leaf).map_err(|e| format!("its certificate is no X.509-SVID: {e}"))?;
        if found.id.to_string() != self.data.spiffe_id || found.serial != self.data.serial {
            return Err("its certificate is another than the one it names".to_owned());
        }
        if time < found.not_before || found.not_after < time {
            return Err("it was signed when its certificate was not valid".to_owned());
        }
        Ok(Signed {
            spiffe_id: self.data.spiffe_id.clone(),
            serial: self.data.serial.clone(),
            time,
            chain,
        })
    }
}

fn scheme(name: &str) -> Option<SignatureScheme> {
    let known = signing::SCHEMES.iter().find(|known| known.as_str() == Some(name));
    known.copied()
}
