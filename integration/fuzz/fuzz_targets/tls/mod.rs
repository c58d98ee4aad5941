//! Our end with an SVID and its peers, for the targets that need a TLS connection.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ExtractedSecrets, ServerConfig, ServerConnection};
use svidecar::clock::{SharedClock, SystemClock};
use svidecar::config::settings::{Address, Listener, ListenerKind, Target};
use svidecar::identity::material::{Authority as BundleAuthority, Bundle, Material, Svid};
use svidecar::spiffe::svid::{check_authority, check_leaf};
use svidecar::spiffe::{SpiffeId, TrustDomain};
use svidecar::sys::stream::Stream;
use svidecar::tls::configs::{Context, provider};
use svidecar::tls::handshake::{self, Established, Failure};
use svidecar::tls::session::Session;
use svidecar::tls::verify::{PeerVerifier, TrustStore};
use svidecar::workload_api::authority::{Authority, Issued, leaf_params};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const DAY: Duration = Duration::from_secs(86_400);

struct World {
    ours: Context,
    calling: Context,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let now = SystemTime::now();
    let clock: SharedClock = Arc::new(SystemClock);
    let domain = TrustDomain::new("example.org").unwrap();
    let authority = Authority::new(domain.clone(), 30 * DAY, now).unwrap();
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
    let issue = |id: &str| {
        authority
            .sign(&leaf_params(&SpiffeId::new(id).unwrap(), 20 * DAY, now).unwrap())
            .unwrap()
    };
    let svid = Arc::new(svid(&issue("spiffe://example.org/us")));
    let material = Material {
        generation: 1,
        svid: svid.clone(),
        svids: vec![svid],
        bundles,
    };
    let material = Arc::new(material);
    // Our server gives no tickets, so that the first record each way is the fuzzer's; our client takes what comes.
    let [ours, calling] = [false, true].map(|resumption| {
        Context::new(material.clone(), &listeners(), &provider(), &clock, resumption).unwrap()
    });

    let theirs = issue("spiffe://example.org/them");
    let key = PrivateKeyDer::try_from(theirs.key.serialize_der()).unwrap();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    let theirs = Arc::new(SingleCertAndKey::from(CertifiedKey::new(theirs.chain, key)));
    let provider = Arc::new(default_provider());
    let for_servers = PeerVerifier::for_servers(
        store.clone(),
        clock.clone(),
        &provider,
        Arc::new(|_: &SpiffeId| true),
    );
    let for_clients = PeerVerifier::for_clients(store, clock, &provider);
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(for_servers))
        .with_client_cert_resolver(theirs.clone());
    client.enable_secret_extraction = true;
    client.resumption = rustls::client::Resumption::disabled();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(for_clients))
        .with_cert_resolver(theirs);
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    World {
        ours,
        calling,
        client: Arc::new(client),
        server: Arc::new(server),
    }
});

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
        listener("in", ListenerKind::Inbound { upstream: nowhere() }),
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

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Our end's session, and the secrets of a stock peer's.
pub fn established(we_serve: bool) -> (Session, ExtractedSecrets) {
    block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = Stream::Unix(near);
        if we_serve {
            let config = WORLD.ours.server("in").unwrap();
            let connector = tokio_rustls::TlsConnector::from(WORLD.client.clone());
            let name = ServerName::try_from("elsewhere.test").unwrap();
            let (ours, theirs) =
                tokio::join!(handshake::accept(&mut near, config), connector.connect(name, far));
            let theirs: ClientConnection = theirs.unwrap().into_inner().1;
            (ours.unwrap().session, theirs.dangerous_extract_secrets().unwrap())
        } else {
            let config = WORLD.calling.client("out").unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(WORLD.server.clone());
            let (ours, theirs) =
                tokio::join!(handshake::connect(&mut near, config), acceptor.accept(far));
            let theirs: ServerConnection = theirs.unwrap().into_inner().1;
            (ours.unwrap().session, theirs.dangerous_extract_secrets().unwrap())
        }
    })
}

/// What our server makes of a client that sends these bytes in these pieces, and ends.
pub fn accept<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Established, Failure> {
    block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = Stream::Unix(near);
        let (mut hear, mut say) = far.into_split();
        let talk = async {
            for piece in pieces {
                if say.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(say);
            let mut heard = Vec::new();
            let _ = hear.read_to_end(&mut heard).await;
        };
        let config = WORLD.ours.server("in").unwrap();
        let serve = async move { handshake::accept(&mut near, config).await };
        tokio::join!(serve, talk).0
    })
}

/// What a stock client begins with.
pub fn hello() -> Vec<u8> {
    let name = ServerName::try_from("elsewhere.test").unwrap();
    let mut client = ClientConnection::new(WORLD.client.clone(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
