//! What the supervisor holds for its children: the sockets, and the right to write the audit log. The file of a unix socket
//! that it bound goes with its last copy.
//!
//! A child's word is not enough for a socket to be held: a child may be in a peer's hands, and what is held is handed to the
//! next one and may have its file removed. Sockets that a service manager has passed are never let go of before the end, since
//! its copy stays open, too, and the address could not be bound again.

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
    passed: Arc<HashMap<Address, Listening>>,
    audit_lock: Option<(PathBuf, Arc<Lock>)>,
}

impl Sockets {
    /// Those that a service manager has opened, whose files are its own.
    pub(super) fn passed(sockets: Vec<(Address, Listening)>) -> Self {
        Self {
            sockets: HashMap::new(),
            passed: Arc::new(sockets.into_iter().collect()),
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
                None => match self.passed.get(&wanted.address) {
                    Some(passed) => Held {
                        file: None,
                        socket: passed.try_clone()?,
                        of_listener,
                    },
                    None => Held::new(&wanted.address, wanted.bind()?, of_listener),
                },
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
            passed: self.passed.clone(),
            audit_lock: audit_lock.transpose()?,
        })
    }

    /// Closes the sockets, but for those that were passed; the audit log stays ours for as long as a child may write it.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }

    /// Closes those that were passed, too.
    pub(super) fn close_all(&mut self) {
        self.sockets.clear();
        self.passed = Arc::default();
    }

    /// The audit log's path and the right to write it.
    pub(super) fn audit_lock(&self) -> Option<(&Path, &Lock)> {
        let (path, lock) = self.audit_lock.as_ref()?;
        Some((path, lock))
    }

    /// The listeners of a child from now: of those that are held, the ones that it names are kept, and one that it bound itself
    /// is held, too, where the `settings`, as they are read from the file, have it and the socket is bound where the child
    /// says. Returns the first address that is not held for want of that.
    pub(super) fn replace(
        &mut self,
        now: Vec<(Address, Listening)>,
        settings: Option<&Settings>,
    ) -> Option<Address> {
        let (mut all, mut refused) = (HashMap::new(), None);
        for (address, socket) in now {
            let is_named =
                || settings.is_some_and(|settings| settings.listeners.iter().any(|it| it.listen == address));
            let held = match self.sockets.remove(&address) {
                Some(held) => Some(held),
                None if is_named() && is_bound_to(&socket, &address) => {
                    Some(Held::new(&address, socket, true))
                }
                None => None,
            };
            match held {
                Some(held) => {
                    all.insert(address, held);
                }
                None => refused = refused.or(Some(address)),
            }
        }
        self.sockets.retain(|_, held| !held.of_listener);
        self.sockets.extend(all);
        refused
    }

    /// An address that was passed and that these settings do not name.
    pub(super) fn stray(&self, settings: &Settings) -> Option<&Address> {
        let wanted = wanted_sockets(settings);
        self.passed
            .keys()
            .find(|address| !wanted.iter().any(|wanted| wanted.address == **address))
    }

    /// The addresses of the sockets that were passed.
    pub(super) fn passed_addresses(&self) -> impl Iterator<Item = &Address> {
        self.passed.keys()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Address, &Listening)> {
        self.sockets.iter().map(|(address, held)| (address, &held.socket))
    }
}

/// Whether it is what was bound at this address.
fn is_bound_to(socket: &Listening, address: &Address) -> bool {
    match (socket, address) {
        (Listening::Tcp(listener), Address::Tcp(address)) => {
            listener.local_addr().is_ok_and(|bound| bound == *address)
        }
        (Listening::Unix(listener), Address::Unix(path)) => {
            let bound = listener.local_addr();
            bound.is_ok_and(|bound| bound.as_pathname() == Some(path))
        }
        _ => false,
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
        let named = settings(folder.path(), &["b", "c"]);
        let refused = held.replace(vec![(address("b"), b), (address("c"), c)], Some(&named));
        let exists = |name: &str| folder.path().join(name).exists();
        assert!(refused.is_none() && !exists("a") && exists("b") && exists("c"));
        drop(held);
        assert!(!exists("b") && !exists("c"));
    }

    #[test]
    fn a_childs_word_alone_has_nothing_held_and_no_file_removed() {
        let folder = tempfile::tempdir().unwrap();
        let address = |name: &str| Address::Unix(folder.path().join(name));
        let named = settings(folder.path(), &["a", "b", "file"]);
        let mut held = Sockets::default()
            .for_settings(&settings(folder.path(), &["a"]))
            .unwrap();
        let mut refused = |name: &str, socket: &Listening, settings: Option<&Settings>| {
            let told = vec![
                (address("a"), socket.try_clone().unwrap()),
                (address(name), socket.try_clone().unwrap()),
            ];
            let refused = held.replace(told, settings);
            assert_eq!(held.sockets.len(), 1, "{name}");
            refused
        };
        let elsewhere = bind::unix(&folder.path().join("elsewhere"), 0o600).unwrap();
        std::fs::write(folder.path().join("file"), "precious").unwrap();
        // No settings name it; it is bound elsewhere; it is no socket at all.
        assert_eq!(
            refused("elsewhere", &elsewhere, Some(&named)),
            Some(address("elsewhere"))
        );
        assert_eq!(refused("b", &elsewhere, Some(&named)), Some(address("b")));
        assert_eq!(refused("file", &elsewhere, Some(&named)), Some(address("file")));
        let b = bind::unix(&folder.path().join("b"), 0o600).unwrap();
        assert_eq!(
            refused("b", &b, None),
            Some(address("b")),
            "the config cannot be read"
        );
        drop(held);
        for name in ["elsewhere", "file", "b"] {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_passed_socket_can_be_had_again_and_must_stay_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let kept = bind::unix(&path, 0o600).unwrap();
        let passed = Sockets::passed(vec![(Address::Unix(path.clone()), kept.try_clone().unwrap())]);
        let named = settings(folder.path(), &["a"]);
        let mut first = passed.for_settings(&named).unwrap();
        assert_eq!(
            first.stray(&settings(folder.path(), &["b"])),
            Some(&Address::Unix(path))
        );
        first.close();
        assert_eq!(first.iter().count(), 0);
        assert_eq!(first.for_settings(&named).unwrap().iter().count(), 1);
        first.close_all();
        assert!(first.for_settings(&named).is_err(), "the service manager has it");
        drop(kept);
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
