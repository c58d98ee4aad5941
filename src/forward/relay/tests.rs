//! The relay between stock rustls peers and plain sockets, both real.

mod differential;
mod endings;
mod openssl;
mod renewing;
mod schedules;
mod script;
mod sharing;

use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::forward::testing::*;
use crate::tls::testing::*;

/// What a test relays between.
struct Bench {
    ends: Ends,
    peer: Peer,
    app: TcpStream,
}

impl Bench {
    async fn new(we_serve: bool, room: Option<u32>) -> Self {
        let (tls, established, peer) = tls_pair(we_serve, room).await;
        let (plain, app) = tcp_pair(room).await;
        let ends = Ends {
            tls,
            session: established.session,
            unread: established.unread,
            plain: Stream::Tcp(plain),
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
    let (meter, traffic) = meter();
    let ended = run(&permit(), ends, meter, idle, None, close).await;
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
