//! A collector in this process, which answers as it is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use crate::config::settings::{OtlpProtocol, Target};

/// What it does with the next request. Without one it takes it.
#[derive(Clone, Copy)]
pub(crate) enum Reply {
    /// It takes all but some, and says something.
    Partial(i64, &'static str),
    /// It asks for another try, after some seconds.
    Later(Option<u64>),
    /// It says that the message is bad.
    Refuse,
    /// It refuses it for a reason of its own: nobody may, a token ran out.
    NotFromYou,
    /// It drops the connection.
    Cut,
    /// It says nothing.
    Never,
}

/// A request that came.
pub(crate) struct Taken {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Bytes,
}

pub(crate) struct Collector {
    endpoint: Option<Target>,
    shared: Arc<Shared>,
    taken: mpsc::UnboundedReceiver<Taken>,
    ended: mpsc::UnboundedReceiver<()>,
}

struct Shared {
    protocol: OtlpProtocol,
    replies: Mutex<VecDeque<Reply>>,
    /// What every message that has this in it gets.
    always: Mutex<Option<(&'static str, Reply)>>,
    connections: AtomicUsize,
    taken: mpsc::UnboundedSender<Taken>,
    ended: mpsc::UnboundedSender<()>,
}

impl Collector {
    fn new(protocol: OtlpProtocol) -> Self {
        let (sender, taken) = mpsc::unbounded_channel();
        let (end, ended) = mpsc::unbounded_channel();
        Self {
            endpoint: None,
            shared: Arc::new(Shared {
                protocol,
                replies: Mutex::default(),
                always: Mutex::default(),
                connections: AtomicUsize::new(0),
                taken: sender,
                ended: end,
            }),
            taken,
            ended,
        }
    }

    pub(crate) async fn start(protocol: OtlpProtocol) -> Self {
        let mut collector = Self::new(protocol);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        collector.endpoint = Some(Target::Ip(listener.local_addr().unwrap()));
        let shared = collector.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.clone().serve(stream);
            }
        });
        collector
    }

    pub(crate) async fn start_unix(protocol: OtlpProtocol, path: &Path) -> Self {
        let collector = Self::new(protocol);
        let listener = UnixListener::bind(path).unwrap();
        let shared = collector.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.clone().serve(stream);
            }
        });
        collector
    }

    pub(crate) fn endpoint(&self) -> Target {
        self.endpoint.clone().unwrap()
    }

    pub(crate) fn will(&mut self, reply: Reply) {
        self.shared.replies.lock().unwrap().push_back(reply);
    }

    /// Until it is told otherwise it answers so to whatever has this text in it.
    pub(crate) fn always(&self, to: Option<(&'static str, Reply)>) {
        *self.shared.always.lock().unwrap() = to;
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub(crate) async fn next(&mut self) -> Taken {
        self.taken.recv().await.unwrap()
    }
}

impl Collector {
    /// Waits until one more connection has ended.
    pub(crate) async fn ended(&mut self) {
        self.ended.recv().await.unwrap();
    }
}

impl Shared {
    fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let stream = TokioIo::new(stream);
        let ended = self.ended.clone();
        tokio::spawn(async move {
            // Tells the connection's task to drop it.
            let (cut, mut told) = mpsc::channel::<()>(1);
            let shared = self.clone();
            let service = service_fn(move |request| {
                let (shared, cut) = (shared.clone(), cut.clone());
                async move { Ok::<_, Infallible>(shared.answer(request, cut).await) }
            });
            let serving: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match self.protocol {
                OtlpProtocol::Grpc => Box::pin(async move {
                    let _ = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(stream, service)
                        .await;
                }),
                OtlpProtocol::Http => Box::pin(async move {
                    let _ = http1::Builder::new().serve_connection(stream, service).await;
                }),
            };
            tokio::select! {
                () = serving => {}
                _ = told.recv() => {}
            }
            let _ = ended.send(());
        });
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        cut: mpsc::Sender<()>,
    ) -> Response<BoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let message = match self.protocol {
            OtlpProtocol::Grpc => {
                // Not compressed, and its length (gRPC over HTTP2, "Length-Prefixed-Message").
                assert_eq!(body[0], 0);
                assert_eq!(body[1..5], u32::try_from(body.len() - 5).unwrap().to_be_bytes());
                body.slice(5..)
            }
            OtlpProtocol::Http => body,
        };
        let content = message.clone();
        let _ = self.taken.send(Taken {
            path: head.uri.path().to_owned(),
            headers: head.headers,
            message,
        });
        let always = *self.always.lock().unwrap();
        let always = always.filter(|(text, _)| String::from_utf8_lossy(&content).contains(text));
        let reply = self.replies.lock().unwrap().pop_front();
        let reply = reply.or(always.map(|(_, reply)| reply));
        match (reply, self.protocol) {
            (Some(Reply::Cut), _) => {
                let _ = cut.send(()).await;
                std::future::pending().await
            }
            (Some(Reply::Never), _) => std::future::pending().await,
            (reply, OtlpProtocol::Grpc) => grpc(reply),
            (reply, OtlpProtocol::Http) => http(reply),
        }
    }
}

fn body(reply: Option<Reply>) -> Vec<u8> {
    let partial_success = match reply {
        Some(Reply::Partial(rejected_spans, message)) => Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: message.to_owned(),
        }),
        _ => None,
    };
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

fn http(reply: Option<Reply>) -> Response<BoxBody<Bytes, Infallible>> {
    let builder = Response::builder();
    let builder = match reply {
        Some(Reply::Later(None)) => builder.status(503),
        Some(Reply::Later(Some(seconds))) => builder.status(429).header("retry-after", seconds),
        Some(Reply::Refuse) => builder.status(400),
        Some(Reply::NotFromYou) => builder.status(401),
        _ => builder.header("content-type", "application/x-protobuf"),
    };
    builder.body(Full::from(body(reply)).boxed()).unwrap()
}

fn grpc(reply: Option<Reply>) -> Response<BoxBody<Bytes, Infallible>> {
    let mut trailers = HeaderMap::new();
    let (code, details) = match reply {
        Some(Reply::Later(None)) => (tonic::Code::Unavailable, None),
        Some(Reply::Later(Some(seconds))) => (tonic::Code::ResourceExhausted, Some(retry_info(seconds))),
        Some(Reply::Refuse) => (tonic::Code::InvalidArgument, None),
        Some(Reply::NotFromYou) => (tonic::Code::Unauthenticated, None),
        _ => (tonic::Code::Ok, None),
    };
    tonic::Status::with_details(code, "as told", details.unwrap_or_default())
        .add_header(&mut trailers)
        .unwrap();
    trailers.insert("grpc-status", HeaderValue::from(code as i32));
    let mut frames = Vec::new();
    if code == tonic::Code::Ok {
        let message = body(reply);
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.extend_from_slice(&message);
        frames.push(Ok(Frame::data(framed.freeze())));
    }
    frames.push(Ok(Frame::trailers(trailers)));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(StreamBody::new(tokio_stream::iter(frames)).boxed())
        .unwrap()
}

/// `google.rpc.Status` with a `RetryInfo` in its details, byte by byte.
fn retry_info(seconds: u64) -> Bytes {
    let field = |tag: u8, content: &[u8]| {
        let mut field = vec![(tag << 3) | 2, u8::try_from(content.len()).unwrap()];
        field.extend_from_slice(content);
        field
    };
    let delay = field(1, &[1 << 3, u8::try_from(seconds).unwrap()]);
    let any = [
        field(1, b"type.googleapis.com/google.rpc.RetryInfo"),
        field(2, &delay),
    ]
    .concat();
    [vec![1 << 3, 8], field(3, &any)].concat().into()
}
