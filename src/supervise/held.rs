//! What the supervisor holds for its children: the sockets, and the right to write the audit log. The file of a unix socket
//! that it bound goes with its last copy.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::{AppError, wanted_sockets};
use crate::audit::Lock;
use crate::config::settings::{Address, Settings};
use crate::sys::bind::{Listening, SocketFile};

/// Removed with its last owner.
#[derive(Debug)]
struct OwnedFile(SocketFile);

impl Drop for OwnedFile {
    fn drop(&mut self) {
        self.0.remove();
    }
}

#[derive(Debug)]
struct Held {
    // First, so that it is dropped while the socket is open: see [`SocketFile::remove`].
    file: Option<Arc<OwnedFile>>,
    socket: Listening,
    /// Whether it may be a listener's, which come and go while a child runs; the admin endpoint's stay.
    of_listener: bool,
}

impl Held {
    fn new(address: &Address, socket: Listening, of_listener: bool) -> Self {
        let file = match address {
            Address::Unix(path) => SocketFile::of(path).ok().map(|file| Arc::new(OwnedFile(file))),
            Address::Tcp(_) => None,
        };
        Self {
            file,
            socket,
            of_listener,
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.clone(),
            socket: self.socket.try_clone()?,
            of_listener: self.of_listener,
        })
    }
}

/// Listening sockets under the addresses that settings call them by, and the right to write the audit log.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    sockets: HashMap<Address, Held>,
    audit_lock: Option<(PathBuf, Arc<Lock>)>,
}

impl Sockets {
    /// Those that a service manager has opened, whose files are its own.
    pub(super) fn passed(sockets: Vec<(Address, Listening)>) -> Self {
        let held = |(address, socket)| {
            (
                address,
                Held {
                    file: None,
                    socket,
                    of_listener: true,
                },
            )
        };
        Self {
            sockets: sockets.into_iter().map(held).collect(),
            audit_lock: None,
        }
    }

    /// What the settings ask for: copies of those that are held, and others newly bound.
    ///
    /// # Errors
    /// The first that cannot be bound. What was bound before it is closed again.
    pub(super) fn for_settings(&self, settings: &Settings) -> Result<Self, AppError> {
        let mut all = HashMap::new();
        for wanted in wanted_sockets(settings) {
            let of_listener = wanted.is_of_listener();
            let mut held = match self.sockets.get(&wanted.address) {
                Some(held) => held.try_clone()?,
                None => Held::new(&wanted.address, wanted.bind()?, of_listener),
            };
            held.of_listener = of_listener;
            all.insert(wanted.address, held);
        }
        let audit_lock = settings.audit.as_ref().map(|audit| match &self.audit_lock {
            Some((path, lock)) if *path == audit.path => Ok((path.clone(), lock.clone())),
            _ => Lock::take(audit).map(|lock| (audit.path.clone(), Arc::new(lock))),
        });
        Ok(Self {
            sockets: all,
            audit_lock: audit_lock.transpose()?,
        })
    }

    /// Closes the sockets; the audit log stays ours for as long as a child may write it.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }

    /// The audit log's path and the right to write it.
    pub(super) fn audit_lock(&self) -> Option<(&Path, &Lock)> {
        let (path, lock) = self.audit_lock.as_ref()?;
        Some((path, lock))
    }

    /// The listeners of the child in charge from now: those that are held are kept, and those that it bound itself are held, too.
    pub(super) fn replace(&mut self, now: Vec<(Address, Listening)>) {
        let all = now.into_iter().map(|(address, socket)| {
            let held = self
                .sockets
                .remove(&address)
                .unwrap_or_else(|| Held::new(&address, socket, true));
            (address, held)
        });
        let all: HashMap<_, _> = all.collect();
        self.sockets.retain(|_, held| !held.of_listener);
        self.sockets.extend(all);
    }

    /// An address that these settings do not name.
    pub(super) fn stray(&self, settings: &Settings) -> Option<&Address> {
        let wanted = wanted_sockets(settings);
        self.sockets
            .keys()
            .find(|address| !wanted.iter().any(|wanted| wanted.address == **address))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Address, &Listening)> {
        self.sockets.iter().map(|(address, held)| (address, &held.socket))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::config::{Environment, check};
    use crate::sys::bind;

    fn settings(folder: &Path, listeners: &[&str]) -> Settings {
        let mut text = String::from("identity: { socket: unix:///a }\noutbound:\n");
        for name in listeners {
            text += &format!(
                "  - name: {name}\n    listen: unix://{}/{name}\n    connect: 127.0.0.1:1\n    \
                 peer: [\"spiffe://example.org/**\"]\n",
                folder.display()
            );
        }
        let environment = Environment {
            endpoint_socket: None,
            cores: 1,
        };
        check(&text, "config", folder, &environment).unwrap().0
    }

    #[test]
    fn a_socket_stays_bound_while_any_settings_want_it_and_its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let first = Sockets::default()
            .for_settings(&settings(folder.path(), &["a", "b"]))
            .unwrap();
        // An upgrade that wants others, and fails.
        let other = first.for_settings(&settings(folder.path(), &["b", "c"])).unwrap();
        assert!(path("c").exists());
        drop(other);
        assert!(!path("c").exists() && path("b").exists());
        // One that comes through.
        let second = first.for_settings(&settings(folder.path(), &["b", "c"])).unwrap();
        let waiting = UnixStream::connect(path("b")).unwrap();
        drop(first);
        assert!(!path("a").exists());
        let (_, socket) = second
            .iter()
            .find(|(a, _)| **a == Address::Unix(path("b")))
            .unwrap();
        let Listening::Unix(listener) = socket else {
            panic!()
        };
        listener.accept().unwrap();
        drop((waiting, second));
        assert!(!path("b").exists() && !path("c").exists());
    }

    #[test]
    fn what_cannot_be_bound_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let taken = bind::unix(&folder.path().join("b"), 0o600).unwrap();
        let error = Sockets::default().for_settings(&settings(folder.path(), &["a", "b"]));
        assert!(error.unwrap_err().to_string().contains("`b`"));
        assert!(!folder.path().join("a").exists());
        drop(taken);
    }

    #[test]
    fn what_the_child_bound_is_held_and_what_it_gave_up_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = |name: &str| Address::Unix(folder.path().join(name));
        let mut held = Sockets::default()
            .for_settings(&settings(folder.path(), &["a", "b"]))
            .unwrap();
        let copy = |held: &Sockets, name: &str| {
            held.sockets
                .get(&address(name))
                .unwrap()
                .socket
                .try_clone()
                .unwrap()
        };
        let b = copy(&held, "b");
        let c = bind::unix(&folder.path().join("c"), 0o600).unwrap();
        held.replace(vec![(address("b"), b), (address("c"), c)]);
        let exists = |name: &str| folder.path().join(name).exists();
        assert!(!exists("a") && exists("b") && exists("c"));
        assert_eq!(held.stray(&settings(folder.path(), &["b"])), Some(&address("c")));
        drop(held);
        assert!(!exists("b") && !exists("c"));
    }

    #[test]
    fn a_passed_sockets_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let socket = bind::unix(&path, 0o600).unwrap();
        drop(Sockets::passed(vec![(Address::Unix(path.clone()), socket)]));
        assert!(path.exists());
    }
}
