//! What tests of the TLS modules and of the relay share: our end with an SVID, and a stock rustls end with another.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, Connection, ServerConfig, SupportedCipherSuite};
use tokio::net::UnixStream;

use super::configs::{Context, Features, provider};
use super::handshake::{self, Established};
use super::record::{HEADER, TRAILER, record_length};
use super::session::{Received, Session, SessionError};
use super::verify::{PeerVerifier, TrustStore};
use crate::clock::{SharedClock, SystemClock};
use crate::config::settings::{Address, Listener, ListenerKind, Target};
use crate::identity::material::{Authority as BundleAuthority, Bundle, Material, Svid};
use crate::spiffe::svid::{check_authority, check_leaf};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::stream::Stream;
use crate::workload_api::authority::{Authority, Issued, leaf_params};

const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const OUR_ID: &str = "spiffe://example.org/us";
pub(crate) const THEIR_ID: &str = "spiffe://example.org/them";

pub(crate) const AES_128: SupportedCipherSuite = cipher_suite::TLS13_AES_128_GCM_SHA256;
pub(crate) const AES_256: SupportedCipherSuite = cipher_suite::TLS13_AES_256_GCM_SHA384;
pub(crate) const SUITES: [SupportedCipherSuite; 2] = [AES_128, AES_256];

pub(crate) struct World {
    authority: Authority,
    clock: SharedClock,
    pub(crate) context: Context,
    theirs: Issued,
    store: Arc<TrustStore>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let now = SystemTime::now();
    let domain = TrustDomain::new("example.org").unwrap();
    let authority = Authority::new(domain, 30 * DAY, now).unwrap();
    let bundles = bundles(&authority);
    let store = Arc::new(TrustStore::new(&bundles).unwrap());
    let svid = Arc::new(svid(&issue(&authority, OUR_ID, now)));
    let material = Material {
        generation: 1,
        svid: svid.clone(),
        svids: vec![svid],
        bundles,
    };
    let clock: SharedClock = Arc::new(SystemClock);
    let context = Context::new(
        Arc::new(material),
        &listeners(),
        &provider(),
        &clock,
        features(false),
    )
    .unwrap();
    let theirs = issue(&authority, THEIR_ID, now);
    World {
        authority,
        clock,
        context,
        theirs,
        store,
    }
});

/// The bundle of `example.org` with this authority alone.
pub(crate) fn bundles(authority: &Authority) -> BTreeMap<TrustDomain, Arc<Bundle>> {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let validity = check_authority(authority.root()).unwrap();
    let bundle = Bundle {
        trust_domain: trust_domain.clone(),
        authorities: vec![BundleAuthority {
            certificate: authority.root().clone(),
            not_before: validity.not_before,
            not_after: validity.not_after,
        }],
    };
    BTreeMap::from([(trust_domain, Arc::new(bundle))])
}

pub(crate) fn listeners() -> [Arc<Listener>; 2] {
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

fn issue(authority: &Authority, id: &str, now: SystemTime) -> Issued {
    authority
        .sign(&leaf_params(&SpiffeId::new(id).unwrap(), DAY, now).unwrap())
        .unwrap()
}

pub(crate) fn svid(issued: &Issued) -> Svid {
    let leaf = check_leaf(&issued.chain[0]).unwrap();
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

/// With renewal, and with resumption or without.
pub(crate) const fn features(resumption: bool) -> Features {
    Features {
        resumption,
        renewal: true,
    }
}

pub(crate) fn world() -> &'static World {
    &WORLD
}

fn certified(chain: &[CertificateDer<'static>], key: &[u8]) -> Arc<SingleCertAndKey> {
    let key = PrivateKeyDer::try_from(key.to_vec()).unwrap();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain.to_vec(), key)))
}

/// A newer SVID: its chain and its key.
pub(crate) type Newer = (Vec<CertificateDer<'static>>, Arc<dyn SigningKey>);

impl World {
    /// An SVID of this ID that our authority has just issued.
    pub(crate) fn newer(&self, id: &str) -> Newer {
        let issued = issue(&self.authority, id, SystemTime::now());
        let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
        let key = default_provider().key_provider.load_private_key(key).unwrap();
        (issued.chain, key)
    }

    /// Our context with these features.
    pub(crate) fn with_features(&self, features: Features) -> Context {
        let material = self.context.material.clone();
        Context::new(material, &listeners(), &provider(), &self.clock, features).unwrap()
    }

    /// Our context, with resumption, and with nothing to resume yet.
    pub(crate) fn resuming(&self) -> Context {
        self.with_features(features(true))
    }

    /// The peer's chain and PKCS#8 key, as files that other programs read.
    pub(crate) fn their_pem(&self) -> (String, String, String) {
        let root = pem("CERTIFICATE", self.authority.root());
        let chain = self
            .theirs
            .chain
            .iter()
            .map(|der| pem("CERTIFICATE", der))
            .collect();
        (chain, self.theirs.key.serialize_pem(), root)
    }

    /// A stock client with `THEIR_ID` and this suite alone.
    pub(crate) fn stock_client(&self, suite: SupportedCipherSuite) -> ClientConfig {
        self.stock_client_with(suite, &self.theirs)
    }

    /// A stock client whose certificate no authority of ours signed.
    pub(crate) fn stranger(&self) -> ClientConfig {
        let now = SystemTime::now();
        let domain = TrustDomain::new("example.org").unwrap();
        let other = Authority::new(domain, DAY, now).unwrap();
        self.stock_client_with(AES_128, &issue(&other, THEIR_ID, now))
    }

    fn stock_client_with(&self, suite: SupportedCipherSuite, issued: &Issued) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::CryptoProvider {
            cipher_suites: vec![suite],
            ..default_provider()
        });
        let verifier = PeerVerifier::for_servers(
            self.store.clone(),
            self.clock.clone(),
            &provider,
            Arc::new(|_| true),
        );
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(certified(&issued.chain, &issued.key.serialize_der()));
        config.enable_secret_extraction = true;
        config
    }

    /// A stock server with `THEIR_ID` and this suite alone; it sends no tickets.
    pub(crate) fn stock_server(&self, suite: SupportedCipherSuite) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::CryptoProvider {
            cipher_suites: vec![suite],
            ..default_provider()
        });
        let verifier = PeerVerifier::for_clients(self.store.clone(), self.clock.clone(), &provider);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(certified(&self.theirs.chain, &self.theirs.key.serialize_der()));
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        config
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for three in der.chunks(3) {
        let bits = three
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            base64.push(if digit <= three.len() {
                char::from(DIGITS[value as usize])
            } else {
                '='
            });
        }
    }
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("elsewhere.test").unwrap()
}

pub(crate) async fn serve_as_us(stream: &mut Stream) -> Result<Established, handshake::Failure> {
    accept_as(&world().context, stream).await
}

pub(crate) async fn call_as_us(stream: &mut Stream) -> Result<Established, handshake::Failure> {
    connect_as(&world().context, stream).await
}

pub(crate) async fn accept_as(
    context: &Context,
    stream: &mut Stream,
) -> Result<Established, handshake::Failure> {
    handshake::accept(stream, context.server("in").unwrap(), Vec::new()).await
}

pub(crate) async fn connect_as(
    context: &Context,
    stream: &mut Stream,
) -> Result<Established, handshake::Failure> {
    handshake::connect(stream, context.client("out").unwrap(), || false).await
}

/// What `session` has to say unasked, and these bytes.
pub(crate) fn said(session: &mut Session, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    session.before_data(&mut out).unwrap();
    let mut slot = vec![0; HEADER + payload.len() + TRAILER];
    slot[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    let length = session.seal_data(&mut slot, payload.len()).unwrap();
    out.extend(&slot[..length]);
    out
}

/// What arrives of these records.
pub(crate) fn heard(session: &mut Session, mut bytes: &mut [u8]) -> Result<Vec<Received>, SessionError> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = record_length(bytes)?.expect("a whole record");
        let (record, rest) = bytes.split_at_mut(length);
        all.push(session.receive(record)?);
        bytes = rest;
    }
    Ok(all)
}

/// Runs a future that needs sockets on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Our client or server, and a stock rustls at the other end, after the handshake. Nothing is on its way.
pub(crate) async fn with_stock(we_serve: bool, suite: SupportedCipherSuite) -> (Established, Connection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ours = Stream::Unix(ours);
    if we_serve {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(world().stock_client(suite)));
        let (ours, theirs) = tokio::join!(serve_as_us(&mut ours), connector.connect(name(), theirs));
        (ours.unwrap(), Connection::Client(theirs.unwrap().into_inner().1))
    } else {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(world().stock_server(suite)));
        let (ours, theirs) = tokio::join!(call_as_us(&mut ours), acceptor.accept(theirs));
        (ours.unwrap(), Connection::Server(theirs.unwrap().into_inner().1))
    }
}

/// What `connection` wants to send.
pub(crate) fn drain(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}
