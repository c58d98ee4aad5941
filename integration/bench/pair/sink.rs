//! The application behind the pair. The first byte of a connection's first message says what it wants: an echo, to be
//! read, or to be written to. The message is sent back first, so that a load knows its path to be whole.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::Result;

/// Bytes of a request, of its reply, and of a connection's first message.
pub(crate) const MESSAGE: usize = 64;
/// What is written at a time.
pub(crate) const WRITE: usize = 64 * 1024;
/// What is read at a time at most: enough that the reader's calls do not hold the pair up.
pub(crate) const READ: usize = 256 * 1024;

pub(crate) const ECHO: u8 = b'e';
pub(crate) const READ_ME: u8 = b'r';
pub(crate) const WRITE_TO_ME: u8 = b'w';

/// A running sink, with a thread of its own. It ends when dropped.
pub(crate) struct Sink {
    pub(crate) addr: SocketAddr,
    /// The bytes that it has read from those who asked to be read.
    received: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
}

impl Sink {
    pub(crate) fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = listener.local_addr()?;
        let received = Arc::<AtomicU64>::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let counter = received.clone();
        std::thread::Builder::new().name("sink".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, counter) => {}
                }
            });
        })?;
        Ok(Self {
            addr,
            received,
            _stop: stop,
        })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// As many connections as the load makes; it is bounded.
async fn accept(listener: TcpListener, received: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        let received = received.clone();
        // How a connection ends is for the load to judge.
        tokio::spawn(async move { serve(stream, &received).await });
    }
}

async fn serve(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message).await?;
    stream.write_all(&message).await?;
    match message.first() {
        Some(&READ_ME) => {
            let mut buffer = vec![0; READ];
            loop {
                match stream.read(&mut buffer).await? {
                    0 => return Ok(()),
                    n => received.fetch_add(n as u64, Ordering::Relaxed),
                };
            }
        }
        Some(&WRITE_TO_ME) => {
            let chunk = vec![b'd'; WRITE];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        _ => loop {
            stream.read_exact(&mut message).await?;
            stream.write_all(&message).await?;
        },
    }
}
