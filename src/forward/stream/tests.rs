//! The stream between itself and stock rustls peers.

mod endings;
mod schedules;
mod web;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use std::pin::Pin;

use tokio::io::AsyncRead;

use super::*;
use crate::forward::meter::Traffic;
use crate::forward::testing::*;
use crate::tls::testing::{OUR_ID, call_as_us, heard, said, serve_as_us, world};

/// The stream, what it counted, and the peer at its other end.
struct Bench {
    stream: TlsStream,
    traffic: Arc<Traffic>,
    peer: Peer,
}

impl Bench {
    async fn new(we_serve: bool, room: Option<u32>) -> Self {
        let (tls, established, peer) = tls_pair(we_serve, room).await;
        let (meter, traffic) = meter();
        let stream = TlsStream::new(&permit(), tls, established.session, established.unread, meter);
        Self {
            stream,
            traffic,
            peer,
        }
    }
}

/// What was counted: from the peer, and to it.
fn counted(traffic: &Traffic) -> (u64, u64) {
    (
        traffic.up.load(Ordering::Relaxed),
        traffic.down.load(Ordering::Relaxed),
    )
}

/// Fails where a test would hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(play::HANG, future).await.expect("it hangs")
}

/// What lies in an error of the stream.
fn cause(error: &io::Error) -> &StreamError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap()
}

/// Writes all, many slices at a time.
async fn write_all_vectored(stream: &mut TlsStream, mut slices: &mut [io::IoSlice<'_>]) {
    while !slices.is_empty() {
        let taken = stream.write_vectored(slices).await.unwrap();
        assert!(taken > 0);
        io::IoSlice::advance_slices(&mut slices, taken);
    }
}

#[tokio::test]
async fn what_is_written_in_slices_arrives_as_one() {
    for we_serve in [false, true] {
        let Bench {
            mut stream,
            traffic,
            mut peer,
        } = Bench::new(we_serve, None).await;
        assert!(stream.is_write_vectored());
        // Around the size of a record, of each buffer, and more than the largest.
        let sizes = [
            0, 1, 0, 16_383, 1, 1, 16_384, 16_385, 65_535, 2, 262_143, 1, 0, 300_000,
        ];
        let said = pattern(sizes.iter().sum());
        let mut rest = said.as_slice();
        let mut slices = Vec::new();
        for size in sizes {
            let (slice, after) = rest.split_at(size);
            slices.push(io::IoSlice::new(slice));
            rest = after;
        }
        let act = async {
            write_all_vectored(&mut stream, &mut slices).await;
            stream.shutdown().await.unwrap();
        };
        let ((), heard) = soon(async { tokio::join!(act, peer.hear()) }).await;
        assert!(heard.0 == said && heard.1.is_ok());
        assert_eq!(counted(&traffic), (0, said.len() as u64));
        assert_eq!(buffer::taken(), 0);
    }
}

#[tokio::test]
async fn a_write_takes_as_much_as_one_buffer_and_of_empty_slices_nothing() {
    let Bench { mut stream, peer, .. } = Bench::new(true, None).await;
    let much = vec![0; 1 << 20];
    assert_eq!(stream.write(&[]).await.unwrap(), 0);
    assert_eq!(stream.write_vectored(&[]).await.unwrap(), 0);
    assert_eq!(buffer::taken(), 0);
    assert_eq!(stream.write(&much[..20_000]).await.unwrap(), 20_000);
    assert_eq!(stream.write(&much).await.unwrap(), 256 << 10);
    drop(peer);
}

#[tokio::test]
async fn payload_can_be_read_where_it_lies() {
    let Bench {
        mut stream,
        traffic,
        mut peer,
    } = Bench::new(true, None).await;
    let said = pattern(200_000);
    let act = async {
        peer.write_all(&said).await.unwrap();
        peer.shutdown().await.unwrap();
    };
    let read = async {
        let mut heard = Vec::new();
        loop {
            let piece = stream.fill_buf().await.unwrap();
            if piece.is_empty() {
                break heard;
            }
            assert!(piece.len() <= 1 << 14);
            let count = piece.len().div_ceil(2);
            heard.extend_from_slice(&piece[..count]);
            stream.consume(count);
        }
    };
    let ((), heard) = soon(async { tokio::join!(act, read) }).await;
    assert!(heard == said);
    stream.consume(10);
    assert_eq!(counted(&traffic), (said.len() as u64, 0));
}

#[tokio::test]
async fn no_buffer_is_held_while_nothing_is_pending() {
    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    for length in [1, 100, 40_000] {
        let said = pattern(length);
        let mut heard = vec![0; length];
        for _ in 0..3 {
            let (sent, read) = soon(async {
                let send = async {
                    peer.write_all(&said).await?;
                    peer.flush().await
                };
                tokio::join!(send, stream.read_exact(&mut heard))
            })
            .await;
            sent.unwrap();
            read.unwrap();
            assert!(heard == said);
            assert_eq!(buffer::taken(), 0, "all was read");
            let (sent, read) = soon(async {
                let send = async {
                    stream.write_all(&said).await?;
                    stream.flush().await
                };
                tokio::join!(send, peer.read_exact(&mut heard))
            })
            .await;
            sent.unwrap();
            read.unwrap();
            assert!(heard == said);
            assert_eq!(buffer::taken(), 0, "all was written");
        }
        let mut byte = [0; 1];
        let waited = timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
        assert!(waited.is_err());
        assert_eq!(buffer::taken(), 0, "waiting to read");
        stream.rest();
    }
    // An end that came along with the last payload is kept without a buffer, too.
    let send = async {
        peer.write_all(b"last").await.unwrap();
        peer.shutdown().await.unwrap();
    };
    send.await;
    let mut last = [0; 4];
    soon(stream.read_exact(&mut last)).await.unwrap();
    assert_eq!(buffer::taken(), 0);
    assert_eq!(soon(stream.read(&mut last)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_full_socket_holds_back_the_writer_at_one_buffer() {
    let Bench {
        mut stream,
        traffic,
        mut peer,
    } = Bench::new(true, Some(2048)).await;
    let said = pattern(1 << 20);
    let mut sent = 0;
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        match Pin::new(&mut stream).poll_write(&mut cx, &said[sent..]) {
            Poll::Ready(taken) => sent += taken.unwrap(),
            Poll::Pending => break,
        }
        tokio::task::yield_now().await;
    }
    assert!((256 << 10..said.len()).contains(&sent), "{sent}");
    assert_eq!(buffer::taken(), 1);
    assert!(counted(&traffic).1 < sent as u64);
    let act = async {
        stream.write_all(&said[sent..]).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let ((), heard) = soon(async { tokio::join!(act, peer.hear()) }).await;
    assert!(heard.0 == said && heard.1.is_ok());
    assert_eq!(buffer::taken(), 0);
    assert_eq!(counted(&traffic).1, said.len() as u64);
}

#[tokio::test]
async fn a_reader_of_what_is_there_already_gives_way() {
    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    peer.write_all(&pattern(10_000)).await.unwrap();
    peer.flush().await.unwrap();
    stream.read_exact(&mut [0; 1]).await.unwrap();
    assert!(stream.incoming.has_payload());
    let gave_way = poll_fn(|cx| {
        let mut byte = [0; 1];
        let gave_way = (0..1000).any(|_| {
            let mut buf = tokio::io::ReadBuf::new(&mut byte);
            Pin::new(&mut stream).poll_read(cx, &mut buf).is_pending()
        });
        Poll::Ready(gave_way)
    });
    assert!(gave_way.await && stream.incoming.has_payload());
}

#[tokio::test]
async fn a_key_update_of_the_peer_is_answered_before_the_next_data() {
    let Bench {
        mut stream, mut peer, ..
    } = Bench::new(true, None).await;
    peer.rekey.store(true, Ordering::Relaxed);
    peer.write_all(b"new").await.unwrap();
    peer.flush().await.unwrap();
    soon(stream.read_exact(&mut [0; 3])).await.unwrap();
    // What the server's handshake left is sent before our first data.
    let mut socket = peer.into_socket();
    stream.write_all(b"x").await.unwrap();
    stream.write_all(b"y").await.unwrap();
    drop(stream);
    let mut wire = Vec::new();
    soon(socket.read_to_end(&mut wire)).await.unwrap();
    let mut lengths = Vec::new();
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        let length = crate::tls::record::record_length(rest).unwrap().unwrap();
        lengths.push(length);
        rest = &rest[length..];
    }
    assert!(
        lengths.ends_with(&[5 + 5 + 17, 5 + 1 + 17, 5 + 1 + 17]),
        "{lengths:?}"
    );
}

/// Another svidecar, which does renewal: it is heard, and passed over.
#[tokio::test]
async fn renewals_are_passed_over() {
    let (near, mut far) = tcp_pair(None).await;
    let (mut near, mut far_stream) = (crate::sys::stream::Stream::Tcp(near), {
        let std = far.into_std().unwrap();
        let kept = std.try_clone().unwrap();
        far = tokio::net::TcpStream::from_std(std).unwrap();
        crate::sys::stream::Stream::Tcp(tokio::net::TcpStream::from_std(kept).unwrap())
    });
    let (ours, theirs) = tokio::join!(serve_as_us(&mut near), call_as_us(&mut far_stream));
    let (ours, mut theirs) = (ours.unwrap(), theirs.unwrap().session);
    let (meter, traffic) = meter();
    let mut stream = TlsStream::new(&permit(), near, ours.session, ours.unread, meter);
    let link = theirs.renewal().unwrap();
    link.greet();
    let (chain, key) = world().newer(OUR_ID);
    link.offer(&chain, &key).unwrap();
    let mut sealed = Vec::new();
    theirs.seal_renewal(&mut sealed).unwrap();
    sealed.extend(said(&mut theirs, b"data"));
    far.write_all(&sealed).await.unwrap();
    let mut data = [0; 4];
    soon(stream.read_exact(&mut data)).await.unwrap();
    assert_eq!((&data, counted(&traffic)), (b"data", (4, 0)));
    // Nothing is said of it, either.
    stream.write_all(b"answer").await.unwrap();
    let mut record = vec![0; 5 + 6 + 17];
    soon(far.read_exact(&mut record)).await.unwrap();
    let received = heard(&mut theirs, &mut record).unwrap();
    assert!(matches!(received[..], [crate::tls::session::Received::Data(_)]));
}

#[test]
fn it_holds_little_more_than_its_session() {
    let own = size_of::<TlsStream>() - size_of::<Session>();
    assert!(own <= 256, "{own} bytes");
}
