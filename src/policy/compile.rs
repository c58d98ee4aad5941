//! Written rules become a [`Policy`], or the whole set is refused.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use super::evaluate::Policy;
use super::file::{RuleFile, WrittenRule};
use super::rule::{Peers, Rule};
use crate::config::ListenerName;
use crate::record::Direction;
use crate::spiffe::IdPattern;
use crate::yaml::{Diagnostic, Findings, Place, closest, one_of};

/// Compiles the files of one policy, in the order in which they are given. Without `listeners`, what rules say in `to`
/// is not checked.
///
/// # Errors
/// All findings in all files, when one of them is an error.
pub fn compile(
    files: Vec<RuleFile>,
    listeners: Option<&[ListenerName]>,
    now: SystemTime,
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let content_hash = content_hash(&files);
    let mut names: HashMap<Arc<str>, (Arc<str>, u32)> = HashMap::new();
    let mut rules = Vec::new();
    let mut diagnostics = Vec::new();
    let mut errors = 0_usize;
    for RuleFile {
        rules: written,
        mut findings,
        ..
    } in files
    {
        for rule in written {
            check_name(&rule, &mut names, &mut findings);
            check_to(&rule, listeners, &mut findings);
            check_expiry(&rule, now, &mut findings);
            rules.push(translate(rule, Arc::clone(findings.file())));
        }
        errors = errors.saturating_add(findings.errors());
        diagnostics.extend(findings.into_list());
    }
    if errors > 0 {
        Err(diagnostics)
    } else {
        Ok((Policy::new(rules, content_hash), diagnostics))
    }
}

fn check_name(rule: &WrittenRule, names: &mut HashMap<Arc<str>, (Arc<str>, u32)>, findings: &mut Findings) {
    let (name, place) = &rule.name;
    match names.get(name) {
        Some((file, line)) => {
            let message = format!("rule `{name}` is here twice, first in {file}:{line}");
            findings.error_with_help(*place, message, "names are unique over all files of a policy");
        }
        None => {
            names.insert(Arc::clone(name), (Arc::clone(findings.file()), place.line));
        }
    }
}

fn check_to(rule: &WrittenRule, listeners: Option<&[ListenerName]>, findings: &mut Findings) {
    let (Some(to), Some(listeners)) = (&rule.to, listeners) else {
        return;
    };
    let inbound: Vec<&str> = listeners
        .iter()
        .filter(|l| l.direction == Direction::Inbound)
        .map(|l| &*l.name)
        .collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for (name, place) in to {
        if !seen.insert(name) {
            findings.error(*place, format!("`{name}` is in `to` twice"));
        } else if inbound.contains(&&**name) {
            continue;
        } else if listeners.iter().any(|listener| listener.name == *name) {
            let message = format!("`{name}` is an outbound listener: policies decide about inbound ones");
            findings.error_with_help(*place, message, "the listener's `peer` says who may answer there");
        } else {
            let message = format!("`to` names listener `{name}`, which the config does not have");
            findings.error_with_help(*place, message, listener_advice(name, &inbound));
        }
    }
}

fn listener_advice(name: &str, inbound: &[&str]) -> String {
    match (closest(name, inbound), inbound) {
        (Some(word), _) => format!("did you mean `{word}`?"),
        (None, []) => "the config has no inbound listener".to_owned(),
        (None, known) if known.len() <= 10 => format!("the inbound listeners are {}", one_of(known)),
        (None, known) => format!("the config has {} inbound listeners", known.len()),
    }
}

fn check_expiry(rule: &WrittenRule, now: SystemTime, findings: &mut Findings) {
    if let Some((expires, place)) = rule.expires
        && now >= expires
    {
        let message = format!(
            "rule `{}` ended at {}",
            rule.name.0,
            crate::clock::rfc3339(expires)
        );
        findings.warn(place, message, "take the rule out, or give it a new end");
    }
}

fn translate(rule: WrittenRule, file: Arc<str>) -> Rule {
    let Place { line, .. } = rule.name.1;
    Rule {
        name: rule.name.0,
        action: rule.action,
        to: rule
            .to
            .map(|names| names.into_iter().map(|(name, _)| name).collect()),
        from: rule.from.map(split),
        source: rule.source.map(Into::into),
        expires: rule.expires.map(|(at, _)| at),
        file,
        line,
    }
}

fn split(written: Vec<IdPattern>) -> Peers {
    let mut exact = HashSet::new();
    let mut patterns = Vec::new();
    for pattern in &written {
        match pattern.as_exact() {
            Some(id) => {
                exact.insert(id);
            }
            None => patterns.push(pattern.clone()),
        }
    }
    Peers {
        exact,
        patterns: patterns.into(),
        written: written.into(),
    }
}

/// SHA-256 over each file's name and text, each preceded by its length so that no two sets of files look alike.
fn content_hash(files: &[RuleFile]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for file in files {
        for part in [file.findings.file().as_bytes(), file.text.as_bytes()] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            context.update(&length.to_be_bytes());
            context.update(part);
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
