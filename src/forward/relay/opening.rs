//! The direction from TLS to plaintext.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::{Relay, TURNS, application_failed, peer_failed};
use crate::forward::buffer::Buffer;
use crate::record::{Ending, Reason};
use crate::tls::alert;
use crate::tls::record::record_length;
use crate::tls::session::{Received, SessionError};

/// What a peer may send after its close_notify until we stop reading; it is thrown away (RFC 8446 section 6.1).
const MAX_AFTER_END: usize = 1 << 16;

/// From TLS to plaintext.
pub(super) struct Opening {
    pub(super) unread: Vec<u8>,
    pub(super) buffer: Option<Buffer>,
    /// Sealed bytes in the buffer.
    pub(super) sealed: Range<usize>,
    /// Opened bytes in the buffer that are not written yet; they lie before `sealed`.
    pub(super) opened: Range<usize>,
    pub(super) state: OpeningState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OpeningState {
    /// Data may come.
    Open,
    /// The peer sent close_notify; the plaintext side is to be told.
    Ending,
    /// It has been told. What the peer's socket still says is looked at for a reset only.
    Ended {
        /// Bytes that came after the end.
        ignored: usize,
    },
    /// Nothing more to look for.
    Done,
}

impl Relay<'_> {
    /// Returns whether it could go on at once.
    pub(super) fn open_turns(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        for _ in 0..TURNS {
            match self.poll_open(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(false),
                Poll::Ready(Err(ending)) => return Err(ending),
            }
        }
        Ok(true)
    }

    /// One move from TLS to plaintext; `false` when this direction is through.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ending>> {
        if !self.opening.opened.is_empty() {
            return self.poll_write_opened(cx);
        }
        match self.opening.state {
            OpeningState::Open => {}
            OpeningState::Ending if self.failed.is_some() => {
                // What the application sent is lost: it must not see a clean end.
                self.opening.state = OpeningState::Done;
                return Poll::Ready(Ok(false));
            }
            OpeningState::Ending => {
                self.plain
                    .end_writing()
                    .map_err(|e| application_failed(&e, "can't pass on the end of data"))?;
                self.opening.state = OpeningState::Ended { ignored: 0 };
                return Poll::Ready(Ok(true));
            }
            OpeningState::Ended { ignored } => return self.poll_after_end(cx, ignored),
            OpeningState::Done => return Poll::Ready(Ok(false)),
        }
        let Some(length) = self.whole_record().map_err(|e| self.broken(&e))? else {
            return self.poll_read_sealed(cx);
        };
        self.open_record(length).map(|()| true).into()
    }

    fn poll_write_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ending>> {
        let Some(buffer) = &self.opening.buffer else {
            self.opening.opened = 0..0;
            return Poll::Ready(Ok(true));
        };
        let bytes = buffer.get(self.opening.opened.clone()).unwrap_or_default();
        match ready!(self.plain.poll_try_write(cx, bytes)) {
            Ok(written) => {
                self.opening.opened.start += written;
                self.moved += 1;
                self.meter.opened(written);
                Poll::Ready(Ok(true))
            }
            Err(error) => {
                self.failed = Some(application_failed(&error, "can't write to the application"));
                self.opening.opened = 0..0;
                self.opening.buffer = None;
                self.opening.state = OpeningState::Done;
                Poll::Ready(Ok(false))
            }
        }
    }

    /// The length of the record at the start of the sealed bytes, if all of it is there.
    fn whole_record(&self) -> Result<Option<usize>, SessionError> {
        let Some(buffer) = &self.opening.buffer else {
            return Ok(None);
        };
        let sealed = buffer.get(self.opening.sealed.clone()).unwrap_or_default();
        Ok(record_length(sealed)?.filter(|length| *length <= sealed.len()))
    }

    fn open_record(&mut self, length: usize) -> Result<(), Ending> {
        let start = self.opening.sealed.start;
        let Some(record) = self
            .opening
            .buffer
            .as_mut()
            .and_then(|b| b.get_mut(start..start + length))
        else {
            return Err(Ending::with(Reason::Internal, "a record outside its buffer"));
        };
        let received = self.session.receive(record).map_err(|e| self.broken(&e))?;
        self.opening.sealed.start += length;
        match received {
            Received::Data(payload) => {
                self.received_data = true;
                self.opening.opened = start + payload.start..start + payload.end;
            }
            Received::Nothing => {}
            Received::End => self.opening.state = OpeningState::Ending,
            Received::Alert(description) => {
                // It explains why our writes failed, if they did.
                self.failed = None;
                // In TLS 1.3 a client's handshake ends before the server has judged it: an alert in place of the
                // first data is the server's refusal.
                let name = alert::name(description);
                return Err(if self.received_data {
                    Ending::with(
                        Reason::PeerReset,
                        format!("the peer ended the connection: {name}"),
                    )
                } else {
                    Ending::with(
                        Reason::RefusedByPeer,
                        format!("the peer refused the connection: {name}"),
                    )
                });
            }
        }
        Ok(())
    }

    fn poll_read_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ending>> {
        let opening = &mut self.opening;
        if opening.sealed.is_empty() && opening.unread.is_empty() {
            // Nothing is half-read: wait without a buffer.
            opening.sealed = 0..0;
            opening.buffer = None;
            if let Err(error) = ready!(self.tls.poll_read_ready(cx)) {
                return Poll::Ready(Err(peer_failed(&error)));
            }
        }
        let buffer = opening.buffer.get_or_insert_with(Buffer::take);
        if opening.sealed.start > 0 {
            buffer.copy_within(opening.sealed.clone(), 0);
            opening.sealed = 0..opening.sealed.len();
        }
        let room = buffer.get_mut(opening.sealed.end..).unwrap_or_default();
        let read = if opening.unread.is_empty() {
            match self.tls.try_read(room) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Spurious, or a record is half-read: registers for the wake-up.
                    return match ready!(self.tls.poll_read_ready(cx)) {
                        Ok(()) => Poll::Ready(Ok(true)),
                        Err(error) => Poll::Ready(Err(peer_failed(&error))),
                    };
                }
                Err(error) => return Poll::Ready(Err(peer_failed(&error))),
            }
        } else {
            let count = opening.unread.len().min(room.len());
            for (to, from) in room.iter_mut().zip(&opening.unread) {
                *to = *from;
            }
            opening.unread.drain(..count);
            if opening.unread.is_empty() {
                opening.unread = Vec::new();
            }
            count
        };
        if read == 0 {
            return Poll::Ready(Err(Ending::with(
                Reason::PeerTruncated,
                "the peer's TCP connection ended without close_notify",
            )));
        }
        opening.sealed.end += read;
        self.moved += 1;
        Poll::Ready(Ok(true))
    }

    /// After the peer's close_notify: a reset must still be seen while the other direction runs.
    fn poll_after_end(&mut self, cx: &mut Context<'_>, ignored: usize) -> Poll<Result<bool, Ending>> {
        self.opening.buffer = None;
        self.opening.unread = Vec::new();
        if let Err(error) = ready!(self.tls.poll_read_ready(cx)) {
            return Poll::Ready(Err(peer_failed(&error)));
        }
        let mut sink = [0; 512];
        self.opening.state = match self.tls.try_read(&mut sink) {
            Ok(0) => OpeningState::Done,
            Ok(read) if ignored + read < MAX_AFTER_END => OpeningState::Ended {
                ignored: ignored + read,
            },
            Ok(_) => OpeningState::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.opening.state,
            Err(error) => return Poll::Ready(Err(peer_failed(&error))),
        };
        Poll::Ready(Ok(true))
    }

    /// The peer broke TLS.
    fn broken(&mut self, error: &SessionError) -> Ending {
        self.protocol_alert = Some(error.alert());
        Ending::with(
            Reason::ProtocolError,
            format!("{error}; told the peer {}", alert::name(error.alert())),
        )
    }
}
