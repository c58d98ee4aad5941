//! Written rules become a [`Policy`], or the whole set is refused.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use super::evaluate::Policy;
use super::file::{RuleFile, WrittenRule};
use super::ids::IdSet;
use super::rule::Rule;
use crate::config::ListenerName;
use crate::record::Direction;
use crate::spiffe::TrustDomain;
use crate::yaml::{Diagnostic, Findings, Place, closest, one_of};

/// What of the config a policy is checked against. What is not known is not checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The listeners that rules may name.
    pub listeners: Option<&'a [ListenerName]>,
    /// The trust domain of our own SVID, where the config says it.
    pub own_trust_domain: Option<&'a TrustDomain>,
}

impl<'a> Surroundings<'a> {
    /// That of a config whose own trust domain is not known before an identity is.
    #[must_use]
    pub const fn of(listeners: &'a [ListenerName]) -> Self {
        Self {
            listeners: Some(listeners),
            own_trust_domain: None,
        }
    }
}

/// Compiles the files of one policy, in the order in which they are given.
///
/// # Errors
/// All findings in all files, when one of them is an error.
pub fn compile(
    files: Vec<RuleFile>,
    surroundings: Surroundings<'_>,
    now: SystemTime,
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let Surroundings { listeners, .. } = surroundings;
    let parts = files.iter();
    let content_hash =
        content_hash(parts.map(|file| (file.findings.file().as_bytes(), file.text.as_bytes())));
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
        Ok((Policy::new(rules, listeners, content_hash), diagnostics))
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
        description: rule.description,
        action: rule.action,
        to: rule
            .to
            .map(|names| names.into_iter().map(|(name, _)| name).collect()),
        from: rule.from.map(IdSet::new),
        source: rule.source.map(Into::into),
        not_before: rule.not_before.map(|(at, _)| at),
        expires: rule.expires.map(|(at, _)| at),
        file,
        line,
    }
}

/// SHA-256 over each file's name and text, each preceded by its length so that no two sets of files look alike.
pub(super) fn content_hash<'f>(files: impl Iterator<Item = (&'f [u8], &'f [u8])>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for (name, text) in files {
        for part in [name, text] {
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
