//! Where telemetry is sent to in the OpenTelemetry protocol.

use std::fmt;
use std::time::Duration;

use super::Target;

/// A collector, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Where it listens.
    pub endpoint: Target,
    /// What stands before `/v1/…` in a request's path: empty, or a path that begins with `/` and ends with none. Always
    /// empty for gRPC.
    pub path: String,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// For one export, connecting included.
    pub timeout: Duration,
    /// Sent with each request.
    pub headers: OtlpHeaders,
    /// What we are called there: the resource attribute `service.name`.
    pub service_name: String,
}

/// The protocol's transports that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Over HTTP/2, prior knowledge.
    Grpc,
    /// Protobuf in HTTP/1.1 requests.
    Http,
}

/// Names, in lower case, and values. Values are often secret: only names are shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpHeaders(pub Vec<(String, String)>);

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// What becomes a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Where spans are sent to.
    pub otlp: Otlp,
    /// The share of connections that are sent, from 0 to 1.
    pub sample: f64,
    /// Which of the denied and refused ones.
    pub denials: Denials,
}

/// Which denied and refused connections become spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denials {
    /// All of them.
    Always,
    /// As many as of the others.
    Sampled,
}
