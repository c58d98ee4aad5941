//! Presents our certificate, and tells the driver of the handshake what rustls does not: as a client whether the server
//! wanted it and whether that server understands renewal, as a server which name the client asked for.
//!
//! A server that does not ask who we are would serve anybody: that is TLS, but it is not mutual, and rustls says
//! nothing of it. Nor does an unbuffered server tell the name it was called by. As with the verifier's outcome
//! ([`super::verify`]), the word reaches the driver through a thread-local that it empties before each step of rustls
//! and reads after it, on the same thread.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::renewal::capability;

thread_local! {
    static PRESENTED: Cell<bool> = const { Cell::new(false) };
    static CALLED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Whether our certificate was handed to rustls on this thread since the last call.
pub(super) fn take_presented() -> bool {
    PRESENTED.take()
}

/// The name that a client asked for on this thread since the last call.
pub(super) fn take_called() -> Option<Box<str>> {
    CALLED.take()
}

/// Our certificate as a server that wants to know what it was called.
#[derive(Debug)]
pub(super) struct Listening(pub(super) Arc<SingleCertAndKey>);

impl ResolvesServerCert for Listening {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        CALLED.set(hello.server_name().map(Box::from));
        ResolvesServerCert::resolve(self.0.as_ref(), hello)
    }
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
