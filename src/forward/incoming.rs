//! Sealed bytes as they come from a TLS socket: read as many at a time as the flow asks for, opened where they lie,
//! and shown as payload until it is taken.
//!
//! A buffer is held only while there is something in it. How large the next one is follows what the last read found:
//! larger when it was full, smaller when it was nearly empty. The rest of a record that has not come yet is waited for
//! in the smallest.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use rustls::AlertDescription;

use super::buffer::{Buffer, Size};
use super::pace::Pace;
use crate::sys::stream::Stream;
use crate::tls::record::record_length;
use crate::tls::session::{Received, Session, SessionError};

/// Pieces of payload that one write may take.
pub(super) const MAX_PIECES: usize = 32;
/// Records that are opened before what they held is written on, so that very short ones cannot keep the thread.
const MAX_OPENED: usize = 256;

/// The receiving half of a TLS connection.
pub(super) struct Incoming {
    /// What was read during the handshake.
    unread: Vec<u8>,
    buffer: Option<Buffer>,
    /// Where in the buffer sealed bytes are left.
    sealed: Range<usize>,
    /// What comes when the payload in the buffer is taken.
    stop: Option<Box<Stop>>,
    size: Size,
}

/// Why no more payload comes.
pub(super) enum Stop {
    /// The peer sends no more (close_notify).
    End,
    /// The peer's fatal alert.
    Alert(AlertDescription),
    /// The peer broke TLS.
    Broken(SessionError),
    /// The socket ended without close_notify.
    Truncated,
    /// The socket failed.
    Failed(io::Error),
}

/// What [`Incoming::poll_fill`] came to.
pub(super) enum Fill {
    /// There is payload to take.
    Payload,
    /// Something came, and it was no payload.
    Moved,
    /// No more payload comes.
    Stop(Stop),
}

impl Incoming {
    /// Begins with what the handshake read and did not need.
    pub(super) const fn new(unread: Vec<u8>) -> Self {
        Self {
            unread,
            buffer: None,
            sealed: 0..0,
            stop: None,
            size: Size::Small,
        }
    }

    /// Whether there is payload to take.
    pub(super) fn has_payload(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| buffer.pieces() > 0)
    }

    /// Fills `slices` with the payload, in order, and returns how many it filled.
    pub(super) fn payload<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let payloads = self.buffer.iter().flat_map(Buffer::payloads);
        slices
            .iter_mut()
            .zip(payloads)
            .map(|(slice, payload)| *slice = IoSlice::new(payload))
            .count()
    }

    /// The first piece of the payload, empty when there is none.
    pub(super) fn first_payload(&self) -> &[u8] {
        let payload = self.buffer.as_ref().and_then(|buffer| buffer.payloads().next());
        payload.unwrap_or_default()
    }

    /// Marks `count` bytes of payload as taken. The buffer goes with the last of what is in it.
    pub(super) fn consume(&mut self, count: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.consume(count);
            let no_more = self.sealed.is_empty() || self.stop.is_some();
            if no_more && buffer.pieces() == 0 {
                self.sealed = 0..0;
                self.buffer = None;
            }
        }
    }

    /// Throws away all that is held.
    pub(super) fn clear(&mut self) {
        *self = Self::new(Vec::new());
    }

    /// Opens what is there, or reads once and opens that. Call it when [`Self::has_payload`] is false. Waits without
    /// a buffer, but for the beginning of a record.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        tls: &Stream,
        session: &mut Session,
        pace: Option<&mut Pace>,
    ) -> Poll<Fill> {
        if let Some(fill) = self.open(session) {
            return Poll::Ready(fill);
        }
        if self.sealed.is_empty() && self.unread.is_empty() {
            self.sealed = 0..0;
            self.buffer = None;
            if let Err(error) = ready!(tls.poll_read_ready(cx)) {
                return Poll::Ready(Fill::Stop(Stop::Failed(error)));
            }
        }
        match ready!(self.poll_read(cx, tls, pace)) {
            Ok(Some(0)) => Poll::Ready(Fill::Stop(Stop::Truncated)),
            Ok(Some(_)) => Poll::Ready(self.open(session).unwrap_or(Fill::Moved)),
            Ok(None) => Poll::Ready(Fill::Moved),
            Err(error) => Poll::Ready(Fill::Stop(Stop::Failed(error))),
        }
    }

    /// Opens the whole records that were read; `None` when there are none.
    fn open(&mut self, session: &mut Session) -> Option<Fill> {
        let Some(buffer) = self.buffer.as_mut() else {
            return self.stop.take().map(|stop| Fill::Stop(*stop));
        };
        let mut opened = 0;
        while self.stop.is_none() && opened < MAX_OPENED && buffer.pieces() < MAX_PIECES {
            let sealed = buffer.get(self.sealed.clone()).unwrap_or_default();
            let start = self.sealed.start;
            let record = match record_length(sealed) {
                Ok(Some(length)) if length <= sealed.len() => start..start + length,
                Ok(_) => break,
                Err(error) => {
                    self.stop = Some(Box::new(Stop::Broken(error.into())));
                    break;
                }
            };
            self.sealed.start = record.end;
            opened += 1;
            let received = session.receive(buffer.get_mut(record).unwrap_or_default());
            match received {
                Ok(Received::Data(at)) => buffer.push_payload(start + at.start..start + at.end),
                Ok(Received::Nothing) => {}
                Ok(Received::End) => self.stop = Some(Box::new(Stop::End)),
                Ok(Received::Alert(alert)) => self.stop = Some(Box::new(Stop::Alert(alert))),
                Err(error) => self.stop = Some(Box::new(Stop::Broken(error))),
            }
        }
        if buffer.pieces() > 0 {
            Some(Fill::Payload)
        } else if let Some(stop) = self.stop.take() {
            Some(Fill::Stop(*stop))
        } else {
            (opened > 0).then_some(Fill::Moved)
        }
    }

    /// Reads once behind the sealed bytes that are left; `None` when there was nothing after all.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        tls: &Stream,
        pace: Option<&mut Pace>,
    ) -> Poll<io::Result<Option<usize>>> {
        let unread = std::mem::take(&mut self.unread);
        let mut buffer = self.with_room();
        let room = buffer.get_mut(self.sealed.end..).unwrap_or_default();
        let length = room.len();
        let mut read = |most: usize| {
            let room = room.get_mut(..most).unwrap_or_default();
            if unread.is_empty() {
                return tls.try_read(room);
            }
            let count = unread.len().min(room.len());
            let (now, later) = unread.split_at_checked(count).unwrap_or_default();
            if let Some(room) = room.get_mut(..count) {
                room.copy_from_slice(now);
            }
            self.unread = later.to_vec();
            Ok(count)
        };
        let read = match pace {
            None => Poll::Ready(read(length)),
            Some(pace) => pace.poll_read(cx, length, read),
        };
        let Poll::Ready(read) = read else {
            self.unread = unread;
            self.wait_in_the_smallest(buffer);
            return Poll::Pending;
        };
        match read {
            Ok(count) => {
                self.sealed.end += count;
                if count == length {
                    self.size = buffer.size().larger();
                } else if self.sealed.len() < buffer.len() / 8 {
                    self.size = buffer.size().smaller();
                }
                self.buffer = Some(buffer);
                Poll::Ready(Ok(Some(count)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wait_in_the_smallest(buffer);
                // Registers for the wake-up.
                ready!(tls.poll_read_ready(cx))?;
                Poll::Ready(Ok(None))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// A buffer of the size that is wanted now, with the sealed bytes that are left at its front.
    fn with_room(&mut self) -> Buffer {
        let left = self.sealed.clone();
        self.sealed = 0..left.len();
        match self.buffer.take() {
            None => Buffer::take(self.size),
            Some(mut buffer) if buffer.size() >= self.size => {
                if left.start > 0 {
                    buffer.copy_within(left, 0);
                }
                buffer
            }
            Some(buffer) => {
                let larger = Buffer::take(self.size);
                if larger.size() > buffer.size() {
                    moved(&buffer, left, larger)
                } else {
                    // None is left: this one goes on.
                    let mut buffer = buffer;
                    buffer.copy_within(left, 0);
                    buffer
                }
            }
        }
    }

    /// Keeps the beginning of a record, and no more than it needs.
    fn wait_in_the_smallest(&mut self, buffer: Buffer) {
        if self.sealed.is_empty() {
            return;
        }
        let fits = self.sealed.len() <= Size::Small.bytes();
        self.buffer = Some(if fits && buffer.size() > Size::Small {
            let left = self.sealed.clone();
            self.sealed = 0..left.len();
            moved(&buffer, left, Buffer::take(Size::Small))
        } else {
            buffer
        });
    }
}

/// `to` with what lay `at` in `from` at its front; it has room for that.
fn moved(from: &Buffer, at: Range<usize>, mut to: Buffer) -> Buffer {
    let length = at.len();
    if let (Some(from), Some(to)) = (from.get(at), to.get_mut(..length)) {
        to.copy_from_slice(from);
    }
    to
}

#[cfg(test)]
mod tests;
