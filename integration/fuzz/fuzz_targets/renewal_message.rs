//! The messages of renewal: any bytes are one message or none, what is read is said again the same, and no renewal that is
//! made up passes on an open connection. What a connection hears in any order leaves it with no more than one renewal to
//! judge.
#![no_main]

mod tls;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use rustls::ContentType;
use svidecar::tls::record::{HEADER, Sealer, TRAILER};
use svidecar::tls::renewal::Heard;
use svidecar::tls::renewal::message::{self, HANDSHAKE_TYPE, MAX_BODY, Message, parse};
use svidecar::tls::session::{Received, Session};

thread_local! {
    /// Not used up by what it refuses, so that one does for many inputs.
    static OPEN: RefCell<Option<(Session, Sealer)>> = const { RefCell::new(None) };
}

fn open() -> (Session, Sealer) {
    let (session, secrets) = tls::established(true);
    let sealer = Sealer::new(secrets.tx.0, &secrets.tx.1).unwrap();
    (session, sealer)
}

// The body of a message.
fuzz_target!(|body: &[u8]| {
    let body = &body[..body.len().min(MAX_BODY)];
    let message = parse(body);
    match &message {
        Ok(Message::Hello) => assert_eq!(&message::hello()[4..], body),
        Ok(Message::Answer { sequence, verdict }) => {
            assert_eq!(&message::answer(*sequence, *verdict)[4..], body);
        }
        Ok(Message::Renewal(renewal)) => {
            let list = message::list(&renewal.chain()).unwrap();
            let again = message::shown(renewal.sequence, &list, renewal.scheme, &renewal.signature);
            assert_eq!(&again.unwrap()[4..], body);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    OPEN.with_borrow_mut(|kept| {
        let (mut session, mut sealer) = kept.take().unwrap_or_else(open);
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        let whole = [&[HANDSHAKE_TYPE, a, b, c], body].concat();
        let mut slot = vec![0; HEADER + whole.len() + TRAILER];
        slot[HEADER..HEADER + whole.len()].copy_from_slice(&whole);
        sealer
            .seal(ContentType::Handshake, &mut slot, whole.len())
            .unwrap();
        // A server that has offered nothing is to hear of no answer.
        let may_be_heard = matches!(message, Ok(Message::Hello | Message::Renewal(_)));
        match session.receive(&mut slot) {
            Ok(received) => {
                assert!(may_be_heard && received == Received::Nothing);
                let heard = session.renewal().unwrap().next_heard();
                if let Some(Heard::Renewal(renewal)) = heard {
                    assert!(session.check_renewal(&renewal).is_err());
                }
                assert!(session.renewal().unwrap().next_heard().is_none());
            }
            // It is at its end; the next input has another.
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
        // A renewal waits for its answer, which nobody gives here: no second may come.
        if matches!(message, Ok(Message::Hello)) {
            *kept = Some((session, sealer));
        }
    });
});
