//! The sockets that the settings ask for: taken from those that are open already, or bound.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::AppError;
use crate::audit::Lock;
use crate::config::settings::{Address, Audit, Listener, Settings};
use crate::sys::bind::{self, BindError, Listening};

/// Who may connect to a unix socket that an application connects to: everybody who can reach its folder. The pod's
/// containers often run as different users.
const APPLICATION_SOCKET_MODE: u32 = 0o666;
/// Who may connect to the admin socket: our own user.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// Sockets that are open already, each under the address that settings call it by: another process handed them over,
/// or listeners that run have them.
#[derive(Debug, Default)]
pub struct OpenSockets {
    sockets: HashMap<Address, Listening>,
    /// The right to write the audit log at this path, which the process that handed over the sockets shares with us.
    audit_lock: Option<(PathBuf, Lock)>,
    /// Those that a service manager keeps open, whatever we do.
    passed: HashSet<Address>,
}

impl FromIterator<(Address, Listening)> for OpenSockets {
    fn from_iter<T: IntoIterator<Item = (Address, Listening)>>(sockets: T) -> Self {
        Self {
            sockets: sockets.into_iter().collect(),
            audit_lock: None,
            passed: HashSet::new(),
        }
    }
}

impl OpenSockets {
    /// The addresses, in no order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.sockets.keys()
    }

    /// Adds one; of two for the same address the later one is kept.
    pub fn add(&mut self, address: Address, socket: Listening) {
        self.sockets.insert(address, socket);
    }

    /// With these kept open by a service manager: a config that left one of them out would have callers wait for ever.
    #[must_use]
    pub fn with_passed(mut self, passed: impl IntoIterator<Item = Address>) -> Self {
        self.passed = passed.into_iter().collect();
        self
    }

    /// Those that a service manager keeps open.
    pub(super) fn passed(self) -> HashSet<Address> {
        self.passed
    }

    /// With the right to write the audit log at this path, which others share.
    #[must_use]
    pub fn sharing(mut self, audit_lock: Option<(PathBuf, Lock)>) -> Self {
        self.audit_lock = audit_lock;
        self
    }

    /// The right to write this audit log, where it is shared with us.
    pub(super) fn audit_lock(&mut self, settings: &Audit) -> Option<Lock> {
        let taken = self.audit_lock.take_if(|(path, _)| *path == settings.path);
        taken.map(|(_, lock)| lock)
    }

    /// The socket of this address, bound with the mode `mode` (of a unix socket's file) where none is open.
    ///
    /// # Errors
    /// See [`BindError`].
    fn take_or_bind(&mut self, address: &Address, mode: u32) -> Result<Listening, BindError> {
        match (self.sockets.remove(address), address) {
            (Some(open), _) => Ok(open),
            (None, Address::Tcp(address)) => bind::tcp(*address),
            (None, Address::Unix(path)) => bind::unix(path, mode),
        }
    }
}

/// A socket that the settings ask for.
#[derive(Clone, Debug)]
pub struct WantedSocket {
    /// Where.
    pub address: Address,
    /// The listener's name; none for the admin endpoint.
    listener: Option<Arc<str>>,
}

impl WantedSocket {
    /// Whether it is a listener's, and not the admin endpoint's.
    #[must_use]
    pub const fn is_of_listener(&self) -> bool {
        self.listener.is_some()
    }

    /// Binds it.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn bind(&self) -> Result<Listening, AppError> {
        let mode = if self.listener.is_some() {
            APPLICATION_SOCKET_MODE
        } else {
            ADMIN_SOCKET_MODE
        };
        OpenSockets::default()
            .take_or_bind(&self.address, mode)
            .map_err(|error| match &self.listener {
                Some(name) => AppError::Listener(name.clone(), error),
                None => AppError::Admin(error),
            })
    }
}

/// The sockets that the settings ask for, but for those whose port the system is to choose: nobody else could name them.
#[must_use]
pub fn wanted_sockets(settings: &Settings) -> Vec<WantedSocket> {
    let listeners = settings.listeners.iter().map(|listener| WantedSocket {
        address: listener.listen.clone(),
        listener: Some(listener.name.clone()),
    });
    let admin = settings.admin.iter().flat_map(|admin| {
        let probes = admin.probes.map(Address::Tcp);
        [Some(admin.listen.clone()), probes].into_iter().flatten()
    });
    let admin = admin.map(|address| WantedSocket {
        address,
        listener: None,
    });
    listeners
        .chain(admin)
        .filter(|wanted| !matches!(&wanted.address, Address::Tcp(address) if address.port() == 0))
        .collect()
}

/// Every socket that the settings ask for.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) listeners: Vec<(Arc<Listener>, Listening)>,
    pub(super) admin: Option<Listening>,
    pub(super) probes: Option<Listening>,
}

/// Takes or binds all of them. Those that are open and that nothing asks for stay with the caller.
///
/// # Errors
/// The first that cannot be bound.
pub(super) fn all(settings: &Settings, open: &mut OpenSockets) -> Result<Sockets, AppError> {
    let listeners = listeners(settings, open)?;
    let mut of_admin = |address: Option<Address>| {
        address
            .map(|address| open.take_or_bind(&address, ADMIN_SOCKET_MODE))
            .transpose()
            .map_err(AppError::Admin)
    };
    let admin = settings.admin.as_ref();
    Ok(Sockets {
        listeners,
        admin: of_admin(admin.map(|admin| admin.listen.clone()))?,
        probes: of_admin(admin.and_then(|admin| admin.probes).map(Address::Tcp))?,
    })
}

/// Takes or binds those of the listeners, in the order of the settings.
///
/// # Errors
/// The first that cannot be bound.
pub(super) fn listeners(
    settings: &Settings,
    open: &mut OpenSockets,
) -> Result<Vec<(Arc<Listener>, Listening)>, AppError> {
    let take = |listener: &Arc<Listener>| {
        open.take_or_bind(&listener.listen, APPLICATION_SOCKET_MODE)
            .map(|socket| (listener.clone(), socket))
            .map_err(|error| AppError::Listener(listener.name.clone(), error))
    };
    settings.listeners.iter().map(take).collect()
}

/// Binds the socket of one listener.
///
/// # Errors
/// See [`BindError`].
pub(super) fn bind(listener: &Listener) -> Result<Listening, BindError> {
    OpenSockets::default().take_or_bind(&listener.listen, APPLICATION_SOCKET_MODE)
}
