//! From trees to text, in the form that `kubectl` writes: block style, two blanks, lists under their key.
//!
//! Promises that readers of YAML 1.1 and of 1.2 read the same: whatever one of them might take for a truth value, a number or a
//! time is in quotes if it is text.

use super::tree::{Node, Scalar, is_text_everywhere};

/// One document's text, its last line ended.
#[must_use]
pub(super) fn write(node: &Node) -> String {
    let mut out = String::new();
    match node {
        Node::Map(entries) if !entries.is_empty() => write_map(entries, 0, false, &mut out),
        Node::List(items) if !items.is_empty() => write_list(items, 0, false, &mut out),
        other => {
            write_inline(other, 1, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// `inline`: the first line is begun already, behind a list's dash.
fn write_map(entries: &[(Scalar, Node)], depth: usize, inline: bool, out: &mut String) {
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 || !inline {
            indent(depth, out);
        }
        write_scalar(key, None, out);
        out.push(':');
        match value {
            Node::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                write_map(entries, depth + 1, false, out);
            }
            Node::List(items) if !items.is_empty() => {
                out.push('\n');
                write_list(items, depth, false, out);
            }
            other => {
                out.push(' ');
                write_inline(other, depth + 1, out);
                out.push('\n');
            }
        }
    }
}

fn write_list(items: &[Node], depth: usize, inline: bool, out: &mut String) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !inline {
            indent(depth, out);
        }
        out.push_str("- ");
        match item {
            Node::Map(entries) if !entries.is_empty() => write_map(entries, depth + 1, true, out),
            Node::List(items) if !items.is_empty() => write_list(items, depth + 1, true, out),
            other => {
                write_inline(other, depth + 1, out);
                out.push('\n');
            }
        }
    }
}

/// A scalar or an empty collection; no end of line behind it.
fn write_inline(node: &Node, depth: usize, out: &mut String) {
    match node {
        Node::Scalar(scalar) => write_scalar(scalar, Some(depth), out),
        Node::List(_) => out.push_str("[]"),
        Node::Map(_) => out.push_str("{}"),
    }
}

/// `block`: how deep a block's lines stand, where one may be written.
fn write_scalar(scalar: &Scalar, block: Option<usize>, out: &mut String) {
    let text = &scalar.text;
    if !scalar.is_text || is_text_everywhere(text) {
        out.push_str(text);
        return;
    }
    match block {
        Some(depth) if is_block(text) => write_block(text, depth, out),
        _ => write_quoted(text, out),
    }
}

/// Whether a text of several lines reads well, and reads back, as a literal block.
fn is_block(text: &str) -> bool {
    let starts_well = !text.starts_with([' ', '\n', '\t']);
    let harmless = |c: char| c == '\n' || c == '\t' || is_printable(c);
    let line_is_good = |line: &str| !line.starts_with('\t') && !line.ends_with([' ', '\t']);
    text.contains('\n') && starts_well && text.chars().all(harmless) && text.lines().all(line_is_good)
}

fn write_block(text: &str, depth: usize, out: &mut String) {
    let content = text.trim_end_matches('\n');
    let ends = text.len() - content.len();
    out.push_str(match ends {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in content.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(depth, out);
            out.push_str(line);
        }
    }
    // The caller ends the last line.
    out.extend(std::iter::repeat_n('\n', ends.saturating_sub(1)));
}

fn write_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
}

/// What both versions of YAML let stand as it is, ends of lines of any kind and byte order marks left out.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
        && u32::from(c) <= 0xffff
}
