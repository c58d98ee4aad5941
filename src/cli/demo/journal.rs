//! What the sidecars say in their logs, in order, and waiting for something to be said.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

/// Lines that are kept; older ones make room.
const MAX_ENTRIES: usize = 4096;
/// What a sidecar may take for anything that a demo asks of it. Most take milliseconds; the machine may be busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The fields of a connection's log line that the demo tells. They are described in docs/observability.md.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Record {
    pub(super) timestamp: String,
    pub(super) listener: String,
    pub(super) direction: String,
    pub(super) peer_addr: String,
    pub(super) peer_id: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) verdict: String,
    pub(super) rule: Option<String>,
    pub(super) result: String,
    pub(super) reason: String,
    pub(super) detail: Option<String>,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
}

/// One thing that was said.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// What became of a connection.
    Connection(Box<Record>),
    /// Any other line of the log.
    Event(Value),
    /// A line that is not of the log: an error before the log was set up.
    Text(String),
    /// Nothing more will come: the process has ended.
    End,
}

impl Said {
    /// Reads one line of a sidecar's standard error.
    pub(super) fn read(line: &str) -> Self {
        let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(line) else {
            return Self::Text(line.to_owned());
        };
        if value.get("target").and_then(Value::as_str) != Some("svidecar::connection") {
            return Self::Event(value);
        }
        match serde_json::from_value(value.clone()) {
            Ok(record) => Self::Connection(Box::new(record)),
            Err(_) => Self::Event(value),
        }
    }

    /// The message of an event.
    pub(super) fn message(&self) -> Option<&str> {
        match self {
            Self::Event(value) => value.get("message").and_then(Value::as_str),
            _ => None,
        }
    }

    /// A text field of an event.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        match self {
            Self::Event(value) => value.get(field).and_then(Value::as_str),
            _ => None,
        }
    }

    /// A number among the fields of an event.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        match self {
            Self::Event(value) => value.get(field).and_then(Value::as_u64),
            _ => None,
        }
    }
}

/// Who said what.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) sidecar: &'static str,
    pub(super) said: Said,
}

/// A place in the journal: what came before it is old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

/// Why nothing came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Not in time.
    TooLong,
    /// This sidecar has ended, and with it the story.
    Ended(&'static str),
}

#[derive(Debug, Default)]
struct Entries {
    kept: VecDeque<Entry>,
    /// The number of entries that made room.
    dropped: u64,
}

/// All that was said. Clones are one journal.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    entries: Arc<Mutex<Entries>>,
    grown: watch::Sender<u64>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            entries: Arc::default(),
            grown: watch::Sender::new(0),
        }
    }

    pub(super) fn add(&self, sidecar: &'static str, said: Said) {
        let mut entries = self.lock();
        if entries.kept.len() == MAX_ENTRIES {
            entries.kept.pop_front();
            entries.dropped = entries.dropped.saturating_add(1);
        }
        entries.kept.push_back(Entry { sidecar, said });
        drop(entries);
        self.grown.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The place after everything said so far.
    pub(super) fn mark(&self) -> Mark {
        let entries = self.lock();
        Mark(entries.dropped.saturating_add(entries.kept.len() as u64))
    }

    /// Everything since `mark` that is still kept, and the mark after it.
    pub(super) fn since(&self, mark: Mark) -> (Vec<Entry>, Mark) {
        let entries = self.lock();
        let skip = usize::try_from(mark.0.saturating_sub(entries.dropped)).unwrap_or(usize::MAX);
        let news = entries.kept.iter().skip(skip).cloned().collect();
        (
            news,
            Mark(entries.dropped.saturating_add(entries.kept.len() as u64)),
        )
    }

    /// The first thing said since `mark` that `wanted` answers to.
    pub(super) fn find<T>(&self, mark: Mark, wanted: impl FnMut(&Entry) -> Option<T>) -> Option<T> {
        self.since(mark).0.iter().find_map(wanted)
    }

    /// As [`Journal::find`], and waits for it. Ends early when any sidecar has ended since `alive`.
    pub(super) async fn wait<T>(
        &self,
        alive: Mark,
        mark: Mark,
        mut wanted: impl FnMut(&Entry) -> Option<T>,
    ) -> Result<T, Silence> {
        let mut grown = self.grown.subscribe();
        let search = async {
            loop {
                grown.mark_unchanged();
                if let Some(found) = self.find(mark, &mut wanted) {
                    return Ok(found);
                }
                if let Some(ended) = self.ended(alive) {
                    return Err(Silence::Ended(ended));
                }
                // The sender lives as long as `self`.
                let _ = grown.changed().await;
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .unwrap_or(Err(Silence::TooLong))
    }

    /// The news after `mark`, as soon as there are any.
    pub(super) async fn news(&self, mark: Mark) -> (Vec<Entry>, Mark) {
        let mut grown = self.grown.subscribe();
        loop {
            grown.mark_unchanged();
            let (news, next) = self.since(mark);
            if !news.is_empty() {
                return (news, next);
            }
            let _ = grown.changed().await;
        }
    }

    /// A sidecar that has ended since `mark`.
    pub(super) fn ended(&self, mark: Mark) -> Option<&'static str> {
        self.find(mark, |entry| {
            matches!(entry.said, Said::End).then_some(entry.sidecar)
        })
    }

    /// The last things that a sidecar said, oldest first.
    pub(super) fn last_words(&self, sidecar: &str, count: usize) -> Vec<String> {
        let entries = self.lock();
        let words = entries.kept.iter().rev().filter(|entry| entry.sidecar == sidecar);
        let mut words: Vec<_> = words
            .filter_map(|entry| in_words(&entry.said))
            .take(count)
            .collect();
        words.reverse();
        words
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A thread that panicked while it held the lock left whole entries behind.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a plain line.
fn in_words(said: &Said) -> Option<String> {
    match said {
        Said::Connection(record) => Some(format!(
            "connection to {}: {} ({})",
            record.listener, record.result, record.reason
        )),
        Said::Event(value) => Some(format!(
            "{} {}",
            value.get("level").and_then(Value::as_str).unwrap_or_default(),
            value.get("message").and_then(Value::as_str).unwrap_or_default()
        )),
        Said::Text(text) => Some(text.clone()),
        Said::End => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(entry: &Entry) -> Option<String> {
        match &entry.said {
            Said::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    #[test]
    fn tells_records_events_and_other_text_apart() {
        let record = r#"{"timestamp":"t","level":"WARN","target":"svidecar::connection","message":"m","id":1,
            "listener":"orders","direction":"inbound","peer_addr":"127.0.0.1:1","peer_id":null,"own_id":null,
            "verdict":"none","rule":null,"result":"refused","reason":"not_tls","detail":null,"policy_generation":1,
            "upstream":null,"bytes_up":0,"bytes_down":0,"duration_ms":0.4}"#;
        assert!(matches!(Said::read(record), Said::Connection(r) if r.reason == "not_tls"));
        let event = Said::read(r#"{"target":"svidecar::app","message":"listening","workers":2}"#);
        assert_eq!(event.message(), Some("listening"));
        assert!(matches!(Said::read("error: bad"), Said::Text(_)));
        assert!(matches!(Said::read("7"), Said::Text(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_what_comes_later_and_not_for_ever() {
        let journal = Journal::new();
        journal.add("a", Said::Text("old".to_owned()));
        let mark = journal.mark();
        let later = journal.clone();
        let waiting = tokio::spawn(async move { later.wait(mark, mark, text).await });
        tokio::task::yield_now().await;
        journal.add("a", Said::Text("new".to_owned()));
        assert_eq!(waiting.await.unwrap(), Ok("new".to_owned()));
        assert_eq!(
            journal.wait(mark, journal.mark(), text).await,
            Err(Silence::TooLong)
        );
        journal.add("b", Said::End);
        let none = |_: &Entry| None::<()>;
        assert_eq!(
            journal.wait(mark, journal.mark(), none).await,
            Err(Silence::Ended("b"))
        );
        assert_eq!(journal.last_words("a", 1), ["new"]);
    }

    #[tokio::test]
    async fn marks_stay_right_when_old_entries_make_room() {
        let journal = Journal::new();
        for n in 0..MAX_ENTRIES + 3 {
            journal.add("a", Said::Text(n.to_string()));
        }
        assert_eq!(journal.find(Mark::default(), text).as_deref(), Some("3"));
        let mark = journal.mark();
        journal.add("a", Said::Text("last".to_owned()));
        let (news, next) = journal.news(mark).await;
        assert_eq!(news.iter().filter_map(text).collect::<Vec<_>>(), ["last"]);
        assert_eq!(next, journal.mark());
    }
}
