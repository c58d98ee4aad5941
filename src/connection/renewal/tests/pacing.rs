//! When connections are told.

use std::time::Duration;

use super::super::*;
use super::world::*;
use crate::connection::registry::Registered;

/// How many have an order; each takes it, as its task would.
fn ordered(connections: &[Registered]) -> usize {
    let orders = connections.iter().map(|c| c.entry.take_renewal_order());
    orders.filter(|ordered| *ordered).count()
}

async fn advance(time: Duration) {
    // The timers in between go off each at its time.
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_told_over_time_and_again_to_those_who_do_not_take_it() {
    const COUNT: usize = 300;
    let duo = Duo::new().await;
    let connections: Vec<_> = (0..COUNT).map(|_| duo.server.register_another()).collect();
    for connection in &connections[1..] {
        connection.entry.can_renew.store(true, Ordering::Relaxed);
    }
    duo.pass(HOUR / 2);
    let pacing = tokio::spawn(pace(duo.server.live.clone(), 2));
    advance(Duration::from_secs(1000)).await;
    assert_eq!(ordered(&connections), 0, "nothing is new");

    // A third of the half hour that is left, and no connection that can't renew.
    duo.server.rotate(HOUR);
    let mut last = 0;
    for part in 1..=4_usize {
        advance(Duration::from_secs(150)).await;
        let now = ordered(&connections);
        last += now;
        let expected = (COUNT - 1) * part / 4;
        assert!(last.abs_diff(expected) <= 1, "{last} of {expected}");
    }
    // All but one have taken it.
    let own = match &*duo.server.live.identity() {
        IdentityView::Held(context) => context.material.svid.clone(),
        IdentityView::Missing { .. } => panic!("no identity"),
    };
    for connection in &connections[2..] {
        let renewal = Renewal {
            own: Some(own.clone()),
            peer: None,
        };
        duo.server
            .live
            .registry
            .renew(&connection.entry, renewal)
            .unwrap();
    }
    advance(Duration::from_secs(1300)).await;
    assert!(connections[1].entry.take_renewal_order());
    assert_eq!(ordered(&connections), 0);
    // Until it, too, has.
    let renewal = Renewal {
        own: Some(own),
        peer: None,
    };
    duo.server
        .live
        .registry
        .renew(&connections[1].entry, renewal)
        .unwrap();
    // A round that began before may order it once more, which then finds nothing to say.
    advance(Duration::from_secs(3000)).await;
    assert!(ordered(&connections) <= 1);
    advance(Duration::from_secs(3000)).await;
    assert_eq!(ordered(&connections), 0);
    pacing.abort();
}

#[tokio::test(start_paused = true)]
async fn with_little_time_left_all_are_told_at_once() {
    let duo = Duo::new().await;
    let connections: Vec<_> = (0..50).map(|_| duo.server.register_another()).collect();
    for connection in &connections {
        connection.entry.can_renew.store(true, Ordering::Relaxed);
    }
    let pacing = tokio::spawn(pace(duo.server.live.clone(), 1));
    duo.pass(HOUR - Duration::from_secs(6));
    duo.server.rotate(HOUR);
    advance(Duration::from_millis(2100)).await;
    assert_eq!(ordered(&connections), 50);
    // One that closes meanwhile is not kept.
    let weak = Arc::downgrade(&connections[0].entry);
    drop(connections);
    assert!(weak.upgrade().is_none());
    pacing.abort();
}
