//! What the tasks of the control runtime share.

use std::sync::Arc;

use tokio::sync::watch;

use super::state::View;
use crate::audit::AuditLog;
use crate::clock::SharedClock;
use crate::config::settings::Settings;
use crate::connection::live::Live;
use crate::lifecycle::readiness::Readiness;
use crate::telemetry::metrics::{ListenerMetrics, Metrics};

/// What the tasks of the control runtime share.
pub(super) struct Control {
    pub(super) settings: Settings,
    pub(super) clock: SharedClock,
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    /// In the order of the settings' listeners.
    pub(super) listeners: Vec<Arc<ListenerMetrics>>,
    /// Changed when a signal asks for everything to be read again.
    pub(super) reload_asked: watch::Sender<()>,
    pub(super) view: Arc<View>,
    /// The audit log, where there is one.
    pub(super) audit: Option<AuditLog>,
}
