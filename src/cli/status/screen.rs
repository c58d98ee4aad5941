//! The status as text.

use std::time::Duration;

use serde_json::Value;

use super::Asked;
use super::denials::denials;
use super::foot::foot;
use super::read::{at, real, time};
use super::sections;
use super::table::cut;
use crate::cli::terminal::{Tone, paint, wrap};

/// How it is to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Columns that it may take; any where that is not known.
    pub(super) width: Option<usize>,
    /// Rows, likewise.
    pub(super) rows: Option<usize>,
    pub(super) color: bool,
}

impl Look {
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        paint(self.color, tone, text)
    }

    /// A line that is cut to the width, and then painted.
    pub(super) fn line(self, tone: Option<Tone>, text: &str) -> String {
        let text = cut(text, self.width);
        match tone {
            Some(tone) => self.paint(tone, &text),
            None => text,
        }
    }

    /// A text on as many lines as it takes, each with the same margin.
    pub(super) fn wrapped(self, tone: Tone, margin: &str, text: &str) -> Vec<String> {
        let width = self
            .width
            .map_or(usize::MAX, |width| width.saturating_sub(margin.len()));
        let lines = wrap(text, width).into_iter();
        lines
            .map(|line| self.line(Some(tone), &format!("{margin}{line}")))
            .collect()
    }

    /// How many rows a list may have.
    pub(super) fn listed(self) -> usize {
        match self.rows {
            // What is above and between the five lists takes about twenty.
            Some(rows) => (rows.saturating_sub(20) / 5).clamp(2, 20),
            None => 10,
        }
    }
}

/// The status of now, and of before.
#[derive(Clone, Copy)]
pub(super) struct Moment<'v> {
    pub(super) now: &'v Value,
    before: Option<&'v Value>,
}

impl<'v> Moment<'v> {
    /// Whether there is a moment before this one.
    pub(super) const fn is_watched(self) -> bool {
        self.before.is_some()
    }

    /// How much a number grew in a second since before; `None` when nothing was before, or it is another process.
    pub(super) fn rate(self, of: impl Fn(&'v Value) -> Option<u64>) -> Option<f64> {
        let (before, seconds) = self.span()?;
        let grown = of(self.now)?.saturating_sub(of(before)?);
        Some(real(grown) / seconds)
    }

    /// The cores that it kept busy since before.
    pub(super) fn cpu(self) -> Option<f64> {
        let (before, seconds) = self.span()?;
        let of = |status: &Value| at(status, "/process/cpu_seconds").as_f64();
        Some((of(self.now)? - of(before)?).max(0.0) / seconds)
    }

    /// The status of before, and how many seconds that was ago.
    fn span(self) -> Option<(&'v Value, f64)> {
        let before = self.before?;
        if at(before, "/pid") != at(self.now, "/pid") || at(before, "/started") != at(self.now, "/started") {
            return None;
        }
        let span = time(self.now, "/time")?.duration_since(time(before, "/time")?);
        let span = span.ok().filter(|span| *span >= Duration::from_millis(100))?;
        Some((before, span.as_secs_f64()))
    }
}

/// All of it. `before` is the status of a moment ago, for the rates.
pub(super) fn render(asked: &Asked, before: Option<&Value>, look: Look) -> String {
    let moment = Moment {
        now: &asked.status,
        before,
    };
    let parts = [
        sections::head(moment, look),
        sections::listeners(moment, look),
        sections::peers(moment, look),
        sections::connections(moment, look),
        sections::rules(moment, look),
        denials(&asked.denials, moment, look),
        foot(moment, look),
    ];
    let mut lines: Vec<String> = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(part);
    }
    if let Some(rows) = look.rows
        && lines.len() > rows
    {
        lines.truncate(rows.saturating_sub(1));
        lines.push(look.paint(Tone::Dim, "… a taller window shows more"));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
