//! Foreign TLS peers: stock rustls, which knows nothing of SPIFFE. They trust whoever comes, so that what a test sees
//! is the sidecar's judgement and not theirs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
};

use crate::plain;
use crate::world::Identity;

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type Server = StreamOwned<ServerConnection, TcpStream>;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Trusts whoever comes and notes that somebody showed a certificate.
#[derive(Debug, Default)]
pub(crate) struct Trusting {
    pub(crate) saw_certificate: AtomicBool,
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.saw_certificate.store(true, Ordering::SeqCst);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Trusting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.saw_certificate.store(true, Ordering::SeqCst);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

/// A client that presents this, or nothing.
pub(crate) fn client_config(identity: Option<&Identity>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting::default()));
    match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key_der())
            .unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// A server that presents this and wants a certificate.
pub(crate) fn server_config(identity: &Identity) -> ServerConfig {
    server_config_noting(identity, Arc::new(Trusting::default()))
}

/// A server whose verifier the test keeps.
pub(crate) fn server_config_noting(
    identity: &Identity,
    trusting: Arc<dyn ClientCertVerifier>,
) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(trusting)
        .with_single_cert(identity.chain.clone(), identity.key_der())
        .unwrap()
}

/// Connects and ends the client's part of the handshake. In TLS 1.3 the server's verdict comes after that.
pub(crate) fn try_connect(addr: SocketAddr, config: ClientConfig) -> io::Result<Client> {
    handshake_client(plain::connect(addr), config, "orders.example.org")
}

/// The client's part of the handshake over this socket.
pub(crate) fn handshake_client(
    mut socket: TcpStream,
    config: ClientConfig,
    name: &'static str,
) -> io::Result<Client> {
    let name = ServerName::try_from(name).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    // The Finished message may still be in the buffer.
    while connection.wants_write() {
        connection.write_tls(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// Like [`try_connect`], presenting this.
pub(crate) fn connect(addr: SocketAddr, identity: &Identity) -> Client {
    try_connect(addr, client_config(Some(identity))).unwrap()
}

/// The server's whole handshake over this socket.
pub(crate) fn try_accept(mut socket: TcpStream, config: ServerConfig) -> io::Result<Server> {
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// The server's handshake, presenting this.
pub(crate) fn accept(socket: TcpStream, identity: &Identity) -> Server {
    try_accept(socket, server_config(identity)).unwrap()
}

/// The alert that an error of a TLS stream carries.
pub(crate) fn alert_of(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(description) => Some(*description),
        _ => None,
    }
}

/// Reads until the connection fails, which must be by this alert.
pub(crate) fn expect_alert(stream: &mut impl Read, expected: AlertDescription) {
    let error = plain::read_error(stream);
    assert_eq!(alert_of(&error), Some(expected), "{error}");
}

/// Connects, writes, and waits for the refusal, which must be this alert.
pub(crate) fn expect_refusal(addr: SocketAddr, config: ClientConfig, expected: AlertDescription) {
    match try_connect(addr, config) {
        Err(error) => assert_eq!(alert_of(&error), Some(expected), "{error}"),
        Ok(mut client) => {
            // It may be refused already.
            let _ = client.write_all(b"hello\n");
            expect_alert(&mut client, expected);
        }
    }
}
