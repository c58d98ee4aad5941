//! Payload in pieces of any size through sockets that take what they like: what is reported as gone is what stock
//! rustls can open, and what is left over completes it.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::task::Waker;

use proptest::prelude::*;
use rustls::Connection;
use tokio::net::UnixStream;

use super::Read;
use super::*;
use crate::forward::buffer;
use crate::tls::testing::{AES_256, block_on, drain, heard, with_stock};

/// Our end between two sockets, and who reads and writes there.
struct Line {
    app: UnixStream,
    plain: Stream,
    near: Stream,
    far: UnixStream,
    session: Session,
    outgoing: Outgoing,
    stock: Connection,
    /// What stock rustls has opened of what went out.
    opened: Vec<u8>,
}

impl Line {
    /// `room` bounds what the TLS socket takes at once.
    async fn new(we_serve: bool, room: usize) -> Self {
        let (established, stock) = with_stock(we_serve, AES_256).await;
        let (app, plain) = UnixStream::pair().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&near).set_send_buffer_size(room).unwrap();
        Self {
            app,
            plain: Stream::Unix(plain),
            near: Stream::Unix(near),
            far,
            session: established.session,
            outgoing: Outgoing::new(),
            stock,
            opened: Vec::new(),
        }
    }

    fn open(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.stock.read_tls(&mut bytes).unwrap();
            let ready = self
                .stock
                .process_new_packets()
                .unwrap()
                .plaintext_bytes_to_read();
            let start = self.opened.len();
            self.opened.resize(start + ready, 0);
            self.stock.reader().read_exact(&mut self.opened[start..]).unwrap();
        }
    }

    /// Opens all that is in the socket.
    async fn receive(&mut self) {
        tokio::task::yield_now().await;
        let mut bytes = vec![0; 1 << 20];
        while let Ok(count @ 1..) = self.far.try_read(&mut bytes) {
            let part = bytes[..count].to_vec();
            self.open(&part);
        }
    }

    /// Reads once what the application said, and seals it.
    async fn seal(&mut self) -> bool {
        let read = poll_fn(|cx| {
            self.outgoing
                .poll_read_from(cx, &self.plain, &mut self.session, None)
        })
        .await;
        matches!(read, Ok(Read::Payload))
    }

    /// Writes once; `None` when the socket is full.
    fn write(&mut self) -> Option<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.outgoing.poll_write_to(&mut cx, &self.near) {
            Poll::Ready(gone) => Some(gone.unwrap()),
            Poll::Pending => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_reported_is_what_can_be_opened(
        we_serve: bool,
        room in 2000..60_000_usize,
        limit in 1..6_u64,
        rekeys: bool,
        said in proptest::collection::vec(prop_oneof![1..100_usize, 1..100_000_usize], 1..8),
        // After so many writes the connection is ended from our side.
        patience in prop_oneof![Just(usize::MAX), 0..40_usize],
    ) {
        block_on(async {
            let mut line = Line::new(we_serve, room).await;
            line.session.set_seal_limit(limit);
            let mut all = Vec::new();
            let (mut gone, mut sealed, mut writes) = (0, 0, 0);
            'said: for length in said {
                let part: Vec<u8> = (all.len()..all.len() + length).map(|at| (at ^ at >> 8) as u8).collect();
                assert_eq!(line.app.try_write(&part).unwrap(), length, "the socket is too small for this test");
                all.extend(part);
                if rekeys {
                    // The peer asks for our next key, too.
                    line.stock.refresh_traffic_keys().unwrap();
                    line.stock.writer().write_all(b"x").unwrap();
                    heard(&mut line.session, &mut drain(&mut line.stock)).unwrap();
                }
                while sealed < all.len() {
                    assert!(line.seal().await);
                    assert!(!line.outgoing.is_empty());
                    let waiting = line.outgoing.payload_before(line.outgoing.sealed.end);
                    sealed += waiting;
                    while !line.outgoing.is_empty() {
                        if writes == patience {
                            break 'said;
                        }
                        writes += 1;
                        gone += line.write().unwrap_or(0);
                        line.receive().await;
                        assert_eq!(gone, line.opened.len());
                    }
                    assert_eq!((gone, buffer::taken()), (sealed, 0));
                }
            }
            let outgoing = std::mem::replace(&mut line.outgoing, Outgoing::new());
            let (mut left, lost) = outgoing.into_unwritten();
            assert_eq!(gone + lost, sealed);
            line.session.seal_fatal(rustls::AlertDescription::AccessDenied, &mut left).unwrap();
            while !left.is_empty() {
                let mut bytes = left.as_slice();
                line.stock.read_tls(&mut bytes).unwrap();
                left = bytes.to_vec();
                match line.stock.process_new_packets() {
                    Ok(state) => {
                        let mut part = vec![0; state.plaintext_bytes_to_read()];
                        line.stock.reader().read_exact(&mut part).unwrap();
                        line.opened.extend(part);
                    }
                    // Only now: nothing before it was taken for something else.
                    Err(error) => {
                        assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied));
                        assert!(left.is_empty());
                        let _ = line.stock.reader().read_to_end(&mut line.opened);
                    }
                }
            }
            assert!(line.opened == all[..sealed], "{} of {sealed} bytes", line.opened.len());
        });
    }
}

#[test]
fn buffers_grow_while_much_is_said_and_shrink_again() {
    block_on(async {
        let mut line = Line::new(true, 1 << 20).await;
        let mut sizes = Vec::new();
        let much = vec![7; 150_000];
        for _ in 0..8 {
            assert_eq!(line.app.try_write(&much).unwrap(), much.len());
            let mut left = much.len();
            while left > 0 {
                assert!(line.seal().await);
                sizes.push(line.outgoing.buffer.as_ref().unwrap().size());
                while !line.outgoing.is_empty() {
                    left -= line.write().unwrap_or(0);
                    line.receive().await;
                }
            }
        }
        for size in [Size::Small, Size::Medium, Size::Large] {
            assert!(sizes.contains(&size), "{sizes:?}");
        }
        for _ in 0..3 {
            assert_eq!(line.app.try_write(b"short").unwrap(), 5);
            assert!(line.seal().await);
            while !line.outgoing.is_empty() {
                line.write();
                line.receive().await;
            }
        }
        assert_eq!((line.outgoing.size, buffer::taken()), (Size::Small, 0));
        assert_eq!(line.opened.len(), 8 * much.len() + 15);
        drop(line.app);
        let end = poll_fn(|cx| {
            line.outgoing
                .poll_read_from(cx, &line.plain, &mut line.session, None)
        });
        assert!(matches!(end.await, Ok(Read::End)));
        assert_eq!(buffer::taken(), 0);
    });
}
