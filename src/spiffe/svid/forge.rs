//! Makes certificates for tests, right and wrong, from a few lines of DER: a CA's library would not write most of
//! the wrong ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The time of all tests: 2026-11-23T00:00:00Z.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_392_000)
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The last part of an object identifier below 2.5.29.
pub(crate) const SAN: u8 = 17;
pub(crate) const KEY_USAGE: u8 = 15;
pub(crate) const BASIC_CONSTRAINTS: u8 = 19;
pub(crate) const NAME_CONSTRAINTS: u8 = 30;
pub(crate) const EXTENDED_KEY_USAGE: u8 = 37;
/// Assigned to nothing.
pub(crate) const UNKNOWN: u8 = 99;

const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];

pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(crate) const KEY_ENCIPHERMENT: u8 = 0x20;
pub(crate) const KEY_AGREEMENT: u8 = 0x08;
pub(crate) const KEY_CERT_SIGN: u8 = 0x04;
pub(crate) const CRL_SIGN: u8 = 0x02;

pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    match length {
        0..0x80 => der.push(length as u8),
        0x80..0x100 => der.extend([0x81, length as u8]),
        _ => der.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    der.extend(content);
    der
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A name with one common name, or none.
fn name(common_name: &str) -> Vec<u8> {
    if common_name.is_empty() {
        return sequence(&[]);
    }
    let value = tlv(0x0c, common_name.as_bytes());
    sequence(&[&tlv(0x31, &sequence(&[&tlv(6, &[0x55, 4, 3]), &value]))])
}

fn instant(time: SystemTime) -> Vec<u8> {
    let t = time::OffsetDateTime::from(time);
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    );
    match t.year() {
        1950..2050 => tlv(0x17, format!("{:02}{rest}", t.year() % 100).as_bytes()),
        year => tlv(0x18, format!("{year:04}{rest}").as_bytes()),
    }
}

pub(crate) fn uri(text: impl AsRef<[u8]>) -> Vec<u8> {
    tlv(0x86, text.as_ref())
}

pub(crate) fn dns(text: &str) -> Vec<u8> {
    tlv(0x82, text.as_bytes())
}

/// The SPKI of a key that nobody holds.
pub(crate) fn spki(algorithm: &[u8], parameters: &[u8], key: &[u8]) -> Vec<u8> {
    sequence(&[
        &sequence(&[&tlv(6, algorithm), parameters]),
        &tlv(3, &[&[0], key].concat()),
    ])
}

pub(crate) fn rsa_spki(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0xa5; bits / 8];
    modulus.insert(0, 0);
    let key = sequence(&[&tlv(2, &modulus), &tlv(2, &[1, 0, 1])]);
    spki(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1], &[5, 0], &key)
}

pub(crate) const ECDSA_SHA1: &[u8] = &[0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
pub(crate) const RSA_MD5: &[u8] = &[
    0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4, 5, 0,
];
pub(crate) const RSA_SHA1: &[u8] = &[
    0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0,
];
const RSA_SHA256: &[u8] = &[
    0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0,
];
const ECDSA_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const ECDSA_SHA512: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
pub(crate) const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
/// RSA-PSS whose parameters are left out, so that the hash is SHA-1.
pub(crate) const PSS_SHA1: &[u8] = &[
    0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10, 0x30, 0,
];

/// A key with the algorithm it signs with.
pub(crate) struct Key {
    pub(crate) pair: KeyPair,
    algorithm: &'static [u8],
}

impl Key {
    pub(crate) fn p256() -> Self {
        Self::new(&rcgen::PKCS_ECDSA_P256_SHA256, ECDSA_SHA256)
    }

    pub(crate) fn p384() -> Self {
        Self::new(&rcgen::PKCS_ECDSA_P384_SHA384, ECDSA_SHA384)
    }

    pub(crate) fn p521() -> Self {
        Self::new(&rcgen::PKCS_ECDSA_P521_SHA512, ECDSA_SHA512)
    }

    pub(crate) fn ed25519() -> Self {
        Self::new(&rcgen::PKCS_ED25519, ED25519)
    }

    pub(crate) fn rsa(size: rcgen::RsaKeySize) -> Self {
        let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        Self {
            pair,
            algorithm: RSA_SHA256,
        }
    }

    fn new(kind: &'static rcgen::SignatureAlgorithm, algorithm: &'static [u8]) -> Self {
        Self {
            pair: KeyPair::generate_for(kind).unwrap(),
            algorithm,
        }
    }

    /// The same key once more.
    pub(crate) fn same_as(key: &Self) -> Self {
        let pair = KeyPair::try_from(key.pair.serialize_der()).unwrap();
        Self {
            pair,
            algorithm: key.algorithm,
        }
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    pub(crate) fn pkcs8(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()))
    }
}

/// A certificate before it is signed.
#[derive(Clone)]
pub(crate) struct Forge {
    version: u8,
    serial: Vec<u8>,
    subject: String,
    not_before: SystemTime,
    not_after: SystemTime,
    spki: Vec<u8>,
    extensions: Vec<(u8, bool, Vec<u8>)>,
    algorithms: Option<(Vec<u8>, Vec<u8>)>,
}

impl Forge {
    /// A leaf as SPIRE makes them.
    pub(crate) fn leaf(id: &str, key: &Key) -> Self {
        Self::new("workload", key)
            .with_uris(&[id])
            .with_key_usage(DIGITAL_SIGNATURE)
            .with_extended(&[SERVER_AUTH, CLIENT_AUTH])
            .with(BASIC_CONSTRAINTS, true, sequence(&[]))
    }

    /// A CA without a SPIFFE ID.
    pub(crate) fn ca(subject: &str, key: &Key) -> Self {
        Self::new(subject, key)
            .valid(now() - 24 * HOUR, now() + 24 * HOUR)
            .with_key_usage(KEY_CERT_SIGN | CRL_SIGN)
            .with_basic_constraints(true, None)
    }

    fn new(subject: &str, key: &Key) -> Self {
        Self {
            version: 3,
            serial: vec![0x00, 0x8f, 0x01],
            subject: subject.to_owned(),
            not_before: now() - HOUR,
            not_after: now() + HOUR,
            spki: key.spki(),
            extensions: Vec::new(),
            algorithms: None,
        }
    }

    pub(crate) fn version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// The serial number's content in DER.
    pub(crate) fn serial(mut self, bytes: &[u8]) -> Self {
        self.serial = bytes.to_vec();
        self
    }

    pub(crate) fn subject(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    pub(crate) fn valid(mut self, not_before: SystemTime, not_after: SystemTime) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    pub(crate) fn spki(mut self, spki: Vec<u8>) -> Self {
        self.spki = spki;
        self
    }

    /// Sets the algorithm inside and outside of what is signed, whatever signs it.
    pub(crate) fn algorithms(mut self, inside: &[u8], outside: &[u8]) -> Self {
        self.algorithms = Some((inside.to_owned(), outside.to_owned()));
        self
    }

    /// Adds an extension, or replaces it.
    pub(crate) fn with(mut self, oid: u8, critical: bool, value: Vec<u8>) -> Self {
        match self.extensions.iter_mut().find(|(have, ..)| *have == oid) {
            Some(place) => *place = (oid, critical, value),
            None => self.extensions.push((oid, critical, value)),
        }
        self
    }

    /// Marks an extension that is there as critical.
    pub(crate) fn critical(mut self, oid: u8) -> Self {
        for (_, critical, _) in self.extensions.iter_mut().filter(|(have, ..)| *have == oid) {
            *critical = true;
        }
        self
    }

    /// Adds an extension beside one that may be there.
    pub(crate) fn with_another(mut self, oid: u8, critical: bool, value: Vec<u8>) -> Self {
        self.extensions.push((oid, critical, value));
        self
    }

    pub(crate) fn without(mut self, oid: u8) -> Self {
        self.extensions.retain(|(have, ..)| *have != oid);
        self
    }

    pub(crate) fn with_uris<T: AsRef<[u8]>>(self, uris: &[T]) -> Self {
        let names: Vec<_> = uris.iter().map(uri).collect();
        self.with_names(&names)
    }

    pub(crate) fn with_names(self, names: &[Vec<u8>]) -> Self {
        self.with(SAN, false, sequence(&[&names.concat()]))
    }

    pub(crate) fn with_key_usage(self, bits: u8) -> Self {
        self.with(KEY_USAGE, true, key_usage_bits(bits))
    }

    pub(crate) fn with_basic_constraints(self, ca: bool, path_len: Option<u8>) -> Self {
        let ca = if ca { tlv(1, &[0xff]) } else { Vec::new() };
        let path_len = path_len.map(|length| tlv(2, &[length])).unwrap_or_default();
        self.with(BASIC_CONSTRAINTS, true, sequence(&[&ca, &path_len]))
    }

    pub(crate) fn server_only(self) -> Self {
        self.with_extended(&[SERVER_AUTH])
    }

    pub(crate) fn client_only(self) -> Self {
        self.with_extended(&[CLIENT_AUTH])
    }

    pub(crate) fn any_usage(self) -> Self {
        self.with_extended(&[ANY_USAGE])
    }

    fn with_extended(self, usages: &[&[u8]]) -> Self {
        let usages: Vec<_> = usages.iter().map(|usage| tlv(6, usage)).collect();
        self.with(EXTENDED_KEY_USAGE, false, sequence(&[&usages.concat()]))
    }

    /// Name constraints with one permitted subtree.
    pub(crate) fn permits(self, name: &[u8]) -> Self {
        self.with(
            NAME_CONSTRAINTS,
            true,
            sequence(&[&tlv(0xa0, &sequence(&[name]))]),
        )
    }

    pub(crate) fn self_signed(self, key: &Key) -> CertificateDer<'static> {
        let subject = self.subject.clone();
        self.sign(&subject, key)
    }

    pub(crate) fn sign(self, issuer: &str, key: &Key) -> CertificateDer<'static> {
        let algorithm = || key.algorithm.to_vec();
        let (inside, outside) = self
            .algorithms
            .clone()
            .unwrap_or_else(|| (algorithm(), algorithm()));
        let tbs = self.tbs(issuer, &inside);
        let signature = tlv(3, &[&[0], &key.pair.sign(&tbs).unwrap()[..]].concat());
        CertificateDer::from(sequence(&[&tbs, &outside, &signature]))
    }

    fn tbs(&self, issuer: &str, algorithm: &[u8]) -> Vec<u8> {
        // Version 1 is the default, which DER leaves out.
        let version = match self.version {
            1 => Vec::new(),
            version => tlv(0xa0, &tlv(2, &[version - 1])),
        };
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(oid, critical, value)| {
                let critical = if *critical { tlv(1, &[0xff]) } else { Vec::new() };
                sequence(&[&tlv(6, &[0x55, 0x1d, *oid]), &critical, &tlv(4, value)])
            })
            .collect();
        let extensions = if extensions.is_empty() {
            Vec::new()
        } else {
            tlv(0xa3, &sequence(&[&extensions]))
        };
        sequence(&[
            &version,
            &tlv(2, &self.serial),
            algorithm,
            &name(issuer),
            &sequence(&[&instant(self.not_before), &instant(self.not_after)]),
            &name(&self.subject),
            &self.spki,
            &extensions,
        ])
    }
}

pub(crate) fn key_usage_bits(bits: u8) -> Vec<u8> {
    match bits {
        0 => tlv(3, &[0]),
        bits => tlv(3, &[bits.trailing_zeros() as u8, bits]),
    }
}
