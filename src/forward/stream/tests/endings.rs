//! How streams end, and that no end looks cleaner than it is.

use super::*;
use crate::tls::testing::*;

/// After a failure: every read and every write fails, for the same reason.
async fn stays_failed(stream: &mut TlsStream, kind: io::ErrorKind) {
    let expected = stream.failure().unwrap().clone();
    for _ in 0..3 {
        let read = soon(stream.read(&mut [0; 10])).await.unwrap_err();
        let shown = soon(stream.fill_buf()).await.map(<[u8]>::len).unwrap_err();
        let written = soon(stream.write(b"more")).await.unwrap_err();
        let flushed = soon(stream.flush()).await.unwrap_err();
        let ended = soon(stream.shutdown()).await.unwrap_err();
        for error in [read, shown, written, flushed, ended] {
            assert_eq!((error.kind(), cause(&error)), (kind, &expected));
        }
    }
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    for we_serve in [false, true] {
        for peer_first in [false, true] {
            let Bench {
                mut stream,
                traffic,
                mut peer,
            } = Bench::new(we_serve, None).await;
            let mut heard = Vec::new();
            if peer_first {
                peer.write_all(b"question").await.unwrap();
                peer.shutdown().await.unwrap();
                soon(stream.read_to_end(&mut heard)).await.unwrap();
                assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0, "and again");
                stream.write_all(b"answer").await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(soon(peer.hear()).await, (b"answer".to_vec(), Ok(())));
            } else {
                stream.write_all(b"answer").await.unwrap();
                stream.shutdown().await.unwrap();
                stream.shutdown().await.unwrap();
                stream.flush().await.unwrap();
                let error = stream.write(b"more").await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                assert_eq!(cause(&error), &StreamError::ShutDown);
                assert_eq!(soon(peer.hear()).await, (b"answer".to_vec(), Ok(())));
                peer.write_all(b"question").await.unwrap();
                peer.shutdown().await.unwrap();
                soon(stream.read_to_end(&mut heard)).await.unwrap();
            }
            assert_eq!(heard, b"question");
            assert_eq!(counted(&traffic), (8, 6));
            assert_eq!(stream.failure(), None);
        }
    }
}

#[tokio::test]
async fn a_tcp_end_without_close_notify_is_an_error_behind_the_payload() {
    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    peer.write_all(b"half").await.unwrap();
    peer.flush().await.unwrap();
    let mut socket = peer.into_socket();
    socket.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let error = soon(stream.read_to_end(&mut heard)).await.unwrap_err();
    assert_eq!(
        (error.kind(), cause(&error)),
        (io::ErrorKind::UnexpectedEof, &StreamError::Truncated)
    );
    assert_eq!(heard, b"half");
    stays_failed(&mut stream, io::ErrorKind::UnexpectedEof).await;
    let mut wire = Vec::new();
    let ((), read) = soon(async {
        let abort = async {
            let linger = stream.abort(AlertDescription::DecodeError).await;
            linger.unwrap().close_lingering().await;
        };
        tokio::join!(abort, socket.read_to_end(&mut wire))
    })
    .await;
    read.unwrap();
    assert!(wire.len() >= 24, "an alert");
}

#[tokio::test]
async fn an_alert_and_a_reset_are_told() {
    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    stream.tls.write_all(BROKEN[0].0).await.unwrap();
    assert!(peer.hear().await.1.is_err());
    let error = soon(stream.read(&mut [0; 1])).await.unwrap_err();
    assert!(error.to_string().contains("bad_record_mac"), "{error}");
    assert_eq!(cause(&error), &StreamError::Alert(AlertDescription::BadRecordMac));
    stays_failed(&mut stream, io::ErrorKind::ConnectionReset).await;
    assert!(stream.abort(AlertDescription::InternalError).await.is_none());

    let Bench { mut stream, peer, .. } = Bench::new(false, None).await;
    reset(peer.into_socket());
    let error = soon(stream.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    stays_failed(&mut stream, io::ErrorKind::ConnectionReset).await;
}

#[tokio::test]
async fn a_peer_that_breaks_tls_is_told_so() {
    for (bytes, alert) in BROKEN {
        let Bench {
            mut stream, mut peer, ..
        } = Bench::new(true, None).await;
        peer.write_all(b"good").await.unwrap();
        peer.flush().await.unwrap();
        peer.socket().write_all(bytes).await.unwrap();
        let mut heard = Vec::new();
        let error = soon(stream.read_to_end(&mut heard)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(matches!(cause(&error), StreamError::Broken(_)), "{error}");
        assert_eq!(heard, b"good");
        // Told by the read itself.
        let (heard, ended) = soon(peer.hear()).await;
        assert!(heard.is_empty());
        assert!(ended.unwrap_err().contains(alert));
        stays_failed(&mut stream, io::ErrorKind::InvalidData).await;
    }
}

/// Writes until nothing more goes: a record lies half in the socket. Returns how much was taken.
async fn fill_up(stream: &mut TlsStream, said: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(taken) = timeout(Duration::from_millis(50), stream.write(&said[sent..])).await {
        sent += taken.unwrap();
    }
    sent
}

#[tokio::test]
async fn a_record_half_written_is_finished_before_the_alert() {
    for broken in [false, true] {
        let Bench {
            mut stream,
            traffic,
            mut peer,
        } = Bench::new(true, Some(4096)).await;
        let said = pattern(1 << 20);
        let sent = fill_up(&mut stream, &said).await;
        let expected = if broken {
            // The alert that the read could not write is written by whoever writes next.
            peer.socket().write_all(BROKEN[0].0).await.unwrap();
            let error = soon(stream.read(&mut [0; 1])).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            "BadRecordMac"
        } else {
            "AccessDenied"
        };
        let act = async {
            let linger = stream.abort(AlertDescription::AccessDenied).await;
            linger.unwrap().close_lingering().await;
        };
        let ((), (heard, ended)) = soon(async { tokio::join!(act, peer.hear()) }).await;
        let ended = ended.unwrap_err();
        assert!(ended.contains(expected), "{ended}");
        assert!(heard == said[..sent]);
        if !broken {
            assert_eq!(counted(&traffic).1, sent as u64);
        }
        assert_eq!(buffer::taken(), 0);
    }
}

#[tokio::test]
async fn dropped_without_a_word_it_is_a_truncation_and_closed_an_end() {
    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    stream.write_all(b"half").await.unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    let (heard, ended) = soon(peer.hear()).await;
    assert_eq!(heard, b"half");
    assert!(ended.unwrap_err().contains("close_notify"));

    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    // What the peer says unheard would make the system reset the connection.
    peer.write_all(b"unheard").await.unwrap();
    peer.flush().await.unwrap();
    stream.write_all(b"whole").await.unwrap();
    let listen = async {
        let heard = peer.hear().await;
        drop(peer);
        heard
    };
    let (closed, heard) = soon(async { tokio::join!(stream.close(), listen) }).await;
    closed.unwrap();
    assert_eq!(heard, (b"whole".to_vec(), Ok(())));
}

#[tokio::test]
async fn what_a_peer_said_before_it_left_is_read_after_writing_failed() {
    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    peer.write_all(b"too large").await.unwrap();
    peer.shutdown().await.unwrap();
    drop(peer.into_socket());
    let error = soon(async {
        loop {
            if let Err(error) = stream.write(b"body").await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(cause(&error), StreamError::Socket { .. }), "{error}");
    let mut heard = Vec::new();
    soon(stream.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"too large");
    assert!(stream.write(b"body").await.is_err() && stream.shutdown().await.is_err());
}

#[tokio::test]
async fn a_writer_that_waits_is_woken_when_reading_fails() {
    for how in [How::Alert, How::Broken, How::Truncated] {
        tokio::task::LocalSet::new().run_until(woken(how)).await;
    }
}

#[derive(Clone, Copy, Debug)]
enum How {
    Alert,
    Broken,
    Truncated,
}

async fn woken(how: How) {
    // A peer that ends the connection so and reads nothing: the socket stays open, and full.
    let (near, far) = tcp_pair(Some(2048)).await;
    let (mut near, mut far) = (Stream::Tcp(near), Stream::Tcp(far));
    let (ours, theirs) = tokio::join!(serve_as_us(&mut near), call_as_us(&mut far));
    let (ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    let mut stream = TlsStream::new(&permit(), near, ours.session, ours.unread, meter().0);
    fill_up(&mut stream, &pattern(1 << 20)).await;
    let (mut from, mut to) = tokio::io::split(stream);
    {
        // Of tasks of their own, so that one's wake-up is not the other's.
        let writer = tokio::task::spawn_local(async move { to.write(b"more").await });
        let reader = tokio::task::spawn_local(async move { from.read(&mut [0; 1]).await });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(!writer.is_finished() && !reader.is_finished());
        let mut words = Vec::new();
        let sealed = theirs
            .session
            .seal_fatal(AlertDescription::AccessDenied, &mut words);
        sealed.unwrap();
        match how {
            How::Alert => far.write_all(&words).await.unwrap(),
            How::Broken => {
                *words.last_mut().unwrap() ^= 1;
                far.write_all(&words).await.unwrap();
            }
            How::Truncated => far.shutdown().await.unwrap(),
        }
        for task in [reader, writer] {
            let error = soon(task).await.unwrap().unwrap_err();
            let as_expected = match cause(&error) {
                StreamError::Alert(alert) => {
                    matches!(how, How::Alert) && *alert == AlertDescription::AccessDenied
                }
                StreamError::Broken(_) => matches!(how, How::Broken),
                StreamError::Truncated => matches!(how, How::Truncated),
                _ => false,
            };
            assert!(as_expected, "{how:?}: {error}");
        }
    }
    assert_eq!(buffer::taken(), 0);
}
