//! OpenSSL's command-line client and server at the TLS end, with key updates of theirs and of ours. Skipped, loudly,
//! where `openssl` is not installed.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tokio::net::TcpListener;

use super::*;

/// An `openssl` that runs; killed when dropped.
struct Openssl {
    child: Child,
    stdin: Option<ChildStdin>,
    printed: mpsc::Receiver<Vec<u8>>,
    seen: String,
    _files: tempfile::TempDir,
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Openssl {
    fn start(arguments: &[&str]) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("SKIPPED: `openssl` is not on PATH");
            return None;
        }
        let files = tempfile::tempdir().unwrap();
        let (chain, key, root) = world().their_pem();
        for (name, text) in [("chain", chain), ("key", key), ("root", root)] {
            fs::write(files.path().join(name), text).unwrap();
        }
        let mut child = Command::new("openssl")
            .args(arguments)
            .args(["-tls1_3", "-cert", "chain", "-key", "key", "-CAfile", "root"])
            .current_dir(files.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut stdout, (print, printed)) = (child.stdout.take().unwrap(), mpsc::channel());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                if print.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Some(Self {
            child,
            stdin,
            printed,
            seen: String::new(),
            _files: files,
        })
    }

    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits until it has printed `text`.
    fn expect(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            match self.printed.recv_timeout(Duration::from_secs(20)) {
                Ok(more) => self.seen.push_str(&String::from_utf8_lossy(&more)),
                Err(_) => panic!("`{text}` is not in: {}", self.seen),
            }
        }
    }

    /// Talks to an application that echoes, changing keys at every other line, and leaves in order.
    fn converse(mut self) {
        for turn in 0..12 {
            let line = format!("line {turn} over TLS\n");
            self.say(&line);
            self.expect(&line);
            // A line that begins so is a command: change keys, and ask for ours to change, or do not.
            match turn % 4 {
                1 => self.say("K\n"),
                3 => self.say("k\n"),
                _ => continue,
            }
            // Neither program says reliably that it has; and what it reads in one go with a command, it drops.
            thread::sleep(Duration::from_millis(150));
        }
        self.say("Q\n");
        let _ = self.child.wait();
    }
}

async fn echo(mut app: TcpStream) {
    let (mut from, mut to) = app.split();
    // How it ends is for the relay to say.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

async fn relay_to_echo(stream: Stream, established: crate::tls::handshake::Established) -> Report {
    let (plain, app) = tcp_pair(None).await;
    let mut session = established.session;
    session.set_seal_limit(3);
    let ends = Ends {
        tls: stream,
        session,
        unread: established.unread,
        plain: Stream::Tcp(plain),
    };
    tokio::join!(relayed(ends), echo(app)).0
}

#[tokio::test]
async fn openssl_as_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let Some(openssl) = Openssl::start(&["s_client", "-connect", &to]) else {
        return;
    };
    let talk = tokio::task::spawn_blocking(move || openssl.converse());
    let mut stream = Stream::Tcp(listener.accept().await.unwrap().0);
    let established = serve_as_us(&mut stream).await.unwrap();
    let report = relay_to_echo(stream, established).await;
    talk.await.unwrap();
    assert_eq!(report.ending.reason, Reason::Finished, "{:?}", report.ending);
    assert_eq!(report.opened, report.sealed);
}

#[tokio::test]
async fn openssl_as_the_server() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let Some(mut openssl) = Openssl::start(&["s_server", "-accept", &free.to_string(), "-Verify", "3"])
    else {
        return;
    };
    openssl.expect("ACCEPT");
    let mut stream = Stream::Tcp(TcpStream::connect(free).await.unwrap());
    let established = call_as_us(&mut stream).await.unwrap();
    let talk = tokio::task::spawn_blocking(move || {
        openssl.expect("-----END SSL SESSION PARAMETERS-----");
        openssl.converse();
    });
    let report = relay_to_echo(stream, established).await;
    talk.await.unwrap();
    // `s_server` closes its socket at `Q` and says nothing in TLS.
    assert_eq!(report.ending.reason, Reason::PeerTruncated, "{:?}", report.ending);
    assert_eq!(report.opened, report.sealed);
}

#[tokio::test]
async fn openssl_resumes_as_the_client() {
    let ours = world().resuming();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let session = file.to_str().unwrap();
    for (argument, resumed) in [("-sess_out", false), ("-sess_in", true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap().to_string();
        let Some(mut openssl) = Openssl::start(&["s_client", "-connect", &to, argument, session]) else {
            return;
        };
        let mut stream = Stream::Tcp(listener.accept().await.unwrap().0);
        let mut established = accept_as(&ours, &mut stream).await.unwrap();
        assert_eq!(established.resumed, resumed);
        assert_eq!(established.peer.id.to_string(), THEIR_ID);
        let words = said(&mut established.session, b"welcome");
        stream.write_all(&words).await.unwrap();
        let talk = tokio::task::spawn_blocking(move || {
            openssl.expect("welcome");
            openssl.say("Q\n");
            let _ = openssl.child.wait();
        });
        talk.await.unwrap();
    }
}

#[tokio::test]
async fn openssl_resumes_as_the_server() {
    let ours = world().resuming();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let context = ["-id_prefix", "svidecar"];
    let arguments = [
        "s_server",
        "-accept",
        &free.to_string(),
        "-Verify",
        "3",
        "-naccept",
        "3",
    ];
    let Some(mut openssl) = Openssl::start(&[arguments.as_slice(), &context].concat()) else {
        return;
    };
    openssl.expect("ACCEPT");
    for resumed in [false, true, true] {
        let mut stream = Stream::Tcp(TcpStream::connect(free).await.unwrap());
        let mut established = connect_as(&ours, &mut stream).await.unwrap();
        assert_eq!(established.resumed, resumed);
        assert_eq!(established.peer.id.to_string(), THEIR_ID);
        // Two tickets come, then what it is told to say.
        openssl = tokio::task::spawn_blocking(move || {
            openssl.expect("-----END SSL SESSION PARAMETERS-----");
            openssl.say("welcome\n");
            openssl
        })
        .await
        .unwrap();
        let mut bytes = established.unread;
        while !records_hold_data(&mut established.session, &mut bytes) {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        let mut end = Vec::new();
        established.session.seal_close_notify(&mut end).unwrap();
        stream.write_all(&end).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

/// Opens the whole records of `bytes`; whether there was data.
fn records_hold_data(session: &mut crate::tls::session::Session, bytes: &mut Vec<u8>) -> bool {
    let mut data = false;
    while let Some(length) = crate::tls::record::record_length(bytes).unwrap() {
        if bytes.len() < length {
            break;
        }
        let mut record: Vec<_> = bytes.drain(..length).collect();
        let received = heard(session, &mut record).unwrap();
        data |= matches!(received[..], [crate::tls::session::Received::Data(_)]);
    }
    data
}
