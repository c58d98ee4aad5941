//! Limits, open connections, workers, the admin endpoint, the log, and the sections of later versions.

use std::time::Duration;

use super::listeners::{is_local, listen_advice};
use super::{CheckedAdmin, Context, duration_field, duration_node};
use crate::config::settings::{Admin, Decisions, Limits, Log, LogFormat, OnChange, OpenConnections};
use crate::config::{address, size};
use crate::yaml::{Fields, Findings, Place, Value, closest};

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
const TELEMETRY: &[&str] = &["log", "decisions"];
pub(super) const DECISIONS: &[&str] = &["file", "max_size", "keep"];

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

pub(super) fn admin(top: &Fields<'_>, findings: &mut Findings) -> Option<CheckedAdmin> {
    let node = top.get("admin")?;
    let fields = Fields::of(node, "admin", &["listen", "probes", "token_file"], findings)?;
    if let Some(place) = fields.key_place("token_file") {
        let help = "take the line out: nothing on the admin endpoint changes state in this version";
        findings.error_with_help(place, "`admin.token_file` is not in this version", help);
    }
    let probes = fields
        .text("probes", findings)
        .and_then(|(text, place)| match address::ip_and_port(text) {
            Ok(address) => Some((address, place)),
            Err(error) => {
                let help = listen_advice(text, &error, "0.0.0.0:15021");
                findings.error_with_help(place, format!("`admin.probes` is `{text}`: {error}"), help);
                None
            }
        });
    let (text, place) = fields.required_text("listen", "127.0.0.1:15000", findings)?;
    let listen = match address::listen(text) {
        Ok(listen) => listen,
        Err(error) => {
            let help = listen_advice(text, &error, "127.0.0.1:15000");
            findings.error_with_help(place, format!("`admin.listen` is `{text}`: {error}"), help);
            return None;
        }
    };
    if !is_local(&listen) {
        let message = format!("`admin.listen` is `{text}`: other machines must not reach the admin endpoint");
        let help =
            "listen on 127.0.0.1, [::1] or a unix socket; `admin.probes` serves health checks from elsewhere";
        findings.error_with_help(place, message, help);
    }
    let probes_place = probes.map(|(_, place)| place).unwrap_or_default();
    let settings = Admin {
        listen,
        probes: probes.map(|(address, _)| address),
    };
    Some(CheckedAdmin {
        settings,
        listen_place: place,
        probes_place,
    })
}

pub(super) fn telemetry(
    top: &Fields<'_>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> (Log, Option<Decisions>) {
    match top
        .get("telemetry")
        .and_then(|node| Fields::of(node, "telemetry", TELEMETRY, findings))
    {
        Some(fields) => (log(&fields, findings), decisions(&fields, context, findings)),
        None => (Log::default(), None),
    }
}

fn log(telemetry: &Fields<'_>, findings: &mut Findings) -> Log {
    let mut log = Log::default();
    let node = telemetry.get("log");
    let Some(fields) = node.and_then(|n| Fields::of(n, "telemetry.log", &["format", "level"], findings))
    else {
        return log;
    };
    log.format = fields.word(
        "format",
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        findings,
    );
    if let Some((text, place)) = fields.text("level", findings)
        && check_level(text, place, findings)
    {
        text.clone_into(&mut log.level);
    }
    log
}

fn decisions(telemetry: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> Option<Decisions> {
    let node = telemetry.get("decisions")?;
    let fields = Fields::of(node, "telemetry.decisions", DECISIONS, findings)?;
    let (file, _) = fields.required_text("file", "/var/log/svidecar/decisions.jsonl", findings)?;
    let max_size = size_field(&fields, "max_size", (size::MIB, 1024 * size::GIB), findings);
    let keep = fields
        .integer("keep", 0, 1000, findings)
        .and_then(|number| u32::try_from(number).ok());
    Some(Decisions {
        path: context.path(file),
        max_size: max_size.unwrap_or(64 * size::MIB),
        keep: keep.unwrap_or(4),
    })
}

/// A size within bounds.
fn size_field(
    fields: &Fields<'_>,
    name: &str,
    (least, most): (u64, u64),
    findings: &mut Findings,
) -> Option<u64> {
    let node = fields.get(name)?;
    let path = fields.name_of(name);
    let typed = match &node.value {
        Value::Text(text) => size::parse(text),
        _ => None,
    };
    match typed {
        Some(value) if (least..=most).contains(&value) => Some(value),
        Some(_) => {
            let message = format!(
                "`{path}` must be from {} to {}",
                size::show(least),
                size::show(most)
            );
            findings.error(node.place, message);
            None
        }
        None => {
            let help = match node.value {
                Value::Integer(number) => format!("write the unit: `{number}MiB` or `{number}KiB`"),
                _ => "write a whole number and `KiB`, `MiB` or `GiB`, such as `64MiB`".to_owned(),
            };
            findings.error_with_help(node.place, format!("`{path}` is no size"), help);
            None
        }
    }
}

/// A level, or levels by module: `info,svidecar::identity=debug`. The part of `tracing`'s syntax that cannot be
/// mistaken: there, a misspelt level alone is taken for the name of a module, and turns everything else off.
fn check_level(text: &str, place: Place, findings: &mut Findings) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let mut good = true;
    for directive in text.split(',') {
        let (module, level) = directive.rsplit_once('=').unwrap_or(("svidecar", directive));
        let module_ok = !module.is_empty()
            && module.len() <= 128
            && module
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
        if !levels.contains(&level) || !module_ok {
            good = false;
            let help = match closest(level, &levels) {
                Some(word) if word != level => format!("did you mean `{word}`?"),
                _ => "write a level, or levels by module: `info,svidecar::identity=debug`".to_owned(),
            };
            findings.error_with_help(
                place,
                format!("`telemetry.log.level`: `{directive}` is no log level"),
                help,
            );
        }
    }
    good
}

/// Sections that this version reads without acting on them, and those that it does not have.
pub(super) fn refuse_later_sections(top: &Fields<'_>, findings: &mut Findings) {
    if let Some(place) = top.key_place("audit") {
        let help = "take the section out; every connection's end is one log line meanwhile";
        findings.error_with_help(place, "`audit` is not in this version", help);
    }
    let sandbox = top.word(
        "sandbox",
        &[("off", false), ("best-effort", false), ("strict", true)],
        findings,
    );
    if let (Some(true), Some(node)) = (sandbox, top.get("sandbox")) {
        let help = "write `best-effort`, or take the line out";
        findings.error_with_help(node.place, "`sandbox: strict` is not in this version", help);
    }
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
