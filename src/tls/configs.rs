//! What a handshake runs with, built whenever our identity changes and never inside a handshake: one
//! [`Context`] is one consistent view of our SVID, the bundles, and the rustls configuration of every listener.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use super::present::Presenting;
use super::verify::{PeerVerifier, TrustStore};
use crate::clock::SharedClock;
use crate::config::settings::{Listener, ListenerKind, Target};
use crate::identity::material::Material;
use crate::spiffe::IdPattern;

/// Why no context could be built from a material. The previous one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The bundles hold something that is no trust anchor.
    #[error("the trust bundles can't be used: {0}")]
    TrustStore(String),
    /// rustls refuses the key or the certificate.
    #[error("our SVID can't be used: {0}")]
    OwnSvid(rustls::Error),
    /// The server name of a listener is none.
    #[error("listener `{0}`: `{1}` is no server name")]
    ServerName(Arc<str>, String),
}

/// One consistent view of who we are and how we shake hands.
pub struct Context {
    /// Where it was built from.
    pub material: Arc<Material>,
    /// The bundles, ready to verify with.
    pub store: Arc<TrustStore>,
    servers: HashMap<Arc<str>, Arc<ServerConfig>>,
    clients: HashMap<Arc<str>, (Arc<ClientConfig>, ServerName<'static>)>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("generation", &self.material.generation)
            .finish_non_exhaustive()
    }
}

/// rustls' provider on aws-lc-rs, with the suites that [`super::record`] knows. X25519MLKEM768 is offered first
/// (crate feature `prefer-post-quantum`).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(provider)
}

impl Context {
    /// Builds the configuration of each of `listeners` from `material`.
    ///
    /// # Errors
    /// A key or bundle that can't be used.
    pub fn new(
        material: Arc<Material>,
        listeners: &[Arc<Listener>],
        provider: &Arc<CryptoProvider>,
        clock: &SharedClock,
    ) -> Result<Self, ContextError> {
        let store = Arc::new(
            TrustStore::new(&material.bundles).map_err(|e| ContextError::TrustStore(e.to_string()))?,
        );
        let key: PrivateKeyDer<'static> = material.svid.key.clone_key();
        let certified = CertifiedKey::from_der(material.svid.chain.clone(), key, provider)
            .map_err(ContextError::OwnSvid)?;
        let certified = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let client_verifier = Arc::new(PeerVerifier::for_clients(store.clone(), clock.clone(), provider));

        let mut servers = HashMap::new();
        let mut clients = HashMap::new();
        for listener in listeners {
            match &listener.kind {
                ListenerKind::Inbound { .. } => {
                    let mut config = ServerConfig::builder_with_provider(provider.clone())
                        .with_protocol_versions(&[&rustls::version::TLS13])
                        .map_err(ContextError::OwnSvid)?
                        .with_client_cert_verifier(client_verifier.clone())
                        .with_cert_resolver(certified.clone());
                    config.alpn_protocols.clone_from(&listener.alpn);
                    config.enable_secret_extraction = true;
                    // No resumption: rustls would not verify the client again.
                    config.session_storage = Arc::new(NoServerSessionStorage {});
                    config.send_tls13_tickets = 0;
                    config.max_early_data_size = 0;
                    servers.insert(listener.name.clone(), Arc::new(config));
                }
                ListenerKind::Outbound { connect, peer, sni } => {
                    let name = server_name(connect, sni.as_deref())
                        .map_err(|name| ContextError::ServerName(listener.name.clone(), name))?;
                    let verifier = PeerVerifier::for_servers(
                        store.clone(),
                        clock.clone(),
                        provider,
                        admit(peer.clone()),
                    );
                    let mut config = ClientConfig::builder_with_provider(provider.clone())
                        .with_protocol_versions(&[&rustls::version::TLS13])
                        .map_err(ContextError::OwnSvid)?
                        .dangerous()
                        .with_custom_certificate_verifier(Arc::new(verifier))
                        .with_client_cert_resolver(Arc::new(Presenting(certified.clone())));
                    config.alpn_protocols.clone_from(&listener.alpn);
                    config.enable_secret_extraction = true;
                    config.resumption = Resumption::disabled();
                    config.enable_sni = sni.is_some();
                    config.enable_early_data = false;
                    clients.insert(listener.name.clone(), (Arc::new(config), name));
                }
            }
        }
        Ok(Self {
            material,
            store,
            servers,
            clients,
        })
    }

    /// The configuration of an inbound listener.
    #[must_use]
    pub fn server(&self, listener: &str) -> Option<Arc<ServerConfig>> {
        self.servers.get(listener).cloned()
    }

    /// The configuration of an outbound listener, and the server name it sends.
    #[must_use]
    pub fn client(&self, listener: &str) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        self.clients.get(listener).cloned()
    }
}

/// Whether a server's ID is one of those that `patterns` name.
fn admit(patterns: Vec<IdPattern>) -> Arc<dyn Fn(&crate::spiffe::SpiffeId) -> bool + Send + Sync> {
    Arc::new(move |id| patterns.iter().any(|pattern| pattern.matches(id)))
}

/// What rustls takes as the server's name. Without `sni` nothing is sent and nothing compared with it, but rustls
/// wants one.
fn server_name(connect: &Target, sni: Option<&str>) -> Result<ServerName<'static>, String> {
    match (sni, connect) {
        (Some(name), _) => ServerName::try_from(name.to_owned()).map_err(|_| name.to_owned()),
        (None, Target::Ip(addr)) => Ok(ServerName::from(addr.ip())),
        (None, _) => Ok(ServerName::from(std::net::IpAddr::from(
            std::net::Ipv4Addr::UNSPECIFIED,
        ))),
    }
}
