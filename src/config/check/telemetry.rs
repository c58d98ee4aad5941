//! What is told of what happens, and where to.

use std::path::PathBuf;

use super::{Context, size_field};
use crate::config::settings::{AccessLog, LinesFile, Log, LogFormat};
use crate::config::size;
use crate::yaml::{Fields, Findings, Place, closest};

const TELEMETRY: &[&str] = &["log", "decisions", "access_log"];
pub(super) const DECISIONS: &[&str] = &["file", "max_size", "keep"];
pub(super) const ACCESS_LOG: &[&str] = &["file", "format", "max_size", "keep"];
/// In place of a file.
const STDOUT: &str = "stdout";
const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// The section as a whole.
#[derive(Default)]
pub(super) struct Telemetry {
    pub(super) log: Log,
    pub(super) decisions: Option<LinesFile>,
    pub(super) access_log: Option<AccessLog>,
}

pub(super) fn read(top: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> Telemetry {
    let node = top.get("telemetry");
    let Some(fields) = node.and_then(|node| Fields::of(node, "telemetry", TELEMETRY, findings)) else {
        return Telemetry::default();
    };
    let decisions = decisions(&fields, context, findings);
    Telemetry {
        log: log(&fields, findings),
        access_log: access_log(&fields, context, decisions.as_ref(), findings),
        decisions,
    }
}

fn log(telemetry: &Fields<'_>, findings: &mut Findings) -> Log {
    let mut log = Log::default();
    let node = telemetry.get("log");
    let Some(fields) = node.and_then(|n| Fields::of(n, "telemetry.log", &["format", "level"], findings))
    else {
        return log;
    };
    log.format = fields.word("format", FORMATS, findings);
    if let Some((text, place)) = fields.text("level", findings)
        && check_level(text, place, findings)
    {
        text.clone_into(&mut log.level);
    }
    log
}

fn decisions(telemetry: &Fields<'_>, context: &Context<'_>, findings: &mut Findings) -> Option<LinesFile> {
    let node = telemetry.get("decisions")?;
    let fields = Fields::of(node, "telemetry.decisions", DECISIONS, findings)?;
    let (file, _) = fields.required_text("file", "/var/log/svidecar/decisions.jsonl", findings)?;
    Some(lines_file(context.path(file), &fields, findings))
}

fn access_log(
    telemetry: &Fields<'_>,
    context: &Context<'_>,
    decisions: Option<&LinesFile>,
    findings: &mut Findings,
) -> Option<AccessLog> {
    let node = telemetry.get("access_log")?;
    let fields = Fields::of(node, "telemetry.access_log", ACCESS_LOG, findings)?;
    let format = fields.word("format", FORMATS, findings);
    let (file, place) = fields.required_text("file", "/var/log/svidecar/access.log` or `stdout", findings)?;
    let file = if file == STDOUT {
        for name in ["max_size", "keep"] {
            if let Some(node) = fields.get(name) {
                findings.error_with_help(
                    node.place,
                    format!("`telemetry.access_log.{name}` is for a file, and this is standard output"),
                    "leave it out; a file that is called so is `./stdout`",
                );
            }
        }
        None
    } else {
        let path = context.path(file);
        if decisions.is_some_and(|decisions| decisions.path == path) {
            findings.error(place, "`telemetry.decisions` writes to this file, too".to_owned());
        }
        Some(lines_file(path, &fields, findings))
    };
    Some(AccessLog {
        file,
        format: format.unwrap_or(LogFormat::Json),
    })
}

/// A file of lines, with the bounds that its section names.
fn lines_file(path: PathBuf, fields: &Fields<'_>, findings: &mut Findings) -> LinesFile {
    let max_size = size_field(fields, "max_size", (size::MIB, 1024 * size::GIB), findings);
    let keep = fields
        .integer("keep", 0, 1000, findings)
        .and_then(|number| u32::try_from(number).ok());
    LinesFile {
        path,
        max_size: max_size.unwrap_or(64 * size::MIB),
        keep: keep.unwrap_or(4),
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
