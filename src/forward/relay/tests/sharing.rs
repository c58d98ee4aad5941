//! What connections of one thread owe each other: buffers when idle, and turns when busy.

use std::future::pending;

use tokio::task::yield_now;

use super::super::super::buffer::{self, RATION, Size};
use super::*;

#[tokio::test]
async fn no_buffer_is_held_while_nothing_moves() {
    let Bench {
        ends,
        mut peer,
        mut app,
    } = Bench::new(true, None).await;
    let act = async {
        for length in [1, 100, 40_000] {
            let said = pattern(length);
            for _ in 0..3 {
                let (mut up, mut down) = (vec![0; length], vec![0; length]);
                peer.write_all(&said).await.unwrap();
                app.write_all(&said).await.unwrap();
                app.read_exact(&mut up).await.unwrap();
                peer.read_exact(&mut down).await.unwrap();
                assert!(up == said && down == said);
            }
            for _ in 0..20 {
                yield_now().await;
            }
            assert_eq!(buffer::taken(), 0, "idle after messages of {length} bytes");
        }
        peer.shutdown().await.unwrap();
        for _ in 0..20 {
            yield_now().await;
        }
        assert_eq!(buffer::taken(), 0, "half-closed");
    };
    tokio::select! {
        report = relayed(ends) => panic!("{:?}", report.ending),
        () = act => {}
    }
    assert_eq!(buffer::taken(), 0);
}

/// Sends and reads as fast as it goes, for ever; counts what was read.
async fn flood(io: impl AsyncRead + AsyncWrite, read: &std::cell::Cell<usize>) {
    let (mut from, mut to) = tokio::io::split(io);
    let chunk = pattern(1 << 16);
    let write = async { while to.write_all(&chunk).await.is_ok() {} };
    let take = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(some @ 1..) = from.read(&mut buffer).await {
            read.set(read.get() + some);
        }
    };
    tokio::join!(write, take);
}

#[tokio::test]
async fn a_busy_connection_starves_neither_its_other_direction_nor_another() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let busy = Bench::new(true, None).await;
            let calm = Bench::new(false, None).await;
            let relays = [
                tokio::task::spawn_local(async move { relay(busy.ends, HOUR, pending()).await.ending }),
                tokio::task::spawn_local(async move { relay(calm.ends, HOUR, pending()).await.ending }),
            ];
            let (up, down) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
            let (mut peer, mut app) = (calm.peer, calm.app);
            let talk = async {
                let mut longest = Duration::ZERO;
                let mut turns = 0;
                while turns < 50 || up.get() < 1 << 20 || down.get() < 1 << 20 {
                    let asked = std::time::Instant::now();
                    let mut heard = [0; 4];
                    peer.write_all(b"ping").await.unwrap();
                    // The floods of this task use up its budget: the peer's TLS may still hold the record.
                    peer.flush().await.unwrap();
                    app.read_exact(&mut heard).await.unwrap();
                    app.write_all(b"pong").await.unwrap();
                    peer.read_exact(&mut heard).await.unwrap();
                    longest = longest.max(asked.elapsed());
                    turns += 1;
                }
                (longest, up.get(), down.get())
            };
            let (longest, up, down) = tokio::select! {
                measured = timeout(Duration::from_secs(60), talk) => measured.expect("the calm connection starves"),
                () = flood(busy.peer, &down) => panic!("the busy connection ended"),
                () = flood(busy.app, &up) => panic!("the busy connection ended"),
            };
            // Both directions of the busy one have the same to do; neither may have it all.
            assert!(up < 20 * down && down < 20 * up, "{up} bytes up, {down} down");
            assert!(longest < Duration::from_secs(5), "{longest:?}");
            for relay in relays {
                relay.abort();
            }
        })
        .await;
}

/// Relays whose applications stop reading while their peers send.
const STALLED: usize = 64;
/// What each of those peers sends: more than the sockets on the way hold.
const FLOOD: usize = 1 << 20;
const ROOM: u32 = 1 << 16;

/// Waits until nothing more is sent.
async fn stall(sent: &std::cell::Cell<usize>) {
    let mut quiet = 0;
    let mut before = 0;
    while quiet < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        quiet = if sent.get() == before { quiet + 1 } else { 0 };
        before = sent.get();
    }
}

/// Sends all of [`FLOOD`] and ends; counts what went into the socket.
async fn send_flood(mut peer: Peer, sent: std::rc::Rc<std::cell::Cell<usize>>) -> Peer {
    for part in pattern(FLOOD).chunks(1 << 14) {
        peer.write_all(part).await.unwrap();
        sent.set(sent.get() + part.len());
    }
    peer.shutdown().await.unwrap();
    peer
}

/// Says something long in both directions, and hears it.
async fn talk(peer: &mut Peer, app: &mut TcpStream) {
    let said = pattern(300_000);
    let (mut up, mut down) = (vec![0; said.len()], vec![0; said.len()]);
    let peer_side = async {
        let (mut from, mut to) = tokio::io::split(peer);
        let say = async {
            to.write_all(&said).await.unwrap();
            to.flush().await.unwrap();
        };
        tokio::join!(say, async { from.read_exact(&mut down).await.unwrap() });
    };
    let app_side = async {
        let (mut from, mut to) = app.split();
        let say = async { to.write_all(&said).await.unwrap() };
        tokio::join!(say, async { from.read_exact(&mut up).await.unwrap() });
    };
    tokio::join!(peer_side, app_side);
    assert!(up == said && down == said);
}

#[tokio::test]
async fn readers_that_stop_cost_a_buffer_each_and_hold_up_nobody() {
    let local = tokio::task::LocalSet::new();
    let all = local.run_until(async {
        let sent = std::rc::Rc::new(std::cell::Cell::new(0));
        let mut stalled = Vec::new();
        for at in 0..STALLED {
            let Bench { ends, peer, app } = Bench::new(at % 2 == 0, Some(ROOM)).await;
            let relay = tokio::task::spawn_local(relay(ends, HOUR, pending()));
            let flood = tokio::task::spawn_local(send_flood(peer, sent.clone()));
            stalled.push((relay, flood, app));
        }
        stall(&sent).await;
        assert!(sent.get() < STALLED * FLOOD, "nobody was held back");
        // One buffer each, for the direction that is held back, and of the larger ones no more than the thread may
        // have; all of those are in use.
        assert_eq!(buffer::taken(), STALLED);
        let rationed = buffer::rationed();
        assert!(
            (RATION - Size::Large.bytes()..=RATION).contains(&rationed),
            "{rationed}"
        );
        // Others still get through, whatever they have to say.
        let Bench {
            ends,
            mut peer,
            mut app,
        } = Bench::new(true, None).await;
        let calm = tokio::task::spawn_local(relay(ends, HOUR, pending()));
        let began = std::time::Instant::now();
        for _ in 0..20 {
            let mut heard = [0; 4];
            peer.write_all(b"ping").await.unwrap();
            app.read_exact(&mut heard).await.unwrap();
            app.write_all(b"pong").await.unwrap();
            peer.read_exact(&mut heard).await.unwrap();
        }
        talk(&mut peer, &mut app).await;
        // Some milliseconds on an idle machine.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(buffer::taken(), STALLED);
        assert!(buffer::rationed() <= RATION);
        peer.shutdown().await.unwrap();
        drop(app);
        assert_eq!(calm.await.unwrap().ending.reason, Reason::Finished);
        // The readers go on.
        let expected = pattern(FLOOD);
        for (relay, flood, mut app) in stalled {
            let (heard, ended) = hear(&mut app).await;
            assert!(
                heard == expected && ended.is_ok(),
                "{} bytes, {ended:?}",
                heard.len()
            );
            drop(app);
            flood.await.unwrap();
            let report = relay.await.unwrap();
            assert_eq!(
                (report.ending.reason, report.opened),
                (Reason::Finished, FLOOD as u64)
            );
        }
        assert_eq!(buffer::taken(), 0);
        // What nobody needs goes back to the system.
        buffer::trim();
        buffer::trim();
        assert_eq!(buffer::rationed(), 0);
    });
    timeout(Duration::from_secs(60), all)
        .await
        .expect("somebody starves");
}
