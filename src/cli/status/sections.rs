//! The parts of the screen.

use serde_json::Value;

use super::read::{ago, at, bytes, count, list, number, real, short, text, time, word};
use super::screen::{Look, Moment};
use super::table::{Cell, Table};
use crate::cli::terminal::Tone;
use crate::cli::text::left;

/// Columns of the bar that runs down.
const BAR: usize = 20;

/// Who it is, and whether it serves.
pub(super) fn head(moment: Moment<'_>, look: Look) -> Vec<String> {
    let status = moment.now;
    let now = time(status, "/time");
    let up = time(status, "/started")
        .zip(now)
        .and_then(|(started, now)| now.duration_since(started).ok());
    let ready = at(status, "/readiness/ready") == &Value::Bool(true);
    let first = format!(
        "svidecar {}, pid {}, up {}, {}",
        word(status, "/version"),
        count(status, "/pid"),
        up.map_or_else(|| "-".to_owned(), short),
        if ready { "ready" } else { "NOT READY" }
    );
    let mut lines = vec![look.line(Some(if ready { Tone::Bold } else { Tone::Bad }), &first)];
    for condition in list(at(status, "/readiness"), "conditions") {
        if condition.get("ok") != Some(&Value::Bool(true)) {
            let failing = format!("{}: {}", word(condition, "/name"), word(condition, "/detail"));
            lines.extend(look.wrapped(Tone::Bad, "  ", &failing));
        }
    }
    let identity = at(status, "/identity");
    match (text(identity, "/svid/id"), time(identity, "/svid/not_after"), now) {
        (Some(id), Some(end), Some(now)) => {
            lines.push(look.line(None, &id));
            let begin = time(identity, "/svid/not_before").unwrap_or(now);
            let whole = end.duration_since(begin).unwrap_or_default().as_secs_f64();
            let rest = end.duration_since(now).unwrap_or_default().as_secs_f64();
            let share = if whole > 0.0 {
                (rest / whole).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let tone = match share {
                ..0.1 => Tone::Bad,
                0.1..0.25 => Tone::Odd,
                _ => Tone::Good,
            };
            let last = ago(time(identity, "/recent_rotations/0/time"), Some(now)).replace(" ago", "");
            let line = format!(
                "  SVID ends {} {}  {}, in use for {last}, {} rotations",
                left(end, now),
                bar(share),
                word(identity, "/svid/key_type"),
                count(identity, "/rotations"),
            );
            lines.push(look.line(Some(tone), &line));
        }
        _ => lines.push(look.line(
            Some(Tone::Bad),
            &format!("no SVID: {}", word(identity, "/detail")),
        )),
    }
    if let Some(now) = now {
        let bundles: Vec<String> = list(identity, "bundles")
            .iter()
            .map(|bundle| {
                let end = time(bundle, "/not_after");
                let end = end.map_or_else(
                    || "holds nothing".to_owned(),
                    |end| format!("ends {}", left(end, now)),
                );
                format!("{} {end}", word(bundle, "/trust_domain"))
            })
            .collect();
        if !bundles.is_empty() {
            lines.push(look.line(None, &format!("  bundles: {}", bundles.join(", "))));
        }
    }
    if at(identity, "/connected") != &Value::Bool(true) {
        let why = text(identity, "/problem").unwrap_or_else(|| "it does not answer".to_owned());
        lines.push(look.line(Some(Tone::Bad), &format!("  the identity source is gone: {why}")));
    }
    lines
}

/// What is left of a life: `[############--------]`.
fn bar(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "from 0 to 1"
    )]
    let filled = ((share * BAR as f64).round() as usize).min(BAR);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR - filled))
}

/// Bytes in all, or in a second where that is known.
fn flow(moment: Moment<'_>, total: Option<u64>, rate: Option<f64>) -> String {
    match (moment.is_watched(), rate, total) {
        (true, Some(rate), _) => format!("{}/s", bytes(rate)),
        (_, _, Some(total)) => bytes(real(total)),
        _ => "-".to_owned(),
    }
}

/// Each listener, with how its connections ended.
pub(super) fn listeners(moment: Moment<'_>, look: Look) -> Vec<String> {
    let mut table = Table::new(vec![
        "LISTENER",
        "OPEN",
        "NEW/S",
        "UP",
        "DOWN",
        "OK",
        "DENIED",
        "REFUSED",
        "FAILED",
        "CLOSED",
        "TLS P99",
        "<FROM AND TO",
    ]);
    for listener in list(moment.now, "listeners") {
        let name = at(listener, "/name");
        let same = |status: &Value, pointer: &str| {
            let mut all = list(status, "listeners").iter();
            number(all.find(|other| at(other, "/name") == name)?, pointer)
        };
        let rate = |pointer: &'static str| moment.rate(|status| same(status, pointer));
        let results = ["ok", "denied", "refused", "failed", "closed"];
        let ended = |status: &Value| -> Option<u64> {
            let each = results.map(|result| same(status, &format!("/results/{result}")));
            // Those that are open came, too.
            each.into_iter()
                .sum::<Option<u64>>()?
                .checked_add(same(status, "/open")?)
        };
        let new = moment
            .rate(ended)
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        let mut row: Vec<Cell> = vec![
            word(listener, "/name").into(),
            count(listener, "/open").into(),
            new.into(),
            flow(moment, number(listener, "/bytes_up"), rate("/bytes_up")).into(),
            flow(moment, number(listener, "/bytes_down"), rate("/bytes_down")).into(),
        ];
        for result in results {
            let number = count(listener, &format!("/results/{result}"));
            let tone = match result {
                "denied" => Some(Tone::Bad),
                "refused" | "failed" => Some(Tone::Odd),
                _ => None,
            };
            row.push(Cell(number.clone(), tone.filter(|_| number != "0")));
        }
        row.push(quantile(at(listener, "/handshake_seconds"), 0.99).into());
        let (listen, upstream) = (word(listener, "/listen"), word(listener, "/upstream"));
        row.push(format!("{listen} → {upstream}").into());
        table.row(row);
    }
    table.lines(look.width, look.color)
}

/// The bound of the bucket in which a share of all lies at most: `5 ms`.
fn quantile(histogram: &Value, share: f64) -> String {
    let all = number(histogram, "/count").unwrap_or_default();
    let mut seen = 0_u64;
    for bucket in list(histogram, "buckets") {
        seen = seen.saturating_add(number(bucket, "/count").unwrap_or_default());
        if all > 0 && real(seen) >= real(all) * share {
            return match at(bucket, "/le").as_f64() {
                Some(bound) if bound < 1.0 => format!("{} ms", bound * 1000.0),
                Some(bound) => format!("{bound} s"),
                None => "longer".to_owned(),
            };
        }
    }
    "-".to_owned()
}

/// Who talks to us and whom we call.
pub(super) fn peers(moment: Moment<'_>, look: Look) -> Vec<String> {
    let now = time(moment.now, "/time");
    let peers = list(moment.now, "peers");
    let reports = peers
        .iter()
        .any(|peer| number(peer, "/reported").is_some_and(|reported| reported > 0));
    let mut titles = vec!["PEER", "<LISTENER", "OPEN", "ALLOWED", "DENIED"];
    // Denials without an effect are rare, and most sidecars never have one.
    titles.extend(reports.then_some("REPORTED"));
    titles.extend(["<LAST VERDICT", "UP", "DOWN"]);
    let mut table = Table::new(titles);
    for peer in peers.iter().take(look.listed()) {
        let who = text(peer, "/peer_id")
            .or_else(|| text(peer, "/source").map(|source| format!("{source}, unproven")))
            .unwrap_or_else(|| "unproven".to_owned());
        let denied = number(peer, "/denied").unwrap_or_default();
        let alone = at(peer, "/last/enforced") == &Value::Bool(false);
        let last = match text(peer, "/last/verdict") {
            Some(verdict) => format!(
                "{verdict}{}, {}",
                if alone { " reported" } else { "" },
                ago(time(peer, "/last/time"), now)
            ),
            None => "-".to_owned(),
        };
        let tone = if alone { Tone::Odd } else { Tone::Bad };
        let refused = last.starts_with("deny");
        let mut row: Vec<Cell> = vec![
            who.into(),
            word(peer, "/listener").into(),
            count(peer, "/open").into(),
            count(peer, "/allowed").into(),
            Cell::from(denied.to_string()).tone(denied > 0, Tone::Bad),
        ];
        row.extend(reports.then(|| count(peer, "/reported").into()));
        row.extend([
            Cell::from(last).tone(refused, tone),
            flow(moment, number(peer, "/bytes_up"), None).into(),
            flow(moment, number(peer, "/bytes_down"), None).into(),
        ]);
        table.row(row);
    }
    let mut lines = table.lines(look.width, look.color);
    let all = number(moment.now, "/peers_total").unwrap_or_default();
    lines.extend(more(all, peers.len().min(look.listed()), "peers", look));
    if !lines.is_empty() {
        let note = "verdicts are of those kept in memory, hits and connections since the start";
        lines.extend(look.wrapped(Tone::Dim, "", note));
    }
    lines
}

/// That there are more than are shown.
fn more(all: u64, shown: usize, what: &str, look: Look) -> Option<String> {
    let left = all.saturating_sub(u64::try_from(shown).unwrap_or(u64::MAX));
    (left > 0 && shown > 0).then(|| look.paint(Tone::Dim, &format!("… and {left} more {what}")))
}

/// The newest connections.
pub(super) fn connections(moment: Moment<'_>, look: Look) -> Vec<String> {
    let now = time(moment.now, "/time");
    let mut table = Table::new(vec![
        "CONNECTION OF",
        "NUMBER",
        "<LISTENER",
        "AGE",
        "UP",
        "DOWN",
        "<LET IN BY",
    ]);
    let shown = list(at(moment.now, "/connections"), "shown");
    for connection in shown.iter().take(look.listed()) {
        let age = time(connection, "/since")
            .zip(now)
            .and_then(|(since, now)| now.duration_since(since).ok());
        table.row(vec![
            word(connection, "/peer_id").into(),
            count(connection, "/id").into(),
            word(connection, "/listener").into(),
            age.map_or_else(|| "-".to_owned(), short).into(),
            flow(moment, number(connection, "/bytes_up"), None).into(),
            flow(moment, number(connection, "/bytes_down"), None).into(),
            word(connection, "/rule").into(),
        ]);
    }
    let mut lines = table.lines(look.width, look.color);
    let all = number(moment.now, "/connections/total").unwrap_or_default();
    lines.extend(more(all, shown.len().min(look.listed()), "connections", look));
    lines
}

/// The rules that decide most, and those that never did.
pub(super) fn rules(moment: Moment<'_>, look: Look) -> Vec<String> {
    let policy = at(moment.now, "/policy");
    let now = time(moment.now, "/time");
    let mode = match at(policy, "/mode").as_str() {
        Some("audit") => ", in audit mode: nothing is refused by it",
        _ => "",
    };
    let title = format!(
        "POLICY generation {} since {}{mode}",
        count(policy, "/generation"),
        ago(time(policy, "/since"), now).replace(" ago", "")
    );
    let mut lines = vec![look.line(Some(Tone::Bold), &title)];
    for (document, name) in [
        ("", "policy"),
        ("/deny_list", "deny list"),
        ("/candidate", "candidate"),
    ] {
        let reload = at(policy, &format!("{document}/last_reload"));
        for problem in list(reload, "problems").iter().take(look.listed()) {
            let problem = problem
                .as_str()
                .map(crate::cli::terminal::harmless)
                .unwrap_or_default();
            let said = format!("the newest {name} is refused: {problem}");
            lines.extend(look.wrapped(Tone::Bad, "  ", &said));
        }
    }
    let (mut table, mut unused) = (
        Table::new(vec!["RULE", "<LISTENER", "<VERDICT", "HITS", "<LAST"]),
        Vec::new(),
    );
    let mut shown = 0;
    for rule in list(policy, "rules") {
        if number(rule, "/hits").unwrap_or_default() == 0 {
            unused.push(format!("{} at {}", word(rule, "/name"), word(rule, "/listener")));
        } else if shown < look.listed() {
            shown += 1;
            let verdict = word(rule, "/verdict");
            let tone = if verdict == "deny" { Tone::Bad } else { Tone::Good };
            table.row(vec![
                word(rule, "/name").into(),
                word(rule, "/listener").into(),
                Cell::from(verdict).tone(true, tone),
                count(rule, "/hits").into(),
                ago(time(rule, "/last_hit"), now).into(),
            ]);
        }
    }
    lines.extend(table.lines(look.width, look.color));
    let listed = u64::try_from(unused.len()).unwrap_or(u64::MAX);
    let never = number(policy, "/rules_unused_total").unwrap_or(listed);
    if !unused.is_empty() {
        let names = unused.join(", ");
        lines.push(look.line(Some(Tone::Dim), &format!("{never} never decided: {names}")));
    } else if never > 0 {
        // Their names are beyond what is listed.
        lines.push(look.line(Some(Tone::Dim), &format!("{never} never decided")));
    }
    lines
}
