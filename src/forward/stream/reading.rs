//! The direction from TLS to the reader.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::task::coop::poll_proceed;

use super::{StreamError, TlsStream};
use crate::forward::give_way;
use crate::forward::incoming::{Fill, MAX_PIECES, Stop};
use crate::tls::session::SessionError;

/// Fillings without payload in one poll, so that a peer that sends none cannot keep the thread.
const MAX_FILLS: usize = 8;

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() > 0 && ready!(this.poll_payload(cx))? {
            this.take(buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for TlsStream {
    /// One piece of payload, at most that of one record.
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_payload(cx))?;
        Poll::Ready(Ok(this.incoming.first_payload()))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        let taken = amount.min(this.incoming.first_payload().len());
        this.incoming.consume(taken);
        this.meter.opened(taken);
    }
}

impl TlsStream {
    /// Waits until there is payload; `false` when the peer sends no more.
    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // Payload that is there already would never let the task give way.
        let budget = ready!(poll_proceed(cx));
        for _ in 0..MAX_FILLS {
            if let Some(error) = &self.failed {
                return Poll::Ready(Err((&**error).into()));
            }
            if self.ended || self.incoming.has_payload() {
                budget.made_progress();
                return Poll::Ready(Ok(!self.ended));
            }
            let fill = ready!(
                self.incoming
                    .poll_fill(cx, &self.tls, &mut self.session, self.meter.pace())
            );
            // Nobody stands behind a stream yet who could judge it: the peer's expiry stays what it was.
            while let Some(link) = self.session.renewal()
                && link.next_heard().is_some()
            {}
            match fill {
                Fill::Payload | Fill::Moved => {}
                Fill::Stop(stop) => self.stopped(stop)?,
            }
        }
        give_way(cx);
        Poll::Pending
    }

    /// Copies what there is, as far as it fits.
    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        let count = self.incoming.payload(&mut slices);
        let mut taken = 0;
        for slice in slices.iter().take(count) {
            let fits = slice.len().min(buf.remaining());
            buf.put_slice(slice.get(..fits).unwrap_or_default());
            taken += fits;
        }
        self.incoming.consume(taken);
        self.meter.opened(taken);
    }

    /// The payload has come to its end, this way or that.
    fn stopped(&mut self, stop: Stop) -> io::Result<()> {
        let error = match stop {
            Stop::End => {
                self.ended = true;
                self.incoming.clear();
                return Ok(());
            }
            Stop::Alert(alert) => {
                self.outgoing.clear();
                StreamError::Alert(alert)
            }
            Stop::Broken(error) => {
                self.tell(&error);
                StreamError::Broken(error)
            }
            Stop::Truncated => StreamError::Truncated,
            Stop::Failed(error) => {
                self.outgoing.clear();
                StreamError::socket(&error)
            }
        };
        Err(self.fail(error))
    }

    /// Tells the peer that it broke TLS. What the socket does not take now is left to the writer or to
    /// [`TlsStream::abort`]: a reader must not wait to write.
    fn tell(&mut self, error: &SessionError) {
        let sealed = self
            .session
            .seal_fatal(error.alert(), self.outgoing.control_behind());
        if sealed.is_ok() {
            // It is broken, or full: the error that is reported is the peer's, either way.
            let _ = self.outgoing.try_write_to(&self.tls);
        } else {
            self.outgoing.clear();
        }
    }
}
