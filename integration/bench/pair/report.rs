//! The table: medians over the rounds, and for two builds their ratios.

use std::io::{self, Write};

use crate::both::Subject;
use crate::rows::Figure;

/// The figures of one name, a list of rounds for each build.
struct Line {
    name: &'static str,
    unit: &'static str,
    rounds: Vec<Vec<Figure>>,
}

pub(crate) struct Table {
    programs: Vec<String>,
    lines: Vec<Line>,
}

impl Table {
    pub(crate) fn new(subjects: &[Subject<'_>]) -> Self {
        Self {
            programs: subjects.iter().map(|subject| subject.name.clone()).collect(),
            lines: Vec::new(),
        }
    }

    /// Takes a figure of the build at `place`.
    pub(crate) fn add(&mut self, place: usize, figure: Figure) {
        let known = self.lines.iter().position(|line| line.name == figure.name);
        let line = known.unwrap_or_else(|| {
            self.lines.push(Line {
                name: figure.name,
                unit: figure.unit,
                rounds: vec![Vec::new(); self.programs.len()],
            });
            self.lines.len() - 1
        });
        if let Some(rounds) = self
            .lines
            .get_mut(line)
            .and_then(|line| line.rounds.get_mut(place))
        {
            rounds.push(figure);
        }
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        match self.programs.as_slice() {
            [this, against] => {
                writeln!(out, "this:    {this}\nagainst: {against}\n")?;
                self.print_ratios(out)?;
            }
            _ => self.print_one(out)?,
        }
        Ok(())
    }

    fn print_one(&self, out: &mut impl Write) -> io::Result<()> {
        let head = [
            "",
            "unit",
            "client",
            "server",
            "pair",
            "spread",
            "the load saw",
            "others",
        ];
        let rows = self.lines.iter().filter_map(|line| {
            let rounds = line.rounds.first()?;
            let pair: Vec<_> = rounds.iter().map(|figure| figure.pair).collect();
            let middle = median(&pair)?;
            let spread = (largest(&pair) - smallest(&pair)) / middle * 100.0;
            Some([
                line.name.to_owned(),
                line.unit.to_owned(),
                number(median_of(rounds, |figure| figure.client)),
                number(median_of(rounds, |figure| figure.server)),
                number(Some(middle)),
                format!("{spread:.0} %"),
                seen(rounds),
                others(rounds),
            ])
        });
        print(out, &head.map(str::to_owned), &rows.collect::<Vec<_>>())
    }

    fn print_ratios(&self, out: &mut impl Write) -> io::Result<()> {
        let head = [
            "the pair",
            "unit",
            "this",
            "against",
            "ratio",
            "lowest",
            "highest",
            "the load saw",
            "against",
            "others",
        ];
        let rows = self.lines.iter().filter_map(|line| {
            let [this, against] = line.rounds.as_slice() else {
                return None;
            };
            // Round by round: what happened to the machine meanwhile happened to both.
            let ratios: Vec<_> = this
                .iter()
                .zip(against)
                .map(|(this, against)| this.pair / against.pair)
                .collect();
            let known = !ratios.is_empty();
            Some([
                line.name.to_owned(),
                line.unit.to_owned(),
                number(median_of(this, |figure| figure.pair)),
                number(median_of(against, |figure| figure.pair)),
                number(median(&ratios)),
                number(known.then(|| smallest(&ratios))),
                number(known.then(|| largest(&ratios))),
                seen(this),
                seen(against),
                others(this.iter().chain(against)),
            ])
        });
        print(out, &head.map(str::to_owned), &rows.collect::<Vec<_>>())
    }
}

fn seen(rounds: &[Figure]) -> String {
    let values: Vec<_> = rounds
        .iter()
        .filter_map(|figure| figure.seen.map(|seen| seen.0))
        .collect();
    match rounds.iter().find_map(|figure| figure.seen) {
        Some((_, unit)) => format!("{} {unit}", number(median(&values))),
        None => String::new(),
    }
}

/// The most of the machine that others used in any round.
fn others<'a>(rounds: impl IntoIterator<Item = &'a Figure>) -> String {
    let shares = rounds.into_iter().filter_map(|figure| figure.others);
    match shares.reduce(f64::max) {
        Some(most) => format!("{:.0} %", most * 100.0),
        None => String::new(),
    }
}

fn median_of(rounds: &[Figure], value: impl Fn(&Figure) -> f64) -> Option<f64> {
    median(&rounds.iter().map(value).collect::<Vec<_>>())
}

/// The value in the middle; the mean of the two there, when their number is even.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Three digits that count.
fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
        None => "-".to_owned(),
    }
}

/// A Markdown table, so that it can be pasted; the first two columns are words.
fn print<const N: usize>(out: &mut impl Write, head: &[String; N], rows: &[[String; N]]) -> io::Result<()> {
    let widths: Vec<_> = (0..N)
        .map(|column| {
            std::iter::once(head)
                .chain(rows)
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut line = |row: &[String; N]| -> io::Result<()> {
        for ((column, cell), width) in row.iter().enumerate().zip(&widths) {
            if column < 2 {
                write!(out, "| {cell:<width$} ")?;
            } else {
                write!(out, "| {cell:>width$} ")?;
            }
        }
        writeln!(out, "|")
    };
    line(head)?;
    let rules: Vec<_> = widths
        .iter()
        .enumerate()
        .map(|(column, width)| {
            let dashes = "-".repeat(width.saturating_sub(1));
            if column < 2 {
                format!("{dashes}-")
            } else {
                format!("{dashes}:")
            }
        })
        .collect();
    if let Ok(rules) = <[String; N]>::try_from(rules) {
        line(&rules)?;
    }
    for row in rows {
        line(row)?;
    }
    Ok(())
}
