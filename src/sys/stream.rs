//! A connected stream socket, TCP or unix, with the two ways svidecar ends one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use socket2::TcpKeepalive;
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// How long a lingering close waits for the peer to have read our last words.
const LINGER: Duration = Duration::from_secs(1);
/// How long our last words may take to get into the socket of a peer that reads slowly.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much a lingering close reads away: about what fits into the socket buffers.
const LINGER_BYTES: usize = 4 << 20;

/// Silence after which the kernel asks whether a TCP peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// How often it asks then.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// How often in vain before the connection counts as broken: after two minutes in all.
const KEEPALIVE_RETRIES: u32 = 4;

/// A connected stream socket.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A unix socket connection.
    Unix(UnixStream),
}

impl Stream {
    /// Ends the connection so that the other side cannot take it for a clean end: with a reset on TCP. A unix
    /// socket has no reset; there the other side sees the end, and an error when bytes of its were left unread.
    pub fn abort(self) {
        if let Self::Tcp(stream) = &self {
            // Failing leaves an ordinary close, and the socket is gone either way.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Writes our last words, for a second at most, and hands back the stream for [`Self::close_lingering`]. `None` when
    /// they could not be written: the connection is reset then, so that it still looks like no clean end.
    pub async fn write_last(mut self, words: &[u8]) -> Option<Self> {
        if matches!(
            tokio::time::timeout(LAST_WORDS, self.write_all(words)).await,
            Ok(Ok(()))
        ) {
            return Some(self);
        }
        self.abort();
        None
    }

    /// Ends our direction and waits, for a second at most, until the other side ends its own, reading away what
    /// comes. Closing at once would send a reset if unread bytes are left or come later, and a reset makes the
    /// other side's kernel throw away our last words before they are read.
    pub async fn close_lingering(mut self) {
        if self.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            let mut sink = [0; 4096];
            let mut left = LINGER_BYTES;
            while let Ok(read @ 1..) = self.read(&mut sink).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        };
        // Running out of time is an ordinary end here.
        let _ = tokio::time::timeout(LINGER, drain).await;
    }

    /// Sends small writes at once, as both relays write whole messages, and has the kernel ask after a peer that has
    /// been silent: one that vanished without a word would otherwise hold its place until the idle time-out. Has no
    /// meaning for a unix socket.
    ///
    /// # Errors
    /// The system's.
    pub fn tune(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_AFTER)
                    .with_interval(KEEPALIVE_EVERY)
                    .with_retries(KEEPALIVE_RETRIES);
                socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
            }
            Self::Unix(_) => Ok(()),
        }
    }
}

impl Stream {
    /// Our address of the connection, with IPv4-mapped ones as IPv4; none for a unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        let Self::Tcp(stream) = self else { return None };
        stream.local_addr().ok().map(canonical)
    }

    /// The other side's address, likewise.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        let Self::Tcp(stream) = self else { return None };
        stream.peer_addr().ok().map(canonical)
    }

    /// Where the connection was meant to go before a rule of the packet filter redirected it to us (`SO_ORIGINAL_DST` of
    /// ip(7), which asks the connection tracking), with IPv4-mapped addresses as IPv4. `None` where nothing was
    /// redirected: the connection is not tracked, or was meant for the address that took it.
    #[must_use]
    pub fn original_destination(&self) -> Option<SocketAddr> {
        let local = self.local_addr()?;
        let original = if local.is_ipv4() {
            sockopt::ip_original_dst(self).ok().map(SocketAddr::V4)
        } else {
            sockopt::ipv6_original_dst(self).ok().map(SocketAddr::V6)
        };
        original.map(canonical).filter(|original| *original != local)
    }
}

/// Without what only IPv6 has beside address and port: flow and scope.
const fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets are not buffered here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Stream {
    /// Waits until a read may find something, so that the caller needs a buffer only then. A wake-up may be spurious.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads what is there, without waiting. A read that does not fill `buf` has emptied the socket: the next
    /// [`Self::poll_read_ready`] waits for more without asking the system again.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when there is nothing.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let room = buf.len();
        self.try_io(Interest::READABLE, room, || {
            Ok(recv(self, buf, RecvFlags::empty())?.0)
        })
    }

    /// As [`Self::try_read`], into several places, which are filled in their order.
    ///
    /// # Errors
    /// As [`Self::try_read`].
    pub fn try_read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room = bufs.iter().map(|buf| buf.len()).sum();
        self.try_io(Interest::READABLE, room, || Ok(rustix::io::readv(self, bufs)?))
    }

    /// Writes what the socket takes, waiting until it takes something.
    ///
    /// # Errors
    /// The system's, never `WouldBlock`.
    pub fn poll_try_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// As [`Self::poll_try_write`], from several places in their order.
    ///
    /// # Errors
    /// As [`Self::poll_try_write`].
    pub fn poll_write_vectored(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Self::Tcp(stream) => ready!(stream.poll_write_ready(cx))?,
                Self::Unix(stream) => ready!(stream.poll_write_ready(cx))?,
            }
            match self.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Writes what the socket takes at this moment, without waiting, from several places in their order. The task that
    /// waits to write, if one does, goes on waiting.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when the socket is full.
    pub fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.try_io(Interest::WRITABLE, length, || match bufs {
            [only] => Ok(send(self, only, SendFlags::NOSIGNAL)?),
            several => Ok(rustix::io::writev(self, several)?),
        })
    }

    /// One system call that moves at most `most` bytes. Moving less, but something, shows that the socket is empty (or
    /// full), as `WouldBlock` would: told so, the runtime waits for the next change without a call that fails first.
    /// An end of data is remembered by the runtime apart from that. tokio's own reads do the same, with the same
    /// exception: a read also stops short at TCP's urgent mark (and where a unix socket passed descriptors); what lies
    /// behind it is read when more comes (RFC 6093 advises against urgent data, and no TLS peer has any).
    fn try_io(
        &self,
        interest: Interest,
        most: usize,
        call: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut moved = 0;
        let call = || match call() {
            Ok(count) if 0 < count && count < most => {
                moved = count;
                Err(io::ErrorKind::WouldBlock.into())
            }
            other => other,
        };
        let result = match self {
            Self::Tcp(stream) => stream.try_io(interest, call),
            Self::Unix(stream) => stream.try_io(interest, call),
        };
        if moved > 0 { Ok(moved) } else { result }
    }

    /// Whether there is something to read at this moment; an end of data or an error is nothing.
    #[must_use]
    pub fn has_data(&self) -> bool {
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(self, &mut byte, flags).is_ok_and(|(read, _)| read > 0)
    }

    /// Ends our direction: the other side reads an end of data.
    ///
    /// # Errors
    /// The system's, when the connection is gone already.
    pub fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Unix(stream) => socket2::SockRef::from(stream).shutdown(Shutdown::Write),
        }
    }

    /// Whether the system has an error for the socket, a reset by the other side above all; the error is taken. A read
    /// tells of it too, but not once the other side's data had ended before.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let error = match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        };
        !matches!(error, Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tuned_sockets_send_at_once_and_ask_after_silent_peers() {
        let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Stream::Tcp(TcpStream::connect(door.local_addr().unwrap()).await.unwrap());
        stream.tune().unwrap();
        let Stream::Tcp(stream) = stream else {
            panic!("no TCP")
        };
        assert!(stream.nodelay().unwrap());
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        let (near, _far) = UnixStream::pair().unwrap();
        Stream::Unix(near).tune().unwrap();
    }
}
