//! YAML files as people write them: parsed with the place of every value, read field by field, and answered with
//! diagnostics that show the line and say what to write instead.
//!
//! Owns the tree ([`Node`]), the reader of mappings ([`Fields`]) and the list of findings ([`Findings`]). It promises
//! that a file's problems are all reported, not only the first, that nothing is dropped in silence, and that no
//! input makes it panic or grow without bound. What the values mean is left to `config` and `policy`, which share it.

mod diagnostic;
mod fields;
mod node;
#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Findings, Severity};
pub use fields::Fields;
pub(crate) use fields::{text, texts_of};
pub use node::{Node, Place, Value};

/// The greatest size of a config or policy file, in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Parses one YAML document. A finding is made, and `None` returned, when it cannot be read as YAML at all.
#[must_use]
pub fn parse(text: &str, findings: &mut Findings) -> Option<Node> {
    node::parse(text, findings)
}

/// The root of a file that must hold something. A finding is made, and `None` returned, when the text is too large, no
/// YAML, or empty; `if_empty` then says what to write.
#[must_use]
pub fn root(text: &str, if_empty: &str, findings: &mut Findings) -> Option<Node> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes, the most that is read");
        findings.error(Place::default(), message);
        return None;
    }
    let root = parse(text, findings)?;
    if root.value == Value::Null {
        findings.error_with_help(Place::default(), "the file is empty", if_empty);
        return None;
    }
    Some(root)
}

/// The bytes of a file as text: within [`MAX_FILE_BYTES`] and UTF-8, a leading byte order mark taken off.
///
/// # Errors
/// One diagnostic that says which of these does not hold.
pub fn decode<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Box<Diagnostic>> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Box::new(Diagnostic::of_file(
            file,
            format!("the file is larger than {MAX_FILE_BYTES} bytes, the most that is read"),
        )));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|b| **b == b'\n').count().saturating_add(1);
            Err(Box::new(
                Diagnostic::of_file(
                    file,
                    format!("the file is not UTF-8: line {line} holds other bytes"),
                )
                .with_help("save the file as UTF-8"),
            ))
        }
    }
}

/// The word of `known` that `typed` was probably meant to be.
#[must_use]
pub fn closest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    // Long rubbish is like nothing we know, and the comparison is quadratic.
    if typed.len() > 64 {
        return None;
    }
    let typed = typed.to_ascii_lowercase();
    known
        .iter()
        .map(|word| (strsim::jaro_winkler(&typed, word), *word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// "`a`, `b` or `c`".
#[must_use]
pub fn one_of(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", most.join(", "))
        }
    }
}

/// A count with its noun: `1 rule`, `2 rules`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}
