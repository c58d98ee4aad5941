//! Records against themselves, against tampering, and against stock rustls.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rustls::{ClientConnection, Connection, ExtractedSecrets, ServerConnection};

use super::*;
use crate::tls::testing::*;

/// Two stock ends after their handshake.
fn stock_pair(suite: rustls::SupportedCipherSuite) -> (Connection, Connection) {
    let client = ClientConnection::new(Arc::new(world().stock_client(suite)), name()).unwrap();
    let server = ServerConnection::new(Arc::new(world().stock_server(suite))).unwrap();
    let (mut client, mut server) = (Connection::Client(client), Connection::Server(server));
    while client.is_handshaking() || server.is_handshaking() {
        give(&mut server, &drain(&mut client));
        give(&mut client, &drain(&mut server));
    }
    (client, server)
}

fn give(to: &mut Connection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets().unwrap();
    }
}

/// The secrets of a client for each suite. Fixed keys will do: what is sealed here never leaves.
static SECRETS: LazyLock<Vec<ExtractedSecrets>> = LazyLock::new(|| {
    SUITES
        .map(|suite| stock_pair(suite).0.dangerous_extract_secrets().unwrap())
        .into()
});

fn pair(suite: usize, sequence: u64) -> (Sealer, Opener) {
    let secrets = &SECRETS[suite].tx.1;
    (
        Sealer::new(sequence, secrets).unwrap(),
        Opener::new(sequence, secrets).unwrap(),
    )
}

/// A record of this inner plaintext, type and padding included, whatever it is.
fn seal_inner(suite: usize, sequence: u64, inner: &[u8]) -> Vec<u8> {
    let secrets = Secrets::new(&SECRETS[suite].tx.1).unwrap();
    let key = aws_lc_rs::aead::UnboundKey::new(secrets.algorithm, secrets.key()).unwrap();
    let key = aws_lc_rs::aead::LessSafeKey::new(key);
    let length = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
    let mut record = vec![23, 3, 3, length[0], length[1]];
    let mut body = inner.to_vec();
    key.seal_in_place_append_tag(nonce(&secrets.iv, sequence), Aad::from(&record), &mut body)
        .unwrap();
    record.extend(body);
    record
}

fn seal(sealer: &mut Sealer, content_type: ContentType, payload: &[u8]) -> Vec<u8> {
    let mut slot = vec![0x55; HEADER + payload.len() + TRAILER];
    slot[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    let length = sealer.seal(content_type, &mut slot, payload.len()).unwrap();
    assert_eq!(length, slot.len());
    slot
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..600_usize,
        Just(0),
        Just(MAX_PAYLOAD),
        Just(MAX_PAYLOAD - 1),
        0..=MAX_PAYLOAD
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_sealed_opens(
        suite in 0..2_usize,
        start in prop_oneof![Just(0_u64), 1..1000_u64, Just(u64::from(u32::MAX)), any::<u32>().prop_map(u64::from)],
        records in proptest::collection::vec((length(), any::<u8>(), 21..=23_u8), 1..5),
    ) {
        let (mut sealer, mut opener) = pair(suite, start);
        for (count, (length, fill, content_type)) in records.into_iter().enumerate() {
            let payload = vec![fill; length];
            let content_type = ContentType::from(content_type);
            let mut record = seal(&mut sealer, content_type, &payload);
            prop_assert_eq!(record_length(&record), Ok(Some(record.len())));
            for cut in 0..HEADER {
                prop_assert_eq!(record_length(&record[..cut]), Ok(None));
            }
            let (kind, range) = opener.open(&mut record).unwrap();
            prop_assert_eq!(kind, content_type);
            prop_assert_eq!(&record[range], &payload[..]);
            prop_assert_eq!(sealer.sealed(), start + count as u64 + 1);
        }
    }

    #[test]
    fn padding_is_taken_off(
        suite in 0..2_usize,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        content_type in 1..=255_u8,
        padding in prop_oneof![0..300_usize, Just(MAX_PAYLOAD - 300)],
    ) {
        let mut inner = payload.clone();
        inner.push(content_type);
        inner.resize(inner.len() + padding, 0);
        let mut record = seal_inner(suite, 0, &inner);
        let (kind, range) = pair(suite, 0).1.open(&mut record).unwrap();
        prop_assert_eq!(u8::from(kind), content_type);
        prop_assert_eq!(&record[range], &payload[..]);
    }

    #[test]
    fn a_record_that_was_touched_does_not_open(
        suite in 0..2_usize,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let (mut sealer, mut opener) = pair(suite, 0);
        let good = seal(&mut sealer, ContentType::ApplicationData, &payload);
        let mut bad = good.clone();
        let at = at.index(bad.len());
        bad[at] ^= flip;
        prop_assert_eq!(opener.open(&mut bad), Err(RecordError::BadMac), "byte {}", at);
        let mut cut = good[..at].to_vec();
        prop_assert_eq!(opener.open(&mut cut), Err(RecordError::BadMac), "cut at {}", at);
        // The whole one, in its turn, does.
        prop_assert!(opener.open(&mut good.clone()).is_ok());
        // And not twice.
        prop_assert_eq!(opener.open(&mut good.clone()), Err(RecordError::BadMac));
    }

    #[test]
    fn any_bytes_have_a_length_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
        match record_length(&bytes) {
            Ok(None) => prop_assert!(bytes.len() < HEADER),
            Ok(Some(length)) => prop_assert!(bytes[0] == 23 && (HEADER..=MAX_RECORD).contains(&length)),
            Err(RecordError::UnexpectedType(content_type)) => prop_assert_eq!(content_type, bytes[0]),
            Err(error) => prop_assert_eq!(error, RecordError::Overflow),
        }
    }
}

#[test]
fn limits_of_length() {
    let inner = |length: usize| {
        let mut inner = vec![7; length];
        inner.push(23);
        inner
    };
    for suite in 0..2 {
        let open = |inner: &[u8]| pair(suite, 0).1.open(&mut seal_inner(suite, 0, inner));
        assert_eq!(
            open(&inner(MAX_PAYLOAD)),
            Ok((ContentType::ApplicationData, HEADER..HEADER + MAX_PAYLOAD))
        );
        assert_eq!(open(&inner(MAX_PAYLOAD + 1)), Err(RecordError::Overflow));
        // The padding counts (RFC 8446 section 5.4).
        let mut padded = inner(MAX_PAYLOAD);
        padded.push(0);
        assert_eq!(open(&padded), Err(RecordError::Overflow));
        assert_eq!(open(&[0; 100]), Err(RecordError::NoContentType));
        assert_eq!(open(&[]), Err(RecordError::NoContentType));
        let mut sealer = pair(suite, 0).0;
        let mut slot = vec![0; MAX_SEALED + 100];
        assert_eq!(
            sealer.seal(ContentType::ApplicationData, &mut slot, MAX_PAYLOAD),
            Ok(MAX_SEALED)
        );
        assert_eq!(
            sealer.seal(ContentType::ApplicationData, &mut slot, MAX_PAYLOAD + 1),
            Err(RecordError::Seal)
        );
        assert_eq!(
            sealer.seal(ContentType::ApplicationData, &mut slot[..HEADER + TRAILER + 4], 5),
            Err(RecordError::Seal)
        );
        assert_eq!(sealer.sealed(), 1, "what was refused used no number");
    }
    assert_eq!(record_length(&[23, 3, 3, 0x41, 0x00]), Ok(Some(MAX_RECORD)));
    assert_eq!(record_length(&[23, 3, 3, 0x41, 0x01]), Err(RecordError::Overflow));
    for other in [0, 20, 21, 22, 24] {
        assert_eq!(
            record_length(&[other, 3, 3, 0, 30]),
            Err(RecordError::UnexpectedType(other))
        );
    }
}

#[test]
fn a_counter_that_ran_out_seals_and_opens_nothing() {
    let (mut sealer, mut opener) = pair(0, 1);
    sealer.0.sequence = u64::MAX;
    assert_eq!(
        sealer.seal(ContentType::ApplicationData, &mut [0; 64], 3),
        Err(RecordError::Seal)
    );
    opener.0.sequence = u64::MAX;
    assert_eq!(opener.open(&mut [0; 64]), Err(RecordError::BadMac));
}

#[test]
fn stock_rustls_opens_what_we_seal_and_we_what_it_seals() {
    for suite in SUITES {
        for before in [0, 1, 3] {
            let (mut client, mut server) = stock_pair(suite);
            // The stock ends send some themselves, so that we take over at a later number.
            for _ in 0..before {
                client.writer().write_all(b"up").unwrap();
                server.writer().write_all(b"down").unwrap();
                give(&mut server, &drain(&mut client));
                give(&mut client, &drain(&mut server));
            }
            let _ = server.reader().read(&mut [0; 64]).unwrap_or(0);
            let secrets = client.dangerous_extract_secrets().unwrap();
            assert_eq!((secrets.tx.0, secrets.rx.0), (before, before));
            let mut sealer = Sealer::new(secrets.tx.0, &secrets.tx.1).unwrap();
            let mut opener = Opener::new(secrets.rx.0, &secrets.rx.1).unwrap();
            for length in [1, 2, 1000, MAX_PAYLOAD] {
                let payload = vec![b'x'; length];
                give(
                    &mut server,
                    &seal(&mut sealer, ContentType::ApplicationData, &payload),
                );
                let mut heard = vec![0; length];
                server.reader().read_exact(&mut heard).unwrap();
                assert_eq!(heard, payload);
                server.writer().write_all(&payload).unwrap();
                let mut record = drain(&mut server);
                assert_eq!(record_length(&record), Ok(Some(record.len())));
                let (content_type, range) = opener.open(&mut record).unwrap();
                assert_eq!(
                    (content_type, &record[range]),
                    (ContentType::ApplicationData, &payload[..])
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn rests_between_records_change_nothing(
        suite in 0..2_usize,
        start in prop_oneof![Just(0_u64), 1..1000_u64],
        acts in proptest::collection::vec((0..100_usize, any::<bool>(), any::<bool>()), 1..20),
    ) {
        let (mut sealer, mut opener) = pair(suite, start);
        let (mut steady, _) = pair(suite, start);
        for (length, sealer_rests, opener_rests) in acts {
            if sealer_rests {
                sealer.rest();
            }
            if opener_rests {
                opener.rest();
            }
            let payload = vec![7; length];
            let mut record = seal(&mut sealer, ContentType::ApplicationData, &payload);
            prop_assert_eq!(&record, &seal(&mut steady, ContentType::ApplicationData, &payload));
            let (content_type, at) = opener.open(&mut record).unwrap();
            prop_assert_eq!(content_type, ContentType::ApplicationData);
            prop_assert_eq!(&record[at], &payload[..]);
        }
    }
}
