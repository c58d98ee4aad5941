//! Our end with an SVID and its peers, for the targets that need a TLS connection.
#![allow(dead_code)]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ExtractedSecrets, KeyLog, ServerConfig, ServerConnection};
use svidecar::sys::stream::Stream;
use svidecar::tls::configs::Context;
use svidecar::tls::handshake::{self, Established, Failure};
use svidecar::tls::session::Session;
use svidecar::tls::traffic::{TrafficSecret, collector, take_secrets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

#[path = "../../../support/world.rs"]
mod world;

struct Ends {
    ours: Context,
    calling: Context,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

static WORLD: LazyLock<Ends> = LazyLock::new(|| {
    let world = world::World::new();
    let suites = default_provider().cipher_suites;
    let (mut client, mut server) = (world.stock_client(&suites), world.stock_server(&suites));
    client.key_log = Arc::new(Recorder);
    server.key_log = Arc::new(Recorder);
    Ends {
        client: Arc::new(client),
        server: Arc::new(server),
        ours: world.context(false),
        calling: world.context(true),
    }
});

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

thread_local! {
    static RECORDED: RefCell<Vec<(String, Vec<u8>)>> = RefCell::default();
}

/// Notes the secrets of the stock ends, so that a target can change their keys.
#[derive(Debug)]
struct Recorder;

impl KeyLog for Recorder {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        RECORDED.with_borrow_mut(|recorded| recorded.push((label.to_owned(), secret.to_vec())));
    }
}

/// Our end's session, and the secrets of a stock peer's.
pub fn established(we_serve: bool) -> (Session, ExtractedSecrets) {
    let (ours, secrets, _) = established_for_relay(we_serve);
    (ours.session, secrets)
}

/// Our end, the secrets of a stock peer's, and what the next key that the peer sends with is made from.
pub fn established_for_relay(we_serve: bool) -> (Established, ExtractedSecrets, TrafficSecret) {
    let (ours, secrets) = shake_hands(we_serve);
    let collector = collector();
    for (label, secret) in RECORDED.take() {
        collector.log(&label, &[], &secret);
    }
    let traffic = take_secrets().unwrap();
    let sending = if we_serve { traffic.client } else { traffic.server };
    (ours, secrets, sending)
}

fn shake_hands(we_serve: bool) -> (Established, ExtractedSecrets) {
    block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = Stream::Unix(near);
        if we_serve {
            let config = WORLD.ours.server("in").unwrap();
            let connector = tokio_rustls::TlsConnector::from(WORLD.client.clone());
            let name = ServerName::try_from("elsewhere.test").unwrap();
            let (ours, theirs) = tokio::join!(
                handshake::accept(&mut near, config, Vec::new()),
                connector.connect(name, far)
            );
            let theirs: ClientConnection = theirs.unwrap().into_inner().1;
            (ours.unwrap(), theirs.dangerous_extract_secrets().unwrap())
        } else {
            let config = WORLD.calling.client("out").unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(WORLD.server.clone());
            let (ours, theirs) = tokio::join!(
                handshake::connect(&mut near, config, || false),
                acceptor.accept(far)
            );
            let theirs: ServerConnection = theirs.unwrap().into_inner().1;
            (ours.unwrap(), theirs.dangerous_extract_secrets().unwrap())
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
        let serve = async move { handshake::accept(&mut near, config, Vec::new()).await };
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
