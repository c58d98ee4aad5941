//! Confining the process, and telling of it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Started;
use crate::config::settings::{SandboxMode, Settings};
use crate::sandbox::plan::{Caution, Plan, Surroundings};
use crate::sandbox::{Confined, Part};
use crate::telemetry::metrics::Metrics;
use crate::yaml::{Diagnostic, Severity};

/// What the process is to be confined to. Blocking.
pub(super) fn plan(started: &Started) -> Plan {
    Plan::of(&started.settings, &started.config, &Surroundings::of_process())
}

/// What a confined process could still do harm by. Nothing where it is not confined anyway.
pub(super) fn cautions(plan: &Plan, settings: &Settings, config: &Path) -> Vec<Diagnostic> {
    if settings.sandbox == SandboxMode::Off {
        return Vec::new();
    }
    let file = config.display().to_string();
    let warn = |caution: Caution| {
        let mut warning = Diagnostic::of_file(&file, caution.message).with_help(caution.help);
        warning.severity = Severity::Warning;
        warning
    };
    plan.cautions().into_iter().map(warn).collect()
}

/// What is wrong with files that were read again by `settings`; and that it is the sandbox, where it is, as the files' own
/// permissions would show nothing. Blocking.
pub(super) fn explain(
    problems: Vec<Diagnostic>,
    granted: &Plan,
    settings: &Settings,
    config: &Path,
) -> Vec<Diagnostic> {
    if !problems.iter().any(Diagnostic::is_denied) {
        return problems;
    }
    let lacks = granted.unreadable(&Plan::of(settings, config, &Surroundings::of_process()));
    if lacks.is_empty() {
        return problems;
    }
    let lacks: Vec<_> = lacks.iter().map(ToString::to_string).collect();
    let help = format!(
        "the sandbox does not allow what no link led to when the process started ({}): restart it",
        lacks.join("; ")
    );
    let explained = |problem: Diagnostic| match problem.is_denied() {
        true => problem.with_help(help.as_str()),
        false => problem,
    };
    problems.into_iter().map(explained).collect()
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
