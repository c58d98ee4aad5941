//! Limits, open connections, workers, TLS, the sandbox.

use std::time::Duration;

use super::{Context, duration_field, duration_node};
use crate::config::settings::{Limits, OnChange, OpenConnections, SandboxMode};
use crate::yaml::{Fields, Findings, Value};

/// Threads by default, even where more cores are at hand: a sidecar is the application's guest.
const DEFAULT_MAX_WORKERS: usize = 4;

pub(super) const LIMITS: &[&str] = &[
    "max_connections",
    "max_handshakes",
    "max_handshakes_per_source",
    "handshake_timeout",
    "connect_timeout",
    "idle_timeout",
    "drain_timeout",
];
pub(super) const OPEN_CONNECTIONS: &[&str] = &[
    "on_policy_change",
    "on_bundle_change",
    "on_identity_change",
    "on_expiry",
];
pub(super) const TLS: &[&str] = &["resumption", "renewal"];

const MILLISECOND: Duration = Duration::from_millis(1);
const HUNDREDTH: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(31 * 86_400);

pub(super) fn limits(top: &Fields<'_>, findings: &mut Findings) -> Limits {
    let mut limits = Limits::default();
    let Some(fields) = top
        .get("limits")
        .and_then(|node| Fields::of(node, "limits", LIMITS, findings))
    else {
        return limits;
    };
    let count = |name, findings: &mut Findings| {
        fields
            .integer(name, 1, 1_000_000, findings)
            .and_then(|number| usize::try_from(number).ok())
    };
    if let Some(number) = count("max_connections", findings) {
        limits.max_connections = number;
        limits.max_handshakes = limits.max_handshakes.min(number);
    }
    if let Some(number) = count("max_handshakes", findings) {
        if number > limits.max_connections {
            let place = fields
                .get("max_handshakes")
                .map(|node| node.place)
                .unwrap_or_default();
            let message = format!(
                "`limits.max_handshakes` is above `max_connections` ({})",
                limits.max_connections
            );
            findings.error_with_help(
                place,
                message,
                "a connection in its handshake counts as a connection",
            );
        }
        limits.max_handshakes = number;
    }
    limits.max_handshakes_per_source = count("max_handshakes_per_source", findings);
    let times = [
        (
            "handshake_timeout",
            &mut limits.handshake_timeout,
            (HUNDREDTH, HOUR),
        ),
        ("connect_timeout", &mut limits.connect_timeout, (HUNDREDTH, HOUR)),
        ("idle_timeout", &mut limits.idle_timeout, (HUNDREDTH, MONTH)),
        ("drain_timeout", &mut limits.drain_timeout, (MILLISECOND, DAY)),
    ];
    for (name, setting, bounds) in times {
        if let Some(duration) = duration_field(&fields, name, bounds, findings) {
            *setting = duration;
        }
    }
    limits
}

pub(super) fn open_connections(top: &Fields<'_>, findings: &mut Findings) -> OpenConnections {
    let mut settings = OpenConnections::default();
    let node = top.get("open_connections");
    let Some(fields) = node.and_then(|node| Fields::of(node, "open_connections", OPEN_CONNECTIONS, findings))
    else {
        return settings;
    };
    let changes = [
        ("on_policy_change", &mut settings.on_policy_change),
        ("on_bundle_change", &mut settings.on_bundle_change),
        ("on_identity_change", &mut settings.on_identity_change),
        ("on_expiry", &mut settings.on_expiry),
    ];
    for (name, setting) in changes {
        if let Some(change) = on_change(&fields, name, findings) {
            *setting = change;
        }
    }
    settings
}

/// `close`, `log` or `{ drain: DURATION }`.
fn on_change(fields: &Fields<'_>, name: &str, findings: &mut Findings) -> Option<OnChange> {
    let node = fields.get(name)?;
    let path = fields.name_of(name);
    match &node.value {
        Value::Map(_) => {
            let drain = Fields::of(node, &path, &["drain"], findings)?;
            let node = drain.require("drain", "30s", findings)?;
            duration_node(node, &format!("{path}.drain"), (MILLISECOND, DAY), findings).map(OnChange::Drain)
        }
        Value::Text(text) if text == "drain" => {
            findings.error_with_help(
                node.place,
                format!("`{path}`: drain for how long?"),
                "write `{ drain: 30s }`",
            );
            None
        }
        _ => fields.word(
            name,
            &[("close", OnChange::Close), ("log", OnChange::Log)],
            findings,
        ),
    }
}

pub(super) fn workers(top: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> usize {
    top.integer("workers", 1, 256, findings)
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or_else(|| context.environment.cores.clamp(1, DEFAULT_MAX_WORKERS))
}

pub(super) fn sandbox(top: &Fields<'_>, findings: &mut Findings) -> SandboxMode {
    top.word("sandbox", SandboxMode::WORDS, findings)
        .unwrap_or_default()
}

/// Whether TLS sessions are resumed, and whether connections between svidecars are renewed: on, unless the file says
/// otherwise.
pub(super) fn tls(top: &Fields<'_>, findings: &mut Findings) -> (bool, bool) {
    let fields = top
        .get("tls")
        .and_then(|node| Fields::of(node, "tls", TLS, findings));
    let mut on = |name| {
        let fields = fields.as_ref();
        fields
            .and_then(|fields| fields.boolean(name, findings))
            .unwrap_or(true)
    };
    (on("resumption"), on("renewal"))
}
