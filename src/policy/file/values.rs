//! The kinds of value in policy files and deny lists.

use std::sync::Arc;
use std::time::SystemTime;

use crate::spiffe::IdPattern;
use crate::yaml::{self, Fields, Findings, Node, Place, Value};

/// Values in one list.
pub(in crate::policy) const MAX_VALUES: usize = 10_000;
/// Characters of a description.
const MAX_DESCRIPTION: usize = 1000;

/// One item of a list whose values may come from named sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Item<T> {
    /// As it is written.
    pub text: Arc<str>,
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub is: Written<T>,
}

/// What an item says.
#[derive(Clone, Debug, PartialEq)]
pub enum Written<T> {
    /// A value.
    Value(T),
    /// The values of a named set; the name without its `$`.
    Set(Arc<str>),
}

/// Reads a value of a list, or says what is wrong with it and what to write instead.
pub(in crate::policy) type Read<T> = fn(&str) -> Result<T, (String, String)>;

/// Free text for people. It stands in every record that its rule decides about.
pub(in crate::policy) fn description(fields: &Fields<'_>, findings: &mut Findings) -> Option<Arc<str>> {
    let (text, place) = fields.text("description", findings)?;
    if text.chars().count() > MAX_DESCRIPTION {
        let name = fields.name_of("description");
        let message = format!("`{name}` is longer than {MAX_DESCRIPTION} characters");
        let help = "it stands in every record of a decision: a line or two";
        findings.error_with_help(place, message, help);
        return None;
    }
    Some(text.trim().into())
}

/// The name of a rule, budget or entry, and its place.
pub(in crate::policy) fn name(
    fields: &Fields<'_>,
    of: &str,
    findings: &mut Findings,
) -> Option<(Arc<str>, Place)> {
    let (text, place) = fields.required_text("name", "web-reads-orders", findings)?;
    checked_name(text, place, of, findings).map(|name| (name, place))
}

/// Names are labels of metrics and stand in every record: short, and of plain characters.
pub(super) fn checked_name(text: &str, place: Place, of: &str, findings: &mut Findings) -> Option<Arc<str>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':');
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        return Some(text.into());
    }
    let help = "1 to 128 characters of `a-z`, `A-Z`, `0-9`, `-`, `_`, `.`, `/` and `:`";
    findings.error_with_help(place, format!("`{text}` cannot be {of}'s name"), help);
    None
}

/// The listeners that `to` names.
pub(super) fn listeners(fields: &Fields<'_>, findings: &mut Findings) -> Option<Vec<(Arc<str>, Place)>> {
    let names = fields.texts("to", MAX_VALUES, findings)?;
    Some(
        names
            .into_iter()
            .map(|(name, place)| (name.into(), place))
            .collect(),
    )
}

/// The ports of a rule.
pub(super) fn ports(fields: &Fields<'_>, findings: &mut Findings) -> Option<Vec<(u16, Place)>> {
    let mut ports: Vec<(u16, Place)> = Vec::new();
    for item in fields.list("ports", MAX_VALUES, findings)? {
        match item.value {
            Value::Integer(number @ 1..=65535) => {
                let port = u16::try_from(number).unwrap_or_default();
                if ports.iter().any(|(other, _)| *other == port) {
                    findings.error(item.place, format!("`{port}` is in `ports` twice"));
                }
                ports.push((port, item.place));
            }
            _ => {
                let message = format!(
                    "`{}` holds whole numbers from 1 to 65535",
                    fields.name_of("ports")
                );
                findings.error(item.place, message);
            }
        }
    }
    Some(ports)
}

/// A list of values and named sets.
pub(super) fn list<T>(
    fields: &Fields<'_>,
    field: &str,
    read: Read<T>,
    findings: &mut Findings,
) -> Option<Vec<Item<T>>> {
    items(fields.get(field)?, &fields.name_of(field), read, findings)
}

/// The items of a list node, which `path` names.
pub(super) fn items<T>(
    node: &Node,
    path: &str,
    read: Read<T>,
    findings: &mut Findings,
) -> Option<Vec<Item<T>>> {
    let texts = yaml::texts_of(node, path, MAX_VALUES, findings)?;
    let mut items = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        let is = match text.strip_prefix('$') {
            Some(name) => checked_name(name, place, "a set", findings).map(Written::Set),
            None => match read(text) {
                Ok(value) => Some(Written::Value(value)),
                Err((message, help)) => {
                    findings.error_with_help(place, message, help);
                    None
                }
            },
        };
        if let Some(is) = is {
            items.push(Item {
                text: text.into(),
                place,
                is,
            });
        }
    }
    Some(items)
}

/// Patterns alone, where no named set can be.
pub(in crate::policy) fn patterns(
    fields: &Fields<'_>,
    field: &str,
    findings: &mut Findings,
) -> Option<Vec<IdPattern>> {
    let mut patterns = Vec::new();
    for (text, place) in fields.texts(field, MAX_VALUES, findings)? {
        match pattern(text) {
            Ok(pattern) => patterns.push(pattern),
            Err((message, help)) => findings.error_with_help(place, message, help),
        }
    }
    Some(patterns)
}

pub(super) fn pattern(text: &str) -> Result<IdPattern, (String, String)> {
    text.parse()
        .map_err(|error: crate::spiffe::pattern::IdPatternError| {
            let message = format!("`{text}` is no SPIFFE ID pattern: {error}");
            (message, error.advice().to_owned())
        })
}

/// An instant: date, time and zone.
pub(in crate::policy) fn moment(
    fields: &Fields<'_>,
    field: &str,
    findings: &mut Findings,
) -> Option<(SystemTime, Place)> {
    let (text, place) = fields.text(field, findings)?;
    match crate::clock::parse_rfc3339(text) {
        Some(at) => Some((at, place)),
        None => {
            let help = "write date, time and zone (RFC 3339): `2027-01-01T00:00:00Z`";
            findings.error_with_help(place, format!("`{text}` is no point in time"), help);
            None
        }
    }
}
