//! Sessions against each other, whose insides a test may reach to send what no good peer would, and against stock
//! rustls.

use std::io::{Read, Write};

use proptest::prelude::*;
use rustls::Connection;
use tokio::net::UnixStream;

use super::*;
use crate::sys::stream::Stream;
use crate::tls::testing::*;

/// A client's and a server's session of one connection.
fn duo() -> (Session, Session) {
    block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
        let (client, server) = tokio::join!(call_as_us(&mut near), serve_as_us(&mut far));
        (client.unwrap().session, server.unwrap().session)
    })
}

/// Both ways round: the first receives, the second sends what the test wants.
fn duos() -> [(Session, Session, bool); 2] {
    let (client, server) = duo();
    let (other_client, other_server) = duo();
    [(client, server, true), (other_server, other_client, false)]
}

fn forge(peer: &mut Session, content_type: ContentType, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    peer.seal_control(content_type, payload, &mut record).unwrap();
    record
}

fn hear(
    session: &mut Session,
    peer: &mut Session,
    content_type: ContentType,
    payload: &[u8],
) -> Result<Received, SessionError> {
    session.receive(&mut forge(peer, content_type, payload))
}

/// The peer changes its sending key, as the key update it has just sealed says.
fn turn(peer: &mut Session) {
    peer.sending_secret = peer.sending_secret.next().unwrap();
    peer.sealer.update(&peer.sending_secret).unwrap();
}

fn one_way(from: &mut Session, to: &mut Session) {
    let mut bytes = said(from, b"ping");
    let received = heard(to, &mut bytes).unwrap();
    let Some(Received::Data(range)) = received.last() else {
        panic!("{received:?}")
    };
    let record = bytes.len() - (HEADER + 4 + TRAILER);
    assert_eq!(&bytes[record..][range.clone()], b"ping");
}

fn exchange(a: &mut Session, b: &mut Session) {
    one_way(a, b);
    one_way(b, a);
}

const fn refused(alert: AlertDescription) -> impl Fn(Result<Received, SessionError>, &str) {
    move |result, what| match result {
        Err(error) => assert_eq!(error.alert(), alert, "{what}: {error}"),
        Ok(received) => panic!("{what}: {received:?}"),
    }
}

const UNREQUESTED: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
const REQUESTED: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 1];

#[test]
fn key_updates_of_the_peer() {
    for (mut session, mut peer, _) in duos() {
        exchange(&mut session, &mut peer);
        for _ in 0..3 {
            assert_eq!(
                hear(&mut session, &mut peer, ContentType::Handshake, &UNREQUESTED),
                Ok(Received::Nothing)
            );
            turn(&mut peer);
            assert!(!session.update_owed);
            exchange(&mut session, &mut peer);
        }
        // Asked for several times before we send: one answer, and before the next data.
        for _ in 0..3 {
            assert_eq!(
                hear(&mut session, &mut peer, ContentType::Handshake, &REQUESTED),
                Ok(Received::Nothing)
            );
            turn(&mut peer);
        }
        assert!(session.update_owed);
        let mut bytes = said(&mut session, b"x");
        let received = heard(&mut peer, &mut bytes).unwrap();
        assert!(
            matches!(received[..], [Received::Nothing, Received::Data(_)]),
            "{received:?}"
        );
        assert!(!peer.update_owed, "ours asks for nothing back");
        let received = heard(&mut peer, &mut said(&mut session, b"x")).unwrap();
        assert!(matches!(received[..], [Received::Data(_)]), "{received:?}");
        exchange(&mut session, &mut peer);
        // In pieces.
        for payload in [UNREQUESTED, REQUESTED] {
            for cut in 1..payload.len() {
                for part in [&payload[..cut], &payload[cut..]] {
                    assert_eq!(
                        hear(&mut session, &mut peer, ContentType::Handshake, part),
                        Ok(Received::Nothing)
                    );
                }
                turn(&mut peer);
                exchange(&mut session, &mut peer);
            }
        }
        assert_eq!(session.partial_message.capacity(), 0);
    }
}

#[test]
fn key_updates_that_are_wrong() {
    use AlertDescription as A;
    for (what, payload, alert) in [
        (
            "something behind it",
            &[24, 0, 0, 1, 0, 24][..],
            A::UnexpectedMessage,
        ),
        (
            "another behind it",
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            A::UnexpectedMessage,
        ),
        ("a third value", &[24, 0, 0, 1, 2], A::IllegalParameter),
        ("empty", &[24, 0, 0, 0], A::DecodeError),
        ("too long", &[24, 0, 0, 2, 0, 0], A::DecodeError),
        ("no byte at all", &[], A::UnexpectedMessage),
        ("a Finished", &[20, 0, 0, 1, 0], A::UnexpectedMessage),
        ("the beginning of a ClientHello", &[1], A::UnexpectedMessage),
        (
            "a certificate request",
            &[13, 0, 0, 3, 0, 0, 0],
            A::UnexpectedMessage,
        ),
    ] {
        for (mut session, mut peer, _) in duos() {
            refused(alert)(
                hear(&mut session, &mut peer, ContentType::Handshake, payload),
                what,
            );
        }
    }
}

#[test]
fn floods_without_data() {
    for kind in [
        "key updates",
        "empty data",
        "user_canceled",
        "tickets",
        "fragments",
    ] {
        let (mut session, mut peer) = duo();
        let mut ticket = vec![NEW_SESSION_TICKET, 0, 0x10, 0];
        ticket.resize(ticket.len() + 0x1000, 0);
        let mut send = |session: &mut Session, n: usize| match kind {
            "key updates" => {
                let record = forge(&mut peer, ContentType::Handshake, &UNREQUESTED);
                turn(&mut peer);
                session.receive(&mut { record })
            }
            "empty data" => hear(session, &mut peer, ContentType::ApplicationData, &[]),
            "user_canceled" => hear(session, &mut peer, ContentType::Alert, &[1, 90]),
            "tickets" => hear(session, &mut peer, ContentType::Handshake, &ticket),
            _ => hear(session, &mut peer, ContentType::Handshake, &ticket[n..=n]),
        };
        for n in 0..usize::from(MAX_IDLE_RECORDS) {
            assert_eq!(send(&mut session, n), Ok(Received::Nothing), "{kind}");
        }
        refused(AlertDescription::UnexpectedMessage)(send(&mut session, 100), kind);
    }
    // Data in between makes them harmless.
    let (mut session, mut peer) = duo();
    for _ in 0..10 * u32::from(MAX_IDLE_RECORDS) {
        assert_eq!(
            hear(&mut session, &mut peer, ContentType::ApplicationData, &[]),
            Ok(Received::Nothing)
        );
        assert_eq!(heard(&mut session, &mut said(&mut peer, b"x")).unwrap().len(), 1);
    }
}

#[test]
fn tickets_are_for_clients() {
    let mut ticket = vec![NEW_SESSION_TICKET, 0, 0x80, 0];
    ticket.resize(ticket.len() + 0x8000, 7);
    for (mut session, mut peer, is_client) in duos() {
        if !is_client {
            let result = hear(&mut session, &mut peer, ContentType::Handshake, &ticket[..100]);
            refused(AlertDescription::UnexpectedMessage)(result, "a ticket for a server");
            continue;
        }
        for part in ticket.chunks(5000) {
            assert_eq!(
                hear(&mut session, &mut peer, ContentType::Handshake, part),
                Ok(Received::Nothing)
            );
        }
        assert_eq!(
            session.partial_message.capacity(),
            0,
            "the ticket's memory is given back"
        );
        // Two in one record, and a key update after them.
        let mut several = [NEW_SESSION_TICKET, 0, 0, 2, 1, 2, NEW_SESSION_TICKET, 0, 0, 0].to_vec();
        several.extend(UNREQUESTED);
        assert_eq!(
            hear(&mut session, &mut peer, ContentType::Handshake, &several),
            Ok(Received::Nothing)
        );
        turn(&mut peer);
        exchange(&mut session, &mut peer);
        // One that is longer than any.
        let mut last = Ok(Received::Nothing);
        let mut huge = vec![NEW_SESSION_TICKET, 0xff, 0xff, 0xff];
        huge.resize(16_000, 0);
        for _ in 0..6 {
            last = last.and_then(|_| hear(&mut session, &mut peer, ContentType::Handshake, &huge));
        }
        refused(AlertDescription::UnexpectedMessage)(last, "a huge ticket");
    }
}

#[test]
fn alerts_of_the_peer() {
    use AlertDescription as A;
    for level in [0, 1, 2, 255] {
        for (mut session, mut peer, _) in duos() {
            let mut alert =
                |description: u8| hear(&mut session, &mut peer, ContentType::Alert, &[level, description]);
            assert_eq!(alert(90), Ok(Received::Nothing));
            assert_eq!(alert(49), Ok(Received::Alert(A::AccessDenied)));
            assert_eq!(alert(200), Ok(Received::Alert(A::Unknown(200))));
            assert_eq!(alert(0), Ok(Received::End));
        }
    }
    for payload in [&[][..], &[1], &[1, 0, 0], &[2, 40, 2, 40]] {
        for (mut session, mut peer, _) in duos() {
            refused(A::DecodeError)(
                hear(&mut session, &mut peer, ContentType::Alert, payload),
                "malformed",
            );
        }
    }
}

#[test]
fn nothing_comes_between_the_parts_of_a_message() {
    for (content_type, payload) in [
        (ContentType::ApplicationData, &b"x"[..]),
        (ContentType::ApplicationData, b""),
        (ContentType::Alert, &[1, 0]),
        (ContentType::Alert, &[2, 40]),
    ] {
        for (mut session, mut peer, _) in duos() {
            assert_eq!(
                hear(&mut session, &mut peer, ContentType::Handshake, &[KEY_UPDATE, 0]),
                Ok(Received::Nothing)
            );
            let result = hear(&mut session, &mut peer, content_type, payload);
            refused(AlertDescription::UnexpectedMessage)(result, "in between");
        }
    }
    for content_type in [
        ContentType::ChangeCipherSpec,
        ContentType::Heartbeat,
        ContentType::Unknown(99),
    ] {
        let (mut session, mut peer) = duo();
        let result = hear(&mut session, &mut peer, content_type, &[1]);
        refused(AlertDescription::UnexpectedMessage)(result, "another type");
    }
}

#[test]
fn nothing_follows_an_end() {
    let (mut session, mut peer) = duo();
    session.update_owed = true;
    let mut out = Vec::new();
    session.seal_close_notify(&mut out).unwrap();
    let length = out.len();
    session.seal_close_notify(&mut out).unwrap();
    assert_eq!(out.len(), length, "once");
    assert!(session.before_data(&mut out).is_err());
    assert!(session.seal_data(&mut [0; 64], 1).is_err());
    assert_eq!(out.len(), length);
    session
        .seal_fatal(AlertDescription::AccessDenied, &mut out)
        .unwrap();
    let length = out.len();
    session
        .seal_fatal(AlertDescription::InternalError, &mut out)
        .unwrap();
    session.seal_close_notify(&mut out).unwrap();
    assert!(session.before_data(&mut out).is_err());
    assert!(session.seal_data(&mut [0; 64], 1).is_err());
    assert_eq!(out.len(), length, "nothing after a fatal alert");
    let received = heard(&mut peer, &mut out).unwrap();
    assert_eq!(
        received,
        [Received::End, Received::Alert(AlertDescription::AccessDenied)]
    );
}

#[test]
fn our_key_changes_at_the_limit() {
    for (mut session, mut peer, _) in duos() {
        assert_eq!(session.seal_limit, SEAL_LIMIT);
        session.set_seal_limit(3);
        let mut updates = 0;
        for _ in 0..20 {
            let received = heard(&mut peer, &mut said(&mut session, b"x")).unwrap();
            updates += received.iter().filter(|r| **r == Received::Nothing).count();
            assert!(session.sealer.sealed() <= 3);
        }
        assert_eq!(updates, 6, "after 3 records each");
    }
}

fn read_all(connection: &mut Connection, mut bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    while !bytes.is_empty() {
        connection.read_tls(&mut bytes).unwrap();
        let state = connection.process_new_packets().unwrap();
        let mut part = vec![0; state.plaintext_bytes_to_read()];
        connection.reader().read_exact(&mut part).unwrap();
        heard.extend(part);
    }
    heard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever order data and key updates come in, on either side, stock rustls and we stay in step.
    #[test]
    fn in_step_with_stock_rustls(
        we_serve: bool,
        suite in 0..2_usize,
        limit in 1..6_u64,
        acts in proptest::collection::vec(0..4_u8, 1..60),
    ) {
        let (established, mut stock) = block_on(with_stock(we_serve, SUITES[suite]));
        let mut session = established.session;
        session.set_seal_limit(limit);
        for act in acts {
            match act {
                0 => stock.refresh_traffic_keys().unwrap(),
                1 => {
                    let bytes = said(&mut session, b"to stock");
                    prop_assert_eq!(read_all(&mut stock, &bytes), b"to stock");
                }
                _ => stock.writer().write_all(b"from stock").unwrap(),
            }
            let mut bytes = drain(&mut stock);
            let expected = usize::from(act > 1);
            let received = heard(&mut session, &mut bytes).unwrap();
            prop_assert_eq!(received.iter().filter(|r| matches!(r, Received::Data(_))).count(), expected);
        }
        // The end, both ways.
        stock.send_close_notify();
        prop_assert_eq!(heard(&mut session, &mut drain(&mut stock)).unwrap().pop(), Some(Received::End));
        let mut end = Vec::new();
        session.seal_close_notify(&mut end).unwrap();
        stock.read_tls(&mut end.as_slice()).unwrap();
        prop_assert!(stock.process_new_packets().unwrap().peer_has_closed());
    }
}

/// A NewSessionTicket message that rustls takes (RFC 8446 section 4.6.1), with a ticket of this length.
fn ticket(lifetime: u32, length: usize) -> Vec<u8> {
    let mut body = lifetime.to_be_bytes().to_vec();
    body.extend([1, 2, 3, 4]);
    body.extend([1, 7]);
    body.extend(u16::try_from(length).unwrap().to_be_bytes());
    body.extend(vec![9; length]);
    body.extend([0, 0]);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [
        &[NEW_SESSION_TICKET, length[1], length[2], length[3]],
        body.as_slice(),
    ]
    .concat()
}

/// Our client, with resumption, and our server, which gives no tickets by itself.
fn taking_tickets() -> (Session, Session) {
    let context = world().resuming();
    block_on(async {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Stream::Unix(near), Stream::Unix(far));
        let (client, server) = tokio::join!(connect_as(&context, &mut near), serve_as_us(&mut far));
        (client.unwrap().session, server.unwrap().session)
    })
}

fn tickets_left(session: &Session) -> u8 {
    match &session.side {
        Side::Client(taker) => taker.as_ref().map_or(0, |taker| taker.left),
        Side::Server => panic!("a server"),
    }
}

#[test]
fn a_client_at_rest_waits_for_tickets_until_data_has_come() {
    let (mut client, mut server) = taking_tickets();
    client.rest();
    assert_eq!(
        tickets_left(&client),
        MAX_TICKETS,
        "a late first answer brings one"
    );
    one_way(&mut server, &mut client);
    client.rest();
    assert_eq!(tickets_left(&client), 0);
    exchange(&mut client, &mut server);
}

#[test]
fn tickets_are_taken_up_to_a_bound_and_passed_over_beyond() {
    let (mut client, mut server) = taking_tickets();
    let tell = |client: &mut Session, server: &mut Session, message: &[u8]| {
        assert_eq!(
            hear(client, server, ContentType::Handshake, message),
            Ok(Received::Nothing)
        );
        tickets_left(client)
    };
    // One that says of itself that it is of no use, and one that is too long.
    assert_eq!(tell(&mut client, &mut server, &ticket(0, 32)), MAX_TICKETS);
    assert_eq!(
        tell(&mut client, &mut server, &ticket(60, MAX_TICKET)),
        MAX_TICKETS
    );
    for left in (0..MAX_TICKETS).rev() {
        assert_eq!(tell(&mut client, &mut server, &ticket(60, 32)), left);
    }
    // Not even looked at.
    assert_eq!(
        tell(&mut client, &mut server, &[NEW_SESSION_TICKET, 0, 0, 1, 7]),
        0
    );
    exchange(&mut client, &mut server);
    // And a flood is a flood.
    for _ in 0..MAX_IDLE_RECORDS {
        tell(&mut client, &mut server, &ticket(60, 32));
    }
    refused(AlertDescription::UnexpectedMessage)(
        hear(&mut client, &mut server, ContentType::Handshake, &ticket(60, 32)),
        "a flood",
    );
}

#[test]
fn a_malformed_ticket_ends_the_connection() {
    let good = ticket(60, 32);
    let body = good[4..].to_vec();
    let with_body = |body: &[u8]| {
        let length = u8::try_from(body.len()).unwrap();
        [&[NEW_SESSION_TICKET, 0, 0, length], body].concat()
    };
    let mut bodies: Vec<_> = (1..body.len()).map(|cut| body[..cut].to_vec()).collect();
    bodies.push([body.as_slice(), &[0]].concat());
    for bad in bodies {
        let (mut client, mut server) = taking_tickets();
        let heard = hear(&mut client, &mut server, ContentType::Handshake, &with_body(&bad));
        refused(AlertDescription::DecodeError)(heard, &format!("{bad:?}"));
    }
}

#[test]
fn a_renewal_message_is_whole_in_its_record_and_for_those_who_do_renewal() {
    let hello = renewal::message::hello();
    // Our client does not speak of it to a server that has not said so, nor does it hear of it.
    for suite in SUITES {
        let (established, _) = block_on(with_stock(false, suite));
        let mut session = established.session;
        assert!(session.renewal().is_none());
        assert!(!session.may_follow_handshake(RENEWAL));
    }
    for cut in 1..hello.len() {
        let (mut peer, mut session) = duo();
        let result = hear(&mut session, &mut peer, ContentType::Handshake, &hello[..cut]);
        refused(AlertDescription::UnexpectedMessage)(result, "a part");
    }
    for (what, message, alert) in [
        (
            "to a client that was not asked",
            hello.as_slice(),
            AlertDescription::UnexpectedMessage,
        ),
        (
            "of a kind that does not exist",
            &[RENEWAL, 0, 0, 1, 9],
            AlertDescription::DecodeError,
        ),
        (
            "that says it is larger than a record",
            &[RENEWAL, 0xff, 0xff, 0xff, 1],
            AlertDescription::UnexpectedMessage,
        ),
    ] {
        let (mut session, mut peer) = duo();
        refused(alert)(
            hear(&mut session, &mut peer, ContentType::Handshake, message),
            what,
        );
    }
    // Behind the end of another message, and before a key update.
    let (mut peer, mut session) = duo();
    let part = hear(&mut session, &mut peer, ContentType::Handshake, &[KEY_UPDATE, 0]);
    assert_eq!(part, Ok(Received::Nothing));
    let rest = [&[0, 1, 0][..], &hello].concat();
    refused(AlertDescription::UnexpectedMessage)(
        hear(&mut session, &mut peer, ContentType::Handshake, &rest),
        "behind a key update",
    );
    let (mut peer, mut session) = duo();
    let both = [hello.as_slice(), &UNREQUESTED].concat();
    let result = hear(&mut session, &mut peer, ContentType::Handshake, &both);
    assert_eq!(result, Ok(Received::Nothing));
    turn(&mut peer);
    assert_eq!(
        session.renewal().unwrap().next_heard(),
        Some(renewal::Heard::Hello)
    );
    exchange(&mut session, &mut peer);
}

#[test]
fn hellos_count_as_idle_talk_and_answers_do_not() {
    let (mut peer, mut session) = duo();
    session.idle_records = MAX_IDLE_RECORDS;
    let hello = renewal::message::hello();
    refused(AlertDescription::UnexpectedMessage)(
        hear(&mut session, &mut peer, ContentType::Handshake, &hello),
        "a flood",
    );
    let (mut session, mut peer) = duo();
    let (chain, key) = world().newer(OUR_ID);
    session.renewal().unwrap().offer(&chain, &key).unwrap();
    session.idle_records = MAX_IDLE_RECORDS - 1;
    let answer = renewal::message::answer(1, renewal::Verdict::Accepted);
    let heard = hear(&mut session, &mut peer, ContentType::Handshake, &answer);
    assert_eq!(heard, Ok(Received::Nothing));
    assert_eq!(session.idle_records, 0);
}
