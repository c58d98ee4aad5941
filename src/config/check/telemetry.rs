//! What is told of what happens, and where to.

use std::path::{Path, PathBuf};

use super::{Context, otlp, size_field};
use crate::config::settings::{
    AccessLog, Audit, Denials, LEVELS, LinesFile, Log, LogFormat, NoLevel, Traces, log_directives,
};
use crate::config::size;
use crate::yaml::{Fields, Findings, Place, Value, closest};

const TELEMETRY: &[&str] = &["log", "decisions", "access_log", "traces"];
pub(super) const DECISIONS: &[&str] = &["file", "max_size", "keep"];
pub(super) const ACCESS_LOG: &[&str] = &["file", "format", "max_size", "keep"];
pub(super) const TRACES: &[&str] = &["otlp", "sample", "denials"];
/// In place of a file.
const STDOUT: &str = "stdout";
const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// The section, as far as it could be read.
#[derive(Default)]
pub(super) struct Telemetry {
    pub(super) log: Log,
    pub(super) decisions: Option<LinesFile>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) traces: Option<Traces>,
}

pub(super) fn read(
    top: &Fields<'_>,
    context: &Context<'_>,
    audit: Option<&Audit>,
    findings: &mut Findings,
) -> Telemetry {
    let node = top.get("telemetry");
    let Some(fields) = node.and_then(|node| Fields::of(node, "telemetry", TELEMETRY, findings)) else {
        return Telemetry::default();
    };
    let mut taken: Vec<Taken> = audit
        .map(|audit| ("audit", audit.path.clone()))
        .into_iter()
        .collect();
    let decisions = decisions(&fields, context, &mut taken, findings);
    Telemetry {
        log: log(&fields, findings),
        access_log: access_log(&fields, context, &mut taken, findings),
        traces: traces(&fields, findings),
        decisions,
    }
}

fn traces(telemetry: &Fields<'_>, findings: &mut Findings) -> Option<Traces> {
    let node = telemetry.get("traces")?;
    let fields = Fields::of(node, "telemetry.traces", TRACES, findings)?;
    let sample = sample(&fields, findings);
    let words = [("always", Denials::Always), ("sampled", Denials::Sampled)];
    let denials = fields.word("denials", &words, findings);
    if (sample, denials) == (Some(0.0), Some(Denials::Sampled)) {
        let message = "`telemetry.traces` sends nothing: no share of all, and of denials the same share";
        findings.warn(fields.place, message, "raise `sample`, or take the section out");
    }
    Some(Traces {
        otlp: otlp::read(&fields, findings)?,
        sample: sample.unwrap_or(0.01),
        denials: denials.unwrap_or(Denials::Always),
    })
}

fn sample(fields: &Fields<'_>, findings: &mut Findings) -> Option<f64> {
    let node = fields.get("sample")?;
    let share = match node.value {
        Value::Integer(0) => Some(0.0),
        Value::Integer(1) => Some(1.0),
        Value::Number(number) => Some(number).filter(|share| (0.0..=1.0).contains(share)),
        _ => None,
    };
    if share.is_none() {
        let message = "`telemetry.traces.sample` must be a number from 0 to 1";
        findings.error_with_help(
            node.place,
            message,
            "write `0.01` for one connection in a hundred",
        );
    }
    share
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
        && let Some(level) = level(text, place, findings)
    {
        log.level = level;
    }
    log
}

/// A section, and the file that it writes to.
type Taken = (&'static str, PathBuf);

/// A file has one writer: two would take turns to rotate it, and of an audit log break the chain.
fn take(section: &'static str, path: &Path, place: Place, taken: &mut Vec<Taken>, findings: &mut Findings) {
    if let Some((other, _)) = taken.iter().find(|(_, file)| file == path) {
        let help = "give each a file of its own: what reads one would find lines of the other in it";
        findings.error_with_help(place, format!("`{other}` writes to this file, too"), help);
    }
    taken.push((section, path.to_owned()));
}

fn decisions(
    telemetry: &Fields<'_>,
    context: &Context<'_>,
    taken: &mut Vec<Taken>,
    findings: &mut Findings,
) -> Option<LinesFile> {
    let node = telemetry.get("decisions")?;
    let fields = Fields::of(node, "telemetry.decisions", DECISIONS, findings)?;
    let (file, place) = fields.required_text("file", "/var/log/svidecar/decisions.jsonl", findings)?;
    let path = context.path(file);
    take("telemetry.decisions", &path, place, taken, findings);
    Some(lines_file(path, &fields, findings))
}

fn access_log(
    telemetry: &Fields<'_>,
    context: &Context<'_>,
    taken: &mut Vec<Taken>,
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
        take("telemetry.access_log", &path, place, taken, findings);
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

/// A level, or levels by module: `info,svidecar::identity=debug`, in the form that is worked with.
fn level(text: &str, place: Place, findings: &mut Findings) -> Option<String> {
    let bad = match log_directives(text) {
        Ok(directives) => return Some(directives),
        Err(bad) => bad,
    };
    for NoLevel { directive, level } in bad {
        let help = match closest(&level.to_ascii_lowercase(), &LEVELS) {
            Some(word) if !word.eq_ignore_ascii_case(&level) => format!("did you mean `{word}`?"),
            _ => "write a level, or levels by module: `info,svidecar::identity=debug`".to_owned(),
        };
        let message = format!("`telemetry.log.level`: `{directive}` is no log level");
        findings.error_with_help(place, message, help);
    }
    None
}
