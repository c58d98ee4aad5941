//! Both ends of one connection, each with its registry, policy and identity, and a clock that the test sets. No sockets
//! but for the handshake.

mod pacing;
mod refusals;
mod world;

use std::time::Duration;

use super::*;
use crate::config::settings::OpenConnections;
use crate::record::RenewalResult as R;
use world::*;

#[tokio::test(start_paused = true)]
async fn both_ends_renew_and_the_connection_rests_on_what_is_new() {
    let mut duo = Duo::new().await;
    let (first_peer, first_end) = (
        duo.server.entry().basis().peer.clone(),
        duo.server.entry().basis().expires(),
    );
    assert!(duo.server.entry().basis().expires() == duo.client.entry().basis().expires());
    duo.greet();

    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    duo.renew_client().unwrap();
    let entry = duo.server.entry();
    assert_ne!(entry.basis().peer.serial, first_peer.serial);
    assert_eq!(entry.basis().peer.id, first_peer.id);
    // The server's own SVID is still the old one.
    assert_eq!(entry.basis().expires(), first_end);
    assert_eq!(duo.client.entry().basis().expires(), first_end);

    duo.server.rotate(HOUR);
    duo.renew_server().unwrap();
    for end in [&duo.server, &duo.client] {
        assert_eq!(end.entry().basis().expires(), first_end + HOUR / 2);
        assert_eq!(
            end.counts(),
            [(R::OwnSent, 1), (R::OwnAccepted, 1), (R::PeerAccepted, 1)]
        );
    }
    let (server, client) = (duo.server.entry(), duo.client.entry());
    assert_eq!(server.basis().peer.chain[..], client.basis().own.chain[..]);
    assert_eq!(client.basis().peer.chain[..], server.basis().own.chain[..]);
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
    let between = duo.client.entry().basis().own.clone();
    tokio::time::advance(MIN_INTERVAL).await;
    duo.renew_client().unwrap();
    assert!(duo.client.entry().basis().own.clone().not_after > between.not_after);
}

#[tokio::test(start_paused = true)]
async fn the_authority_is_told_to_ask_about_what_was_renewed() {
    let mut duo = Duo::new().await;
    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    assert!(duo.server.live.registry.take_fresh().is_empty());
    duo.renew_client().unwrap();
    for end in [&duo.server, &duo.client] {
        // What came into force while it was judged is asked about it, too: as at registration.
        let renewed = end.live.registry.take_fresh();
        let basis = end.entry().basis().number();
        assert_eq!(renewed.iter().map(|b| b.number()).collect::<Vec<_>>(), [basis]);
        end.live.changed.notified().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_authority_sees_the_newer_chain() {
    let mut duo = Duo::new().await;
    duo.pass(HOUR / 2);
    duo.client.rotate(HOUR);
    duo.renew_client().unwrap();
    let now = duo.server.live.clock.now();
    // The peer's first chain is over, and it does not matter; ours is.
    let found = crate::connection::authority::recheck(
        &duo.server.entry(),
        &duo.server.live.registry,
        &duo.server.live.identity(),
        now + HOUR * 3 / 4,
    );
    assert_eq!(found.map(|ending| ending.reason), Some(Reason::OwnExpired));
    duo.server.rotate(HOUR);
    duo.greet();
    duo.renew_server().unwrap();
    let found = crate::connection::authority::recheck(
        &duo.server.entry(),
        &duo.server.live.registry,
        &duo.server.live.identity(),
        now + HOUR * 3 / 4,
    );
    assert!(found.is_none());
    assert_eq!(duo.server.live.registry.next_end(now), Some(now + HOUR));
}

#[test]
fn it_costs_little_memory() {
    assert!(size_of::<Renewals>() <= 32);
    assert!(OpenConnections::default().on_policy_change == OnChange::Close);
    assert!(MIN_INTERVAL >= Duration::from_millis(500));
}
