//! One log line, and its two forms. Whatever a peer or a file put into a field is made harmless here, at the one
//! place that all lines pass.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::SystemTime;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;
use tracing::Level;

use crate::clock::rfc3339;
use crate::redaction::Redactor;

/// The longest text of one field or message, in characters; the rest is cut and marked by `…`.
const MAX_TEXT: usize = 4096;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Style {
    /// Text with colours, for a terminal.
    Color,
    /// Text without any.
    Plain,
    /// One JSON object.
    Json,
}

/// What a line says.
#[derive(Debug)]
pub(in crate::telemetry) struct Line<'a> {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(in crate::telemetry) fields: Vec<(&'static str, Value)>,
}

impl Line<'_> {
    /// Without what must not leave.
    pub(in crate::telemetry) fn redacted(mut self, redactor: Option<&Redactor>) -> Self {
        if let Some(redactor) = redactor {
            self.fields
                .iter_mut()
                .for_each(|(name, value)| redactor.apply(name, value));
        }
        self
    }

    /// The whole line with its line feed.
    pub(in crate::telemetry) fn render(&self, style: Style) -> String {
        match style {
            Style::Json => self.json(),
            Style::Plain => self.text(false),
            Style::Color => self.text(true),
        }
    }

    fn json(&self) -> String {
        // Serializing strings and numbers into a string cannot fail; were it to, an empty line would be honest.
        let mut plain = serde_json::to_string(self).unwrap_or_default();
        // serde_json escapes control characters but for DEL; what else can be harmful is not ASCII. Most lines hold neither.
        if plain.bytes().all(|b| b.is_ascii() && b != 0x7f) {
            plain.push('\n');
            return plain;
        }
        let mut out = String::with_capacity(plain.len() + 1);
        escape_json_into(&mut out, &plain);
        out.push('\n');
        out
    }

    fn text(&self, color: bool) -> String {
        let (dim, paint, reset) = if color {
            ("\x1b[2m", color_of(self.level), "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut out = format!(
            "{dim}{}{reset} {paint}{:5}{reset} {dim}{}:{reset} ",
            rfc3339(self.time),
            self.level.as_str(),
            self.target
        );
        escape_into(&mut out, &cut(self.message), false);
        for (name, value) in &self.fields {
            let _ = write!(out, " {dim}{name}={reset}");
            match value {
                // The same fields stand in every line, so that columns can be cut.
                Value::Null => out.push('-'),
                Value::Array(list) if list.is_empty() => out.push('-'),
                Value::String(text) => quote_into(&mut out, &cut(text)),
                // As JSON, which says itself where it ends.
                other => escape_json_into(&mut out, &other.to_string()),
            }
        }
        out.push('\n');
        out
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &rfc3339(self.time))?;
        map.serialize_entry("level", self.level.as_str())?;
        map.serialize_entry("target", self.target)?;
        map.serialize_entry("message", &cut(self.message))?;
        for (name, value) in &self.fields {
            // A field of an event must not take the place of one of the four above.
            let name: Cow<'_, str> = match *name {
                "timestamp" | "level" | "target" | "message" => format!("field_{name}").into(),
                name => name.into(),
            };
            match value {
                Value::String(text) => map.serialize_entry(&name, &cut(text))?,
                other => map.serialize_entry(&name, other)?,
            }
        }
        map.end()
    }
}

/// Characters that end a line, command a terminal, or change the order or presence of what a person sees.
pub(super) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or("")).into(),
        None => text.into(),
    }
}

/// Writes a value so that it can be told from its neighbours: in quotes where it is not one plain word.
fn quote_into(out: &mut String, text: &str) {
    let plain = |c: char| !c.is_whitespace() && !is_harmful(c) && !matches!(c, '"' | '\\' | '=');
    if !text.is_empty() && text != "-" && text.chars().all(plain) {
        out.push_str(text);
    } else {
        out.push('"');
        escape_into(out, text, true);
        out.push('"');
    }
}

/// serde_json escapes what JSON asks for. What else a terminal or a viewer obeys can stand only inside a string there, so
/// that escaping it needs no look at the grammar.
fn escape_json_into(out: &mut String, json: &str) {
    for c in json.chars() {
        if is_harmful(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
}

fn escape_into(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' if quoted => {
                out.push('\\');
                out.push(c);
            }
            c if is_harmful(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

const fn color_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}
