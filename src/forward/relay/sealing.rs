//! The direction from plaintext to TLS.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::{Relay, TURNS, application_failed, peer_failed};
use crate::forward::buffer::Buffer;
use crate::record::{Ending, Reason};
use crate::tls::record::{HEADER, MAX_PAYLOAD, TRAILER};
use crate::tls::session::SessionError;

/// From plaintext to TLS.
pub(super) struct Sealing {
    pub(super) buffer: Option<Buffer>,
    /// Control records to write before the record in the buffer.
    pub(super) control: Vec<u8>,
    /// The sealed record in the buffer.
    pub(super) record: Range<usize>,
    pub(super) state: SealingState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SealingState {
    Open,
    /// close_notify is on its way.
    Ending,
    Done,
}

impl Relay<'_> {
    /// Returns whether it could go on at once.
    pub(super) fn seal_turns(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        for _ in 0..TURNS {
            match self.poll_seal(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(false),
                Poll::Ready(Err(ending)) => return Err(ending),
            }
        }
        Ok(true)
    }

    /// One move from plaintext to TLS; `false` when this direction is through.
    fn poll_seal(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ending>> {
        if !self.sealing.control.is_empty() || !self.sealing.record.is_empty() {
            return self.poll_write_sealed(cx);
        }
        match self.sealing.state {
            SealingState::Open => self.poll_read_plain(cx),
            SealingState::Ending => {
                self.sealing.state = SealingState::Done;
                Poll::Ready(Ok(false))
            }
            SealingState::Done => Poll::Ready(Ok(false)),
        }
    }

    fn poll_write_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ending>> {
        let sealing = &mut self.sealing;
        let control = !sealing.control.is_empty();
        let bytes = if control {
            sealing.control.as_slice()
        } else {
            sealing
                .buffer
                .as_deref()
                .and_then(|b| b.get(sealing.record.clone()))
                .unwrap_or_default()
        };
        match ready!(self.tls.poll_try_write(cx, bytes)) {
            Ok(written) if control => {
                sealing.control.drain(..written.min(sealing.control.len()));
            }
            Ok(written) => {
                sealing.record.start += written;
                if sealing.record.is_empty() {
                    self.meter
                        .sealed(sealing.record.end.saturating_sub(HEADER + TRAILER));
                }
            }
            Err(error) => {
                // Only where data is lost is it a failure: if all that could not be told is that there is no more,
                // what the peer says, or how it ended, decides.
                if sealing.state == SealingState::Open {
                    self.failed = Some(peer_failed(&error));
                }
                sealing.control.clear();
                sealing.record = 0..0;
                sealing.buffer = None;
                sealing.state = SealingState::Done;
                return Poll::Ready(Ok(false));
            }
        }
        self.moved += 1;
        Poll::Ready(Ok(true))
    }

    fn poll_read_plain(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Ending>> {
        match self.plain.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                return Poll::Ready(Err(application_failed(&error, "can't read from the application")));
            }
            Poll::Pending => {
                self.sealing.buffer = None;
                return Poll::Pending;
            }
        }
        let buffer = self.sealing.buffer.get_or_insert_with(Buffer::take);
        let slot = buffer.get_mut(HEADER..HEADER + MAX_PAYLOAD).unwrap_or_default();
        match self.plain.try_read(slot) {
            Ok(0) if self.failed.is_some() => {
                // The kernel tells of a reset once, and our write has had it: this need not be an end.
                self.sealing.buffer = None;
                self.sealing.state = SealingState::Done;
                return Poll::Ready(Ok(false));
            }
            Ok(0) => {
                self.sealing.buffer = None;
                let sealed = self.session.seal_close_notify(&mut self.sealing.control);
                sealed.map_err(|e| Ending::with(Reason::Internal, e.to_string()))?;
                self.sealing.state = SealingState::Ending;
            }
            Ok(read) => {
                self.sealing.record = self
                    .seal(read)
                    .map_err(|e| Ending::with(Reason::Internal, e.to_string()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.sealing.buffer = None;
                return Poll::Ready(Ok(true));
            }
            Err(error) => {
                return Poll::Ready(Err(application_failed(&error, "can't read from the application")));
            }
        }
        self.moved += 1;
        Poll::Ready(Ok(true))
    }

    /// Seals what was read into the buffer, where it lies.
    fn seal(&mut self, length: usize) -> Result<Range<usize>, SessionError> {
        self.session.before_data(&mut self.sealing.control)?;
        let buffer = self.sealing.buffer.as_deref_mut().unwrap_or_default();
        Ok(0..self.session.seal_data(buffer, length)?)
    }
}
