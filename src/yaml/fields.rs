//! Reading a mapping field by field, with a finding for whatever is unknown, repeated, empty or of the wrong kind.

use std::collections::HashMap;

use super::node::{Node, Place, Value};
use super::{Findings, closest, one_of};

/// The fields of one mapping, all of them known.
#[derive(Debug)]
pub struct Fields<'n> {
    /// Where the mapping stands.
    pub place: Place,
    /// What it is called in messages, such as `inbound[0]`; empty for the whole file.
    pub path: String,
    entries: Vec<(&'n str, Place, &'n Node)>,
    /// Fields that were meant but cannot be read, and of which there is a finding already.
    spoilt: Vec<&'n str>,
}

impl<'n> Fields<'n> {
    /// The fields of `node`, which must be a mapping with none but `known` keys. A finding is made for each key that is
    /// unknown, repeated or has no value; such keys then read as absent.
    pub fn of(node: &'n Node, path: &str, known: &[&'static str], findings: &mut Findings) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            let what = if path.is_empty() { "the file" } else { path };
            findings.error_with_help(
                node.place,
                format!("`{what}` must be a mapping, not {}", node.value.kind()),
                format!("its fields are {}", one_of(known)),
            );
            return None;
        };
        let mut entries: Vec<(&str, Place, &Node)> = Vec::new();
        let mut spoilt = Vec::new();
        for (key, value) in map {
            let Value::Text(name) = &key.value else { continue };
            let name = name.as_str();
            if !known.contains(&name) {
                spoilt.extend(unknown_field(key.place, name, path, known, findings));
            } else if let Some((_, first, _)) = entries.iter().find(|(other, ..)| *other == name) {
                let message = format!(
                    "`{}` is here twice, first in line {}",
                    join(path, name),
                    first.line
                );
                findings.error_with_help(key.place, message, "keep one of them");
            } else if value.value == Value::Null {
                let message = format!("`{}` has no value", join(path, name));
                findings.error_with_help(key.place, message, "give it a value, or take the line out");
                spoilt.push(name);
            } else {
                entries.push((name, key.place, value));
            }
        }
        Some(Self {
            place: node.place,
            path: path.to_owned(),
            entries,
            spoilt,
        })
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(key, ..)| *key == name)
            .map(|(.., value)| *value)
    }

    /// Whether the file has a field, readable or not, or one that is probably meant to be it.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        self.get(name).is_some() || self.spoilt.contains(&name)
    }

    /// Where the key of a field stands.
    #[must_use]
    pub fn key_place(&self, name: &str) -> Option<Place> {
        self.entries
            .iter()
            .find(|(key, ..)| *key == name)
            .map(|(_, place, _)| *place)
    }

    /// The full name of a field, for messages.
    #[must_use]
    pub fn name_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// The text of a field.
    pub fn text(&self, name: &str, findings: &mut Findings) -> Option<(&'n str, Place)> {
        let node = self.get(name)?;
        text(node, &self.name_of(name), findings).map(|text| (text, node.place))
    }

    /// The text of a field that must be there.
    pub fn required_text(
        &self,
        name: &str,
        example: &str,
        findings: &mut Findings,
    ) -> Option<(&'n str, Place)> {
        self.require(name, example, findings)?;
        self.text(name, findings)
    }

    /// The value of a field that must be there.
    pub fn require(&self, name: &str, example: &str, findings: &mut Findings) -> Option<&'n Node> {
        let node = self.get(name);
        if !self.mentions(name) {
            let message = if self.path.is_empty() {
                format!("`{name}` is missing")
            } else {
                format!("`{name}` is missing in `{}`", self.path)
            };
            findings.error_with_help(self.place, message, format!("for example `{name}: {example}`"));
        }
        node
    }

    /// The truth of a field.
    pub fn boolean(&self, name: &str, findings: &mut Findings) -> Option<bool> {
        let node = self.get(name)?;
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        let message = format!(
            "`{}` must be `true` or `false`, not {}",
            self.name_of(name),
            node.value.kind()
        );
        findings.error(node.place, message);
        None
    }

    /// The whole number of a field, within bounds.
    pub fn integer(&self, name: &str, least: u64, most: u64, findings: &mut Findings) -> Option<u64> {
        let node = self.get(name)?;
        match node.value {
            Value::Integer(value) if (least..=most).contains(&value) => Some(value),
            _ => {
                let message = format!(
                    "`{}` must be a whole number from {least} to {most}",
                    self.name_of(name)
                );
                findings.error(node.place, message);
                None
            }
        }
    }

    /// One of a closed set of words.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        let (typed, place) = self.text(name, findings)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == typed) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        unknown_word(place, typed, &self.name_of(name), &known, findings);
        None
    }

    /// The list of a field, not empty and not longer than `most`.
    pub fn list(&self, name: &str, most: usize, findings: &mut Findings) -> Option<&'n [Node]> {
        list_of(self.get(name)?, &self.name_of(name), most, findings)
    }

    /// The entries of a mapping whose keys are names of the file's own: not empty and not more than `most`.
    pub fn mapping(
        &self,
        name: &str,
        most: usize,
        findings: &mut Findings,
    ) -> Option<Vec<(&'n str, Place, &'n Node)>> {
        let node = self.get(name)?;
        let path = self.name_of(name);
        let Value::Map(map) = &node.value else {
            let message = format!("`{path}` must be a mapping, not {}", node.value.kind());
            findings.error(node.place, message);
            return None;
        };
        if map.is_empty() || map.len() > most {
            let message = format!("`{path}` has {} entries; it may have 1 to {most}", map.len());
            findings.error(node.place, message);
            return None;
        }
        let mut first_lines: HashMap<&str, u32> = HashMap::new();
        let mut entries = Vec::with_capacity(map.len());
        for (key, value) in map {
            let Value::Text(name) = &key.value else { continue };
            if let Some(line) = first_lines.insert(name, key.place.line) {
                let message = format!("`{path}.{name}` is here twice, first in line {line}");
                findings.error_with_help(key.place, message, "keep one of them");
            } else if value.value == Value::Null {
                let message = format!("`{path}.{name}` has no value");
                findings.error_with_help(key.place, message, "give it a value, or take the line out");
            } else {
                entries.push((name.as_str(), key.place, value));
            }
        }
        Some(entries)
    }

    /// The texts of a list, each with its place; findings for what is no text.
    pub fn texts(&self, name: &str, most: usize, findings: &mut Findings) -> Option<Vec<(&'n str, Place)>> {
        texts_of(self.get(name)?, &self.name_of(name), most, findings)
    }
}

/// The items of a list node, not empty and not longer than `most`.
fn list_of<'n>(node: &'n Node, path: &str, most: usize, findings: &mut Findings) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            let help = "name at least one, or take the line out";
            findings.error_with_help(node.place, format!("`{path}` is an empty list"), help);
            None
        }
        Value::List(items) if items.len() > most => {
            findings.error(
                node.place,
                format!("`{path}` has {} items; {most} is the most", items.len()),
            );
            None
        }
        Value::List(items) => Some(items),
        Value::Text(text) => {
            let message = format!("`{path}` must be a list, not text");
            findings.error_with_help(node.place, message, format!("write `[{text}]`"));
            None
        }
        other => {
            findings.error(
                node.place,
                format!("`{path}` must be a list, not {}", other.kind()),
            );
            None
        }
    }
}

/// The texts of a list node, each with its place; findings for what is no text.
pub(crate) fn texts_of<'n>(
    node: &'n Node,
    path: &str,
    most: usize,
    findings: &mut Findings,
) -> Option<Vec<(&'n str, Place)>> {
    let items = list_of(node, path, most, findings)?;
    let texts = items
        .iter()
        .filter_map(|item| Some((text(item, path, findings)?, item.place)));
    Some(texts.collect())
}

/// The text of a node.
pub(crate) fn text<'n>(node: &'n Node, path: &str, findings: &mut Findings) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) if text.trim().is_empty() => {
            findings.error(node.place, format!("`{path}` is empty"));
            None
        }
        Value::Text(text) => Some(text),
        Value::Bool(_) | Value::Integer(_) | Value::Number(_) => {
            let message = format!("`{path}` must be text; YAML reads this as {}", node.value.kind());
            findings.error_with_help(node.place, message, "put it in quotes");
            None
        }
        other => {
            findings.error(node.place, format!("`{path}` must be text, not {}", other.kind()));
            None
        }
    }
}

/// A finding about a word that is none of `known`.
fn unknown_word(place: Place, typed: &str, path: &str, known: &[&str], findings: &mut Findings) {
    let message = format!("`{typed}` is no value of `{path}`");
    let help = match closest(typed, known) {
        Some(word) => format!("did you mean `{word}`? it may be {}", one_of(known)),
        None => format!("it may be {}", one_of(known)),
    };
    findings.error_with_help(place, message, help);
}

/// Returns the field that was probably meant.
fn unknown_field(
    place: Place,
    typed: &str,
    path: &str,
    known: &[&'static str],
    findings: &mut Findings,
) -> Option<&'static str> {
    let message = if path.is_empty() {
        format!("unknown field `{typed}`")
    } else {
        format!("unknown field `{typed}` in `{path}`")
    };
    let meant = closest(typed, known);
    let help = match meant {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("the fields here are {}", one_of(known)),
    };
    findings.error_with_help(place, message, help);
    meant
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
