//! Both ends of one connection, each with its registry, policy and identity, and a clock that the test sets. No sockets
//! but for the handshake.

mod pacing;
mod refusals;
mod world;

use std::time::Duration;

use super::*;
use crate::config::settings::OpenConnections;
use crate::record::{Ending, RenewalResult as R};
use world::*;

#[tokio::test(start_paused = true)]
async fn both_ends_renew_and_the_connection_rests_on_what_is_new() {
    let mut duo = Duo::new().await;
    let (first_peer, first_end) = (duo.server.entry().peer(), duo.server.entry().expires());
    assert!(duo.server.entry().expires() == duo.client.entry().expires());
    duo.greet();

    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    duo.renew_client().unwrap();
    let entry = duo.server.entry();
    assert_ne!(entry.peer().serial, first_peer.serial);
    assert_eq!(entry.peer().id, first_peer.id);
    // The server's own SVID is still the old one.
    assert_eq!(entry.expires(), first_end);
    assert_eq!(duo.client.entry().expires(), first_end);

    duo.server.rotate(HOUR);
    duo.renew_server().unwrap();
    for end in [&duo.server, &duo.client] {
        assert_eq!(end.entry().expires(), first_end + HOUR / 2);
        assert_eq!(
            end.counts(),
            [(R::OwnSent, 1), (R::OwnAccepted, 1), (R::PeerAccepted, 1)]
        );
    }
    let (server, client) = (duo.server.entry(), duo.client.entry());
    assert_eq!(server.peer().chain[..], client.own().chain[..]);
    assert_eq!(client.peer().chain[..], server.own().chain[..]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_where_nothing_is_new() {
    let mut duo = Duo::new().await;
    duo.greet();
    // Ordered all the same.
    duo.client.entry().order_renewal();
    duo.server.entry().order_renewal();
    assert_eq!((duo.tell_server().unwrap(), duo.tell_client().unwrap()), (0, 0));
    // A newer one that ends sooner gains nothing.
    duo.client.rotate(HOUR / 2);
    duo.client.entry().order_renewal();
    assert_eq!(duo.tell_server().unwrap(), 0);
    // And without an identity there is nothing to show.
    duo.client.lose_identity();
    duo.client.entry().order_renewal();
    assert_eq!(duo.tell_server().unwrap(), 0);
    assert_eq!(duo.client.counts(), []);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_before_the_hello_is_told_after_it() {
    let mut duo = Duo::new().await;
    duo.pass(HOUR / 2);
    duo.server.rotate(HOUR);
    duo.client.rotate(HOUR);
    // The server may not speak yet.
    assert!(!duo.server.entry().can_renew.load(Ordering::Relaxed));
    assert!(duo.client.entry().can_renew.load(Ordering::Relaxed));
    duo.greet();
    assert!(duo.server.entry().can_renew.load(Ordering::Relaxed));
    for _ in 0..2 {
        duo.tell_client().unwrap();
        duo.tell_server().unwrap();
    }
    for end in [&duo.server, &duo.client] {
        assert_eq!(
            end.counts(),
            [(R::OwnSent, 1), (R::OwnAccepted, 1), (R::PeerAccepted, 1)]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_while_an_answer_is_awaited_waits_for_the_next() {
    let mut duo = Duo::new().await;
    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    duo.client.entry().order_renewal();
    assert_eq!(duo.tell_server().unwrap(), 1);
    duo.pass(HOUR / 4);
    duo.client.rotate(HOUR);
    duo.client.entry().order_renewal();
    assert_eq!(duo.tell_server().unwrap(), 0);
    assert_eq!(duo.tell_client().unwrap(), 1, "the answer to the first");
    let between = duo.client.entry().own();
    tokio::time::advance(MIN_INTERVAL).await;
    duo.renew_client().unwrap();
    assert!(duo.client.entry().own().not_after > between.not_after);
}

#[tokio::test(start_paused = true)]
async fn what_came_into_force_meanwhile_is_asked_too() {
    let duo = Duo::new().await;
    let server = &duo.server;
    let (identity, policy) = (server.live.identity(), server.live.policy());
    let renewals = server.renewals();
    renewals.look_again(&identity, &policy);
    assert_eq!(server.entry().order(), None);
    // The same bundle and another SVID, and a policy that admits it: nothing happens.
    server.rotate(HOUR);
    server.policy(ALLOW);
    renewals.look_again(&identity, &policy);
    assert_eq!(server.entry().order(), None);
    server.policy(ALLOW_NOBODY);
    renewals.look_again(&identity, &policy);
    let reason = |order: &Ending| order.reason;
    assert_eq!(server.entry().order().map(reason), Some(Reason::PolicyChange));

    let duo = Duo::new().await;
    let server = &duo.server;
    let (identity, policy) = (server.live.identity(), server.live.policy());
    server.trust_only(&duo.other);
    server.renewals().look_again(&identity, &policy);
    assert_eq!(server.entry().order().map(reason), Some(Reason::BundleChange));
}

#[tokio::test(start_paused = true)]
async fn the_authority_sees_the_newer_chain() {
    let mut duo = Duo::new().await;
    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    duo.renew_client().unwrap();
    let now = duo.server.live.clock.now();
    // The peer's first chain is over, and it does not matter; ours is.
    let found = authority::recheck(
        &duo.server.entry(),
        &duo.server.live.identity(),
        now + HOUR * 3 / 4,
    );
    assert_eq!(found.map(|ending| ending.reason), Some(Reason::OwnExpired));
    duo.server.rotate(HOUR);
    duo.greet();
    duo.renew_server().unwrap();
    let found = authority::recheck(
        &duo.server.entry(),
        &duo.server.live.identity(),
        now + HOUR * 3 / 4,
    );
    assert_eq!(found, None);
    assert_eq!(duo.server.live.registry.earliest_expiry(), Some(now + HOUR / 2));
}

#[test]
fn it_costs_little_memory() {
    assert!(size_of::<Renewals>() <= 32);
    assert!(OpenConnections::default().on_policy_change == OnChange::Close);
    assert!(MIN_INTERVAL >= Duration::from_millis(500));
}
