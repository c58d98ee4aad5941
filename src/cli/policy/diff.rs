//! `svidecar policy diff`: which recorded decisions a new policy would change.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::output::{print, report};
use super::super::{EXIT_FAILED, EXIT_GOOD, EXIT_USAGE};
use super::files;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Environment;
use crate::config::settings::ListenerName;
use crate::policy::{Admission, Surroundings};
use crate::spiffe::TrustDomain;
use crate::trial::diff::{Diff, diff};
use crate::trial::recorded::{ReadError, Recorded};
use crate::trial::rules::{RuleDiff, rules};
use crate::yaml::Diagnostic;

/// Tell what a new policy would change
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Alone, it compares the rules. With --against both policies are asked every question of a file of recorded decisions anew,
as of now: which verdicts would change, for whom, and by which rules. Such a file is what `telemetry.decisions.file` of a
config names, one JSON object a line. The deny list plays no part in it. Give --config for what listeners trust and for
rules with `ports`.

Exit code: 0; with --exit-code 1 when something would change; 2 when a file is wrong.

Example:
  svidecar policy diff policy/ policy-next/ --against /var/log/svidecar/decisions.jsonl")]
pub struct DiffArgs {
    /// The policy of now: a file or a folder
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// The policy to come
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// Recorded decisions, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// The config whose listeners, `trust` and trust domain count
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Exit with 1 when something would change
    #[arg(long)]
    pub exit_code: bool,
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &DiffArgs) -> u8 {
    let (diff, warnings) = match compare(args, &Environment::of_process(), SystemClock.now()) {
        Ok(found) => found,
        Err(problem) => {
            report(&problem.to_string());
            return EXIT_USAGE;
        }
    };
    warnings
        .iter()
        .for_each(|warning| report(&format!("{warning}\n")));
    let code = if args.exit_code && diff.is_change() {
        EXIT_FAILED
    } else {
        EXIT_GOOD
    };
    if !args.json {
        return print(&diff.to_string(), code);
    }
    match serde_json::to_string_pretty(&diff) {
        Ok(json) => print(&json, code),
        Err(error) => {
            report(&format!("error: cannot write the answer as JSON: {error}"));
            EXIT_FAILED
        }
    }
}

/// What was compared.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Difference {
    /// The rules.
    Rules(RuleDiff),
    /// What they say to recorded decisions.
    Decisions(Diff),
}

impl Difference {
    fn is_change(&self) -> bool {
        match self {
            Self::Rules(diff) => !diff.is_empty(),
            Self::Decisions(diff) => diff.changed > 0,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(diff) => diff.fmt(f),
            Self::Decisions(diff) => diff.fmt(f),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A policy or the config is bad.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
    Files(Vec<Diagnostic>),
    /// The decisions are.
    #[error("error: {0}")]
    Decisions(#[from] ReadError),
}

/// Answers the question.
///
/// # Errors
/// A file that cannot be used.
pub fn compare(
    args: &DiffArgs,
    environment: &Environment,
    now: SystemTime,
) -> Result<(Difference, Vec<Diagnostic>), DiffError> {
    let (mut listeners, mut own): (Option<Vec<ListenerName>>, Option<TrustDomain>) = (None, None);
    if let Some(config) = &args.config {
        let configured = files::config(config, None, environment, now).map_err(DiffError::Files)?;
        listeners = Some(configured.listeners);
        own = configured.settings.identity.trust_domain;
    }
    let surroundings = Surroundings {
        listeners: listeners.as_deref(),
        own_trust_domain: own.as_ref(),
    };
    let mut warnings = Vec::new();
    let mut load = |path: &Path| -> Result<Admission, DiffError> {
        files::admission(Some(path), None, surroundings, now, &mut warnings).map_err(DiffError::Files)
    };
    let (old, new) = (load(&args.old)?, load(&args.new)?);
    let difference = match &args.against {
        None => Difference::Rules(rules(&old.policy, &new.policy)),
        Some(path) => Difference::Decisions(diff(&read_decisions(path)?, &old, &new, now)),
    };
    Ok((difference, warnings))
}

/// Reads recorded decisions from a file, or from standard input where the name is `-`.
pub(super) fn read_decisions(path: &Path) -> Result<Recorded, ReadError> {
    if path == Path::new("-") {
        return Recorded::read(io::stdin().lock(), "standard input");
    }
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => Recorded::read(BufReader::new(file), &name),
        Err(error) => Err(ReadError::Io { file: name, error }),
    }
}
