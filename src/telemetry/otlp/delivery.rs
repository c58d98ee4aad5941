//! Sending until it is taken, refused, or no longer worth it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Accepted, Backoff, Client, Export, ExportError};
use crate::config::settings::Otlp;
use crate::telemetry::metrics::{ExportResult, Exports};

/// Why a request is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The collector refused it, and that need not be for what is in it.
    Refused,
    /// The collector refused it for what is in it, or for its size.
    Invalid,
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
    pub(crate) backoff: Backoff,
    /// A refusal may pass, too: see [`Delivery::lasting`].
    lasting: bool,
    /// Where the waits go on, for a request that takes the place of one that was refused.
    pub(super) carried: Option<Backoff>,
    /// Why nothing is taken, while that is so.
    trouble: watch::Sender<Option<Arc<str>>>,
}

impl Delivery {
    /// Sends to the collector of these settings; what becomes of each try is counted in `exports`.
    #[must_use]
    pub fn new(settings: Otlp, exports: Exports) -> Self {
        Self {
            client: Client::new(settings),
            exports,
            away: None,
            not_before: None,
            refusing: false,
            backoff: Backoff::FIRST,
            lasting: false,
            carried: None,
            trouble: watch::Sender::new(None),
        }
    }

    /// For what must not be lost. A refusal that need not be for what is in the request is taken as trouble that will pass: a
    /// token that ran out, a collector that is set up wrongly. The request after it waits as one after a failed try does,
    /// longer each time; and what the collector says of a request's content goes to whoever sends it, who knows what it means.
    #[must_use]
    pub fn lasting(settings: Otlp, exports: Exports) -> Self {
        Self {
            lasting: true,
            ..Self::new(settings, exports)
        }
    }

    /// Why the collector takes nothing, while that is so.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.trouble.subscribe()
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

    /// Sends a request until it is taken. Gives up when the collector refuses it, each time that it does, when `patience` is over (if there is a
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
        let mut backoff = self.carried.unwrap_or(self.backoff);
        tokio::pin!(ending);
        loop {
            self.wait(ending.as_mut()).await?;
            let (why, after, refused) = match self.client.export(request).await {
                Ok(accepted) => {
                    self.taken(&accepted);
                    return Ok(accepted);
                }
                Err(ExportError::Invalid(why)) => {
                    self.refused(&why);
                    return Err(Undelivered::Invalid);
                }
                Err(ExportError::Refused(why)) if !self.lasting => {
                    self.refused(&why);
                    return Err(Undelivered::Refused);
                }
                Err(ExportError::Refused(why)) => (why, None, true),
                Err(ExportError::Retry { why, after }) => (why, after, false),
            };
            self.not_taken(&why);
            let at = Instant::now() + backoff.next(after, fastrand::f64());
            let too_late = patience.is_some_and(|patience| at > begun + patience);
            if !too_late || after.is_some() {
                self.not_before = Some(at);
            }
            if refused {
                self.carried = Some(backoff);
                return Err(Undelivered::Refused);
            }
            if too_late {
                return Err(Undelivered::TooLate);
            }
        }
    }

    /// Whether the collector takes a request without content, to which it should say yes (OTLP 1.x, "Full Success"). If it does
    /// not, then what it said of another one was not for its content; and the next request waits, as after a failed try.
    ///
    /// # Errors
    /// When the process ends before.
    pub async fn takes_any<R: Export>(
        &mut self,
        ending: impl Future<Output = ()>,
    ) -> Result<bool, Undelivered> {
        tokio::pin!(ending);
        self.wait(ending).await?;
        let error = match self.client.export(&R::default()).await {
            Ok(accepted) => {
                self.taken(&accepted);
                return Ok(true);
            }
            Err(error) => error,
        };
        self.not_taken(&error.to_string());
        let after = match error {
            ExportError::Retry { after, .. } => after,
            ExportError::Refused(_) | ExportError::Invalid(_) => None,
        };
        let mut backoff = self.carried.unwrap_or(self.backoff);
        self.not_before = Some(Instant::now() + backoff.next(after, fastrand::f64()));
        self.carried = Some(backoff);
        Ok(false)
    }

    /// Waits until the next try may be.
    async fn wait(&mut self, ending: Pin<&mut impl Future<Output = ()>>) -> Result<(), Undelivered> {
        if let Some(at) = self.not_before {
            tokio::select! {
                () = tokio::time::sleep_until(at) => self.not_before = None,
                () = ending => return Err(Undelivered::Ending),
            }
        }
        Ok(())
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
        self.exports.count(ExportResult::Refused);
        if self.lasting {
            // Not known yet whether it takes anything at all.
            tracing::debug!(endpoint = %self.settings().endpoint, "the collector refuses a request: {why}");
            return;
        }
        self.back();
        if !self.refusing {
            let signal = self.exports.signal();
            tracing::warn!(endpoint = %self.settings().endpoint, "the collector refuses our {signal}: {why}");
        }
        self.refusing = true;
    }

    fn not_taken(&mut self, why: &str) {
        self.exports.count(ExportResult::Failed);
        self.trouble.send_replace(Some(why.into()));
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
        self.carried = None;
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
        if let Some(since) = self.away.take() {
            let signal = self.exports.signal();
            tracing::info!(
                endpoint = %self.settings().endpoint, after_s = since.elapsed().as_secs(),
                "{signal} are sent again"
            );
        }
    }
}
