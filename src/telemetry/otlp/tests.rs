//! The client against a collector that answers as it is told. What the real one makes of our requests:
//! `integration/otlp`.

pub(crate) mod collector;

use std::sync::Arc;

use tokio::sync::Notify;

use super::proto::{LogRecord, ResourceLogs, ResourceSpans, ScopeLogs, ScopeSpans, Span};
use super::*;
use crate::config::settings::{OtlpHeaders, OtlpProtocol, Target};
use crate::telemetry::metrics::{ExportResult, Metrics, Signal};
use collector::{Collector, Reply};

pub(crate) fn settings(protocol: OtlpProtocol, endpoint: Target) -> Otlp {
    Otlp {
        endpoint,
        path: String::new(),
        protocol,
        timeout: Duration::from_secs(20),
        headers: OtlpHeaders(vec![("authorization".to_owned(), "Bearer hush".to_owned())]),
        service_name: "orders".to_owned(),
    }
}

fn spans() -> ExportTraceServiceRequest {
    let span = Span {
        name: "inbound orders".to_owned(),
        ..Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn logs() -> ExportLogsServiceRequest {
    let record = LogRecord {
        event_name: "verdict".to_owned(),
        ..LogRecord::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

const BOTH: [OtlpProtocol; 2] = [OtlpProtocol::Grpc, OtlpProtocol::Http];

#[tokio::test]
async fn both_signals_arrive_whole_on_one_connection() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let mut client = Client::new(settings(protocol, collector.endpoint()));
        assert_eq!(client.traces(&spans()).await, Ok(Accepted::default()));
        assert_eq!(client.logs(&logs()).await, Ok(Accepted::default()));
        let (first, second) = (collector.next().await, collector.next().await);
        assert_eq!(
            ExportTraceServiceRequest::decode(&*first.message).unwrap(),
            spans()
        );
        assert_eq!(
            ExportLogsServiceRequest::decode(&*second.message).unwrap(),
            logs()
        );
        let (paths, content_type) = match protocol {
            OtlpProtocol::Grpc => (
                [
                    ExportTraceServiceRequest::METHOD,
                    ExportLogsServiceRequest::METHOD,
                ],
                "application/grpc",
            ),
            OtlpProtocol::Http => (["/v1/traces", "/v1/logs"], "application/x-protobuf"),
        };
        assert_eq!([&*first.path, &*second.path], paths);
        for request in [first, second] {
            assert_eq!(request.headers["content-type"], content_type);
            assert_eq!(request.headers["authorization"], "Bearer hush");
            let agent = request.headers["user-agent"].to_str().unwrap();
            assert!(agent.starts_with("svidecar/"), "{agent}");
        }
        assert_eq!(collector.connections(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_path_of_the_collectors_own_is_kept() {
    let mut collector = Collector::start(OtlpProtocol::Http).await;
    let mut settings = settings(OtlpProtocol::Http, collector.endpoint());
    settings.path = "/tenants/a".to_owned();
    assert!(Client::new(settings).traces(&spans()).await.is_ok());
    assert_eq!(collector.next().await.path, "/tenants/a/v1/traces");
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let folder = tempfile::tempdir().unwrap();
    for protocol in BOTH {
        let path = folder.path().join(format!("{protocol:?}.sock"));
        let mut collector = Collector::start_unix(protocol, &path).await;
        let mut client = Client::new(settings(protocol, Target::Unix(path)));
        assert_eq!(client.traces(&spans()).await, Ok(Accepted::default()));
        assert_eq!(
            ExportTraceServiceRequest::decode(&*collector.next().await.message).unwrap(),
            spans()
        );
    }
}

#[tokio::test]
async fn a_partial_success_is_told_and_is_no_error() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let mut client = Client::new(settings(protocol, collector.endpoint()));
        for (rejected, message, expected) in [(3, "too old", 3), (0, "soon full", 0), (-1, "", 0)] {
            collector.will(Reply::Partial(rejected, message));
            let accepted = client.traces(&spans()).await.unwrap();
            assert_eq!((accepted.rejected, &*accepted.message), (expected, message));
        }
    }
}

#[tokio::test]
async fn a_refusal_is_told_from_what_may_pass() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let mut client = Client::new(settings(protocol, collector.endpoint()));
        collector.will(Reply::Refuse);
        let error = client.traces(&spans()).await.unwrap_err();
        assert!(matches!(error, ExportError::Invalid(_)), "{error:?}");
        collector.will(Reply::NotFromYou);
        let error = client.traces(&spans()).await.unwrap_err();
        assert!(matches!(error, ExportError::Refused(_)), "{error:?}");
        collector.will(Reply::Later(Some(7)));
        let error = client.traces(&spans()).await.unwrap_err();
        let ExportError::Retry { after, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
        // Neither is a reason to give up the connection.
        assert!(client.traces(&spans()).await.is_ok());
        assert_eq!(collector.connections(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn nobody_there_may_pass() {
    let folder = tempfile::tempdir().unwrap();
    for protocol in BOTH {
        let nowhere = Target::Unix(folder.path().join("none"));
        let error = Client::new(settings(protocol, nowhere)).traces(&spans()).await;
        assert!(
            matches!(error, Err(ExportError::Retry { after: None, .. })),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_broke_is_replaced() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let mut client = Client::new(settings(protocol, collector.endpoint()));
        assert!(client.traces(&spans()).await.is_ok());
        // The kept one breaks: at once on another.
        collector.will(Reply::Cut);
        assert_eq!(client.traces(&spans()).await, Ok(Accepted::default()));
        assert_eq!(collector.connections(), 2, "{protocol:?}");
        // And where the new one breaks, too, the caller is told.
        collector.will(Reply::Cut);
        collector.will(Reply::Cut);
        let error = client.traces(&spans()).await;
        assert!(
            matches!(error, Err(ExportError::Retry { after: None, .. })),
            "{error:?}"
        );
        assert!(client.traces(&spans()).await.is_ok());
        assert_eq!(collector.connections(), 4, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let mut settings = settings(protocol, collector.endpoint());
        settings.timeout = Duration::from_millis(100);
        let mut client = Client::new(settings);
        collector.will(Reply::Never);
        let error = client.traces(&spans()).await;
        assert!(
            matches!(error, Err(ExportError::Retry { after: None, .. })),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_even_sent() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let mut client = Client::new(settings(OtlpProtocol::Grpc, collector.endpoint()));
    let mut large = spans();
    large.resource_spans[0].schema_url = "x".repeat(MAX_REQUEST);
    let error = client.traces(&large).await;
    assert!(matches!(error, Err(ExportError::Invalid(_))), "{error:?}");
    assert_eq!(collector.connections(), 0);
    // What just fits arrives.
    large.resource_spans[0].schema_url.truncate(MAX_REQUEST - 100);
    assert_eq!(client.traces(&large).await, Ok(Accepted::default()));
    assert!(collector.next().await.message.len() > MAX_REQUEST - 100);
}

#[test]
fn secrets_are_not_shown() {
    let client = Client::new(settings(OtlpProtocol::Grpc, Target::Unix("/a".into())));
    let shown = format!("{client:?}");
    assert!(
        shown.contains("authorization") && !shown.contains("hush"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_request_is_sent_until_it_is_taken() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let metrics = Metrics::new(None);
    let exports = metrics.exports(Signal::Traces);
    let settings = settings(OtlpProtocol::Grpc, collector.endpoint());
    let mut delivery = Delivery::new(settings, exports.clone());
    delivery.backoff = Backoff(Duration::from_millis(1));
    collector.will(Reply::Later(None));
    collector.will(Reply::Later(Some(0)));
    collector.will(Reply::Partial(1, "x"));
    let taken = delivery.deliver(&spans(), None, std::future::pending()).await;
    assert_eq!(taken.unwrap().rejected, 1);

    for (reply, why) in [
        (Reply::Refuse, Undelivered::Invalid),
        (Reply::NotFromYou, Undelivered::Refused),
    ] {
        collector.will(reply);
        let taken = delivery.deliver(&spans(), None, std::future::pending()).await;
        assert_eq!(taken, Err(why));
        // The protocol's own rules: it answers, so it is there, and nothing waits.
        assert_eq!(*delivery.trouble().borrow(), None);
    }
    assert!(
        delivery
            .deliver(&spans(), None, std::future::pending())
            .await
            .is_ok()
    );
    let counted: Vec<u64> = ExportResult::ALL.iter().map(|r| exports.counted(*r)).collect();
    assert_eq!(counted, [1, 1, 2, 2]);
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_trouble_and_no_answer() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let metrics = Metrics::new(None);
        let exports = metrics.exports(Signal::Logs);
        let settings = settings(protocol, collector.endpoint());
        let mut delivery = Delivery::lasting(settings, exports.clone());
        delivery.backoff = Backoff(Duration::from_millis(1));
        for _ in 0..2 {
            collector.will(Reply::NotFromYou);
            let taken = delivery.deliver(&logs(), None, std::future::pending()).await;
            assert_eq!(taken, Err(Undelivered::Refused));
            assert!(delivery.trouble().borrow().is_some());
        }
        // Longer each time, also from one request to the next.
        assert_eq!(delivery.carried, Some(Backoff(Duration::from_millis(4))));
        // That a message is bad says nothing of that, as long as no other is taken.
        collector.will(Reply::Refuse);
        let taken = delivery.deliver(&logs(), None, std::future::pending()).await;
        assert_eq!(taken, Err(Undelivered::Invalid));
        collector.will(Reply::Refuse);
        let any = delivery.takes_any::<ExportLogsServiceRequest>(std::future::pending());
        assert_eq!(any.await, Ok(false));
        assert!(delivery.trouble().borrow().is_some());
        assert_eq!(delivery.carried, Some(Backoff(Duration::from_millis(8))));
        let any = delivery.takes_any::<ExportLogsServiceRequest>(std::future::pending());
        assert_eq!(any.await, Ok(true));
        assert_eq!((&*delivery.trouble().borrow(), delivery.carried), (&None, None));
        let counted: Vec<u64> = ExportResult::ALL.iter().map(|r| exports.counted(*r)).collect();
        assert_eq!(counted, [1, 0, 3, 1], "{protocol:?}");
        // The end of the process is not waited through.
        collector.will(Reply::NotFromYou);
        delivery.backoff = Backoff(Duration::from_secs(3600));
        let taken = delivery.deliver(&logs(), None, std::future::pending()).await;
        assert_eq!(taken, Err(Undelivered::Refused));
        let any = delivery.takes_any::<ExportLogsServiceRequest>(std::future::ready(()));
        assert_eq!(any.await, Err(Undelivered::Ending));
    }
}

#[tokio::test]
async fn a_collector_that_asks_for_peace_has_it_from_the_next_request_too() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let metrics = Metrics::new(None);
    let exports = metrics.exports(Signal::Traces);
    let settings = settings(OtlpProtocol::Grpc, collector.endpoint());
    let mut delivery = Delivery::new(settings, exports.clone());
    collector.will(Reply::Later(Some(100)));
    let patience = Some(Duration::from_secs(99));
    let taken = delivery.deliver(&spans(), patience, std::future::pending()).await;
    assert_eq!(taken, Err(Undelivered::TooLate));
    // It would be taken now, were it sent.
    let taken = delivery.deliver(&spans(), patience, std::future::ready(())).await;
    assert_eq!(taken, Err(Undelivered::Ending));
    assert_eq!(exports.counted(ExportResult::Failed), 1);
    assert_eq!(exports.counted(ExportResult::Accepted), 0);
}

/// Time passes by itself where everybody waits, so that half a minute of backoff takes none.
#[tokio::test(start_paused = true)]
async fn a_request_is_given_up_after_a_while_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = settings(OtlpProtocol::Grpc, Target::Unix(folder.path().join("none")));
    let metrics = Metrics::new(None);
    let exports = metrics.exports(Signal::Logs);
    let mut delivery = Delivery::new(nowhere, exports.clone());
    let begun = tokio::time::Instant::now();
    let patience = Some(Duration::from_secs(40));
    let taken = delivery.deliver(&logs(), patience, std::future::pending()).await;
    assert_eq!(taken, Err(Undelivered::TooLate));
    assert!(begun.elapsed() <= Duration::from_secs(40));
    assert!(exports.counted(ExportResult::Failed) > 2);

    let ending = Arc::new(Notify::new());
    ending.notify_one();
    let taken = delivery.deliver(&logs(), None, ending.notified()).await;
    assert_eq!(taken, Err(Undelivered::Ending));
}
