//! The driver over real sockets, against stock rustls and against peers that misbehave.

use std::io::{Read, Write};
use std::time::Duration;

use rustls::{ClientConnection, Connection, ServerConnection};
use tokio::net::UnixStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::tls::session::Received;
use crate::tls::testing::*;

/// No test here takes as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

fn stock(we_serve: bool) -> Connection {
    if we_serve {
        ClientConnection::new(Arc::new(world().stock_client(AES_256)), name())
            .unwrap()
            .into()
    } else {
        ServerConnection::new(Arc::new(world().stock_server(AES_128)))
            .unwrap()
            .into()
    }
}

async fn ours(we_serve: bool, stream: UnixStream) -> (Result<Established, Failure>, Stream) {
    let mut stream = Stream::Unix(stream);
    let limit = timeout(LIMIT, async {
        if we_serve {
            serve_as_us(&mut stream).await
        } else {
            call_as_us(&mut stream).await
        }
    });
    (limit.await.expect("the handshake hangs"), stream)
}

/// Runs our end to its failure against a peer that sends these bytes, ends, and listens. Returns what it heard.
async fn against(we_serve: bool, bytes: Vec<u8>) -> (Failure, Vec<u8>) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let peer = async {
        far.write_all(&bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let we = async {
        let (result, stream) = ours(we_serve, near).await;
        stream.close_lingering().await;
        result.unwrap_err()
    };
    tokio::join!(we, peer)
}

/// Sends what a stock peer has to say in pieces of the sizes that `piece` gives, then lets it read once.
async fn exchange(
    peer: &mut Connection,
    stream: &mut UnixStream,
    piece: &mut impl FnMut() -> usize,
) -> Result<bool, TlsError> {
    let mut bytes = drain(peer);
    while !bytes.is_empty() {
        let rest = bytes.split_off(piece().clamp(1, bytes.len()));
        stream.write_all(&bytes).await.unwrap();
        bytes = rest;
        for _ in 0..3 {
            yield_now().await;
        }
    }
    if !peer.is_handshaking() {
        return Ok(true);
    }
    let mut heard = vec![0; 1 << 15];
    let read = stream.read(&mut heard).await.unwrap();
    let mut heard = &heard[..read];
    while !heard.is_empty() {
        peer.read_tls(&mut heard).unwrap();
        peer.process_new_packets()?;
    }
    Ok(read == 0)
}

/// A handshake in pieces; data and the end follow the peer's last flight in the same write.
async fn in_pieces(we_serve: bool, mut piece: impl FnMut() -> usize) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut peer = stock(we_serve);
    let mut said = false;
    let theirs = async {
        let mut done = false;
        while !done {
            if !peer.is_handshaking()
                || (we_serve && peer.wants_write() && peer.peer_certificates().is_some())
            {
                peer.writer().write_all(b"with the Finished").unwrap();
                peer.send_close_notify();
                said = true;
            }
            done = exchange(&mut peer, &mut far, &mut piece).await.unwrap();
        }
        if !said {
            peer.writer().write_all(b"with the Finished").unwrap();
            peer.send_close_notify();
            far.write_all(&drain(&mut peer)).await.unwrap();
        }
    };
    let ((established, mut stream), ()) = tokio::join!(ours(we_serve, near), theirs);
    let mut established = established.unwrap();
    assert_eq!(established.peer.id.to_string(), THEIR_ID);
    drop(far);
    stream.read_to_end(&mut established.unread).await.unwrap();
    let mut records = established.unread.as_mut_slice();
    let mut received = Vec::new();
    while !records.is_empty() {
        let length = super::super::record::record_length(records).unwrap().unwrap();
        let (record, rest) = records.split_at_mut(length);
        received.push(match established.session.receive(record).unwrap() {
            Received::Data(range) => record[range].to_vec(),
            Received::End => b"end".to_vec(),
            other => panic!("{other:?}"),
        });
        records = rest;
    }
    assert_eq!(received, [b"with the Finished".to_vec(), b"end".to_vec()]);
    // And the other way.
    let mut slot = vec![0; 64];
    slot[HEADER..HEADER + 5].copy_from_slice(b"heard");
    let length = established.session.seal_data(&mut slot, 5).unwrap();
    peer.read_tls(&mut &slot[..length]).unwrap();
    peer.process_new_packets().unwrap();
    let mut heard = [0; 5];
    peer.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"heard");
}

#[tokio::test]
async fn handshakes_in_pieces_of_every_size() {
    for we_serve in [false, true] {
        for size in [1, 2, 3, 5, 7, 64, 300, 1200, usize::MAX] {
            in_pieces(we_serve, || size).await;
        }
        for seed in 0..10 {
            let mut random = fastrand::Rng::with_seed(seed);
            in_pieces(we_serve, || 1 << random.u32(0..12)).await;
        }
    }
}

#[tokio::test]
async fn peer_leaves_in_the_middle() {
    for we_serve in [false, true] {
        // Before and in the first flight (a server's first flight answers ours, so there only the void is tried).
        let mut peer = stock(we_serve);
        let hello = if we_serve { drain(&mut peer) } else { Vec::new() };
        for cut in (0..=hello.len()).step_by(97).chain([hello.len()]) {
            let (failure, heard) = against(we_serve, hello[..cut].to_vec()).await;
            assert_eq!(
                failure.reason,
                Reason::HandshakeAborted,
                "after {cut} bytes: {failure:?}"
            );
            assert!(!failure.alerted);
            assert_eq!(
                heard.is_empty(),
                we_serve && cut < hello.len(),
                "we answer a whole hello only"
            );
        }
        // In a later flight.
        for cut in [0, 1, 5, 6, 100, 500] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let mut peer = stock(we_serve);
            let theirs = async {
                if we_serve {
                    far.write_all(&drain(&mut peer)).await.unwrap();
                }
                let mut heard = vec![0; 1 << 15];
                while !peer.wants_write() {
                    let read = far.read(&mut heard).await.unwrap();
                    let mut heard = &heard[..read];
                    while !heard.is_empty() {
                        peer.read_tls(&mut heard).unwrap();
                        peer.process_new_packets().unwrap();
                    }
                    if we_serve && peer.peer_certificates().is_none() {
                        let _ = drain(&mut peer);
                    }
                }
                far.write_all(&drain(&mut peer)[..cut]).await.unwrap();
                drop(far);
            };
            let ((result, _), ()) = tokio::join!(ours(we_serve, near), theirs);
            let failure = result.unwrap_err();
            assert_eq!(
                failure.reason,
                Reason::HandshakeAborted,
                "after {cut} bytes: {failure:?}"
            );
        }
    }
}

#[tokio::test]
async fn refused_certificate_in_a_record_with_more_behind_it() {
    // Stock rustls sends Certificate, CertificateVerify and Finished in one record. When the first is refused, the
    // others are still there: what is left to do is to send the alert, not to go on.
    let (near, far) = UnixStream::pair().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(world().stranger()));
    let peer = async {
        let mut tls = connector.connect(name(), far).await.unwrap();
        tls.read(&mut [0; 1]).await.unwrap_err().to_string()
    };
    let we = async {
        let (result, stream) = ours(true, near).await;
        stream.close_lingering().await;
        result.unwrap_err()
    };
    let (failure, heard) = tokio::join!(we, peer);
    assert_eq!(failure.reason, Reason::UntrustedChain, "{failure:?}");
    assert!(failure.alerted);
    assert!(heard.contains("UnknownCA"), "{heard}");
}

/// What a client that knows TLS 1.2 alone begins with.
fn tls12_hello() -> Vec<u8> {
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3,
    ];
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0, 0, extensions.len() as u8]);
    body.extend(extensions);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn what_is_no_handshake() {
    const ALERT: [u8; 5] = [21, 3, 3, 0, 2];
    let alert = |description: u8| [&ALERT[..], &[2, description]].concat();
    let junk = |header: &[u8], length: usize| [header, &vec![0xa5; length]].concat();
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    for (what, we_serve, bytes, reason, heard) in [
        ("HTTP", true, text.clone(), Reason::NotTls, Vec::new()),
        (
            "HTTP",
            false,
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            Reason::NotTls,
            Vec::new(),
        ),
        ("an alert first", true, alert(40), Reason::NotTls, Vec::new()),
        (
            "an alert first",
            false,
            alert(40),
            Reason::RefusedByPeer,
            Vec::new(),
        ),
        (
            "SSL 2",
            true,
            vec![0x80, 0x2e, 1, 3, 1],
            Reason::NotTls,
            Vec::new(),
        ),
        (
            "another major version",
            true,
            vec![22, 9, 1, 0, 1, 1],
            Reason::NotTls,
            Vec::new(),
        ),
        (
            "TLS 1.2",
            true,
            tls12_hello(),
            Reason::NoCommonParameters,
            alert(70),
        ),
        (
            "junk",
            true,
            junk(&[22, 3, 1, 0, 200, 1, 0, 0, 196], 196),
            Reason::ProtocolError,
            alert(50),
        ),
        (
            "junk",
            false,
            junk(&[22, 3, 3, 0, 200, 2, 0, 0, 196], 196),
            Reason::ProtocolError,
            alert(50),
        ),
        (
            "an empty record",
            true,
            vec![22, 3, 1, 0, 0],
            Reason::ProtocolError,
            alert(50),
        ),
        (
            "too long",
            true,
            junk(&[22, 3, 3, 255, 255], 100),
            Reason::ProtocolError,
            alert(50),
        ),
        (
            "too long",
            false,
            junk(&[22, 3, 3, 255, 255], 100),
            Reason::ProtocolError,
            alert(50),
        ),
        // For this one rustls has no alert.
        (
            "a long message",
            true,
            junk(&[22, 3, 3, 0, 5, 1, 2, 0, 0], 1),
            Reason::ProtocolError,
            Vec::new(),
        ),
    ] {
        let (failure, mut told) = against(we_serve, bytes).await;
        assert_eq!(failure.reason, reason, "{what}: {failure:?}");
        assert_eq!(failure.alerted, !heard.is_empty(), "{what}: {failure:?}");
        if !we_serve {
            // Our ClientHello came first.
            let hello = HEADER + usize::from(u16::from_be_bytes([told[3], told[4]]));
            told.drain(..hello);
        }
        assert_eq!(told, heard, "{what}");
    }
}

#[tokio::test]
async fn the_peers_alert_is_read_though_our_write_fails() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut bytes = drain(&mut stock(true));
    bytes.extend([21, 3, 3, 0, 2, 2, 49]);
    far.write_all(&bytes).await.unwrap();
    drop(far);
    let failure = ours(true, near).await.0.unwrap_err();
    assert_eq!(failure.reason, Reason::RefusedByPeer, "{failure:?}");
    assert!(failure.detail.contains("access_denied"), "{failure:?}");
    // Without an alert it is a peer that left.
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(&drain(&mut stock(true))).await.unwrap();
    drop(far);
    let failure = ours(true, near).await.0.unwrap_err();
    assert_eq!(failure.reason, Reason::HandshakeAborted, "{failure:?}");
}

#[tokio::test]
async fn a_silent_peer_is_waited_for_until_the_caller_gives_up() {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut near = Stream::Unix(near);
    assert!(
        timeout(Duration::from_millis(50), serve_as_us(&mut near))
            .await
            .is_err()
    );
}
