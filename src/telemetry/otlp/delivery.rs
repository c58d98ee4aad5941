//! Sending until it is taken, refused, or no longer worth it.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::{Accepted, Backoff, Client, Export, ExportError};
use crate::config::settings::Otlp;
use crate::telemetry::metrics::{ExportResult, Exports};

/// Why a request is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The collector refused it for good.
    Refused,
    /// It was not taken in time.
    TooLate,
    /// The process ends.
    Ending,
}

/// Sends one request after the other, each as often as it takes. Says in the log when a collector goes away and when it is
/// back, each once, and what it refuses.
#[derive(Debug)]
pub struct Delivery {
    client: Client,
    exports: Exports,
    /// Since when the collector takes nothing.
    away: Option<Instant>,
    /// When the next try may be.
    not_before: Option<Instant>,
    /// Whether the last one was refused, in whole or in part.
    refusing: bool,
    /// What each request begins with.
    pub(super) backoff: Backoff,
}

impl Delivery {
    /// Sends to the collector of these settings; what becomes of each try is counted in `exports`.
    #[must_use]
    pub const fn new(settings: Otlp, exports: Exports) -> Self {
        Self {
            client: Client::new(settings),
            exports,
            away: None,
            not_before: None,
            refusing: false,
            backoff: Backoff::FIRST,
        }
    }

    /// Where it sends to.
    #[must_use]
    pub const fn settings(&self) -> &Otlp {
        self.client.settings()
    }

    /// Ends the connection in order, if there is one. The next request makes another.
    pub async fn disconnect(&mut self) {
        self.client.disconnect().await;
    }

    /// Sends a request until it is taken. Gives up when the collector refuses it, when `patience` is over (if there is a
    /// bound), or, before a try, when `ending` resolves. A collector that asks to be left alone is, by the next request, too.
    ///
    /// # Errors
    /// See [`Undelivered`].
    pub async fn deliver<R: Export>(
        &mut self,
        request: &R,
        patience: Option<Duration>,
        ending: impl Future<Output = ()>,
    ) -> Result<Accepted, Undelivered> {
        let begun = Instant::now();
        let mut backoff = self.backoff;
        tokio::pin!(ending);
        loop {
            if let Some(at) = self.not_before {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => self.not_before = None,
                    () = &mut ending => return Err(Undelivered::Ending),
                }
            }
            let (why, after) = match self.client.export(request).await {
                Ok(accepted) => {
                    self.taken(&accepted);
                    return Ok(accepted);
                }
                Err(ExportError::Refused(why)) => {
                    self.refused(&why);
                    return Err(Undelivered::Refused);
                }
                Err(ExportError::Retry { why, after }) => (why, after),
            };
            self.not_taken(&why);
            let at = Instant::now() + backoff.next(after, fastrand::f64());
            let too_late = patience.is_some_and(|patience| at > begun + patience);
            if !too_late || after.is_some() {
                self.not_before = Some(at);
            }
            if too_late {
                return Err(Undelivered::TooLate);
            }
        }
    }

    fn taken(&mut self, accepted: &Accepted) {
        self.back();
        let Accepted { rejected, message } = accepted;
        if *rejected == 0 {
            self.exports.count(ExportResult::Accepted);
            self.refusing = false;
            // A success that has something to say is a warning.
            if !message.is_empty() {
                tracing::debug!(endpoint = %self.settings().endpoint, "the collector says: {message}");
            }
            return;
        }
        self.exports.count(ExportResult::Partial);
        if !self.refusing {
            let signal = self.exports.signal();
            tracing::warn!(
                endpoint = %self.settings().endpoint, rejected,
                "the collector did not take all {signal} of a request, and what it rejects is lost: {message}"
            );
        }
        self.refusing = true;
    }

    fn refused(&mut self, why: &str) {
        self.back();
        self.exports.count(ExportResult::Refused);
        if !self.refusing {
            let signal = self.exports.signal();
            tracing::warn!(endpoint = %self.settings().endpoint, "the collector refuses our {signal}: {why}");
        }
        self.refusing = true;
    }

    fn not_taken(&mut self, why: &str) {
        self.exports.count(ExportResult::Failed);
        let signal = self.exports.signal();
        let endpoint = &self.settings().endpoint;
        if self.away.is_none() {
            tracing::warn!(%endpoint, "{signal} cannot be sent, and are tried again: {why}");
            self.away = Some(Instant::now());
        } else {
            tracing::debug!(%endpoint, "{signal} still cannot be sent: {why}");
        }
    }

    /// The collector answers.
    fn back(&mut self) {
        if let Some(since) = self.away.take() {
            let signal = self.exports.signal();
            tracing::info!(
                endpoint = %self.settings().endpoint, after_s = since.elapsed().as_secs(),
                "{signal} are sent again"
            );
        }
    }
}
