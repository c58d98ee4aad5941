//! Lets rustls ask [`super::verify_chain`].
//!
//! rustls hands a verifier neither the connection nor a place for the answer, and its error keeps only the alert.
//! So the verifier lays what it found, the [`VerifiedPeer`] or the whole [`Refusal`], in a slot of its thread, and
//! the driver of the handshake takes it there:
//! ```text
//! take_outcome();                              // empties the slot
//! connection.process_tls_records(bytes);       // may call the verifier, on this thread, before it returns
//! let outcome = take_outcome();                // what was found, if a certificate came in these bytes
//! ```
//! That is sound because `process_tls_records` is an ordinary function: the verifier runs inside the call, on the
//! thread of the caller, and nothing else can run on that thread between the three lines as long as no `await` stands
//! among them. A verifier for each connection, with a slot of its own, would do the same at the price of a
//! `ServerConfig` for each connection, and of a lock in it, because rustls asks that a verifier be `Sync`.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use super::{PeerSide, Refusal, TrustStore, VerifiedPeer, verify_parts};
use crate::clock::SharedClock;
use crate::spiffe::SpiffeId;

type Outcome = Result<VerifiedPeer, Refusal>;

thread_local! {
    static OUTCOME: RefCell<Option<Outcome>> = const { RefCell::new(None) };
}

/// Takes what the last verification on this thread came to, and leaves nothing; see the head of this module for the
/// order of calls.
pub fn take_outcome() -> Option<Outcome> {
    OUTCOME.with(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| slot.take()))
}

fn lay_outcome(outcome: Outcome) {
    // Nobody holds a borrow across a call, so that this cannot fail; were it to, the slot would stay empty, and a
    // driver that finds no verified peer refuses.
    OUTCOME.with(|slot| {
        if let Ok(mut slot) = slot.try_borrow_mut() {
            *slot = Some(outcome);
        }
    });
}

/// Says whether a verified server may answer.
type Admit = Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync>;

/// Verifies peers for rustls, as clients or as servers. Made when the material or the settings change, shared by all
/// handshakes until then.
///
/// There is no host name to check (the ID takes its place), the client's certificate is mandatory, and no names of
/// authorities are sent along, which would tell a stranger whom we trust.
pub struct PeerVerifier {
    store: Arc<TrustStore>,
    clock: SharedClock,
    algorithms: WebPkiSupportedAlgorithms,
    admit: Option<Admit>,
}

impl PeerVerifier {
    /// For connections that come in. Whether the client may do what it asks is decided after the handshake.
    #[must_use]
    pub fn for_clients(store: Arc<TrustStore>, clock: SharedClock, provider: &CryptoProvider) -> Self {
        Self {
            store,
            clock,
            algorithms: provider.signature_verification_algorithms,
            admit: None,
        }
    }

    /// For connections that go out. A server that `admit` does not name is told so, before it sees our certificate.
    #[must_use]
    pub fn for_servers(
        store: Arc<TrustStore>,
        clock: SharedClock,
        provider: &CryptoProvider,
        admit: Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync>,
    ) -> Self {
        Self {
            store,
            clock,
            algorithms: provider.signature_verification_algorithms,
            admit: Some(admit),
        }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: PeerSide,
    ) -> Result<(), Error> {
        let outcome =
            verify_parts(&self.store, end_entity, intermediates, side, self.clock.now()).and_then(|peer| {
                match &self.admit {
                    Some(admit) if !admit(&peer.id) => Err(Refusal::NotExpected {
                        id: SpiffeId::clone(&peer.id),
                    }),
                    _ => Ok(peer),
                }
            });
        let answer = outcome
            .as_ref()
            .map(|_| ())
            .map_err(|refusal| refusal.certificate_error().into());
        lay_outcome(outcome);
        answer
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field(
                "trust_domains",
                &self
                    .store
                    .trust_domains()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

/// TLS 1.2 is never negotiated; should a dependency turn it on in rustls, it ends here.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(
        PeerIncompatible::Tls12NotOfferedOrEnabled,
    ))
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, PeerSide::Client)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, PeerSide::Server)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
