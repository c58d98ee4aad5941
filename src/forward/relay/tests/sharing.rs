//! What connections of one thread owe each other: buffers when idle, and turns when busy.

use std::future::pending;

use tokio::task::yield_now;

use super::super::super::buffer;
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
