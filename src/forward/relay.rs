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
//! the other or the other connections of the thread: each moves [`TURN_BYTES`] or makes [`TURN_MOVES`] moves, and then
//! gives way until the thread has looked at all its sockets.

mod last_words;
mod opening;
mod renewals;
mod sealing;

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::AlertDescription;
use tokio::time::{Instant, sleep_until};

use super::incoming::Incoming;
use super::meter::Meter;
use super::outgoing::Outgoing;
use super::renewing::Renewing;
use super::{buffer, give_way};
use crate::authorize::Permit;
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;
use crate::tls::session::Session;
pub use last_words::alert_for;
use opening::OpeningState;
use sealing::SealingState;

/// Moves of one direction before the other gets its turn, and other connections theirs.
const TURN_MOVES: usize = 8;
/// Payload that ends a turn: some 100 us of work.
const TURN_BYTES: usize = 256 << 10;
/// After so long without a move, what can be made anew is freed.
pub(super) const SETTLED: Duration = Duration::from_secs(1);
/// How long the last words of a side that takes nothing more are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// Moves bytes until both directions have ended, one side fails, nothing moved for `idle`, or `close` says so. Without
/// `renewing` nothing is said of renewal, and what the peer says of it is passed over.
pub fn run<C: Future<Output = Ending>>(
    _permit: &Permit,
    ends: Ends,
    meter: Meter,
    idle: Duration,
    renewing: Option<Box<dyn Renewing>>,
    close: C,
) -> impl Future<Output = Ended> + use<C> {
    // Made here, and only lent from there on: what an async function is given, it stores once more.
    let mut relay = Relay::new(ends, meter, renewing);
    async move {
        let Some(ending) = drive(&mut relay, idle, close).await else {
            return Ended {
                ending: Ending::new(Reason::Finished),
                linger: None,
            };
        };
        // Boxed: rarely needed, and larger than the relay itself.
        Box::pin(relay.last_words(ending)).await
    }
}

/// Polls the relay to its end; `None` when both directions ended in order.
async fn drive(relay: &mut Relay, idle: Duration, close: impl Future<Output = Ending>) -> Option<Ending> {
    tokio::pin!(close);
    let mut patience = idle;
    let timer = sleep_until(Instant::now() + patience.min(SETTLED));
    tokio::pin!(timer);
    loop {
        tokio::select! {
            biased;
            ending = &mut close => return Some(ending),
            result = poll_fn(|cx| relay.poll(cx)) => match result {
                Ok(Progress::Finished) => return None,
                Ok(Progress::HalfFailed) => {
                    patience = LAST_WORDS;
                    timer.as_mut().reset(Instant::now() + patience);
                }
                Ok(Progress::Stirred | Progress::HalfEnded) => timer.as_mut().reset(Instant::now() + patience.min(SETTLED)),
                Err(ending) => return Some(relay.failed.take().unwrap_or(ending)),
            },
            // The timer is not moved at each byte: it looks back when it fires.
            () = &mut timer => {
                relay.begin_renewing();
                if let Some(ending) = relay.reset_after_end() {
                    return Some(relay.failed.take().unwrap_or(ending));
                }
                let quiet = relay.last_move.elapsed();
                if quiet >= patience {
                    return Some(relay.failed.take().unwrap_or_else(|| {
                        let detail = format!("no byte either way for {} s", idle.as_secs_f32());
                        Ending::with(Reason::IdleTimeout, detail)
                    }));
                }
                if quiet >= SETTLED && !relay.settled {
                    relay.settle();
                }
                let look = if relay.settled && !relay.half_ended() {
                    relay.last_move + patience
                } else {
                    Instant::now() + (patience - quiet).min(SETTLED)
                };
                timer.as_mut().reset(look);
            }
        }
    }
}

/// What [`drive`] must know of a poll.
enum Progress {
    /// Both directions ended in order.
    Finished,
    /// One side says no more: from now on a look is needed to see that it is gone.
    HalfEnded,
    /// One side takes nothing more; what it said before is still being passed on.
    HalfFailed,
    /// Something moved after a quiet time.
    Stirred,
}

/// What one direction has moved since it was its turn.
#[derive(Default)]
struct Turn {
    moves: usize,
    bytes: usize,
}

impl Turn {
    const fn goes_on(&mut self) -> bool {
        self.moves += 1;
        self.moves <= TURN_MOVES && self.bytes < TURN_BYTES
    }

    const fn moved(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

struct Relay {
    tls: Stream,
    plain: Stream,
    session: Session,
    meter: Meter,
    incoming: Incoming,
    opening: OpeningState,
    outgoing: Outgoing,
    sealing: SealingState,
    /// Our close_notify had to wait: before it is data that the peer has not taken.
    end_waits: bool,
    /// Counts moves, for the idle time-out.
    moved: u64,
    last_move: Instant,
    /// The direction that goes first changes from poll to poll.
    sealing_first: bool,
    received_data: bool,
    /// Nothing has moved for a while, and what can be made anew was freed.
    settled: bool,
    /// Whether [`drive`] knows that one side says no more.
    half_end_told: bool,
    /// A side can't be written to; the other direction still brings what it had said.
    failed: Option<Ending>,
    /// Whether [`drive`] knows that.
    failure_told: bool,
    /// What the peer is told when it broke TLS, or the rules of renewal.
    protocol_alert: Option<AlertDescription>,
    /// Knows when and with whom the connection is renewed.
    renewing: Option<Box<dyn Renewing>>,
    /// Whether it was told that the connection lasts.
    begun: bool,
}

impl Relay {
    fn new(ends: Ends, meter: Meter, renewing: Option<Box<dyn Renewing>>) -> Self {
        let Ends {
            tls,
            session,
            unread,
            plain,
        } = ends;
        Self {
            tls,
            plain,
            session,
            meter,
            incoming: Incoming::new(unread),
            opening: OpeningState::Open,
            outgoing: Outgoing::new(),
            sealing: SealingState::Open,
            end_waits: false,
            moved: 0,
            last_move: Instant::now(),
            sealing_first: false,
            received_data: false,
            settled: false,
            half_end_told: false,
            failed: None,
            failure_told: false,
            protocol_alert: None,
            renewing,
            begun: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Progress, Ending>> {
        let before = self.moved;
        self.sealing_first = !self.sealing_first;
        let mut again = false;
        for sealing in [self.sealing_first, !self.sealing_first] {
            again |= if sealing {
                self.seal_turn(cx)?
            } else {
                self.open_turn(cx)?
            };
        }
        // What was heard may ask for an answer when the sealing direction has had its turn.
        again |= self.outgoing.is_empty() && self.has_renewal_to_say();
        if self.moved != before {
            self.last_move = Instant::now();
        }
        if self.sealing == SealingState::Done && self.no_more_opened() {
            return Poll::Ready(self.failed.take().map_or(Ok(Progress::Finished), Err));
        }
        let stirred = self.settled && self.moved != before;
        if stirred {
            self.settled = false;
        }
        if self.failed.is_some() && !self.failure_told {
            self.failure_told = true;
            return Poll::Ready(Ok(Progress::HalfFailed));
        }
        if self.half_ended() && !self.half_end_told {
            self.half_end_told = true;
            return Poll::Ready(Ok(Progress::HalfEnded));
        }
        if stirred {
            return Poll::Ready(Ok(Progress::Stirred));
        }
        if again {
            give_way(cx);
        }
        Poll::Pending
    }

    /// Whether the peer's data is through.
    const fn no_more_opened(&self) -> bool {
        matches!(self.opening, OpeningState::Ended { .. } | OpeningState::Done)
    }

    /// Whether all that the application said, and that there is no more, is in the system's hands: what becomes of the socket
    /// then loses nothing that we know of.
    fn end_has_left(&self) -> bool {
        self.sealing != SealingState::Open && self.outgoing.is_empty() && self.failed.is_none()
    }

    /// Whether one direction is through.
    fn half_ended(&self) -> bool {
        self.no_more_opened() || self.sealing != SealingState::Open
    }

    /// Frees what an idle connection need not keep.
    fn settle(&mut self) {
        self.settled = true;
        self.session.rest();
        buffer::trim();
    }

    /// What a reset means that no read saw: it matters where a side's data had ended and the other direction is open.
    fn reset_after_end(&self) -> Option<Ending> {
        let error = io::Error::from(io::ErrorKind::ConnectionReset);
        let opening_open = matches!(self.opening, OpeningState::Open | OpeningState::Ending);
        if self.sealing != SealingState::Open && opening_open && self.plain.is_broken() {
            return Some(application_failed(&error, "the application is gone"));
        }
        let matters = self.opening == OpeningState::Done && !self.end_has_left();
        (matters && self.tls.is_broken()).then(|| peer_failed(&error))
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
