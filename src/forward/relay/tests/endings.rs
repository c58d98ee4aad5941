//! How connections end, and that no end hangs, loses what was sent before it, or looks cleaner than it is.

use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn each_direction_ends_by_itself() {
    for we_serve in [false, true] {
        for peer_first in [false, true] {
            let Bench {
                ends,
                mut peer,
                mut app,
            } = Bench::new(we_serve, None).await;
            let ends_here = async {
                if peer_first {
                    peer.write_all(b"question").await.unwrap();
                    peer.shutdown().await.unwrap();
                    assert_eq!(hear(&mut app).await, (b"question".to_vec(), Ok(())));
                    app.write_all(b"answer").await.unwrap();
                    drop(app);
                    assert_eq!(peer.hear().await, (b"answer".to_vec(), Ok(())));
                } else {
                    app.write_all(b"question").await.unwrap();
                    app.shutdown().await.unwrap();
                    assert_eq!(peer.hear().await, (b"question".to_vec(), Ok(())));
                    peer.write_all(b"answer").await.unwrap();
                    peer.shutdown().await.unwrap();
                    drop(peer);
                    assert_eq!(hear(&mut app).await, (b"answer".to_vec(), Ok(())));
                }
            };
            let (report, ()) = tokio::join!(relayed(ends), ends_here);
            assert_eq!(report.ending.reason, Reason::Finished, "{:?}", report.ending);
            let expected = if peer_first { (8, 6) } else { (6, 8) };
            assert_eq!((report.opened, report.sealed), expected);
        }
    }
}

#[tokio::test]
async fn early_answer_of_an_application_that_takes_no_more() {
    // An HTTP server that refuses a long upload answers, closes, and resets what still comes.
    for length in [10, 100_000] {
        let Bench {
            ends,
            mut peer,
            mut app,
        } = Bench::new(true, None).await;
        let answer = pattern(length);
        let mut early = Vec::new();
        let serve = async {
            app.read_exact(&mut [0; 1000]).await.unwrap();
            app.write_all(&answer).await.unwrap();
            drop(app);
        };
        let call = async {
            {
                let (mut hearing, mut saying) = tokio::io::split(&mut peer);
                let chunk = pattern(1 << 16);
                let upload = async { while saying.write_all(&chunk).await.is_ok() {} };
                let mut first = [0; 1];
                tokio::select! {
                    () = upload => {}
                    heard = hearing.read(&mut first) => { early.extend(&first[..heard.unwrap_or(0)]); }
                }
            }
            peer.hear().await
        };
        let (report, (rest, ended), ()) = tokio::join!(relayed(ends), call, serve);
        let heard = [early, rest].concat();
        assert_eq!(heard.len(), answer.len(), "{ended:?} {:?}", report.ending);
        assert!(heard == answer);
        assert_eq!(
            report.ending.reason,
            Reason::ApplicationReset,
            "{:?}",
            report.ending
        );
        // The application's end was a reset, or came before it.
        assert!(
            ended.is_ok() || ended.as_ref().unwrap_err().contains("InternalError"),
            "{ended:?}"
        );
        assert_eq!(report.sealed, length as u64);
    }
}

#[tokio::test]
async fn refusal_of_a_server_is_read_though_our_writes_fail() {
    // The server judges a client after the client's handshake is over. It closes with our data unread, so that its
    // kernel resets the connection, and our writes fail while its alert waits to be read.
    let (near, far) = tcp_pair(None).await;
    let (plain, mut app) = tcp_pair(None).await;
    let (mut near, mut far) = (Stream::Tcp(near), Stream::Tcp(far));
    let (ours, theirs) = tokio::join!(call_as_us(&mut near), serve_as_us(&mut far));
    let (ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    app.write_all(&pattern(100_000)).await.unwrap();
    near.write_all(b"left unread").await.unwrap();
    let mut alert = Vec::new();
    theirs
        .session
        .seal_fatal(AlertDescription::AccessDenied, &mut alert)
        .unwrap();
    far.write_all(&alert).await.unwrap();
    drop(far);
    let ends = Ends {
        tls: near,
        session: ours.session,
        unread: ours.unread,
        plain: Stream::Tcp(plain),
    };
    let report = relayed(ends).await;
    assert_eq!(report.ending.reason, Reason::RefusedByPeer, "{:?}", report.ending);
    assert!(hear(&mut app).await.1.is_err(), "the application sees a reset");
}

#[tokio::test]
async fn data_before_an_end_arrives_though_the_peer_is_gone() {
    // The peer says all it has, ends, and goes; the application ends early and reads late. What the peer says fits into our
    // socket: what were still in its own would go with it, as it leaves our end unread.
    let (tls, established, mut peer) = tls_pair(true, None).await;
    let (plain, mut app) = tcp_pair(Some(4096)).await;
    let ends = Ends {
        tls,
        session: established.session,
        unread: established.unread,
        plain: Stream::Tcp(plain),
    };
    let said = pattern(40_000);
    app.shutdown().await.unwrap();
    let whole = async {
        peer.write_all(&said).await.unwrap();
        peer.shutdown().await.unwrap();
        drop(peer);
    };
    let listen = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        hear(&mut app).await
    };
    let (report, (), (heard, ended)) = tokio::join!(relayed(ends), whole, listen);
    assert_eq!((heard.len(), ended), (said.len(), Ok(())), "{:?}", report.ending);
    assert!(heard == said);
    assert_eq!(report.ending.reason, Reason::Finished, "{:?}", report.ending);
}

#[tokio::test]
async fn an_end_that_cannot_be_told_is_no_failure() {
    // The peer ended its data and is gone before our close_notify is written.
    let Bench {
        ends,
        mut peer,
        mut app,
    } = Bench::new(true, None).await;
    peer.write_all(b"all").await.unwrap();
    peer.shutdown().await.unwrap();
    reset(peer.into_socket());
    let talk = async {
        let mut heard = [0; 3];
        app.read_exact(&mut heard).await.unwrap();
        // Fails where the reset was passed on already.
        let _ = app.shutdown().await;
        hear(&mut app).await
    };
    let (report, heard) = tokio::join!(relayed(ends), talk);
    // The reset may be seen first, and is one, then.
    match report.ending.reason {
        Reason::Finished => assert_eq!(heard, (Vec::new(), Ok(()))),
        // The end of data came before the reset, and the application may have read it by then.
        Reason::PeerReset => assert_eq!(heard.0, Vec::<u8>::new()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reset_when_both_had_ended_is_no_failure() {
    let Bench {
        ends,
        mut peer,
        mut app,
    } = Bench::new(true, None).await;
    let act = async {
        app.shutdown().await.unwrap();
        // Whoever closes a socket with our close_notify unread in it has its system answer by a reset.
        peer.socket().peek(&mut [0; 1]).await.unwrap();
        peer.end_data().await;
        drop(peer.into_socket());
        hear(&mut app).await
    };
    let (report, heard) = tokio::join!(relayed(ends), act);
    assert_eq!(report.ending.reason, Reason::Finished, "{:?}", report.ending);
    assert_eq!(heard, (Vec::new(), Ok(())));
}

#[tokio::test]
async fn a_reset_before_our_end_has_left_is_a_failure() {
    // Which direction sees it may differ.
    for _ in 0..2 {
        let Bench {
            ends,
            mut peer,
            mut app,
        } = Bench::new(true, Some(4096)).await;
        // As much as the peer's system has room for: our close_notify must wait behind it.
        let fill = async || {
            poll_fn(|cx| ends.tls.poll_try_write(cx, &[0; 4096]))
                .await
                .unwrap()
        };
        while timeout(Duration::from_millis(500), fill()).await.is_ok() {}
        app.shutdown().await.unwrap();
        peer.end_data().await;
        let act = async {
            assert_eq!(
                app.read(&mut [0; 1]).await.unwrap(),
                0,
                "the peer's end is passed on"
            );
            reset(peer.into_socket());
        };
        let (report, ()) = tokio::join!(relayed(ends), act);
        assert_eq!(report.ending.reason, Reason::PeerReset, "{:?}", report.ending);
    }
}

#[tokio::test]
async fn a_reset_after_the_end_of_data_is_seen_while_nothing_is_written() {
    for by_peer in [false, true] {
        let Bench {
            ends,
            mut peer,
            mut app,
        } = Bench::new(true, None).await;
        let act = async {
            if by_peer {
                // As a peer does that ends its side of the socket, too, and dies later.
                peer.shutdown().await.unwrap();
                assert_eq!(app.read(&mut [0; 1]).await.unwrap(), 0);
                let mut stream = peer.into_socket();
                stream.shutdown().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                reset(stream);
                // It has read the end; what it writes must fail, and so soon that `relayed` does not give up.
                while app.write_all(b"x").await.is_ok() {
                    tokio::task::yield_now().await;
                }
            } else {
                app.shutdown().await.unwrap();
                assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
                reset(app);
                // Open until the relay is through: its own end must not come first.
                return Some(peer);
            }
            None
        };
        let (report, _peer) = tokio::join!(relayed(ends), act);
        let expected = if by_peer {
            Reason::PeerReset
        } else {
            Reason::ApplicationReset
        };
        assert_eq!(report.ending.reason, expected, "{:?}", report.ending);
    }
}

#[tokio::test]
async fn resets_and_cuts_are_passed_on() {
    // (who, whether by a reset) -> the reason.
    for we_serve in [false, true] {
        for (by_peer, by_reset, reason) in [
            (true, true, Reason::PeerReset),
            (true, false, Reason::PeerTruncated),
            (false, true, Reason::ApplicationReset),
        ] {
            let Bench {
                ends,
                mut peer,
                mut app,
            } = Bench::new(we_serve, None).await;
            let act = async {
                peer.write_all(b"up").await.unwrap();
                app.write_all(b"down").await.unwrap();
                app.read_exact(&mut [0; 2]).await.unwrap();
                peer.read_exact(&mut [0; 4]).await.unwrap();
                if by_peer {
                    let mut stream = peer.into_socket();
                    if by_reset {
                        reset(stream);
                    } else {
                        stream.shutdown().await.unwrap();
                        let mut alert = Vec::new();
                        stream.read_to_end(&mut alert).await.unwrap();
                        assert_eq!(alert.len(), 24, "one sealed alert");
                    }
                    let (heard, ended) = hear(&mut app).await;
                    assert!(heard.is_empty());
                    assert!(ended.unwrap_err().contains("reset"));
                } else {
                    reset(app);
                    let (heard, ended) = peer.hear().await;
                    assert!(heard.is_empty());
                    assert!(ended.unwrap_err().contains("InternalError"));
                }
            };
            let (report, ()) = tokio::join!(relayed(ends), act);
            assert_eq!(report.ending.reason, reason, "{:?}", report.ending);
            assert_eq!((report.opened, report.sealed), (2, 4));
        }
    }
}

#[tokio::test]
async fn a_peer_that_breaks_tls_is_told_so() {
    for (bytes, alert) in BROKEN {
        let Bench {
            ends,
            mut peer,
            mut app,
        } = Bench::new(true, None).await;
        let act = async {
            peer.socket().write_all(bytes).await.unwrap();
            let (heard, ended) = peer.hear().await;
            assert!(heard.is_empty());
            let ended = ended.unwrap_err();
            assert!(ended.contains(alert), "{ended}");
            assert!(hear(&mut app).await.1.is_err());
        };
        let (report, ()) = tokio::join!(relayed(ends), act);
        assert_eq!(report.ending.reason, Reason::ProtocolError, "{:?}", report.ending);
    }
}

#[tokio::test]
async fn a_record_half_written_is_finished_before_the_alert() {
    for we_serve in [false, true] {
        for _ in 0..2 {
            let Bench {
                ends,
                mut peer,
                mut app,
            } = Bench::new(we_serve, Some(4096)).await;
            let (close, closed) = oneshot::channel::<()>();
            let closed = async {
                let _ = closed.await;
                Ending::new(Reason::PolicyChange)
            };
            let said = pattern(1 << 20);
            let act = async {
                // Writes until nothing more goes: a record lies half in the socket.
                let mut sent = 0;
                while let Ok(Ok(some)) = timeout(Duration::from_millis(50), app.write(&said[sent..])).await {
                    sent += some;
                }
                close.send(()).unwrap();
                tokio::task::yield_now().await;
                let (heard, ended) = peer.hear().await;
                let ended = ended.unwrap_err();
                assert!(ended.contains("AccessDenied"), "{ended}");
                assert!(heard[..] == said[..heard.len()] && !heard.is_empty());
                assert!(hear(&mut app).await.1.is_err());
                heard.len() as u64
            };
            let (report, heard) = tokio::join!(relay(ends, HOUR, closed), act);
            assert_eq!(report.ending.reason, Reason::PolicyChange);
            assert_eq!(report.sealed, heard, "what was counted is what arrived");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_end_and_busy_ones_do_not() {
    let Bench {
        ends,
        mut peer,
        mut app,
    } = Bench::new(true, None).await;
    let idle = Duration::from_secs(10);
    let act = async {
        // Each pause is shorter than the limit, all together are longer, and either direction counts.
        for turn in 0..6 {
            tokio::time::sleep(Duration::from_secs(7)).await;
            if turn % 2 == 0 {
                peer.write_all(b"x").await.unwrap();
                app.read_exact(&mut [0; 1]).await.unwrap();
            } else {
                app.write_all(b"x").await.unwrap();
                peer.read_exact(&mut [0; 1]).await.unwrap();
            }
        }
        let last = Instant::now();
        let ended = peer.hear().await.1.unwrap_err();
        assert!(ended.contains("InternalError"), "{ended}");
        assert!(hear(&mut app).await.1.is_err());
        let waited = last.elapsed();
        assert!(
            waited >= idle && waited < idle + Duration::from_secs(2),
            "{waited:?}"
        );
    };
    let (report, ()) = tokio::join!(relay(ends, idle, std::future::pending()), act);
    assert_eq!(report.ending.reason, Reason::IdleTimeout);
}
