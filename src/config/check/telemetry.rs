//! What is told of what happens, and where to.

use super::{Context, size_field};
use crate::config::settings::{Decisions, Log, LogFormat};
use crate::config::size;
use crate::yaml::{Fields, Findings, Place, closest};

const TELEMETRY: &[&str] = &["log", "decisions"];
pub(super) const DECISIONS: &[&str] = &["file", "max_size", "keep"];

pub(super) fn read(
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
