//! Application traffic secrets (RFC 8446 section 7): what keys are made from, and made anew from when they are updated.
//!
//! rustls would keep them, but only inside of an object of 1.4 KB a connection (most of it another copy of the peer's
//! chain), which is as much as everything else that an idle connection costs. So we keep the two secrets. rustls has one
//! way to tell them, the one that serves key logs: it calls [`Collector`] while it makes them, and the driver of the
//! handshake takes them from there, on the same thread and before anything else can run (`tls::verify::outcome`
//! tells why that is sound). They go nowhere else. The exporter's secret comes the same way; of it nothing is kept but
//! what a renewal is bound to ([`Binding`]).

use std::cell::RefCell;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256, SHA384, digest};
use aws_lc_rs::hkdf::{Algorithm, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::KeyLog;
use zeroize::Zeroizing;

use super::renewal::Binding;

/// The longest secret of the suites that we know: as long as SHA-384's output.
const MAX_SECRET: usize = 48;
/// The longest label that we expand with, `traffic upd`, in an `HkdfLabel`: two bytes of length, the label behind its
/// length and prefix, and an empty context (RFC 8446 section 7.1). The exporter's is longer.
const MAX_LABEL: usize = 2 + 1 + 6 + 11 + 1;

thread_local! {
    static COLLECTED: RefCell<Collected> = const { RefCell::new(Collected { client: None, server: None, exporter: None }) };
}

struct Collected {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
    exporter: Option<TrafficSecret>,
}

/// The secrets of a connection.
pub struct TrafficSecrets {
    /// What the client sends with.
    pub client: TrafficSecret,
    /// What the server sends with.
    pub server: TrafficSecret,
    /// What tells the connection from every other; `None` if it was not told, or the library failed.
    pub binding: Option<Binding>,
}

/// One direction's secret.
pub struct TrafficSecret {
    bytes: Zeroizing<[u8; MAX_SECRET]>,
    /// As many of `bytes` as the suite's hash is long.
    length: u8,
}

/// Takes the secrets of the connection that rustls was just called for, and leaves none.
pub fn take_secrets() -> Option<TrafficSecrets> {
    COLLECTED.with(|collected| {
        let mut collected = collected.try_borrow_mut().ok()?;
        let (client, server) = (collected.client.take(), collected.server.take());
        let exporter = collected.exporter.take();
        Some(TrafficSecrets {
            client: client?,
            server: server?,
            binding: exporter.as_ref().and_then(Binding::new),
        })
    })
}

/// What a rustls configuration needs so that [`take_secrets`] finds something.
#[must_use]
pub fn collector() -> Arc<dyn KeyLog> {
    Arc::new(Collector)
}

#[derive(Debug)]
struct Collector;

impl KeyLog for Collector {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let secret = TrafficSecret::new(secret);
        COLLECTED.with(|collected| {
            // Nobody holds a borrow across a call into rustls. Were it to fail, the driver would find none and refuse.
            let Ok(mut collected) = collected.try_borrow_mut() else {
                return;
            };
            match label {
                "CLIENT_TRAFFIC_SECRET_0" => collected.client = secret,
                "SERVER_TRAFFIC_SECRET_0" => collected.server = secret,
                "EXPORTER_SECRET" => collected.exporter = secret,
                _ => {}
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(
            label,
            "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0" | "EXPORTER_SECRET"
        )
    }
}

impl TrafficSecret {
    /// `None` for a length that no suite of ours has.
    pub(super) fn new(secret: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; MAX_SECRET]);
        bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        let this = Self {
            bytes,
            length: u8::try_from(secret.len()).ok()?,
        };
        this.hash().map(|_| this)
    }

    /// The hash of the suite, which its length tells.
    const fn hash(&self) -> Option<Algorithm> {
        match self.length {
            32 => Some(HKDF_SHA256),
            48 => Some(HKDF_SHA384),
            _ => None,
        }
    }

    /// The secret of the next generation of keys (RFC 8446 section 7.2); `None` if the library fails.
    #[must_use]
    pub fn next(&self) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; MAX_SECRET]);
        self.expand(b"traffic upd", bytes.get_mut(..usize::from(self.length))?)?;
        Some(Self {
            bytes,
            length: self.length,
        })
    }

    /// TLS-Exporter with an empty context (RFC 8446 section 7.5), of an exporter's secret, as long as `out`; `None` if the
    /// library fails.
    pub(super) fn export(&self, label: &[u8], out: &mut [u8]) -> Option<()> {
        let nothing = digest(self.digest()?, &[]);
        let mut derived = Self {
            bytes: Zeroizing::new([0; MAX_SECRET]),
            length: self.length,
        };
        let bytes = derived.bytes.get_mut(..usize::from(self.length))?;
        self.expand_in(label, nothing.as_ref(), bytes)?;
        derived.expand_in(b"exporter", nothing.as_ref(), out)
    }

    const fn digest(&self) -> Option<&'static digest::Algorithm> {
        match self.length {
            32 => Some(&SHA256),
            48 => Some(&SHA384),
            _ => None,
        }
    }

    /// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1), as long as `out`; `None` if the library fails.
    pub(super) fn expand(&self, label: &[u8], out: &mut [u8]) -> Option<()> {
        self.expand_in(label, &[], out)
    }

    fn expand_in(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Option<()> {
        let mut info = Vec::with_capacity(MAX_LABEL);
        info.extend_from_slice(&u16::try_from(out.len()).ok()?.to_be_bytes());
        info.push(u8::try_from(6 + label.len()).ok()?);
        info.extend_from_slice(b"tls13 ");
        info.extend_from_slice(label);
        info.push(u8::try_from(context.len()).ok()?);
        info.extend_from_slice(context);
        let secret = self.bytes.get(..usize::from(self.length))?;
        Prk::new_less_safe(self.hash()?, secret)
            .expand(&[&info], Length(out.len()))
            .ok()?
            .fill(out)
            .ok()
    }
}

/// How much is to be expanded.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    /// RFC 8448 section 3: the server's application traffic secret, key and initialization vector.
    #[test]
    fn keys_of_the_published_trace() {
        let secret = TrafficSecret::new(&bytes(
            "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
        ))
        .unwrap();
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        secret.expand(b"key", &mut key).unwrap();
        secret.expand(b"iv", &mut iv).unwrap();
        assert_eq!(key.to_vec(), bytes("9f02283b6c9c07efc26bb9f2ac92e356"));
        assert_eq!(iv.to_vec(), bytes("cf782b88dd83549aadf1e984"));
    }

    #[test]
    fn a_secret_has_the_length_of_a_hash() {
        for length in 0..100 {
            let known = TrafficSecret::new(&vec![1; length]).is_some();
            assert_eq!(known, [32, 48].contains(&length), "{length}");
        }
    }

    #[test]
    fn secrets_are_taken_once_and_both_or_none() {
        let collector = collector();
        assert!(!collector.will_log("CLIENT_HANDSHAKE_TRAFFIC_SECRET"));
        assert!(take_secrets().is_none());
        collector.log("CLIENT_TRAFFIC_SECRET_0", &[], &[1; 32]);
        assert!(take_secrets().is_none(), "half of them");
        collector.log("SERVER_TRAFFIC_SECRET_0", &[], &[2; 32]);
        assert!(take_secrets().is_none(), "halves of two connections");
        collector.log("CLIENT_TRAFFIC_SECRET_0", &[], &[1; 32]);
        collector.log("SERVER_TRAFFIC_SECRET_0", &[], &[2; 32]);
        let secrets = take_secrets().unwrap();
        assert_eq!((secrets.client.bytes[0], secrets.server.bytes[0]), (1, 2));
        assert!(take_secrets().is_none());
    }
}
