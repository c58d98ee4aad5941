//! What a handshake runs with, built whenever our identity changes and never inside a handshake: one
//! [`Context`] is one consistent view of our SVID, the bundles, and the rustls configuration of every listener.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, InconsistentKeys, ServerConfig};

use super::present::{Listening, Presenting};
use super::resumption::Time;
use super::resumption::sessions::Sessions;
use super::resumption::tickets::Ticketer;
use super::traffic::collector;
use super::verify::{PeerVerifier, TrustStore};
use crate::clock::SharedClock;
use crate::config::settings::{Listener, ListenerKind, Target};
use crate::identity::material::{Material, Svid};
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

/// What the server's side of a handshake runs with.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) config: Arc<ServerConfig>,
    /// The one in `config`.
    pub(super) verifier: Arc<PeerVerifier>,
    /// Whether clients may renew their connections.
    pub(super) renewal: bool,
}

/// What the client's side of a handshake runs with.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) config: Arc<ClientConfig>,
    /// The one in `config`.
    pub(super) verifier: Arc<PeerVerifier>,
    /// What the server name indication says.
    pub(super) name: ServerName<'static>,
    /// Whether tickets are of use to us.
    pub(super) resumption: bool,
    /// Whether connections are renewed, where the server understands it.
    pub(super) renewal: bool,
}

/// What two ends may do beyond a handshake, as the settings have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Sessions are resumed, in both directions, for as long as a context is in use.
    pub resumption: bool,
    /// Connections between svidecars are renewed ([`super::renewal`]).
    pub renewal: bool,
}

/// One consistent view of who we are and how we shake hands.
pub struct Context {
    /// Where it was built from.
    pub material: Arc<Material>,
    /// The bundles, ready to verify with.
    pub store: Arc<TrustStore>,
    /// What our SVID signs with.
    pub key: Arc<dyn SigningKey>,
    servers: HashMap<Arc<str>, Server>,
    /// Of each outbound listener, one for each of its destinations where it has several.
    clients: HashMap<Arc<str>, Vec<Client>>,
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
///
/// In a FIPS build rustls leaves out what is not approved (X25519 alone), and the hybrid with P-256 is added: both of its
/// parts are approved, so that it also serves peers who want that of the first one's classical part.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    if cfg!(feature = "fips") {
        let at = provider.kx_groups.len().min(1);
        provider
            .kx_groups
            .insert(at, aws_lc_rs::kx_group::SECP256R1MLKEM768);
    }
    Arc::new(provider)
}

/// Our SVID, ready to sign. As rustls' own way to it, which takes a copy of the key that it does not wipe.
fn certified(svid: &Svid) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(svid.chain.clone(), any_supported_type(&svid.key)?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(error),
    }
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
        features: Features,
    ) -> Result<Self, ContextError> {
        let store = Arc::new(
            TrustStore::new(&material.bundles).map_err(|e| ContextError::TrustStore(e.to_string()))?,
        );
        Self::build(material, store, listeners, (provider, clock), features, |_| None)
    }

    /// The same identity for other listeners. Those that `is_kept` names keep what they had, their tickets among it, and
    /// every chain that was verified stays so.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn with_listeners(
        &self,
        listeners: &[Arc<Listener>],
        provider: &Arc<CryptoProvider>,
        clock: &SharedClock,
        features: Features,
        is_kept: impl Fn(&Arc<Listener>) -> bool,
    ) -> Result<Self, ContextError> {
        let (material, store) = (self.material.clone(), self.store.clone());
        let kept = |listener: &Arc<Listener>| is_kept(listener).then_some(self);
        Self::build(material, store, listeners, (provider, clock), features, kept)
    }

    /// Of two listeners that share a name and a direction the later one counts.
    fn build<'a>(
        material: Arc<Material>,
        store: Arc<TrustStore>,
        listeners: &[Arc<Listener>],
        (provider, clock): (&Arc<CryptoProvider>, &SharedClock),
        features: Features,
        kept: impl Fn(&Arc<Listener>) -> Option<&'a Self>,
    ) -> Result<Self, ContextError> {
        let certified = certified(&material.svid).map_err(ContextError::OwnSvid)?;
        let signing = certified.key.clone();
        let builder = Builder {
            material: &material,
            store: &store,
            certified: Arc::new(certified.into()),
            provider,
            clock,
            features,
        };
        let client_verifier = PeerVerifier::for_clients(store.clone(), clock.clone(), provider)
            .telling_of_renewal(features.renewal);
        let client_verifier = Arc::new(client_verifier);
        let mut servers = HashMap::new();
        let mut clients = HashMap::new();
        for listener in listeners {
            let before = kept(listener);
            match &listener.kind {
                ListenerKind::Inbound { .. } => {
                    let server = match before.and_then(|before| before.server(&listener.name)) {
                        Some(server) => server,
                        None => builder.server(listener, &client_verifier)?,
                    };
                    servers.insert(listener.name.clone(), server);
                }
                ListenerKind::Outbound { connect, peer, sni } => {
                    let client = match before.and_then(|before| before.client(&listener.name)) {
                        Some(client) => client,
                        None => builder.client(listener, Some(connect), peer, sni.as_deref())?,
                    };
                    clients.insert(listener.name.clone(), vec![client]);
                }
                ListenerKind::Transparent(destinations) => {
                    let kept = before.and_then(|before| before.clients.get(&listener.name).cloned());
                    let each = destinations.list.iter().map(|destination| {
                        let (peer, sni) = (&destination.peer, destination.sni.as_deref());
                        builder.client(listener, None, peer, sni)
                    });
                    let each = match kept {
                        Some(kept) => kept,
                        None => each.collect::<Result<_, _>>()?,
                    };
                    clients.insert(listener.name.clone(), each);
                }
            }
        }
        Ok(Self {
            material,
            store,
            key: signing,
            servers,
            clients,
        })
    }

    /// What an inbound listener shakes hands with.
    #[must_use]
    pub fn server(&self, listener: &str) -> Option<Server> {
        self.servers.get(listener).cloned()
    }

    /// What an outbound listener shakes hands with.
    #[must_use]
    pub fn client(&self, listener: &str) -> Option<Client> {
        self.client_to(listener, 0)
    }

    /// What it shakes hands with at the so-many-th of its destinations.
    #[must_use]
    pub fn client_to(&self, listener: &str, destination: usize) -> Option<Client> {
        self.clients.get(listener)?.get(destination).cloned()
    }
}

/// What the configurations of all listeners have in common.
struct Builder<'a> {
    material: &'a Material,
    store: &'a Arc<TrustStore>,
    certified: Arc<SingleCertAndKey>,
    provider: &'a Arc<CryptoProvider>,
    clock: &'a SharedClock,
    features: Features,
}

impl Builder<'_> {
    fn server(&self, listener: &Listener, verifier: &Arc<PeerVerifier>) -> Result<Server, ContextError> {
        let builder = ServerConfig::builder_with_details(self.provider.clone(), self.time())
            .with_protocol_versions(&[&TLS13])
            .map_err(ContextError::OwnSvid)?;
        let tells = matches!(
            listener.kind,
            ListenerKind::Inbound {
                proxy_protocol: Some(_),
                ..
            }
        );
        let resolver: Arc<dyn ResolvesServerCert> = if tells {
            Arc::new(Listening(self.certified.clone()))
        } else {
            self.certified.clone()
        };
        let mut config = builder
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&listener.alpn);
        config.enable_secret_extraction = true;
        config.key_log = collector();
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if self.features.resumption {
            let ticketer = Ticketer::new(self.clock.clone(), self.material.svid.not_after)
                .map_err(|_| ContextError::OwnSvid(rustls::Error::FailedToGetRandomBytes))?;
            config.ticketer = Arc::new(ticketer);
            // One: a connection takes one and leaves one.
            config.send_tls13_tickets = 1;
        }
        Ok(Server {
            config: Arc::new(config),
            verifier: verifier.clone(),
            renewal: self.features.renewal,
        })
    }

    fn client(
        &self,
        listener: &Listener,
        connect: Option<&Target>,
        peer: &[IdPattern],
        sni: Option<&str>,
    ) -> Result<Client, ContextError> {
        let name = server_name(connect, sni)
            .map_err(|name| ContextError::ServerName(listener.name.clone(), name))?;
        let verifier = Arc::new(PeerVerifier::for_servers(
            self.store.clone(),
            self.clock.clone(),
            self.provider,
            admit(peer.to_vec()),
        ));
        let builder = ClientConfig::builder_with_details(self.provider.clone(), self.time())
            .with_protocol_versions(&[&TLS13])
            .map_err(ContextError::OwnSvid)?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(Presenting(self.certified.clone())));
        config.alpn_protocols.clone_from(&listener.alpn);
        config.enable_secret_extraction = true;
        config.key_log = collector();
        config.enable_sni = sni.is_some();
        config.enable_early_data = false;
        config.resumption = if self.features.resumption {
            Resumption::store(Arc::new(Sessions::new(self.clock.clone())))
                .tls12_resumption(Tls12Resumption::Disabled)
        } else {
            Resumption::disabled()
        };
        Ok(Client {
            config: Arc::new(config),
            verifier,
            name,
            resumption: self.features.resumption,
            renewal: self.features.renewal,
        })
    }

    fn time(&self) -> Arc<Time> {
        Arc::new(Time(self.clock.clone()))
    }
}

/// Whether a server's ID is one of those that `patterns` name.
fn admit(patterns: Vec<IdPattern>) -> Arc<dyn Fn(&crate::spiffe::SpiffeId) -> bool + Send + Sync> {
    Arc::new(move |id| patterns.iter().any(|pattern| pattern.matches(id)))
}

/// What rustls takes as the server's name. Without `sni` nothing is sent and nothing compared with it, but rustls
/// wants one.
fn server_name(connect: Option<&Target>, sni: Option<&str>) -> Result<ServerName<'static>, String> {
    match (sni, connect) {
        (Some(name), _) => ServerName::try_from(name.to_owned()).map_err(|_| name.to_owned()),
        (None, Some(Target::Ip(addr))) => Ok(ServerName::from(addr.ip())),
        (None, _) => Ok(ServerName::from(std::net::IpAddr::from(
            std::net::Ipv4Addr::UNSPECIFIED,
        ))),
    }
}
