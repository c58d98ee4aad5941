//! The plaintext side, played by the test itself: a door that hands over whoever connects, and what can be done with
//! a connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::support::SOON;

/// A listening socket of loopback.
pub(crate) struct Door {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    arrivals: Receiver<TcpStream>,
}

impl Door {
    /// On a free port.
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, arrivals) = mpsc::channel();
        let accepted = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&accepted);
        // Ends with the process: a blocking accept cannot be told to stop, and costs nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                if sender.send(patient(stream)).is_err() {
                    return;
                }
            }
        });
        Self {
            addr,
            accepted,
            arrivals,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        self.arrivals
            .recv_timeout(SOON)
            .expect("a connection to the application")
    }

    /// A connection that comes within a second.
    pub(crate) fn try_accept(&self) -> Option<TcpStream> {
        self.arrivals.recv_timeout(Duration::from_secs(1)).ok()
    }

    /// How many came so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// No test waits for ever.
fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    // Refused by the system where the connection is reset already; the test's first read will tell.
    let _ = stream.set_nodelay(true);
    stream
}

/// Connects over TCP.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    // A blocking connect: with a time limit it would also tell of a reset that came right after.
    patient(TcpStream::connect(addr).unwrap())
}

/// Connects to a unix socket.
pub(crate) fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Listens on a unix socket and hands over the first who connects.
pub(crate) fn unix_door(path: &Path) -> Receiver<UnixStream> {
    let listener = UnixListener::bind(path).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let _ = sender.send(stream);
    });
    receiver
}

/// What is written at one end comes out at the other, both ways.
pub(crate) fn exchange(near: &mut (impl Read + Write), far: &mut (impl Read + Write), word: &str) {
    pass(near, far, word.as_bytes());
    pass(far, near, word.to_uppercase().as_bytes());
}

/// What is written at one end comes out at the other.
pub(crate) fn pass(from: &mut impl Write, to: &mut impl Read, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    from.flush().unwrap();
    let mut got = vec![0; bytes.len()];
    to.read_exact(&mut got).unwrap();
    assert!(got == bytes, "other bytes came out than went in");
}

/// Reads up to the end, which must be a clean one.
pub(crate) fn read_to_end(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("a clean end");
    bytes
}

/// The error that ends this direction; what comes before it is thrown away. Panics at a clean end.
pub(crate) fn read_error(from: &mut impl Read) -> io::Error {
    let mut sink = [0; 4096];
    loop {
        match from.read(&mut sink) {
            Ok(0) => panic!("a clean end, where an error was expected"),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// Waits until the connection is reset. Panics at a clean end.
pub(crate) fn expect_reset(from: &mut impl Read) {
    let error = read_error(from);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

/// Connects, and is reset at once; on a busy machine before the call that connects has returned.
pub(crate) fn expect_reset_at_once(addr: SocketAddr) {
    match TcpStream::connect(addr) {
        Ok(stream) => expect_reset(&mut patient(stream)),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// Ends a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}
