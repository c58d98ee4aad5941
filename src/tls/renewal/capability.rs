//! How the two ends of a connection learn that the other understands renewal, without anybody else noticing.
//!
//! A server says it in the CertificateRequest of its handshake: behind the signature schemes that it takes it names
//! [`MARK`], schemes of the range that RFC 8446 section 4.2.3 leaves to private use. Whoever does not know a scheme passes
//! over it (as RFC 8701 has everybody practise), and nobody can sign with one of these. A client that is told so in a full
//! handshake remembers it with the tickets it takes from the server: in a resumed session there is no CertificateRequest,
//! and only the very listener that gave a ticket can open it. A client says it in a message of its own, once, and not
//! before it knows that the server understands it.
//!
//! rustls calls the client's resolver and its store of sessions while the driver of the handshake calls rustls; what they
//! see reaches it through a thread-local, as in [`crate::tls::verify::outcome`](super::super::verify).

use std::cell::Cell;

use rustls::SignatureScheme;

/// `svid`, and the version: in this order, with nothing in between. Five schemes, so that nobody's own experiment can be
/// taken for it.
pub(in crate::tls) const MARK: [SignatureScheme; 5] = [
    SignatureScheme::Unknown(0xfe73),
    SignatureScheme::Unknown(0xfe76),
    SignatureScheme::Unknown(0xfe69),
    SignatureScheme::Unknown(0xfe64),
    SignatureScheme::Unknown(0xfe81),
];

thread_local! {
    static MARKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a server that names these schemes understands renewal.
pub(in crate::tls) fn is_marked(schemes: &[SignatureScheme]) -> bool {
    schemes.windows(MARK.len()).any(|window| window == MARK)
}

/// Says what is known of the server of the connection that rustls is being called for.
pub(in crate::tls) fn lend(marked: bool) {
    MARKED.set(marked);
}

/// What was said last.
pub(in crate::tls) fn lent() -> bool {
    MARKED.get()
}

/// Takes what was said, and leaves no.
pub(in crate::tls) fn take() -> bool {
    MARKED.take()
}
