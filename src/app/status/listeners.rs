//! The listeners and the policy's rules with what they have counted.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::View;
use crate::clock::rfc3339;
use crate::config::settings::{Listener, ListenerKind, Unmatched};
use crate::record::Outcome;
use crate::telemetry::metrics::{
    DecisionCount, HistogramSnapshot, ListenerMetrics, ListenerSnapshot, OTHER_RULE,
};

/// The rules that are listed.
const MAX_RULES: usize = 1000;
/// Entries of the deny list that are listed.
const MAX_ENTRIES: usize = 100;

impl View {
    pub(super) fn listener_states(&self) -> Vec<Value> {
        let running = self.running.load();
        let listeners = running.listeners.iter().map(|running| &running.context);
        listeners
            .map(|context| state(&context.settings, &context.metrics))
            .collect()
    }

    /// The policy as at `/api/v1/policy`, with counts in place of the rules' text.
    pub(super) fn policy_state(&self) -> Value {
        let (rules, total, unused) = self.rules();
        let mut policy = self.policy_with(&self.live.policy(), rules);
        if let Value::Object(fields) = &mut policy {
            fields.insert("rules_total".to_owned(), total.into());
            fields.insert("rules_unused_total".to_owned(), unused.into());
            if let Some(Value::Object(list)) = fields.get_mut("deny_list") {
                bound_entries(list);
            }
        }
        policy
    }

    /// What can decide, at each listener, and how often it did; what decided most comes first. With how many there are, and how
    /// many of these never decided: those are the ones that a bounded list leaves out.
    fn rules(&self) -> (Vec<Value>, usize, usize) {
        let running = self.running.load();
        let listeners = running.listeners.iter().map(|running| &running.context);
        let rules = listeners.flat_map(|context| {
            let decisions = context.metrics.snapshot().decisions.into_iter();
            decisions.map(|decision| (&*context.settings.name, decision))
        });
        bounded(rules.collect())
    }
}

fn bounded(mut rules: Vec<(&str, DecisionCount)>) -> (Vec<Value>, usize, usize) {
    // Two names are of no rule: default deny, and what is not in force any more.
    rules.retain(|(_, decision)| !decision.rule.is_empty() && *decision.rule != *OTHER_RULE);
    let total = rules.len();
    let unused = rules.iter().filter(|(_, decision)| decision.count == 0).count();
    // Stable: then as the listeners are in the file, and by name.
    rules.sort_by_key(|(_, decision)| std::cmp::Reverse(decision.count));
    rules.truncate(MAX_RULES);
    let rules = rules.into_iter().map(|(listener, decision)| {
        json!({
            "name": decision.rule,
            "listener": listener,
            "verdict": decision.verdict,
            "hits": decision.count,
            "last_hit": decision.last_hit.map(rfc3339),
        })
    });
    (rules.collect(), total, unused)
}

/// A deny list may be long, and a status is sent each second.
fn bound_entries(deny_list: &mut Map<String, Value>) {
    if let Some(Value::Array(entries)) = deny_list.get_mut("entries") {
        let total = entries.len();
        entries.truncate(MAX_ENTRIES);
        deny_list.insert("entries_total".to_owned(), total.into());
    }
}

fn state(listener: &Listener, metrics: &ListenerMetrics) -> Value {
    let mut upstream = listener.upstream();
    if let ListenerKind::Transparent(destinations) = &listener.kind
        && destinations.unmatched == Unmatched::Passthrough
    {
        upstream.push_str(", what is not listed in PLAIN TEXT");
    }
    counted(listener, &upstream, &metrics.snapshot())
}

fn counted(listener: &Listener, upstream: &str, counts: &ListenerSnapshot) -> Value {
    let mut results: BTreeMap<&str, u64> = Outcome::ALL.iter().map(|o| (o.as_str(), 0)).collect();
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in &counts.connections {
        *results.entry(reason.outcome().as_str()).or_default() += count;
        if *count > 0 {
            reasons.insert(reason.as_str(), *count);
        }
    }
    json!({
        "name": listener.name,
        "direction": counts.direction,
        "listen": listener.listen.to_string(),
        "upstream": upstream,
        "open": counts.open,
        "results": results,
        "reasons": reasons,
        "bytes_up": counts.bytes_up,
        "bytes_down": counts.bytes_down,
        "handshakes": { "full": counts.handshakes_full, "resumed": counts.handshakes_resumed },
        "handshake_seconds": histogram(&counts.handshake),
    })
}

/// Each bucket with its own count; the last has no bound.
fn histogram(histogram: &HistogramSnapshot) -> Value {
    let buckets: Vec<Value> = histogram
        .bounds
        .iter()
        .zip(&histogram.counts)
        // Infinity is no number in JSON.
        .map(|(bound, count)| json!({ "le": bound.is_finite().then_some(*bound), "count": count }))
        .collect();
    json!({ "count": histogram.count(), "sum": histogram.sum, "buckets": buckets })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_deny_list_is_listed_in_part() {
        for (length, listed) in [(0, 0), (3, 3), (100, 100), (101, 100)] {
            let Value::Object(mut list) = json!({ "path": "deny.yaml", "entries": vec![1; length] }) else {
                panic!("no object");
            };
            bound_entries(&mut list);
            assert_eq!(list["entries"].as_array().map(Vec::len), Some(listed));
            assert_eq!(list["entries_total"], length);
        }
    }

    #[test]
    fn rules_that_never_decided_are_counted_where_they_are_not_listed() {
        let rule = |n: usize, count| DecisionCount {
            rule: format!("rule-{n}").into(),
            verdict: crate::record::Verdict::Allow,
            count,
            last_hit: None,
        };
        let default_deny = DecisionCount {
            rule: "".into(),
            ..rule(0, 0)
        };
        let rules = (0..1200).map(|n| rule(n, u64::from(n < 1100)));
        let rules = rules.chain([default_deny]).map(|rule| ("orders", rule));
        let (listed, total, unused) = bounded(rules.collect());
        assert_eq!((listed.len(), total, unused), (MAX_RULES, 1200, 100));
        assert!(listed.iter().all(|rule| rule["hits"] == 1));
    }

    #[test]
    fn buckets_count_for_themselves_and_the_last_has_no_bound() {
        let shown = histogram(&HistogramSnapshot {
            bounds: vec![0.001, 0.005, f64::INFINITY],
            counts: vec![4, 0, 1],
            sum: 7.5,
        });
        let expected = json!({
            "count": 5, "sum": 7.5,
            "buckets": [{ "le": 0.001, "count": 4 }, { "le": 0.005, "count": 0 }, { "le": null, "count": 1 }],
        });
        assert_eq!(shown, expected);
    }
}
