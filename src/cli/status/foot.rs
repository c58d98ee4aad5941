//! The end of the screen: the config, the audit log, what is lost, and what is used.

use super::read::{ago, at, bytes, count, list, number, real, text, time, word};
use super::screen::{Look, Moment};
use crate::cli::terminal::Tone;

/// The config, the audit log, what is lost, and what is used.
pub(super) fn foot(moment: Moment<'_>, look: Look) -> Vec<String> {
    let status = moment.now;
    let mut lines = Vec::new();
    let config = at(status, "/config");
    if config.is_object() {
        let now = time(status, "/time");
        let hash: String = word(config, "/content_hash").chars().take(12).collect();
        let (generation, read) = (count(config, "/generation"), time(config, "/last_reload/at"));
        let line = format!(
            "CONFIG generation {generation}, {hash}, in force for {}, read {}",
            ago(time(config, "/since"), now).replace(" ago", ""),
            ago(read, now)
        );
        let failed = text(config, "/last_reload/result").is_some_and(|result| result == "failure");
        lines.push(look.line(failed.then_some(Tone::Bad), &line));
        if let (true, Some(problem)) = (failed, text(config, "/last_reload/problems/0")) {
            lines.extend(look.wrapped(Tone::Bad, "  ", &problem));
        }
    }
    let audit = at(status, "/audit");
    if audit.is_object() {
        let head: String = word(audit, "/head").chars().take(12).collect();
        let records = count(audit, "/records");
        let line = format!("AUDIT {}: {records} records, head {head}", word(audit, "/file"));
        lines.push(look.line(Some(Tone::Bold), &line));
        if let Some(why) = text(audit, "/failing") {
            let meanwhile = match at(audit, "/on_failure").as_str() {
                Some("deny") => "new connections are refused",
                _ => "what happens goes unrecorded",
            };
            let failing = format!("it cannot be written, {meanwhile}: {why}");
            lines.extend(look.wrapped(Tone::Bad, "  ", &failing));
        }
        if let Some(lost) = number(audit, "/lost").filter(|lost| *lost > 0) {
            lines.push(look.line(Some(Tone::Bad), &format!("  {lost} records are lost")));
        }
        for sink in list(audit, "sinks") {
            let (name, lag) = (word(sink, "/name"), count(sink, "/lag"));
            let problem = text(sink, "/problem");
            let lost = number(sink, "/lost").filter(|lost| *lost > 0);
            let tone = (problem.is_some() || lost.is_some()).then_some(Tone::Bad);
            let lost = lost
                .map(|lost| format!(", will never get {lost}"))
                .unwrap_or_default();
            let problem = problem.map(|why| format!(": {why}")).unwrap_or_default();
            lines.push(look.line(tone, &format!("  sink {name} lags by {lag}{lost}{problem}")));
        }
    }
    let lost: Vec<String> = ["log_lines", "decisions", "access_log_lines", "spans"]
        .into_iter()
        .filter_map(|what| {
            let lost = number(status, &format!("/losses/{what}")).filter(|lost| *lost > 0)?;
            Some(format!("{lost} {}", what.replace('_', " ")))
        })
        .collect();
    if !lost.is_empty() {
        lines.push(look.line(Some(Tone::Odd), &format!("LOST {}", lost.join(", "))));
    }
    let used = |what: &str| {
        format!(
            "{} of {}",
            count(status, &format!("/limits/{what}/used")),
            count(status, &format!("/limits/{what}/limit"))
        )
    };
    let cpu = match (moment.cpu(), at(status, "/process/cpu_seconds").as_f64()) {
        (Some(share), _) => format!("{:.1} % CPU", share * 100.0),
        (None, Some(seconds)) => format!("{seconds:.1} s of CPU"),
        (None, None) => "CPU unknown".to_owned(),
    };
    let memory = number(status, "/process/resident_bytes").map_or_else(|| "-".to_owned(), |n| bytes(real(n)));
    let line = format!(
        "connections {}, handshakes {}, files {}; {memory}, {} threads, {cpu}",
        used("max_connections"),
        used("max_handshakes"),
        used("open_files"),
        count(status, "/process/threads"),
    );
    lines.push(look.line(Some(Tone::Dim), &line));
    lines
}
