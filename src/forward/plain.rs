//! Two plaintext sockets and what lies between them: for connections that are passed on unprotected.
//!
//! As the relay does, it passes an end on as an end and everything else as a reset, holds back a writer whose reader is
//! slow, and takes a buffer only while there is something to move.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::meter::Meter;
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;

/// What is moved at a time.
const BUFFER: usize = 16 << 10;

/// Moves bytes until both directions have ended, a side fails, nothing moved for `idle`, or `close` says so. `until_answered`
/// is dropped when a byte has come from `there`, or at the end.
pub async fn run(
    application: Stream,
    (there, until_answered): (Stream, impl Sized),
    meter: &Meter,
    idle: Duration,
    close: impl Future<Output = Ending>,
) -> Ending {
    let began = Instant::now();
    // Milliseconds from `began` to the last move.
    let last = AtomicU64::new(0);
    let moved = || {
        let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        last.store(now, Ordering::Relaxed);
    };
    let ending = {
        let up = one_way(
            (&application, Reason::ApplicationReset),
            (&there, Reason::PeerReset),
            |bytes| {
                meter.sealed(bytes);
                moved();
            },
        );
        let mut until_answered = Some(until_answered);
        let down = one_way(
            (&there, Reason::PeerReset),
            (&application, Reason::ApplicationReset),
            |bytes| {
                until_answered = None;
                meter.opened(bytes);
                moved();
            },
        );
        let both = async { tokio::try_join!(up, down) };
        tokio::pin!(both, close);
        loop {
            let patience = began + Duration::from_millis(last.load(Ordering::Relaxed)) + idle;
            tokio::select! {
                biased;
                ending = &mut close => break ending,
                ended = &mut both => match ended {
                    Ok(_) => return Ending::new(Reason::PassedThrough),
                    Err(ending) => break ending,
                },
                () = sleep_until(patience) => {
                    let quiet = began.elapsed() - Duration::from_millis(last.load(Ordering::Relaxed));
                    if quiet >= idle {
                        let detail = format!("no byte either way for {} s", idle.as_secs_f32());
                        break Ending::with(Reason::IdleTimeout, detail);
                    }
                }
            }
        }
    };
    application.abort();
    there.abort();
    ending
}

/// Moves what comes from one side to the other, up to its end. A side that fails is called by its reason.
async fn one_way(
    (from, from_failed): (&Stream, Reason),
    (to, to_failed): (&Stream, Reason),
    mut moved: impl FnMut(usize),
) -> Result<(), Ending> {
    let failed = |reason| move |error: io::Error| Ending::with(reason, error.to_string());
    loop {
        poll_fn(|cx| from.poll_read_ready(cx))
            .await
            .map_err(failed(from_failed))?;
        let mut buffer = vec![0; BUFFER];
        let read = match from.try_read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(failed(from_failed)(error)),
        };
        if read == 0 {
            return to.end_writing().map_err(failed(to_failed));
        }
        let mut rest = buffer.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let written = poll_fn(|cx| to.poll_try_write(cx, rest))
                .await
                .map_err(failed(to_failed))?;
            moved(written);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot::error::TryRecvError;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::forward::meter::Traffic;
    use crate::forward::testing::tcp_pair;
    use crate::record::Direction;
    use crate::telemetry::metrics::Metrics;

    struct Scene {
        application: TcpStream,
        there: TcpStream,
        running: JoinHandle<Ending>,
        traffic: Arc<Traffic>,
        close: tokio::sync::oneshot::Sender<Ending>,
        answered: tokio::sync::oneshot::Receiver<()>,
    }

    async fn scene(idle: Duration) -> Scene {
        let (application, near) = tcp_pair(None).await;
        let (there, far) = tcp_pair(None).await;
        let traffic = Arc::<Traffic>::default();
        let metrics = Metrics::new(None).listener(&"mesh".into(), Direction::Outbound);
        let meter = Meter::new(Direction::Outbound, traffic.clone(), metrics);
        let (close, told) = tokio::sync::oneshot::channel();
        let (held, answered) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let told = async { told.await.unwrap_or_else(|_| Ending::new(Reason::Internal)) };
            run(Stream::Tcp(near), (Stream::Tcp(far), held), &meter, idle, told).await
        });
        Scene {
            application,
            there,
            running,
            traffic,
            close,
            answered,
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn what_is_held_until_there_is_an_answer_is_dropped_then() {
        let mut scene = scene(LONG).await;
        scene.application.write_all(b"question").await.unwrap();
        scene.there.read_exact(&mut [0; 8]).await.unwrap();
        assert_eq!(scene.answered.try_recv(), Err(TryRecvError::Empty));
        scene.there.write_all(b"a").await.unwrap();
        assert!((&mut scene.answered).await.is_err(), "dropped while it goes on");
        assert!(!scene.running.is_finished());
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself_and_all_arrives() {
        let mut scene = scene(LONG).await;
        let sent: Vec<u8> = (0..3 * BUFFER + 7).map(|n| (n % 251) as u8).collect();
        scene.application.write_all(&sent).await.unwrap();
        scene.application.shutdown().await.unwrap();
        let mut got = Vec::new();
        scene.there.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, sent);
        scene.there.write_all(b"answer").await.unwrap();
        scene.there.shutdown().await.unwrap();
        let mut answer = Vec::new();
        scene.application.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        assert_eq!(scene.running.await.unwrap(), Ending::new(Reason::PassedThrough));
        assert_eq!(scene.traffic.up.load(Ordering::Relaxed), sent.len() as u64);
        assert_eq!(scene.traffic.down.load(Ordering::Relaxed), 6);
        drop(scene.close);
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_one_and_named() {
        for (application_resets, reason) in [(true, Reason::ApplicationReset), (false, Reason::PeerReset)] {
            let scene = scene(LONG).await;
            let (resets, mut other) = if application_resets {
                (scene.application, scene.there)
            } else {
                (scene.there, scene.application)
            };
            Stream::Tcp(resets).abort();
            let error = other.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(scene.running.await.unwrap().reason, reason);
        }
    }

    #[tokio::test]
    async fn who_is_told_to_close_resets_both() {
        let mut scene = scene(LONG).await;
        scene.close.send(Ending::new(Reason::DrainTimeout)).unwrap();
        assert_eq!(scene.running.await.unwrap().reason, Reason::DrainTimeout);
        for stream in [&mut scene.application, &mut scene.there] {
            let error = stream.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_moves_ends() {
        let mut scene = scene(Duration::from_millis(20)).await;
        assert_eq!(scene.running.await.unwrap().reason, Reason::IdleTimeout);
        let error = scene.application.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        drop(scene.close);
    }
}
