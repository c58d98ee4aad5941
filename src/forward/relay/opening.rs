//! The direction from TLS to plaintext.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustls::AlertDescription;

use super::{Relay, Turn, application_failed, peer_failed};
use crate::forward::incoming::{Fill, MAX_PIECES, Stop};
use crate::record::{Ending, Reason};
use crate::tls::alert;
use crate::tls::session::SessionError;

/// What a peer may send after its close_notify until we stop reading; it is thrown away (RFC 8446 section 6.1).
const MAX_AFTER_END: usize = 1 << 16;

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

impl Relay {
    /// Returns whether it could go on at once.
    pub(super) fn open_turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut turn = Turn::default();
        while turn.goes_on() {
            match self.poll_open(cx, &mut turn) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(false),
                Poll::Ready(Err(ending)) => return Err(ending),
            }
        }
        Ok(true)
    }

    /// One move from TLS to plaintext; `false` when this direction is through.
    fn poll_open(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<Result<bool, Ending>> {
        if self.incoming.has_payload() {
            return self.poll_write_opened(cx, turn);
        }
        match self.opening {
            OpeningState::Open => {}
            OpeningState::Ending if self.failed.is_some() => {
                // What the application sent is lost: it must not see a clean end.
                self.opening = OpeningState::Done;
                return Poll::Ready(Ok(false));
            }
            OpeningState::Ending => {
                self.plain
                    .end_writing()
                    .map_err(|e| application_failed(&e, "can't pass on the end of data"))?;
                self.opening = OpeningState::Ended { ignored: 0 };
                return Poll::Ready(Ok(true));
            }
            OpeningState::Ended { ignored } => return self.poll_after_end(cx, ignored),
            OpeningState::Done => return Poll::Ready(Ok(false)),
        }
        let pace = self.meter.pace();
        let fill = ready!(self.incoming.poll_fill(cx, &self.tls, &mut self.session, pace));
        if self.session.has_heard_renewal() {
            self.hear_renewals()?;
            if matches!(fill, Fill::Moved) {
                return Poll::Ready(Ok(true));
            }
        }
        self.moved += 1;
        match fill {
            Fill::Payload => {
                self.received_data = true;
                self.poll_write_opened(cx, turn)
            }
            Fill::Moved => Poll::Ready(Ok(true)),
            Fill::Stop(stop) => Poll::Ready(self.stopped(stop).map(|()| true)),
        }
    }

    fn poll_write_opened(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<Result<bool, Ending>> {
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        let count = self.incoming.payload(&mut slices);
        let slices = slices.get(..count).unwrap_or_default();
        match ready!(self.plain.poll_write_vectored(cx, slices)) {
            Ok(written) => {
                self.incoming.consume(written);
                self.moved += 1;
                turn.moved(written);
                self.meter.opened(written);
                Poll::Ready(Ok(true))
            }
            Err(error) => {
                self.failed = Some(application_failed(&error, "can't write to the application"));
                self.incoming.clear();
                self.opening = OpeningState::Done;
                Poll::Ready(Ok(false))
            }
        }
    }

    /// The payload has come to its end, this way or that.
    fn stopped(&mut self, stop: Stop) -> Result<(), Ending> {
        match stop {
            Stop::End => {
                self.opening = OpeningState::Ending;
                Ok(())
            }
            Stop::Alert(description) => Err(self.alerted(description)),
            Stop::Broken(error) => Err(self.broken(&error)),
            Stop::Truncated => Err(Ending::with(
                Reason::PeerTruncated,
                "the peer's TCP connection ended without close_notify",
            )),
            Stop::Failed(error) => Err(peer_failed(&error)),
        }
    }

    fn alerted(&mut self, description: AlertDescription) -> Ending {
        // It explains why our writes failed, if they did.
        self.failed = None;
        // In TLS 1.3 a client's handshake ends before the server has judged it: an alert in place of the first data is
        // the server's refusal.
        let name = alert::name(description);
        if self.received_data {
            Ending::with(
                Reason::PeerReset,
                format!("the peer ended the connection: {name}"),
            )
        } else {
            Ending::with(
                Reason::RefusedByPeer,
                format!("the peer refused the connection: {name}"),
            )
        }
    }

    /// After the peer's close_notify: a reset must still be seen while the other direction runs.
    fn poll_after_end(&mut self, cx: &mut Context<'_>, ignored: usize) -> Poll<Result<bool, Ending>> {
        self.incoming.clear();
        let mut sink = [0; 512];
        let read = match ready!(self.tls.poll_read_ready(cx)) {
            Ok(()) => self.tls.try_read(&mut sink),
            Err(error) => Err(error),
        };
        self.opening = match read {
            Ok(0) => OpeningState::Done,
            Ok(read) if ignored + read < MAX_AFTER_END => OpeningState::Ended {
                ignored: ignored + read,
            },
            Ok(_) => OpeningState::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.opening,
            // Both had ended: a peer that closes with our close_notify unread has its system send a reset.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.end_has_left() => {
                OpeningState::Done
            }
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
