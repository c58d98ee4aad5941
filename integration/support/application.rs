//! Plain-text applications: one that sends lines back, and one that talks to it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An application behind a sidecar: sends every line back, and counts who came.
pub(crate) struct Echo {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Echo {
    /// Listens on a free port of loopback.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (accepted, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, stopped) = (Arc::clone(&accepted), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                // A thread each: tests open a handful of connections, and each ends with its peer.
                std::thread::spawn(move || echo(&stream?));
            }
        });
        Self { addr, accepted, stop }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; where that fails it has ended already.
        let _ = TcpStream::connect_timeout(&self.addr, PATIENCE);
    }
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let mut writer = stream;
        writer.write_all(line.as_bytes())?;
        line.clear();
    }
    stream.shutdown(Shutdown::Write)
}

/// An application before a sidecar: one connection, over which lines are asked and answered.
pub(crate) struct LineClient {
    stream: BufReader<TcpStream>,
}

impl LineClient {
    /// Connects.
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a line and expects it back.
    pub(crate) fn ask(&mut self, line: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended instead of an answer",
            ));
        }
        if answer.trim_end() == line {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("asked `{line}`, answered `{answer}`"),
            ))
        }
    }
}

/// Connects, has one line echoed, and ends in order.
pub(crate) fn ask_once(addr: SocketAddr, line: &str) -> io::Result<()> {
    let mut client = LineClient::connect(addr)?;
    client.ask(line)?;
    client.stream.get_ref().shutdown(Shutdown::Write)?;
    let mut rest = String::new();
    match client.stream.read_line(&mut rest)? {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("`{rest}` came after the last answer"),
        )),
    }
}

/// One connection that is kept busy in the background: a line every 20 ms, each answered before the next.
pub(crate) struct Traffic {
    shared: Arc<TrafficState>,
    thread: Option<JoinHandle<()>>,
    opened: Instant,
}

#[derive(Default)]
struct TrafficState {
    stop: AtomicBool,
    answered: AtomicUsize,
    ended: Mutex<Option<String>>,
}

impl Traffic {
    /// Connects and starts, once the first line was answered.
    pub(crate) fn start(addr: SocketAddr) -> io::Result<Self> {
        let mut client = LineClient::connect(addr)?;
        client.ask("first")?;
        let shared = Arc::new(TrafficState::default());
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !state.stop.load(Ordering::SeqCst) {
                let line = format!("line {}", state.answered.load(Ordering::SeqCst));
                if let Err(error) = client.ask(&line) {
                    *state.ended.lock().unwrap() = Some(error.to_string());
                    return;
                }
                state.answered.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Self {
            shared,
            thread: Some(thread),
            opened: Instant::now(),
        })
    }

    /// How many lines were answered.
    pub(crate) fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// How the connection ended, when it has.
    pub(crate) fn ended(&self) -> Option<String> {
        self.shared.ended.lock().unwrap().clone()
    }

    /// How long ago it was opened.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Fails unless lines go on being answered on this connection for the given time.
    pub(crate) fn expect_flowing(&self, how_long: Duration) {
        let before = self.answered();
        std::thread::sleep(how_long);
        let (after, ended) = (self.answered(), self.ended());
        assert!(
            ended.is_none(),
            "the connection ended after {:?}: {ended:?}",
            self.age()
        );
        assert!(after > before, "no line was answered within {how_long:?}");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
