//! What counting costs a connection: no allocation.

use super::*;

#[test]
fn counting_a_connection_allocates_nothing() {
    let metrics = Metrics::new(None);
    let name: Arc<str> = "orders".into();
    let listener = metrics.listener(&name, Direction::Inbound);
    listener.set_rules([("web", Verdict::Allow)]);
    let (web, gone): (Arc<str>, Arc<str>) = ("web".into(), "gone".into());
    let decisions = [
        decision(Some("web"), Verdict::Allow),
        decision(None, Verdict::Deny),
        decision(Some("gone"), Verdict::Allow),
    ];
    let record = record("orders", Reason::Finished);
    // A candidate's pair is a series of its own, made when it is first seen.
    listener.diverged(Divergence::WouldDeny, Some(&web), None);
    for n in 0..600 {
        listener.diverged(Divergence::WouldAllow, None, Some(&format!("rule-{n}").into()));
    }
    let counted = allocation_counter::measure(|| {
        let open = listener.open();
        listener.handshake(HandshakeKind::Full, Duration::from_millis(3));
        for decision in &decisions {
            listener.decided(decision);
        }
        listener.bytes(Flow::Up).inc_by(17);
        listener.bytes(Flow::Down).inc_by(4);
        listener.renewal(crate::record::RenewalResult::OwnSent);
        listener.diverged(Divergence::WouldDeny, Some(&web), None);
        listener.diverged(Divergence::WouldAllow, None, Some(&gone));
        drop(open);
        metrics.record(&record);
    });
    assert_eq!(counted.count_total, 0);
    assert_eq!(listener.snapshot().bytes_up, 17);
}
