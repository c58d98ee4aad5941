//! Connects to a target within a time limit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::resolve::Resolver;
use crate::authorize::Permit;
use crate::config::settings::Target;
use crate::record::Reason;
use crate::sys::stream::Stream;

/// How long an address of a name may be silent before the next is tried beside it (RFC 8305's default).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried, so that a name with very many takes a bounded number of sockets.
const MAX_ADDRESSES: usize = 16;

/// Why a target could not be reached.
#[derive(Debug)]
pub struct DialError {
    /// [`Reason::ResolveFailed`], [`Reason::ConnectFailed`] or [`Reason::ConnectTimeout`].
    pub reason: Reason,
    /// The target and the cause.
    pub detail: String,
}

/// Connects to the application behind an inbound listener, and tells it `first` what it must know before the caller's
/// bytes. Asks for the permit: nobody reaches an application, not even with an empty connection, before authorization.
///
/// # Errors
/// See [`DialError`].
pub async fn application(
    _permit: &Permit,
    target: &Target,
    first: &[u8],
    resolver: &Resolver,
    limit: Duration,
) -> Result<Stream, DialError> {
    let deadline = Instant::now() + limit;
    let mut stream = dial(target, resolver, limit).await?;
    if first.is_empty() {
        return Ok(stream);
    }
    // Into an empty socket it goes at once, and in one piece. An application that was not told gets nothing.
    match timeout_at(deadline, stream.write_all(first)).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => Err(DialError {
            reason: Reason::ConnectFailed,
            detail: format!("can't tell `{target}` who calls: {error}"),
        }),
        Err(_) => Err(DialError {
            reason: Reason::ConnectTimeout,
            detail: format!(
                "`{target}` did not take what tells who calls within {} ms",
                limit.as_millis()
            ),
        }),
    }
}

/// Connects to the sidecar that an outbound listener calls, which proves afterwards who it is.
///
/// # Errors
/// See [`DialError`].
pub async fn peer(target: &Target, resolver: &Resolver, limit: Duration) -> Result<Stream, DialError> {
    dial(target, resolver, limit).await
}

async fn dial(target: &Target, resolver: &Resolver, limit: Duration) -> Result<Stream, DialError> {
    let deadline = Instant::now() + limit;
    let late = |reason, what: &str| DialError {
        reason,
        detail: format!("`{target}` {what} within {} ms", limit.as_millis()),
    };
    let unanswered = || late(Reason::ConnectTimeout, "did not answer");
    let stream = match target {
        Target::Ip(addr) => timeout_at(deadline, TcpStream::connect(addr))
            .await
            .map_err(|_| unanswered())?
            .map(Stream::Tcp)
            .map_err(|e| failed(target, &e))?,
        Target::Unix(path) => timeout_at(deadline, UnixStream::connect(path))
            .await
            .map_err(|_| unanswered())?
            .map(Stream::Unix)
            .map_err(|e| failed(target, &e))?,
        Target::Name(name, port) => {
            let addresses = timeout_at(deadline, resolver.lookup(name, *port))
                .await
                .map_err(|_| late(Reason::ResolveFailed, "was not resolved"))?
                .map_err(|e| DialError {
                    reason: Reason::ResolveFailed,
                    detail: e.to_string(),
                })?;
            timeout_at(deadline, first_to_connect(addresses))
                .await
                .map_err(|_| unanswered())?
                .map(Stream::Tcp)
                .map_err(|(addr, e)| DialError {
                    reason: Reason::ConnectFailed,
                    detail: format!("can't connect to `{target}` at {addr}: {e}"),
                })?
        }
    };
    stream.tune().map_err(|e| failed(target, &e))?;
    Ok(stream)
}

/// Connects to whichever address answers first. Each has a head start before the next is tried beside it, so that one
/// that is silent does not use up the time of all (RFC 8305, section 5). The answer, when none does, is the last
/// failure.
async fn first_to_connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let mut rest = addresses.into_iter().take(MAX_ADDRESSES);
    // Dropping it gives up the attempts that are left.
    let mut attempts = JoinSet::new();
    let nothing = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut last = (nothing, io::Error::from(io::ErrorKind::AddrNotAvailable));
    loop {
        let next = rest.next();
        let is_last = next.is_none();
        if let Some(addr) = next {
            attempts.spawn(async move { TcpStream::connect(addr).await.map_err(|e| (addr, e)) });
        }
        let ended = if is_last {
            attempts.join_next().await
        } else {
            match timeout(HEAD_START, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(failure))) => last = failure,
            Some(Err(panicked)) => last.1 = io::Error::other(panicked),
            None => return Err(last),
        }
    }
}

fn failed(target: &Target, error: &io::Error) -> DialError {
    DialError {
        reason: Reason::ConnectFailed,
        detail: format!("can't connect to `{target}`: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    /// An address whose queue is full, so that a connection to it is never answered; and what keeps it so.
    fn silent() -> (SocketAddr, Vec<Socket>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..8 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            // It is in progress, or waits for ever.
            let _ = filler.connect(&address);
            sockets.push(filler);
        }
        (address.as_socket().unwrap(), sockets)
    }

    #[tokio::test]
    async fn a_silent_address_does_not_use_up_the_time_of_the_others() {
        let (dead, _sockets) = silent();
        let still_silent = timeout(HEAD_START, TcpStream::connect(dead)).await.is_err();
        assert!(still_silent, "the test's dead address answers");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let began = Instant::now();
        let stream = timeout(Duration::from_secs(5), first_to_connect(vec![dead, dead, alive]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(began.elapsed() >= 2 * HEAD_START, "each had its head start");
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over_at_once_and_the_last_failure_is_told() {
        let refusing = |listener: TcpListener| listener.local_addr().unwrap();
        let one = refusing(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let two = refusing(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let began = Instant::now();
        let (addr, error) = first_to_connect(vec![one, two]).await.unwrap_err();
        assert_eq!((addr, error.kind()), (two, io::ErrorKind::ConnectionRefused));
        assert!(began.elapsed() < HEAD_START);
        assert!(first_to_connect(Vec::new()).await.is_err());
    }
}
