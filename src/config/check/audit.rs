//! The audit log.

use std::time::Duration;

use super::{Context, duration_field, is_listener_name, otlp, size_field};
use crate::config::settings::{Audit, AuditSink, AuditSync, OnAuditFailure};
use crate::config::size;
use crate::yaml::{Fields, Findings};

pub(super) const AUDIT: &[&str] = &[
    "file",
    "on_failure",
    "sync",
    "sync_interval",
    "max_size",
    "max_age",
    "keep",
    "keep_for",
    "compress",
    "checkpoint_every",
    "sinks",
];
pub(super) const SINK: &[&str] = &["name", "otlp"];

/// More than anybody needs, and each reads the whole log.
const MAX_SINKS: usize = 8;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn read(top: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> Option<Audit> {
    let fields = Fields::of(top.get("audit")?, "audit", AUDIT, findings)?;
    let on_failure = [
        ("deny", OnAuditFailure::Deny),
        ("continue", OnAuditFailure::Continue),
    ];
    let on_failure = fields.word("on_failure", &on_failure, findings);
    let sync = [
        ("always", AuditSync::Always),
        ("interval", AuditSync::Interval),
        ("os", AuditSync::Os),
    ];
    let sync = fields
        .word("sync", &sync, findings)
        .unwrap_or(AuditSync::Interval);
    let mut duration = |name, bounds| duration_field(&fields, name, bounds, findings);
    let sync_interval = duration("sync_interval", (Duration::from_millis(10), MINUTE));
    let max_age = duration("max_age", (MINUTE, 366 * DAY));
    let keep_for = duration("keep_for", (HOUR, 20 * 366 * DAY));
    let checkpoint_every = duration("checkpoint_every", (SECOND, DAY));
    if let (Some(place), true) = (fields.key_place("sync_interval"), sync != AuditSync::Interval) {
        let help = "write `sync: interval`, or take the line out";
        findings.error_with_help(place, "`audit.sync_interval` belongs to `sync: interval`", help);
    }
    let max_size = size_field(&fields, "max_size", (size::MIB, 1024 * size::GIB), findings);
    let keep = fields
        .integer("keep", 0, 100_000, findings)
        .and_then(|number| u32::try_from(number).ok());
    let sinks = sinks(&fields, findings);
    let compress = fields.boolean("compress", findings);
    let (file, _) = fields.required_text("file", "/var/log/svidecar/audit.jsonl", findings)?;
    Some(Audit {
        path: context.path(file),
        on_failure: on_failure.unwrap_or(OnAuditFailure::Deny),
        sync,
        sync_interval: sync_interval.unwrap_or(SECOND),
        max_size: max_size.unwrap_or(64 * size::MIB),
        max_age: max_age.unwrap_or(DAY),
        keep: keep.unwrap_or(30),
        keep_for,
        compress: compress.unwrap_or(true),
        checkpoint_every: checkpoint_every.unwrap_or(MINUTE),
        sinks,
    })
}

fn sinks(fields: &Fields<'_>, findings: &mut Findings) -> Vec<AuditSink> {
    let mut sinks: Vec<AuditSink> = Vec::new();
    let list = fields.list("sinks", MAX_SINKS, findings).unwrap_or_default();
    for (place, node) in list.iter().enumerate() {
        let path = format!("audit.sinks[{place}]");
        let Some(sink) = Fields::of(node, &path, SINK, findings) else {
            continue;
        };
        let name = sink.required_text("name", "collector", findings);
        let otlp = otlp::read(&sink, findings);
        let (Some((name, place)), Some(otlp)) = (name, otlp) else {
            continue;
        };
        if !is_listener_name(name) {
            let message = format!("`{path}.name` is `{name}`: it becomes a file's name and a metric's label");
            findings.error_with_help(place, message, "use 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`");
        } else if sinks.iter().any(|sink| &*sink.name == name) {
            let message = format!("`{path}.name`: there is another sink `{name}`");
            findings.error_with_help(
                place,
                message,
                "by its name each remembers how far it is: give it another",
            );
        } else {
            sinks.push(AuditSink {
                name: name.into(),
                otlp,
            });
        }
    }
    sinks
}
