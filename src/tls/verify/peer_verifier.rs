//! Lets rustls ask [`super::verify_chain`]; the answer in full takes the way that [`super::outcome`] tells of.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use super::outcome::{Outcome, lend_outcome};
use super::{PeerSide, Refusal, TrustStore, verify_chain, verify_parts};
use crate::clock::SharedClock;
use crate::spiffe::SpiffeId;
use crate::tls::renewal::capability::MARK;

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
    /// Whether clients are told that we understand renewal.
    renewal: bool,
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
            renewal: false,
        }
    }

    /// Tells clients that we understand renewal: see [`crate::tls::renewal`].
    #[must_use]
    pub fn telling_of_renewal(mut self, tells: bool) -> Self {
        self.renewal = tells;
        self
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
            renewal: false,
        }
    }

    /// Verifies the chain that a resumed session was made with, as the handshake would have: rustls does not ask then.
    ///
    /// # Errors
    /// Why the peer is refused.
    pub fn verify_kept(&self, chain: &[CertificateDer<'_>], side: PeerSide) -> Outcome {
        self.admitted(verify_chain(&self.store, chain, side, self.clock.now()))
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: PeerSide,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let outcome = self.admitted(verify_parts(&self.store, end_entity, intermediates, side, now));
        let answer = outcome
            .as_ref()
            .map(|_| ())
            .map_err(|refusal| refusal.certificate_error().into());
        lend_outcome(Some(outcome));
        answer
    }

    /// Refuses a verified peer that may not answer here.
    fn admitted(&self, outcome: Outcome) -> Outcome {
        match (&self.admit, outcome?) {
            (Some(admit), peer) if !admit(&peer.id) => Err(Refusal::NotExpected {
                id: SpiffeId::clone(&peer.id),
            }),
            (_, peer) => Ok(peer),
        }
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
        let mut schemes = self.algorithms.supported_schemes();
        if self.renewal {
            schemes.extend(MARK);
        }
        schemes
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
