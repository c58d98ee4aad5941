//! The last denials, each with what would have let it in.

use serde_json::Value;

use super::read::{ago, at, list, text, time, word};
use super::screen::{Look, Moment};
use crate::cli::terminal::Tone;

/// The newest few. One that repeats the one before it is counted with it.
pub(super) fn denials(denials: &[Value], moment: Moment<'_>, look: Look) -> Vec<String> {
    let mut told: Vec<(String, String, String, usize)> = Vec::new();
    let now = time(moment.now, "/time");
    for denial in denials {
        let who = text(denial, "/peer_id")
            .or_else(|| text(denial, "/peer_addr"))
            .unwrap_or_default();
        let alone = at(denial, "/enforced") == &Value::Bool(false);
        let what = format!(
            "{who} → {}: {}{}",
            word(denial, "/listener"),
            word(denial, "/reason"),
            if alone { ", reported alone" } else { "" }
        );
        let why = why(denial);
        match told
            .iter_mut()
            .find(|(_, other, because, _)| (other, because) == (&what, &why))
        {
            Some(same) => same.3 += 1,
            None => told.push((ago(time(denial, "/time"), now), what, why, 1)),
        }
    }
    if told.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![look.paint(Tone::Bold, "DENIALS")];
    for (when, what, why, times) in told.into_iter().take(look.listed().div_ceil(2)) {
        let times = match times {
            1 => String::new(),
            times => format!("{times} times, "),
        };
        lines.push(look.line(Some(Tone::Bad), &format!("{when:>10}  {times}{what}")));
        lines.extend(look.wrapped(Tone::Dim, "            ", &why));
    }
    lines
}

/// The nearest rule with what it missed, or the check that failed, or else what the record says.
fn why(denial: &Value) -> String {
    if let Some(rule) = text(denial, "/nearest/rule") {
        let nearest = denial.get("nearest").unwrap_or(&Value::Null);
        let unmet: Vec<String> = list(nearest, "unmet")
            .iter()
            .map(|unmet| format!("{}: {}", word(unmet, "/condition"), word(unmet, "/detail")))
            .collect();
        return format!("nearest is rule {rule} but for {}", unmet.join(", and "));
    }
    if let Some(rule) = text(denial, "/check/rule") {
        return format!(
            "{}: {} ({})",
            word(denial, "/check/certificate"),
            rule,
            word(denial, "/check/standard")
        );
    }
    match (text(denial, "/rule"), text(denial, "/detail")) {
        (Some(rule), Some(detail)) => format!("{rule}: {detail}"),
        (Some(said), None) | (None, Some(said)) => said,
        (None, None) => String::new(),
    }
}
