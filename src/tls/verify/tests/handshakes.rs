//! Whole handshakes in memory: a stock rustls endpoint presents the chains of [`super::good`] and [`super::bad`] to
//! ours, in both directions.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection,
};

use super::super::*;
use super::bad::bad;
use super::good::good;
use super::world::*;
use crate::clock::ManualClock;
use crate::record::Reason;
use crate::spiffe::SpiffeId;
use crate::spiffe::svid::forge::*;
use crate::spiffe::svid::tests::ID;

type Chain = [CertificateDer<'static>];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certified(chain: &Chain, key: &Key) -> Arc<SingleCertAndKey> {
    let key = provider().key_provider.load_private_key(key.pkcs8()).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain.to_vec(), key)))
}

fn server(verifier: PeerVerifier, own: Arc<dyn ResolvesServerCert>) -> Connection {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(own);
    ServerConnection::new(Arc::new(config)).unwrap().into()
}

fn client(verifier: PeerVerifier, own: Option<Arc<dyn ResolvesClientCert>>) -> Connection {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match own {
        Some(own) => config.with_client_cert_resolver(own),
        None => config.with_no_client_auth(),
    };
    // No certificate of these tests bears it.
    let name = ServerName::try_from("elsewhere.test").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap().into()
}

fn for_clients(store: &Arc<TrustStore>) -> PeerVerifier {
    PeerVerifier::for_clients(store.clone(), Arc::new(ManualClock::new(now())), &provider())
}

fn for_servers(store: &Arc<TrustStore>, admit: fn(&SpiffeId) -> bool) -> PeerVerifier {
    PeerVerifier::for_servers(
        store.clone(),
        Arc::new(ManualClock::new(now())),
        &provider(),
        Arc::new(admit),
    )
}

/// What became of a handshake at either end.
#[derive(Debug)]
struct Ended {
    ours: Result<(), Error>,
    theirs: Result<(), Error>,
    outcome: Option<Outcome>,
    /// Whether the peer was shown our certificate.
    shown: bool,
}

/// Hands bytes over until neither end has any. Both verifiers run on this thread, so that the outcome is taken as a
/// driver must: emptied before, taken after each call.
fn drive(mut ours: Connection, mut theirs: Connection) -> Ended {
    let mut ended = Ended {
        ours: Ok(()),
        theirs: Ok(()),
        outcome: None,
        shown: false,
    };
    for _ in 0..10 {
        let to_ours = drain(&mut theirs);
        let _ = take_outcome();
        let result = feed(&mut ours, &to_ours);
        ended.outcome = take_outcome().or(ended.outcome);
        ended.ours = ended.ours.and(result);
        let to_theirs = drain(&mut ours);
        if to_ours.is_empty() && to_theirs.is_empty() {
            break;
        }
        ended.theirs = ended.theirs.and(feed(&mut theirs, &to_theirs));
    }
    ended.shown = theirs.peer_certificates().is_some();
    ended
}

fn drain(from: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn feed(to: &mut Connection, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// Ours as the server: the peer is a client that presents `chain`.
fn from_client(store: &Arc<TrustStore>, chain: &Chain, key: &Key) -> Ended {
    let world = World::shared();
    let ours = server(for_clients(store), certified(&world.deep_chain(0), &world.leaf));
    drive(
        ours,
        client(for_servers(&world.store, |_| true), Some(certified(chain, key))),
    )
}

/// Ours as the client: the peer is a server that presents `chain`.
fn from_server(store: &Arc<TrustStore>, chain: &Chain, key: &Key, admit: fn(&SpiffeId) -> bool) -> Ended {
    let world = World::shared();
    let ours = client(
        for_servers(store, admit),
        Some(certified(&world.deep_chain(0), &world.leaf)),
    );
    drive(ours, server(for_clients(&world.store), certified(chain, key)))
}

#[test]
fn good_chains_complete_the_handshake() {
    for case in good() {
        let client = from_client(&case.store, &case.chain, &case.key);
        let server = from_server(&case.store, &case.chain, &case.key, |_| true);
        for (side, ended) in [("client", client), ("server", server)] {
            let name = format!("{} as {side}", case.name);
            assert_eq!((&ended.ours, &ended.theirs), (&Ok(()), &Ok(())), "{name}");
            let peer = ended
                .outcome
                .unwrap_or_else(|| panic!("{name}: no outcome"))
                .unwrap();
            assert_eq!(*peer.chain, case.chain, "{name}");
            assert!(ended.shown, "{name}");
        }
    }
}

#[test]
fn bad_chains_end_the_handshake_with_the_right_alert() {
    let world = World::shared();
    for case in bad() {
        let client = from_client(&case.store, &case.chain, &world.leaf);
        let server = from_server(&case.store, &case.chain, &world.leaf, |_| true);
        for (side, ended) in [("client", &client), ("server", &server)] {
            let name = format!("{} as {side}", case.name);
            let Some(Err(refusal)) = &ended.outcome else {
                panic!("{name}: {ended:?}")
            };
            assert_eq!(refusal.reason(), case.reason, "{name}: {refusal}");
            assert_eq!(ended.ours, Err(refusal.certificate_error().into()), "{name}");
            assert_eq!(
                ended.theirs,
                Err(Error::AlertReceived(case.alert)),
                "{name}: {refusal}"
            );
        }
        assert!(
            !server.shown,
            "{}: a bad server was shown our certificate",
            case.name
        );
    }
}

#[test]
fn a_server_that_is_not_expected_is_told_before_it_sees_us() {
    let world = World::shared();
    let chain = world.deep_chain(1);
    let ended = from_server(&world.store, &chain, &world.leaf, |id| {
        id.path() == "/someone/else"
    });
    let Some(Err(refusal)) = ended.outcome else {
        panic!("{ended:?}")
    };
    assert_eq!(refusal.reason(), Reason::PeerNotExpected);
    assert_eq!(refusal.verified_id().unwrap().to_string(), ID);
    assert_eq!(
        ended.theirs,
        Err(Error::AlertReceived(AlertDescription::AccessDenied))
    );
    assert!(!ended.shown);
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let world = World::shared();
    let ours = server(
        for_clients(&world.store),
        certified(&world.deep_chain(0), &world.leaf),
    );
    let ended = drive(ours, client(for_servers(&world.store, |_| true), None));
    assert_eq!(ended.ours, Err(Error::NoCertificatesPresented));
    assert_eq!(
        ended.theirs,
        Err(Error::AlertReceived(AlertDescription::CertificateRequired))
    );
    assert!(ended.outcome.is_none(), "no certificate, no outcome");
}

/// A chain proves nothing without its key.
#[test]
fn a_stolen_chain_without_its_key_is_refused() {
    let world = World::shared();
    let chain = world.deep_chain(0);
    for ended in [
        from_client(&world.store, &chain, &world.stranger),
        from_server(&world.store, &chain, &world.stranger, |_| true),
    ] {
        assert!(ended.ours.is_err(), "{ended:?}");
        assert_eq!(
            ended.theirs,
            Err(Error::AlertReceived(AlertDescription::DecryptError))
        );
    }
}

#[test]
fn the_clock_is_the_one_given() {
    let world = World::shared();
    let clock = Arc::new(ManualClock::new(now()));
    let own = || certified(&world.deep_chain(0), &world.leaf);
    let shake = || {
        let verifier = PeerVerifier::for_clients(world.store.clone(), clock.clone(), &provider());
        let theirs = client(for_servers(&world.store, |_| true), Some(own()));
        drive(server(verifier, own()), theirs)
            .outcome
            .unwrap()
            .map_err(|refusal| refusal.reason())
    };
    assert!(shake().is_ok());
    clock.set(now() + 2 * HOUR);
    assert_eq!(shake().unwrap_err(), Reason::CertificateExpired);
    clock.set(now() - 2 * HOUR);
    assert_eq!(shake().unwrap_err(), Reason::CertificateNotYetValid);
}

#[test]
fn an_outcome_is_taken_once_and_stays_on_its_thread() {
    use rustls::pki_types::UnixTime;
    use rustls::server::danger::ClientCertVerifier;
    let world = World::shared();
    let chain = world.deep_chain(0);
    let verifier = for_clients(&world.store);
    // rustls' own idea of the time is not asked.
    verifier
        .verify_client_cert(&chain[0], &[], UnixTime::since_unix_epoch(Duration::ZERO))
        .unwrap();
    assert!(std::thread::spawn(|| take_outcome().is_none()).join().unwrap());
    assert_eq!(take_outcome().unwrap().unwrap().id.to_string(), ID);
    assert!(take_outcome().is_none());
}

#[test]
fn strangers_are_not_told_whom_we_trust() {
    use rustls::server::danger::ClientCertVerifier;
    let verifier = for_clients(&World::shared().store);
    assert!(verifier.root_hint_subjects().is_empty());
    assert!(verifier.offer_client_auth() && verifier.client_auth_mandatory());
}
