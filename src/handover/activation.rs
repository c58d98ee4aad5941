//! Sockets that a service manager has opened for us (systemd's socket activation: `sd_listen_fds(3)`).

use std::ffi::OsStr;
use std::io;

use rustix::net::sockopt;

use crate::config::settings::Address;
use crate::sys::bind::Listening;

/// Why a descriptor that was passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// Not a kind of socket that settings can name.
    #[error(
        "descriptor {0}, passed by the service manager, is no stream socket of TCP or with a path: in the `.socket` unit use \
         `ListenStream=` with `IP:port` or a path"
    )]
    Kind(usize),
    /// A connection, or a socket that listens to nobody.
    #[error(
        "descriptor {0}, passed by the service manager, does not listen: the `.socket` unit needs `Accept=no`"
    )]
    NotListening(usize),
    /// The system's.
    #[error("descriptor {0}, passed by the service manager: {1}")]
    System(usize, io::Error),
    /// Not a part of the protocol.
    #[error(
        "`LISTEN_FDS_FIRST_FD` is set, which no service manager does: unset it; descriptors are passed from 3 on"
    )]
    First,
}

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

/// Takes the sockets that `LISTEN_FDS` and `LISTEN_PID` announce, each under its own address, and removes both variables,
/// so that no child takes them for its own. None where nothing is announced to this process.
///
/// Call once, before anything else opens files. The names in `LISTEN_FDNAMES` do not matter: a socket's address says which
/// listener it is for.
///
/// # Errors
/// See [`ActivationError`].
pub fn inherited() -> Result<Vec<(Address, Listening)>, ActivationError> {
    if !is_for_us(std::env::var_os("LISTEN_PID").as_deref(), std::process::id()) {
        return Ok(Vec::new());
    }
    if std::env::var_os("LISTEN_FDS_FIRST_FD").is_some() {
        return Err(ActivationError::First);
    }
    let mut passed = listenfd::ListenFd::from_env();
    let mut all = Vec::with_capacity(passed.len());
    for index in 0..passed.len() {
        let number = FIRST.saturating_add(index);
        let socket = match (passed.take_unix_listener(index), passed.take_tcp_listener(index)) {
            (Ok(Some(listener)), _) => Listening::Unix(listener),
            (_, Ok(Some(listener))) => Listening::Tcp(listener),
            _ => return Err(ActivationError::Kind(number)),
        };
        let address = identify(&socket)
            .map_err(|error| ActivationError::System(number, error))?
            .ok_or(ActivationError::Kind(number))?;
        let listens = match &socket {
            Listening::Tcp(listener) => sockopt::socket_acceptconn(listener),
            Listening::Unix(listener) => sockopt::socket_acceptconn(listener),
        };
        match listens {
            Ok(true) => all.push((address, socket)),
            Ok(false) => return Err(ActivationError::NotListening(number)),
            Err(error) => return Err(ActivationError::System(number, error.into())),
        }
    }
    Ok(all)
}

/// Whether what is announced is for this process: without its number it is somebody else's, who passed the variables on.
fn is_for_us(announced: Option<&OsStr>, process: u32) -> bool {
    announced
        .and_then(OsStr::to_str)
        .is_some_and(|number| number.parse() == Ok(process))
}

/// The address that a socket is bound to; none for a unix socket without a path.
fn identify(socket: &Listening) -> io::Result<Option<Address>> {
    Ok(match socket {
        Listening::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            Some(Address::Tcp(listener.local_addr()?))
        }
        Listening::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            address.as_pathname().map(|path| Address::Unix(path.to_owned()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::bind;

    #[test]
    fn only_what_names_this_process_is_taken() {
        for (announced, ours) in [
            (None, false),
            (Some(""), false),
            (Some("8"), false),
            (Some("7"), true),
        ] {
            assert_eq!(is_for_us(announced.map(OsStr::new), 7), ours, "{announced:?}");
        }
    }

    #[test]
    fn a_socket_is_called_by_its_own_address() {
        let tcp = bind::tcp(([127, 0, 0, 1], 0).into()).unwrap();
        let address = Address::Tcp(tcp.tcp_address().unwrap());
        assert_eq!(identify(&tcp).unwrap(), Some(address));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let unix = bind::unix(&path, 0o600).unwrap();
        assert_eq!(identify(&unix).unwrap(), Some(Address::Unix(path)));
    }
}
