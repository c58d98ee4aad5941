//! Connects to a target within a time limit.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::resolve::Resolver;
use crate::authorize::Permit;
use crate::config::settings::Target;
use crate::record::Reason;
use crate::sys::stream::Stream;

/// Why a target could not be reached.
#[derive(Debug)]
pub struct DialError {
    /// [`Reason::ResolveFailed`], [`Reason::ConnectFailed`] or [`Reason::ConnectTimeout`].
    pub reason: Reason,
    /// The target and the cause.
    pub detail: String,
}

/// Connects to the application behind an inbound listener. Asks for the permit: nobody reaches an application, not
/// even with an empty connection, before authorization.
///
/// # Errors
/// See [`DialError`].
pub async fn application(
    _permit: &Permit,
    target: &Target,
    resolver: &Resolver,
    limit: Duration,
) -> Result<Stream, DialError> {
    dial(target, resolver, limit).await
}

/// Connects to the sidecar that an outbound listener calls, which proves afterwards who it is.
///
/// # Errors
/// See [`DialError`].
pub async fn peer(target: &Target, resolver: &Resolver, limit: Duration) -> Result<Stream, DialError> {
    dial(target, resolver, limit).await
}

async fn dial(target: &Target, resolver: &Resolver, limit: Duration) -> Result<Stream, DialError> {
    let Ok(result) = timeout(limit, connect(target, resolver)).await else {
        let detail = format!("`{target}` did not answer within {} ms", limit.as_millis());
        return Err(DialError {
            reason: Reason::ConnectTimeout,
            detail,
        });
    };
    let stream = result?;
    stream.set_nodelay().map_err(|e| failed(target, &e))?;
    Ok(stream)
}

async fn connect(target: &Target, resolver: &Resolver) -> Result<Stream, DialError> {
    match target {
        Target::Ip(addr) => TcpStream::connect(addr)
            .await
            .map(Stream::Tcp)
            .map_err(|e| failed(target, &e)),
        Target::Unix(path) => UnixStream::connect(path)
            .await
            .map(Stream::Unix)
            .map_err(|e| failed(target, &e)),
        Target::Name(name, port) => {
            let addresses = resolver.lookup(name, *port).await.map_err(|e| DialError {
                reason: Reason::ResolveFailed,
                detail: e.to_string(),
            })?;
            let mut last = None;
            for addr in addresses {
                match TcpStream::connect(addr).await {
                    Ok(stream) => return Ok(Stream::Tcp(stream)),
                    Err(error) => {
                        last = Some(DialError {
                            reason: Reason::ConnectFailed,
                            detail: format!("can't connect to `{target}` at {addr}: {error}"),
                        })
                    }
                }
            }
            Err(last.unwrap_or_else(|| failed(target, &io::Error::from(io::ErrorKind::AddrNotAvailable))))
        }
    }
}

fn failed(target: &Target, error: &io::Error) -> DialError {
    DialError {
        reason: Reason::ConnectFailed,
        detail: format!("can't connect to `{target}`: {error}"),
    }
}
