//! Accepts connections and serves one request on each. An answer has its time; the live stream of verdicts has as much as
//! it wants, while its reader takes something.
//!
//! One request each, because an idle connection that is kept costs one of a small number of places, and the clients
//! (a kubelet, a scraper, a person) ask every few seconds at most.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::StreamExt as _;

use super::AdminState;
use super::events::Progress;
use super::guard::Caller;
use super::routes;
use super::show::Carrier;
use crate::sys::bind::{Listening, SocketFile};

/// Connections at once; one more ends the oldest.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// For the request line and headers.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole connection, the reader's slowness included.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// For a stream's reader to take something; twice that passes at most before it is cut off.
pub(super) const STALLED: Duration = Duration::from_secs(30);
/// For what is still being answered when the endpoint stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Request line and headers together.
const MAX_HEAD: usize = 16 * 1024;
/// Headers of a request.
const MAX_HEADERS: usize = 64;

/// Which routes are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All.
    Full,
    /// Health alone, for an address that others can reach.
    Probes,
    /// All but changes, for whom policy let in by mutual TLS.
    ReadOnly,
    /// Metrics alone, for whom policy let in by mutual TLS.
    Metrics,
}

/// A connection that was accepted elsewhere: what is behind it is authenticated and let in by policy.
#[derive(Debug)]
pub struct Handed {
    /// Which routes it may ask.
    pub kind: Kind,
    /// Our end of it, non-blocking.
    pub stream: std::os::unix::net::UnixStream,
}

/// Serves until `stop` completes, then gives open requests a second. A unix socket's file is removed at the end.
///
/// # Errors
/// When the listener cannot be handed to the runtime, which must have I/O and time.
pub async fn serve(
    listener: Listening,
    kind: Kind,
    state: Arc<dyn AdminState>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_from(Listener::adopt(listener, true)?, kind, state, stop).await;
    Ok(())
}

/// As [`serve`], from a socket that another process bound, whose file stays.
///
/// # Errors
/// As [`serve`].
pub async fn serve_lent(
    listener: Listening,
    kind: Kind,
    state: Arc<dyn AdminState>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    serve_from(Listener::adopt(listener, false)?, kind, state, stop).await;
    Ok(())
}

/// Serves the connections that come on `handed` until `stop` completes, then gives open requests a second.
pub async fn serve_handed(
    handed: impl tokio_stream::Stream<Item = Handed> + Send + 'static,
    state: Arc<dyn AdminState>,
    stop: impl Future<Output = ()>,
) {
    // Each says its kind; one that did not would see the least.
    serve_from(Listener::Handed(Box::pin(handed)), Kind::Metrics, state, stop).await;
}

async fn serve_from(
    mut listener: Listener,
    kind: Kind,
    state: Arc<dyn AdminState>,
    stop: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    // In the order in which they came; those that are finished are passed over.
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    let mut pause = FIRST_PAUSE;
    // Dropped when the endpoint ends, which ends every stream.
    let (running, stopped) = watch::channel(());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        // Finished ones give their places back before the new one is counted.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, local, handed)) => {
                pause = FIRST_PAUSE;
                by_age.retain(|task| !task.is_finished());
                // The oldest goes, not the newest: whoever holds connections open without a word must not keep a
                // probe from its answer, or an orchestrator would kill us.
                if by_age.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = by_age.pop_front()
                {
                    oldest.abort();
                    tracing::debug!(
                        limit = MAX_CONNECTIONS,
                        "admin endpoint: too many connections at once, closed the oldest"
                    );
                }
                by_age.push_back(connections.spawn(serve_connection(
                    stream,
                    Caller {
                        kind: handed.unwrap_or(kind),
                        local,
                    },
                    Arc::clone(&state),
                    stopped.clone(),
                )));
            }
            Err(e) => {
                tracing::warn!(error = %e, "admin endpoint: cannot accept a connection, trying again");
                tokio::select! {
                    () = &mut stop => break,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
                }
            }
        }
    }
    drop((listener, running));
    let finish = async { while connections.join_next().await.is_some() {} };
    // What is not done by then is aborted with the set.
    let _ = tokio::time::timeout(STOP_TIMEOUT, finish).await;
}

/// Pauses after a failed accept grow from the first to the last: out of descriptors is out for a while.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_secs(1);

async fn serve_connection(
    stream: Box<dyn Stream>,
    caller: Caller,
    state: Arc<dyn AdminState>,
    stopped: watch::Receiver<()>,
) {
    let progress = Progress::new();
    let carried = progress.clone();
    let service = service_fn(move |request| {
        let mut stopped = stopped.clone();
        let carrier = Carrier {
            progress: carried.clone(),
            stopped: Box::pin(async move {
                // Nothing is ever sent: what comes is the sender's end.
                let _ = stopped.changed().await;
            }),
        };
        let answer = routes::answer(request, caller, Arc::clone(&state), carrier);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = connection => if let Err(e) = result {
            tracing::debug!(error = %e, "admin endpoint: connection failed");
        },
        () = out_of_time(&progress) => {
            tracing::debug!("admin endpoint: connection took too long, closed");
        }
    }
}

/// Resolves when a connection has had its time: an answer its own, a stream when nobody takes anything of it.
async fn out_of_time(progress: &Progress) {
    tokio::time::sleep(CONNECTION_TIMEOUT).await;
    while let Some(last) = progress.last()
        && last.elapsed() < STALLED
    {
        tokio::time::sleep(STALLED).await;
    }
}

/// A byte stream of either kind of socket.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

enum Listener {
    Tcp(TcpListener),
    Unix {
        // First, so that it is dropped first: see [`SocketFile::remove`].
        _file: Option<RemoveFile>,
        listener: UnixListener,
    },
    Handed(Pin<Box<dyn tokio_stream::Stream<Item = Handed> + Send>>),
}

/// A connection, the address of ours that it came to, for TCP, and its kind, where it is not the listener's.
type Accepted = (Box<dyn Stream>, Option<IpAddr>, Option<Kind>);

impl Listener {
    /// With `ours` a unix socket's file is removed at the end.
    fn adopt(bound: Listening, ours: bool) -> io::Result<Self> {
        Ok(match bound {
            Listening::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Listening::Unix(listener) => {
                let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
                let file = path.filter(|_| ours).and_then(|path| SocketFile::of(&path).ok());
                Self::Unix {
                    _file: file.map(RemoveFile),
                    listener: UnixListener::from_std(listener)?,
                }
            }
        })
    }

    async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let local = stream.local_addr()?.ip().to_canonical();
                Ok((Box::new(stream), Some(local), None))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), None, None))
            }
            Self::Handed(handed) => match handed.next().await {
                Some(Handed { kind, stream }) => {
                    Ok((Box::new(UnixStream::from_std(stream)?), None, Some(kind)))
                }
                // Nobody is left who could hand one over; `stop` ends this.
                None => std::future::pending().await,
            },
        }
    }
}

/// The socket's file, removed when the listener goes.
struct RemoveFile(SocketFile);

impl Drop for RemoveFile {
    fn drop(&mut self) {
        self.0.remove();
    }
}
