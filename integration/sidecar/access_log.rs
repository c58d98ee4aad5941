//! The access log: a line for each connection, in a place of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustls::AlertDescription;
use serde_json::Value;

use crate::peers::{connect, expect_alert};
use crate::plain::exchange;
use crate::support::process::Mark;
use crate::support::{SOON, eventually};
use crate::world::{Inbound, InboundSetup, REPORTS, STOREFRONT};

fn scene(settings: &str) -> Inbound {
    InboundSetup {
        settings,
        ..InboundSetup::default()
    }
    .start()
}

/// One connection that ends well, and then one that is denied.
fn one_of_each(scene: &Inbound) {
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    client.conn.send_close_notify();
    client.conn.complete_io(&mut client.sock).unwrap();
    drop((client, app));
    let ended = "svidecar_connections_total{listener=\"orders\",direction=\"inbound\",result=\"ok\",reason=\"finished\"";
    eventually("it has ended", SOON, || {
        (scene.sidecar.metric(ended) == Some(1.0)).then_some(())
    });
    let mut client = connect(scene.tls, &scene.api.peer(REPORTS));
    expect_alert(&mut client, AlertDescription::AccessDenied);
}

#[test]
fn a_file_has_all_connections_and_the_log_those_that_did_not_end_well() {
    let scene = scene("telemetry:\n  access_log: { file: access.log, max_size: 1MiB, keep: 1 }\n");
    one_of_each(&scene);
    let path = scene.sidecar.folder().join("access.log");
    let lines: Vec<Value> = eventually("both are written", SOON, || {
        let text = fs::read_to_string(&path).ok()?;
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(
        (&lines[0]["reason"], &lines[0]["level"]),
        (&"finished".into(), &"INFO".into())
    );
    assert_eq!(
        (&lines[0]["peer_id"], &lines[0]["bytes_up"]),
        (&STOREFRONT.into(), &5.into())
    );
    // The one that was denied is told twice, in the same line.
    let in_log = scene
        .sidecar
        .wait_record(Mark::default(), &[("reason", "no_allow_rule")]);
    assert_eq!(lines[1], in_log);
    assert_eq!(scene.sidecar.records_since(Mark::default()).len(), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let dropped = scene.sidecar.metric("svidecar_access_log_lines_dropped_total");
    assert_eq!(dropped, Some(0.0));
}

#[test]
fn standard_output_takes_it_as_text_whatever_the_logs_level() {
    let scene = scene("telemetry:\n  log: { level: off }\n  access_log: { file: stdout, format: text }\n");
    one_of_each(&scene);
    for expected in [
        " INFO  svidecar::connection: connection ok id=1 listener=orders direction=inbound peer_addr=",
        " WARN  svidecar::connection: connection denied id=2 listener=orders direction=inbound peer_addr=",
    ] {
        scene
            .sidecar
            .process()
            .wait_line(expected, Mark::default(), SOON, |line| {
                line.contains(expected).then_some(())
            });
    }
    assert_eq!(
        scene
            .sidecar
            .process()
            .lines_since(Mark::default(), |_| Some(()))
            .len(),
        2
    );
}

/// What waits is written before the process ends.
#[test]
fn the_last_line_is_written_when_the_process_ends() {
    let mut scene =
        scene("telemetry:\n  access_log: { file: access.log }\nlimits: { drain_timeout: 10ms }\n");
    let mut client = connect(scene.tls, &scene.api.peer(STOREFRONT));
    let mut app = scene.app.accept();
    exchange(&mut client, &mut app, "hello");
    assert!(scene.sidecar.terminate(SOON).success());
    let text = fs::read_to_string(scene.sidecar.folder().join("access.log")).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(
        (&line["reason"], &line["level"]),
        (&"drain_timeout".into(), &"WARN".into())
    );
}
