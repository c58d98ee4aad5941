//! Confining the process, and telling of it.

use serde_json::{Map, Value, json};

use super::{AppError, Started};
use crate::config::settings::SandboxMode;
use crate::sandbox::plan::{Plan, Surroundings};
use crate::sandbox::{self, Confined, Part};
use crate::telemetry::metrics::Metrics;

/// Confines this thread, and all that it starts later, to what the settings need.
///
/// # Errors
/// When the settings are strict, and this system lacks a part of it.
pub(super) fn apply(started: &Started) -> Result<Confined, AppError> {
    let settings = &started.settings;
    let plan = Plan::of(settings, &started.config, &Surroundings::of_process());
    Ok(sandbox::apply(settings.sandbox, plan)?)
}

/// One line about it.
pub(super) fn tell(confined: &Confined) {
    let (mode, landlock_abi) = (confined.mode.as_str(), confined.landlock_abi);
    let missing = (!confined.missing.is_empty()).then(|| confined.missing.join("; "));
    match (confined.mode, missing) {
        (SandboxMode::Off, None) => tracing::info!(mode, "the process is not confined"),
        (_, None) => tracing::info!(mode, landlock_abi, holds = %confined, "the process is confined"),
        (_, Some(missing)) => tracing::warn!(
            mode, landlock_abi, holds = %confined, missing,
            "the process is confined in part"
        ),
    }
}

/// Which parts hold, as metrics.
pub(super) fn count(confined: &Confined, metrics: &Metrics) {
    for part in Part::ALL {
        metrics.set_sandbox(part.as_str(), confined.enforces(part));
    }
}

/// For the status.
pub(super) fn show(confined: &Confined) -> Value {
    let enforced: Map<String, Value> = Part::ALL
        .iter()
        .map(|part| (part.as_str().to_owned(), confined.enforces(*part).into()))
        .collect();
    json!({
        "mode": confined.mode.as_str(),
        "landlock_abi": confined.landlock_abi,
        "enforced": enforced,
        "missing": confined.missing,
    })
}
