//! How the story looks: calm lines of at most 80 columns, colours only where they are wanted.

use std::io::{self, Write};

use super::journal::{Record, Said};
use crate::cli::terminal::{Tone, harmless, paint, wrap};

/// The width that everything is written for.
const WIDTH: usize = 80;
/// Where the words of a sidecar begin, after the mark and its name.
const INDENT: usize = 16;
/// Where they go on in the news, after the time.
const NEWS_INDENT: usize = 12;
/// Where the words of a sidecar begin in the news, after the time and its name.
const NEWS_TEXT: usize = 22;

/// Writes the story.
pub(super) struct Teller<'a> {
    out: &'a mut dyn Write,
    color: bool,
}

impl<'a> Teller<'a> {
    pub(super) fn new(out: &'a mut dyn Write, color: bool) -> Self {
        Self { out, color }
    }

    /// The beginning of a step.
    pub(super) fn heading(&mut self, number: usize, text: &str) -> io::Result<()> {
        let lines = wrap(text, WIDTH - 4);
        for (n, line) in lines.iter().enumerate() {
            let lead = if n == 0 {
                format!("\n{number:2}. ")
            } else {
                " ".repeat(4)
            };
            let text = self.paint(Tone::Bold, &format!("{lead}{line}"));
            writeln!(self.out, "{text}")?;
        }
        self.out.flush()
    }

    /// What a sidecar recorded, with a mark that says whether it is what was expected.
    pub(super) fn record(&mut self, sidecar: &str, record: &Record, expected: bool) -> io::Result<()> {
        let told = in_words(record);
        let word = self.paint(told.tone, &format!("{:8}", told.word));
        let first = format!("{word} {}", told.who);
        self.first(sidecar, &first, expected)?;
        self.more(&told.why)
    }

    /// A fact of one sidecar that is no record.
    pub(super) fn fact(&mut self, sidecar: &str, text: &str, expected: bool) -> io::Result<()> {
        let lines = wrap(&harmless(text), WIDTH - INDENT);
        let mut lines = lines.iter();
        self.first(sidecar, lines.next().map_or("", String::as_str), expected)?;
        lines.try_for_each(|line| self.more(line))
    }

    fn first(&mut self, sidecar: &str, text: &str, expected: bool) -> io::Result<()> {
        let mark = if expected {
            self.paint(Tone::Good, "✓")
        } else {
            self.paint(Tone::Bad, "✗")
        };
        writeln!(self.out, "  {mark} {sidecar:11} {text}")?;
        self.out.flush()
    }

    /// More about the last thing told.
    pub(super) fn more(&mut self, text: &str) -> io::Result<()> {
        self.indented(Tone::Dim, text)
    }

    /// What was expected and did not happen.
    pub(super) fn complaint(&mut self, text: &str) -> io::Result<()> {
        self.indented(Tone::Bad, text)
    }

    fn indented(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        for line in wrap(&harmless(text), WIDTH - INDENT) {
            let line = self.paint(tone, &line);
            writeln!(self.out, "{:INDENT$}{line}", "")?;
        }
        self.out.flush()
    }

    /// Something that happened after the story.
    pub(super) fn news(&mut self, sidecar: &str, said: &Said) -> io::Result<()> {
        let (time, text, more) = match said {
            Said::Connection(record) => {
                let told = in_words(record);
                let word = self.paint(told.tone, &format!("{:8}", told.word));
                (
                    clock(&record.timestamp),
                    format!("{word} {}", told.who),
                    vec![told.why],
                )
            }
            Said::Event(_) => {
                let mut lines = event_in_words(said).into_iter();
                let first = lines.next().unwrap_or_default();
                (
                    clock(said.text("timestamp").unwrap_or_default()),
                    harmless(&first),
                    lines.collect(),
                )
            }
            Said::Text(text) => ("", harmless(text), Vec::new()),
            Said::End => ("", "has ended".to_owned(), Vec::new()),
        };
        let time = self.paint(Tone::Dim, &format!("{time:8}"));
        // A record's first line is ours and short; it may be painted, and is not to be broken.
        let text = if matches!(said, Said::Connection(_)) {
            vec![text]
        } else {
            wrap(&text, WIDTH - NEWS_TEXT)
        };
        let mut lines = text.iter();
        writeln!(
            self.out,
            "{time}  {sidecar:11} {}",
            lines.next().map_or("", String::as_str)
        )?;
        for line in lines {
            writeln!(self.out, "{:NEWS_TEXT$}{line}", "")?;
        }
        for line in more
            .iter()
            .flat_map(|text| wrap(&harmless(text), WIDTH - NEWS_INDENT))
        {
            let line = self.paint(Tone::Dim, &line);
            writeln!(self.out, "{:NEWS_INDENT$}{line}", "")?;
        }
        self.out.flush()
    }

    /// Plain text, as it is.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// A line that stands out.
    pub(super) fn title(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint(Tone::Bold, text);
        self.say(&text)
    }

    /// The sum of it.
    pub(super) fn verdict(&mut self, good: bool, text: &str) -> io::Result<()> {
        let text = self.paint(if good { Tone::Good } else { Tone::Bad }, text);
        self.say(&text)
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.color, tone, text)
    }
}

/// A record as people read it.
struct Told {
    word: String,
    tone: Tone,
    who: String,
    why: String,
}

fn in_words(record: &Record) -> Told {
    let (word, tone) = match (record.result.as_str(), record.verdict.as_str()) {
        ("ok", "allow") => ("allow", Tone::Good),
        ("denied", _) => ("deny", Tone::Bad),
        (result, _) => (result, Tone::Odd),
    };
    let who = match (record.direction.as_str(), &record.peer_id) {
        ("inbound", Some(id)) => format!("from {id}"),
        ("inbound", None) => format!("from {}, who proved no identity", record.peer_addr),
        (_, Some(id)) => format!("{} reached {id}", record.listener),
        (_, None) => {
            format!(
                "{} reached {}",
                record.listener,
                record.upstream.as_deref().unwrap_or("nobody")
            )
        }
    };
    let mut why = Vec::new();
    match &record.rule {
        Some(rule) if record.direction == "inbound" => why.push(format!("rule {rule}")),
        // An outbound listener has patterns for rules; most often the ID itself, which has just been told.
        Some(pattern) if record.peer_id.as_ref() != Some(pattern) => why.push(format!("peer {pattern}")),
        _ => {}
    }
    why.push(match &record.detail {
        Some(detail) => format!("{}: {detail}", record.reason),
        None => record.reason.clone(),
    });
    if record.bytes_up > 0 || record.bytes_down > 0 {
        why.push(format!(
            "{} bytes up, {} down",
            record.bytes_up, record.bytes_down
        ));
    }
    Told {
        word: harmless(word),
        tone,
        who: harmless(&who),
        why: why.join("; "),
    }
}

/// What an event says, and then what else it knows that concerns a person here.
fn event_in_words(said: &Said) -> Vec<String> {
    let mut lines: Vec<_> = said
        .message()
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    // Of a problem in a file what is wrong and what to write; the line itself is in the reader's editor.
    if let Some((first, rest)) = lines.split_first() {
        let help = rest
            .iter()
            .filter(|line| line.trim_start().starts_with("= "))
            .cloned();
        let what = first
            .split_once(": ")
            .map(|(said, what)| vec![said.to_owned(), what.to_owned()]);
        lines = what
            .unwrap_or_else(|| vec![first.clone()])
            .into_iter()
            .chain(help)
            .collect();
    }
    let known = ["serial", "trust_domains", "generation", "rule", "peer", "error"].into_iter();
    let facts: Vec<_> = known
        .filter_map(|field| {
            let value = said
                .text(field)
                .map(str::to_owned)
                .or_else(|| said.number(field).map(|n| n.to_string()))?;
            Some(format!("{} {value}", field.replace('_', " ")))
        })
        .collect();
    if !facts.is_empty() {
        lines.push(facts.join(", "));
    }
    lines
}

/// `hh:mm:ss` of an RFC 3339 time.
fn clock(timestamp: &str) -> &str {
    timestamp.get(11..19).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            timestamp: "2026-11-23T08:15:30.123456Z".to_owned(),
            listener: "orders".to_owned(),
            direction: "inbound".to_owned(),
            peer_addr: "127.0.0.1:9".to_owned(),
            peer_id: Some("spiffe://example.org/storefront".to_owned()),
            upstream: None,
            verdict: "allow".to_owned(),
            rule: Some("storefront-may-order".to_owned()),
            result: "ok".to_owned(),
            reason: "finished".to_owned(),
            detail: None,
            bytes_up: 12,
            bytes_down: 30,
        }
    }

    fn told(color: bool, tell: impl Fn(&mut Teller<'_>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        tell(&mut Teller::new(&mut out, color)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_allowed_connection() {
        let text = told(false, |teller| teller.record("orders", &record(), true));
        assert_eq!(
            text,
            "  ✓ orders      allow    from spiffe://example.org/storefront\n                \
             rule storefront-may-order; finished; 12 bytes up, 30 down\n"
        );
    }

    #[test]
    fn a_stranger_cannot_command_the_terminal_nor_break_the_layout() {
        let detail = format!("it said \x1b[2J\u{202e}{}", "and so on ".repeat(30));
        let record = Record {
            peer_id: None,
            verdict: "none".to_owned(),
            result: "refused".to_owned(),
            reason: "not_tls".to_owned(),
            detail: Some(detail),
            ..record()
        };
        let text = told(false, |teller| teller.record("orders", &record, false));
        assert!(
            text.starts_with("  ✗ orders      refused  from 127.0.0.1:9, who proved no identity\n"),
            "{text}"
        );
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text:?}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert!(told(true, |teller| teller.record("orders", &record(), true)).contains("\x1b[32mallow"));
        assert!(!told(false, |teller| teller.heading(1, "x")).contains('\x1b'));
    }

    #[test]
    fn news_have_a_time() {
        let said = Said::Connection(Box::new(record()));
        let text = told(false, |teller| teller.news("orders", &said));
        assert!(
            text.starts_with("08:15:30  orders      allow    from spiffe://"),
            "{text}"
        );
        let said = Said::read(
            r#"{"timestamp":"2026-11-23T08:15:30Z","message":"a new policy is in force","generation":2}"#,
        );
        let text = told(false, |teller| teller.news("orders", &said));
        assert_eq!(
            text,
            "08:15:30  orders      a new policy is in force\n            generation 2\n"
        );
    }
}
