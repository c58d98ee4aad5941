//! The file as typed becomes settings, or a list of all that is wrong with it.

mod admin;
mod audit;
mod general;
mod identity;
mod listeners;
mod otlp;
mod policy;
mod redaction;
mod telemetry;

use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;

use super::settings::{ListenerName, Policy, Settings, listener_names};
use super::{Environment, duration, size};
use crate::yaml::{self, Diagnostic, Fields, Findings, Node, Place, Value};

const TOP: &[&str] = &[
    "identity",
    "policy",
    "inbound",
    "outbound",
    "limits",
    "open_connections",
    "workers",
    "tls",
    "admin",
    "sandbox",
    "audit",
    "redaction",
    "telemetry",
];

/// Every field there is, for the test that the documentation has them all.
#[cfg(test)]
pub(super) const FIELDS: &[&[&str]] = &[
    TOP,
    identity::KNOWN,
    listeners::INBOUND,
    listeners::PROXY_PROTOCOL,
    listeners::OUTBOUND,
    listeners::DESTINATION,
    policy::POLICY,
    general::LIMITS,
    general::OPEN_CONNECTIONS,
    general::TLS,
    telemetry::DECISIONS,
    admin::ADMIN,
    telemetry::ACCESS_LOG,
    telemetry::TRACES,
    otlp::OTLP,
    audit::AUDIT,
    audit::SINK,
    redaction::REDACTION,
    redaction::RULE,
];

/// What a config file says, as far as it could be read.
#[derive(Debug)]
pub struct Examination {
    /// The settings, when there is no error.
    pub settings: Option<Settings>,
    /// Errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the policy, the deny list and the candidate are, even if something else is wrong.
    pub policy: Policy,
    /// The listeners' names; `None` when some could not be read, so that nothing can be told of a rule's `to`.
    pub listeners: Option<Vec<ListenerName>>,
}

impl Examination {
    /// What is left when the file could not even be read.
    pub(super) fn failed(diagnostic: Diagnostic) -> Self {
        Self {
            settings: None,
            diagnostics: vec![diagnostic],
            policy: Policy::default(),
            listeners: None,
        }
    }

    /// The settings and warnings, or all diagnostics.
    ///
    /// # Errors
    /// All diagnostics, when one of them is an error.
    pub fn into_result(self) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
        match self.settings {
            Some(settings) => Ok((settings, self.diagnostics)),
            None => Err(self.diagnostics),
        }
    }
}

/// Everything that the checks of the sections share.
struct Context<'a> {
    base_dir: &'a Path,
    environment: &'a Environment,
}

impl Context<'_> {
    /// A path of the file: taken from the file's folder when relative.
    fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }
}

pub(super) fn examine(text: &str, file_name: &str, base: &Path, environment: &Environment) -> Examination {
    let mut findings = Findings::new(file_name, text);
    let context = Context {
        base_dir: base,
        environment,
    };
    let mut examination = Examination {
        settings: None,
        diagnostics: Vec::new(),
        policy: Policy::default(),
        listeners: None,
    };
    let settings = read(text, &context, &mut examination, &mut findings);
    examination.settings = settings.filter(|_| findings.errors() == 0);
    examination.diagnostics = findings.into_list();
    examination
}

fn read(
    text: &str,
    context: &Context<'_>,
    seen: &mut Examination,
    findings: &mut Findings,
) -> Option<Settings> {
    let root = yaml::root(
        text,
        "a config has at least one listener: see `svidecar run --help`",
        findings,
    )?;
    let top = Fields::of(&root, "", TOP, findings)?;
    let identity = identity::read(&top, context, findings);
    let mut listeners = listeners::read(&top, findings);
    let policy = policy::read(&top, context, listeners.any_inbound, findings);
    seen.policy = policy.clone();
    seen.listeners = listeners.all_named.then(|| listener_names(&listeners.listeners));
    listeners.check_names(findings);
    let admin = admin::read(&top, context, findings);
    listeners.check_addresses(admin.as_ref(), findings);
    listeners.check_transparent(admin.as_ref(), findings);
    let audit = audit::read(&top, context, findings);
    let redaction = redaction::read(&top, context, &listeners.listeners, findings);
    let sandbox = general::sandbox(&top, findings);
    let limits = general::limits(&top, findings);
    let open_connections = general::open_connections(&top, findings);
    let workers = general::workers(&top, context, findings);
    let (resumption, renewal) = general::tls(&top, findings);
    let telemetry = telemetry::read(&top, context, audit.as_ref(), findings);
    // Only now: a bad identity must not hide what is wrong after it.
    Some(Settings {
        content_hash: content_hash(text),
        identity: identity?,
        policy,
        listeners: listeners.listeners,
        limits,
        open_connections,
        workers,
        resumption,
        renewal,
        admin: admin.map(|admin| admin.settings),
        log: telemetry.log,
        decisions: telemetry.decisions,
        access_log: telemetry.access_log,
        traces: telemetry.traces,
        audit,
        redaction,
        sandbox,
    })
}

fn content_hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    HEXLOWER.encode(digest.as_ref())
}

/// A duration field within bounds.
fn duration_field(
    fields: &Fields<'_>,
    name: &str,
    bounds: (Duration, Duration),
    findings: &mut Findings,
) -> Option<Duration> {
    let node = fields.get(name)?;
    duration_node(node, &fields.name_of(name), bounds, findings)
}

fn duration_node(
    node: &Node,
    path: &str,
    bounds: (Duration, Duration),
    findings: &mut Findings,
) -> Option<Duration> {
    let unit = Unit {
        what: "duration",
        parse: duration::parse,
        show: duration::show,
        examples: ["s", "ms"],
        help: "write a whole number and `ms`, `s`, `m` or `h`, such as `30s`",
    };
    unit.read(node, path, bounds, findings)
}

/// A size within bounds.
fn size_field(fields: &Fields<'_>, name: &str, bounds: (u64, u64), findings: &mut Findings) -> Option<u64> {
    let unit = Unit {
        what: "size",
        parse: size::parse,
        show: size::show,
        examples: ["MiB", "KiB"],
        help: "write a whole number and `KiB`, `MiB` or `GiB`, such as `64MiB`",
    };
    unit.read(fields.get(name)?, &fields.name_of(name), bounds, findings)
}

/// How a number with a unit is written.
struct Unit<T> {
    what: &'static str,
    parse: fn(&str) -> Option<T>,
    show: fn(T) -> String,
    /// What a number may have been meant to end with.
    examples: [&'static str; 2],
    help: &'static str,
}

impl<T: Copy + PartialOrd> Unit<T> {
    fn read(&self, node: &Node, path: &str, (least, most): (T, T), findings: &mut Findings) -> Option<T> {
        let typed = match &node.value {
            Value::Text(text) => (self.parse)(text),
            _ => None,
        };
        match typed {
            Some(value) if (least..=most).contains(&value) => Some(value),
            Some(_) => {
                let (least, most) = ((self.show)(least), (self.show)(most));
                findings.error(node.place, format!("`{path}` must be from {least} to {most}"));
                None
            }
            None => {
                let [one, other] = self.examples;
                let help = match node.value {
                    Value::Integer(number) => format!("write the unit: `{number}{one}` or `{number}{other}`"),
                    _ => self.help.to_owned(),
                };
                findings.error_with_help(node.place, format!("`{path}` is no {}", self.what), help);
                None
            }
        }
    }
}

/// Whether `text` can be a listener's name, and with it a metric label.
#[must_use]
pub fn is_listener_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

/// The admin section with the places of its addresses.
struct CheckedAdmin {
    settings: super::settings::Admin,
    listen_place: Place,
    probes_place: Place,
}
