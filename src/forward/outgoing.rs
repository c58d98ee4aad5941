//! Payload on its way into TLS: read into a buffer with room for headers and tags between, sealed where it lies, and
//! written as one piece.
//!
//! How much is read at a time follows the flow: more when the last read filled what it had, less when it hardly did.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::buffer::{Buffer, Size};
use crate::sys::stream::Stream;
use crate::tls::record::{HEADER, MAX_PAYLOAD, MAX_SEALED, TRAILER};
use crate::tls::session::{Session, SessionError};

/// The sending half of a TLS connection.
pub(super) struct Outgoing {
    buffer: Option<Buffer>,
    /// Control records, which go before what is in the buffer.
    control: Vec<u8>,
    /// Sealed records in the buffer that are not written yet. They begin at its front, and all but the last are full.
    sealed: Range<usize>,
    size: Size,
}

/// What [`Outgoing::poll_read_from`] found.
pub(super) enum Read {
    /// Payload; it is sealed and to be written.
    Payload,
    /// No more comes.
    End,
    /// Nothing after all.
    Nothing,
}

/// Why nothing could be read.
pub(super) enum ReadError {
    /// The socket failed.
    Socket(io::Error),
    /// What was read could not be sealed.
    Session(SessionError),
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self {
            buffer: None,
            control: Vec::new(),
            sealed: 0..0,
            size: Size::Small,
        }
    }

    /// Whether everything that was sealed is written.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.sealed.is_empty()
    }

    /// Where to append control records that are to go out.
    pub(super) const fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Reads once from `plain` and seals what came. Call it when [`Self::is_empty`]. Waits without a buffer.
    pub(super) fn poll_read_from(
        &mut self,
        cx: &mut Context<'_>,
        plain: &Stream,
        session: &mut Session,
    ) -> Poll<Result<Read, ReadError>> {
        ready!(plain.poll_read_ready(cx)).map_err(ReadError::Socket)?;
        let mut buffer = Buffer::take(self.size);
        let read = match read_into_slots(plain, &mut buffer) {
            Ok(0) => return Poll::Ready(Ok(Read::End)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Poll::Ready(Ok(Read::Nothing));
            }
            Err(error) => return Poll::Ready(Err(ReadError::Socket(error))),
        };
        let most = buffer.size().records() * MAX_PAYLOAD;
        if read == most {
            self.size = buffer.size().larger();
        } else if read < most / 8 {
            self.size = buffer.size().smaller();
        }
        self.seal(buffer, read, session).map_err(ReadError::Session)?;
        Poll::Ready(Ok(Read::Payload))
    }

    /// Seals the `length` bytes that lie in the slots of `buffer`.
    fn seal(&mut self, mut buffer: Buffer, length: usize, session: &mut Session) -> Result<(), SessionError> {
        session.before_data(&mut self.control)?;
        let mut left = length;
        let mut end = 0;
        for slot in buffer.chunks_mut(MAX_SEALED) {
            if left == 0 {
                break;
            }
            let payload = left.min(MAX_PAYLOAD);
            end += session.seal_data(slot, payload)?;
            left -= payload;
        }
        self.sealed = 0..end;
        self.buffer = Some(buffer);
        Ok(())
    }

    /// Writes once. Returns how many bytes of payload went out with their whole record by it. Call it when not
    /// [`Self::is_empty`].
    pub(super) fn poll_write_to(&mut self, cx: &mut Context<'_>, tls: &Stream) -> Poll<io::Result<usize>> {
        let sealed = self
            .buffer
            .as_deref()
            .and_then(|buffer| buffer.get(self.sealed.clone()))
            .unwrap_or_default();
        let written = if self.control.is_empty() {
            ready!(tls.poll_try_write(cx, sealed))?
        } else {
            let both = [IoSlice::new(&self.control), IoSlice::new(sealed)];
            let written = ready!(tls.poll_write_vectored(cx, &both))?;
            let of_control = written.min(self.control.len());
            self.control.drain(..of_control);
            if self.control.is_empty() {
                self.control = Vec::new();
            }
            written - of_control
        };
        let before = self.payload_before(self.sealed.start);
        self.sealed.start += written;
        let after = self.payload_before(self.sealed.start);
        if self.sealed.is_empty() {
            self.sealed = 0..0;
            self.buffer = None;
        }
        Poll::Ready(Ok(after - before))
    }

    /// How much payload lies in the whole records that end at or before `at`.
    fn payload_before(&self, at: usize) -> usize {
        let end = self.sealed.end;
        let full = at.min(end) / MAX_SEALED;
        let last = if at >= end { end % MAX_SEALED } else { 0 };
        full * MAX_PAYLOAD + last.saturating_sub(HEADER + TRAILER)
    }

    /// Throws away what is not written yet.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// What is sealed and not written, and how much payload is lost if that cannot be written. All of it must go out
    /// before anything else may: the peer counts records.
    pub(super) fn into_unwritten(self) -> (Vec<u8>, usize) {
        let payload = self.payload_before(self.sealed.end) - self.payload_before(self.sealed.start);
        let mut bytes = self.control;
        let sealed = self.buffer.as_deref().and_then(|buffer| buffer.get(self.sealed));
        bytes.extend_from_slice(sealed.unwrap_or_default());
        (bytes, payload)
    }
}

/// Reads into the places of payload, with room for a header before and a trailer behind each.
fn read_into_slots(plain: &Stream, buffer: &mut Buffer) -> io::Result<usize> {
    let slots = buffer.size().records();
    if slots == 1 {
        let slot = buffer.get_mut(HEADER..HEADER + MAX_PAYLOAD);
        return plain.try_read(slot.unwrap_or_default());
    }
    let mut slices: [IoSliceMut<'_>; Size::Large.records()] =
        std::array::from_fn(|_| IoSliceMut::new(&mut []));
    for (slice, slot) in slices.iter_mut().zip(buffer.chunks_exact_mut(MAX_SEALED)) {
        let payload = slot.get_mut(HEADER..HEADER + MAX_PAYLOAD);
        *slice = IoSliceMut::new(payload.unwrap_or_default());
    }
    plain.try_read_vectored(slices.get_mut(..slots).unwrap_or_default())
}

#[cfg(test)]
mod tests;
