//! What is in force of the config file: one snapshot, replaced as a whole when the file is read again.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use crate::config::settings::{Listener, Settings};
use crate::connection::ListenerContext;
use crate::tls::configs::Features;
use crate::worker::ListenerSet;

/// What is in force of the config file.
pub(super) struct Running {
    /// As the file says it, but for limits that the system lowers.
    pub(super) settings: Settings,
    /// In the order of the settings. Their sockets are with [`super::doors`].
    pub(super) listeners: Vec<Arc<ListenerContext>>,
    /// What these listeners were before, as long as connections are open that came then.
    pub(super) past: Vec<Weak<Listener>>,
    /// Counts configs from 1 up in this process.
    pub(super) generation: u64,
    /// Since when.
    pub(super) since: SystemTime,
}

impl Running {
    /// What two ends may do beyond a handshake.
    pub(super) const fn features(&self) -> Features {
        features(&self.settings)
    }

    /// Each listener with its address, for a person.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self
            .listeners
            .iter()
            .map(|running| {
                let listener = &running.settings;
                format!("{}={}", listener.name, listener.listen)
            })
            .collect();
        names.join(" ")
    }
}

/// What two ends may do beyond a handshake, by these settings.
pub(super) const fn features(settings: &Settings) -> Features {
    Features {
        resumption: settings.resumption,
        renewal: settings.renewal,
    }
}

/// The listeners of a set, without their sockets.
pub(super) fn contexts(set: &ListenerSet) -> Vec<Arc<ListenerContext>> {
    set.iter().map(|bound| bound.context.clone()).collect()
}
