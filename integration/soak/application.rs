//! The application behind the sidecar: answers everybody, and goes away and comes back as it is told.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::frame::{HEAD, LONGEST, Question, STRANGER, turn};
use crate::support::{SOON, eventually};

/// It has an address of loopback to itself, where no connection's own port can be in the way when it comes back.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

/// A running application; ends when dropped.
pub(crate) struct Application {
    addr: SocketAddr,
    wanted: Option<watch::Sender<bool>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    listening: AtomicBool,
    open: AtomicUsize,
    strangers: AtomicU64,
}

impl Application {
    /// Listens on a free port.
    pub(crate) fn start() -> Self {
        let first = std::net::TcpListener::bind((ADDRESS, 0)).unwrap();
        let addr = first.local_addr().unwrap();
        first.set_nonblocking(true).unwrap();
        let (wanted, told) = watch::channel(true);
        let shared = Arc::<Shared>::default();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(accept(first, addr, told, shared));
            }
        });
        Self {
            addr,
            wanted: Some(wanted),
            shared,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Listens, or does not; connections that are open stay.
    pub(crate) fn listen(&self, wanted: bool) {
        self.wanted.as_ref().unwrap().send_replace(wanted);
        eventually("the application listens as it was told", SOON, || {
            (self.shared.listening.load(Ordering::SeqCst) == wanted).then_some(())
        });
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many questions came from somebody whom policy does not let in.
    pub(crate) fn strangers(&self) -> u64 {
        self.shared.strangers.load(Ordering::SeqCst)
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    first: std::net::TcpListener,
    addr: SocketAddr,
    mut wanted: watch::Receiver<bool>,
    shared: Arc<Shared>,
) {
    let mut listener = Some(TcpListener::from_std(first).unwrap());
    loop {
        let listens = *wanted.borrow_and_update();
        if !listens {
            listener = None;
        } else if listener.is_none() {
            // The port is ours, but its last owner may be a moment in dying.
            match TcpListener::bind(addr).await {
                Ok(bound) => listener = Some(bound),
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
            }
        }
        shared.listening.store(listener.is_some(), Ordering::SeqCst);
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            accepted = next(listener.as_ref()) => if let Ok(stream) = accepted {
                shared.open.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // How a connection ends is its client's business.
                    let _ = answer(stream, &shared).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            },
        }
    }
}

async fn next(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

async fn answer(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = [0; HEAD];
    loop {
        match stream.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return stream.shutdown().await,
            Err(error) => return Err(error),
        }
        let question = Question::of(head);
        if question.client == STRANGER || question.length > LONGEST {
            shared.strangers.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        let mut bytes = vec![0; HEAD + question.length as usize];
        bytes[..HEAD].copy_from_slice(&head);
        stream.read_exact(&mut bytes[HEAD..]).await?;
        turn(&mut bytes[HEAD..]);
        stream.write_all(&bytes).await?;
    }
}
