//! What is wrong with a file, where, and what to write instead.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::node::Place;

/// Findings kept for one file; the rest is counted.
const MAX_FINDINGS: usize = 100;

/// The most characters of a source line that are shown.
const MAX_SHOWN: usize = 160;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, and somebody should look at it.
    Warning,
}

/// One finding in a file. Its `Display` is what `svidecar check` prints: the place, the line with a caret under the
/// value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as its user named it.
    pub file: Arc<str>,
    /// The line, from 1; 0 when the finding is about the whole file.
    pub line: u32,
    /// The column in characters, from 1; 0 when the finding is about the whole file.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// The line itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snippet: Option<String>,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// How many characters the caret underlines.
    #[serde(skip)]
    width: u32,
    /// What kept the file from being read.
    #[serde(skip)]
    unread: Option<io::ErrorKind>,
}

impl Diagnostic {
    /// An error about a whole file, such as one that cannot be opened.
    #[must_use]
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            message: message.into(),
            snippet: None,
            help: None,
            width: 0,
            unread: None,
        }
    }

    /// An error about a file, or folder, that cannot be read; `what` could not be done.
    #[must_use]
    pub fn unreadable(file: &Path, what: &str, error: &io::Error) -> Self {
        Self {
            unread: Some(error.kind()),
            ..Self::of_file(&file.display().to_string(), format!("{what}: {error}"))
        }
    }

    /// Whether it is that permission to read was denied.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.unread == Some(io::ErrorKind::PermissionDenied)
    }

    /// The same finding with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The finding in one line, for a log: place, message and advice, without the snippet.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = printable(&self.file);
        if self.line > 0 {
            text.push_str(&format!(":{}:{}", self.line, self.column));
        }
        text.push_str(": ");
        text.push_str(&printable(&self.message));
        if let Some(help) = &self.help {
            text.push_str(&format!(" ({})", printable(help)));
        }
        text
    }

    /// Whether it keeps the file from being used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", printable(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", printable(&self.message))?;
        let margin = " ".repeat(self.line.to_string().len());
        if let Some(snippet) = self.snippet.as_ref().filter(|_| self.line > 0) {
            let before = (self.column.saturating_sub(1) as usize).min(MAX_SHOWN);
            let carets = (self.width.max(1) as usize)
                .min(MAX_SHOWN.saturating_sub(before))
                .max(1);
            write!(f, "\n{margin} |\n{} | {snippet}\n{margin} | ", self.line)?;
            write!(f, "{}{}", " ".repeat(before), "^".repeat(carets))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{margin} = help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// The findings in one file, in the order in which they were made.
#[derive(Debug)]
pub struct Findings {
    file: Arc<str>,
    text: String,
    /// Where in `text` each line begins: found out with the first finding, as most files have none.
    line_starts: OnceCell<Vec<usize>>,
    list: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
}

impl Findings {
    /// No findings yet in `file`, whose text is `text`.
    #[must_use]
    pub fn new(file: impl Into<Arc<str>>, text: &str) -> Self {
        Self {
            file: file.into(),
            text: text.to_owned(),
            line_starts: OnceCell::new(),
            list: Vec::new(),
            errors: 0,
            left_out: 0,
        }
    }

    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// Adds an error.
    pub fn error(&mut self, place: Place, message: impl Into<String>) {
        self.add(Severity::Error, place, message.into(), None);
    }

    /// Adds an error that says what to write instead.
    pub fn error_with_help(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Error, place, message.into(), Some(help.into()));
    }

    /// Adds a warning.
    pub fn warn(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Warning, place, message.into(), Some(help.into()));
    }

    /// How many errors were added.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// All findings, by place.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Diagnostic> {
        // Stable: findings about the same place keep their order, those about the whole file come first.
        self.list.sort_by_key(|finding| (finding.line, finding.column));
        if self.left_out > 0 {
            let severity = if self.errors > 0 {
                Severity::Error
            } else {
                Severity::Warning
            };
            let mut rest =
                Diagnostic::of_file(&self.file, format!("{} more findings not shown", self.left_out));
            rest.severity = severity;
            self.list.push(rest);
        }
        self.list
    }

    /// The line with this number, from 1.
    fn line(&self, number: u32) -> Option<&str> {
        let starts = self.line_starts.get_or_init(|| {
            let ends = self.text.match_indices('\n').map(|(at, _)| at.saturating_add(1));
            std::iter::once(0).chain(ends).collect()
        });
        let start = *starts.get((number as usize).checked_sub(1)?)?;
        self.text.get(start..)?.lines().next()
    }

    fn add(&mut self, severity: Severity, place: Place, message: String, help: Option<String>) {
        if severity == Severity::Error {
            self.errors = self.errors.saturating_add(1);
        }
        if self.list.len() >= MAX_FINDINGS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.list.push(Diagnostic {
            severity,
            file: Arc::clone(&self.file),
            line: place.line,
            column: place.column,
            message,
            snippet: self.line(place.line).map(shown),
            help,
            width: place.width,
            unread: None,
        });
    }
}

/// A source line as a terminal may have it: one column a character, no control characters, not too long.
fn shown(line: &str) -> String {
    line.chars()
        .take(MAX_SHOWN)
        .map(|c| if c == '\t' { ' ' } else { harmless(c) })
        .collect()
}

/// Text that may hold what a file said: without characters that steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(harmless).collect()
}

fn harmless(c: char) -> char {
    // Direction overrides make a line read as what it is not.
    let steers = c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if steers { '\u{fffd}' } else { c }
}
