//! Two relays, a client's and a server's, whose connection is renewed while it does what connections do.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use atomic_waker::AtomicWaker;

use super::super::super::buffer;
use super::*;
use crate::forward::renewing::Refused;
use crate::tls::renewal::{Heard, Verdict};

/// What a test sees and steers of one end.
#[derive(Debug, Default)]
struct Desk {
    orders: AtomicUsize,
    said: AtomicUsize,
    heard: Mutex<Vec<&'static str>>,
    refuses: bool,
    task: AtomicWaker,
}

impl Desk {
    fn order(&self) {
        self.orders.fetch_add(1, Ordering::Relaxed);
        self.task.wake();
    }

    fn heard(&self) -> Vec<&'static str> {
        self.heard.lock().unwrap().clone()
    }

    fn said(&self) -> usize {
        self.said.load(Ordering::Relaxed)
    }

    /// Waits until the last that was heard is this.
    async fn until(&self, count: usize, last: &str) {
        let wait = async {
            while self.heard().iter().filter(|heard| **heard == last).count() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "{:?}", self.heard());
    }
}

/// Renews as it is ordered, and takes what verifies.
#[derive(Debug)]
struct Clerk {
    desk: Arc<Desk>,
    svid: Newer,
}

impl Renewing for Clerk {
    fn begin(&mut self, session: &mut Session) {
        session.renewal().unwrap().greet();
    }

    fn is_due(&self) -> bool {
        self.desk.orders.load(Ordering::Relaxed) > 0
    }

    fn say(&mut self, session: &mut Session) {
        self.desk.orders.fetch_sub(1, Ordering::Relaxed);
        if session
            .renewal()
            .unwrap()
            .offer(&self.svid.0, &self.svid.1)
            .is_ok()
        {
            self.desk.said.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hear(&mut self, heard: Heard, session: &mut Session) -> Result<(), Refused> {
        let word = match heard {
            Heard::Hello => "hello",
            Heard::Answer(_) => "answer",
            Heard::Renewal(_) if self.desk.refuses => {
                return Err(Refused::new(
                    AlertDescription::DecryptError,
                    "refused by the test".to_owned(),
                ));
            }
            Heard::Renewal(renewal) => {
                session.check_renewal(&renewal).unwrap();
                session.renewal().unwrap().answer(Verdict::Accepted);
                "renewal"
            }
        };
        self.desk.heard.lock().unwrap().push(word);
        Ok(())
    }
}

/// A relay with what steers its renewals, and the application at its end.
struct End {
    ends: Ends,
    desk: Arc<Desk>,
    app: TcpStream,
}

impl End {
    async fn relay(ends: Ends, desk: Arc<Desk>, idle: Duration) -> Ending {
        let clerk = Clerk {
            desk: desk.clone(),
            svid: world().newer(OUR_ID),
        };
        let told = std::future::poll_fn(move |cx| {
            desk.task.register(cx.waker());
            std::task::Poll::<Ending>::Pending
        });
        let ended = run(&permit(), ends, meter().0, idle, Some(Box::new(clerk)), told).await;
        if let Some(stream) = ended.linger {
            stream.close_lingering().await;
        }
        ended.ending
    }
}

/// The client's end and the server's.
async fn duo(room: Option<u32>, refuses: bool) -> [End; 2] {
    let (near, far) = tcp_pair(room).await;
    let (mut near, mut far) = (Stream::Tcp(near), Stream::Tcp(far));
    let (client, server) = tokio::join!(call_as_us(&mut near), serve_as_us(&mut far));
    let mut made = Vec::new();
    for (tls, established) in [(near, client.unwrap()), (far, server.unwrap())] {
        let (plain, app) = tcp_pair(room).await;
        let desk = Desk {
            refuses,
            ..Desk::default()
        };
        made.push(End {
            ends: Ends {
                tls,
                session: established.session,
                unread: established.unread,
                plain: Stream::Tcp(plain),
            },
            desk: Arc::new(desk),
            app,
        });
    }
    made.try_into().ok().unwrap()
}

/// Plays with both ends while their relays run; how those ended.
async fn play<F>(
    ends: [End; 2],
    idle: Duration,
    act: impl FnOnce([(Arc<Desk>, TcpStream); 2]) -> F,
) -> [Ending; 2]
where
    F: Future<Output = ()>,
{
    let [client, server] = ends;
    let relays = [
        End::relay(client.ends, client.desk.clone(), idle),
        End::relay(server.ends, server.desk.clone(), idle),
    ];
    let [first, second] = relays;
    let act = act([(client.desk, client.app), (server.desk, server.app)]);
    let all = async { tokio::join!(first, second, act) };
    let (first, second, ()) = timeout(Duration::from_secs(60), all).await.expect("it hangs");
    [first, second]
}

#[tokio::test]
async fn a_quiet_connection_is_renewed_and_stays_at_rest() {
    let endings = play(duo(None, false).await, HOUR, async |[mut client, mut server]| {
        // The client says so by itself when the connection has lasted, and both have settled by then.
        server.0.until(1, "hello").await;
        for round in 1..=3 {
            client.0.order();
            server.0.until(round, "renewal").await;
            client.0.until(round, "answer").await;
            server.0.order();
            client.0.until(round, "renewal").await;
            server.0.until(round, "answer").await;
            assert_eq!(buffer::taken(), 0);
        }
        // Data flows as before.
        client.1.write_all(b"question").await.unwrap();
        server.1.read_exact(&mut [0; 8]).await.unwrap();
        drop(client.1);
        assert_eq!(hear(&mut server.1).await, (Vec::new(), Ok(())));
    })
    .await;
    for ending in endings {
        assert_eq!(ending.reason, Reason::Finished, "{ending:?}");
    }
}

#[tokio::test]
async fn renewals_do_not_put_off_the_idle_time_out() {
    let begun = std::time::Instant::now();
    let endings = play(
        duo(None, false).await,
        Duration::from_millis(600),
        async |[client, server]| {
            let renew = async {
                for round in 1.. {
                    client.0.order();
                    server.0.until(round, "renewal").await;
                    client.0.until(round, "answer").await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            // Both applications see that it was no end.
            let mut apps = [client.1, server.1];
            let cut = async {
                for app in &mut apps {
                    assert!(hear(app).await.1.is_err());
                }
            };
            tokio::select! {
                () = cut => {}
                () = renew => {}
            }
            assert!(server.0.heard().len() > 3, "{:?}", server.0.heard());
        },
    )
    .await;
    let lasted = begun.elapsed();
    assert!(lasted < Duration::from_millis(1500), "{lasted:?}");
    assert!(
        endings.iter().any(|ending| ending.reason == Reason::IdleTimeout),
        "{endings:?}"
    );
}

#[tokio::test]
async fn among_much_data_both_ways_nothing_is_lost() {
    let said = pattern(3 << 20);
    let endings = play(duo(Some(1 << 16), false).await, HOUR, async |[client, server]| {
        let mut desks = Vec::new();
        let mut flows = Vec::new();
        for (desk, app) in [client, server] {
            desks.push(desk);
            let (mut from, mut to) = app.into_split();
            let said = &said;
            flows.push(async move {
                let say = async {
                    to.write_all(said).await.unwrap();
                    to.shutdown().await.unwrap();
                };
                let ((), heard) = tokio::join!(say, hear(&mut from));
                assert!(heard.0 == *said && heard.1.is_ok(), "{:?}", heard.1);
            });
        }
        let order = async {
            loop {
                for desk in &desks {
                    desk.order();
                }
                tokio::task::yield_now().await;
            }
        };
        let mut flows = flows.into_iter();
        let (one, two) = (flows.next().unwrap(), flows.next().unwrap());
        tokio::select! {
            ((), ()) = async { tokio::join!(one, two) } => {}
            () = order => {}
        }
        // Neither has ended its direction before it had renewed some.
        for desk in desks {
            assert!(desk.said() > 2, "{}", desk.said());
            assert!(desk.heard().iter().filter(|heard| **heard == "renewal").count() > 2);
        }
    })
    .await;
    for ending in endings {
        assert_eq!(ending.reason, Reason::Finished, "{ending:?}");
    }
}

#[tokio::test]
async fn an_end_whose_direction_is_through_says_no_more_and_its_peer_goes_on() {
    for client_ends in [true, false] {
        let endings = play(duo(None, false).await, HOUR, async |[client, server]| {
            server.0.until(1, "hello").await;
            let ([mut through, mut open], renewals) = if client_ends {
                ([client, server], 0)
            } else {
                ([server, client], 0)
            };
            through.1.write_all(b"question").await.unwrap();
            through.1.shutdown().await.unwrap();
            assert_eq!(hear(&mut open.1).await, (b"question".to_vec(), Ok(())));
            // This one can't be said any more, and that one can't be answered.
            through.0.order();
            open.0.order();
            through.0.until(1, "renewal").await;
            assert_eq!((through.0.said(), open.0.said()), (renewals, 1));
            for _ in 0..3 {
                open.1.write_all(b"answer").await.unwrap();
                through.1.read_exact(&mut [0; 6]).await.unwrap();
            }
            assert!(
                open.0.heard().iter().all(|heard| *heard == "hello"),
                "{:?}",
                open.0.heard()
            );
            drop(open.1);
            assert_eq!(hear(&mut through.1).await, (Vec::new(), Ok(())));
        })
        .await;
        for ending in endings {
            assert_eq!(ending.reason, Reason::Finished, "{ending:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_ends_both_sides_and_looks_like_no_end() {
    let endings = play(duo(None, true).await, HOUR, async |[mut client, mut server]| {
        client.1.write_all(b"question").await.unwrap();
        server.1.read_exact(&mut [0; 8]).await.unwrap();
        server.1.write_all(b"answer").await.unwrap();
        client.1.read_exact(&mut [0; 6]).await.unwrap();
        client.0.order();
        assert!(hear(&mut server.1).await.1.is_err());
        assert!(hear(&mut client.1).await.1.is_err());
    })
    .await;
    let [client, server] = endings;
    assert_eq!(server.reason, Reason::RenewalRefused);
    assert_eq!(server.detail.as_deref(), Some("refused by the test"));
    assert_eq!(client.reason, Reason::PeerReset);
    assert!(client.detail.unwrap().contains("decrypt_error"));
}

#[tokio::test]
async fn a_reader_that_has_stopped_holds_a_renewal_back_and_is_not_harmed() {
    let said = pattern(1 << 20);
    let endings = play(
        duo(Some(1 << 14), false).await,
        HOUR,
        async |[mut client, mut server]| {
            // Nobody reads what the client's application says.
            let mut sent = 0;
            while let Ok(written) = timeout(Duration::from_millis(200), client.1.write(&said[sent..])).await {
                sent += written.unwrap();
            }
            assert!(sent < said.len());
            client.0.order();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(server.0.heard(), Vec::<&str>::new());
            let rest = async {
                client.1.write_all(&said[sent..]).await.unwrap();
                client.1.shutdown().await.unwrap();
            };
            let ((), heard) = tokio::join!(rest, hear(&mut server.1));
            assert!(heard.0 == said && heard.1.is_ok());
            assert_eq!(server.0.heard().last(), Some(&"renewal"));
            drop(server.1);
            assert!(hear(&mut client.1).await.1.is_ok());
        },
    )
    .await;
    for ending in endings {
        assert_eq!(ending.reason, Reason::Finished, "{ending:?}");
    }
}

#[tokio::test]
async fn what_is_quiet_costs_little_memory() {
    let [client, _server] = duo(None, false).await;
    let relay = run(
        &permit(),
        client.ends,
        meter().0,
        HOUR,
        None,
        std::future::pending::<Ending>(),
    );
    // `ARCHITECTURE.md` tells it.
    let size = size_of_val(&relay);
    assert!((900..=1020).contains(&size), "{size} bytes");
}
