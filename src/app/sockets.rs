//! The sockets that the settings ask for: taken from those that are open already, or bound.

use std::collections::HashMap;
use std::sync::Arc;

use super::AppError;
use crate::config::settings::{Address, Listener, Settings};
use crate::sys::bind::{self, BindError, Listening};

/// Who may connect to a unix socket that an application connects to: everybody who can reach its folder. The pod's
/// containers often run as different users.
const APPLICATION_SOCKET_MODE: u32 = 0o666;
/// Who may connect to the admin socket: our own user.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// Sockets that are open already, each under the address that settings call it by: another process handed them over,
/// or listeners that run have them.
#[derive(Debug, Default)]
pub struct OpenSockets(HashMap<Address, Listening>);

impl OpenSockets {
    /// Adds one; of two for the same address the later one is kept.
    pub fn add(&mut self, address: Address, socket: Listening) {
        self.0.insert(address, socket);
    }

    /// The socket of this address, bound with the mode `mode` (of a unix socket's file) where none is open.
    ///
    /// # Errors
    /// See [`BindError`].
    fn take_or_bind(&mut self, address: &Address, mode: u32) -> Result<Listening, BindError> {
        match (self.0.remove(address), address) {
            (Some(open), _) => Ok(open),
            (None, Address::Tcp(address)) => bind::tcp(*address),
            (None, Address::Unix(path)) => bind::unix(path, mode),
        }
    }
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
