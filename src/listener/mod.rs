//! Accepts connections. Knows sockets and nothing of TLS or policy: what to do with a connection is passed in.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use crate::record::PeerAddr;
use crate::sys::bind::Listening;
use crate::sys::stream::Stream;

/// The first pause after an accept failed for want of a resource; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// A shortage that was said is not said again for so long: now and then a connection comes through one, which does not end it.
const SAID_FOR: Duration = Duration::from_secs(10);
/// Connections that still wait in the queue when a listener ends are accepted up to this number: closing the socket
/// would reset them, though their peers were told that they are connected.
const MAX_LEFTOVER: usize = 4096;

/// What becomes of the connections that wait in a listener's queue when accepting ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// They are accepted: nobody else does.
    Accept,
    /// They are left to whoever accepts from the same socket from now on.
    Leave,
}

/// A socket that a worker accepts from.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

impl Acceptor {
    /// Registers a bound socket with the runtime of the calling worker.
    ///
    /// # Errors
    /// The system's.
    pub fn new(socket: Listening) -> io::Result<Self> {
        match socket {
            Listening::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Listening::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                Ok((Stream::Tcp(stream), PeerAddr::from(addr)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), PeerAddr::Unix))
            }
        }
    }

    /// Accepts until `stop` resolves, then what still waits in the queue unless that is left to others, and hands each
    /// connection to `serve`.
    ///
    /// A failing accept never ends it: errors of a single connection are passed over, and a shortage (of descriptors,
    /// of memory) is waited out in growing pauses, and said once in [`SAID_FOR`].
    pub async fn run(
        self,
        name: &str,
        stop: impl Future<Output = Waiting>,
        mut serve: impl FnMut(Stream, PeerAddr),
    ) {
        tokio::pin!(stop);
        let mut pause = MIN_PAUSE;
        let mut said: Option<Instant> = None;
        let waiting = loop {
            let accepted = tokio::select! {
                biased;
                waiting = &mut stop => break waiting,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, addr)) => {
                    pause = MIN_PAUSE;
                    hand_over(stream, addr, &mut serve);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAID_FOR) {
                        said = Some(Instant::now());
                        tracing::error!(
                            listener = name, %error,
                            "cannot accept connections; trying again. If descriptors ran out, raise the limit of open files"
                        );
                    }
                    tokio::select! {
                        waiting = &mut stop => break waiting,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                    }
                }
            }
        };
        if waiting == Waiting::Leave {
            return;
        }
        for _ in 0..MAX_LEFTOVER {
            let waiting = tokio::time::timeout(Duration::ZERO, self.accept()).await;
            let Ok(Ok((stream, addr))) = waiting else { break };
            hand_over(stream, addr, &mut serve);
        }
    }
}

fn hand_over(stream: Stream, addr: PeerAddr, serve: &mut impl FnMut(Stream, PeerAddr)) {
    // Failing means that the peer is gone already; the first read will say so.
    let _ = stream.tune();
    serve(stream, addr);
}

/// Errors of accept(2) that belong to the connection that was to be accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
