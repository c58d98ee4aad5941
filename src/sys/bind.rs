//! Listening sockets as values: bound before anything else starts, or handed over by another process, and tied to no
//! runtime until a worker takes a copy.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("cannot listen on `{0}`: another process is serving there; stop it or choose another address")]
    InUse(String),
    /// Something that is no socket is in the way; it is left alone.
    #[error("cannot listen on `{}`: a file that is not a socket is in the way; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on `{address}`: {source}{hint}")]
    Io {
        /// The address asked for.
        address: String,
        /// What the system said.
        source: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
}

impl BindError {
    /// The error for what the system said of an address.
    #[must_use]
    pub fn new(address: String, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => return Self::InUse(address),
            io::ErrorKind::NotFound => "; the folder must exist",
            io::ErrorKind::PermissionDenied => "; ports below 1024 and foreign folders need more rights",
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
            _ => "",
        };
        Self::Io {
            address,
            source,
            hint,
        }
    }
}

/// A bound socket, not blocking.
#[derive(Debug)]
pub enum Listening {
    /// `IP:port`.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl Listening {
    /// Another descriptor of the same socket: they share one queue of waiting connections, which is lost only when the
    /// last of them is closed.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }

    /// The bound TCP address, with the real port where 0 was asked for.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// Binds a TCP socket.
///
/// # Errors
/// See [`BindError`].
pub fn tcp(address: SocketAddr) -> Result<Listening, BindError> {
    let bound = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A restart must not wait for the connections of the last run to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bound()
        .map(Listening::Tcp)
        .map_err(|e| BindError::new(address.to_string(), e))
}

/// Binds a unix socket at `path` with the file mode `mode`. A socket file that nobody answers on, left behind by a
/// process that is gone, is replaced.
///
/// The mode is set before the socket takes connections, so that no moment exists in which others may connect.
///
/// # Errors
/// When a process serves there, something that is no socket is in the way, or the system refuses.
pub fn unix(path: &Path, mode: u32) -> Result<Listening, BindError> {
    unix_listener(path, mode).map(Listening::Unix)
}

/// As [`unix`], for those who know no other kind.
///
/// # Errors
/// As [`unix`].
pub fn unix_listener(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    let address = || format!("unix://{}", path.display());
    let failed = |e| BindError::new(address(), e);
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if answers(path).map_err(failed)? => return Err(BindError::InUse(address())),
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let bound = || -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    bound().map_err(failed)
}

/// The file of a unix socket of ours. It is told from a later one at the same path, which is not ours to remove.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file of the socket that has just been bound at `path`.
    ///
    /// # Errors
    /// The system's; or what is there is no socket.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        if !found.file_type().is_socket() {
            return Err(io::Error::other("what is there is no socket"));
        }
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Removes it, so that it does not look as if somebody listened. Call this while the socket is still open: after
    /// that, another file may get its number.
    pub fn remove(&self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours {
            // Where it stays, the next start finds that nobody answers, and replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether a process listens on the socket file.
fn answers(path: &Path) -> io::Result<bool> {
    // Not blocking: a connect to a full queue would wait for as long as the other process does not accept.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // Its queue is full: somebody is there.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_unix_socket_replaces_only_what_nobody_answers_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = unix(&path, 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(unix(&path, 0o600), Err(BindError::InUse(_))));
        drop(first);
        drop(unix(&path, 0o666).unwrap());
        assert_eq!(mode(&path), 0o666);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(unix(&path, 0o600), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn only_the_file_of_our_own_socket_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let ours = unix(&path, 0o600).unwrap();
        let file = SocketFile::of(&path).unwrap();
        // Somebody else takes the place.
        std::fs::remove_file(&path).unwrap();
        let theirs = unix(&path, 0o600).unwrap();
        file.remove();
        assert!(path.exists());
        assert!(SocketFile::of(dir.path()).is_err());
        SocketFile::of(&path).unwrap().remove();
        assert!(!path.exists());
        drop((ours, theirs));
    }

    #[test]
    fn a_missing_folder_is_said_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = unix(&dir.path().join("no/such.sock"), 0o600)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no/such.sock`") && error.contains("the folder must exist"),
            "{error}"
        );
    }

    #[test]
    fn a_taken_port_is_said_to_be_taken() {
        let first = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.tcp_address().unwrap();
        assert!(matches!(tcp(taken), Err(BindError::InUse(address)) if address == taken.to_string()));
    }
}
