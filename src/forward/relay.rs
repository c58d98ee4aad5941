//! The relay: a TLS socket on one side, a plaintext socket on the other, and one task that moves what comes.
//!
//! What it promises: bytes arrive in order, once, and all or the loss is shown; a slow reader holds back a fast
//! writer (a direction reads only when what it read before is written); each direction ends by itself (half-close);
//! only close_notify is passed on as an end, only an end is passed on as close_notify; whatever else stops one side
//! (a reset, a TCP end without close_notify, a broken record, our own decision) reaches the other as a reset or a
//! fatal alert. When a side can't be written to any more, what it had said before is passed on first: the answer of
//! an application that closed early, the alert of a peer that refused us.
//!
//! It is driven by readiness and takes a buffer only when there is something to read. Neither direction can starve
//! the other or the other connections of the thread: each makes [`TURNS`] moves and then gives way.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::AlertDescription;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::buffer::Buffer;
use super::meter::Meter;
use crate::authorize::Permit;
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;
use crate::tls::alert;
use crate::tls::record::{HEADER, MAX_PAYLOAD, TRAILER, record_length};
use crate::tls::session::{Received, Session, SessionError};

/// Moves of one direction before the other gets its turn.
const TURNS: usize = 8;
/// How long a fatal alert may take to get into the socket, and how long the last words of a side that takes nothing
/// more are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a peer may send after its close_notify until we stop reading; it is thrown away (RFC 8446 section 6.1).
const MAX_AFTER_END: usize = 1 << 16;

/// Two sockets and what lies between them.
#[derive(Debug)]
pub struct Ends {
    /// The side that speaks TLS.
    pub tls: Stream,
    /// Its session.
    pub session: Session,
    /// Sealed bytes that were read already.
    pub unread: Vec<u8>,
    /// The plaintext side.
    pub plain: Stream,
}

/// How a relayed connection ended.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub ending: Ending,
    /// The TLS socket, when our last words in it need a lingering close.
    pub linger: Option<Stream>,
}

/// Moves bytes until both directions have ended, one side fails, nothing moved for `idle`, or `close` says so.
pub async fn run(
    _permit: &Permit,
    ends: Ends,
    meter: Meter,
    idle: Duration,
    close: impl Future<Output = Ending>,
) -> Ended {
    let mut relay = Relay::new(ends, meter);
    tokio::pin!(close);
    let mut patience = idle;
    let mut deadline = Instant::now() + patience;
    loop {
        let moved = relay.moved;
        tokio::select! {
            biased;
            ending = &mut close => return relay.abort(ending).await,
            result = poll_fn(|cx| relay.poll(cx)) => match result {
                Ok(Progress::Finished) => {
                    return Ended { ending: Ending::new(Reason::Finished), linger: None };
                }
                Ok(Progress::HalfFailed) => {
                    patience = LAST_WORDS;
                    deadline = Instant::now() + patience;
                }
                Err(ending) => {
                    let ending = relay.failed.take().unwrap_or(ending);
                    return relay.abort(ending).await;
                }
            },
            () = sleep_until(deadline) => {
                if relay.moved == moved {
                    let ending = relay.failed.take().unwrap_or_else(|| {
                        let detail = format!("no byte either way for {} s", idle.as_secs_f32());
                        Ending::with(Reason::IdleTimeout, detail)
                    });
                    return relay.abort(ending).await;
                }
                // The timer is not moved at each byte: it looks back when it fires.
                deadline = relay.last_move + patience;
            }
        }
    }
}

/// What [`run`] must know of a poll.
enum Progress {
    /// Both directions ended in order.
    Finished,
    /// One side takes nothing more; what it said before is still being passed on.
    HalfFailed,
}

struct Relay {
    tls: Stream,
    plain: Stream,
    session: Session,
    meter: Meter,
    opening: Opening,
    sealing: Sealing,
    /// Counts moves, for the idle time-out.
    moved: u64,
    last_move: Instant,
    /// The direction that goes first changes from poll to poll.
    sealing_first: bool,
    received_data: bool,
    /// A side can't be written to; the other direction still brings what it had said.
    failed: Option<Ending>,
    /// Whether [`run`] knows that.
    failure_told: bool,
    /// What the peer is told when it broke TLS.
    protocol_alert: Option<AlertDescription>,
}

/// From TLS to plaintext.
struct Opening {
    unread: Vec<u8>,
    buffer: Option<Buffer>,
    /// Sealed bytes in the buffer.
    sealed: Range<usize>,
    /// Opened bytes in the buffer that are not written yet; they lie before `sealed`.
    opened: Range<usize>,
    state: OpeningState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OpeningState {
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

/// From plaintext to TLS.
struct Sealing {
    buffer: Option<Buffer>,
    /// Control records to write before the record in the buffer.
    control: Vec<u8>,
    /// The sealed record in the buffer.
    record: Range<usize>,
    state: SealingState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SealingState {
    Open,
    /// close_notify is on its way.
    Ending,
    Done,
}

impl Relay {
    fn new(ends: Ends, meter: Meter) -> Self {
        Self {
            tls: ends.tls,
            plain: ends.plain,
            session: ends.session,
            meter,
            opening: Opening {
                unread: ends.unread,
                buffer: None,
                sealed: 0..0,
                opened: 0..0,
                state: OpeningState::Open,
            },
            sealing: Sealing {
                buffer: None,
                control: Vec::new(),
                record: 0..0,
                state: SealingState::Open,
            },
            moved: 0,
            last_move: Instant::now(),
            sealing_first: false,
            received_data: false,
            failed: None,
            failure_told: false,
            protocol_alert: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Progress, Ending>> {
        let before = self.moved;
        self.sealing_first = !self.sealing_first;
        let mut again = false;
        for sealing in [self.sealing_first, !self.sealing_first] {
            again |= if sealing {
                self.seal_turns(cx)?
            } else {
                self.open_turns(cx)?
            };
        }
        if self.moved != before {
            self.last_move = Instant::now();
        }
        if self.sealing.state == SealingState::Done
            && matches!(
                self.opening.state,
                OpeningState::Ended { .. } | OpeningState::Done
            )
        {
            return Poll::Ready(self.failed.take().map_or(Ok(Progress::Finished), Err));
        }
        if self.failed.is_some() && !self.failure_told {
            self.failure_told = true;
            return Poll::Ready(Ok(Progress::HalfFailed));
        }
        if again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Returns whether it could go on at once.
    fn open_turns(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        for _ in 0..TURNS {
            match self.poll_open(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(false),
                Poll::Ready(Err(ending)) => return Err(ending),
            }
        }
        Ok(true)
    }

    fn seal_turns(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        for _ in 0..TURNS {
            match self.poll_seal(cx) {
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
                // The end of a unix or TCP socket's direction is immediate.
                ready!(Pin::new(&mut self.plain).poll_shutdown(cx))
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
        match ready!(Pin::new(&mut self.plain).poll_write(cx, bytes)) {
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
        match ready!(Pin::new(&mut self.tls).poll_write(cx, bytes)) {
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

    /// The peer broke TLS.
    fn broken(&mut self, error: &SessionError) -> Ending {
        self.protocol_alert = Some(error.alert());
        Ending::with(
            Reason::ProtocolError,
            format!("{error}; told the peer {}", alert::name(error.alert())),
        )
    }

    /// Ends both sides so that neither can take it for a clean end: a fatal alert and a reset.
    async fn abort(mut self, ending: Ending) -> Ended {
        self.plain.abort();
        if matches!(ending.reason, Reason::PeerReset | Reason::RefusedByPeer) {
            // The peer ended the connection: there is nobody left to tell.
            self.tls.abort();
            return Ended { ending, linger: None };
        }
        let mut last = std::mem::take(&mut self.sealing.control);
        // A record that is half on the wire must be finished, or the alert would be read as its rest.
        last.extend_from_slice(
            self.sealing
                .buffer
                .as_deref()
                .and_then(|b| b.get(self.sealing.record.clone()))
                .unwrap_or_default(),
        );
        let alert = self.protocol_alert.unwrap_or(alert_for(ending.reason));
        let sealed = self.session.seal_fatal(alert, &mut last).is_ok();
        let written = matches!(timeout(LAST_WORDS, self.tls.write_all(&last)).await, Ok(Ok(())));
        if written && !self.sealing.record.is_empty() {
            self.meter
                .sealed(self.sealing.record.end.saturating_sub(HEADER + TRAILER));
        }
        if sealed && written {
            Ended {
                ending,
                linger: Some(self.tls),
            }
        } else {
            self.tls.abort();
            Ended { ending, linger: None }
        }
    }
}

/// The alert that tells the peer why we end an open connection (RFC 8446 section 6.2).
#[must_use]
pub const fn alert_for(reason: Reason) -> AlertDescription {
    match reason {
        Reason::PolicyChange | Reason::RuleExpired | Reason::DenyRule | Reason::NoAllowRule => {
            AlertDescription::AccessDenied
        }
        Reason::BundleChange => AlertDescription::UnknownCA,
        Reason::PeerExpired => AlertDescription::CertificateExpired,
        Reason::PeerTruncated => AlertDescription::DecodeError,
        // Our own affair: nothing the peer did.
        _ => AlertDescription::InternalError,
    }
}

fn peer_failed(error: &io::Error) -> Ending {
    Ending::with(
        Reason::PeerReset,
        format!("the connection to the peer failed: {error}"),
    )
}

fn application_failed(error: &io::Error, what: &str) -> Ending {
    Ending::with(Reason::ApplicationReset, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests;
