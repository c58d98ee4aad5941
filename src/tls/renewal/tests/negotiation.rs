//! Who may renew with whom, what a connection's renewals are bound to, and that stock peers see nothing.

use std::sync::{Arc, Mutex};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tokio::net::UnixStream;

use crate::sys::stream::Stream;
use crate::tls::configs::{Context, Features};
use crate::tls::handshake::Established;
use crate::tls::renewal::capability::{MARK, is_marked};
use crate::tls::renewal::proof::EXPORTER_LABEL;
use crate::tls::session::Session;
use crate::tls::testing::*;

async fn shake(client: &Context, server: &Context) -> (Established, Established) {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
    let (c, s) = tokio::join!(connect_as(client, &mut near), accept_as(server, &mut far));
    let (mut c, mut s) = (c.unwrap(), s.unwrap());
    // Tickets come with the first data.
    heard(&mut c.session, &mut said(&mut s.session, b"x")).unwrap();
    (c, s)
}

/// Whether it may renew: not at all, when it is told that the peer can, or at once.
fn may(session: &mut Session) -> Option<bool> {
    session.renewal().map(|link| link.may_offer())
}

#[tokio::test]
async fn both_must_have_it_on_in_resumed_sessions_too() {
    let context = |renewal| {
        world().with_features(Features {
            resumption: true,
            renewal,
        })
    };
    for (client_on, server_on) in [(true, true), (true, false), (false, true), (false, false)] {
        let (client, server) = (context(client_on), context(server_on));
        for resumed in [false, true, true] {
            let (mut c, mut s) = shake(&client, &server).await;
            assert_eq!((c.resumed, s.resumed), (resumed, resumed));
            assert_eq!(may(&mut c.session), (client_on && server_on).then_some(true));
            assert_eq!(may(&mut s.session), server_on.then_some(false));
        }
    }
}

/// The ticket of a server that understands it, offered to one that does not know the ticket and understands nothing.
#[tokio::test]
async fn a_full_handshake_tells_more_than_an_old_ticket() {
    let features = |renewal| Features {
        resumption: true,
        renewal,
    };
    let client = world().with_features(features(true));
    for known in [true, false] {
        let (first, second) = (
            world().with_features(features(known)),
            world().with_features(features(!known)),
        );
        let (c, _) = shake(&client, &first).await;
        drop(c);
        let (mut c, _) = shake(&client, &second).await;
        assert!(!c.resumed);
        assert_eq!(may(&mut c.session), (!known).then_some(true));
    }
}

#[tokio::test]
async fn a_stock_server_is_never_spoken_to_and_a_stock_client_has_to_speak_first() {
    for suite in SUITES {
        let (mut ours, _) = with_stock(false, suite).await;
        assert_eq!(may(&mut ours.session), None);
        let (mut ours, _) = with_stock(true, suite).await;
        assert_eq!(may(&mut ours.session), Some(false));
        let (chain, key) = world().newer(OUR_ID);
        ours.session.renewal().unwrap().offer(&chain, &key).unwrap_err();
        assert!(!ours.session.has_renewal_to_say());
    }
}

/// What we bind to is what RFC 8446 exports: a stock peer comes to the same.
#[tokio::test]
async fn the_binding_is_the_exporters() {
    for suite in SUITES {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut ours = Stream::Unix(ours);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(world().stock_client(suite)));
        let (ours, theirs) = tokio::join!(serve_as_us(&mut ours), connector.connect(name(), theirs));
        let (mut ours, theirs) = (ours.unwrap(), theirs.unwrap());
        let exported = theirs
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .unwrap();
        let link = ours.session.renewal().unwrap();
        assert_eq!(link.binding().bytes(), exported);
        assert_ne!(exported, [0; 32]);
        assert_eq!(format!("{:?}", link.binding()), "Binding(..)");
    }
}

#[tokio::test]
async fn every_connection_has_a_binding_of_its_own_and_both_ends_the_same() {
    let context = world().resuming();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (mut c, mut s) = shake(&context, &context).await;
        let bytes = |session: &mut Session| session.renewal().unwrap().binding().bytes();
        let binding = bytes(&mut c.session);
        assert_eq!(binding, bytes(&mut s.session));
        assert!(!seen.contains(&binding));
        seen.push(binding);
    }
}

/// Notes the schemes that a server names.
#[derive(Debug)]
struct Noting(Arc<dyn ResolvesClientCert>, Mutex<Vec<SignatureScheme>>);

impl ResolvesClientCert for Noting {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.1.lock().unwrap() = schemes.to_vec();
        self.0.resolve(hints, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_server_names_what_nobody_can_sign_with_behind_what_it_takes() {
    for renewal in [true, false] {
        let context = world().with_features(Features {
            resumption: false,
            renewal,
        });
        let mut config = world().stock_client(AES_128);
        let noting = Arc::new(Noting(config.client_auth_cert_resolver.clone(), Mutex::default()));
        config.client_auth_cert_resolver = noting.clone();
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = Stream::Unix(near);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (ours, theirs) = tokio::join!(accept_as(&context, &mut near), connector.connect(name(), far));
        ours.unwrap();
        theirs.unwrap();
        let named = noting.1.lock().unwrap().clone();
        assert_eq!(is_marked(&named), renewal, "{named:?}");
        assert_eq!(named.ends_with(&MARK), renewal, "behind all others: {named:?}");
        assert!(named.starts_with(&[SignatureScheme::ECDSA_NISTP384_SHA384]) || named.len() > MARK.len());
    }
}

#[test]
fn the_mark_is_whole_and_in_order() {
    let other = SignatureScheme::ED25519;
    assert!(is_marked(&MARK));
    assert!(is_marked(&[&[other], &MARK[..], &[other]].concat()));
    assert!(!is_marked(&[]));
    for at in 0..MARK.len() {
        let mut changed = MARK;
        changed[at] = other;
        assert!(!is_marked(&changed));
        let mut split = MARK.to_vec();
        split.insert(at, other);
        assert_eq!(is_marked(&split), at == 0);
    }
    let mut backwards = MARK;
    backwards.reverse();
    assert!(!is_marked(&backwards));
    // RFC 8446 section 4.2.3: private use.
    assert!(MARK.iter().all(|scheme| u16::from(*scheme) >= 0xfe00));
}
