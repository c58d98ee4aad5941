//! What the tasks of the control runtime share.

use std::collections::HashMap;
use std::sync::Arc;

use super::running::Running;
use super::state::View;
use crate::audit::Upstreams;
use crate::clock::SharedClock;
use crate::config::settings::{Listener, Settings};
use crate::connection::live::Live;
use crate::lifecycle::readiness::Readiness;
use crate::telemetry::metrics::Metrics;

/// Where each listener's connections go.
pub(super) fn upstreams(listeners: &[Arc<Listener>]) -> HashMap<Arc<str>, Arc<str>> {
    listeners
        .iter()
        .map(|listener| (listener.name.clone(), listener.upstream().into()))
        .collect()
}

/// What the tasks of the control runtime share.
pub(super) struct Control {
    pub(super) clock: SharedClock,
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    pub(super) view: Arc<View>,
    /// Where each listener's connections go, for the audit log.
    pub(super) upstreams: Upstreams,
}

impl Control {
    /// What is in force of the config file.
    pub(super) fn running(&self) -> Arc<Running> {
        self.view.running.load_full()
    }

    /// Tells the audit log where connections go, those of removed listeners among them.
    pub(super) fn set_upstreams(&self, settings: &Settings) {
        let listeners = self.listeners_to_serve(&settings.listeners);
        self.upstreams.store(Arc::new(upstreams(&listeners)));
    }
}
