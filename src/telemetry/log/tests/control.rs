//! A filter that changes.

use super::*;

#[test]
fn the_filter_changes_while_lines_are_written() {
    let speak = |sink: &LogSink, number: u64| {
        tracing::info!(number, "told");
        tracing::debug!(number, "whispered");
        let mut record = record(Reason::Finished);
        record.id = number;
        sink.record(&record);
        sink.decision(&denial(), LogLine::Own);
    };
    let text = logged(Style::Plain, " warn", |sink| {
        let control = sink.control();
        assert_eq!(control.current(), "warn");
        speak(sink, 1);
        assert_eq!(control.set("info").unwrap(), "warn");
        speak(sink, 2);
        assert_eq!(
            control
                .clone()
                .set("debug,svidecar::connection=off,svidecar::decision=error")
                .unwrap(),
            "info"
        );
        speak(sink, 3);
        // What is no filter changes nothing.
        for wrong in ["", "loud", "info,a=b", "info,[=debug"] {
            assert!(matches!(control.set(wrong), Err(LogError::Filter(_))), "{wrong}");
        }
        let long = vec!["svidecar::connection=warn"; 200].join(",");
        assert!(matches!(control.set(&long), Err(LogError::Filter(_))));
        speak(sink, 4);
        control.set("off").unwrap();
        speak(sink, 5);
        assert_eq!(control.current(), "off");
    });
    let told: Vec<String> = text
        .lines()
        .map(|line| line.splitn(3, ' ').last().unwrap().trim_start().to_owned())
        .map(|line| line.split(" listener=").next().unwrap().to_owned())
        .collect();
    let decision = "svidecar::decision: an open connection would not be admitted any more; it has some time to end by itself id=7";
    let tests = "svidecar::telemetry::log::tests::control:";
    let control = "svidecar::telemetry::log::control: the log's filter is changed";
    assert_eq!(
        told,
        [
            decision.to_owned(),
            format!("{control} from=warn to=info"),
            format!("{tests} told number=2"),
            "svidecar::connection: connection ok id=2".to_owned(),
            decision.to_owned(),
            format!("{control} from=info to=\"debug,svidecar::connection=off,svidecar::decision=error\""),
            format!("{tests} told number=3"),
            format!("{tests} whispered number=3"),
            format!("{tests} told number=4"),
            format!("{tests} whispered number=4"),
            format!("{control} from=\"debug,svidecar::connection=off,svidecar::decision=error\" to=off"),
        ]
    );
}
