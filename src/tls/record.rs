//! TLS 1.3 record protection (RFC 8446 section 5), in the caller's buffer.
//!
//! A [`Sealer`] and an [`Opener`] each hold one direction's key, its initialization vector and its record counter.
//! They copy nothing: a record is sealed and opened where it lies. What the records mean (alerts, key updates) is
//! [`super::session`]'s matter.
//!
//! The keys come from rustls when the handshake is done. The AEAD is aws-lc-rs' `TlsRecord*Key`, which refuses a
//! nonce that does not count upwards.

use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, Nonce, TlsProtocolId, TlsRecordOpeningKey, TlsRecordSealingKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType};
use zeroize::Zeroizing;

use super::traffic::TrafficSecret;

/// Type, legacy version, length (RFC 8446 section 5.1).
pub const HEADER: usize = 5;
/// The most payload that one record may hold (RFC 8446 section 5.1).
pub const MAX_PAYLOAD: usize = 1 << 14;
/// The inner content type and the AEAD's tag.
pub const TRAILER: usize = 1 + 16;
/// A whole record of the most payload, as we write it.
pub const MAX_SEALED: usize = HEADER + MAX_PAYLOAD + TRAILER;
/// A whole record of the most that a peer may send: up to 256 bytes of expansion (RFC 8446 section 5.2).
pub const MAX_RECORD: usize = HEADER + MAX_PAYLOAD + 256;

/// Records that may be sealed with one AES-GCM key before it must be updated: RFC 8446 section 5.5 allows about
/// 2^24.5 full-size ones.
pub const SEAL_LIMIT: u64 = 1 << 24;

/// The longest key of the suites that this layer knows, AES-256's.
const MAX_KEY: usize = 32;

/// Why a record was refused. Each is fatal to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its type is none that may follow the handshake.
    #[error("a record of type {0} after the handshake")]
    UnexpectedType(u8),
    /// It is longer than RFC 8446 section 5.2 allows, or its payload is.
    #[error("a record longer than TLS 1.3 allows")]
    Overflow,
    /// It does not open with the key: it was altered, or the peer is out of step.
    #[error("a record that does not decrypt")]
    BadMac,
    /// It holds only padding.
    #[error("a record with no content type")]
    NoContentType,
    /// The slot is too small for the payload and what TLS adds, or the counter ran out.
    #[error("a record could not be sealed")]
    Seal,
    /// rustls negotiated a suite that this layer does not know, or keys of a wrong length.
    #[error("record keys of an unknown kind")]
    Keys,
}

impl RecordError {
    /// The alert that tells the peer (RFC 8446 sections 5.1, 5.2, 5.4, 6.2).
    #[must_use]
    pub const fn alert(self) -> AlertDescription {
        match self {
            Self::UnexpectedType(_) | Self::NoContentType => AlertDescription::UnexpectedMessage,
            Self::Overflow => AlertDescription::RecordOverflow,
            Self::BadMac => AlertDescription::BadRecordMac,
            Self::Seal | Self::Keys => AlertDescription::InternalError,
        }
    }
}

/// The length of the record at the start of `bytes`, header included; `None` while the header is not whole.
///
/// # Errors
/// A record of another type than application data (after the handshake every record is one, RFC 8446 section 5.2),
/// or of a length that the standard forbids.
pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[content_type, _, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if content_type != u8::from(ContentType::ApplicationData) {
        return Err(RecordError::UnexpectedType(content_type));
    }
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_RECORD {
        Err(RecordError::Overflow)
    } else {
        Ok(Some(length))
    }
}

/// What a direction's protection is made from (RFC 8446 section 7.3).
struct Secrets {
    algorithm: &'static Algorithm,
    key: Zeroizing<[u8; MAX_KEY]>,
    iv: [u8; 12],
}

impl Secrets {
    fn new(secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let (algorithm, from, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key.as_ref(), iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key.as_ref(), iv),
            _ => return Err(RecordError::Keys),
        };
        if from.len() != algorithm.key_len() {
            return Err(RecordError::Keys);
        }
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Keys)?;
        let mut key = Zeroizing::new([0; MAX_KEY]);
        let to = key.get_mut(..from.len()).ok_or(RecordError::Keys)?;
        to.copy_from_slice(from);
        Ok(Self { algorithm, key, iv })
    }

    /// The keys of the next generation, from its traffic secret.
    fn next(&self, secret: &TrafficSecret) -> Option<Self> {
        let mut key = Zeroizing::new([0; MAX_KEY]);
        let mut iv = [0; 12];
        secret.expand(b"key", key.get_mut(..self.algorithm.key_len())?)?;
        secret.expand(b"iv", &mut iv)?;
        Some(Self {
            algorithm: self.algorithm,
            key,
            iv,
        })
    }

    fn key(&self) -> &[u8] {
        self.key.get(..self.algorithm.key_len()).unwrap_or_default()
    }

    fn sealing_key(&self, sequence: u64) -> Result<TlsRecordSealingKey, RecordError> {
        let mut key = TlsRecordSealingKey::new(self.algorithm, TlsProtocolId::TLS13, self.key())
            .map_err(|_| RecordError::Keys)?;
        if sequence > 0 {
            // aws-lc takes the first nonce it sees for that of record 0 and counts from there. This one is
            // sealed away from the wire (record 0 has gone out already), so that counting may go on at `sequence`.
            let _discarded = key
                .seal_in_place_separate_tag(nonce(&self.iv, 0), Aad::empty(), &mut [])
                .map_err(|_| RecordError::Keys)?;
        }
        Ok(key)
    }

    fn opening_key(&self) -> Result<TlsRecordOpeningKey, RecordError> {
        TlsRecordOpeningKey::new(self.algorithm, TlsProtocolId::TLS13, self.key())
            .map_err(|_| RecordError::Keys)
    }
}

/// The per-record nonce (RFC 8446 section 5.3).
fn nonce(iv: &[u8; 12], sequence: u64) -> Nonce {
    let mut nonce = *iv;
    for (byte, count) in nonce.iter_mut().skip(4).zip(sequence.to_be_bytes()) {
        *byte ^= count;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// The key of one direction and its record counter.
struct Keyed<K> {
    secrets: Secrets,
    /// Made from the secrets when there is something to protect.
    expanded: Option<K>,
    sequence: u64,
}

impl<K> Keyed<K> {
    fn update(&mut self, secret: &TrafficSecret) -> Result<(), RecordError> {
        self.secrets = self.secrets.next(secret).ok_or(RecordError::Keys)?;
        self.expanded = None;
        self.sequence = 0;
        Ok(())
    }
}

/// Seals the records of one direction.
pub struct Sealer(Keyed<TlsRecordSealingKey>);

impl Sealer {
    /// A sealer that goes on at `sequence`.
    ///
    /// # Errors
    /// Keys of a kind this layer does not know.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let secrets = Secrets::new(secrets)?;
        let expanded = Some(secrets.sealing_key(sequence)?);
        Ok(Self(Keyed {
            secrets,
            expanded,
            sequence,
        }))
    }

    /// Goes over to the next generation of keys, whose traffic secret is `secret`.
    ///
    /// # Errors
    /// The keys could not be made.
    pub fn update(&mut self, secret: &TrafficSecret) -> Result<(), RecordError> {
        self.0.update(secret)
    }

    /// Frees the expanded key. The next record expands it again.
    pub fn rest(&mut self) {
        self.0.expanded = None;
    }

    /// How many records the key has sealed.
    #[must_use]
    pub const fn sealed(&self) -> u64 {
        self.0.sequence
    }

    /// Seals the `length` payload bytes that lie [`HEADER`] bytes into `slot`, and returns the record's whole length.
    /// `slot` must have room for [`TRAILER`] bytes after the payload.
    ///
    /// # Errors
    /// A slot too small, a payload over [`MAX_PAYLOAD`], or a spent counter; nothing may be sent on afterwards.
    pub fn seal(
        &mut self,
        content_type: ContentType,
        slot: &mut [u8],
        length: usize,
    ) -> Result<usize, RecordError> {
        if length > MAX_PAYLOAD {
            return Err(RecordError::Seal);
        }
        let body = length + TRAILER;
        let record = slot.get_mut(..HEADER + body).ok_or(RecordError::Seal)?;
        let (header, rest) = record.split_at_mut(HEADER);
        let (inner, tag_out) = rest.split_at_mut(length + 1);
        let [high, low] = u16::try_from(body).map_err(|_| RecordError::Seal)?.to_be_bytes();
        header.copy_from_slice(&[u8::from(ContentType::ApplicationData), 3, 3, high, low]);
        if let Some(last) = inner.last_mut() {
            *last = u8::from(content_type);
        }
        let keyed = &mut self.0;
        let next = keyed.sequence.checked_add(1).ok_or(RecordError::Seal)?;
        let key = match &mut keyed.expanded {
            Some(key) => key,
            none => none.insert(keyed.secrets.sealing_key(keyed.sequence)?),
        };
        let tag = key
            .seal_in_place_separate_tag(
                nonce(&keyed.secrets.iv, keyed.sequence),
                Aad::from(&*header),
                inner,
            )
            .map_err(|_| RecordError::Seal)?;
        tag_out.copy_from_slice(tag.as_ref());
        keyed.sequence = next;
        Ok(HEADER + body)
    }
}

/// Opens the records of one direction.
pub struct Opener(Keyed<TlsRecordOpeningKey>);

impl Opener {
    /// An opener that goes on at `sequence`.
    ///
    /// # Errors
    /// Keys of a kind this layer does not know.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let secrets = Secrets::new(secrets)?;
        let expanded = Some(secrets.opening_key()?);
        Ok(Self(Keyed {
            secrets,
            expanded,
            sequence,
        }))
    }

    /// Goes over to the next generation of keys, whose traffic secret is `secret`.
    ///
    /// # Errors
    /// The keys could not be made.
    pub fn update(&mut self, secret: &TrafficSecret) -> Result<(), RecordError> {
        self.0.update(secret)
    }

    /// Frees the expanded key. The next record expands it again.
    pub fn rest(&mut self) {
        self.0.expanded = None;
    }

    /// Opens one whole record (as [`record_length`] delimits it) in place. Returns its inner content type and where
    /// its payload lies in `record`.
    ///
    /// # Errors
    /// Whatever RFC 8446 section 5.2 makes fatal; nothing may be read afterwards.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), RecordError> {
        let (header, body) = record.split_at_mut_checked(HEADER).ok_or(RecordError::BadMac)?;
        let keyed = &mut self.0;
        let next = keyed.sequence.checked_add(1).ok_or(RecordError::BadMac)?;
        let key = match &keyed.expanded {
            Some(key) => key,
            None => keyed.expanded.insert(keyed.secrets.opening_key()?),
        };
        let plain = key
            .open_in_place(
                nonce(&keyed.secrets.iv, keyed.sequence),
                Aad::from(&*header),
                body,
            )
            .map_err(|_| RecordError::BadMac)?;
        keyed.sequence = next;
        // Padding counts, too: content, type and padding are limited together (RFC 8446 section 5.4).
        if plain.len() > MAX_PAYLOAD + 1 {
            return Err(RecordError::Overflow);
        }
        // The content type is the last byte that is not padding.
        let end = plain
            .iter()
            .rposition(|byte| *byte != 0)
            .ok_or(RecordError::NoContentType)?;
        let content_type = plain.get(end).copied().ok_or(RecordError::NoContentType)?;
        Ok((ContentType::from(content_type), HEADER..HEADER + end))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("sequence", &self.0.sequence)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("sequence", &self.0.sequence)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
