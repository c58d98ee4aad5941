//! The pair of sockets between a supervisor and its child: packets in order (unix(7), `SOCK_SEQPACKET`), each with the
//! descriptors that it hands over (`SCM_RIGHTS`). The end of either process is the end of the stream at the other.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram as StdDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::message::{Sockets, SocketsError, ToChild, ToParent};
use crate::config::address;
use crate::config::settings::Address;
use crate::sys::bind::Listening;

/// The most descriptors of one packet; the kernel takes 253 (unix(7), `SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 200;
/// The longest message, in bytes: many times what the addresses of one packet take.
const MAX_MESSAGE: usize = 128 * 1024;

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The system's.
    #[error("{0}")]
    System(#[from] io::Error),
    /// No message of ours.
    #[error("a packet that is no message: {0}")]
    Message(#[from] serde_json::Error),
    /// Its sockets cannot be used.
    #[error("{0}")]
    Sockets(#[from] SocketsError),
    /// It was cut short on its way.
    #[error("a packet or its descriptors were cut short; perhaps the limit of open files is too low")]
    Truncated,
    /// Something that accepts no connections.
    #[error("what came as `{0}` is no listening stream socket")]
    NotListening(Address),
    /// Not the message that has to come first.
    #[error("other messages come before the sockets")]
    NoSockets,
    /// The other process is gone.
    #[error("the other process is gone")]
    Ended,
}

/// One end.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl From<OwnedFd> for Link {
    fn from(end: OwnedFd) -> Self {
        Self(end)
    }
}

impl Link {
    /// The parent's end, and what becomes the child's standard input.
    ///
    /// # Errors
    /// The system's.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(ours), theirs))
    }

    /// The child's end, which is its standard input.
    ///
    /// # Errors
    /// When standard input is no such socket: nobody supervises this process.
    pub fn of_standard_input() -> io::Result<Self> {
        let end = io::stdin().as_fd().try_clone_to_owned()?;
        match sockopt::socket_type(&end) {
            Ok(SocketType::SEQPACKET) => Ok(Self(end)),
            _ => Err(io::Error::other(
                "standard input is not the socket of a supervisor: start `svidecar supervise`",
            )),
        }
    }

    /// Sends one message without waiting: where the other process has stopped reading, that is an error.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if bytes.len() > MAX_MESSAGE
            || (!descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)))
        {
            return Err(io::Error::other("too much for one packet"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags))?;
        Ok(())
    }

    /// Sends sockets in as many packets as they take, each made a message by `message`.
    ///
    /// # Errors
    /// The system's.
    pub fn send_sockets<'a, M: Serialize>(
        &self,
        sockets: impl IntoIterator<Item = (&'a Address, &'a Listening)>,
        message: impl Fn(Sockets) -> M,
    ) -> io::Result<()> {
        let all: Vec<_> = sockets.into_iter().collect();
        let mut left = all.len();
        let none: &[(&Address, &Listening)] = &[];
        let packets = if all.is_empty() {
            vec![none]
        } else {
            all.chunks(MAX_DESCRIPTORS).collect()
        };
        for packet in packets {
            left = left.saturating_sub(packet.len());
            let descriptors: Vec<_> = packet.iter().map(|(_, socket)| descriptor(socket)).collect();
            let sockets = Sockets {
                addresses: packet.iter().map(|(address, _)| address.to_string()).collect(),
                more: left > 0,
            };
            self.send(&message(sockets), &descriptors)?;
        }
        Ok(())
    }

    /// The next message and its descriptors; `flags` may say not to wait.
    fn receive<M: DeserializeOwned>(&self, flags: RecvFlags) -> Result<(M, Vec<OwnedFd>), ReceiveError> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                flags | RecvFlags::CMSG_CLOEXEC,
            )
        })
        .map_err(io::Error::from)?;
        let descriptors = control
            .drain()
            .filter_map(|part| match part {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(ReceiveError::Truncated);
        }
        match bytes.get(..received.bytes) {
            None | Some([]) => Err(ReceiveError::Ended),
            Some(message) => Ok((serde_json::from_slice(message)?, descriptors)),
        }
    }
}

/// The descriptor of a listening socket.
fn descriptor(socket: &Listening) -> BorrowedFd<'_> {
    match socket {
        Listening::Tcp(listener) => listener.as_fd(),
        Listening::Unix(listener) => listener.as_fd(),
    }
}

/// Listening sockets from descriptors that another process opened.
///
/// # Errors
/// When there are not as many as addresses, or one is no listening stream socket of its address's kind.
pub fn listening(
    sockets: &Sockets,
    descriptors: Vec<OwnedFd>,
) -> Result<Vec<(Address, Listening)>, ReceiveError> {
    let addresses = sockets.addresses(descriptors.len())?;
    addresses
        .into_iter()
        .zip(descriptors)
        .map(|(address, descriptor)| {
            let socket = adopt(&address, descriptor)?;
            Ok((address, socket))
        })
        .collect()
}

fn adopt(address: &Address, descriptor: OwnedFd) -> Result<Listening, ReceiveError> {
    let domain = sockopt::socket_domain(&descriptor).map_err(io::Error::from)?;
    let kind = sockopt::socket_type(&descriptor).map_err(io::Error::from)?;
    let accepts = sockopt::socket_acceptconn(&descriptor).map_err(io::Error::from)?;
    let of_its_kind = match address {
        Address::Tcp(_) => [AddressFamily::INET, AddressFamily::INET6].contains(&domain),
        Address::Unix(_) => domain == AddressFamily::UNIX,
    };
    if !of_its_kind || kind != SocketType::STREAM || !accepts {
        return Err(ReceiveError::NotListening(address.clone()));
    }
    Ok(match address {
        Address::Tcp(_) => {
            let listener = TcpListener::from(descriptor);
            listener.set_nonblocking(true)?;
            Listening::Tcp(listener)
        }
        Address::Unix(_) => {
            let listener = UnixListener::from(descriptor);
            listener.set_nonblocking(true)?;
            Listening::Unix(listener)
        }
    })
}

/// An end on a runtime with I/O.
#[derive(Debug)]
pub struct AsyncLink {
    link: Arc<Link>,
    /// The same socket. The runtime's type is for datagrams, whose reading is waited for in the same way.
    readable: UnixDatagram,
}

impl AsyncLink {
    /// Takes the end into the calling runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn new(link: Arc<Link>) -> io::Result<Self> {
        let socket = StdDatagram::from(link.0.try_clone()?);
        socket.set_nonblocking(true)?;
        let readable = UnixDatagram::from_std(socket)?;
        Ok(Self { link, readable })
    }

    /// Sends as [`Link::send`] does.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.link.send(message, &[])
    }

    /// The next message with its descriptors. Cancel safe.
    ///
    /// # Errors
    /// See [`ReceiveError`]; after [`ReceiveError::Ended`] nothing comes any more.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ReceiveError> {
        let received = self.readable.async_io(Interest::READABLE, || {
            match self.link.receive(RecvFlags::DONTWAIT) {
                Err(ReceiveError::System(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                received => Ok(received),
            }
        });
        match received.await? {
            // A process that was killed with a message unread resets the stream.
            Err(ReceiveError::System(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                Err(ReceiveError::Ended)
            }
            received => received,
        }
    }
}

/// The supervisor, as its child knows it.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The way to it.
    pub link: Arc<Link>,
    /// Not to accept before we are ready otherwise, or told to.
    pub hold: bool,
    /// Whether no other child sends the audit log on.
    pub alone: bool,
}

/// What a child is started with.
#[derive(Debug, Default)]
pub struct Dowry {
    /// The sockets to accept from.
    pub sockets: Vec<(Address, Listening)>,
    /// The path of the audit log and the right to write it, which other children may have as well.
    pub audit_lock: Option<(PathBuf, File)>,
    /// Which of the sockets a service manager has opened and keeps open.
    pub passed: Vec<Address>,
}

impl Parent {
    /// Waits for the first messages, up to the last of the sockets. Blocking.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub fn greet(link: Link) -> Result<(Self, Dowry), ReceiveError> {
        let mut dowry = Dowry::default();
        loop {
            let (message, mut descriptors) = link.receive(RecvFlags::empty())?;
            match message {
                ToChild::Sockets { sockets, hold, alone } => {
                    dowry.sockets.extend(listening(&sockets, descriptors)?);
                    if !sockets.more {
                        let parent = Self {
                            link: Arc::new(link),
                            hold,
                            alone,
                        };
                        return Ok((parent, dowry));
                    }
                }
                ToChild::AuditLock { path } => {
                    let lock = descriptors.pop().map(|lock| (path.into(), lock.into()));
                    dowry.audit_lock = lock;
                }
                ToChild::Passed { addresses } => {
                    let known = addresses
                        .iter()
                        .map(|text| address::listen(text).map_err(|_| SocketsError::Address(text.clone())));
                    dowry.passed = known.collect::<Result<_, _>>()?;
                }
                ToChild::Unknown => {}
                _ => return Err(ReceiveError::NoSockets),
            }
        }
    }

    /// Tells it something. It is gone where that fails, which shows elsewhere.
    pub fn tell(&self, message: &ToParent) {
        if let Err(error) = self.link.send(message, &[]) {
            tracing::debug!(%error, "the supervisor cannot be told");
        }
    }
}

#[cfg(test)]
mod tests;
