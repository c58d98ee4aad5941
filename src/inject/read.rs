//! From text to trees. A file is cut into its documents first, so that those which stay as they are can be written
//! again to the byte.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::tree::{Node, Scalar};
use crate::yaml::{Findings, Place};

/// The most values of one document, anchors expanded: many times the largest manifest, and what a bomb made of anchors meets.
const MAX_VALUES: usize = 200_000;
/// The most collections inside each other.
const MAX_DEPTH: usize = 100;
/// The longest key. YAML's own limit for a key on one line is 1024 characters, quotes and escapes included.
const MAX_KEY: usize = 253 + 1 + 63 + 1;

/// One document of a file, as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'t> {
    /// The line that begins it (`---`, perhaps with something behind), its end included; the first may have none.
    pub separator: Option<&'t str>,
    /// All up to the next one.
    pub body: &'t str,
    /// The line on which the document begins, from 0, the separator's if it has one.
    pub line: u32,
}

/// The documents of a file. A line that begins with `---` always begins one (YAML 1.2.2, section 9.1.2: it has no
/// place in any scalar), as it does for `kubectl`.
pub(super) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let (mut all, mut begin, mut at) = (Vec::new(), 0, 0);
    let mut current = (None, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        let end = at + line.len();
        if marker {
            let body = text.get(begin..at).unwrap_or_default();
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            // Directives belong to the document behind them.
            if current.0.is_none() && body.starts_with('%') {
                current = (text.get(begin..end), current.1);
            } else {
                if current.0.is_some() || !body.is_empty() {
                    all.push(chunk(current, body));
                }
                // What stands on the line itself is part of the document.
                current = (Some(line), number);
            }
            begin = end;
        }
        at = end;
    }
    all.push(chunk(current, text.get(begin..).unwrap_or_default()));
    all
}

fn chunk<'t>((separator, line): (Option<&'t str>, u32), body: &'t str) -> Chunk<'t> {
    Chunk {
        separator,
        body,
        line,
    }
}

/// A collection whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Scalar>,
    values: usize,
    /// The depth of what it holds, itself included.
    depth: usize,
    place: Place,
}

/// What an anchor stands for.
struct Anchored {
    node: Node,
    values: usize,
    depth: usize,
}

/// Reads one document. `None` when there is nothing in it, or when a finding says why it cannot be read.
pub(super) fn read(chunk: &Chunk<'_>, findings: &mut Findings) -> Option<Node> {
    let text = format!("{}{}", chunk.separator.unwrap_or_default(), chunk.body);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(&text) {
        let (event, span) = match event {
            Ok(found) => found,
            Err(error) => {
                let marker = error.marker();
                let place = placed(marker.line(), marker.col(), 0, chunk.line);
                findings.error(place, format!("this is no YAML: {}", error.info()));
                return None;
            }
        };
        let place = place_of(&span, chunk.line);
        if let Err(why) = builder.take(event, place) {
            findings.error(place, why);
            return None;
        }
    }
    builder.root
}

fn place_of(span: &Span, offset: u32) -> Place {
    let one_line = span.start.line() == span.end.line();
    let width = if one_line { span.len() } else { 0 };
    placed(span.start.line(), span.start.col(), width, offset)
}

/// granit counts lines from 1 and columns from 0.
fn placed(line: usize, column: usize, width: usize, offset: u32) -> Place {
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        line: small(line).saturating_add(offset),
        column: small(column).saturating_add(1),
        width: small(width),
    }
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    root: Option<Node>,
    /// Values seen so far, those that aliases repeat included.
    values: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.as_ref().map(|tag| tag.is_yaml_core_schema_tag("str"));
                let scalar = match (is_text, style) {
                    (None, ScalarStyle::Plain) => Scalar::unquoted(&text, place),
                    (None | Some(true), _) => Scalar {
                        place,
                        ..Scalar::of_text(text)
                    },
                    (Some(false), _) => return Err(tag_refused()),
                };
                self.value(Node::Scalar(scalar), anchor, 1, 0)
            }
            Event::SequenceStart(_, anchor, tag) => {
                if tag.is_some_and(|tag| !tag.is_yaml_core_schema_tag("seq")) {
                    return Err(tag_refused());
                }
                self.begin(Node::List(Vec::new()), anchor, place)
            }
            Event::MappingStart(_, anchor, tag) => {
                if tag.is_some_and(|tag| !tag.is_yaml_core_schema_tag("map")) {
                    return Err(tag_refused());
                }
                self.begin(Node::Map(Vec::new()), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.open.pop() else {
                    return Err("this ends nothing".to_owned());
                };
                if let Node::Map(entries) = &mut open.node {
                    merge(entries)?;
                }
                self.value(open.node, open.anchor, open.values, open.depth)
            }
            Event::Alias(id) => {
                let Some(found) = self.anchors.get(&id) else {
                    return Err("this alias is inside of what it stands for".to_owned());
                };
                let (node, values, depth) = (found.node.clone(), found.values, found.depth);
                self.count(values)?;
                self.value(node, 0, values, depth)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                Err("a second document without a line `---` before it".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, node: Node, anchor: usize, place: Place) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} collections are inside each other"));
        }
        self.open.push(Open {
            node,
            anchor,
            key: None,
            values: 1,
            depth: 1,
            place,
        });
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_VALUES {
            return Err(format!("the document has more than {MAX_VALUES} values"));
        }
        Ok(())
    }

    /// Puts a value where it belongs: the key or the value of a mapping, an item of a list, or the root.
    fn value(&mut self, node: Node, anchor: usize, values: usize, depth: usize) -> Result<(), String> {
        self.count(1)?;
        if self.open.len() + depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} collections are inside each other"));
        }
        if anchor > 0 {
            let node = node.clone();
            self.count(values)?;
            self.anchors.insert(anchor, Anchored { node, values, depth });
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.values = open.values.saturating_add(values);
        open.depth = open.depth.max(depth + 1);
        match (&mut open.node, open.key.take(), node) {
            (Node::List(items), _, node) => items.push(node),
            (Node::Map(entries), Some(key), node) => entries.push((key, node)),
            (Node::Map(entries), None, Node::Scalar(key)) => {
                if key.text.len() > MAX_KEY {
                    return Err(format!("a key is longer than {MAX_KEY} bytes"));
                }
                if entries.iter().any(|(other, _)| other.text == key.text) {
                    return Err(format!("`{}` is here twice", key.text));
                }
                open.key = Some(key);
            }
            (Node::Map(_), None, _) => {
                return Err(format!(
                    "a mapping (line {}) has a collection as a key",
                    open.place.line
                ));
            }
            (Node::Scalar(_), ..) => return Err("a scalar holds nothing".to_owned()),
        }
        Ok(())
    }
}

fn tag_refused() -> String {
    "tags (`!…`) are not read here; take the tag out".to_owned()
}

/// Expands a merge key (`<<`, of YAML 1.1, which `kubectl` reads): keys of the mapping itself come first.
fn merge(entries: &mut Vec<(Scalar, Node)>) -> Result<(), String> {
    let Some(at) = entries
        .iter()
        .position(|(key, _)| key.text == "<<" && !key.is_text)
    else {
        return Ok(());
    };
    let (_, merged) = entries.remove(at);
    let sources = match merged {
        Node::List(items) => items,
        one => vec![one],
    };
    let mut at = at;
    for source in sources {
        let Node::Map(source) = source else {
            return Err("`<<` takes a mapping, or a list of them".to_owned());
        };
        for (key, value) in source {
            if !entries.iter().any(|(other, _)| other.text == key.text) {
                entries.insert(at, (key, value));
                at += 1;
            }
        }
    }
    Ok(())
}
