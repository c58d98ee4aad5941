//! Lines as they leave the process.

mod control;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::beside::another_subscriber;
use super::*;
use crate::record::decision::FIELDS;
use crate::record::decision::tests::{bare, denial};
use crate::record::{Direction, Nearest, PeerAddr, Reason};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `work` logs under this filter.
pub(in crate::telemetry) fn logged(style: Style, level: &str, work: impl FnOnce(&LogSink)) -> String {
    another_subscriber();
    let captured = Captured::default();
    let (filter, control) = LogControl::new(level).unwrap();
    let (subscriber, sink, guard) = build(captured.clone(), 1000, style, filter, control);
    tracing::subscriber::with_default(subscriber, || work(&sink));
    drop(guard);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

pub(in crate::telemetry) fn record(reason: Reason) -> ConnectionRecord {
    ConnectionRecord {
        id: 7,
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        listener: "orders".into(),
        direction: Direction::Inbound,
        peer_addr: PeerAddr::Ip([10, 1, 2, 3].into(), 99),
        source: Some("10.1.2.3".parse().unwrap()),
        peer_id: Some(Arc::new("spiffe://example.org/web".parse().unwrap())),
        own_id: None,
        resumed: Some(false),
        decision: Some(Arc::new(if reason == Reason::Finished {
            bare()
        } else {
            denial()
        })),
        admission: None,
        reason,
        detail: Some("two words".to_owned()),
        destination: None,
        upstream: None,
        bytes_up: 10,
        bytes_down: 20,
        duration: Duration::from_micros(1234),
        trace: None,
    }
}

#[test]
fn a_record_is_one_readable_line() {
    let text = logged(Style::Plain, "info", |sink| {
        sink.record(&record(Reason::DenyRule))
    });
    assert_eq!(
        text,
        "1970-01-01T00:00:01.500000Z WARN  svidecar::connection: connection denied id=7 listener=orders \
         direction=inbound peer_addr=10.1.2.3:99 source=10.1.2.3 peer_id=spiffe://example.org/web own_id=- serial=0a1b \
         resumed=false decision_id=4f2a90c1d3e7-1 admission_id=- trace_id=- kind=admission verdict=deny enforced=true rule=no-web \
         description=\"web must not\" audited=[\"watch\"] \
         nearest={\"rule\":\"storefront\",\"unmet\":[{\"condition\":\"from\",\"detail\":\"`a` is not `b`\"}]} \
         check={\"certificate\":\"intermediate 2\",\"rule\":\"SVID signing certificates MUST set `keyCertSign`\",\
         \"standard\":\"X509-SVID 4.3\"} candidate={\"rule\":\"next\",\"verdict\":\"allow\"} budget=batch result=denied \
         reason=deny_rule detail=\"two words\" policy_generation=3 policy_hash=00ff00ff00ff destination=- upstream=- bytes_up=10 \
         bytes_down=20 duration_ms=1.234\n"
    );
}

/// A line says what the verdict's own record says, under the same names.
#[test]
fn a_line_holds_the_fields_of_its_verdict() {
    let text = logged(Style::Json, "info", |sink| sink.record(&record(Reason::DenyRule)));
    let line: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let told = serde_json::to_value(denial()).unwrap();
    // The connection's own number and time have other names in the verdict; its end has its own reason.
    let elsewhere = ["id", "version", "time", "connection", "own_id", "reason"];
    for field in FIELDS.iter().filter(|field| !elsewhere.contains(field)) {
        assert_eq!(line[*field], told[*field], "{field}");
    }
    assert_eq!(
        (&line["id"], &line["decision_id"]),
        (&told["connection"], &told["id"])
    );
    assert_eq!(line["reason"], "deny_rule");
    assert_eq!(text.matches('\n').count(), 1);

    let own = logged(Style::Json, "info", |sink| {
        sink.decision(&denial(), LogLine::OfConnection);
        sink.decision(&denial(), LogLine::Own);
    });
    let line: serde_json::Map<String, Value> = serde_json::from_str(&own).unwrap();
    let elsewhere = ["id", "version", "time", "connection"];
    for field in FIELDS.iter().filter(|field| !elsewhere.contains(field)) {
        assert_eq!(line[*field], told[*field], "{field}");
    }
    assert_eq!(line["target"], "svidecar::decision");
    assert_eq!(line["timestamp"], told["time"]);
}

#[test]
fn a_connection_without_a_verdict_has_the_same_fields() {
    let mut unjudged = record(Reason::NotTls);
    unjudged.decision = None;
    let text = logged(Style::Json, "info", |sink| sink.record(&unjudged));
    let line: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    for field in CONNECTION_FIELDS {
        assert!(line.contains_key(field), "{field}");
    }
    assert_eq!(line.len(), CONNECTION_FIELDS.len() + 4);
    assert_eq!(line["verdict"], "none");
}

#[test]
fn what_a_stranger_put_into_an_object_is_harmless_in_text() {
    let mut evil = denial();
    evil.nearest = Some(Box::new(Nearest {
        rule: "a\u{202e}b".into(),
        unmet: Vec::new(),
    }));
    let mut record = record(Reason::DenyRule);
    record.decision = Some(Arc::new(evil));
    for style in [Style::Plain, Style::Json] {
        let text = logged(style, "info", |sink| sink.record(&record));
        assert!(!text.contains('\u{202e}') && text.contains("\\u202e"), "{text}");
    }
}

#[test]
fn records_heed_the_filter() {
    for (level, ok, denied) in [
        ("info", true, true),
        ("warn", false, true),
        ("error", false, false),
        ("off", false, false),
        ("off,svidecar::connection=info", true, true),
        ("info,svidecar::connection=warn", false, true),
        ("debug,svidecar::connection=off", false, false),
        ("info,svidecar::identity=off", true, true),
    ] {
        let seen = |reason| !logged(Style::Json, level, |sink| sink.record(&record(reason))).is_empty();
        assert_eq!(
            (seen(Reason::Finished), seen(Reason::DenyRule)),
            (ok, denied),
            "{level}"
        );
    }
}

#[test]
fn levels_follow_the_outcome() {
    for reason in Reason::ALL {
        let text = logged(Style::Json, "trace", |sink| sink.record(&record(*reason)));
        let line: Value = serde_json::from_str(&text).unwrap();
        let expected = if *reason == Reason::Finished {
            "INFO"
        } else {
            "WARN"
        };
        assert_eq!(line["level"], expected, "{reason}");
        assert_eq!(line["reason"], reason.as_str());
    }
}

#[test]
fn a_denial_that_is_only_audited_is_a_warning() {
    let mut audited = record(Reason::Finished);
    audited.decision = Some(Arc::new(denial()));
    let text = logged(Style::Json, "warn", |sink| sink.record(&audited));
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&line["level"], &line["audited"][0]),
        (&"WARN".into(), &"watch".into())
    );
}

#[test]
fn events_have_the_same_keys() {
    let text = logged(Style::Json, "info", |_| {
        tracing::info!(target: "svidecar::x", count = 3, ok = true, who = %"a b", level = "mine", "it happened");
        tracing::debug!("not this");
    });
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], "svidecar::x");
    assert_eq!(line["message"], "it happened");
    assert_eq!(
        (line["count"].as_u64(), line["ok"].as_bool(), line["who"].as_str()),
        (Some(3), Some(true), Some("a b"))
    );
    assert_eq!(line["field_level"], "mine");
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(timestamp.ends_with('Z') && timestamp.len() == "1970-01-01T00:00:01.500000Z".len());
}

#[test]
fn causes_are_told_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Quoting);
    #[derive(Debug, thiserror::Error)]
    #[error("middle: {0}")]
    struct Quoting(#[source] std::fmt::Error);
    let error = Outer(Quoting(std::fmt::Error));
    let text = logged(Style::Plain, "info", |_| {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed");
    });
    let cause = std::fmt::Error;
    assert!(
        text.ends_with(&format!("failed error=\"outer: middle: {cause}\"\n")),
        "{text}"
    );
}

#[test]
fn no_text_breaks_a_line_or_reaches_the_terminal() {
    for (peer_text, plain) in [
        ("simple", "simple"),
        ("", "\"\""),
        ("-", "\"-\""),
        ("a b", "\"a b\""),
        ("a=b", "\"a=b\""),
        ("say \"x\"", "\"say \\\"x\\\"\""),
        ("back\\slash", "\"back\\\\slash\""),
        ("x\ny", "\"x\\ny\""),
        ("x\r\ty", "\"x\\r\\ty\""),
        ("\x1b[31mred", "\"\\u{1b}[31mred\""),
        ("\u{9b}31m", "\"\\u{9b}31m\""),
        ("nul\0", "\"nul\\u{0}\""),
        ("del\x7f", "\"del\\u{7f}\""),
        ("\u{202e}gpj.exe", "\"\\u{202e}gpj.exe\""),
        ("a\u{2028}b", "\"a\\u{2028}b\""),
        ("a\u{200b}b", "\"a\\u{200b}b\""),
        ("\u{e0041}tag", "\"\\u{e0041}tag\""),
        ("grüße", "grüße"),
    ] {
        let mut bad = record(Reason::PeerReset);
        bad.detail = Some(peer_text.to_owned());
        let text = logged(Style::Plain, "info", |sink| sink.record(&bad));
        assert!(
            text.contains(&format!(" detail={plain} policy_generation=")),
            "{peer_text:?}: {text}"
        );
        let json = logged(Style::Json, "info", |sink| sink.record(&bad));
        for line in [&text, &json] {
            assert!(
                !line.trim_end_matches('\n').chars().any(line::is_harmful),
                "{line:?}"
            );
        }
        // What is escaped in JSON is still the same text to whoever parses it.
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["detail"], peer_text);
        let event = logged(Style::Plain, "info", |_| tracing::info!(peer_text, "{peer_text}"));
        assert!(
            !event.trim_end_matches('\n').chars().any(line::is_harmful),
            "{event:?}"
        );
    }
}

#[test]
fn colours_are_ours_alone() {
    let mut bad = record(Reason::PeerReset);
    bad.detail = Some("\x1b]0;title\x07".to_owned());
    let text = logged(Style::Color, "info", |sink| sink.record(&bad));
    let ours = ["\x1b[2m", "\x1b[0m", "\x1b[33m"]
        .iter()
        .fold(text, |text, code| text.replace(code, ""));
    assert!(
        !ours.trim_end_matches('\n').chars().any(line::is_harmful),
        "{ours:?}"
    );
}

#[test]
fn long_texts_are_cut() {
    let mut long = record(Reason::PeerReset);
    long.detail = Some("ü".repeat(100_000));
    for style in [Style::Plain, Style::Json] {
        let text = logged(style, "info", |sink| sink.record(&long));
        assert!(text.len() < 10_000 && text.contains("ü…"), "{}", text.len());
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    /// Holds every write back until it is let go.
    struct Stuck(std::sync::mpsc::Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    another_subscriber();
    let (let_go, stuck) = std::sync::mpsc::channel();
    let (filter, control) = LogControl::new("info").unwrap();
    let (subscriber, sink, guard) = build(Stuck(stuck), 4, Style::Json, filter, control);
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..100 {
            sink.record(&record(Reason::Finished));
        }
    });
    // Four wait in the queue, and one may be in the writer's hands.
    assert!(
        (95..=96).contains(&sink.dropped().count()),
        "{}",
        sink.dropped().count()
    );
    let metrics = crate::telemetry::metrics::Metrics::new(Some(sink.dropped()));
    let text = metrics.encode(crate::telemetry::metrics::Exposition::Prometheus);
    assert!(
        text.contains(&format!(
            "svidecar_log_lines_dropped_total {}\n",
            sink.dropped().count()
        )),
        "{text}"
    );
    drop(let_go);
    drop(guard);
}

#[test]
fn levels_are_checked() {
    for good in [
        "info",
        "WARN",
        "off",
        "info,svidecar::identity=debug",
        "svidecar=trace , warn",
    ] {
        parse_filter(good).unwrap_or_else(|e| panic!("{good}: {e}"));
    }
    for bad in [
        "",
        "inof",
        "svidecar::identity",
        "info,",
        "svidecar=loud",
        "debug;trace",
    ] {
        let message = parse_filter(bad).unwrap_err().to_string();
        assert!(
            message.starts_with('`') && message.contains("error, warn, info"),
            "{bad}: {message}"
        );
    }
}
