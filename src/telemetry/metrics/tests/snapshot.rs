//! What is read back of a listener's counts.

use super::*;

#[test]
fn a_snapshot_says_what_was_counted() {
    let metrics = Metrics::new(None);
    let listener = metrics.listener(&"orders".into(), Direction::Outbound);
    let _other = metrics.listener(&"api".into(), Direction::Inbound);
    listener.set_rules([("web", Verdict::Allow), ("quiet", Verdict::Deny)]);
    let open = listener.open();
    listener.decided(&decision(Some("web"), Verdict::Allow));
    listener.decided(&decision(None, Verdict::Deny));
    listener.handshake(HandshakeKind::Full, Duration::from_millis(30));
    listener.handshake(HandshakeKind::Resumed, Duration::from_millis(1));
    listener.bytes_up.inc_by(10);
    listener.bytes_down.inc_by(20);
    metrics.record(&record("orders", Reason::DenyRule));
    let snapshots = metrics.snapshots();
    assert_eq!(&*snapshots[0].listener, "api");
    let seen = &snapshots[1];
    assert_eq!((&*seen.listener, seen.direction), ("orders", Direction::Outbound));
    assert_eq!((seen.open, seen.bytes_up, seen.bytes_down), (1, 10, 20));
    assert_eq!((seen.handshakes_full, seen.handshakes_resumed), (1, 1));
    assert_eq!(seen.handshake.count(), 2);
    assert_eq!(seen.handshake.bounds[0], 0.001);
    assert_eq!((seen.handshake.counts[0], seen.handshake.sum), (1, 0.031));
    for (reason, count) in &seen.connections {
        assert_eq!(*count, u64::from(*reason == Reason::DenyRule), "{reason}");
    }
    assert_eq!(seen.connections.len(), Reason::ALL.len());
    let last = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
    let decisions: Vec<_> = seen
        .decisions
        .iter()
        .map(|d| (&*d.rule, d.verdict, d.count, d.last_hit))
        .collect();
    assert_eq!(
        decisions,
        [
            ("", Verdict::Deny, 1, last),
            ("(other)", Verdict::Allow, 0, None),
            ("(other)", Verdict::Deny, 0, None),
            ("quiet", Verdict::Deny, 0, None),
            ("web", Verdict::Allow, 1, last),
        ]
    );
    // A new policy keeps what is known of a rule that stays.
    listener.set_rules([("web", Verdict::Allow)]);
    let web = listener.snapshot().decisions.pop().unwrap();
    assert_eq!((web.count, web.last_hit), (1, last));
    drop(open);
    assert_eq!(listener.snapshot().open, 0);
}
