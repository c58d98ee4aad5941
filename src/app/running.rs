//! What is in force of the config file: one snapshot, replaced as a whole when the file is read again.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::settings::{Listener, Settings};
use crate::tls::configs::Features;
use crate::worker::{BoundListener, ListenerSet};

/// What is in force of the config file.
pub(super) struct Running {
    /// As the file says it, but for limits that the system lowers.
    pub(super) settings: Settings,
    /// In the order of the settings.
    pub(super) listeners: ListenerSet,
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

    /// The running listener that `listener` is the same as.
    pub(super) fn same(&self, listener: &Listener) -> Option<&Arc<BoundListener>> {
        self.listeners
            .iter()
            .find(|running| *running.context.settings == *listener)
    }

    /// Each listener with its address, for a person.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self
            .listeners
            .iter()
            .map(|running| {
                let listener = &running.context.settings;
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
