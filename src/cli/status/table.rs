//! Columns side by side. The first takes what the others leave and is cut at its beginning, since the end of a SPIFFE ID
//! says most.

use crate::cli::terminal::{Tone, paint};

/// The narrowest that a long first column is made: others are left out before.
const NARROWEST: usize = 24;

/// A text with its tone.
#[derive(Clone, Debug)]
pub(super) struct Cell(pub(super) String, pub(super) Option<Tone>);

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self(text, None)
    }
}

impl Cell {
    /// With this tone, where it holds.
    pub(super) fn tone(self, holds: bool, tone: Tone) -> Self {
        Self(self.0, if holds { Some(tone) } else { self.1 })
    }
}

/// Rows under titles. All columns but the first, and those whose title begins with `<`, are flush right.
#[derive(Debug)]
pub(super) struct Table {
    titles: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) const fn new(titles: Vec<&'static str>) -> Self {
        Self {
            titles,
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The lines, none wider than `width`; none at all without a row.
    pub(super) fn lines(&self, width: Option<usize>, color: bool) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let mut widths: Vec<usize> = self.titles.iter().map(|t| columns(title(t))).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(columns(&cell.0));
            }
        }
        let others: usize = widths.iter().skip(1).map(|width| width + 2).sum();
        if let (Some(first), Some(width)) = (widths.first_mut(), width) {
            *first = (*first).min(width.saturating_sub(others).max(NARROWEST));
        }
        let heads: Vec<Cell> = self
            .titles
            .iter()
            .map(|t| Cell(title(t).to_owned(), Some(Tone::Bold)))
            .collect();
        std::iter::once(&heads)
            .chain(&self.rows)
            .map(|row| self.line(row, &widths, width, color))
            .collect()
    }

    fn line(&self, row: &[Cell], widths: &[usize], width: Option<usize>, color: bool) -> String {
        let mut line = String::new();
        let mut left = width.unwrap_or(usize::MAX);
        let columns_of_row = self.titles.iter().zip(widths).zip(row).enumerate();
        for (place, ((title, column), Cell(text, tone))) in columns_of_row {
            let gap = if place == 0 { 0 } else { 2 };
            // What does not fit beside the narrowest first column is left out whole.
            if left < gap + column {
                break;
            }
            left -= gap + column;
            line.push_str(&" ".repeat(gap));
            let text = cut_front(text, *column);
            let pad = " ".repeat(column.saturating_sub(columns(&text)));
            let painted = match tone {
                Some(tone) => paint(color, *tone, &text),
                None => text,
            };
            if place == 0 || title.starts_with('<') {
                line.push_str(&painted);
                line.push_str(&pad);
            } else {
                line.push_str(&pad);
                line.push_str(&painted);
            }
        }
        line.trim_end().to_owned()
    }
}

fn title(title: &str) -> &str {
    title.trim_start_matches('<')
}

/// How many columns of a terminal a text takes: two for a character of East Asia.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

const fn columns_of(c: char) -> usize {
    match c as u32 {
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x2_0000..=0x3_fffd => 2,
        _ => 1,
    }
}

/// The text in so many columns: its end, where it is longer.
fn cut_front(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let end: Vec<char> = text
        .chars()
        .rev()
        .take_while(|c| {
            let fits = columns_of(*c) <= left;
            left = left.saturating_sub(columns_of(*c));
            fits
        })
        .collect();
    std::iter::once('…').chain(end.into_iter().rev()).collect()
}

/// The text in so many columns: its beginning, where it is longer.
pub(super) fn cut(text: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| columns(text) > *width) else {
        return text.to_owned();
    };
    let mut left = width.saturating_sub(1);
    let begin: String = text
        .chars()
        .take_while(|c| {
            let fits = columns_of(*c) <= left;
            left = left.saturating_sub(columns_of(*c));
            fits
        })
        .collect();
    format!("{begin}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_their_columns() {
        for (text, width, front, back) in [
            ("spiffe://td/web", 15, "spiffe://td/web", "spiffe://td/web"),
            ("spiffe://td/web", 8, "…/td/web", "spiffe:…"),
            ("漢字漢字", 8, "漢字漢字", "漢字漢字"),
            ("漢字漢字", 7, "…字漢字", "漢字漢…"),
            ("漢字漢字", 6, "…漢字", "漢字…"),
            ("ab", 1, "…", "…"),
        ] {
            assert_eq!(cut_front(text, width), front, "{text} {width}");
            assert_eq!(cut(text, Some(width)), back, "{text} {width}");
        }
        assert_eq!(cut("any", None), "any");
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_whole() {
        let mut table = Table::new(vec!["PEER", "OPEN", "<LAST"]);
        table.row(vec![
            "spiffe://example.org/ns/shop/sa/web".to_owned().into(),
            "17".to_owned().into(),
            "allow, now".to_owned().into(),
        ]);
        let lines = |width| table.lines(width, false);
        assert_eq!(
            lines(None),
            [
                "PEER                                 OPEN  LAST",
                "spiffe://example.org/ns/shop/sa/web    17  allow, now"
            ]
        );
        assert_eq!(
            lines(Some(42)),
            [
                "PEER                      OPEN  LAST",
                "…mple.org/ns/shop/sa/web    17  allow, now"
            ]
        );
        assert_eq!(
            lines(Some(41)),
            ["PEER                      OPEN", "…mple.org/ns/shop/sa/web    17"]
        );
        assert_eq!(Table::new(vec!["PEER"]).lines(None, false), Vec::<String>::new());
    }
}
