//! Records with the right key and anything in them: types, padding, messages in pieces, alerts. No panic; data is what
//! was sent as data; the end is told once only by close_notify; nothing is heard after an error.
#![no_main]

mod tls;

use libfuzzer_sys::fuzz_target;
use rustls::ContentType;
use svidecar::tls::record::{HEADER, MAX_PAYLOAD, Sealer, TRAILER, record_length};
use svidecar::tls::session::Received;

// The first byte says which side we are; then records: type, padding, length (two bytes), payload.
fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else {
        return;
    };
    let (mut session, secrets) = tls::established(first & 1 == 0);
    let mut sealer = Sealer::new(secrets.tx.0, &secrets.tx.1).unwrap();
    while let Some((&[content_type, padding, high, low], after)) = rest.split_first_chunk::<4>() {
        // A type of zero would be padding.
        let content_type = content_type.max(1);
        let length = usize::from(u16::from_be_bytes([high, low]) & 0x3fff).min(after.len());
        let (payload, after) = after.split_at(length);
        rest = after;
        // The padding goes in as payload behind the type, and zero as the record's own type.
        let mut inner = payload.to_vec();
        let padded = padding > 0;
        if padded {
            inner.push(content_type);
            inner.resize((inner.len() + usize::from(padding) - 1).min(MAX_PAYLOAD), 0);
        }
        let mut slot = vec![0; HEADER + inner.len() + TRAILER];
        slot[HEADER..HEADER + inner.len()].copy_from_slice(&inner);
        let outer = ContentType::from(if padded { 0 } else { content_type });
        let sealed = sealer.seal(outer, &mut slot, inner.len()).unwrap();
        assert_eq!(record_length(&slot), Ok(Some(sealed)));
        match session.receive(&mut slot) {
            Ok(Received::Data(range)) => {
                assert_eq!(content_type, 23);
                assert_eq!(&slot[range], payload);
            }
            Ok(Received::Nothing) => {
                // After a key update the peer would seal with the next key, which this target does not have.
                if content_type == 22 && payload.ends_with(&[24, 0, 0, 1, 0])
                    || payload.ends_with(&[24, 0, 0, 1, 1])
                {
                    break;
                }
            }
            Ok(Received::End) => assert_eq!((content_type, payload.get(1)), (21, Some(&0))),
            Ok(Received::Alert(alert)) => {
                assert_eq!((content_type, payload.get(1)), (21, Some(&u8::from(alert))));
                break;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                let mut alert = Vec::new();
                session.seal_fatal(error.alert(), &mut alert).unwrap();
                assert_eq!(record_length(&alert), Ok(Some(alert.len())));
                assert!(session.before_data(&mut alert).is_err());
                break;
            }
        }
    }
});
