//! A client of the SPIFFE Workload API: one connection, one stream of X.509-SVIDs.
//!
//! Owns the connection and what is said on it. Connects anew each time, so that a socket that was re-created, or a
//! mount that was swapped, is found by its path. Bounds the size of an answer and the time to connect; a peer that
//! dies without a word is noticed by HTTP/2 pings. Checks nothing of an answer: that is [`super::update`]'s.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

use super::update::{Answer, Offer};
use crate::config::settings::Address;
use crate::workload_api::proto::{FETCH_X509_SVID, SECURITY_HEADER, X509SvidRequest, X509SvidResponse};

/// The largest answer that is read, in bytes. Large federations go beyond gRPC's usual 4 MiB.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// For the connection and HTTP/2's first frames together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

// Agents built on grpc-go close a connection that pings more often than every five minutes (`ENHANCE_YOUR_CALM`
// after the third): the SVID's age finds a hung agent sooner where lives are short.
const PING_INTERVAL: Duration = Duration::from_secs(330);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a stream is over, or never came to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The agent says `PermissionDenied`.
    #[error("the Workload API denies us: {0}")]
    Denied(String),
    /// The agent says `InvalidArgument`.
    #[error("the Workload API says that our request is invalid: {0}; is this really a SPIFFE Workload API?")]
    Invalid(String),
    /// Everything else.
    #[error("{0}")]
    Lost(String),
}

/// An open stream of X.509-SVIDs. Dropping it closes the connection.
#[derive(Debug)]
pub struct Subscription {
    stream: Streaming<X509SvidResponse>,
    /// Drives the connection; ends with the subscription.
    _connection: AbortOnDrop,
}

impl Subscription {
    /// The next answer.
    ///
    /// # Errors
    /// When the stream is over; then it stays so.
    pub async fn next(&mut self) -> Result<Answer, End> {
        match self.stream.message().await {
            Ok(Some(response)) => Ok(answer(response)),
            Ok(None) => Err(End::Lost("the Workload API ended the stream".to_owned())),
            Err(status) => Err(end(&status)),
        }
    }
}

/// Connects to the Workload API and asks for X.509-SVIDs. Needs a tokio runtime.
///
/// # Errors
/// When there is no connection, or the agent answers with an error at once.
pub async fn subscribe(address: &Address) -> Result<Subscription, End> {
    let (sender, connection) = tokio::time::timeout(CONNECT_TIMEOUT, connect(address))
        .await
        .map_err(|_| {
            End::Lost(format!(
                "no answer from `{address}` within {} s: is the agent healthy?",
                CONNECT_TIMEOUT.as_secs()
            ))
        })??;
    let mut client = Grpc::with_origin(Sender(sender), hyper::Uri::from_static("http://localhost"))
        .max_decoding_message_size(MAX_ANSWER);
    let mut request = Request::new(X509SvidRequest {});
    request
        .metadata_mut()
        .insert(SECURITY_HEADER, MetadataValue::from_static("true"));
    let stream = client
        .server_streaming(
            request,
            PathAndQuery::from_static(FETCH_X509_SVID),
            ProstCodec::default(),
        )
        .await
        .map_err(|status| end(&status))?
        .into_inner();
    Ok(Subscription {
        stream,
        _connection: connection,
    })
}

async fn connect(address: &Address) -> Result<(SendRequest<Body>, AbortOnDrop), End> {
    let failed = |e: std::io::Error| {
        End::Lost(format!(
            "cannot connect to `{address}`: {e}; is the agent running, and is its socket mounted here?"
        ))
    };
    match address {
        Address::Unix(path) => handshake(UnixStream::connect(path).await.map_err(failed)?).await,
        Address::Tcp(addr) => handshake(TcpStream::connect(addr).await.map_err(failed)?).await,
    }
}

async fn handshake<S>(stream: S) -> Result<(SendRequest<Body>, AbortOnDrop), End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| End::Lost(format!("no HTTP/2 connection to the Workload API: {e}")))?;
    // How it ended is told by the stream on it.
    let task = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, AbortOnDrop(task.abort_handle())))
}

fn end(status: &Status) -> End {
    let message: String = status.message().chars().take(500).collect();
    match status.code() {
        Code::PermissionDenied => End::Denied(message),
        Code::InvalidArgument => End::Invalid(message),
        // A status with a source is made here, out of what became of the connection; the agent did not say it.
        _ if std::error::Error::source(status).is_some() => {
            End::Lost(format!("the connection to the Workload API broke: {message}"))
        }
        code => End::Lost(format!("the Workload API says {code:?}: {message}")),
    }
}

fn answer(mut response: X509SvidResponse) -> Answer {
    let svids = response.svids.iter_mut().map(|svid| Offer {
        spiffe_id: Some(take(&mut svid.spiffe_id)),
        chain: take(&mut svid.x509_svid),
        key: Some(Zeroizing::new(
            PrivatePkcs8KeyDer::from(take(&mut svid.x509_svid_key)).into(),
        )),
        bundle: take(&mut svid.bundle),
        hint: take(&mut svid.hint),
    });
    Answer {
        svids: svids.collect(),
        federated: BTreeMap::from_iter(take(&mut response.federated_bundles)),
    }
}

/// hyper's sender as the service that tonic's client asks for.
pub(crate) struct Sender(pub(crate) SendRequest<Body>);

impl tower_service::Service<hyper::Request<Body>> for Sender {
    type Response = hyper::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[derive(Debug)]
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_means_something() {
        assert_eq!(
            end(&Status::permission_denied("no")),
            End::Denied("no".to_owned())
        );
        assert_eq!(
            end(&Status::invalid_argument("no")),
            End::Invalid("no".to_owned())
        );
        for status in [
            Status::unavailable("x"),
            Status::internal("x"),
            Status::unimplemented("x"),
            Status::ok("x"),
        ] {
            assert!(matches!(end(&status), End::Lost(_)), "{status:?}");
        }
    }
}
