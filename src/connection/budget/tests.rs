//! Budgets with a clock that the test moves.

use super::*;
use crate::authorize::Rate as PerSecond;

const NIGHTLY: &str = "spiffe://example.org/batch/nightly";
const HOURLY: &str = "spiffe://example.org/batch/hourly";

fn id(text: &str) -> Arc<SpiffeId> {
    Arc::new(text.parse().unwrap())
}

fn budget(name: &str) -> Budget {
    Budget {
        name: name.into(),
        description: None,
        connections: None,
        connections_per_second: None,
        bytes_per_second: None,
        file: "p.yaml".into(),
        line: 1,
    }
}

fn at_once(name: &str, most: u32) -> Arc<Budget> {
    Arc::new(Budget {
        connections: Some(most),
        ..budget(name)
    })
}

fn per_second(name: &str, per_second: u32, burst: u32) -> Arc<Budget> {
    Arc::new(Budget {
        connections_per_second: Some(PerSecond { per_second, burst }),
        ..budget(name)
    })
}

fn in_force(budgets: &[&Arc<Budget>]) -> Arc<Budgets> {
    let all = Arc::new(Budgets::default());
    put(&all, budgets);
    all
}

fn put(all: &Budgets, budgets: &[&Arc<Budget>]) {
    all.put(budgets.iter().map(|budget| Arc::clone(budget)));
}

fn enter(all: &Arc<Budgets>, budgets: &[&Arc<Budget>], peer: &str) -> Result<InUse, String> {
    match all.enter(budgets, &id(peer), true) {
        (Some(in_use), None) => Ok(in_use),
        (None, Some(over)) => Err(over.detail),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_connections_at_once_for_each_identity() {
    let batch = at_once("batch", 2);
    let all = in_force(&[&batch]);
    let first = enter(&all, &[&batch], NIGHTLY).unwrap();
    let _second = enter(&all, &[&batch], NIGHTLY).unwrap();
    let over = enter(&all, &[&batch], NIGHTLY).unwrap_err();
    assert_eq!(
        over,
        "budget `batch`: 2 connections of `spiffe://example.org/batch/nightly` are open, and 2 is the most"
    );
    // Another identity has a budget of its own, and a place that is given back is there at once.
    let _other = enter(&all, &[&batch], HOURLY).unwrap();
    drop(first);
    let _third = enter(&all, &[&batch], NIGHTLY).unwrap();
    enter(&all, &[&batch], NIGHTLY).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn so_many_new_connections_over_time() {
    let batch = per_second("batch", 2, 3);
    let all = in_force(&[&batch]);
    for _ in 0..3 {
        drop(enter(&all, &[&batch], NIGHTLY).unwrap());
    }
    let over = enter(&all, &[&batch], NIGHTLY).unwrap_err();
    assert!(over.contains("more than 2 new connections a second"), "{over}");
    assert!(over.contains("after 3 at once"), "{over}");
    // One that was refused cost nothing.
    tokio::time::advance(Duration::from_millis(500)).await;
    drop(enter(&all, &[&batch], NIGHTLY).unwrap());
    enter(&all, &[&batch], NIGHTLY).unwrap_err();
    tokio::time::advance(Duration::from_secs(3600)).await;
    for _ in 0..3 {
        drop(enter(&all, &[&batch], NIGHTLY).unwrap());
    }
    enter(&all, &[&batch], NIGHTLY).unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn over_one_of_several_it_counts_against_none() {
    let (wide, narrow) = (per_second("wide", 10, 10), at_once("narrow", 1));
    let all = in_force(&[&wide, &narrow]);
    let held = enter(&all, &[&wide, &narrow], NIGHTLY).unwrap();
    for _ in 0..20 {
        assert!(
            enter(&all, &[&wide, &narrow], NIGHTLY)
                .unwrap_err()
                .contains("narrow")
        );
    }
    drop(held);
    for _ in 0..9 {
        drop(enter(&all, &[&wide, &narrow], NIGHTLY).unwrap());
    }
    assert!(
        enter(&all, &[&wide, &narrow], NIGHTLY)
            .unwrap_err()
            .contains("wide")
    );
}

#[tokio::test(start_paused = true)]
async fn where_it_is_only_reported_it_is_told_and_counted() {
    let batch = at_once("batch", 1);
    let all = in_force(&[&batch]);
    let report = || all.enter(&[&batch], &id(NIGHTLY), false);
    let (first, over) = report();
    assert!(first.is_some() && over.is_none());
    let (second, over) = report();
    assert!(second.is_some() && over.unwrap().detail.contains("1 connections"));
    let (third, over) = report();
    assert!(third.is_some() && over.unwrap().detail.contains("2 connections"));
    drop((first, second, third));
    enter(&all, &[&batch], NIGHTLY).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_policy_keeps_counts_and_brings_limits() {
    let batch = at_once("batch", 3);
    let all = in_force(&[&batch]);
    let held: Vec<_> = (0..3).map(|_| enter(&all, &[&batch], NIGHTLY).unwrap()).collect();
    // Fewer than are open: none is closed, and none comes before enough have gone.
    let fewer = at_once("batch", 1);
    put(&all, &[&fewer]);
    enter(&all, &[&fewer], NIGHTLY).unwrap_err();
    // A connection that still holds the old policy is judged by the new one's budget.
    enter(&all, &[&batch], NIGHTLY).unwrap_err();
    let mut held = held.into_iter();
    drop((held.next(), held.next()));
    enter(&all, &[&fewer], NIGHTLY).unwrap_err();
    drop(held);
    let held = enter(&all, &[&fewer], NIGHTLY).unwrap();
    // Without the budget nobody is counted; the one who is still open counts when it comes back.
    put(&all, &[]);
    assert!(matches!(all.enter(&[&fewer], &id(NIGHTLY), true), (None, None)));
    put(&all, &[&fewer]);
    enter(&all, &[&fewer], NIGHTLY).unwrap_err();
    drop(held);
    enter(&all, &[&fewer], NIGHTLY).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_smaller_bucket_forgets_what_a_larger_one_lent() {
    let slow = per_second("batch", 1, 1000);
    let all = in_force(&[&slow]);
    for _ in 0..1000 {
        drop(enter(&all, &[&slow], NIGHTLY).unwrap());
    }
    let quick = per_second("batch", 5, 5);
    put(&all, &[&quick]);
    enter(&all, &[&quick], NIGHTLY).unwrap_err();
    tokio::time::advance(Duration::from_millis(200)).await;
    enter(&all, &[&quick], NIGHTLY).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_bytes_is_shared_and_follows_the_policy() {
    let with_bytes = |bytes_per_second| {
        Arc::new(Budget {
            bytes_per_second,
            ..budget("batch")
        })
    };
    let batch = with_bytes(Some(1 << 20));
    let all = in_force(&[&batch]);
    let one = enter(&all, &[&batch], NIGHTLY).unwrap();
    let two = enter(&all, &[&batch], NIGHTLY).unwrap();
    let other = enter(&all, &[&batch], HOURLY).unwrap();
    assert!(Arc::ptr_eq(&one.used[0].1, &two.used[0].1));
    assert!(!Arc::ptr_eq(&one.used[0].1, &other.used[0].1));
    let limit = |in_use: &InUse| format!("{:?}", in_use.used[0].1);
    assert!(limit(&one).contains("per_second: 1048576"), "{}", limit(&one));
    put(&all, &[&with_bytes(Some(4096))]);
    assert!(limit(&one).contains("per_second: 4096"), "{}", limit(&one));
    put(&all, &[]);
    assert!(limit(&other).contains("per_second: 0"), "{}", limit(&other));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_who_has_gone() {
    let (at_once, over_time) = (at_once("at-once", 5), per_second("over-time", 1, 10));
    let all = in_force(&[&at_once, &over_time]);
    let held: Vec<_> = (0..100)
        .flat_map(|number| {
            let peer = format!("spiffe://example.org/batch/{number}");
            [1, 2].map(|_| enter(&all, &[&at_once, &over_time], &peer).unwrap())
        })
        .collect();
    assert_eq!(all.len(), 200);
    drop(held);
    all.forget_unused();
    // What was used of the rate has to be earned again first: two connections, a second each.
    assert_eq!(all.len(), 100);
    tokio::time::advance(Duration::from_millis(1999)).await;
    all.forget_unused();
    assert_eq!(all.len(), 100);
    // One that comes back before that is kept, and its time begins anew.
    let back = enter(&all, &[&over_time], "spiffe://example.org/batch/7").unwrap();
    tokio::time::advance(Duration::from_millis(1)).await;
    all.forget_unused();
    assert_eq!(all.len(), 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    all.forget_unused();
    assert_eq!(all.len(), 1);
    drop(back);
    all.forget_unused();
    assert_eq!(all.len(), 0);
    assert!(lock(&all.0).leaving.is_empty());
}

#[tokio::test(start_paused = true)]
async fn coming_and_going_does_not_pile_up() {
    let batch = per_second("batch", 1000, 1000);
    let all = in_force(&[&batch]);
    for _ in 0..10_000 {
        drop(all.enter(&[&batch], &id(NIGHTLY), true));
        tokio::time::advance(Duration::from_micros(100)).await;
    }
    assert_eq!(all.len(), 1);
    assert_eq!(lock(&all.0).leaving.len(), 1);
}
