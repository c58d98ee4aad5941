//! Resumption between our own two ends under a clock that the test moves, and with stock rustls.

use std::sync::Arc;

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::config::settings::Listener;
use crate::identity::material::Material;
use crate::record::Reason;
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::sys::stream::Stream;
use crate::tls::configs::{Client, Context, Server, provider};
use crate::tls::handshake::{self, Established, Failure};
use crate::tls::session::Received;
use crate::tls::testing::*;
use crate::tls::verify::{PeerSide, PeerVerifier, Refusal, lend_outcome, take_outcome, verify_chain};
use crate::workload_api::authority::{Authority, leaf_params};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const CLIENT: &str = "spiffe://example.org/client";
const SERVER: &str = "spiffe://example.org/server";

/// One trust domain and one clock.
struct Scene {
    clock: Arc<ManualClock>,
    authority: Authority,
    start: SystemTime,
}

impl Scene {
    fn new() -> Self {
        let start = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let domain = TrustDomain::new("example.org").unwrap();
        Self {
            clock: Arc::new(ManualClock::new(start)),
            authority: Authority::new(domain, 100 * HOUR, start - 50 * HOUR).unwrap(),
            start,
        }
    }

    /// Moves the clock to so long after the start.
    fn at(&self, after: Duration) {
        self.clock.set(self.start + after);
    }

    /// A context with a new SVID that is valid from `age` ago for `ttl` from now.
    fn context_of(
        &self,
        id: &str,
        age: Duration,
        ttl: Duration,
        listeners: &[Arc<Listener>],
        on: bool,
    ) -> Context {
        let since = self.start - age;
        let params = leaf_params(&SpiffeId::new(id).unwrap(), age + ttl, since).unwrap();
        let svid = Arc::new(svid(&self.authority.sign(&params).unwrap()));
        let material = Material {
            generation: 1,
            svid: svid.clone(),
            svids: vec![svid],
            bundles: bundles(&self.authority),
        };
        self.context_again(material, listeners, on)
    }

    fn context_again(&self, material: Material, listeners: &[Arc<Listener>], on: bool) -> Context {
        let clock: SharedClock = self.clock.clone();
        Context::new(Arc::new(material), listeners, &provider(), &clock, features(on)).unwrap()
    }

    fn context(&self, id: &str, ttl: Duration) -> Context {
        self.context_of(id, Duration::ZERO, ttl, &listeners(), true)
    }

    /// A client's and a server's, for ten hours.
    fn contexts(&self) -> (Context, Context) {
        (self.context(CLIENT, 10 * HOUR), self.context(SERVER, 10 * HOUR))
    }
}

type Ended = Result<Established, Failure>;

/// Both ends of a handshake, and their sockets.
async fn shake(client: Client, server: Server) -> ((Ended, Stream), (Ended, Stream)) {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
    let (c, s) = tokio::join!(
        handshake::connect(&mut near, client, || false),
        handshake::accept(&mut far, server, Vec::new())
    );
    ((c, near), (s, far))
}

/// A connection with data both ways, so that the client has the server's ticket; whether it was resumed.
async fn once(client: &Context, server: &Context) -> bool {
    let (client, server) = (client.client("out").unwrap(), server.server("in").unwrap());
    let ((c, _), (s, _)) = shake(client, server).await;
    let (mut c, mut s) = (c.unwrap(), s.unwrap());
    assert_eq!(c.resumed, s.resumed);
    assert_eq!(
        (c.peer.id.to_string(), s.peer.id.to_string()),
        (SERVER.to_owned(), CLIENT.to_owned())
    );
    talk(&mut c, &mut s);
    c.resumed
}

fn talk(c: &mut Established, s: &mut Established) {
    one_way(c, s);
    one_way(s, c);
}

fn one_way(from: &mut Established, to: &mut Established) {
    let received = heard(&mut to.session, &mut said(&mut from.session, b"x")).unwrap();
    assert!(matches!(received.last(), Some(Received::Data(_))), "{received:?}");
}

/// What the other end reads in place of data.
async fn alert_heard(mut other: Established, mut stream: Stream) -> AlertDescription {
    let mut bytes = other.unread;
    stream.read_to_end(&mut bytes).await.unwrap();
    let received = heard(&mut other.session, &mut bytes).unwrap();
    match received.last() {
        Some(Received::Alert(alert)) => *alert,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sessions_are_resumed_from_one_to_the_next() {
    let scene = Scene::new();
    let (client, server) = scene.contexts();
    let mut resumed = Vec::new();
    for _ in 0..6 {
        resumed.push(once(&client, &server).await);
    }
    assert_eq!(resumed, [false, true, true, true, true, true]);
}

#[tokio::test]
async fn a_resumed_connection_shares_what_the_first_one_verified() {
    let scene = Scene::new();
    let (client, server) = scene.contexts();
    let mut peers = Vec::new();
    for _ in 0..2 {
        let ends = shake(client.client("out").unwrap(), server.server("in").unwrap()).await;
        let ((Ok(mut c), _), (Ok(mut s), _)) = ends else {
            panic!("{ends:?}")
        };
        talk(&mut c, &mut s);
        peers.push((c.peer, s.peer));
    }
    assert!(Arc::ptr_eq(&peers[0].0, &peers[1].0));
    assert!(Arc::ptr_eq(&peers[0].1, &peers[1].1));
}

#[tokio::test]
async fn a_ticket_is_used_once() {
    let scene = Scene::new();
    let (client, server) = scene.contexts();
    assert!(!once(&client, &server).await);
    let (c, s) = (client.client("out").unwrap(), server.server("in").unwrap());
    // The first takes the ticket and gives none back, as nothing is said.
    let ((first, _), _) = shake(c.clone(), s.clone()).await;
    let ((second, _), _) = shake(c, s).await;
    assert_eq!((first.unwrap().resumed, second.unwrap().resumed), (true, false));
}

#[tokio::test]
async fn a_ticket_is_of_no_use_with_other_bundles_or_another_svid() {
    let scene = Scene::new();
    let (client, server) = scene.contexts();
    assert!(!once(&client, &server).await);
    // Even of the same material: keys and tickets belong to the context.
    let again = |context: &Context| {
        let old = &context.material;
        let material = Material {
            generation: 2,
            svid: old.svid.clone(),
            svids: old.svids.clone(),
            bundles: old.bundles.clone(),
        };
        scene.context_again(material, &listeners(), true)
    };
    let renewed = again(&server);
    assert!(!once(&client, &renewed).await, "the server's changed");
    assert!(once(&client, &renewed).await);
    assert!(!once(&again(&client), &renewed).await, "the client's changed");

    // A client that rotated is known by its new SVID.
    let rotated = scene.context(CLIENT, 10 * HOUR);
    let (_, (s, _)) = shake(rotated.client("out").unwrap(), renewed.server("in").unwrap()).await;
    let s = s.unwrap();
    assert!(!s.resumed);
    assert_eq!(*s.peer.serial, *rotated.material.svid.serial);
    assert_ne!(*s.peer.serial, *client.material.svid.serial);
}

#[tokio::test]
async fn a_ticket_of_one_listener_is_unknown_to_another() {
    let scene = Scene::new();
    let [inbound, outbound] = listeners();
    let other = Arc::new(Listener {
        name: "other".into(),
        ..Listener::clone(&inbound)
    });
    let all = [inbound, outbound, other];
    let client = scene.context(CLIENT, 10 * HOUR);
    let server = scene.context_of(SERVER, Duration::ZERO, 10 * HOUR, &all, true);
    assert!(!once(&client, &server).await);
    let to_other = shake(client.client("out").unwrap(), server.server("other").unwrap()).await;
    let ((Ok(mut c), _), (Ok(mut s), _)) = to_other else {
        panic!("{to_other:?}")
    };
    assert!(!c.resumed && !s.resumed);
    talk(&mut c, &mut s);
    // The client's one store now holds a ticket of the other listener.
    assert!(!once(&client, &server).await);
    assert!(once(&client, &server).await);
}

#[tokio::test]
async fn switched_off_no_ticket_is_given_or_taken() {
    let scene = Scene::new();
    let (client, server) = scene.contexts();
    let off = |id| scene.context_of(id, Duration::ZERO, 10 * HOUR, &listeners(), false);
    let (client_off, server_off) = (off(CLIENT), off(SERVER));
    for (client, server) in [
        (&client, &server_off),
        (&client_off, &server),
        (&client_off, &server_off),
    ] {
        for _ in 0..3 {
            assert!(!once(client, server).await);
        }
    }
    // Not even on the wire.
    let ends = shake(client.client("out").unwrap(), server_off.server("in").unwrap()).await;
    let mut s = ends.1.0.unwrap();
    let mut first = Vec::new();
    s.session.before_data(&mut first).unwrap();
    assert!(first.is_empty());
}

#[tokio::test]
async fn a_ticket_lives_for_an_hour() {
    let scene = Scene::new();
    let (client, server) = scene.contexts();
    assert!(!once(&client, &server).await);
    scene.at(HOUR - Duration::from_secs(1));
    assert!(once(&client, &server).await);
    // The next one counts from then.
    scene.at(2 * HOUR - Duration::from_secs(2));
    assert!(once(&client, &server).await);
    scene.at(3 * HOUR);
    assert!(!once(&client, &server).await);
}

#[tokio::test]
async fn a_lineage_ends_with_the_clients_chain() {
    let scene = Scene::new();
    let (client, server) = (
        scene.context(CLIENT, 50 * MINUTE),
        scene.context(SERVER, 10 * HOUR),
    );
    for (after, resumed) in [(0, false), (20, true), (40, true), (49, true)] {
        scene.at(after * MINUTE);
        assert_eq!(once(&client, &server).await, resumed, "after {after} minutes");
    }
    scene.at(51 * MINUTE);
    let ends = shake(client.client("out").unwrap(), server.server("in").unwrap()).await;
    let failure = ends.1.0.unwrap_err();
    // In a full handshake, as its words show.
    assert_eq!(failure.reason, Reason::CertificateExpired);
    assert!(failure.detail.starts_with("the peer claims"), "{failure:?}");
}

#[tokio::test]
async fn a_server_whose_chain_is_over_is_not_resumed() {
    let scene = Scene::new();
    let (client, server) = (
        scene.context(CLIENT, 10 * HOUR),
        scene.context(SERVER, 50 * MINUTE),
    );
    assert!(!once(&client, &server).await);
    scene.at(49 * MINUTE);
    assert!(once(&client, &server).await);
    scene.at(51 * MINUTE);
    let ends = shake(client.client("out").unwrap(), server.server("in").unwrap()).await;
    let failure = ends.0.0.unwrap_err();
    assert_eq!(failure.reason, Reason::CertificateExpired);
    assert!(failure.detail.starts_with("the peer claims"), "{failure:?}");
}

/// Clocks that were set back: the ticket is good, and the chain it stands for is not valid yet.
#[tokio::test]
async fn a_resumed_client_is_verified_again() {
    let scene = Scene::new();
    let client = scene.context(CLIENT, 10 * HOUR);
    let server = scene.context_of(SERVER, 3 * HOUR, 10 * HOUR, &listeners(), true);
    assert!(!once(&client, &server).await);
    scene.clock.set(scene.start - 2 * HOUR);
    let ends = shake(client.client("out").unwrap(), server.server("in").unwrap()).await;
    let ((c, near), (s, far)) = ends;
    let failure = s.unwrap_err();
    assert_eq!(failure.reason, Reason::CertificateNotYetValid, "{failure:?}");
    assert!(
        failure.detail.starts_with("in a resumed session: "),
        "{failure:?}"
    );
    assert_eq!(failure.peer, None);
    assert!(failure.alerted);
    drop(far);
    let alert = alert_heard(c.unwrap(), near).await;
    assert_eq!(alert, AlertDescription::CertificateExpired);
}

#[tokio::test]
async fn a_resumed_server_is_verified_again() {
    let scene = Scene::new();
    let client = scene.context_of(CLIENT, 3 * HOUR, 10 * HOUR, &listeners(), true);
    let server = scene.context(SERVER, 10 * HOUR);
    assert!(!once(&client, &server).await);
    scene.clock.set(scene.start - 2 * HOUR);
    let ((c, near), (s, far)) = shake(client.client("out").unwrap(), server.server("in").unwrap()).await;
    let failure = c.unwrap_err();
    assert_eq!(failure.reason, Reason::CertificateNotYetValid, "{failure:?}");
    assert!(failure.alerted && failure.detail.starts_with("in a resumed session: "));
    drop(near);
    let alert = alert_heard(s.unwrap(), far).await;
    assert_eq!(alert, AlertDescription::CertificateExpired);
}

#[tokio::test]
async fn a_resumed_server_must_still_be_expected() {
    let scene = Scene::new();
    let (client, server) = scene.contexts();
    assert!(!once(&client, &server).await);
    let nobody = PeerVerifier::for_servers(
        client.store.clone(),
        scene.clock.clone(),
        &provider(),
        Arc::new(|_| false),
    );
    let mut to = client.client("out").unwrap();
    to.verifier = Arc::new(nobody);
    let ((c, near), (s, far)) = shake(to, server.server("in").unwrap()).await;
    let failure = c.unwrap_err();
    assert_eq!(failure.reason, Reason::PeerNotExpected, "{failure:?}");
    assert_eq!(failure.peer, Some(SpiffeId::new(SERVER).unwrap()));
    assert!(failure.alerted);
    drop(near);
    let alert = alert_heard(s.unwrap(), far).await;
    assert_eq!(alert, AlertDescription::AccessDenied);
}

#[test]
fn nobody_without_a_chain_is_resumed() {
    let scene = Scene::new();
    let server = scene.context(SERVER, HOUR).server("in").unwrap();
    let refusal = server.verifier.verify_kept(&[], PeerSide::Client).unwrap_err();
    assert_eq!(refusal, Refusal::NoCertificate);
    assert_eq!(refusal.alert(), AlertDescription::CertificateRequired);
}

/// A verified client whose chain ends then, lent to the ticketer as the driver does.
fn lend(scene: &Scene, ttl: Duration) {
    let client = scene.context(CLIENT, ttl);
    let chain: &[CertificateDer<'_>] = &client.material.svid.chain;
    let peer = verify_chain(&client.store, chain, PeerSide::Client, scene.clock.now());
    lend_outcome(Some(Ok(peer.unwrap())));
}

#[test]
fn a_ticket_says_when_it_ends() {
    let scene = Scene::new();
    let ticketer = |own: Duration| tickets::Ticketer::new(scene.clock.clone(), scene.start + own).unwrap();
    for (own, client, lifetime) in [
        (10 * HOUR, 10 * HOUR, HOUR),
        (10 * HOUR, 20 * MINUTE, 20 * MINUTE),
        (30 * MINUTE, 10 * HOUR, 30 * MINUTE),
    ] {
        scene.at(Duration::ZERO);
        let ticketer = ticketer(own);
        lend(&scene, client);
        assert_eq!(u64::from(ticketer.lifetime()), lifetime.as_secs());
        let ticket = ticketer.encrypt(b"session").unwrap();
        for (after, good) in [
            (Duration::ZERO, true),
            (lifetime, true),
            (lifetime + Duration::from_millis(1), false),
        ] {
            scene.at(after);
            let opened = ticketer.decrypt(&ticket);
            assert_eq!(
                opened,
                good.then(|| b"session".to_vec()),
                "{own:?} {client:?} {after:?}"
            );
        }
    }
    // Over, or about to be: none.
    scene.at(Duration::ZERO);
    lend(&scene, Duration::from_millis(1900));
    assert!(ticketer(Duration::from_millis(900)).encrypt(b"session").is_none());
    // Of nobody, or of one who was refused: none.
    for outcome in [None, Some(Err(Refusal::NoCertificate))] {
        lend_outcome(outcome);
        assert!(ticketer(HOUR).encrypt(b"session").is_none());
        assert_eq!(ticketer(HOUR).lifetime(), 0);
    }
    take_outcome();
}

#[test]
fn a_ticket_that_was_touched_is_none() {
    let scene = Scene::new();
    let ticketer = || tickets::Ticketer::new(scene.clock.clone(), scene.start + HOUR).unwrap();
    lend(&scene, HOUR);
    let (ours, other) = (ticketer(), ticketer());
    let ticket = ours.encrypt(b"session").unwrap();
    assert_eq!(ours.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
    assert_eq!(other.decrypt(&ticket), None);
    for at in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[at] ^= 1;
        assert_eq!(ours.decrypt(&changed), None, "byte {at}");
        assert_eq!(ours.decrypt(&ticket[..at]), None, "cut at {at}");
    }
    assert_eq!(ours.decrypt(&[ticket.as_slice(), b"x"].concat()), None);
    assert_eq!(ours.decrypt(&vec![7; 1 << 16]), None);
    assert_ne!(ours.encrypt(b"session").unwrap(), ticket, "a nonce of its own");
    // No ticket of a chain that would not fit.
    assert!(ours.encrypt(&vec![7; 8 * 1024]).is_some());
    assert!(ours.encrypt(&vec![7; 8 * 1024 + 1]).is_none());
    take_outcome();
    let shown = format!("{ours:?}");
    assert_eq!(shown, "Ticketer { .. }");
}

/// Our server and stock clients, which keep tickets by default.
#[tokio::test]
async fn a_stock_client_resumes_with_us() {
    let ours = world().resuming();
    let config = Arc::new(world().stock_client(AES_256));
    for expected in [false, true, true] {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = Stream::Unix(near);
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let (we, they) = tokio::join!(accept_as(&ours, &mut near), connector.connect(name(), far));
        let (mut we, mut they) = (we.unwrap(), they.unwrap());
        assert_eq!(we.resumed, expected);
        assert_eq!(we.peer.id.to_string(), THEIR_ID);
        near.write_all(&said(&mut we.session, b"x")).await.unwrap();
        they.read_exact(&mut [0]).await.unwrap();
        assert_eq!(they.get_ref().1.tls13_tickets_received(), 1);
    }
}

/// Our client and a stock server; whether the session was resumed.
async fn with_a_stock_server(ours: &Context, config: &rustls::ServerConfig) -> bool {
    let (near, far) = UnixStream::pair().unwrap();
    let mut near = Stream::Unix(near);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.clone()));
    let (we, they) = tokio::join!(connect_as(ours, &mut near), acceptor.accept(far));
    let (mut we, mut they) = (we.unwrap(), they.unwrap());
    assert_eq!(we.peer.id.to_string(), THEIR_ID);
    they.write_all(b"x").await.unwrap();
    they.shutdown().await.unwrap();
    drop(they);
    near.read_to_end(&mut we.unread).await.unwrap();
    let received = heard(&mut we.session, &mut we.unread).unwrap();
    assert!(
        matches!(received[..], [.., Received::Data(_), Received::End]),
        "{received:?}"
    );
    we.resumed
}

fn stock_server_with(tickets: usize) -> rustls::ServerConfig {
    let mut config = world().stock_server(AES_128);
    config.send_tls13_tickets = tickets;
    config
}

#[tokio::test]
async fn we_resume_with_a_stock_server_that_gives_tickets() {
    for (tickets, resumed) in [(0, false), (1, true), (2, true), (4, true)] {
        let (ours, theirs) = (world().resuming(), stock_server_with(tickets));
        assert!(!with_a_stock_server(&ours, &theirs).await);
        for _ in 0..3 {
            let again = with_a_stock_server(&ours, &theirs).await;
            assert_eq!(again, resumed, "{tickets} tickets");
        }
    }
}

/// How many connections are resumed until the tickets are used up.
async fn tickets_left(ours: &Context, theirs: &rustls::ServerConfig) -> usize {
    let mut theirs = theirs.clone();
    theirs.send_tls13_tickets = 0;
    let mut left = 0;
    while with_a_stock_server(ours, &theirs).await {
        left += 1;
    }
    left
}

#[tokio::test]
async fn tickets_are_bounded_by_connection_and_by_listener() {
    let (ours, theirs) = (world().resuming(), stock_server_with(10));
    assert!(!with_a_stock_server(&ours, &theirs).await);
    assert_eq!(tickets_left(&ours, &theirs).await, 4);
    // Each takes one and adds four.
    for _ in 0..25 {
        with_a_stock_server(&ours, &theirs).await;
    }
    assert_eq!(tickets_left(&ours, &theirs).await, 64);
}

/// A stock server that forgets its sessions, as one does that is restarted: a full handshake follows.
#[tokio::test]
async fn a_ticket_that_the_server_does_not_know_costs_nothing() {
    let ours = world().resuming();
    assert!(!with_a_stock_server(&ours, &stock_server_with(1)).await);
    assert!(!with_a_stock_server(&ours, &stock_server_with(1)).await);
}
