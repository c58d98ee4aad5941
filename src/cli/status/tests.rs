//! The screen from a fixed status.

use serde_json::json;

use super::*;

const STATUS: &str = include_str!("tests/status.json");
const DENIALS: &str = include_str!("tests/denials.json");

fn asked() -> Asked {
    let denials: Value = serde_json::from_str(DENIALS).unwrap();
    Asked {
        status: serde_json::from_str(STATUS).unwrap(),
        denials: denials.as_array().unwrap().clone(),
    }
}

fn look(width: Option<usize>) -> Look {
    Look {
        width,
        rows: None,
        color: false,
    }
}

/// What stands in a file of expected text; `SVIDECAR_BLESS=1` writes it anew, to be looked at before it is committed.
fn expect(file: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/status/tests")
        .join(file);
    if std::env::var_os("SVIDECAR_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(text == expected, "{file} says otherwise; now it is:\n{text}");
}

#[test]
fn the_screen_as_it_is_printed() {
    expect("plain.txt", &render(&asked(), None, look(None)));
}

#[test]
fn the_screen_in_eighty_columns() {
    let text = render(&asked(), None, look(Some(80)));
    assert!(text.lines().all(|line| table::columns(line) <= 80), "{text}");
    expect("narrow.txt", &text);
}

#[test]
fn what_is_only_reported_is_no_denial_and_losses_are_told() {
    let mut asked = asked();
    let peer = &mut asked.status["peers"][1];
    (peer["reported"], peer["denied"]) = (json!(40), json!(1));
    peer["last"]["enforced"] = json!(false);
    asked.denials[2]["enforced"] = json!(false);
    let audit = &mut asked.status["audit"];
    (audit["lost"], audit["failing"]) = (json!(3), json!("no space left"));
    audit["sinks"][0]["lost"] = json!(2);
    asked.status["policy"]["rules_unused_total"] = json!(700);
    let text = render(&asked, None, look(None));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = text.lines().map(words).collect();
    for line in [
        "PEER LISTENER OPEN ALLOWED DENIED REPORTED LAST VERDICT UP DOWN",
        "spiffe://example.org/ns/shop/sa/reports orders 0 0 1 40 deny reported, 2 min ago 0 B 0 B",
        "2 h ago 10.9.9.9:5 → orders: no_certificate, reported alone",
        "it cannot be written, new connections are refused: no space left",
        "3 records are lost",
        "sink otlp lags by 12, will never get 2: connection refused",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.contains("700 never decided: batch-reads"), "{text}");
    asked.status["audit"]["on_failure"] = json!("continue");
    let text = render(&asked, None, look(None));
    assert!(
        text.contains("it cannot be written, what happens goes unrecorded"),
        "{text}"
    );
}

#[test]
fn watching_shows_rates_in_place_of_totals() {
    let mut before = asked().status;
    before["time"] = json!("2026-11-27T12:00:28.000000Z");
    before["listeners"][0]["bytes_up"] = json!(1_000_000);
    before["listeners"][0]["results"]["ok"] = json!(1180);
    before["process"]["cpu_seconds"] = json!(11.9);
    let text = render(&asked(), Some(&before), look(Some(120)));
    expect("watched.txt", &text);
    // Of another process there is nothing to compare with.
    before["pid"] = json!(1);
    let text = render(&asked(), Some(&before), look(Some(120)));
    assert!(!text.contains("/s  ") && text.contains("12.5 s of CPU"), "{text}");
}

#[test]
fn colours_only_where_they_are_wanted_and_none_changes_the_text() {
    let plain = render(&asked(), None, look(Some(100)));
    assert!(!plain.contains('\x1b'));
    let colored = render(
        &asked(),
        None,
        Look {
            color: true,
            ..look(Some(100))
        },
    );
    assert!(colored.contains("\x1b[31m"), "{colored}");
    let mut stripped = String::new();
    let mut rest = colored.as_str();
    while let Some((text, after)) = rest.split_once('\x1b') {
        stripped.push_str(text);
        rest = after.split_once('m').unwrap().1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
}

#[test]
fn a_low_window_is_not_overrun() {
    for rows in [1, 5, 24, 50] {
        let low = Look {
            rows: Some(rows),
            ..look(Some(100))
        };
        let text = render(&asked(), None, low);
        assert!(text.lines().count() <= rows, "{rows}: {text}");
    }
}

#[test]
fn nothing_that_comes_over_the_wire_commands_the_terminal_and_nothing_that_lacks_is_an_error() {
    fn spoil(value: &mut Value) {
        match value {
            Value::String(text) => text.push_str("\x1b[2J\u{202e}\n\r"),
            Value::Array(items) => items.iter_mut().for_each(spoil),
            Value::Object(fields) => fields.values_mut().for_each(spoil),
            _ => {}
        }
    }
    let mut spoilt = asked();
    let lines = render(&spoilt, None, look(None)).lines().count();
    spoil(&mut spoilt.status);
    spoilt.denials.iter_mut().for_each(spoil);
    let text = render(&spoilt, None, look(None));
    assert!(
        !text.contains('\x1b') && !text.contains('\u{202e}') && !text.contains('\r'),
        "{text:?}"
    );
    // Times cannot be read any more; no line is added by a line feed.
    assert!(text.lines().count() <= lines, "{text}");
    for nothing in [
        json!({}),
        json!(null),
        json!([1]),
        json!({ "listeners": 3, "policy": "x" }),
    ] {
        let asked = Asked {
            status: nothing,
            denials: vec![json!(7)],
        };
        assert!(render(&asked, None, look(Some(40))).contains("NOT READY"));
    }
}

#[test]
fn numbers_for_people() {
    for (number, text) in [
        (0.0, "0 B"),
        (999.0, "999 B"),
        (1000.0, "1.0 kB"),
        (99_940.0, "99.9 kB"),
        (99_950.0, "100 kB"),
        (1_234_567.0, "1.2 MB"),
        (5.3e8, "530 MB"),
        (7.7e12, "7.7 TB"),
        (2e16, "20 PB"),
    ] {
        assert_eq!(read::bytes(number), text);
    }
}

#[test]
fn the_command_line_reads_and_its_help_has_examples() {
    use clap::{Args as _, FromArgMatches as _};
    let command = || StatusArgs::augment_args(clap::Command::new("status"));
    command().debug_assert();
    let read = |words: &[&str]| {
        let matches = command()
            .try_get_matches_from([&["status"], words].concat())
            .unwrap();
        StatusArgs::from_arg_matches(&matches).unwrap()
    };
    let plain = read(&[]);
    assert_eq!(plain.admin.to_string(), "127.0.0.1:15000");
    assert!(!plain.watch && !plain.json);
    assert!(read(&["--watch", "--json"]).watch);
    let help = command().render_help().to_string();
    assert!(
        help.contains("svidecar status --watch") && help.contains("Exit code"),
        "{help}"
    );
}
