//! Our end with an SVID and the stock rustls ends it meets, made of the library's public interface alone. Not part of
//! the tests' `support` module: the micro benchmarks and the fuzz targets include this file by its path.

// Each includer takes its part of this file.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite};
use svidecar::clock::{SharedClock, SystemClock};
use svidecar::config::settings::{Address, Listener, ListenerKind, Target};
use svidecar::identity::material::{Authority as BundleAuthority, Bundle, Material, Svid};
use svidecar::spiffe::svid::{check_authority, check_leaf};
use svidecar::spiffe::{SpiffeId, TrustDomain};
use svidecar::tls::configs::{Context, Features, provider};
use svidecar::tls::verify::{PeerVerifier, TrustStore};
use svidecar::workload_api::authority::{Authority, Issued, leaf_params};

/// Longer than any run.
pub(crate) const LIFE: Duration = Duration::from_secs(20 * 86_400);
pub(crate) const OUR_ID: &str = "spiffe://example.org/us";
pub(crate) const THEIR_ID: &str = "spiffe://example.org/them";

/// One trust domain, our identity in it, and what we shake hands with: the inbound listener `in`, and the outbound
/// listener `out` that takes every server of the trust domain.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) store: Arc<TrustStore>,
    material: Arc<Material>,
    clock: SharedClock,
    theirs: Issued,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now();
        let clock: SharedClock = Arc::new(SystemClock);
        let domain = TrustDomain::new("example.org").unwrap();
        let authority = Authority::new(domain.clone(), LIFE, now).unwrap();
        let validity = check_authority(authority.root()).unwrap();
        let bundle = Bundle {
            trust_domain: domain.clone(),
            authorities: vec![BundleAuthority {
                certificate: authority.root().clone(),
                not_before: validity.not_before,
                not_after: validity.not_after,
            }],
        };
        let bundles = BTreeMap::from([(domain, Arc::new(bundle))]);
        let store = Arc::new(TrustStore::new(&bundles).unwrap());
        let svid = Arc::new(svid(&issue(&authority, OUR_ID)));
        let material = Material {
            generation: 1,
            svid: svid.clone(),
            svids: vec![svid],
            bundles,
        };
        let theirs = issue(&authority, THEIR_ID);
        Self {
            authority,
            store,
            material: Arc::new(material),
            clock,
            theirs,
        }
    }

    /// What our listeners shake hands with; whether they resume sessions.
    pub(crate) fn context(&self, resumption: bool) -> Context {
        self.context_of(self.material.clone(), resumption)
    }

    /// As [`Self::context`], without resumption and with another authority in our own bundle.
    pub(crate) fn context_beside(&self, other: &Authority) -> Context {
        let domain = self.authority.trust_domain().clone();
        let authorities = [&self.authority, other].map(|authority| {
            let validity = check_authority(authority.root()).unwrap();
            BundleAuthority {
                certificate: authority.root().clone(),
                not_before: validity.not_before,
                not_after: validity.not_after,
            }
        });
        let bundle = Bundle {
            trust_domain: domain.clone(),
            authorities: authorities.into(),
        };
        let material = Material {
            generation: 2,
            svid: self.material.svid.clone(),
            svids: self.material.svids.clone(),
            bundles: BTreeMap::from([(domain, Arc::new(bundle))]),
        };
        self.context_of(Arc::new(material), false)
    }

    fn context_of(&self, material: Arc<Material>, resumption: bool) -> Context {
        let features = Features {
            resumption,
            renewal: true,
        };
        Context::new(material, &listeners(), &provider(), &self.clock, features).unwrap()
    }

    /// A trust store that has verified nobody yet.
    pub(crate) fn fresh_store(&self) -> TrustStore {
        TrustStore::new(&self.material.bundles).unwrap()
    }

    /// A stock client with [`THEIR_ID`] and these suites. It keeps no session.
    pub(crate) fn stock_client(&self, suites: &[SupportedCipherSuite]) -> ClientConfig {
        let provider = with_suites(suites);
        let verifier = PeerVerifier::for_servers(
            self.store.clone(),
            self.clock.clone(),
            &provider,
            Arc::new(|_: &SpiffeId| true),
        );
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(certified(&self.theirs));
        config.enable_secret_extraction = true;
        config.resumption = rustls::client::Resumption::disabled();
        config
    }

    /// A stock server with [`THEIR_ID`] and these suites. It sends no tickets.
    pub(crate) fn stock_server(&self, suites: &[SupportedCipherSuite]) -> ServerConfig {
        let provider = with_suites(suites);
        let verifier = PeerVerifier::for_clients(self.store.clone(), self.clock.clone(), &provider);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(certified(&self.theirs));
        config.enable_secret_extraction = true;
        config.send_tls13_tickets = 0;
        config
    }
}

/// A leaf for `id`, as `authority` issues it.
pub(crate) fn issue(authority: &Authority, id: &str) -> Issued {
    let params = leaf_params(&SpiffeId::new(id).unwrap(), LIFE, SystemTime::now()).unwrap();
    authority.sign(&params).unwrap()
}

fn with_suites(suites: &[SupportedCipherSuite]) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: suites.to_vec(),
        ..default_provider()
    })
}

fn certified(issued: &Issued) -> Arc<SingleCertAndKey> {
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(
        issued.chain.clone(),
        key,
    )))
}

fn listeners() -> [Arc<Listener>; 2] {
    let nowhere = || Target::Ip(([127, 0, 0, 1], 1).into());
    let listener = |name: &str, kind| {
        let listen = Address::Tcp(([127, 0, 0, 1], 0).into());
        Arc::new(Listener {
            name: name.into(),
            listen,
            alpn: Vec::new(),
            kind,
        })
    };
    let peer = vec!["spiffe://example.org/**".parse().unwrap()];
    [
        listener("in", ListenerKind::inbound(nowhere())),
        listener(
            "out",
            ListenerKind::Outbound {
                connect: nowhere(),
                peer,
                sni: None,
            },
        ),
    ]
}

fn svid(issued: &Issued) -> Svid {
    let leaf = check_leaf(issued.chain.first().unwrap()).unwrap();
    Svid {
        id: Arc::new(leaf.id),
        hint: None,
        chain: issued.chain.clone(),
        key: PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        serial: leaf.serial,
        key_type: leaf.key_type,
    }
}
