//! The unix socket of an embedded server.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("cannot listen on `{}`: another process is serving there; stop it or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is in the way; it is left alone.
    #[error("cannot listen on `{}`: a file that is not a socket is in the way; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on `{}`: {source}; the folder must exist and be writable", path.display())]
    Io {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Binds a unix socket at `path` with the file mode `mode`. A socket file that nobody answers on, left behind by a
/// process that is gone, is replaced. Needs a tokio runtime.
///
/// The mode is set before the socket takes connections, so that no moment exists in which others may connect.
///
/// # Errors
/// When a process serves there, something that is no socket is in the way, or the system refuses.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    let io_error = |source| BindError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {
            if answers(path).map_err(io_error)? {
                return Err(BindError::InUse(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(io_error)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error(e)),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(io_error)?;
    socket
        .bind(&SockAddr::unix(path).map_err(io_error)?)
        .map_err(io_error)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io_error)?;
    socket.listen(128).map_err(io_error)?;
    socket.set_nonblocking(true).map_err(io_error)?;
    UnixListener::from_std(socket.into()).map_err(io_error)
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

    #[tokio::test]
    async fn replaces_only_what_nobody_answers_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = bind(&path, 0o600).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(bind(&path, 0o600), Err(BindError::InUse(_))));
        drop(first);
        drop(bind(&path, 0o666).unwrap());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o666
        );
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path, 0o600), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
