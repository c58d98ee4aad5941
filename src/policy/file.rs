//! Rules as written: one policy file becomes a list of rules, every value with its place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::rule::Action;
use crate::spiffe::IdPattern;
use crate::yaml::{self, Diagnostic, Fields, Findings, Node, Place, Value};

/// Rules in one file.
const MAX_RULES: usize = 10_000;
/// Values in one list of a rule.
const MAX_VALUES: usize = 10_000;
/// Characters of a description.
const MAX_DESCRIPTION: usize = 1000;

const RULE: &[&str] = &[
    "name",
    "description",
    "action",
    "to",
    "from",
    "source",
    "http",
    "not_before",
    "expires",
];

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
    /// For people.
    pub description: Option<Arc<str>>,
    /// What it does.
    pub action: Action,
    /// The listeners.
    pub to: Option<Vec<(Arc<str>, Place)>>,
    /// The peers.
    pub from: Option<Vec<IdPattern>>,
    /// The networks, IPv4-mapped ones as IPv4.
    pub source: Option<Vec<IpNet>>,
    /// Its beginning.
    pub not_before: Option<(SystemTime, Place)>,
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
    let name = name(&fields, "a rule", findings);
    let description = description(&fields, findings);
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
    let from = patterns(&fields, "from", findings);
    let source = source(&fields, findings);
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
        from,
        source,
        not_before,
        expires,
    })
}

/// Names are labels of metrics and stand in every record: short, and of plain characters.
pub(super) fn name(fields: &Fields<'_>, of: &str, findings: &mut Findings) -> Option<(Arc<str>, Place)> {
    let (text, place) = fields.required_text("name", "web-reads-orders", findings)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':');
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        return Some((text.into(), place));
    }
    let help = "1 to 128 characters of `a-z`, `A-Z`, `0-9`, `-`, `_`, `.`, `/` and `:`";
    findings.error_with_help(place, format!("`{text}` cannot be {of}'s name"), help);
    None
}

/// Free text for people. It stands in every record that the rule decides about.
pub(super) fn description(fields: &Fields<'_>, findings: &mut Findings) -> Option<Arc<str>> {
    let (text, place) = fields.text("description", findings)?;
    if text.chars().count() > MAX_DESCRIPTION {
        let message = format!(
            "`{}` is longer than {MAX_DESCRIPTION} characters",
            fields.name_of("description")
        );
        findings.error_with_help(
            place,
            message,
            "it stands in every record of a decision: keep it to a line or two",
        );
        return None;
    }
    Some(text.trim().into())
}

pub(super) fn patterns(fields: &Fields<'_>, field: &str, findings: &mut Findings) -> Option<Vec<IdPattern>> {
    let texts = fields.texts(field, MAX_VALUES, findings)?;
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

/// An address or a network. IPv4-mapped ones become IPv4, as the addresses do that they are compared with.
fn network(text: &str) -> Result<IpNet, (String, String)> {
    let parsed = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| {
            let message = format!("`{text}` is neither an IP address nor a network");
            (
                message,
                "for example `10.0.0.0/8`, `10.1.2.3` or `fd00::/8`".to_owned(),
            )
        })?),
    };
    if parsed.trunc() != parsed {
        let message = format!("`{text}` has bits set beyond its prefix");
        let help = format!(
            "write `{}` for the network, `{}` for the address",
            parsed.trunc(),
            parsed.addr()
        );
        return Err((message, help));
    }
    let IpNet::V6(v6) = parsed else { return Ok(parsed) };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => {
            // The prefix is at most 128 - 96.
            ipnet::Ipv4Net::new(v4, prefix)
                .map(IpNet::V4)
                .map_err(|error| (error.to_string(), String::new()))
        }
        _ => Ok(parsed),
    }
}

/// An instant: date, time and zone.
pub(super) fn moment(
    fields: &Fields<'_>,
    field: &str,
    findings: &mut Findings,
) -> Option<(SystemTime, Place)> {
    let (text, place) = fields.text(field, findings)?;
    match time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339) {
        Ok(at) => Some((at.into(), place)),
        Err(_) => {
            let help = "write date, time and zone (RFC 3339): `2027-01-01T00:00:00Z`";
            findings.error_with_help(place, format!("`{text}` is no point in time"), help);
            None
        }
    }
}
