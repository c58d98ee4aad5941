//! One connection to a collector, and one request on it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic_prost::ProstCodec;

use super::answer;
use super::{Export, ExportError, MAX_ANSWER};
use crate::config::settings::{Otlp, OtlpProtocol, Target};

const AGENT: &str = concat!("svidecar/", env!("CARGO_PKG_VERSION"));
/// How long an orderly goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    /// Drives the connection; ends with it.
    driver: AbortOnDrop,
}

#[derive(Debug)]
enum Sender {
    Grpc(http2::SendRequest<Body>),
    Http(http1::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Says goodbye, as far as the protocol has one.
    pub(super) async fn close(self) {
        let Self { sender, mut driver } = self;
        // Without a sender the connection ends when what is under way is done.
        drop(sender);
        let _ = tokio::time::timeout(GOODBYE, &mut driver.0).await;
    }

    /// Sends one request. Says, too, whether another one can be sent after it.
    async fn send<R: Export>(
        &mut self,
        settings: &Otlp,
        request: &R,
    ) -> (Result<R::Response, ExportError>, bool) {
        match &mut self.sender {
            Sender::Grpc(sender) => grpc(sender.clone(), settings, request).await,
            Sender::Http(sender) => http(sender, settings, request).await,
        }
    }
}

impl Sender {
    /// Whether the collector has closed the connection in the meantime.
    fn is_closed(&self) -> bool {
        match self {
            Self::Grpc(sender) => sender.is_closed(),
            Self::Http(sender) => sender.is_closed(),
        }
    }
}

/// Sends a request, on the connection that is kept if it still stands, else on a new one. Gives back the answer, and the
/// connection where another request can go on it. A kept one that breaks is replaced at once: a collector that was restarted
/// meanwhile, or that closes what is idle, is not away.
pub(super) async fn attempt<R: Export>(
    kept: Option<Connection>,
    settings: &Otlp,
    request: &R,
) -> (Result<R::Response, ExportError>, Option<Connection>) {
    if let Some(mut connection) = kept.filter(|connection| !connection.sender.is_closed()) {
        match connection.send(settings, request).await {
            (Err(ExportError::Retry { .. }), false) => {}
            (result, usable) => return (result, Some(connection).filter(|_| usable)),
        }
    }
    match connect(settings).await {
        Ok(mut connection) => {
            let (result, usable) = connection.send(settings, request).await;
            (result, Some(connection).filter(|_| usable))
        }
        Err(error) => (Err(error), None),
    }
}

async fn connect(settings: &Otlp) -> Result<Connection, ExportError> {
    let endpoint = &settings.endpoint;
    let failed = |e: std::io::Error| ExportError::retry(format!("cannot connect to `{endpoint}`: {e}"));
    match endpoint {
        Target::Unix(path) => handshake(UnixStream::connect(path).await.map_err(failed)?, settings).await,
        Target::Ip(address) => handshake(TcpStream::connect(address).await.map_err(failed)?, settings).await,
        Target::Name(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            handshake(stream.map_err(failed)?, settings).await
        }
    }
}

async fn handshake<S>(stream: S, settings: &Otlp) -> Result<Connection, ExportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| {
        ExportError::retry(format!(
            "no HTTP connection to `{}`: {}",
            settings.endpoint,
            chain(&e)
        ))
    };
    let stream = TokioIo::new(stream);
    // How a connection ended is told by the request on it.
    let (sender, driver) = match settings.protocol {
        OtlpProtocol::Grpc => {
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = { builder }
                .timer(TokioTimer::new())
                .handshake(stream)
                .await
                .map_err(failed)?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            (Sender::Grpc(sender), driver)
        }
        OtlpProtocol::Http => {
            let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            (Sender::Http(sender), driver)
        }
    };
    Ok(Connection {
        sender,
        driver: AbortOnDrop(driver),
    })
}

/// The name that goes into `Host` or `:authority`.
fn authority(target: &Target) -> String {
    match target {
        Target::Ip(address) => address.to_string(),
        Target::Name(host, port) => format!("{host}:{port}"),
        Target::Unix(_) => "localhost".to_owned(),
    }
}

async fn grpc<R: Export>(
    sender: http2::SendRequest<Body>,
    settings: &Otlp,
    message: &R,
) -> (Result<R::Response, ExportError>, bool) {
    let Ok(origin) = format!("http://{}", authority(&settings.endpoint)).parse() else {
        return (
            Err(ExportError::Refused("the endpoint is no URI".to_owned())),
            true,
        );
    };
    let mut client = Grpc::with_origin(Service(sender), origin).max_decoding_message_size(MAX_ANSWER);
    let mut request = tonic::Request::new(message.clone());
    request.set_timeout(settings.timeout);
    let metadata = request.metadata_mut();
    metadata.insert("user-agent", AsciiMetadataValue::from_static(AGENT));
    for (name, value) in &settings.headers.0 {
        // Both were tried when the config was read.
        if let (Ok(name), Ok(value)) = (
            name.parse::<AsciiMetadataKey>(),
            value.parse::<AsciiMetadataValue>(),
        ) {
            metadata.insert(name, value);
        }
    }
    if let Err(error) = client.ready().await {
        let why = format!(
            "the connection to `{}` broke: {}",
            settings.endpoint,
            chain(&error)
        );
        return (Err(ExportError::retry(why)), false);
    }
    let path = PathAndQuery::from_static(R::METHOD);
    let codec = ProstCodec::<R, R::Response>::default();
    match client.unary(request, path, codec).await {
        Ok(response) => (Ok(response.into_inner()), true),
        Err(status) => {
            // A status with a source is made here, out of what became of the connection; the collector did not say it.
            let broken = std::error::Error::source(&status).is_some();
            (Err(answer::of_grpc(&status, broken)), !broken)
        }
    }
}

async fn http<R: Export>(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    settings: &Otlp,
    message: &R,
) -> (Result<R::Response, ExportError>, bool) {
    let broken = |e: &dyn std::error::Error| {
        let why = format!("the connection to `{}` broke: {}", settings.endpoint, chain(e));
        (Err(ExportError::retry(why)), false)
    };
    let request = match http_request(settings, message) {
        Ok(request) => request,
        Err(error) => return (Err(ExportError::Refused(format!("no request: {error}"))), true),
    };
    if let Err(error) = sender.ready().await {
        return broken(&error);
    }
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return broken(&error),
    };
    let (head, body) = response.into_parts();
    let body = match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => body.to_bytes(),
        // Its head says enough; what is left of the body makes the connection useless.
        Err(error) if head.status.is_success() => return broken(&*error),
        Err(_) => Bytes::new(),
    };
    (
        answer::of_http(&head, &body, SystemTime::now()),
        !sender.is_closed(),
    )
}

fn http_request<R: Export>(
    settings: &Otlp,
    message: &R,
) -> Result<hyper::Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = hyper::Request::post(format!("{}{}", settings.path, R::PATH))
        .header(HOST, authority(&settings.endpoint))
        .header(CONTENT_TYPE, PROTOBUF)
        .header(USER_AGENT, AGENT)
        .body(Full::new(Bytes::from(message.encode_to_vec())))?;
    for (name, value) in &settings.headers.0 {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        let mut value = HeaderValue::from_str(value)?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    answer::said(&text)
}

/// hyper's sender as the service that tonic's client asks for.
struct Service(http2::SendRequest<Body>);

impl tower_service::Service<hyper::Request<Body>> for Service {
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
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
