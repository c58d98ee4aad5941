//! A TLS connection as a stream of bytes, for what speaks a protocol of its own inside: the HTTP listeners and the
//! metrics endpoint over mTLS, none of which is there yet. It is made of the same halves as the relay and costs the same:
//! no buffer while nothing is pending, opening and sealing where the bytes lie. Payload is copied once into the reader's
//! memory, or shown where it lies ([`tokio::io::AsyncBufRead`]), and once out of the writer's.
//!
//! What it promises: bytes arrive in order, once, and all or the loss is shown. Only close_notify reads as an end (0
//! bytes); a TCP end without it, an alert, a broken record and a reset are errors, and after one no read brings data or
//! an end any more. At most one buffer of sealed records is pending; a write waits until it is written, and a flush is
//! needed for its last bytes, as with any writer. Each direction ends by itself: [`AsyncWrite::poll_shutdown`] sends
//! close_notify and leaves the socket open, as the relay does. Where only writing fails, what the peer had said before
//! can still be read.
//!
//! What it leaves to its owner: time-outs, admission (it asks for the permit that proves it), and how the connection
//! ends. Dropping it closes the socket without close_notify, if that was not sent: a truncation for a peer that
//! conforms to RFC 8446 section 6.1, but not for one that passes over it. So an owner who breaks off calls
//! [`TlsStream::abort`], and one who is through [`TlsStream::close`].
//!
//! [`AsyncWrite::poll_shutdown`]: tokio::io::AsyncWrite::poll_shutdown

mod reading;
mod writing;

use std::future::poll_fn;
use std::io;
use std::task::Waker;

use rustls::AlertDescription;

use super::incoming::Incoming;
use super::meter::Meter;
use super::outgoing::Outgoing;
use super::{buffer, last_words};
use crate::authorize::Permit;
use crate::sys::stream::Stream;
use crate::tls::alert;
use crate::tls::session::{Session, SessionError};
use writing::Writing;

/// A TLS connection that is read and written as a stream.
pub struct TlsStream {
    tls: Stream,
    session: Session,
    meter: Meter,
    incoming: Incoming,
    /// The peer sent close_notify.
    ended: bool,
    outgoing: Outgoing,
    writing: Writing,
    /// Who waits to write: what fails while reading must wake it.
    writer: Option<Waker>,
    /// Nothing can be read or written any more.
    failed: Option<Box<StreamError>>,
    /// Nothing can be written any more.
    unwritable: Option<Box<StreamError>>,
}

/// Why a [`TlsStream`] can't go on. It lies in the [`io::Error`]s of the stream ([`io::Error::get_ref`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer ended the connection with this fatal alert.
    #[error("the peer ended the connection: {}", alert::name(*.0))]
    Alert(AlertDescription),
    /// The peer broke TLS; [`SessionError::alert`] is what it is told.
    #[error("the peer broke TLS: {0}")]
    Broken(SessionError),
    /// What was received so far need not be all (RFC 8446 section 6.1).
    #[error("the peer's TCP connection ended without close_notify")]
    Truncated,
    /// The socket failed.
    #[error("the connection to the peer failed: {text}")]
    Socket {
        /// What kind of failure.
        kind: io::ErrorKind,
        /// The system's words.
        text: Box<str>,
    },
    /// What was written could not be sealed.
    #[error("can't seal: {0}")]
    Seal(SessionError),
    /// Written after the stream was shut down.
    #[error("the stream was shut down for writing")]
    ShutDown,
}

impl StreamError {
    fn socket(error: &io::Error) -> Self {
        Self::Socket {
            kind: error.kind(),
            text: error.to_string().into(),
        }
    }

    const fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Alert(_) => io::ErrorKind::ConnectionReset,
            Self::Broken(_) => io::ErrorKind::InvalidData,
            Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Socket { kind, .. } => *kind,
            Self::Seal(_) => io::ErrorKind::Other,
            Self::ShutDown => io::ErrorKind::BrokenPipe,
        }
    }
}

impl From<&StreamError> for io::Error {
    fn from(error: &StreamError) -> Self {
        Self::new(error.kind(), error.clone())
    }
}

impl TlsStream {
    /// The stream of a connection that is admitted. `unread` are sealed bytes that were read already; `meter` counts the
    /// payload that is taken and the payload whose records are written.
    #[must_use]
    pub const fn new(_permit: &Permit, tls: Stream, session: Session, unread: Vec<u8>, meter: Meter) -> Self {
        Self {
            tls,
            session,
            meter,
            incoming: Incoming::new(unread),
            ended: false,
            outgoing: Outgoing::new(),
            writing: Writing::Open,
            writer: None,
            failed: None,
            unwritable: None,
        }
    }

    /// Frees what an idle connection need not keep and the next record makes anew. For the owner to call when nothing
    /// has moved for a while.
    pub fn rest(&mut self) {
        self.session.rest();
        buffer::trim();
    }

    /// Why nothing more can be written, or read either, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<&StreamError> {
        self.failed.as_deref().or(self.unwritable.as_deref())
    }

    /// Ends in order: writes what is pending and close_notify, then closes the socket lingering
    /// ([`Stream::close_lingering`]), so that nothing of it is lost on a peer that still sends. How long a peer may take to
    /// read is for the caller to limit.
    ///
    /// # Errors
    /// As [`tokio::io::AsyncWrite::poll_shutdown`]; the socket is reset then.
    pub async fn close(mut self) -> io::Result<()> {
        let ended = poll_fn(|cx| self.poll_end(cx)).await;
        match ended {
            Ok(()) => self.tls.close_lingering().await,
            Err(_) => self.tls.abort(),
        }
        ended
    }

    /// Breaks off so that the peer cannot take it for a clean end: by `alert`, behind what is pending, within a second;
    /// by a reset where that can't be. A peer that broke TLS is told so instead. Hands back the socket when the alert in
    /// it needs a lingering close ([`Stream::close_lingering`]).
    pub async fn abort(self, alert: AlertDescription) -> Option<Stream> {
        match self.failure() {
            None | Some(StreamError::Broken(_) | StreamError::Truncated | StreamError::ShutDown) => {
                last_words::say(self.tls, self.session, self.outgoing, alert, &self.meter).await
            }
            // Nobody is left to tell, or nothing can be said any more.
            Some(StreamError::Alert(_) | StreamError::Socket { .. } | StreamError::Seal(_)) => {
                self.tls.abort();
                None
            }
        }
    }

    /// Nothing goes on any more, either way.
    fn fail(&mut self, error: StreamError) -> io::Error {
        let told = io::Error::from(&error);
        self.failed = Some(Box::new(error));
        self.incoming.clear();
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        told
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("tls", &self.tls)
            .field("ended", &self.ended)
            .field("writing", &self.writing)
            .field("failure", &self.failure())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
