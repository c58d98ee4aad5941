//! What is kept, who is told, and what is lost.

use super::*;
use crate::record::decision::tests::{bare, denial};
use crate::record::{DecisionIds, Kind, Verdict};

fn verdicts(ids: &DecisionIds, count: usize) -> Vec<Arc<Decision>> {
    (0..count)
        .map(|_| {
            Arc::new(Decision {
                id: ids.next(),
                ..bare()
            })
        })
        .collect()
}

#[test]
fn the_newest_are_kept_and_shown_first() {
    let (decisions, ids) = (Decisions::new(None), DecisionIds::new(1));
    let all = verdicts(&ids, MAX_KEPT + 10);
    for verdict in &all {
        decisions.record(verdict);
    }
    let (found, total) = decisions.recent(&Filter::default(), 3);
    assert_eq!(total, MAX_KEPT);
    let newest: Vec<_> = all.iter().rev().take(3).cloned().collect();
    assert_eq!(found, newest);
    assert_eq!(decisions.find(all[9].id), None);
    assert_eq!(decisions.find(all[10].id).as_ref(), Some(&all[10]));
}

#[test]
fn large_ones_make_room_by_their_size() {
    let (decisions, ids) = (Decisions::new(None), DecisionIds::new(1));
    let long: Arc<str> = "x".repeat(crate::record::decision::MAX_TEXT).into();
    for _ in 0..MAX_KEPT {
        decisions.record(&Arc::new(Decision {
            id: ids.next(),
            detail: Some(long.clone()),
            ..denial()
        }));
    }
    let (_, total) = decisions.recent(&Filter::default(), 1);
    assert!(
        total > MAX_KEPT_BYTES / 6000 && total < MAX_KEPT_BYTES / 4096,
        "{total}"
    );
    assert!(decisions.ring().bytes <= MAX_KEPT_BYTES);
    // As small ones come back there are as many as before.
    for verdict in verdicts(&ids, MAX_KEPT) {
        decisions.record(&verdict);
    }
    assert_eq!(decisions.recent(&Filter::default(), 1).1, MAX_KEPT);
}

#[test]
fn a_filter_asks_for_everything_that_it_names() {
    let allowed = Arc::new(bare());
    let denied = Arc::new(Decision {
        id: DecisionIds::new(2).next(),
        connection: 8,
        kind: Kind::Handshake,
        listener: "billing".into(),
        ..denial()
    });
    let decisions = Decisions::new(None);
    decisions.record(&allowed);
    decisions.record(&denied);
    let found = |filter: Filter| {
        let (found, _) = decisions.recent(&filter, 10);
        found.iter().map(|d| d.connection).collect::<Vec<_>>()
    };
    let any = Filter::default;
    assert_eq!(found(any()), [8, 7]);
    let pattern = |text: &str| Some(text.parse().unwrap());
    for (filter, expected) in [
        (
            Filter {
                verdict: Some(Verdict::Allow),
                ..any()
            },
            vec![7],
        ),
        (
            Filter {
                kind: Some(Kind::Handshake),
                ..any()
            },
            vec![8],
        ),
        (
            Filter {
                listener: Some("billing".into()),
                ..any()
            },
            vec![8],
        ),
        (
            Filter {
                listener: Some("bill".into()),
                ..any()
            },
            vec![],
        ),
        (
            Filter {
                connection: Some(7),
                ..any()
            },
            vec![7],
        ),
        (
            Filter {
                id: Some(denied.id),
                ..any()
            },
            vec![8],
        ),
        // One without a verified peer is nobody's.
        (
            Filter {
                peer: pattern("spiffe://example.org/**"),
                ..any()
            },
            vec![8],
        ),
        (
            Filter {
                peer: pattern("spiffe://example.org/other"),
                ..any()
            },
            vec![],
        ),
        (
            Filter {
                peer: pattern("spiffe://example.org/web"),
                verdict: Some(Verdict::Allow),
                ..any()
            },
            vec![],
        ),
    ] {
        let what = format!("{filter:?}");
        assert_eq!(found(filter), expected, "{what}");
    }
}

#[tokio::test]
async fn a_slow_listener_loses_the_oldest_and_hears_how_many() {
    use tokio::sync::broadcast::error::RecvError;
    let (decisions, ids) = (Decisions::new(None), DecisionIds::new(1));
    let mut listener = decisions.subscribe().unwrap();
    let all = verdicts(&ids, SUBSCRIBER_QUEUE + 5);
    for verdict in &all {
        decisions.record(verdict);
    }
    assert_eq!(listener.verdicts.recv().await, Err(RecvError::Lagged(5)));
    assert_eq!(listener.verdicts.recv().await.as_ref(), Ok(&all[5]));
}

#[test]
fn only_so_many_listen_and_each_gives_its_place_back() {
    let decisions = Decisions::new(None);
    let mut listeners: Vec<_> = (0..MAX_SUBSCRIBERS)
        .map(|_| decisions.subscribe().unwrap())
        .collect();
    assert!(decisions.subscribe().is_none());
    listeners.pop();
    assert!(decisions.subscribe().is_some());
}

/// What a connection pays for being remembered. Not a measurement: a bound that an accident would break.
#[test]
fn recording_costs_little() {
    let (decisions, ids) = (Decisions::new(None), DecisionIds::new(1));
    let all = verdicts(&ids, 20_000);
    let begun = std::time::Instant::now();
    for verdict in &all {
        decisions.record(verdict);
    }
    let each = begun.elapsed() / 20_000;
    println!("{each:?} each");
    assert!(each < std::time::Duration::from_micros(50), "{each:?}");
}
