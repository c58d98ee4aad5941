//! The application in front of the pair: loads of a fixed number of connections on a thread of their own, each going on
//! until it is stopped; and idle connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::Result;
use crate::sink::{ECHO, MESSAGE, READ, READ_ME, WRITE, WRITE_TO_ME};

/// One connection's set-up, or one exchange.
const PATIENCE: Duration = Duration::from_secs(10);
/// Idle connections that are set up at the same time.
const SET_UP_AT_ONCE: usize = 8;

/// What each connection of a load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes all the time. The sink counts the bytes.
    Up,
    /// Reads all the time; counts the bytes.
    Down,
    /// A request after each reply; counts the replies and notes how long each took.
    Ping,
    /// Connects, makes one exchange, closes, and again; counts the connections.
    Connect,
}

/// What a load has done so far.
#[derive(Default)]
pub(crate) struct Progress {
    /// Connections that have had their first exchange.
    started: AtomicU64,
    done: AtomicU64,
    latencies: Histogram,
}

/// A running load.
pub(crate) struct Load {
    progress: Arc<Progress>,
    thread: JoinHandle<io::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Load {
    /// Starts `connections` of them and waits until each has had an exchange.
    pub(crate) fn start(to: SocketAddr, kind: Kind, connections: u32) -> Result<Self> {
        let progress = Arc::<Progress>::default();
        let (stop, stopped) = oneshot::channel();
        let shared = progress.clone();
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || run(to, kind, connections, &shared, stopped))?;
        let load = Self {
            progress,
            thread,
            stop,
        };
        let deadline = Instant::now() + PATIENCE;
        while load.progress.started.load(Ordering::Relaxed) < u64::from(connections) {
            if load.thread.is_finished() {
                load.stop()?;
                return Err("the load ended by itself".into());
            }
            if Instant::now() > deadline {
                return Err("not every connection got through the pair in time".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(load)
    }

    /// Bytes, replies or connections so far.
    pub(crate) fn done(&self) -> u64 {
        self.progress.done.load(Ordering::Relaxed)
    }

    /// How often each latency was seen so far.
    pub(crate) fn latencies(&self) -> Counts {
        self.progress.latencies.counts()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When one of its connections had failed before.
    pub(crate) fn stop(self) -> Result<()> {
        // Nobody listens any more where the load has failed.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| "the load panicked")??;
        Ok(())
    }
}

fn run(
    to: SocketAddr,
    kind: Kind,
    connections: u32,
    progress: &Arc<Progress>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let progress = progress.clone();
            tasks.spawn(async move {
                match kind {
                    Kind::Up => up(to, &progress).await,
                    Kind::Down => down(to, &progress).await,
                    Kind::Ping => ping(to, &progress).await,
                    Kind::Connect => connect_again(to, &progress).await,
                }
            });
        }
        tokio::select! {
            _ = stopped => Ok(()),
            ended = tasks.join_next() => match ended {
                Some(Ok(Err(error))) => Err(error),
                _ => Err(io::Error::other("a connection of the load panicked")),
            },
        }
    })
}

async fn up(to: SocketAddr, progress: &Progress) -> io::Result<Infallible> {
    let mut stream = first_exchange(to, READ_ME, progress).await?;
    let chunk = vec![b'u'; WRITE];
    loop {
        stream.write_all(&chunk).await?;
    }
}

async fn down(to: SocketAddr, progress: &Progress) -> io::Result<Infallible> {
    let mut stream = first_exchange(to, WRITE_TO_ME, progress).await?;
    let mut buffer = vec![0; READ];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => progress.done.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}

async fn ping(to: SocketAddr, progress: &Progress) -> io::Result<Infallible> {
    let mut stream = first_exchange(to, ECHO, progress).await?;
    for number in 0_u64.. {
        let sent = Instant::now();
        exchange(&mut stream, ECHO, number).await?;
        progress.latencies.add(sent.elapsed());
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
    Err(io::Error::other("the numbers ran out"))
}

async fn connect_again(to: SocketAddr, progress: &Progress) -> io::Result<Infallible> {
    loop {
        drop(first_exchange(to, ECHO, progress).await?);
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn first_exchange(to: SocketAddr, wish: u8, progress: &Progress) -> io::Result<TcpStream> {
    let stream = connect(to, wish).await?;
    progress.started.fetch_add(1, Ordering::Relaxed);
    Ok(stream)
}

/// A connection that has had its first exchange.
pub(crate) async fn connect(to: SocketAddr, wish: u8) -> io::Result<TcpStream> {
    tokio::time::timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        exchange(&mut stream, wish, 0).await?;
        Ok(stream)
    })
    .await?
}

/// A message that nobody else sends, and the same back.
async fn exchange(stream: &mut TcpStream, wish: u8, number: u64) -> io::Result<()> {
    let mut message = [wish; MESSAGE];
    if let Some(place) = message.last_chunk_mut() {
        *place = number.to_be_bytes();
    }
    stream.write_all(&message).await?;
    let mut reply = [0; MESSAGE];
    stream.read_exact(&mut reply).await?;
    if reply == message {
        Ok(())
    } else {
        Err(io::Error::other("a reply that is not the request's"))
    }
}

/// Sets up connections that have had one exchange and are quiet then.
pub(crate) async fn idle(to: SocketAddr, connections: u32) -> Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        if tasks.len() >= SET_UP_AT_ONCE
            && let Some(stream) = tasks.join_next().await
        {
            held.push(stream??);
        }
        tasks.spawn(connect(to, ECHO));
    }
    while let Some(stream) = tasks.join_next().await {
        held.push(stream??);
    }
    Ok(held)
}

/// Whether each idle connection still carries an exchange.
pub(crate) async fn check(held: &mut [TcpStream]) -> Result<()> {
    for (number, stream) in (1..).zip(held) {
        tokio::time::timeout(PATIENCE, exchange(stream, ECHO, number)).await??;
    }
    Ok(())
}

/// Buckets for each doubling.
const FINENESS: usize = 16;
const BUCKETS: usize = 64 * FINENESS;

/// Latencies in nanoseconds, in buckets a sixteenth of a doubling wide.
struct Histogram(Box<[AtomicU64]>);

/// How often each bucket was hit.
pub(crate) type Counts = Vec<u64>;

impl Default for Histogram {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Histogram {
    fn add(&self, latency: Duration) {
        let bucket = (latency.as_nanos() as f64).max(1.0).log2() * FINENESS as f64;
        if let Some(count) = self.0.get(bucket as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> Counts {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// The latency in microseconds that `share` of the latencies between the two counts stay below.
pub(crate) fn quantile(before: &Counts, after: &Counts, share: f64) -> f64 {
    let counts = || before.iter().zip(after).map(|(before, after)| after - before);
    let wanted = (counts().sum::<u64>() as f64 * share) as u64;
    let mut seen = 0;
    let bucket = counts().position(|count| {
        seen += count;
        seen > wanted
    });
    ((bucket.unwrap_or(BUCKETS) as f64 + 0.5) / FINENESS as f64).exp2() / 1000.0
}
