//! Presents our certificate as a client, and tells the driver of the handshake whether a server wanted it, and whether
//! that server understands renewal.
//!
//! A server that does not ask who we are would serve anybody: that is TLS, but it is not mutual, and rustls says
//! nothing of it. As with the verifier's outcome ([`super::verify`]), the word reaches the driver through a
//! thread-local that it empties before each step of rustls and reads after it, on the same thread.

use std::cell::Cell;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::renewal::capability;

thread_local! {
    static PRESENTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether our certificate was handed to rustls on this thread since the last call.
pub(super) fn take_presented() -> bool {
    PRESENTED.take()
}

/// Our certificate as a client.
#[derive(Debug)]
pub(super) struct Presenting(pub(super) Arc<SingleCertAndKey>);

impl ResolvesClientCert for Presenting {
    fn resolve(&self, root_hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Called when the server's CertificateRequest is there, and only then.
        let certified = ResolvesClientCert::resolve(self.0.as_ref(), root_hints, schemes);
        PRESENTED.set(certified.is_some());
        capability::lend(capability::is_marked(schemes));
        certified
    }

    fn has_certs(&self) -> bool {
        true
    }
}
