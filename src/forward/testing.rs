//! What tests of the relay and of the stream share: real sockets with a stock rustls peer at the other end.

pub(super) mod play;

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsStream;

use super::meter::{Meter, Traffic};
use crate::authorize::{self, Permit};
use crate::config::settings::PolicyMode;
use crate::record::Direction;
use crate::sys::stream::Stream;
use crate::telemetry::metrics::Metrics;
use crate::tls::handshake::Established;
use crate::tls::testing::*;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Two ends of a TCP connection; `room` bounds the socket buffers of each.
pub(super) async fn tcp_pair(room: Option<u32>) -> (TcpStream, TcpStream) {
    let bounded = || {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(room) = room {
            socket.set_send_buffer_size(room).unwrap();
            socket.set_recv_buffer_size(room).unwrap();
        }
        socket
    };
    let listening = bounded();
    listening.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = listening.listen(1).unwrap();
    let (near, far) = tokio::join!(
        bounded().connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

pub(super) fn permit() -> Permit {
    let expected = ["spiffe://example.org/**".parse().unwrap()];
    let now = std::time::SystemTime::UNIX_EPOCH;
    let view = authorize::PolicyView::deny_all(PolicyMode::Enforce, now);
    let peer = crate::spiffe::SpiffeId::new(THEIR_ID).unwrap();
    let certificate = authorize::CertificateFacts::unlisted(now);
    authorize::outbound(&view, &expected, &peer, &certificate).unwrap()
}

/// A meter of an inbound connection, and what it counts.
pub(super) fn meter() -> (Meter, Arc<Traffic>) {
    let traffic = Arc::new(Traffic::default());
    let listener = Metrics::new(None).listener(&Arc::from("test"), Direction::Inbound);
    (Meter::new(Direction::Inbound, traffic.clone(), listener), traffic)
}

/// A stock peer that changes its key before the next write when told so.
pub(super) struct Peer {
    pub(super) tls: TlsStream<TcpStream>,
    pub(super) rekey: Arc<AtomicBool>,
}

impl Peer {
    /// As [`hear`]. tokio-rustls keeps back what came in one read with an alert; rustls itself has it.
    pub(super) async fn hear(&mut self) -> (Vec<u8>, Result<(), String>) {
        let (mut heard, ended) = hear(self).await;
        let mut rest = [0; 1 << 14];
        loop {
            let read = match &mut self.tls {
                TlsStream::Client(tls) => tls.get_mut().1.reader().read(&mut rest),
                TlsStream::Server(tls) => tls.get_mut().1.reader().read(&mut rest),
            };
            match read {
                Ok(read @ 1..) => heard.extend(&rest[..read]),
                _ => return (heard, ended),
            }
        }
    }

    /// The socket, for bytes that are no TLS.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match &mut self.tls {
            TlsStream::Client(tls) => tls.get_mut().0,
            TlsStream::Server(tls) => tls.get_mut().0,
        }
    }

    /// Says close_notify and leaves the socket open, as TLS libraries other than tokio-rustls do.
    pub(super) async fn end_data(&mut self) {
        match &mut self.tls {
            TlsStream::Client(tls) => tls.get_mut().1.send_close_notify(),
            TlsStream::Server(tls) => tls.get_mut().1.send_close_notify(),
        }
        self.flush().await.unwrap();
    }

    /// The socket, without a word more of TLS.
    pub(super) fn into_socket(self) -> TcpStream {
        match self.tls {
            TlsStream::Client(tls) => tls.into_inner().0,
            TlsStream::Server(tls) => tls.into_inner().0,
        }
    }
}

impl AsyncRead for Peer {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.rekey.swap(false, Ordering::Relaxed) {
            let done = match &mut this.tls {
                TlsStream::Client(tls) => tls.get_mut().1.refresh_traffic_keys(),
                TlsStream::Server(tls) => tls.get_mut().1.refresh_traffic_keys(),
            };
            // An alert has come meanwhile.
            done.map_err(io::Error::other)?;
        }
        Pin::new(&mut this.tls).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(cx)
    }
}

/// Our end of a TLS connection after the handshake, and a stock peer; `room` as in [`tcp_pair`].
pub(super) async fn tls_pair(we_serve: bool, room: Option<u32>) -> (Stream, Established, Peer) {
    let (near, far) = tcp_pair(room).await;
    let mut near = Stream::Tcp(near);
    let (established, tls) = if we_serve {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(world().stock_client(AES_256)));
        let (ours, theirs) = tokio::join!(serve_as_us(&mut near), connector.connect(name(), far));
        (ours.unwrap(), TlsStream::from(theirs.unwrap()))
    } else {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(world().stock_server(AES_128)));
        let (ours, theirs) = tokio::join!(call_as_us(&mut near), acceptor.accept(far));
        (ours.unwrap(), TlsStream::from(theirs.unwrap()))
    };
    let peer = Peer {
        tls,
        rekey: Arc::default(),
    };
    (near, established, peer)
}

/// The bytes that each side sends: any loss, doubling or disorder shows.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Reads to the end, and says what came and how it ended.
pub(super) async fn hear(from: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Result<(), String>) {
    let mut heard = Vec::new();
    let ended = from.read_to_end(&mut heard).await;
    (heard, ended.map(drop).map_err(|error| error.to_string()))
}

pub(super) fn reset(stream: TcpStream) {
    Stream::Tcp(stream).abort();
}

/// What no good peer sends, and the alert that answers it, as rustls names it.
pub(super) const BROKEN: [(&[u8], &str); 4] = [
    (
        &[
            23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        "BadRecordMac",
    ),
    (&[22, 3, 3, 0, 1, 0], "UnexpectedMessage"),
    (&[23, 3, 3, 0xff, 0xff], "RecordOverflow"),
    (&[20, 3, 3, 0, 1, 1], "UnexpectedMessage"),
];
