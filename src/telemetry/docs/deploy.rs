//! Holds the dashboard and the alert rules to the documentation: the metrics that they name exist, and each alert has a section that
//! says what to do.

use std::collections::BTreeSet;

use serde_json::Value;

use super::documented_metrics;

const DASHBOARD: &str = include_str!("../../../deploy/grafana/svidecar.json");
const RULES: &str = include_str!("../../../deploy/prometheus/svidecar.rules.yaml");
const ALERTS: &str = include_str!("../../../docs/alerts.md");

/// Names of series in a text, without what a histogram appends.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("svidecar_") || word.starts_with("process_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

/// All texts under the key, at any depth.
fn texts<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|inner| texts(inner, key, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| texts(inner, key, found)),
        _ => {}
    }
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    texts(dashboard, "expr", &mut found);
    found
}

/// The annotations and expressions, as YAML's lines.
fn rules(key: &str) -> Vec<&'static str> {
    RULES
        .lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key))
        .map(str::trim)
        .collect()
}

#[test]
fn what_the_dashboard_and_the_rules_ask_for_is_documented() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut asked = metrics_in(&expressions(&dashboard).join("\n"));
    let mut queries = Vec::new();
    texts(&dashboard, "query", &mut queries);
    asked.extend(metrics_in(&queries.join("\n")));
    let without_comments: Vec<_> = RULES
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    asked.extend(metrics_in(&without_comments.join("\n")));
    let documented = documented_metrics();
    let unknown: Vec<_> = asked
        .iter()
        .filter(|name| !documented.contains(*name) && !name.starts_with(TO_COME))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // An exception that is not needed any more must go.
    assert!(!documented.iter().any(|name| name.starts_with(TO_COME)));
    assert!(asked.len() > 20, "{asked:?}");
}

/// The metrics of the audit log come with the audit log.
const TO_COME: &str = "svidecar_audit_";

#[test]
fn every_alert_has_a_section_that_its_runbook_names() {
    let alerts = rules("alert:");
    let sections: Vec<&str> = ALERTS
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    assert_eq!(alerts, sections);
    let runbooks: Vec<String> = alerts
        .iter()
        .map(|alert| format!("docs/alerts.md#{}", alert.to_lowercase()))
        .collect();
    assert_eq!(rules("runbook:"), runbooks);
    for key in ["summary:", "description:", "labels: { severity:"] {
        assert_eq!(rules(key).len(), alerts.len(), "{key}");
    }
}

#[test]
fn panels_do_not_overlap_and_say_what_they_show() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let number = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for y in number("y")..number("y") + number("h") {
            for x in number("x")..number("x") + number("w") {
                assert!(x < 24 && taken.insert((x, y)), "{}", panel["title"]);
            }
        }
        assert!(ids.insert(panel["id"].as_u64()), "{}", panel["title"]);
        if panel["type"] != "row" {
            assert!(
                panel["description"].as_str().is_some_and(|text| text.len() > 5),
                "{panel}"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
    // What is shown can be narrowed: every expression heeds the choice, and those of listeners theirs.
    for expression in expressions(&dashboard) {
        assert!(expression.contains("instance=~\"$instance\""), "{expression}");
        if expression.contains("svidecar_connections") || expression.contains("svidecar_handshake") {
            assert!(expression.contains("listener=~\"$listener\""), "{expression}");
        }
    }
}
