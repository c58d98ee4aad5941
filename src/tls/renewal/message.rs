//! The messages, as bytes. Pure; the form is in `docs/renewal.md`.
//!
//! All are handshake messages (RFC 8446 section 4) of one type, [`HANDSHAKE_TYPE`]. Each must lie whole in one record: a
//! peer cannot have us keep the beginning of one.

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;

use crate::tls::record::MAX_PAYLOAD;
use crate::tls::verify::MAX_CHAIN_CERTIFICATES;

/// Of the values that IANA has not assigned. It is said only to who is known to understand it
/// ([`super::capability`]).
pub const HANDSHAKE_TYPE: u8 = 0xf5;
/// Type and length of a handshake message.
const HEADER: usize = 4;
/// The most bytes behind that, for the message to fit into one record. A usual renewal has 1 to 3 KB.
pub const MAX_BODY: usize = MAX_PAYLOAD - HEADER;
/// The longest signature: RSA with 8192 bits, the largest key that is verified with.
pub const MAX_SIGNATURE: usize = 1024;

const HELLO: u8 = 1;
const RENEWAL: u8 = 2;
const ANSWER: u8 = 3;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The client understands renewal.
    Hello,
    /// The sender holds a newer SVID.
    Renewal(Box<Renewal>),
    /// What became of the receiver's renewal of this number.
    Answer {
        /// Which.
        sequence: u32,
        /// What became of it.
        verdict: Verdict,
    },
}

/// A newer SVID, with the proof that the sender holds its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Counts the renewals of one end of a connection from 1 up.
    pub sequence: u32,
    /// The certificates as they are signed over, the leaf first, each behind its length.
    list: Vec<u8>,
    /// What the signature was made with.
    pub scheme: SignatureScheme,
    /// Over [`super::proof::signed`].
    pub signature: Vec<u8>,
}

/// What became of a renewal that was not refused: a refusal ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection rests on the newer SVID from now on.
    Accepted,
    /// It rests on the one of before still: the newer one can't be verified here yet, or gains nothing.
    Kept,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end in the middle, or go on behind the end.
    #[error("a renewal message whose length is wrong")]
    Length,
    /// A kind or a value that does not exist.
    #[error("a renewal message with a value that does not exist")]
    Value,
    /// A list without a certificate, one of too many, or an empty or too long part.
    #[error("a renewal message with a part that is empty or too long")]
    Bounds,
}

impl Renewal {
    /// The certificates, the leaf first.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'_>> {
        let mut rest = Reader(&self.list);
        let mut chain = Vec::new();
        while let Ok(certificate) = rest.vector() {
            chain.push(CertificateDer::from(certificate));
        }
        chain
    }

    /// What the signature covers of the certificates.
    pub(super) fn list(&self) -> &[u8] {
        &self.list
    }
}

/// Reads the body of a handshake message of [`HANDSHAKE_TYPE`].
///
/// # Errors
/// Anything but one whole message.
pub fn parse(body: &[u8]) -> Result<Message, Malformed> {
    let mut rest = Reader(body);
    let message = match rest.byte()? {
        HELLO => Message::Hello,
        RENEWAL => Message::Renewal(Box::new(renewal(&mut rest)?)),
        ANSWER => Message::Answer {
            sequence: rest.sequence()?,
            verdict: match rest.byte()? {
                1 => Verdict::Accepted,
                2 => Verdict::Kept,
                _ => return Err(Malformed::Value),
            },
        },
        _ => return Err(Malformed::Value),
    };
    if rest.0.is_empty() {
        Ok(message)
    } else {
        Err(Malformed::Length)
    }
}

fn renewal(rest: &mut Reader<'_>) -> Result<Renewal, Malformed> {
    let sequence = rest.sequence()?;
    let list = rest.vector()?;
    let mut certificates = Reader(list);
    let mut count = 0;
    while !certificates.0.is_empty() {
        if certificates.vector()?.is_empty() {
            return Err(Malformed::Bounds);
        }
        count += 1;
    }
    let scheme = SignatureScheme::from(rest.short()?);
    let signature = rest.vector()?;
    if count == 0 || count > MAX_CHAIN_CERTIFICATES || signature.is_empty() || signature.len() > MAX_SIGNATURE
    {
        return Err(Malformed::Bounds);
    }
    Ok(Renewal {
        sequence,
        list: list.to_vec(),
        scheme,
        signature: signature.to_vec(),
    })
}

/// The handshake message that says this.
#[must_use]
pub fn hello() -> Vec<u8> {
    framed(&[HELLO])
}

/// The handshake message that says this.
#[must_use]
pub fn answer(sequence: u32, verdict: Verdict) -> Vec<u8> {
    let [a, b, c, d] = sequence.to_be_bytes();
    let verdict = match verdict {
        Verdict::Accepted => 1,
        Verdict::Kept => 2,
    };
    framed(&[ANSWER, a, b, c, d, verdict])
}

/// Whether a handshake message of ours is an answer.
pub(super) fn is_answer(message: &[u8]) -> bool {
    message.get(HEADER) == Some(&ANSWER)
}

/// The handshake message that shows these certificates, as [`list`] wrote them; `None` where they do not fit.
#[must_use]
pub fn shown(sequence: u32, list: &[u8], scheme: SignatureScheme, signature: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(1 + 4 + 2 + list.len() + 2 + 2 + signature.len());
    body.push(RENEWAL);
    body.extend(sequence.to_be_bytes());
    push_vector(&mut body, list)?;
    body.extend(u16::from(scheme).to_be_bytes());
    push_vector(&mut body, signature)?;
    // What we would not read we do not say.
    matches!(parse(&body), Ok(Message::Renewal(_)) if body.len() <= MAX_BODY).then(|| framed(&body))
}

/// The certificates as they are said and signed over; `None` where one is longer than can be said.
#[must_use]
pub fn list(chain: &[CertificateDer<'_>]) -> Option<Vec<u8>> {
    let mut list = Vec::with_capacity(chain.iter().map(|certificate| 2 + certificate.len()).sum());
    for certificate in chain {
        push_vector(&mut list, certificate)?;
    }
    Some(list)
}

fn push_vector(to: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    to.extend(u16::try_from(bytes.len()).ok()?.to_be_bytes());
    to.extend_from_slice(bytes);
    Some(())
}

fn framed(body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[HANDSHAKE_TYPE, a, b, c], body].concat()
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.fixed().map(|[byte]| byte)
    }

    fn short(&mut self) -> Result<u16, Malformed> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn sequence(&mut self) -> Result<u32, Malformed> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// Bytes behind their length in two bytes.
    fn vector(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.short()?);
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(taken)
    }
}
