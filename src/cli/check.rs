//! `svidecar check`: what `run` would say to a config and its policies, all of it at once.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::output::{print, report};
use super::{EXIT_GOOD, EXIT_USAGE};
use crate::app;
use crate::audit;
use crate::clock::{Clock as _, SystemClock};
use crate::config::settings::{Redaction, Settings};
use crate::config::{self, Environment};
use crate::policy::{self, Policy, Surroundings};
use crate::record::Direction;
use crate::redaction;
use crate::yaml::{Diagnostic, counted};

/// Check config and policies
///
/// Reads them as `run` would and prints every problem.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Each problem comes with file, line and column, the line itself, and what to write instead.
Exit code 0 when `svidecar run` would start with these files, 2 when not. Warnings do not count.

Example:
  svidecar check --config /etc/svidecar/config.yaml")]
pub struct CheckArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(args: &CheckArgs) -> u8 {
    match check(&args.config, &Environment::of_process(), SystemClock.now()) {
        Ok((summary, warnings)) => {
            warnings
                .iter()
                .for_each(|warning| report(&format!("{warning}\n")));
            print(&summary, EXIT_GOOD)
        }
        Err(found) => {
            found.iter().for_each(|problem| report(&format!("{problem}\n")));
            let errors = found.iter().filter(|problem| problem.is_error()).count();
            report(&format!(
                "{} in {}",
                counted(errors, "error"),
                args.config.display()
            ));
            EXIT_USAGE
        }
    }
}

/// The summary line and the warnings, or all that is wrong.
///
/// # Errors
/// Every finding in the config and in the policy it names, when one of them is an error.
pub fn check(
    config: &Path,
    environment: &Environment,
    now: SystemTime,
) -> Result<(String, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut examined = config::examine(config, environment);
    let named = std::mem::take(&mut examined.policy);
    // Without all the names nothing can be said of a rule's `to`; the rest of the policy is still checked.
    let surroundings = Surroundings {
        listeners: examined.listeners.as_deref(),
        own_trust_domain: examined
            .settings
            .as_ref()
            .and_then(|s| s.identity.trust_domain.as_ref()),
    };
    let mut good = true;
    let mut found = std::mem::take(&mut examined.diagnostics);
    let policy = named.path.map(|path| policy::load(&path, surroundings, now));
    let policy = keep(policy, &mut found, &mut good);
    let deny_list = named.deny_list.map(|path| policy::load_deny_list(&path, now));
    keep(deny_list, &mut found, &mut good);
    // `run` would start with a bad one, since it decides nothing; whoever asks here wants to know.
    let candidate = named.candidate.map(|path| policy::load(&path, surroundings, now));
    keep(candidate, &mut found, &mut good);
    let unredacted = examined.settings.as_ref().map(|settings| &settings.redaction);
    if let Some(Err(error)) = unredacted.map(app::redaction::redactor) {
        found.push(Diagnostic::of_file(
            &config.display().to_string(),
            error.to_string(),
        ));
        good = false;
    }
    let audit = examined
        .settings
        .as_ref()
        .and_then(|settings| settings.audit.as_ref());
    if let Some(Err(error)) = audit.map(|audit| audit::look(&audit.path)) {
        let message = format!("`audit.file`: {error}");
        found.push(Diagnostic::of_file(&config.display().to_string(), message));
        good = false;
    }
    if let Some(problem) = examined.settings.as_ref().and_then(app::check_token) {
        found.push(problem);
        good = false;
    }
    if let Some(settings) = &examined.settings {
        found.extend(app::check_sandbox(settings, config));
    }
    match examined.settings {
        Some(settings) if good => Ok((summary(&settings, policy.as_ref()), found)),
        _ => Err(found),
    }
}

/// A document with what one wonders about, or all findings.
type Read<T> = Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>;

/// What was read, its findings added to those of the rest.
fn keep<T>(read: Option<Read<T>>, found: &mut Vec<Diagnostic>, good: &mut bool) -> Option<T> {
    match read? {
        Ok((document, warnings)) => {
            found.extend(warnings);
            Some(document)
        }
        Err(problems) => {
            found.extend(problems);
            *good = false;
            None
        }
    }
}

fn summary(settings: &Settings, policy: Option<&Policy>) -> String {
    let facing = |direction| {
        settings
            .listeners
            .iter()
            .filter(|l| l.direction() == direction)
            .count()
    };
    let listeners = format!(
        "{} ({} inbound, {} outbound)",
        counted(settings.listeners.len(), "listener"),
        facing(Direction::Inbound),
        facing(Direction::Outbound)
    );
    let summary = match policy {
        Some(policy) => format!("ok: {listeners}, {}", counted(policy.rules().len(), "rule")),
        None => format!("ok: {listeners}, no policy"),
    };
    let redaction = redaction_in_words(&settings.redaction);
    format!("{summary}{redaction}")
}

/// What is taken out of records, a line for each rule.
fn redaction_in_words(settings: &Redaction) -> String {
    let rules = app::redaction::rules(settings);
    if rules.is_empty() {
        return String::new();
    }
    let profile = settings.profile.map_or_else(String::new, |profile| {
        format!(" (profile `{}`)", profile.as_str())
    });
    let lines: String = redaction::in_words(&rules)
        .iter()
        .map(|line| format!("\n  {line}"))
        .collect();
    format!("\nredaction{profile}, in this order, before a record is written or sent:{lines}")
}
