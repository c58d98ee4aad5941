//! The direction from plaintext to TLS.

use std::task::{Context, Poll, ready};

use super::{Relay, Turn, application_failed, peer_failed};
use crate::forward::outgoing::{Read, ReadError};
use crate::record::{Ending, Reason};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SealingState {
    Open,
    /// close_notify is on its way.
    Ending,
    Done,
}

impl Relay {
    /// Returns whether it could go on at once.
    pub(super) fn seal_turn(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut turn = Turn::default();
        while turn.goes_on() {
            match self.poll_seal(cx, &mut turn) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(false),
                Poll::Ready(Err(ending)) => return Err(ending),
            }
        }
        Ok(true)
    }

    /// One move from plaintext to TLS; `false` when this direction is through.
    fn poll_seal(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<Result<bool, Ending>> {
        if !self.outgoing.is_empty() {
            return self.poll_write_sealed(cx, turn);
        }
        match self.sealing {
            SealingState::Open => {}
            SealingState::Ending => {
                self.sealing = SealingState::Done;
                return Poll::Ready(Ok(false));
            }
            SealingState::Done => return Poll::Ready(Ok(false)),
        }
        if self.say_renewals()? {
            return self.poll_write_sealed(cx, turn);
        }
        let pace = self.meter.pace();
        match ready!(
            self.outgoing
                .poll_read_from(cx, &self.plain, &mut self.session, pace)
        ) {
            Ok(Read::Payload) => {
                self.moved += 1;
                self.poll_write_sealed(cx, turn)
            }
            Ok(Read::Nothing) => Poll::Ready(Ok(true)),
            Ok(Read::End) if self.failed.is_some() => {
                // The kernel tells of a reset once, and our write has had it: this need not be an end.
                self.sealing = SealingState::Done;
                Poll::Ready(Ok(false))
            }
            Ok(Read::End) => {
                let sealed = self.session.seal_close_notify(self.outgoing.control());
                sealed.map_err(|e| Ending::with(Reason::Internal, e.to_string()))?;
                self.sealing = SealingState::Ending;
                self.moved += 1;
                Poll::Ready(Ok(true))
            }
            Err(ReadError::Socket(error)) => {
                Poll::Ready(Err(application_failed(&error, "can't read from the application")))
            }
            Err(ReadError::Session(error)) => {
                Poll::Ready(Err(Ending::with(Reason::Internal, error.to_string())))
            }
        }
    }

    fn poll_write_sealed(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<Result<bool, Ending>> {
        let is_traffic = self.outgoing.has_payload();
        let Poll::Ready(written) = self.outgoing.poll_write_to(cx, &self.tls) else {
            self.end_waits |= self.sealing == SealingState::Ending;
            return Poll::Pending;
        };
        match written {
            Ok(payload) => {
                turn.moved(payload);
                self.meter.sealed(payload);
                self.moved += u64::from(is_traffic);
                Poll::Ready(Ok(true))
            }
            Err(error) => {
                // Only where data is lost is it a failure: if all that could not be told is that there is no more,
                // what the peer says, or how it ended, decides.
                if self.sealing == SealingState::Open || self.end_waits {
                    self.failed = Some(peer_failed(&error));
                }
                self.outgoing.clear();
                self.sealing = SealingState::Done;
                Poll::Ready(Ok(false))
            }
        }
    }
}
