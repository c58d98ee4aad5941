//! That an HTTP layer fits on it.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::*;

/// Serves requests on one end and sends two on the other.
async fn converse(server: impl AsyncRead + AsyncWrite + Unpin, client: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|request: Request<Incoming>| async {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let answer = [path.as_bytes(), &body].concat();
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
    });
    let serve = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let ask = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .unwrap();
        let talk = async {
            for body in [pattern(10), pattern(400_000)] {
                let request = Request::post("/path")
                    .header("host", "test")
                    .body(Full::new(Bytes::from(body.clone())))
                    .unwrap();
                sender.ready().await.unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                let answer = response.into_body().collect().await.unwrap().to_bytes();
                assert!(answer == [b"/path", body.as_slice()].concat());
            }
            drop(sender);
        };
        tokio::join!(connection, talk).0.unwrap();
    };
    let (served, ()) = soon(async { tokio::join!(serve, ask) }).await;
    served.unwrap();
}

#[tokio::test]
async fn hyper_serves_and_asks_over_it() {
    for we_serve in [false, true] {
        let Bench {
            stream,
            traffic,
            peer,
        } = Bench::new(we_serve, None).await;
        if we_serve {
            converse(stream, peer).await;
        } else {
            converse(peer, stream).await;
        }
        let (up, down) = counted(&traffic);
        assert!(up > 400_000 && down > 400_000, "{up} up, {down} down");
        assert_eq!(buffer::taken(), 0);
    }
}
