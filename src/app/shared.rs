//! What the tasks of the control runtime share.

use std::sync::Arc;

use super::state::View;
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
    pub(super) view: Arc<View>,
}
