//! Spans of records, and the way they go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use prost::Message as _;

use super::*;
use crate::config::settings::{Denials, OtlpProtocol};
use crate::record::decision::tests::{bare, denial};
use crate::record::{Direction, PeerAddr, Phases, Reason, Trace, TraceId};
use crate::telemetry::metrics::ExportResult;
use crate::telemetry::otlp::proto::span::SpanKind;
use crate::telemetry::otlp::proto::status::StatusCode;
use crate::telemetry::otlp::proto::{Span, any_value::Value};
use crate::telemetry::otlp::tests::collector::{Collector, Reply};
use crate::telemetry::otlp::tests::settings as otlp_settings;

const MICROSECOND: u64 = 1000;
const END: u64 = 1_800_000_000_000_000_000;

/// An inbound connection that lasted for 100 microseconds.
pub(super) fn record(connection: u64, reason: Reason) -> ConnectionRecord {
    ConnectionRecord {
        id: connection,
        time: SystemTime::UNIX_EPOCH + Duration::from_nanos(END),
        listener: "orders".into(),
        direction: Direction::Inbound,
        peer_addr: PeerAddr::Ip([10, 1, 2, 3].into(), 99),
        source: Some("10.1.2.3".parse().unwrap()),
        peer_id: None,
        own_id: None,
        resumed: None,
        decision: None,
        admission: None,
        reason,
        detail: None,
        destination: None,
        upstream: None,
        bytes_up: 0,
        bytes_down: 0,
        duration: Duration::from_micros(100),
        trace: Some(Trace {
            id: TraceId::of(1, connection),
            phases: phases(&[]),
        }),
    }
}

fn phases(ends: &[u64]) -> Phases {
    let mut phases = Phases::BEGUN;
    for end in ends {
        phases.next(Duration::from_micros(*end));
    }
    phases
}

fn met(record: &mut ConnectionRecord, ends: &[u64]) {
    record.trace.as_mut().unwrap().phases = phases(ends);
}

fn spans_of(record: &ConnectionRecord) -> Vec<Span> {
    let mut found = Vec::new();
    spans::append(record, "ot=th:0", &mut found);
    assert_eq!(u64::try_from(found.len()).unwrap(), spans::count(record));
    found
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    span.attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.as_ref().unwrap().value.as_ref().unwrap();
            let value = match value {
                Value::StringValue(text) => text.clone(),
                Value::IntValue(number) => number.to_string(),
                Value::BoolValue(truth) => truth.to_string(),
                other => format!("{other:?}"),
            };
            (attribute.key.as_str(), value)
        })
        .collect()
}

/// Name, begin and end in microseconds from the acceptance, and whether it is an error.
fn told(spans: &[Span]) -> Vec<(&str, u64, u64, bool)> {
    let since = |time: u64| (time - (END - 100 * MICROSECOND)) / MICROSECOND;
    spans
        .iter()
        .map(|span| {
            let error = span
                .status
                .as_ref()
                .is_some_and(|s| s.code() == StatusCode::Error);
            (
                span.name.as_str(),
                since(span.start_time_unix_nano),
                since(span.end_time_unix_nano),
                error,
            )
        })
        .collect()
}

#[test]
fn a_connection_that_ended_well_is_one_trace() {
    let mut record = record(7, Reason::Finished);
    met(&mut record, &[5, 30, 40, 60]);
    let decision = bare();
    record.peer_id = Some(Arc::new("spiffe://example.org/web".parse().unwrap()));
    record.resumed = Some(true);
    record.admission = Some(decision.id);
    record.decision = Some(Arc::new(decision));
    record.upstream = Some("127.0.0.1:8080".into());
    (record.bytes_up, record.bytes_down) = (10, 20);
    let spans = spans_of(&record);
    assert_eq!(
        told(&spans),
        [
            ("inbound orders", 0, 100, false),
            ("accept", 0, 5, false),
            ("handshake", 5, 30, false),
            ("authorize", 30, 40, false),
            ("connect", 40, 60, false),
            ("relay", 60, 100, false),
        ]
    );
    let id = record.trace.unwrap().id;
    for (place, span) in spans.iter().enumerate() {
        assert_eq!(span.trace_id, id.to_bytes());
        assert_eq!(span.trace_state, "ot=th:0");
        let (kind, parent) = if place == 0 {
            (SpanKind::Server, &[][..])
        } else {
            (SpanKind::Internal, &spans[0].span_id[..])
        };
        assert_eq!((span.kind(), &*span.parent_span_id), (kind, parent));
        let others = spans.iter().filter(|other| other.span_id == span.span_id);
        assert_eq!(others.count(), 1);
    }
    let root = attributes(&spans[0]);
    for (name, value) in [
        ("svidecar.id", "7"),
        ("svidecar.peer_id", "spiffe://example.org/web"),
        ("svidecar.verdict", "allow"),
        ("svidecar.result", "ok"),
        ("svidecar.reason", "finished"),
        ("svidecar.upstream", "127.0.0.1:8080"),
        ("svidecar.bytes_up", "10"),
        ("svidecar.bytes_down", "20"),
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("network.peer.address", "10.1.2.3"),
        ("network.peer.port", "99"),
        ("client.address", "10.1.2.3"),
        ("client.port", "99"),
        ("tls.protocol.version", "1.3"),
        ("tls.resumed", "true"),
    ] {
        assert_eq!(root.get(name).map(String::as_str), Some(value), "{name}");
    }
    // What is the application's address is no server of ours.
    for name in ["server.address", "error.type"] {
        assert!(!root.contains_key(name), "{name}");
    }
    assert_eq!(attributes(&spans[3])["svidecar.verdict"], "allow");
    assert_eq!(attributes(&spans[5])["svidecar.bytes_down"], "20");
}

#[test]
fn a_denial_is_an_error_of_its_phase() {
    let mut record = record(7, Reason::DenyRule);
    met(&mut record, &[5, 30]);
    record.decision = Some(Arc::new(denial()));
    record.detail = Some("web must not".to_owned());
    let spans = spans_of(&record);
    assert_eq!(
        told(&spans),
        [
            ("inbound orders", 0, 100, true),
            ("accept", 0, 5, false),
            ("handshake", 5, 30, false),
            ("authorize", 30, 100, true),
        ]
    );
    for span in [&spans[0], &spans[3]] {
        assert_eq!(attributes(span)["error.type"], "deny_rule");
        assert_eq!(attributes(span)["svidecar.verdict"], "deny");
        assert_eq!(span.status.as_ref().unwrap().message, "web must not");
    }
    assert_eq!(attributes(&spans[0])["svidecar.rule"], "no-web");
    assert!(!attributes(&spans[2]).contains_key("error.type"));
}

/// What let it in is not what ended it.
#[test]
fn a_connection_that_was_judged_again_was_admitted_all_the_same() {
    let mut record = record(7, Reason::PolicyChange);
    met(&mut record, &[5, 30, 40, 60]);
    record.admission = Some(bare().id);
    let mut later = denial();
    later.id = "4f2a90c1d3e7-99".parse().unwrap();
    record.decision = Some(Arc::new(later));
    let spans = spans_of(&record);
    assert!(told(&spans).iter().all(|(.., error)| !error));
    assert_eq!(attributes(&spans[0])["svidecar.verdict"], "deny");
    assert!(!attributes(&spans[3]).contains_key("svidecar.verdict"));
    assert_eq!(
        attributes(&spans[3])["svidecar.admission_id"],
        bare().id.to_string()
    );
}

#[test]
fn an_outbound_connection_is_a_clients() {
    let mut record = record(7, Reason::ConnectFailed);
    record.direction = Direction::Outbound;
    record.peer_addr = PeerAddr::Unix;
    record.source = None;
    met(&mut record, &[2]);
    for (upstream, address, port) in [
        ("orders.svc:8443", "orders.svc", Some("8443")),
        ("[2001:db8::1]:1", "2001:db8::1", Some("1")),
        ("unix:///run/o.sock", "/run/o.sock", None),
    ] {
        record.upstream = Some(upstream.into());
        let spans = spans_of(&record);
        assert_eq!(
            told(&spans),
            [
                ("outbound orders", 0, 100, true),
                ("accept", 0, 2, false),
                ("connect", 2, 100, true),
            ]
        );
        assert_eq!(spans[0].kind(), SpanKind::Client);
        let root = attributes(&spans[0]);
        assert_eq!(root["network.transport"], "unix");
        assert_eq!(root["server.address"], address);
        assert_eq!(root.get("server.port").map(String::as_str), port);
        assert_eq!(root["tls.established"], "false");
        assert!(!root.contains_key("client.address"));
    }
}

#[test]
fn a_load_balancers_caller_is_the_client() {
    let mut record = record(7, Reason::Finished);
    record.source = Some("192.0.2.7".parse().unwrap());
    let spans = spans_of(&record);
    let root = attributes(&spans[0]);
    assert_eq!(root["network.peer.address"], "10.1.2.3");
    assert_eq!(root["client.address"], "192.0.2.7");
    assert!(!root.contains_key("client.port"), "its port is not known");
}

#[test]
fn without_a_trace_there_is_no_span() {
    let mut record = record(7, Reason::Finished);
    record.trace = None;
    let mut found = Vec::new();
    spans::append(&record, "", &mut found);
    assert_eq!(found, []);
}

/// A request of the largest records is one that is sent.
#[test]
fn a_batch_fits_into_a_request() {
    let mut largest = record(7, Reason::NoAllowRule);
    met(&mut largest, &[1, 2, 3, 4]);
    let long = "x".repeat(1900);
    let id = Arc::new(format!("spiffe://example.org/{long}").parse().unwrap());
    (largest.peer_id, largest.own_id) = (Some(Arc::clone(&id)), Some(id));
    largest.detail = Some("x".repeat(100_000));
    largest.decision = Some(Arc::new(denial()));
    let mut spans = Vec::new();
    for _ in 0..BATCH {
        spans::append(&largest, "ot=th:0", &mut spans);
    }
    let scope = ScopeSpans {
        spans,
        ..ScopeSpans::default()
    };
    let size = scope.encoded_len();
    assert!(size < otlp::MAX_REQUEST * 3 / 4, "{size}");
}

fn settings(collector: &Collector) -> settings::Traces {
    settings::Traces {
        otlp: otlp_settings(OtlpProtocol::Grpc, collector.endpoint()),
        sample: 1.0,
        denials: Denials::Always,
    }
}

async fn received(collector: &mut Collector) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(&*collector.next().await.message).unwrap();
    let [resource] = &request.resource_spans[..] else {
        panic!("{request:?}");
    };
    let named: Vec<_> = resource.resource.as_ref().unwrap().attributes.iter().collect();
    assert_eq!(named[0].key, "service.name");
    resource.scope_spans[0].spans.clone()
}

#[tokio::test]
async fn what_waits_is_sent_in_one_request_and_the_rest_at_the_end() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let metrics = Metrics::new(None);
    let (traces, exporter) = new(&settings(&collector), &metrics, None);
    for connection in 0..3 {
        traces.record(&record(connection, Reason::Finished));
    }
    let (end, ending) = watch::channel(Stage::Running);
    let running = tokio::spawn(exporter.run(9, ending));
    let spans = received(&mut collector).await;
    assert_eq!(spans.len(), 6, "{spans:?}");

    for connection in 3..3 + 2 * BATCH as u64 {
        traces.record(&record(connection, Reason::Finished));
    }
    end.send_replace(Stage::Ending);
    let first = received(&mut collector).await;
    let second = received(&mut collector).await;
    assert_eq!(first.len() + second.len(), 4 * BATCH);
    running.await.unwrap();
    assert_eq!(metrics.spans_dropped.get(), 0);
    assert_eq!(metrics.exports(Signal::Traces).counted(ExportResult::Accepted), 3);
    // Whoever comes too late is counted.
    traces.record(&record(1, Reason::Finished));
    assert_eq!(metrics.spans_dropped.get(), 2);
}

/// Somebody may be waiting for the connection to end: ourselves, where the collector is behind a listener of ours.
#[tokio::test]
async fn no_connection_is_kept_by_who_leaves() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
        let mut collector = Collector::start(protocol).await;
        let metrics = Metrics::new(None);
        let mut settings = settings(&collector);
        settings.otlp.protocol = protocol;
        let (traces, exporter) = new(&settings, &metrics, None);
        let (stage, stages) = watch::channel(Stage::Running);
        let running = tokio::spawn(exporter.run(9, stages));
        for connections in 1..=2 {
            traces.record(&record(connections, Reason::Finished));
            collector.next().await;
            stage.send_replace(Stage::Leaving);
            collector.ended().await;
            assert_eq!(collector.connections() as u64, connections, "{protocol:?}");
        }
        stage.send_replace(Stage::Ending);
        running.await.unwrap();
        assert_eq!(metrics.spans_dropped.get(), 0);
    }
}

#[tokio::test]
async fn what_finds_the_queue_full_or_is_not_taken_is_counted() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let metrics = Metrics::new(None);
    let (traces, exporter) = new(&settings(&collector), &metrics, None);
    for connection in 0..u64::try_from(QUEUE).unwrap() {
        traces.record(&record(connection, Reason::Finished));
    }
    assert_eq!(metrics.spans_dropped.get(), 0);
    for connection in 0..3 {
        traces.record(&record(connection, Reason::Finished));
    }
    assert_eq!(metrics.spans_dropped.get(), 6);
    // One request is refused, one is taken but for five spans.
    collector.will(Reply::Refuse);
    collector.will(Reply::Partial(5, "no"));
    let (end, ending) = watch::channel(Stage::Ending);
    exporter.run(9, ending).await;
    drop(end);
    let batch = u64::try_from(2 * BATCH).unwrap();
    assert_eq!(metrics.spans_dropped.get(), 6 + batch + 5);
}

/// The names of all attributes that a span can have.
pub(in crate::telemetry) fn all_attributes() -> std::collections::BTreeSet<String> {
    let mut whole = record(7, Reason::DenyRule);
    met(&mut whole, &[1, 2, 3, 4]);
    let id = Arc::new("spiffe://example.org/web".parse().unwrap());
    (whole.peer_id, whole.own_id) = (Some(Arc::clone(&id)), Some(id));
    whole.resumed = Some(true);
    whole.admission = Some(denial().id);
    whole.decision = Some(Arc::new(denial()));
    whole.upstream = Some("orders.svc:8443".into());
    let mut outbound = whole.clone();
    outbound.direction = Direction::Outbound;
    [whole, outbound]
        .iter()
        .flat_map(spans_of)
        .flat_map(|span| span.attributes)
        .map(|attribute| attribute.key)
        .collect()
}

#[test]
fn what_must_not_leave_is_in_no_span() {
    use crate::config::settings::RedactionProfile;
    use crate::redaction::{Redactor, profile};

    let mut record = record(7, Reason::NoAllowRule);
    record.decision = Some(Arc::new(denial()));
    record.peer_id = record.decision.as_ref().unwrap().peer_id.clone();
    record.detail = Some("10.1.2.3 is not let in".to_owned());
    for rules in RedactionProfile::ALL.iter().map(|named| profile::rules(*named)) {
        let redactor = Redactor::new(&rules, Some(b"a key of thirty-two bytes or so")).unwrap();
        let mut spans = Vec::new();
        spans::append(&record, "", &mut spans);
        let ip = record.peer_addr.ip().unwrap().to_string();
        assert!(format!("{spans:?}").contains(&ip));
        spans.iter_mut().for_each(|span| spans::redact(span, &redactor));
        let text = format!("{spans:?}");
        let path = record.peer_id.as_ref().unwrap().path();
        assert!(
            !text.contains(&ip) && !text.contains(&format!("example.org{path}")),
            "{text}"
        );
        assert!(!text.contains("network.peer.port"), "{text}");
    }
}

/// Lists and the span's own name hold what is redacted, too; words of closed sets are never touched.
#[test]
fn names_and_lists_of_a_span_are_redacted() {
    use crate::config::settings::{Redact, RedactionFind, RedactionRule};
    use crate::redaction::Redactor;

    let mut record = record(7, Reason::NoAllowRule);
    met(&mut record, &[1, 2, 3]);
    record.listener = "ada-orders".into();
    record.resumed = Some(true);
    record.decision = Some(Arc::new(crate::record::Decision {
        audited: vec!["watch-ada".into(), "watch".into()],
        ..denial()
    }));
    let redacted = |fields: Option<&str>, find: RedactionFind, action| {
        let rules = [RedactionRule {
            fields: fields.map(|field| vec![field.to_owned()]),
            find,
            action,
        }];
        let redactor = Redactor::new(&rules, None).unwrap();
        let mut spans = spans_of(&record);
        spans.iter_mut().for_each(|span| spans::redact(span, &redactor));
        spans
    };
    let ada = || RedactionFind::Pattern("ada".to_owned());
    let spans = redacted(None, ada(), Redact::Mask);
    let text = format!("{spans:?}");
    assert!(!text.contains("ada") && text.contains("watch-***"), "{text}");
    assert_eq!(spans[0].name, "inbound ***-orders");

    let spans = redacted(Some("listener"), RedactionFind::Value, Redact::Drop);
    assert_eq!(spans[0].name, "inbound");
    assert!(!attributes(&spans[0]).contains_key("svidecar.listener"));
    assert_eq!(spans[1].name, "accept");

    let spans = redacted(None, RedactionFind::Value, Redact::Mask);
    let all = attributes(&spans[0]);
    for (key, value) in [
        ("error.type", "no_allow_rule"),
        ("network.transport", "tcp"),
        ("tls.protocol.version", "1.3"),
        ("svidecar.direction", "inbound"),
        ("svidecar.rule", "***"),
    ] {
        assert!(all[key].contains(value), "{key}: {}", all[key]);
    }
    assert!(all.contains_key("svidecar.id") && all.contains_key("svidecar.bytes_up"));
    assert!(!all.contains_key("client.port"), "{all:?}");
    let dropped = redacted(Some("audited"), RedactionFind::Value, Redact::Drop);
    assert!(!attributes(&dropped[0]).contains_key("svidecar.audited"));
}
