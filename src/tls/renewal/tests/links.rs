//! The two ends of one connection, and what no good peer would say.

use std::sync::Arc;

use rustls::{AlertDescription, SignatureScheme};
use tokio::net::UnixStream;

use crate::sys::stream::Stream;
use crate::tls::renewal::message::{self, Message};
use crate::tls::renewal::{Flaw, Heard, Link, NotOffered, Renewal, Verdict};
use crate::tls::session::{Received, Session};
use crate::tls::testing::*;

/// A client's and a server's session of one connection between svidecars.
fn ends() -> [Session; 2] {
    block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
        let (client, server) = tokio::join!(call_as_us(&mut near), serve_as_us(&mut far));
        [client.unwrap().session, server.unwrap().session]
    })
}

fn link(session: &mut Session) -> &mut Link {
    session.renewal().unwrap()
}

/// Seals what one end has to say, and gives what the other is to act on.
fn carry(from: &mut Session, to: &mut Session) -> Vec<Heard> {
    let mut sealed = Vec::new();
    if from.has_renewal_to_say() {
        from.seal_renewal(&mut sealed).unwrap();
    }
    let received = heard(to, &mut sealed).unwrap();
    assert!(received.iter().all(|received| *received == Received::Nothing));
    std::iter::from_fn(|| link(to).next_heard()).collect()
}

fn offer(session: &mut Session, (chain, key): &Newer) {
    link(session).offer(chain, key).unwrap();
}

/// What one end offers, as the other hears it.
fn offered(from: &mut Session, to: &mut Session, newer: &Newer) -> Renewal {
    offer(from, newer);
    match &carry(from, to)[..] {
        [Heard::Renewal(renewal)] => Renewal::clone(renewal),
        other => panic!("{other:?}"),
    }
}

/// The body of the message that says this renewal.
fn body(sequence: u32, list: &[u8], scheme: SignatureScheme, signature: &[u8]) -> Vec<u8> {
    message::shown(sequence, list, scheme, signature).unwrap()[4..].to_vec()
}

/// The renewal with something about it changed.
fn altered(
    renewal: &Renewal,
    sequence: u32,
    list: &[u8],
    scheme: SignatureScheme,
    signature: &[u8],
) -> Renewal {
    assert!(!renewal.list().is_empty());
    match message::parse(&body(sequence, list, scheme, signature)) {
        Ok(Message::Renewal(renewal)) => *renewal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_end_renews_when_it_likes_and_both_at_once() {
    let [mut client, mut server] = ends();
    assert!(link(&mut client).may_offer() && !link(&mut server).may_offer());
    link(&mut client).greet();
    link(&mut client).greet();
    assert_eq!(carry(&mut client, &mut server), [Heard::Hello], "once");
    let newer = world().newer(OUR_ID);
    for round in 1..=3 {
        let of_client = offered(&mut client, &mut server, &newer);
        let of_server = offered(&mut server, &mut client, &newer);
        for (session, renewal) in [(&mut server, &of_client), (&mut client, &of_server)] {
            assert_eq!(renewal.sequence, round);
            assert_eq!(renewal.chain(), newer.0);
            session.check_renewal(renewal).unwrap();
            let again = link(session).offer(&newer.0, &newer.1);
            assert_eq!(again, Err(NotOffered::NotNow), "the last is not answered");
        }
        link(&mut server).answer(Verdict::Accepted);
        link(&mut client).answer(Verdict::Kept);
        assert_eq!(
            carry(&mut server, &mut client),
            [Heard::Answer(Verdict::Accepted)]
        );
        assert_eq!(carry(&mut client, &mut server), [Heard::Answer(Verdict::Kept)]);
        // Data goes on meanwhile.
        assert_eq!(heard(&mut server, &mut said(&mut client, b"x")).unwrap().len(), 1);
    }
}

#[test]
fn a_renewal_tells_the_server_as_well_as_a_hello() {
    let [mut client, mut server] = ends();
    offered(&mut client, &mut server, &world().newer(OUR_ID));
    link(&mut client).greet();
    assert_eq!(carry(&mut client, &mut server), [], "there is no need for it");
    assert!(link(&mut server).may_offer());
}

#[test]
fn a_renewal_holds_for_its_own_connection_end_and_number() {
    let newer = world().newer(OUR_ID);
    let ([mut client, mut server], [mut other_client, mut other_server]) = (ends(), ends());
    let renewal = offered(&mut client, &mut server, &newer);
    // Moved to another connection of the same two ends.
    assert_eq!(other_server.check_renewal(&renewal), Err(Flaw::Signature));
    // Given back to who made it, and on another connection to its like.
    assert_eq!(client.check_renewal(&renewal), Err(Flaw::Signature));
    assert_eq!(other_client.check_renewal(&renewal), Err(Flaw::Signature));
    // Under another number.
    let later = altered(&renewal, 2, renewal.list(), renewal.scheme, &renewal.signature);
    let out_of_order = Flaw::Sequence {
        found: 2,
        expected: 1,
    };
    assert_eq!(server.check_renewal(&later), Err(out_of_order));
    server.check_renewal(&renewal).unwrap();
    // Once more, as it was and as the next.
    let again = Flaw::Sequence {
        found: 1,
        expected: 2,
    };
    assert_eq!(server.check_renewal(&renewal), Err(again));
    assert_eq!(server.check_renewal(&later), Err(Flaw::Signature));
}

#[test]
fn every_part_of_a_renewal_is_signed() {
    let (newer, other) = (world().newer(OUR_ID), world().newer(OUR_ID));
    let [mut client, mut server] = ends();
    let renewal = offered(&mut client, &mut server, &newer);
    let (list, scheme, signature) = (renewal.list(), renewal.scheme, &renewal.signature[..]);
    for at in 0..signature.len() {
        let mut wrong = signature.to_vec();
        wrong[at] ^= 1;
        let forged = altered(&renewal, 1, list, scheme, &wrong);
        assert_eq!(
            server.check_renewal(&forged),
            Err(Flaw::Signature),
            "byte {at} of it"
        );
    }
    // Another leaf, or the same with something behind it, by one who holds no key of it.
    let chain = [newer.0.clone(), other.0.clone()].concat();
    for certificates in [&other.0, &chain] {
        let list = message::list(certificates).unwrap();
        let forged = altered(&renewal, 1, &list, scheme, signature);
        assert_eq!(server.check_renewal(&forged), Err(Flaw::Signature));
    }
    for (scheme, flaw) in [
        // What TLS 1.3 does not sign with, what the key does not, and what does not exist.
        (SignatureScheme::RSA_PKCS1_SHA256, None),
        (SignatureScheme::ECDSA_SHA1_Legacy, None),
        (SignatureScheme::ED25519, None),
        (SignatureScheme::RSA_PSS_SHA256, None),
        (SignatureScheme::Unknown(0xfe73), None),
        // Of the same kind of key, for another curve.
        (SignatureScheme::ECDSA_NISTP384_SHA384, None),
        (scheme, Some(Ok(()))),
    ] {
        let forged = altered(&renewal, 1, list, scheme, signature);
        let expected = flaw.unwrap_or(Err(Flaw::Scheme(scheme)));
        assert_eq!(server.check_renewal(&forged), expected, "{scheme:?}");
    }
}

#[test]
fn what_is_no_certificate_is_no_leaf() {
    let [mut client, mut server] = ends();
    let (_, key) = world().newer(OUR_ID);
    let junk = rustls::pki_types::CertificateDer::from(vec![0x30, 0]);
    let renewal = offered(&mut client, &mut server, &(vec![junk], key));
    assert_eq!(server.check_renewal(&renewal), Err(Flaw::Leaf));
}

#[test]
fn a_key_that_another_holds_signs_nothing() {
    let [mut client, mut server] = ends();
    let ((chain, _), (_, key)) = (world().newer(OUR_ID), world().newer(OUR_ID));
    let renewal = offered(&mut client, &mut server, &(chain, key));
    assert_eq!(server.check_renewal(&renewal), Err(Flaw::Signature));
}

#[test]
fn every_kind_of_key_that_a_leaf_may_have_signs() {
    use rcgen::{KeyPair, SignatureAlgorithm};
    let kinds: [&'static SignatureAlgorithm; 4] = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
    ];
    for kind in kinds {
        let pair = KeyPair::generate_for(kind).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        let der = rustls::pki_types::PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key: Arc<_> = provider.key_provider.load_private_key(der).unwrap();
        let [mut client, mut server] = ends();
        let renewal = offered(&mut client, &mut server, &(vec![certificate.der().clone()], key));
        assert_eq!(server.check_renewal(&renewal), Ok(()), "{kind:?}");
    }
}

#[test]
fn who_may_say_what_when() {
    let unexpected = AlertDescription::UnexpectedMessage;
    let hello = message::hello()[4..].to_vec();
    let answer = message::answer(1, Verdict::Accepted)[4..].to_vec();
    let (newer, list) = (
        world().newer(OUR_ID),
        message::list(&world().newer(OUR_ID).0).unwrap(),
    );
    let renewal = body(1, &list, SignatureScheme::ED25519, &[1]);
    let refused = |link: &mut Link, message: &[u8], what: &str| {
        let (words, alert) = link.receive(message).unwrap_err();
        assert_eq!(alert, unexpected, "{what}: {words}");
    };

    // A client that has said nothing is not spoken to.
    let [mut client, mut server] = ends();
    for message in [&hello, &answer, &renewal] {
        refused(link(&mut client), message, "to a client that was not asked");
    }
    link(&mut client).greet();
    refused(link(&mut client), &hello, "a server's hello");
    refused(link(&mut client), &answer, "an answer to nothing");
    link(&mut client).receive(&renewal).unwrap();
    refused(link(&mut client), &renewal, "a second that waits for its answer");

    // A server is greeted once, and before it speaks itself.
    assert_eq!(
        link(&mut server).offer(&newer.0, &newer.1),
        Err(NotOffered::NotNow)
    );
    refused(link(&mut server), &answer, "an answer to nothing");
    link(&mut server).receive(&hello).unwrap();
    refused(link(&mut server), &hello, "a second hello");
    offer(&mut server, &newer);
    let wrong = message::answer(2, Verdict::Accepted)[4..].to_vec();
    refused(link(&mut server), &wrong, "an answer to another");
    link(&mut server).receive(&answer).unwrap();
    refused(link(&mut server), &answer, "a second answer");
    // What was heard and not acted on yet stays.
    link(&mut server).receive(&renewal).unwrap();
    let heard: Vec<_> = std::iter::from_fn(|| link(&mut server).next_heard()).collect();
    assert!(matches!(
        heard[..],
        [Heard::Hello, Heard::Answer(Verdict::Accepted), Heard::Renewal(_)]
    ));
    refused(link(&mut server), &renewal, "before the last was answered");
    link(&mut server).answer(Verdict::Kept);
    refused(
        link(&mut server),
        &renewal,
        "before the answer to the last was sent",
    );
    let mut sealed = Vec::new();
    server.seal_renewal(&mut sealed).unwrap();
    link(&mut server).receive(&renewal).unwrap();
}

#[test]
fn a_chain_that_fits_no_message_is_not_offered() {
    let [mut client, _server] = ends();
    let (mut chain, key) = world().newer(OUR_ID);
    chain.push(vec![0; 16_000].into());
    assert_eq!(link(&mut client).offer(&chain, &key), Err(NotOffered::TooLong));
    chain.pop();
    chain.push(vec![0; 70_000].into());
    assert_eq!(link(&mut client).offer(&chain, &key), Err(NotOffered::TooLong));
    assert!(!client.has_renewal_to_say());
    assert!(link(&mut client).may_offer());
}

#[test]
fn an_end_that_said_its_last_says_nothing_of_it_either() {
    let [mut client, mut server] = ends();
    link(&mut client).greet();
    let mut end = Vec::new();
    client.seal_close_notify(&mut end).unwrap();
    assert!(!client.has_renewal_to_say());
    assert!(client.seal_renewal(&mut end).is_err());
    assert_eq!(heard(&mut server, &mut end).unwrap(), [Received::End]);
}

#[test]
fn a_quiet_connection_is_renewed_for_ever() {
    let [mut client, mut server] = ends();
    let newer = world().newer(OUR_ID);
    for _ in 0..100 {
        let renewal = offered(&mut client, &mut server, &newer);
        server.check_renewal(&renewal).unwrap();
        link(&mut server).answer(Verdict::Accepted);
        assert_eq!(
            carry(&mut server, &mut client),
            [Heard::Answer(Verdict::Accepted)]
        );
    }
}

#[test]
fn it_costs_little_memory() {
    assert!(size_of::<Link>() <= 64, "{}", size_of::<Link>());
    let [mut client, mut server] = ends();
    link(&mut client).greet();
    carry(&mut client, &mut server);
    for session in [&mut client, &mut server] {
        assert!(format!("{:?}", link(session)).contains("pending: None"));
    }
}
