//! What is sent, whatever the collector says.

use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::task::JoinHandle;

use super::*;
use crate::audit::queue::{self, AuditGuard, Shared};
use crate::config::settings::{OnAuditFailure, OtlpProtocol, Target};
use crate::telemetry::metrics::{Metrics, Signal};
use crate::telemetry::otlp::Backoff;
use crate::telemetry::otlp::proto::{ExportLogsServiceRequest, any_value};
use crate::telemetry::otlp::tests::collector::{Collector, Reply};
use crate::telemetry::otlp::tests::settings as otlp;

/// A sink at work: its files, the writer's side of the log, and a collector.
struct Scene {
    files: Files,
    shared: Arc<Shared>,
    log: AuditLog,
    metrics: AuditSinkMetrics,
    handle: SinkHandle,
    stage: watch::Sender<Stage>,
    running: JoinHandle<()>,
    _guard: AuditGuard,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // There is no writer to wait for.
        self.shared.ended();
    }
}

impl Scene {
    fn start(files: Files, sync: AuditSync, protocol: OtlpProtocol, endpoint: Target) -> Self {
        let sink = AuditSink {
            name: "collector".into(),
            otlp: otlp(protocol, endpoint),
        };
        let audit = settings::Audit {
            path: files.active(),
            on_failure: OnAuditFailure::Continue,
            sync,
            sync_interval: Duration::from_millis(1),
            max_size: 1 << 20,
            max_age: Duration::from_secs(86_400),
            keep: 100,
            keep_for: None,
            compress: false,
            checkpoint_every: Duration::from_secs(3600),
            sinks: vec![sink.clone()],
        };
        let (log, guard, shared) = queue::new(&audit, Counter::default());
        let all = Metrics::new(None);
        let metrics = all.audit.sink(&sink.name);
        let exports = all.exports(Signal::Logs);
        let mut sink = Sink::new(&sink, &audit, &log, metrics.clone(), exports);
        sink.to.set_backoff(Backoff(Duration::from_millis(1)));
        let (stage, stages) = watch::channel(Stage::Running);
        Self {
            files,
            shared,
            log,
            metrics,
            handle: sink.handle(),
            stage,
            running: tokio::spawn(sink.run(1, stages)),
            _guard: guard,
        }
    }

    /// Has these entries written.
    fn write(&self, numbers: std::ops::Range<u64>) {
        self.files.append(&Files::text(numbers.clone()));
        self.shared.set_next(numbers.end);
    }

    /// The end of the process; the sink has ended after it.
    async fn end(&mut self) {
        self.stage.send_replace(Stage::Ending);
        (&mut self.running).await.unwrap();
    }
}

/// The numbers of the entries in the next request.
async fn next(collector: &mut Collector) -> Vec<u64> {
    let taken = collector.next().await;
    let request = ExportLogsServiceRequest::decode(&*taken.message).unwrap();
    let scopes = request.resource_logs.iter().flat_map(|it| &it.scope_logs);
    let numbers = scopes.flat_map(|scope| &scope.log_records).map(|record| {
        let Some(any_value::Value::StringValue(line)) = record.body.clone().unwrap().value else {
            panic!("{record:?}");
        };
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["seq"]
            .as_u64()
            .unwrap()
    });
    numbers.collect()
}

const BOTH: [OtlpProtocol; 2] = [OtlpProtocol::Grpc, OtlpProtocol::Http];
const EVERYTHING: &str = "";

#[tokio::test]
async fn what_is_written_is_sent_and_noted() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let endpoint = collector.endpoint();
    let mut scene = Scene::start(Files::new(), AuditSync::Os, OtlpProtocol::Grpc, endpoint.clone());
    scene.write(0..2);
    assert_eq!(next(&mut collector).await, [0, 1]);
    scene.write(2..3);
    assert_eq!(next(&mut collector).await, [2]);
    scene.end().await;
    assert_eq!((scene.handle.status().lag, scene.metrics.lag.get()), (0, 0));
    // Another process goes on there.
    let files = std::mem::replace(&mut scene.files, Files::new());
    let mut scene = Scene::start(files, AuditSync::Os, OtlpProtocol::Grpc, endpoint);
    scene.write(3..4);
    assert_eq!(next(&mut collector).await, [3]);
    scene.end().await;
}

/// An old and a new process share the log: the new one sends nothing before the old one is gone, and then from where that was.
#[tokio::test]
async fn of_two_processes_one_sends() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let endpoint = collector.endpoint();
    let mut old = Scene::start(Files::new(), AuditSync::Os, OtlpProtocol::Grpc, endpoint.clone());
    let mut new = Scene::start(old.files.clone(), AuditSync::Os, OtlpProtocol::Grpc, endpoint);
    old.write(0..2);
    new.shared.set_next(2);
    assert_eq!(next(&mut collector).await, [0, 1]);
    old.write(2..3);
    new.shared.set_next(3);
    assert_eq!(next(&mut collector).await, [2]);
    old.end().await;
    new.write(3..4);
    assert_eq!(next(&mut collector).await, [3]);
    new.end().await;
    assert_eq!(new.metrics.lost.get(), 0);
}

#[tokio::test]
async fn a_collector_that_refuses_us_loses_nothing() {
    for protocol in BOTH {
        for refusal in [Reply::NotFromYou, Reply::Refuse] {
            let mut collector = Collector::start(protocol).await;
            collector.always(Some((EVERYTHING, refusal)));
            let mut scene = Scene::start(Files::new(), AuditSync::Os, protocol, collector.endpoint());
            scene.write(0..4);
            // Down to one, in case the request was too large; that one for ever. Where it is said that the message is bad, a
            // request without any is asked about, and refused, too.
            let mut sizes = Vec::new();
            while sizes.len() < 8 {
                sizes.push(next(&mut collector).await.len());
            }
            let again: &[usize] = match refusal {
                Reply::Refuse => &[4, 2, 1, 0, 1, 0, 1, 0],
                _ => &[4, 2, 1, 1, 1, 1, 1, 1],
            };
            assert_eq!(sizes, again);
            let status = scene.handle.status();
            assert!(status.problem.unwrap().contains("the collector says"));
            assert_eq!(status.lag, 4);
            // What comes meanwhile is seen.
            scene.write(4..6);
            next(&mut collector).await;
            assert_eq!(scene.metrics.lag.get(), 6);
            collector.always(None);
            let mut came: Vec<u64> = Vec::new();
            while came.last() != Some(&5) {
                came.extend(next(&mut collector).await);
            }
            // Those before were refused, when they came.
            came.dedup();
            let from_zero = came.iter().rposition(|seq| *seq == 0).unwrap();
            assert_eq!(came[from_zero..], [0, 1, 2, 3, 4, 5]);
            scene.end().await;
            assert_eq!(scene.metrics.lost.get(), 0);
            assert_eq!(scene.handle.status().problem, None);
        }
    }
}

#[tokio::test]
async fn an_entry_that_is_bad_is_lost_alone() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        collector.always(Some((":37:", Reply::Refuse)));
        let mut scene = Scene::start(Files::new(), AuditSync::Os, protocol, collector.endpoint());
        scene.write(0..100);
        let mut came = Vec::new();
        let mut requests = 0;
        while came.last() != Some(&99) {
            let numbers = next(&mut collector).await;
            requests += 1;
            if !numbers.contains(&37) {
                came.extend(numbers);
            }
        }
        let others: Vec<u64> = (0..100).filter(|seq| *seq != 37).collect();
        assert_eq!(came, others);
        assert!(requests < 30, "{requests}");
        scene.end().await;
        assert_eq!((scene.metrics.lost.get(), scene.handle.status().lag), (1, 0));
    }
}

#[tokio::test]
async fn nothing_is_sent_before_the_disk_has_it_not_even_at_the_end() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let endpoint = collector.endpoint();
    let mut scene = Scene::start(Files::new(), AuditSync::Interval, OtlpProtocol::Grpc, endpoint);
    scene.shared.status().durable = Some(1);
    scene.write(0..4);
    assert_eq!(next(&mut collector).await, [0, 1]);
    scene.shared.status().durable = Some(2);
    assert_eq!(next(&mut collector).await, [2]);
    // The end begins, and one more is written before it is over.
    scene.stage.send_replace(Stage::Leaving);
    collector.ended().await;
    scene.write(4..5);
    scene.stage.send_replace(Stage::Ending);
    scene.shared.status().durable = Some(4);
    scene.end().await;
    assert_eq!(next(&mut collector).await, [3, 4]);
    assert_eq!(scene.log.next(), 5);
    assert_eq!(scene.handle.status().lag, 0);
}

#[tokio::test]
async fn a_log_in_place_of_the_one_that_was_sent_is_sent_whole() {
    let mut collector = Collector::start(OtlpProtocol::Grpc).await;
    let files = Files::new();
    let note = segment::beside(&files.active(), "sink.collector");
    cursor::write(&note, &Files::chain("x", 0..2).1).unwrap();
    let endpoint = collector.endpoint();
    let mut scene = Scene::start(files, AuditSync::Os, OtlpProtocol::Grpc, endpoint);
    scene.write(0..4);
    assert_eq!(next(&mut collector).await, [0, 1, 2, 3]);
    scene.end().await;
    assert_eq!(scene.metrics.lost.get(), 0);
    assert_eq!(cursor::read(&note), Some(Files::head(4)));
}
