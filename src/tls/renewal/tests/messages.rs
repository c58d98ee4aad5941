//! The messages as bytes.

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;

use crate::tls::renewal::Verdict;
use crate::tls::renewal::message::{self, MAX_BODY, MAX_SIGNATURE, Malformed, Message, parse};
use crate::tls::verify::MAX_CHAIN_CERTIFICATES;

fn certificates(lengths: &[usize]) -> Vec<CertificateDer<'static>> {
    let certificate = |length: &usize| CertificateDer::from(vec![7; *length]);
    lengths.iter().map(certificate).collect()
}

fn shown(lengths: &[usize], signature: usize) -> Option<Vec<u8>> {
    let list = message::list(&certificates(lengths))?;
    message::shown(3, &list, SignatureScheme::ED25519, &vec![9; signature])
}

/// The body of a handshake message that is whole.
fn body(message: &[u8]) -> &[u8] {
    let [kind, a, b, c] = *message.first_chunk().unwrap();
    assert_eq!(kind, message::HANDSHAKE_TYPE);
    assert_eq!(u32::from_be_bytes([0, a, b, c]) as usize, message.len() - 4);
    &message[4..]
}

#[test]
fn what_is_said_is_what_is_read() {
    assert_eq!(parse(body(&message::hello())), Ok(Message::Hello));
    for verdict in [Verdict::Accepted, Verdict::Kept] {
        for sequence in [1, 2, u32::MAX] {
            let said = message::answer(sequence, verdict);
            assert!(message::is_answer(&said));
            assert_eq!(parse(body(&said)), Ok(Message::Answer { sequence, verdict }));
        }
    }
    for lengths in [&[1][..], &[900, 700], &[1; MAX_CHAIN_CERTIFICATES], &[16_300]] {
        let said = shown(lengths, 64).unwrap();
        assert!(!message::is_answer(&said));
        let Ok(Message::Renewal(renewal)) = parse(body(&said)) else {
            panic!("{lengths:?}")
        };
        assert_eq!(renewal.chain(), certificates(lengths));
        assert_eq!((renewal.sequence, renewal.scheme), (3, SignatureScheme::ED25519));
        assert_eq!(renewal.signature, vec![9; 64]);
    }
}

#[test]
fn what_would_not_be_read_is_not_said() {
    for (what, lengths, signature) in [
        ("no certificate", &[][..], 64),
        ("one that is empty", &[900, 0], 64),
        ("too many", &[1; MAX_CHAIN_CERTIFICATES + 1], 64),
        ("more than a record holds", &[MAX_BODY], 64),
        ("one that has no length in two bytes", &[1 << 16], 64),
        ("no signature", &[900], 0),
        (
            "a signature of a key that is not taken",
            &[900],
            MAX_SIGNATURE + 1,
        ),
    ] {
        assert_eq!(shown(lengths, signature), None, "{what}");
    }
    // The longest: kind, number, two lengths, scheme, and a certificate's length around it.
    let most = MAX_BODY - (1 + 4 + 2 + 2 + 2 + 2) - MAX_SIGNATURE;
    assert_eq!(shown(&[most], MAX_SIGNATURE).unwrap().len(), 4 + MAX_BODY);
    assert_eq!(shown(&[most + 1], MAX_SIGNATURE), None);
}

#[test]
fn no_beginning_of_a_message_is_one_and_nothing_follows_it() {
    let messages = [
        message::hello(),
        message::answer(1, Verdict::Kept),
        shown(&[3, 1, 2], 5).unwrap(),
    ];
    for message in &messages {
        let body = body(message);
        for end in 0..body.len() {
            assert_eq!(parse(&body[..end]), Err(Malformed::Length), "{end} of {body:?}");
        }
        let longer = [body, &[0]].concat();
        assert_eq!(parse(&longer), Err(Malformed::Length), "{longer:?}");
    }
}

#[test]
fn messages_that_are_none() {
    for (body, error) in [
        (&[][..], Malformed::Length),
        (&[0], Malformed::Value),
        (&[4], Malformed::Value),
        (&[1, 1], Malformed::Length),
        (&[3, 0, 0, 0, 1, 0], Malformed::Value),
        (&[3, 0, 0, 0, 1, 3], Malformed::Value),
        // A certificate that is longer than the list, in two forms.
        (&[2, 0, 0, 0, 1, 0, 3, 0, 2, 7, 8, 7, 0, 1, 9], Malformed::Length),
        (&[2, 0, 0, 0, 1, 0, 1, 0, 8, 7, 0, 1, 9], Malformed::Length),
        // None, one that is empty, and no signature.
        (&[2, 0, 0, 0, 1, 0, 0, 8, 7, 0, 1, 9], Malformed::Bounds),
        (&[2, 0, 0, 0, 1, 0, 2, 0, 0, 8, 7, 0, 1, 9], Malformed::Bounds),
        (&[2, 0, 0, 0, 1, 0, 3, 0, 1, 7, 8, 7, 0, 0], Malformed::Bounds),
    ] {
        assert_eq!(parse(body), Err(error), "{body:?}");
    }
}
