//! Foreign TLS peers: stock rustls, which knows nothing of SPIFFE. They trust whoever comes, so that what a test sees
//! is the sidecar's judgement and not theirs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection, StreamOwned,
};

use crate::plain;
use crate::support::trusting::{Trusting, provider};
use crate::world::Identity;

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type Server = StreamOwned<ServerConnection, TcpStream>;

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
