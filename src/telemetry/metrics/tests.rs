//! What a scraper sees.

mod cardinality;
mod cost;
mod snapshot;

use std::time::Duration;

use super::*;
use crate::record::{Divergence, HandshakeKind, Outcome, PeerAddr, Reason, Verdict};

fn record(listener: &str, reason: Reason) -> ConnectionRecord {
    ConnectionRecord {
        id: 1,
        time: SystemTime::UNIX_EPOCH,
        listener: listener.into(),
        direction: Direction::Inbound,
        peer_addr: PeerAddr::Unix,
        source: None,
        peer_id: None,
        own_id: None,
        resumed: None,
        decision: None,
        admission: None,
        reason,
        detail: None,
        destination: None,
        upstream: None,
        bytes_up: 0,
        bytes_down: 0,
        duration: Duration::ZERO,
        trace: None,
    }
}

fn lines(metrics: &Metrics, with: &str) -> Vec<String> {
    let mut found: Vec<String> = metrics
        .encode(Exposition::Prometheus)
        .lines()
        .filter(|l| l.starts_with(with))
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn every_reason_is_counted_under_its_own_name() {
    let metrics = Metrics::new(None);
    let _inbound = metrics.listener(&"orders".into(), Direction::Inbound);
    for (n, reason) in Reason::ALL.iter().enumerate() {
        for _ in 0..=n {
            metrics.record(&record("orders", *reason));
        }
    }
    let text = metrics.encode(Exposition::OpenMetrics);
    for (n, reason) in Reason::ALL.iter().enumerate() {
        let line = format!(
            "svidecar_connections_total{{listener=\"orders\",direction=\"inbound\",result=\"{}\",reason=\"{reason}\"}} {}\n",
            reason.outcome(),
            n + 1
        );
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn records_of_unknown_listeners_make_no_series() {
    let metrics = Metrics::new(None);
    for n in 0..100 {
        metrics.record(&record(&format!("ghost-{n}"), Reason::Finished));
    }
    assert_eq!(
        lines(&metrics, "svidecar_connections_total"),
        Vec::<String>::new()
    );
}

#[test]
fn handles_count_what_is_seen() {
    let metrics = Metrics::new(None);
    let listener = metrics.listener(&"orders".into(), Direction::Inbound);
    let first = listener.open();
    let second = listener.open();
    drop(first);
    listener.bytes(Flow::Up).inc_by(10);
    listener.bytes_down.inc_by(3);
    listener.handshake(HandshakeKind::Resumed, Duration::from_millis(3));
    assert_eq!(
        lines(&metrics, "svidecar_handshakes_total{"),
        [
            "svidecar_handshakes_total{listener=\"orders\",direction=\"inbound\",kind=\"full\"} 0",
            "svidecar_handshakes_total{listener=\"orders\",direction=\"inbound\",kind=\"resumed\"} 1"
        ]
    );
    assert_eq!(
        lines(&metrics, "svidecar_connections_open{"),
        ["svidecar_connections_open{listener=\"orders\",direction=\"inbound\"} 1"]
    );
    assert_eq!(
        lines(&metrics, "svidecar_bytes_total{"),
        [
            "svidecar_bytes_total{listener=\"orders\",direction=\"inbound\",flow=\"down\"} 3",
            "svidecar_bytes_total{listener=\"orders\",direction=\"inbound\",flow=\"up\"} 10"
        ]
    );
    let buckets = lines(&metrics, "svidecar_handshake_seconds_bucket");
    assert!(
        buckets
            .iter()
            .any(|l| l.contains("le=\"0.0025\"") && l.ends_with(" 0")),
        "{buckets:?}"
    );
    assert!(
        buckets
            .iter()
            .any(|l| l.contains("le=\"0.005\"") && l.ends_with(" 1")),
        "{buckets:?}"
    );
    drop(second);
    assert!(lines(&metrics, "svidecar_connections_open{")[0].ends_with(" 0"));
}

#[test]
fn the_same_listener_gives_the_same_handles() {
    let metrics = Metrics::new(None);
    let name: Arc<str> = "orders".into();
    metrics.listener(&name, Direction::Inbound).bytes_up.inc();
    metrics.listener(&name, Direction::Inbound).bytes_up.inc();
    assert!(lines(&metrics, "svidecar_bytes_total")[1].ends_with(" 2"));
    // The name now belongs to a listener of the other direction: the old series are gone.
    let _outbound = metrics.listener(&name, Direction::Outbound);
    assert!(
        lines(&metrics, "svidecar_")
            .iter()
            .all(|l| !l.contains("inbound"))
    );
    assert_eq!(
        lines(&metrics, "svidecar_authorization_decisions_total{").len(),
        3
    );
    metrics.remove_listener("orders");
    assert!(lines(&metrics, "svidecar_").iter().all(|l| !l.contains("orders")));
}

fn decision(rule: Option<&str>, verdict: Verdict) -> crate::record::Decision {
    crate::record::Decision {
        rule: rule.map(Into::into),
        verdict,
        ..crate::record::decision::tests::bare()
    }
}

#[test]
fn a_counted_decision_is_the_exemplar_of_its_series() {
    let metrics = Metrics::new(None);
    let listener = metrics.listener(&"orders".into(), Direction::Inbound);
    listener.set_rules([("web", Verdict::Allow)]);
    listener.decided(&decision(Some("web"), Verdict::Allow));
    let series =
        "svidecar_authorization_decisions_total{listener=\"orders\",rule=\"web\",verdict=\"allow\"} 1";
    let open = metrics.encode(Exposition::OpenMetrics);
    let line = open.lines().find(|l| l.starts_with(series)).unwrap();
    assert_eq!(
        line,
        format!("{series} # {{decision_id=\"4f2a90c1d3e7-1\"}} 1.0 1.5")
    );
    assert_eq!(lines(&metrics, series), [series]);
}

#[test]
fn decisions_have_series_for_configured_rules_only() {
    let metrics = Metrics::new(None);
    let listener = metrics.listener(&"orders".into(), Direction::Inbound);
    listener.set_rules([("web", Verdict::Allow), ("ban", Verdict::Deny)]);
    listener.decided(&decision(Some("web"), Verdict::Allow));
    listener.decided(&decision(Some("ban"), Verdict::Deny));
    listener.decided(&decision(None, Verdict::Deny));
    listener.decided(&decision(None, Verdict::None));
    for n in 0..1000 {
        listener.decided(&decision(Some(&format!("gone-{n}")), Verdict::Allow));
    }
    let expected = |rule: &str, verdict: &str, count: u32| {
        format!(
            "svidecar_authorization_decisions_total{{listener=\"orders\",rule=\"{rule}\",verdict=\"{verdict}\"}} {count}"
        )
    };
    let series = lines(&metrics, "svidecar_authorization_decisions_total{");
    assert_eq!(
        series,
        [
            expected("", "deny", 1),
            expected("(other)", "allow", 1000),
            expected("(other)", "deny", 0),
            expected("ban", "deny", 1),
            expected("web", "allow", 1),
        ]
    );
    // A reload keeps the count of a rule that stays and removes the one that went, with its verdict.
    listener.set_rules([("web", Verdict::Allow), ("ban", Verdict::Allow)]);
    let series = lines(&metrics, "svidecar_authorization_decisions_total{");
    assert!(series.contains(&expected("web", "allow", 1)));
    assert!(series.contains(&expected("ban", "allow", 0)));
    assert!(!series.iter().any(|l| l.contains("rule=\"ban\",verdict=\"deny\"")));
}

#[test]
fn expiries_are_replaced_whole() {
    let metrics = Metrics::new(None);
    assert_eq!(lines(&metrics, "svidecar_svid_expiry"), Vec::<String>::new());
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    metrics.set_svid(Some(("spiffe://example.org/a", at(100))));
    metrics.set_svid(Some(("spiffe://example.org/b", at(200))));
    metrics.set_bundles([
        ("example.org".to_owned(), at(7)),
        ("partner.example".to_owned(), at(8)),
    ]);
    metrics.set_bundles([("example.org".to_owned(), at(9))]);
    assert_eq!(
        lines(&metrics, "svidecar_svid_expiry"),
        ["svidecar_svid_expiry_timestamp_seconds{id=\"spiffe://example.org/b\"} 200"]
    );
    assert_eq!(
        lines(&metrics, "svidecar_bundle_expiry"),
        ["svidecar_bundle_expiry_timestamp_seconds{trust_domain=\"example.org\"} 9"]
    );
    metrics.set_svid(None);
    assert_eq!(lines(&metrics, "svidecar_svid_expiry"), Vec::<String>::new());
}

fn in_force(generation: u64) -> InForce {
    InForce {
        generation,
        content_hash: format!("hash-{generation}"),
        source: "policy/".to_owned(),
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(generation),
    }
}

#[test]
fn what_is_in_force_is_one_series_for_each_document() {
    let metrics = Metrics::new(None);
    assert_eq!(
        lines(&metrics, "svidecar_policy_generation "),
        ["svidecar_policy_generation 0"]
    );
    metrics.set_in_force(Document::Policy, Some(in_force(1)));
    metrics.set_in_force(Document::Policy, Some(in_force(2)));
    metrics.set_in_force(Document::DenyList, Some(in_force(3)));
    assert_eq!(
        lines(&metrics, "svidecar_policy_since"),
        [
            "svidecar_policy_since_timestamp_seconds{document=\"deny_list\",content_hash=\"hash-3\",source=\"policy/\"} 3",
            "svidecar_policy_since_timestamp_seconds{document=\"policy\",content_hash=\"hash-2\",source=\"policy/\"} 2",
        ]
    );
    assert_eq!(
        lines(&metrics, "svidecar_deny_list_generation "),
        ["svidecar_deny_list_generation 3"]
    );
    assert_eq!(
        lines(&metrics, "svidecar_candidate_generation "),
        Vec::<String>::new()
    );
}

#[test]
fn divergences_are_counted_by_rules_and_bounded() {
    let metrics = Metrics::new(None);
    let listener = metrics.listener(&"orders".into(), Direction::Inbound);
    let (web, batch): (Arc<str>, Arc<str>) = ("web".into(), "batch".into());
    listener.diverged(Divergence::WouldDeny, Some(&web), None);
    listener.diverged(Divergence::WouldDeny, Some(&web), None);
    listener.diverged(Divergence::WouldAllow, None, Some(&batch));
    let prefix = "svidecar_policy_candidate_divergences_total{";
    assert_eq!(
        lines(&metrics, prefix),
        [
            format!(
                "{prefix}listener=\"orders\",change=\"would_allow\",rule=\"\",candidate_rule=\"batch\"}} 1"
            ),
            format!("{prefix}listener=\"orders\",change=\"would_deny\",rule=\"web\",candidate_rule=\"\"}} 2"),
        ]
    );
    for n in 0..1000 {
        listener.diverged(Divergence::WouldDeny, Some(&format!("rule-{n}").into()), None);
    }
    let all = lines(&metrics, prefix);
    assert_eq!(all.len(), 501);
    let others = format!("rule=\"{OTHER_RULE}\",candidate_rule=\"{OTHER_RULE}\"}} 502");
    assert!(all.iter().any(|line| line.ends_with(&others)), "{all:?}");
    metrics.reset_divergences();
    assert_eq!(lines(&metrics, prefix), Vec::<String>::new());
    listener.diverged(Divergence::WouldDeny, Some(&web), None);
    assert_eq!(lines(&metrics, prefix).len(), 1);
}

#[test]
fn single_values_are_there_from_the_start() {
    let metrics = Metrics::new(None);
    metrics.set_workload_api_connected(true);
    metrics.policy_reloaded(Document::Policy, ReloadResult::Failure);
    metrics.set_in_force(Document::Policy, Some(in_force(4)));
    let all = metrics.encode(Exposition::Prometheus);
    for line in [
        "svidecar_svid_rotations_total 0",
        "svidecar_workload_api_connected 1",
        "svidecar_policy_reload_total{document=\"policy\",result=\"success\"} 0",
        "svidecar_policy_reload_total{document=\"policy\",result=\"failure\"} 1",
        "svidecar_policy_reload_total{document=\"deny_list\",result=\"failure\"} 0",
        "svidecar_policy_reload_total{document=\"candidate\",result=\"failure\"} 0",
        "svidecar_policy_reload_failing{document=\"policy\"} 1",
        "svidecar_policy_reload_failing{document=\"deny_list\"} 0",
        "svidecar_policy_generation 4",
        "svidecar_log_lines_dropped_total 0",
        "svidecar_decisions_dropped_total 0",
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE process_open_fds gauge",
        "# TYPE svidecar_build_info gauge",
    ] {
        assert!(all.lines().any(|l| l == line), "{line} is not in\n{all}");
    }
    // Not before the files are good again.
    metrics.policy_reloaded(Document::DenyList, ReloadResult::Success);
    let failing = "svidecar_policy_reload_failing{document=\"policy\"}";
    assert_eq!(lines(&metrics, failing), [format!("{failing} 1")]);
    metrics.policy_reloaded(Document::Policy, ReloadResult::Success);
    assert_eq!(lines(&metrics, failing), [format!("{failing} 0")]);
    assert!(all.contains(&format!(
        "svidecar_build_info{{version=\"{}\"",
        env!("CARGO_PKG_VERSION")
    )));
}

#[test]
fn label_values_cannot_break_a_line() {
    let metrics = Metrics::new(None);
    let listener = metrics.listener(&"orders".into(), Direction::Inbound);
    listener.set_rules([("a\"} 1\nevil 1", Verdict::Allow)]);
    let text = metrics.encode(Exposition::Prometheus);
    assert!(!text.lines().any(|l| l.starts_with("evil")));
}

#[test]
fn outcomes_of_the_record_are_those_of_its_reason() {
    // `connections_total` derives `result` from `reason`: the record must not be able to say otherwise.
    for reason in Reason::ALL {
        assert_eq!(record("x", *reason).outcome(), reason.outcome());
        assert!(Outcome::ALL.contains(&reason.outcome()));
    }
    for (place, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, place);
    }
}
