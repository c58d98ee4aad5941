//! Holds `docs/observability.md` and `docs/admin.md` to the code: every word of a closed set, every field, every metric.

mod deploy;

use std::collections::BTreeSet;

use super::metrics::{Document, ExportResult, Exposition, Flow, InForce, Metrics, ReloadResult, Signal};
use crate::record::{
    Direction, Divergence, HandshakeKind, Kind, Outcome, Phase, Reason, RenewalResult, Verdict,
};

const DOCS: &str = include_str!("../../docs/observability.md");
const ADMIN: &str = include_str!("../../docs/admin.md");

/// The rows of the first table under a heading, each as its cells without the back-ticks.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCS
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no `{heading}`"));
    section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        })
        .collect()
}

fn words(heading: &str) -> Vec<String> {
    let rows = table(heading);
    assert!(
        rows.iter()
            .all(|row| row.last().is_some_and(|meaning| meaning.len() > 5)),
        "{heading}: {rows:?}"
    );
    rows.into_iter().map(|mut row| row.remove(0)).collect()
}

#[test]
fn closed_sets_are_documented_whole_and_in_order() {
    fn list<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str) -> Vec<String> {
        all.iter().map(|v| word(*v).to_owned()).collect()
    }
    assert_eq!(words("### direction"), list(Direction::ALL, Direction::as_str));
    assert_eq!(words("### verdict"), list(Verdict::ALL, Verdict::as_str));
    assert_eq!(words("### decision kind"), list(Kind::ALL, Kind::as_str));
    assert_eq!(words("### result"), list(Outcome::ALL, Outcome::as_str));
    assert_eq!(words("### reason"), list(Reason::ALL, Reason::as_str));
    assert_eq!(words("### kind"), list(HandshakeKind::ALL, HandshakeKind::as_str));
    assert_eq!(
        words("### renewal result"),
        list(RenewalResult::ALL, RenewalResult::as_str)
    );
    assert_eq!(words("### flow"), list(Flow::ALL, Flow::as_str));
    assert_eq!(words("### phase"), list(Phase::ALL, Phase::as_str));
    assert_eq!(words("### document"), list(Document::ALL, Document::as_str));
    assert_eq!(words("### change"), list(Divergence::ALL, Divergence::as_str));
    assert_eq!(
        words("### reload result"),
        list(ReloadResult::ALL, ReloadResult::as_str)
    );
    assert_eq!(words("### signal"), list(Signal::ALL, Signal::as_str));
    assert_eq!(
        words("### export result"),
        list(ExportResult::ALL, ExportResult::as_str)
    );
    for (row, reason) in table("### reason").iter().zip(Reason::ALL) {
        assert_eq!(row[1], reason.outcome().as_str(), "{reason}");
    }
}

#[test]
fn fields_of_a_record_are_documented_whole_and_in_order() {
    assert_eq!(words("### Connections"), super::log::CONNECTION_FIELDS);
    assert_eq!(words("## Decisions"), crate::record::decision::FIELDS);
}

#[test]
fn metrics_are_documented_whole() {
    let metrics = Metrics::new(None);
    let listener = metrics.listener(&"x".into(), Direction::Inbound);
    listener.diverged(Divergence::WouldDeny, None, None);
    let _ = metrics.exports(Signal::Traces);
    let _ = metrics.audit.sink(&"x".into());
    metrics.set_sandbox("x", true);
    metrics.set_svid(Some(("x", std::time::SystemTime::now())));
    metrics.set_bundles([("x".to_owned(), std::time::SystemTime::now())]);
    for document in Document::ALL {
        let in_force = InForce {
            generation: 1,
            content_hash: "x".to_owned(),
            source: "x".to_owned(),
            since: std::time::SystemTime::now(),
        };
        metrics.set_in_force(*document, Some(in_force));
    }
    let text = metrics.encode(Exposition::Prometheus);
    let told: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let documented = documented_metrics();
    assert_eq!(told, documented.iter().map(String::as_str).collect());
}

/// The names in the table of metrics.
fn documented_metrics() -> BTreeSet<String> {
    let mut documented = BTreeSet::new();
    for row in table("## Metrics") {
        for name in row[0].split(", ") {
            // A comma also separates labels: what is left of those is no name.
            documented.insert(name.split('{').next().unwrap_or(name).to_owned());
        }
    }
    documented
}

#[test]
fn attributes_of_spans_are_documented_whole() {
    let mut documented = BTreeSet::new();
    for row in table("## Traces") {
        documented.extend(row[0].split(", ").map(str::to_owned));
    }
    assert_eq!(super::traces::tests::all_attributes(), documented);
}

/// The bounds that the pages tell.
#[test]
fn bounds_are_documented_as_they_are() {
    use super::decisions::{MAX_KEPT, MAX_KEPT_BYTES, SUBSCRIBER_QUEUE};
    let oldest = format!("the oldest beyond {SUBSCRIBER_QUEUE}");
    assert!(ADMIN.contains(&oldest), "{oldest}");
    for bound in [
        format!("the last {MAX_KEPT}"),
        format!("larger than {} MiB together", MAX_KEPT_BYTES >> 20),
        format!("a queue\nof {} that", super::traces::QUEUE),
    ] {
        assert!(DOCS.contains(&bound), "{bound}");
    }
}
