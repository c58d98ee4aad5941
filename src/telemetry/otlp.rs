//! A client of the OpenTelemetry protocol (OTLP 1.x): logs and traces, over gRPC and over HTTP.
//!
//! Owns the connection to a collector and what an answer means: taken, taken in part, to be tried again, refused for good
//! ([`Client`]), and then whether the message is at fault. [`Delivery`] does what the protocol asks of a client beyond one try: it waits as told, longer each time,
//! and tells log and metrics how it goes. Runs on the control runtime, never on a worker; leaves queues, and what becomes
//! of what nobody takes, to whoever calls it.
//!
//! The messages are the `opentelemetry-proto` crate's. The client is our own on tonic and hyper: the exporters that there
//! are bring a runtime's threads, an HTTP client or a TLS stack of their own, and none tells a partial success from a
//! whole one.

mod answer;
mod backoff;
mod connection;
mod delivery;
mod values;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::sync::watch;

use crate::config::settings::Otlp;
pub use backoff::Backoff;
use connection::Connection;
pub use delivery::{Delivery, Undelivered};
pub use values::{integer, list, resource, scope, text, truth};

/// The messages, by the names that the protocol gives them.
pub mod proto {
    pub use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    pub use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    pub use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
    pub use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
    pub use opentelemetry_proto::tonic::resource::v1::Resource;
    pub use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span, status};
}

/// The largest request that is sent, in bytes. Collectors built on grpc-go take 4 MiB.
pub const MAX_REQUEST: usize = (4 << 20) - (64 << 10);
/// The most of an answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The collector took it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// How many of the records or spans it did not take. It will not take them another time either.
    pub rejected: u64,
    /// What it says about those, or a warning; empty for most.
    pub message: String,
}

/// The collector did not take it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// It may be sent again.
    #[error("{why}")]
    Retry {
        /// What failed.
        why: String,
        /// For how long the collector asks to be left alone.
        after: Option<Duration>,
    },
    /// The protocol says not to send it again, for a reason that need not lie in what was sent: no right to, no such service,
    /// a fault of the collector's own.
    #[error("{0}")]
    Refused(String),
    /// Not to be sent again, for what it holds or how large it is.
    #[error("{0}")]
    Invalid(String),
}

/// How far the process' end has come, for a task that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Work as usual.
    Running,
    /// Keep no connection while there is nothing to send: somebody may be waiting for it to end.
    Leaving,
    /// Send what there is, and end.
    Ending,
}

impl Stage {
    /// Resolves when the process' end has come so far.
    pub async fn reached(stage: &mut watch::Receiver<Self>, wanted: Self) {
        if stage.wait_for(|stage| *stage >= wanted).await.is_err() {
            // Nobody is left who would say so.
            std::future::pending().await
        }
    }
}

impl ExportError {
    fn retry(why: impl Into<String>) -> Self {
        Self::Retry {
            why: why.into(),
            after: None,
        }
    }
}

/// A request of one of the protocol's services, with its answer.
pub trait Export: Message + Clone + Default + 'static {
    /// The answer.
    type Response: Message + Default + Send + 'static;
    /// The gRPC method.
    const METHOD: &'static str;
    /// The path over HTTP.
    const PATH: &'static str;

    /// What an answer says of records that were not taken: how many, and why.
    fn partial_success(response: Self::Response) -> Option<(i64, String)>;
}

impl Export for ExportLogsServiceRequest {
    type Response = ExportLogsServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    const PATH: &'static str = "/v1/logs";

    fn partial_success(response: Self::Response) -> Option<(i64, String)> {
        let partial = response.partial_success?;
        Some((partial.rejected_log_records, partial.error_message))
    }
}

impl Export for ExportTraceServiceRequest {
    type Response = ExportTraceServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    const PATH: &'static str = "/v1/traces";

    fn partial_success(response: Self::Response) -> Option<(i64, String)> {
        let partial = response.partial_success?;
        Some((partial.rejected_spans, partial.error_message))
    }
}

/// Sends to one collector. Connects at the first call, keeps the connection, and connects anew when it is gone.
#[derive(Debug)]
pub struct Client {
    settings: Otlp,
    connection: Option<Connection>,
}

impl Client {
    /// A client that is not connected yet.
    #[must_use]
    pub const fn new(settings: Otlp) -> Self {
        Self {
            settings,
            connection: None,
        }
    }

    /// Where it sends to, and how.
    #[must_use]
    pub const fn settings(&self) -> &Otlp {
        &self.settings
    }

    /// Sends log records, once.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub async fn logs(&mut self, request: &ExportLogsServiceRequest) -> Result<Accepted, ExportError> {
        self.export(request).await
    }

    /// Sends spans, once.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub async fn traces(&mut self, request: &ExportTraceServiceRequest) -> Result<Accepted, ExportError> {
        self.export(request).await
    }

    /// Ends the connection in order, if there is one.
    pub async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }

    /// Sends a request, once, within the settings' timeout. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub async fn export<R: Export>(&mut self, request: &R) -> Result<Accepted, ExportError> {
        let size = request.encoded_len();
        if size > MAX_REQUEST {
            let why =
                format!("a request of {size} bytes is larger than {MAX_REQUEST}, the most that is sent");
            return Err(ExportError::Invalid(why));
        }
        // Out of its place: what a timeout leaves behind is not used again.
        let kept = self.connection.take();
        let attempt = connection::attempt(kept, &self.settings, request);
        let (result, connection) = tokio::time::timeout(self.settings.timeout, attempt)
            .await
            .unwrap_or_else(|_| {
                let limit = self.settings.timeout.as_millis();
                let why = format!("no answer from `{}` within {limit} ms", self.settings.endpoint);
                (Err(ExportError::retry(why)), None)
            });
        self.connection = connection;
        let Some((rejected, message)) = result.map(R::partial_success)? else {
            return Ok(Accepted::default());
        };
        Ok(Accepted {
            rejected: u64::try_from(rejected).unwrap_or(0),
            message: answer::said(&message),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
