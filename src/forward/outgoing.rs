//! Payload on its way into TLS: read or copied into a buffer with room for headers and tags between, sealed where it
//! lies, and written as one piece.
//!
//! How much is read at a time follows the flow: more when the last read filled what it had, less when it hardly did.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::buffer::{Buffer, Size};
use super::pace::Pace;
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

    /// Whether payload was sealed that is not written yet.
    pub(super) fn has_payload(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Where to append control records that are to go out.
    pub(super) const fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Where to append control records that are to go out behind everything that is sealed: an alert, after which nothing
    /// comes. Payload that is not written yet is no longer told of by [`Self::poll_write_to`].
    pub(super) fn control_behind(&mut self) -> &mut Vec<u8> {
        let (unwritten, _) = std::mem::replace(self, Self::new()).into_unwritten();
        self.control = unwritten;
        &mut self.control
    }

    /// Reads once from `plain` and seals what came. Call it when [`Self::is_empty`]. Waits without a buffer.
    pub(super) fn poll_read_from(
        &mut self,
        cx: &mut Context<'_>,
        plain: &Stream,
        session: &mut Session,
        pace: Option<&mut Pace>,
    ) -> Poll<Result<Read, ReadError>> {
        ready!(plain.poll_read_ready(cx)).map_err(ReadError::Socket)?;
        let mut buffer = Buffer::take(self.size);
        let most = buffer.size().records() * MAX_PAYLOAD;
        let read = match pace {
            None => read_into_slots(plain, &mut buffer, most),
            Some(pace) => ready!(pace.poll_read(cx, most, |most| read_into_slots(plain, &mut buffer, most))),
        };
        let read = match read {
            Ok(0) => return Poll::Ready(Ok(Read::End)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Poll::Ready(Ok(Read::Nothing));
            }
            Err(error) => return Poll::Ready(Err(ReadError::Socket(error))),
        };
        if read == most {
            self.size = buffer.size().larger();
        } else if read < most / 8 {
            self.size = buffer.size().smaller();
        }
        self.seal(buffer, read, session).map_err(ReadError::Session)?;
        Poll::Ready(Ok(Read::Payload))
    }

    /// Copies from `slices`, in their order, as much as one buffer holds, seals it, and returns how much that was. Call
    /// it when [`Self::is_empty`], with something to copy.
    pub(super) fn fill(
        &mut self,
        slices: &[IoSlice<'_>],
        session: &mut Session,
    ) -> Result<usize, SessionError> {
        let offered = slices
            .iter()
            .fold(0, |sum: usize, slice| sum.saturating_add(slice.len()));
        let mut buffer = Buffer::take(Size::for_payload(offered));
        let length = copy_into_slots(slices, &mut buffer);
        self.seal(buffer, length, session)?;
        Ok(length)
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
        let written = ready!(tls.poll_write_vectored(cx, self.unwritten(&mut [IoSlice::new(&[]); 2])))?;
        Poll::Ready(Ok(self.advance(written)))
    }

    /// As [`Self::poll_write_to`], without waiting.
    pub(super) fn try_write_to(&mut self, tls: &Stream) -> io::Result<usize> {
        let written = tls.try_write_vectored(self.unwritten(&mut [IoSlice::new(&[]); 2]))?;
        Ok(self.advance(written))
    }

    fn unwritten<'a, 'b>(&'a self, slices: &'b mut [IoSlice<'a>; 2]) -> &'b [IoSlice<'a>] {
        let buffer = self.buffer.as_deref();
        let sealed = buffer.and_then(|buffer| buffer.get(self.sealed.clone()));
        *slices = [
            IoSlice::new(&self.control),
            IoSlice::new(sealed.unwrap_or_default()),
        ];
        slices
            .get(usize::from(self.control.is_empty())..)
            .unwrap_or_default()
    }

    /// Notes that `written` bytes went out, and returns how much payload in whole records that was.
    fn advance(&mut self, written: usize) -> usize {
        let of_control = written.min(self.control.len());
        self.control.drain(..of_control);
        if self.control.is_empty() {
            self.control = Vec::new();
        }
        let before = self.payload_before(self.sealed.start);
        self.sealed.start += written - of_control;
        let after = self.payload_before(self.sealed.start);
        if self.sealed.is_empty() {
            self.sealed = 0..0;
            self.buffer = None;
        }
        after - before
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

/// Reads `most` bytes or less into the places of payload, with room for a header before and a trailer behind each.
fn read_into_slots(plain: &Stream, buffer: &mut Buffer, most: usize) -> io::Result<usize> {
    let slots = buffer.size().records();
    if slots == 1 {
        let slot = buffer.get_mut(HEADER..HEADER + MAX_PAYLOAD.min(most));
        return plain.try_read(slot.unwrap_or_default());
    }
    let mut slices: [IoSliceMut<'_>; Size::Large.records()] =
        std::array::from_fn(|_| IoSliceMut::new(&mut []));
    let mut left = most;
    for (slice, slot) in slices.iter_mut().zip(buffer.chunks_exact_mut(MAX_SEALED)) {
        let payload = slot.get_mut(HEADER..HEADER + MAX_PAYLOAD.min(left));
        *slice = IoSliceMut::new(payload.unwrap_or_default());
        left -= slice.len();
    }
    plain.try_read_vectored(slices.get_mut(..slots).unwrap_or_default())
}

/// Copies into the places of payload what they can hold of `slices`, and returns how much that was.
fn copy_into_slots(slices: &[IoSlice<'_>], buffer: &mut Buffer) -> usize {
    let slots = buffer.size().records();
    let mut slices = slices.iter().map(|slice| &**slice);
    let mut from: &[u8] = &[];
    let mut copied = 0;
    for slot in buffer.chunks_exact_mut(MAX_SEALED).take(slots) {
        let mut to = slot.get_mut(HEADER..HEADER + MAX_PAYLOAD).unwrap_or_default();
        while !to.is_empty() {
            if from.is_empty() {
                match slices.next() {
                    Some(next) => from = next,
                    None => return copied,
                }
            }
            let count = from.len().min(to.len());
            let (now, later) = from.split_at(count);
            let (room, rest) = to.split_at_mut(count);
            room.copy_from_slice(now);
            (from, to) = (later, rest);
            copied += count;
        }
    }
    copied
}

#[cfg(test)]
mod tests;
