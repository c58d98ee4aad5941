//! The clients that must lose nothing, and the account of what they got.
//!
//! A request is *lost* when its answer is wrong; when the connection it was made on fails and no trouble that is
//! documented to refuse or cut connections explains it; or when [`PATIENCE`] is used up without an answer, whatever the
//! reason. What a trouble explains is asked again, on a new connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::frame::Question;
use crate::support::{SOON, eventually};
use crate::weather::{Mishap, Weather};

/// How long a client tries for the answer to one request.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Losses that are told in full; the others are counted.
const TOLD: usize = 50;

/// What all clients got.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) connections: AtomicU64,
    pub(crate) answered: AtomicU64,
    /// Tries that were repeated because a trouble explains that the connection was turned away, or cut.
    pub(crate) refused: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) losses: Mutex<Vec<String>>,
    longest: AtomicU64,
}

impl Ledger {
    pub(crate) fn lose(&self, loss: String) {
        self.lost.fetch_add(1, Ordering::SeqCst);
        let mut losses = self.losses.lock().unwrap();
        if losses.len() < TOLD {
            eprintln!("LOST: {loss}");
            losses.push(loss);
        }
    }

    /// A failed try. Whether it may be repeated; otherwise the request is lost.
    pub(crate) fn may_repeat(
        &self,
        weather: &Weather,
        who: &str,
        mishap: Mishap,
        since: Instant,
        error: &io::Error,
    ) -> bool {
        if error.kind() == io::ErrorKind::InvalidData {
            self.lose(format!("{who}: {error}"));
            return false;
        }
        if !weather.explains(mishap, since) {
            let now = weather.now();
            self.lose(format!(
                "{who}: {mishap:?} ({error}), which nothing explains: {now}"
            ));
            return false;
        }
        let count = match mishap {
            Mishap::Refused => &self.refused,
            Mishap::Cut => &self.cut,
        };
        count.fetch_add(1, Ordering::SeqCst);
        true
    }

    pub(crate) fn answer(&self, took: Duration) {
        self.answered.fetch_add(1, Ordering::SeqCst);
        let took = u64::try_from(took.as_millis()).unwrap();
        self.longest.fetch_max(took, Ordering::SeqCst);
    }

    /// The longest that a request waited for its answer, all tries together.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::SeqCst))
    }
}

/// A socket on one of many addresses of loopback, so that ports do not run out.
fn socket() -> io::Result<Socket> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let last = u8::try_from(10 + NEXT.fetch_add(1, Ordering::Relaxed) % 40).unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(&SockAddr::from(from))?;
    Ok(socket)
}

/// Connects within a client's patience; reads and writes take no longer either.
pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket()?;
    socket.connect_timeout(&addr.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Connects, in a runtime.
pub(crate) async fn connect_async(addr: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = socket()?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One kind of client.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) how_many: usize,
    /// Whether it keeps its connection for as long as that lives, or takes a new one for each request.
    pub(crate) keeps: bool,
    /// The length of its questions.
    pub(crate) lengths: RangeInclusive<u32>,
    /// Between an answer and the next question.
    pub(crate) pause: Duration,
}

/// Those that ask during the whole run.
pub(crate) fn kinds() -> Vec<Kind> {
    let kind = |name, how_many, keeps, lengths, pause| Kind {
        name,
        how_many,
        keeps,
        lengths,
        pause: Duration::from_millis(pause),
    };
    vec![
        kind("short-lived", 4, false, 1..=20_000, 60),
        kind("long-lived", 6, true, 0..=60_000, 50),
        kind("bulk", 1, true, 500_000..=2_000_000, 200),
    ]
}

/// All of them, at work until they are stopped.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    /// How many answers each of them has got.
    progress: Vec<Arc<AtomicU32>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them. `first` is the number of the first; no two of a run have the same.
    pub(crate) fn start(addr: SocketAddr, first: u32, ledger: &Arc<Ledger>, weather: &Arc<Weather>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut clients = Self {
            stop: Arc::clone(&stop),
            progress: Vec::new(),
            threads: Vec::new(),
        };
        for kind in kinds() {
            for _ in 0..kind.how_many {
                let progress = Arc::<AtomicU32>::default();
                let client = Client {
                    addr,
                    number: first + u32::try_from(clients.threads.len()).unwrap(),
                    kind: kind.clone(),
                    ledger: Arc::clone(ledger),
                    weather: Arc::clone(weather),
                    stop: Arc::clone(&stop),
                    progress: Arc::clone(&progress),
                    open: None,
                };
                clients.progress.push(progress);
                clients.threads.push(std::thread::spawn(move || client.run()));
            }
        }
        clients
    }

    /// Waits until each of them has got an answer from now on.
    pub(crate) fn all_answered(&self) {
        let before: Vec<_> = self.progress.iter().map(|p| p.load(Ordering::SeqCst)).collect();
        // A client may be at the end of its patience, and then wait for the answer.
        eventually("every client gets an answer", SOON + 2 * PATIENCE, || {
            let mut pairs = self.progress.iter().zip(&before);
            pairs
                .all(|(now, before)| now.load(Ordering::SeqCst) > *before)
                .then_some(())
        });
    }

    /// Ends them, in order.
    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Client {
    addr: SocketAddr,
    number: u32,
    kind: Kind,
    ledger: Arc<Ledger>,
    weather: Arc<Weather>,
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicU32>,
    open: Option<Open>,
}

/// A connection, and since when nobody knows whether it is still there.
struct Open {
    stream: TcpStream,
    answered_before: bool,
    known_good: Instant,
}

impl Client {
    fn run(mut self) {
        let mut random = fastrand::Rng::with_seed(self.number.into());
        let mut number = 0;
        while !self.stop.load(Ordering::SeqCst) {
            number += 1;
            let question = Question {
                client: self.number,
                number,
                length: random.u32(self.kind.lengths.clone()),
            };
            self.request(&question);
            self.progress.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(self.kind.pause);
        }
    }

    /// One request, until it is answered or lost.
    fn request(&mut self, question: &Question) {
        let begun = Instant::now();
        loop {
            let mut since = Instant::now();
            let mut mishap = Mishap::Refused;
            let error = match self.attempt(question, &mut since, &mut mishap) {
                Ok(()) => return self.ledger.answer(begun.elapsed()),
                Err(error) => error,
            };
            self.open = None;
            let who = format!(
                "{} client {}, request {}",
                self.kind.name, self.number, question.number
            );
            if !self.ledger.may_repeat(&self.weather, &who, mishap, since, &error) {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let now = self.weather.now();
                self.ledger.lose(format!(
                    "{who}: no answer within {PATIENCE:?}, {mishap:?} at last ({error}): {now}"
                ));
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn attempt(&mut self, question: &Question, since: &mut Instant, mishap: &mut Mishap) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let stream = connect(self.addr)?;
                self.ledger.connections.fetch_add(1, Ordering::SeqCst);
                self.open.insert(Open {
                    stream,
                    answered_before: false,
                    known_good: *since,
                })
            }
        };
        *since = open.known_good;
        if open.answered_before {
            *mishap = Mishap::Cut;
        }
        question.ask(&open.stream)?;
        open.answered_before = true;
        open.known_good = Instant::now();
        *mishap = Mishap::Cut;
        *since = open.known_good;
        if !self.kind.keeps {
            // What was answered stays answered: an end that is not in order would still be a mishap.
            end(&open.stream)?;
            self.open = None;
        }
        Ok(())
    }
}

/// Ends a connection, and expects its end.
pub(crate) fn end(mut stream: &TcpStream) -> io::Result<()> {
    use std::io::Read as _;
    stream.shutdown(std::net::Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "something came after the last answer",
        )),
    }
}
