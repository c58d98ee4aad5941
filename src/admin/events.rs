//! Verdicts as they are given, and the status as it changes, as server-sent events (WHATWG HTML, section 9.2).
//!
//! The body that hyper polls: it yields a status or a verdict when there is one, a comment when there was none for a
//! while, so that both ends see that the other lives, and ends when the endpoint does. A reader that is too slow gets the
//! newest status alone, and loses verdicts and is told how many; one that takes nothing at all is cut off by the server,
//! which asks [`Progress`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::Stream as _;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, WatchStream};

use super::feed::{Listening, Place};
use super::status::Rendered;
use crate::record::Decision;
use crate::telemetry::decisions::{Filter, SubscriberPlace, Subscription};

/// How often a quiet stream says that it lives.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// When a connection was last seen to take something.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// The last time a stream was asked for more; `None` where the answer is no stream.
    pub(super) fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// That the endpoint ends: resolves then.
pub(super) type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The statuses of a stream.
struct Statuses {
    coming: WatchStream<Option<Arc<Rendered>>>,
    /// How this reader may make changes.
    changes: &'static str,
    /// The connections that it wants to see.
    shown: usize,
    _place: Place,
}

/// The body of a stream.
pub(super) struct Events {
    /// Where they are asked for; verdicts have a name then.
    statuses: Option<Statuses>,
    verdicts: BroadcastStream<Arc<Decision>>,
    filter: Filter,
    /// Comes at once for the first time: the answer's head is on its way before there is a verdict.
    keep_alive: Interval,
    stopped: Stopped,
    progress: Progress,
    ended: bool,
    _place: SubscriberPlace,
}

impl Events {
    pub(super) fn new(
        subscription: Subscription,
        filter: Filter,
        progress: Progress,
        stopped: Stopped,
    ) -> Self {
        progress.note();
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            statuses: None,
            verdicts: BroadcastStream::new(subscription.verdicts),
            filter,
            keep_alive,
            stopped,
            progress,
            ended: false,
            _place: subscription.place,
        }
    }

    /// With the status beside the verdicts.
    pub(super) fn with_status(mut self, listening: Listening, changes: &'static str, shown: usize) -> Self {
        self.statuses = Some(Statuses {
            coming: WatchStream::new(listening.statuses),
            changes,
            shown,
            _place: listening.place,
        });
        self
    }

    /// The next status, where one is here.
    fn poll_status(&mut self, cx: &mut Context<'_>) -> Option<String> {
        let statuses = self.statuses.as_mut()?;
        // The first may be nothing yet.
        while let Poll::Ready(Some(status)) = Pin::new(&mut statuses.coming).poll_next(cx) {
            if let Some(status) = status {
                let line = status.line(statuses.changes, statuses.shown);
                return Some(format!("event: status\ndata: {line}\n\n"));
            }
        }
        None
    }

    fn poll_text(&mut self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(Some(": this process ends\n\n".to_owned()));
        }
        if let Some(status) = self.poll_status(cx) {
            self.keep_alive.reset();
            return Poll::Ready(Some(status));
        }
        let name = if self.statuses.is_some() {
            "event: decision\n"
        } else {
            ""
        };
        // What is not wanted is passed over in batches: another task may be waiting for the thread.
        for _ in 0..64 {
            match Pin::new(&mut self.verdicts).poll_next(cx) {
                Poll::Ready(Some(Ok(decision))) if self.filter.takes(&decision) => {
                    self.keep_alive.reset();
                    return Poll::Ready(Some(event(name, &decision)));
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(BroadcastStreamRecvError::Lagged(lost)))) => {
                    return Poll::Ready(Some(format!("event: lost\ndata: {{\"lost\":{lost}}}\n\n")));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    let tick = self.keep_alive.poll_tick(cx);
                    return tick.map(|_| Some(": verdicts as they are given\n\n".to_owned()));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn event(name: &str, decision: &Decision) -> String {
    // Strings and numbers cannot fail; JSON has no line feed outside of strings, and none inside.
    let json = serde_json::to_string(decision).unwrap_or_default();
    format!("{name}id: {}\ndata: {json}\n\n", decision.id)
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        this.progress.note();
        if this.ended {
            return Poll::Ready(None);
        }
        this.poll_text(cx)
            .map(|text| text.map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}
