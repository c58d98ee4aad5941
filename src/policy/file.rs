//! Policies as written: one file becomes rules, named sets and budgets, every value with its place.

mod budgets;
pub(super) mod values;

use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

#[cfg(test)]
pub(super) use budgets::BUDGET;
pub use budgets::WrittenBudget;
pub use values::{Item, Written};

use self::values::{description, items, moment, name, pattern};
use super::rule::Action;
use crate::config::network::network;
use crate::spiffe::IdPattern;
use crate::yaml::{self, Diagnostic, Fields, Findings, Node, Place, Value, one_of};

/// Rules in one file.
const MAX_RULES: usize = 10_000;
/// Named sets of a kind in one file.
const MAX_SETS: usize = 10_000;

/// The fields of a file.
pub(super) const TOP: &[&str] = &["ids", "networks", "rules", "budgets"];
/// The fields of a rule.
pub(super) const RULE: &[&str] = &[
    "name",
    "description",
    "action",
    "to",
    "ports",
    "from",
    "not_from",
    "source",
    "not_source",
    "http",
    "not_before",
    "expires",
];

/// One policy file, read.
#[derive(Debug)]
pub struct RuleFile {
    /// The rules in order. Where the file has errors, what could be read of them.
    pub rules: Vec<WrittenRule>,
    /// The named sets of SPIFFE IDs.
    pub ids: Vec<WrittenSet<IdPattern>>,
    /// The named sets of networks.
    pub networks: Vec<WrittenSet<IpNet>>,
    /// The budgets in order.
    pub budgets: Vec<WrittenBudget>,
    /// What was found so far; compiling adds to it.
    pub findings: Findings,
    /// The text it was read from.
    pub text: String,
}

/// One rule as written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenRule {
    /// Its name and where that stands.
    pub name: (Arc<str>, Place),
    /// For people.
    pub description: Option<Arc<str>>,
    /// What it does.
    pub action: Action,
    /// The listeners.
    pub to: Option<Vec<(Arc<str>, Place)>>,
    /// The listeners by their ports.
    pub ports: Option<Vec<(u16, Place)>>,
    /// The peers.
    pub from: Option<Vec<Item<IdPattern>>>,
    /// The peers it is not about.
    pub not_from: Option<Vec<Item<IdPattern>>>,
    /// The networks, IPv4-mapped ones as IPv4.
    pub source: Option<Vec<Item<IpNet>>>,
    /// The networks it is not about.
    pub not_source: Option<Vec<Item<IpNet>>>,
    /// Its beginning.
    pub not_before: Option<(SystemTime, Place)>,
    /// Its end.
    pub expires: Option<(SystemTime, Place)>,
}

/// One named set as written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenSet<T> {
    /// Its name, without the `$` of its use, and where that stands.
    pub name: (Arc<str>, Place),
    /// What it holds; other sets among it.
    pub items: Vec<Item<T>>,
}

/// Reads one policy file's text by itself. Pure; never panics.
///
/// # Errors
/// All that is wrong with it, short of what only shows beside other files and the config.
pub fn parse_text(text: &str) -> Result<Vec<WrittenRule>, Vec<Diagnostic>> {
    let file = read("policy", text);
    if file.findings.errors() > 0 {
        Err(file.findings.into_list())
    } else {
        Ok(file.rules)
    }
}

/// Reads one policy file's text, keeping what it says and findings both.
#[must_use]
pub fn read(file_name: &str, text: &str) -> RuleFile {
    let mut file = RuleFile {
        rules: Vec::new(),
        ids: Vec::new(),
        networks: Vec::new(),
        budgets: Vec::new(),
        findings: Findings::new(file_name, text),
        text: text.to_owned(),
    };
    top(text, &mut file);
    file
}

fn top(text: &str, file: &mut RuleFile) -> Option<()> {
    let RuleFile { findings, .. } = file;
    let root = yaml::root(text, "write `rules: []` if it shall hold no rule", findings)?;
    let top = Fields::of(&root, "", TOP, findings)?;
    if !TOP.iter().any(|field| top.mentions(field)) {
        let help = format!("a policy file has {}", one_of(TOP));
        findings.error_with_help(Place::default(), "the file says nothing", help);
    }
    file.ids = sets(&top, "ids", pattern, findings);
    file.networks = sets(&top, "networks", network, findings);
    file.rules = entries(&top, "rules", rule, findings);
    file.budgets = entries(&top, "budgets", budgets::budget, findings);
    Some(())
}

/// The entries of a list at the top of the file, each read by `read`. This list may be empty.
fn entries<T>(
    top: &Fields<'_>,
    field: &str,
    read: fn(&Node, usize, &mut Findings) -> Option<T>,
    findings: &mut Findings,
) -> Vec<T> {
    if top
        .get(field)
        .is_some_and(|node| node.value == Value::List(Vec::new()))
    {
        return Vec::new();
    }
    let items = top.list(field, MAX_RULES, findings).unwrap_or_default();
    (0..)
        .zip(items)
        .filter_map(|(index, item)| read(item, index, findings))
        .collect()
}

/// The named sets of one kind, whose values `read` reads.
fn sets<T>(
    top: &Fields<'_>,
    field: &'static str,
    read: values::Read<T>,
    findings: &mut Findings,
) -> Vec<WrittenSet<T>> {
    let mut sets = Vec::new();
    for (name, place, node) in top.mapping(field, MAX_SETS, findings).unwrap_or_default() {
        let name = values::checked_name(name, place, "a set", findings);
        let path = format!("{field}.{}", name.as_ref().map_or("", |name| name));
        let items = items(node, &path, read, findings);
        if let (Some(name), Some(items)) = (name, items) {
            sets.push(WrittenSet {
                name: (name, place),
                items,
            });
        }
    }
    sets
}

fn rule(node: &Node, index: usize, findings: &mut Findings) -> Option<WrittenRule> {
    let fields = Fields::of(node, &format!("rules[{index}]"), RULE, findings)?;
    let name = name(&fields, "a rule", findings);
    let description = description(&fields, findings);
    fields.require("action", "allow", findings);
    let actions = [
        ("allow", Action::Allow),
        ("deny", Action::Deny),
        ("audit", Action::Audit),
    ];
    let action = fields.word("action", &actions, findings);
    let to = values::listeners(&fields, findings);
    let ports = values::ports(&fields, findings);
    let from = values::list(&fields, "from", pattern, findings);
    let not_from = values::list(&fields, "not_from", pattern, findings);
    let source = values::list(&fields, "source", network, findings);
    let not_source = values::list(&fields, "not_source", network, findings);
    let not_before = moment(&fields, "not_before", findings);
    let expires = moment(&fields, "expires", findings);
    if let Some(place) = fields.key_place("http") {
        let help = "take it out, and the rule is about whole connections: HTTP rules are not in this version";
        let message = "a rule with `http` can match nothing: there is no listener with `protocol: http`";
        findings.error_with_help(place, message, help);
    }
    Some(WrittenRule {
        name: name?,
        description,
        action: action?,
        to,
        ports,
        from,
        not_from,
        source,
        not_source,
        not_before,
        expires,
    })
}
