//! The direction from the writer to TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{StreamError, TlsStream};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    Open,
    /// To be ended, when what is pending is written.
    Closing,
    /// close_notify, and nothing else, is on its way.
    Ending,
    Ended,
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_take(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_pending(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_end(cx)
    }
}

impl TlsStream {
    /// Takes what one buffer holds of `slices`, when what was pending is written.
    fn poll_take(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        if self.writing != Writing::Open {
            return Poll::Ready(Err((&StreamError::ShutDown).into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let taken = match self.outgoing.fill(slices, &mut self.session) {
            Ok(taken) => taken,
            Err(error) => return Poll::Ready(Err(self.fail_writing(StreamError::Seal(error)))),
        };
        // What the socket does not take at once is pending.
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes what is pending, then close_notify.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing == Writing::Open {
            self.writing = Writing::Closing;
        }
        ready!(self.poll_pending(cx))?;
        if self.writing == Writing::Closing {
            if let Err(error) = self.session.seal_close_notify(self.outgoing.control()) {
                return Poll::Ready(Err(self.fail_writing(StreamError::Seal(error))));
            }
            self.writing = Writing::Ending;
            ready!(self.poll_drain(cx))?;
        }
        self.writing = Writing::Ended;
        Poll::Ready(Ok(()))
    }

    /// Writes what is pending, and says whether something failed. When it did, what is pending (an alert perhaps) is tried
    /// and not waited for: the peer may never read again.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let drained = self.poll_drain(cx);
        if self.failure().is_some() {
            return Poll::Ready(self.check());
        }
        drained
    }

    /// Writes what is pending.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match self.outgoing.poll_write_to(cx, &self.tls) {
                Poll::Ready(Ok(payload)) => self.meter.sealed(payload),
                // No data is lost: what the peer says, or how it ended, decides.
                Poll::Ready(Err(_)) if self.writing == Writing::Ending => self.outgoing.clear(),
                Poll::Ready(Err(error)) => {
                    let error = StreamError::socket(&error);
                    return Poll::Ready(Err(self.fail_writing(error)));
                }
                Poll::Pending => {
                    self.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        self.writer = None;
        Poll::Ready(Ok(()))
    }

    /// Whether something failed.
    fn check(&self) -> io::Result<()> {
        self.failure().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Nothing is written any more; what the peer had said before can be read still.
    fn fail_writing(&mut self, error: StreamError) -> io::Error {
        self.outgoing.clear();
        self.writer = None;
        // Where reading failed that says why.
        let told = io::Error::from(self.failed.as_deref().unwrap_or(&error));
        self.unwritable = Some(Box::new(error));
        told
    }
}
