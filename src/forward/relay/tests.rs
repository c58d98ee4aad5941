//! The relay between stock rustls peers and plain sockets, both real.

mod differential;
mod endings;
mod openssl;
mod schedules;
mod script;
mod sharing;

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::*;
use crate::authorize;
use crate::config::settings::{ListenerKind, Target};
use crate::forward::meter::Traffic;
use crate::record::Direction;
use crate::telemetry::metrics::Metrics;
use crate::tls::testing::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Two ends of a TCP connection; `room` bounds the socket buffers of each.
async fn tcp_pair(room: Option<u32>) -> (TcpStream, TcpStream) {
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

fn permit() -> Permit {
    let kind = ListenerKind::Outbound {
        connect: Target::Ip(([127, 0, 0, 1], 1).into()),
        peer: vec!["spiffe://example.org/**".parse().unwrap()],
        sni: None,
    };
    authorize::outbound(&kind, &crate::spiffe::SpiffeId::new(THEIR_ID).unwrap()).unwrap()
}

/// What a test relays between.
struct Bench {
    ends: Ends,
    peer: Peer,
    app: TcpStream,
}

/// A stock peer that changes its key before the next write when told so.
struct Peer {
    tls: TlsStream<TcpStream>,
    rekey: Arc<AtomicBool>,
}

impl Peer {
    /// As [`hear`]. tokio-rustls keeps back what came in one read with an alert; rustls itself has it.
    async fn hear(&mut self) -> (Vec<u8>, Result<(), String>) {
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

    /// The socket, without a word more of TLS.
    fn into_socket(self) -> TcpStream {
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

impl Bench {
    async fn new(we_serve: bool, room: Option<u32>) -> Self {
        let (near, far) = tcp_pair(room).await;
        let (plain, app) = tcp_pair(room).await;
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
        let ends = Ends {
            tls: near,
            session: established.session,
            unread: established.unread,
            plain: Stream::Tcp(plain),
        };
        let peer = Peer {
            tls,
            rekey: Arc::default(),
        };
        Self { ends, peer, app }
    }
}

/// How a relay ended, and what it counted.
struct Report {
    ending: Ending,
    /// From the TLS peer to the application.
    opened: u64,
    sealed: u64,
}

/// Relays to the end, and closes as a connection does.
async fn relay(ends: Ends, idle: Duration, close: impl Future<Output = Ending>) -> Report {
    let traffic = Arc::new(Traffic::default());
    let listener = Metrics::new(None).listener(&Arc::from("test"), Direction::Inbound);
    let meter = Meter::new(Direction::Inbound, traffic.clone(), listener);
    let ended = run(&permit(), ends, meter, idle, close).await;
    if let Some(stream) = ended.linger {
        stream.close_lingering().await;
    }
    Report {
        ending: ended.ending,
        opened: traffic.up.load(Ordering::Relaxed),
        sealed: traffic.down.load(Ordering::Relaxed),
    }
}

/// Relays until the ends are through by themselves.
async fn relayed(ends: Ends) -> Report {
    let hang = timeout(Duration::from_secs(30), relay(ends, HOUR, std::future::pending()));
    hang.await.expect("the relay hangs")
}

/// The bytes that each side sends: any loss, doubling or disorder shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Reads to the end, and says what came and how it ended.
async fn hear(from: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Result<(), String>) {
    let mut heard = Vec::new();
    let ended = from.read_to_end(&mut heard).await;
    (heard, ended.map(drop).map_err(|error| error.to_string()))
}

fn reset(stream: TcpStream) {
    Stream::Tcp(stream).abort();
}
