//! What is written becomes a [`Policy`], or the whole set of files is refused.

mod listeners;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;

use self::listeners::Listeners;
use super::budget::{Budget, CompiledBudget};
use super::evaluate::Policy;
use super::file::{RuleFile, WrittenBudget, WrittenRule, WrittenSet};
use super::lint;
use super::rule::{self, Rule};
use super::sets::{Expanded, Sets};
use crate::config::ListenerName;
use crate::spiffe::{IdPattern, TrustDomain};
use crate::yaml::{Diagnostic, Findings, Place};

/// A rule that ends so soon is worth a warning.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

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
    let hashed = files
        .iter()
        .map(|file| (file.findings.file().as_bytes(), file.text.as_bytes()));
    let content_hash = content_hash(hashed);
    let mut compiler = Compiler::new(surroundings, now);
    let mut all: Vec<Findings> = Vec::with_capacity(files.len());
    let (mut rules, mut budgets) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
    let (mut ids, mut networks) = (Vec::new(), Vec::new());
    for (at, file) in files.into_iter().enumerate() {
        all.push(file.findings);
        rules.push(file.rules);
        budgets.push(file.budgets);
        ids.push((at, file.ids));
        networks.push((at, file.networks));
    }
    compiler.collect_sets(ids, networks, &mut all);
    let contents = rules.into_iter().zip(budgets);
    for (at, ((rules, budgets), findings)) in contents.zip(&mut all).enumerate() {
        compiler.file = at;
        for rule in rules {
            compiler.rule(rule, findings);
        }
        for budget in budgets {
            compiler.budget(budget, findings);
        }
    }
    compiler.ids.warn_of_unused(&mut all);
    compiler.networks.warn_of_unused(&mut all);
    let errors: usize = all.iter().map(Findings::errors).sum();
    if errors == 0 {
        lint::warn(&compiler.rules, surroundings, &mut all);
    }
    let diagnostics = all.into_iter().flat_map(Findings::into_list).collect();
    if errors > 0 {
        return Err(diagnostics);
    }
    let Compiler { rules, budgets, .. } = compiler;
    let rules = rules.into_iter().map(|placed| placed.rule).collect();
    Ok((
        Policy::new(rules, budgets, surroundings.listeners, content_hash),
        diagnostics,
    ))
}

/// A compiled rule and where it stands.
pub(super) struct Placed {
    pub(super) rule: Rule,
    /// Of its name.
    pub(super) place: Place,
    /// Which file it stands in.
    pub(super) file: usize,
}

struct Compiler<'a> {
    listeners: Listeners<'a>,
    now: SystemTime,
    ids: Sets<IdPattern>,
    networks: Sets<ipnet::IpNet>,
    expanded: Expanded,
    /// The file whose rules are compiled.
    file: usize,
    rule_names: Names,
    budget_names: Names,
    rules: Vec<Placed>,
    budgets: Vec<CompiledBudget>,
}

/// Names seen so far, and where.
type Names = HashMap<Arc<str>, (Arc<str>, u32)>;

impl<'a> Compiler<'a> {
    fn new(surroundings: Surroundings<'a>, now: SystemTime) -> Self {
        Self {
            listeners: Listeners::new(surroundings.listeners),
            now,
            ids: Sets::default(),
            networks: Sets::default(),
            expanded: Expanded::default(),
            file: 0,
            rule_names: Names::new(),
            budget_names: Names::new(),
            rules: Vec::new(),
            budgets: Vec::new(),
        }
    }

    fn collect_sets(
        &mut self,
        ids: Vec<(usize, Vec<WrittenSet<IdPattern>>)>,
        networks: Vec<(usize, Vec<WrittenSet<ipnet::IpNet>>)>,
        findings: &mut [Findings],
    ) {
        let (id_names, network_names) = (names_of(&ids), names_of(&networks));
        self.ids = Sets::collect(ids, network_names, findings);
        self.networks = Sets::collect(networks, id_names, findings);
        self.ids.resolve(findings);
        self.networks.resolve(findings);
    }

    fn rule(&mut self, written: WrittenRule, findings: &mut Findings) {
        let (name, place) = written.name;
        check_name("rule", &name, place, &mut self.rule_names, findings);
        let to = self.listeners.check_to(written.to, findings);
        let ports = self.listeners.check_ports(written.ports, findings);
        let mut rule = Rule {
            name,
            description: written.description,
            action: written.action,
            to,
            ports,
            from: None,
            not_from: None,
            source: None,
            not_source: None,
            not_before: written.not_before.map(|(at, _)| at),
            expires: written.expires.map(|(at, _)| at),
            file: Arc::clone(findings.file()),
            line: place.line,
        };
        let times = rule.listeners().map_or(1, |listeners| listeners.len().max(1));
        let expanded = &mut self.expanded;
        let mut ids = |items| self.ids.list(items, times, expanded, findings);
        rule.from = written.from.map(&mut ids);
        rule.not_from = written.not_from.map(ids);
        let mut networks = |items| self.networks.list(items, times, expanded, findings);
        rule.source = written.source.map(&mut networks);
        rule.not_source = written.not_source.map(networks);
        self.check_times(&rule, written.not_before, written.expires, findings);
        let file = self.file;
        self.rules.push(Placed { rule, place, file });
    }

    fn budget(&mut self, written: WrittenBudget, findings: &mut Findings) {
        let (name, place) = written.name;
        check_name("budget", &name, place, &mut self.budget_names, findings);
        let to = self.listeners.check_to(written.to, findings);
        let ports = self.listeners.check_ports(written.ports, findings);
        let listeners = rule::listeners(to.as_deref(), ports.as_ref());
        let listeners = listeners.map(|names| names.into_iter().cloned().collect());
        let from = written
            .from
            .map(|items| self.ids.list(items, 1, &mut self.expanded, findings));
        let budget = Arc::new(Budget {
            name,
            description: written.description,
            connections: written.connections,
            connections_per_second: written.connections_per_second,
            bytes_per_second: written.bytes_per_second,
            file: Arc::clone(findings.file()),
            line: place.line,
        });
        self.budgets.push(CompiledBudget {
            budget,
            listeners,
            from,
        });
    }

    fn check_times(
        &self,
        rule: &Rule,
        begins: Option<(SystemTime, Place)>,
        ends: Option<(SystemTime, Place)>,
        findings: &mut Findings,
    ) {
        let Some((expires, place)) = ends else { return };
        let (name, at) = (&rule.name, crate::clock::rfc3339(expires));
        if let Some((begins, _)) = begins
            && begins >= expires
        {
            let message = format!(
                "rule `{name}` can never match: it begins at {} and ends at {at}",
                crate::clock::rfc3339(begins)
            );
            findings.warn(place, message, "let it end after it begins");
        } else if self.now >= expires {
            let message = format!("rule `{name}` ended at {at}");
            findings.warn(place, message, "take the rule out, or give it a new end");
        } else if expires.duration_since(self.now).is_ok_and(|left| left <= SOON) {
            let message = format!("rule `{name}` ends within a week, at {at}");
            findings.warn(place, message, "give it a later end if it shall go on");
        }
    }
}

/// The names of sets, for what is told to somebody who took one kind for the other.
fn names_of<T>(sets: &[(usize, Vec<WrittenSet<T>>)]) -> Vec<Arc<str>> {
    let sets = sets.iter().flat_map(|(_, sets)| sets);
    sets.map(|set| Arc::clone(&set.name.0)).collect()
}

fn check_name(kind: &str, name: &Arc<str>, place: Place, names: &mut Names, findings: &mut Findings) {
    match names.get(name) {
        Some((file, line)) => {
            let message = format!("{kind} `{name}` is here twice, first in {file}:{line}");
            findings.error_with_help(place, message, "names are unique over all files of a policy");
        }
        None => {
            names.insert(Arc::clone(name), (Arc::clone(findings.file()), place.line));
        }
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
    HEXLOWER.encode(context.finish().as_ref())
}
