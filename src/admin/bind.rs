//! Binds the admin sockets. Apart from serving, because sockets are bound before anything else starts.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::settings::Address;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A bound admin socket, not blocking, tied to no runtime yet.
#[derive(Debug)]
pub enum AdminListener {
    /// `IP:port`.
    Tcp(TcpListener),
    /// A unix socket, and the file to remove at the end.
    Unix(UnixListener, PathBuf),
}

impl AdminListener {
    /// Where it listens; the real port where 0 was asked for.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, path) => Ok(Address::Unix(path.clone())),
        }
    }
}

/// Binds an admin socket. A unix socket gets mode 0600; a file in its place is replaced when it is a socket that
/// nobody answers.
///
/// # Errors
/// Names the address, the cause and, where there is one, the way out.
pub fn bind(address: &Address) -> io::Result<AdminListener> {
    let bound = match address {
        Address::Tcp(addr) => TcpListener::bind(addr).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(AdminListener::Tcp(listener))
        }),
        Address::Unix(path) => bind_unix(path).map(|listener| AdminListener::Unix(listener, path.clone())),
    };
    bound.map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => ": is another svidecar running? set `admin.listen` to a free address",
            io::ErrorKind::NotFound => ": the directory must exist",
            _ => "",
        };
        io::Error::new(
            e.kind(),
            format!("cannot listen on `{address}` for the admin endpoint: {e}{hint}"),
        )
    })
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // The mode is set before listening: until then every connect is refused, whatever the umask was.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is in its place",
        ));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Somebody answers, or would if its queue were not full, or we may not even ask.
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) => Err(e),
    }
}
