//! That the number of series follows from our own files, whoever comes and whatever they bring.

use super::*;
use crate::record::RenewalResult;

/// The most series of a process with so many listeners, of so many rules or `peer` patterns each, without those of the
/// process itself, of identities and of documents, which have one series each.
fn bound(listeners: usize, rules: usize) -> usize {
    // `handshake_seconds` has a series for each bucket, with the infinite one, and those of sum and count.
    let histogram = 12 + 2;
    // Default deny, and both verdicts of rules that are gone.
    let decisions = rules + 3;
    let divergences = 500 + Divergence::ALL.len() * listeners;
    let each = Reason::ALL.len()
        + Flow::ALL.len()
        + 1
        + histogram
        + HandshakeKind::ALL.len()
        + RenewalResult::ALL.len()
        + decisions;
    listeners * each + divergences
}

#[test]
fn the_bound_is_documented_as_it_is() {
    let docs = include_str!("../../../../docs/observability.md");
    let of_a_listener = bound(1, 0) - bound(0, 0) - Divergence::ALL.len();
    let told = format!("{of_a_listener} for a listener");
    assert!(docs.contains(&told), "{told}");
}

/// All series that belong to listeners, without their values.
fn series(metrics: &Metrics) -> Vec<String> {
    lines(metrics, "svidecar_")
        .into_iter()
        .filter(|line| line.contains("listener="))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[test]
fn the_number_of_series_is_bounded_by_the_configuration() {
    const LISTENERS: usize = 3;
    const RULES: usize = 20;
    let metrics = Metrics::new(None);
    let names: Vec<Arc<str>> = (0..LISTENERS).map(|n| format!("listener-{n}").into()).collect();
    let mut most = 0;
    // Each round is a new policy with other rules, and peers by the hundred that no round before has seen.
    for round in 0..50 {
        let rules: Vec<String> = (0..RULES).map(|n| format!("rule-{}", round * 7 + n)).collect();
        for name in &names {
            let listener = metrics.listener(name, Direction::Inbound);
            let verdicts = [Verdict::Allow, Verdict::Deny]
                .into_iter()
                .cycle()
                .skip(round % 2);
            listener.set_rules(rules.iter().map(String::as_str).zip(verdicts));
            for n in 0..100 {
                let peer = format!("spiffe://example.org/round-{round}/peer-{n}");
                let rule = rules.get(n % (2 * RULES));
                let decision = crate::record::Decision {
                    peer_id: Some(Arc::new(peer.parse().unwrap())),
                    serial: Some(peer.as_str().into()),
                    connection: u64::try_from(n).unwrap(),
                    ..decision(rule.map(String::as_str), Verdict::ALL[n % Verdict::ALL.len()])
                };
                listener.decided(&decision);
                let reason = Reason::ALL[n % Reason::ALL.len()];
                let mut record = record(name, reason);
                record.peer_addr = PeerAddr::Ip([10, 0, 0, 1].into(), u16::try_from(n).unwrap());
                record.detail = Some(peer.clone());
                metrics.record(&record);
                listener.diverged(Divergence::WouldDeny, Some(&peer.into()), None);
            }
        }
        let now = series(&metrics);
        assert!(
            now.len() <= bound(LISTENERS, RULES),
            "{} in round {round}",
            now.len()
        );
        assert!(
            !now.iter()
                .any(|line| line.contains(&format!("rule-{}\"", round * 7 + RULES + 1)))
        );
        most = most.max(now.len());
    }
    // The bound is no more than what is used, up to a candidate's divergences that did not all occur.
    assert!(most + LISTENERS >= bound(LISTENERS, RULES), "{most}");
    // Nor is anything left of a listener that goes.
    for name in &names {
        metrics.remove_listener(name);
    }
    metrics.reset_divergences();
    assert_eq!(series(&metrics), Vec::<String>::new());
}
