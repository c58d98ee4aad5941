//! Rules as written: one policy file becomes a list of rules, every value with its place.

use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::rule::Action;
use crate::config::network::network;
use crate::spiffe::IdPattern;
use crate::yaml::{self, Diagnostic, Fields, Findings, Node, Place, Value};

/// Rules in one file.
const MAX_RULES: usize = 10_000;
/// Values in one list of a rule.
const MAX_VALUES: usize = 10_000;

const RULE: &[&str] = &["name", "action", "to", "from", "source", "http", "expires"];

/// One policy file, read.
#[derive(Debug)]
pub struct RuleFile {
    /// The rules in order. Where the file has errors, what could be read of them.
    pub rules: Vec<WrittenRule>,
    /// What was found so far; compiling adds to it.
    pub findings: Findings,
    /// The text the rules were read from.
    pub text: String,
}

/// One rule as written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenRule {
    /// Its name and where that stands.
    pub name: (Arc<str>, Place),
    /// What it does.
    pub action: Action,
    /// The listeners.
    pub to: Option<Vec<(Arc<str>, Place)>>,
    /// The peers.
    pub from: Option<Vec<IdPattern>>,
    /// The networks, IPv4-mapped ones as IPv4.
    pub source: Option<Vec<IpNet>>,
    /// Its end.
    pub expires: Option<(SystemTime, Place)>,
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

/// Reads one policy file's text, keeping rules and findings both.
#[must_use]
pub fn read(file_name: &str, text: &str) -> RuleFile {
    let mut findings = Findings::new(file_name, text);
    let rules = rules(text, &mut findings).unwrap_or_default();
    RuleFile {
        rules,
        findings,
        text: text.to_owned(),
    }
}

fn rules(text: &str, findings: &mut Findings) -> Option<Vec<WrittenRule>> {
    let root = yaml::root(text, "write `rules: []` if it shall hold no rule", findings)?;
    let top = Fields::of(&root, "", &["rules"], findings)?;
    let node = top.require("rules", "[]", findings)?;
    if node.value == Value::List(Vec::new()) {
        return Some(Vec::new());
    }
    let items = top.list("rules", MAX_RULES, findings)?;
    Some(
        items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| rule(item, i, findings))
            .collect(),
    )
}

fn rule(node: &Node, index: usize, findings: &mut Findings) -> Option<WrittenRule> {
    let fields = Fields::of(node, &format!("rules[{index}]"), RULE, findings)?;
    let name = name(&fields, findings);
    fields.require("action", "allow", findings);
    let actions = [
        ("allow", Action::Allow),
        ("deny", Action::Deny),
        ("audit", Action::Audit),
    ];
    let action = fields.word("action", &actions, findings);
    let to = fields.texts("to", MAX_VALUES, findings);
    let to = to.map(|names| {
        names
            .into_iter()
            .map(|(name, place)| (Arc::from(name), place))
            .collect()
    });
    let from = from(&fields, findings);
    let source = source(&fields, findings);
    let expires = expires(&fields, findings);
    if let Some(place) = fields.key_place("http") {
        let help = "take it out, and the rule is about whole connections: HTTP rules are not in this version";
        let message = "a rule with `http` can match nothing: there is no listener with `protocol: http`";
        findings.error_with_help(place, message, help);
    }
    Some(WrittenRule {
        name: name?,
        action: action?,
        to,
        from,
        source,
        expires,
    })
}

/// Names are labels of metrics and stand in every record: short, and of plain characters.
fn name(fields: &Fields<'_>, findings: &mut Findings) -> Option<(Arc<str>, Place)> {
    let (text, place) = fields.required_text("name", "web-reads-orders", findings)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':');
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        return Some((text.into(), place));
    }
    let help = "1 to 128 characters of `a-z`, `A-Z`, `0-9`, `-`, `_`, `.`, `/` and `:`";
    findings.error_with_help(place, format!("`{text}` cannot be a rule's name"), help);
    None
}

fn from(fields: &Fields<'_>, findings: &mut Findings) -> Option<Vec<IdPattern>> {
    let texts = fields.texts("from", MAX_VALUES, findings)?;
    let mut patterns = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        match text.parse::<IdPattern>() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let message = format!("`{text}` is no SPIFFE ID pattern: {error}");
                findings.error_with_help(place, message, error.advice());
            }
        }
    }
    Some(patterns)
}

fn source(fields: &Fields<'_>, findings: &mut Findings) -> Option<Vec<IpNet>> {
    let texts = fields.texts("source", MAX_VALUES, findings)?;
    let mut networks = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        match network(text) {
            Ok(network) => networks.push(network),
            Err((message, help)) => findings.error_with_help(place, message, help),
        }
    }
    Some(networks)
}

fn expires(fields: &Fields<'_>, findings: &mut Findings) -> Option<(SystemTime, Place)> {
    let (text, place) = fields.text("expires", findings)?;
    match time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339) {
        Ok(at) => Some((at.into(), place)),
        Err(_) => {
            let help = "write date, time and zone (RFC 3339): `2027-01-01T00:00:00Z`";
            findings.error_with_help(place, format!("`{text}` is no point in time"), help);
            None
        }
    }
}
