//! A YAML document as a tree that keeps what it does not understand: the order of keys, and each scalar as it was
//! written wherever a reader might take it for something else than text.

use crate::yaml::Place;

/// A value, anchors and merge keys expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Text, a number, a truth value, nothing.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Scalar, Node)>),
}

/// A scalar. Two are equal when they are written alike; where they stand does not matter.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text, escapes resolved.
    pub text: String,
    /// Whether every reader takes it for text: it is written in quotes where it must be. Otherwise it stood without
    /// quotes and is written again as it stood, so that `0x1`, `010`, `yes` and `12345678901234567890` mean afterwards
    /// what they meant before, whatever that is to the reader.
    pub is_text: bool,
    /// Where it stands.
    pub place: Place,
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.is_text == other.is_text
    }
}

impl Eq for Scalar {}

impl Scalar {
    /// Text that stands nowhere yet.
    #[must_use]
    pub fn of_text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_text: true,
            place: Place::default(),
        }
    }

    /// A number or a truth value that stands nowhere yet.
    fn plain(text: String) -> Self {
        Self {
            text,
            is_text: false,
            place: Place::default(),
        }
    }

    /// A scalar of a file that stood without quotes.
    #[must_use]
    pub fn unquoted(text: &str, place: Place) -> Self {
        // What is left out and `~` are nothing.
        let text = if matches!(text, "" | "~") { "null" } else { text };
        Self {
            text: text.to_owned(),
            // What is folded over lines is neither a number nor any of the words.
            is_text: is_text_everywhere(text) || text.contains('\n'),
            place,
        }
    }

    /// Whether the API server is given a string: also for what stood without quotes and can only be text.
    #[must_use]
    pub fn is_string(&self) -> bool {
        self.is_text || !looks_like_something(&self.text)
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Scalar(Scalar::of_text(text))
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Scalar(Scalar::of_text(text))
    }
}

impl From<bool> for Node {
    fn from(value: bool) -> Self {
        Self::Scalar(Scalar::plain(value.to_string()))
    }
}

impl From<u64> for Node {
    fn from(value: u64) -> Self {
        Self::Scalar(Scalar::plain(value.to_string()))
    }
}

/// A mapping of these entries.
pub(super) fn map<const N: usize>(entries: [(&str, Node); N]) -> Node {
    let entries = entries.into_iter();
    Node::Map(
        entries
            .map(|(key, value)| (Scalar::of_text(key), value))
            .collect(),
    )
}

/// A list of texts.
pub(super) fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Node {
    Node::List(items.into_iter().map(|item| Node::from(item.as_ref())).collect())
}

impl Node {
    /// The value of a key of a mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// A key of a mapping, with its value.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<(&Scalar, &Self)> {
        match self {
            Self::Map(entries) => entries
                .iter()
                .find(|(name, _)| name.text == key)
                .map(|(name, value)| (name, value)),
            _ => None,
        }
    }

    /// The value at the end of a path of keys.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// As [`Node::at`], to be changed.
    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, key| node.get_mut(key))
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Map(entries) => entries
                .iter_mut()
                .find(|(name, _)| name.text == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// Whether nothing is there: `null`, or a collection without entries.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        match self {
            Self::Scalar(scalar) => !scalar.is_text && scalar.text.eq_ignore_ascii_case("null"),
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        }
    }

    /// Sets a key of a mapping: where it stands, or behind the others. Nothing becomes a mapping.
    pub fn set(&mut self, key: &str, value: Self) {
        if let Some(old) = self.get_mut(key) {
            *old = value;
            return;
        }
        if self.is_nothing() {
            *self = Self::Map(Vec::new());
        }
        if let Self::Map(entries) = self {
            entries.push((Scalar::of_text(key), value));
        }
    }

    /// Takes a key out of a mapping.
    pub fn remove(&mut self, key: &str) {
        if let Self::Map(entries) = self {
            entries.retain(|(name, _)| name.text != key);
        }
    }
}

/// Words that YAML 1.1 (which `kubectl` reads by) or 1.2 take for a truth value, a number or nothing, in any case.
const WORDS: &[&str] = &[
    "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf",
];

/// Whether a text may stand without quotes and is text to every reader of YAML 1.1 and 1.2. Strict: where there is a
/// doubt, it is not.
pub(super) fn is_text_everywhere(text: &str) -> bool {
    let first_is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let all_are_plain = text.bytes().all(|b| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b' ' | b'_'
                    | b'.'
                    | b'/'
                    | b':'
                    | b'@'
                    | b'%'
                    | b'+'
                    | b','
                    | b'-'
                    | b'='
                    | b'*'
                    | b'('
                    | b')'
                    | b'$'
            )
    });
    first_is_plain
        && all_are_plain
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// Whether text without quotes may be something else than text to a reader: one of the words, or what is built like
/// a number or a time.
fn looks_like_something(text: &str) -> bool {
    let like_a_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.bytes().all(|b| {
            b.is_ascii_hexdigit()
                || matches!(
                    b,
                    b'+' | b'-' | b'.' | b'_' | b':' | b'x' | b'o' | b'T' | b'Z' | b' '
                )
        });
    let special = [".inf", ".nan", "+.inf", "-.inf", "~", "", "=", "<<"];
    like_a_number
        || WORDS
            .iter()
            .chain(&special)
            .any(|word| word.eq_ignore_ascii_case(text))
}
