//! The gRPC side of the embedded server: connections, the two methods, and the security header.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Answer, Given};
use crate::workload_api::proto::{
    FETCH_X509_BUNDLES, FETCH_X509_SVID, SECURITY_HEADER, X509BundlesRequest, X509BundlesResponse,
    X509SvidRequest, X509SvidResponse,
};

/// Open connections at once; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 256;
/// Streams on one connection.
const MAX_STREAMS: u32 = 32;

/// Accepts and serves until it is aborted; its connections end with it.
pub(super) async fn accept(
    listener: UnixListener,
    answer: watch::Receiver<Answer>,
    hang_ups: watch::Receiver<u64>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, answer.clone(), hang_ups.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, answer: watch::Receiver<Answer>, mut hang_ups: watch::Receiver<u64>) {
    hang_ups.mark_unchanged();
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(route(request, answer).await) }
    });
    let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = serve => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended badly");
            }
        }
        _ = hang_ups.changed() => {}
    }
}

async fn route(request: hyper::Request<Incoming>, answer: watch::Receiver<Answer>) -> hyper::Response<Body> {
    // Anything before the method: a browser or a proxy that was tricked into this socket cannot send the header.
    let secured = request
        .headers()
        .get(SECURITY_HEADER)
        .is_some_and(|value| value == "true");
    if !secured {
        return Status::invalid_argument("security header missing from request").into_http();
    }
    let request = request.map(Body::new);
    match request.uri().path() {
        FETCH_X509_SVID => {
            Grpc::new(ProstCodec::default())
                .server_streaming(Svids(answer), request)
                .await
        }
        FETCH_X509_BUNDLES => {
            Grpc::new(ProstCodec::default())
                .server_streaming(Bundles(answer), request)
                .await
        }
        path => Status::unimplemented(format!("`{path}` is not served: X.509 only")).into_http(),
    }
}

/// `FetchX509SVID`.
struct Svids(watch::Receiver<Answer>);

impl ServerStreamingService<X509SvidRequest> for Svids {
    type Response = X509SvidResponse;
    type ResponseStream = ReceiverStream<Result<X509SvidResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<X509SvidRequest>) -> Self::Future {
        ready(Ok(Response::new(stream(self.0.clone(), |given| {
            given.svids.clone()
        }))))
    }
}

/// `FetchX509Bundles`.
struct Bundles(watch::Receiver<Answer>);

impl ServerStreamingService<X509BundlesRequest> for Bundles {
    type Response = X509BundlesResponse;
    type ResponseStream = ReceiverStream<Result<X509BundlesResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<X509BundlesRequest>) -> Self::Future {
        ready(Ok(Response::new(stream(self.0.clone(), |given| {
            given.bundles.clone()
        }))))
    }
}

/// The present answer, and each later one. A reader that is slow misses answers in between, never the last one.
fn stream<M: Send + 'static>(
    mut answer: watch::Receiver<Answer>,
    pick: impl Fn(&Given) -> M + Send + 'static,
) -> ReceiverStream<Result<M, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let present = answer.borrow_and_update().clone();
            match present {
                Answer::Give(given) => {
                    if sender.send(Ok(pick(&given))).await.is_err() {
                        return;
                    }
                }
                Answer::Refuse(code, message) => {
                    // The reader may be gone, which ends the stream just as well.
                    let _ = sender.send(Err(Status::new(code, message))).await;
                    return;
                }
                Answer::Silence => {}
            }
            tokio::select! {
                changed = answer.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    ReceiverStream::new(receiver)
}
