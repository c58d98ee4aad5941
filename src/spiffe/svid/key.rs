//! Which keys and signatures are strong enough.
//!
//! The standard leaves this open; the set is what both aws-lc-rs and TLS 1.3 can use and NIST SP 800-57 still
//! allows. Refused by it: DSA, GOST, RSA-PSS keys (rustls has no scheme for them), RSA below 2048 or above 8192
//! bits, EC curves other than the three NIST ones (secp256k1, brainpool), Ed448, X25519; MD2, MD5 and SHA-1.

use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519, Oid,
    OidRegistry,
};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::errors::Defect;

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// SHA-256 over the key as it stands in the certificate, `SubjectPublicKeyInfo` in DER: what
/// `openssl pkey -pubin -outform DER | sha256sum` prints.
pub(super) fn key_hash(spki: &SubjectPublicKeyInfo<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki.raw);
    // Both are 32 bytes.
    for (byte, of_digest) in hash.iter_mut().zip(digest.as_ref()) {
        *byte = *of_digest;
    }
    hash
}

/// The key's kind for people, or why it is not taken.
pub(super) fn key_type(spki: &SubjectPublicKeyInfo<'_>) -> Result<String, Defect> {
    let algorithm = &spki.algorithm;
    let refused = |found: String| Err(Defect::UnsupportedKey { found });
    if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        return match curve {
            Some(oid) if oid == OID_EC_P256 => Ok("EC P-256".to_owned()),
            Some(oid) if oid == OID_NIST_EC_P384 => Ok("EC P-384".to_owned()),
            Some(oid) if oid == OID_NIST_EC_P521 => Ok("EC P-521".to_owned()),
            Some(oid) => refused(format!("an EC key on the curve {}", name(&oid))),
            None => refused("an EC key without a named curve".to_owned()),
        };
    }
    if algorithm.algorithm == OID_SIG_ED25519 {
        return Ok("Ed25519".to_owned());
    }
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        let Ok(PublicKey::RSA(key)) = spki.parsed() else {
            return refused("an RSA key that does not parse".to_owned());
        };
        let bits = bit_length(key.modulus);
        return if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            Ok(format!("RSA {bits}"))
        } else {
            refused(format!("RSA of {bits} bits"))
        };
    }
    refused(name(&algorithm.algorithm))
}

/// Refuses signature algorithms that are broken or unknown to us, before the path is built, by their name.
pub(super) fn check_signature_algorithm(algorithm: &AlgorithmIdentifier<'_>) -> Result<(), Defect> {
    let oid = &algorithm.algorithm;
    let strong = [
        &OID_SIG_ECDSA_WITH_SHA256,
        &OID_SIG_ECDSA_WITH_SHA384,
        &OID_SIG_ECDSA_WITH_SHA512,
        &OID_SIG_ED25519,
        &OID_PKCS1_SHA256WITHRSA,
        &OID_PKCS1_SHA384WITHRSA,
        &OID_PKCS1_SHA512WITHRSA,
    ];
    if strong.contains(&oid) {
        return Ok(());
    }
    if *oid == OID_PKCS1_RSASSAPSS {
        return check_pss(algorithm);
    }
    Err(Defect::UnsupportedSignature { found: name(oid) })
}

/// RSA-PSS names its hash in the parameters; left out it is SHA-1 (RFC 4055 section 3.1).
fn check_pss(algorithm: &AlgorithmIdentifier<'_>) -> Result<(), Defect> {
    use x509_parser::oid_registry::{OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512};
    let refused = |found: &str| {
        Err(Defect::UnsupportedSignature {
            found: found.to_owned(),
        })
    };
    let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm) else {
        return refused("RSA-PSS with parameters that do not parse");
    };
    let hash = parameters.hash_algorithm_oid();
    if [
        &OID_NIST_HASH_SHA256,
        &OID_NIST_HASH_SHA384,
        &OID_NIST_HASH_SHA512,
    ]
    .contains(&hash)
    {
        Ok(())
    } else {
        refused("RSA-PSS with a weak hash")
    }
}

fn bit_length(modulus: &[u8]) -> usize {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let top = modulus
        .get(zeros)
        .map_or(0, |byte| 8 - byte.leading_zeros() as usize);
    modulus
        .len()
        .saturating_sub(zeros)
        .saturating_sub(1)
        .saturating_mul(8)
        .saturating_add(top)
}

/// The algorithm's short name where it is a known one, with its object identifier.
fn name(oid: &Oid<'_>) -> String {
    let registry = OidRegistry::default().with_crypto().with_x509();
    match registry.get(oid) {
        Some(entry) => format!("{} ({oid})", entry.sn()),
        None => oid.to_id_string(),
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, Oid};

    use super::{bit_length, name};

    #[test]
    fn what_is_refused_is_named() {
        assert_eq!(
            name(&OID_PKCS1_SHA1WITHRSA),
            "sha1WithRSAEncryption (1.2.840.113549.1.1.5)"
        );
        let unknown = Oid::from(&[1, 3, 6, 1, 4, 1, 99_999, 1]).unwrap();
        assert_eq!(name(&unknown), "1.3.6.1.4.1.99999.1");
    }

    #[test]
    fn bits_are_counted_from_the_first_that_is_set() {
        for (modulus, bits) in [
            (&[][..], 0),
            (&[0], 0),
            (&[1], 1),
            (&[0, 0x80], 8),
            (&[0x80, 0], 16),
            (&[0, 0x01, 0xff], 9),
        ] {
            assert_eq!(bit_length(modulus), bits, "{modulus:?}");
        }
    }
}
