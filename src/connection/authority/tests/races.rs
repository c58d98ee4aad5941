//! Changes that meet: with a connection that is just coming, with each other, with a drain.

use super::*;
use crate::connection::registry::Renewal;
use crate::record::Ending;

#[tokio::test]
async fn a_change_before_the_registration_is_found_by_the_connection_itself() {
    // The partner shook hands, and is not registered yet; the authority cannot know of it.
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (peer, context) = world.shake_hands(PARTNER, HOUR);
    world.identity(OWN, HOUR, &[]);
    authority.look().await;
    let late = world.register(peer, &context, Direction::Inbound);
    assert_eq!(world.admit(&late), Some(Reason::BundleChange));

    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (peer, context) = world.shake_hands(WEB, HOUR);
    world.policy("rules: []");
    authority.look().await;
    let late = world.register(peer, &context, Direction::Inbound);
    assert_eq!(world.admit(&late), Some(Reason::NoAllowRule));

    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (peer, context) = world.shake_hands(WEB, HOUR);
    world.deny_list(&format!("deny: [{{name: stop, ids: ['{WEB}']}}]"));
    authority.look().await;
    let late = world.register(peer, &context, Direction::Inbound);
    assert_eq!(world.admit(&late), Some(Reason::DenyList));
}

#[tokio::test]
async fn a_change_after_the_registration_is_found_by_both() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (peer, context) = world.shake_hands(WEB, HOUR);
    let coming = world.register(peer, &context, Direction::Inbound);
    world.policy("rules: []");
    authority.look().await;
    assert_eq!(told(&coming), Some(Reason::PolicyChange));
    assert_eq!(world.admit(&coming), Some(Reason::NoAllowRule));
}

/// One that ran out between two looks is not passed over, whichever of the two comes first.
#[tokio::test]
async fn an_end_between_two_looks_is_found_by_one_of_them_or_by_the_connection() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (peer, context) = world.shake_hands(WEB, HOUR / 2);
    world.pass(HOUR / 2);
    authority.look().await;
    let late = world.register(peer, &context, Direction::Inbound);
    assert_eq!(world.admit(&late), Some(Reason::PeerExpired));

    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (peer, context) = world.shake_hands(WEB, HOUR / 2);
    let coming = world.register(peer, &context, Direction::Inbound);
    assert_eq!(world.admit(&coming), None);
    world.pass(HOUR / 2);
    authority.look().await;
    assert_eq!(told(&coming), Some(Reason::PeerExpired));
}

#[tokio::test]
async fn two_changes_at_once_both_take_effect() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (web, partner) = (world.connect(WEB, HOUR), world.connect(PARTNER, HOUR));
    world.policy(&format!(
        "rules: [{{name: p, action: allow, from: ['{PARTNER}']}}]"
    ));
    world.identity(OWN, HOUR, &[]);
    authority.look().await;
    assert_eq!(
        (told(&web), told(&partner)),
        (Some(Reason::PolicyChange), Some(Reason::BundleChange))
    );
}

/// A change that is published while another is being looked at is looked at next: nothing is lost between them.
#[tokio::test]
async fn changes_from_other_threads_are_seen_in_the_end() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let peers: Vec<_> = (0..200)
        .map(|n| world.connect(&format!("spiffe://example.org/{n}"), HOUR))
        .collect();
    let view = world.live.policy();
    let policy = |text: &str| {
        let file = crate::policy::file::read("p.yaml", text);
        let surroundings = crate::policy::Surroundings::default();
        Arc::new(
            crate::policy::compile(vec![file], surroundings, world.now())
                .unwrap()
                .0,
        )
    };
    let policies: Vec<_> = (0..100)
        .map(|n| policy(&format!("rules: [{{name: all, action: allow}}, {{name: no, action: deny, from: ['spiffe://example.org/{n}']}}]")))
        .collect();
    let last = policy(
        "rules: [{name: all, action: allow}, {name: no, action: deny, from: ['spiffe://example.org/199']}]",
    );
    let live = world.live.clone();
    let publisher = std::thread::spawn(move || {
        for (generation, policy) in (2..).zip(policies.into_iter().chain([last])) {
            live.set_policy(view.with_policy(policy, generation, SystemTime::UNIX_EPOCH));
        }
    });
    while !publisher.is_finished() {
        authority.look().await;
    }
    publisher.join().unwrap();
    authority.look().await;
    assert_eq!(told(&peers[199]), Some(Reason::PolicyChange));
    // No policy ever denied these.
    assert!(peers[100..199].iter().all(|peer| told(peer).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_cut_short_by_what_closes() {
    let drain = OpenConnections {
        on_policy_change: OnChange::Drain(Duration::from_secs(30)),
        ..OpenConnections::default()
    };
    let world = World::new(drain);
    let mut authority = Authority::new(world.live.clone());
    let (web, partner) = (world.connect(WEB, HOUR), world.connect(PARTNER, HOUR));
    world.policy("rules: []");
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, None));
    world.deny_list(&format!("deny: [{{name: stop, ids: ['{PARTNER}']}}]"));
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, Some(Reason::DenyListChange)));
    // That of the process comes first.
    world.live.registry.end_all(&Ending::new(Reason::DrainTimeout));
    tokio::time::advance(Duration::from_secs(30)).await;
    authority.look().await;
    assert_eq!(told(&web), Some(Reason::DrainTimeout));
}

#[tokio::test]
async fn an_entry_of_the_deny_list_that_was_seen_has_closed_and_one_that_was_not_has_not() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (web, partner) = (world.connect(WEB, HOUR), world.connect(PARTNER, HOUR));
    world.deny_list(&format!("deny: [{{name: stop, ids: ['{WEB}']}}]"));
    world.deny_list("deny: []");
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, None));
    world.deny_list(&format!("deny: [{{name: stop, ids: ['{WEB}']}}]"));
    authority.look().await;
    world.deny_list("deny: []");
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (Some(Reason::DenyListChange), None));
    // It may come again.
    world.connect(WEB, HOUR);
}

/// As a peer would that wants to outlive its drain: the time that is left goes on.
#[tokio::test(start_paused = true)]
async fn a_renewal_does_not_make_a_drain_longer() {
    let drain = OpenConnections {
        on_policy_change: OnChange::Drain(Duration::from_secs(30)),
        ..OpenConnections::default()
    };
    let world = World::new(drain);
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR);
    world.policy("rules: []");
    authority.look().await;
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(told(&web), None);
        renew(&world, &web);
        authority.look().await;
    }
    assert_eq!(told(&web), Some(Reason::PolicyChange));
}

#[tokio::test]
async fn a_renewed_connection_outlives_its_first_chain_and_is_asked_about_its_new_one() {
    let world = World::new(OpenConnections::default());
    world.identity(OWN, 10 * HOUR, &[&world.partner]);
    let mut authority = Authority::new(world.live.clone());
    let (renewed, other) = (world.connect(WEB, HOUR), world.connect(WEB, HOUR));
    world.pass(HOUR / 2);
    renew(&world, &renewed);
    world.pass(HOUR / 2);
    authority.look().await;
    assert_eq!((told(&renewed), told(&other)), (None, Some(Reason::PeerExpired)));
    world.pass(HOUR / 2);
    authority.look().await;
    assert_eq!(told(&renewed), Some(Reason::PeerExpired));

    // Its new key is on the list, which nobody could know before.
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR / 2);
    world.pass(HOUR / 4);
    let until = crate::clock::rfc3339(world.now() + HOUR);
    world.policy(&format!(
        "rules: [{{name: all, action: allow, expires: {until}}}]"
    ));
    let (peer, _) = world.shake_hands(WEB, HOUR);
    world.deny_list(&format!("deny: [{{name: stolen, serials: ['{}']}}]", peer.serial));
    authority.look().await;
    assert_eq!(told(&web), None);
    let renewal = Renewal {
        peer: Some((peer, web.entry.basis().trust().bundle)),
        own: None,
    };
    world.live.registry.renew(&web.entry, renewal).unwrap();
    authority.look().await;
    assert_eq!(told(&web), Some(Reason::DenyListChange));
}

/// The peer shows a new chain of an hour.
fn renew(world: &World, connection: &Registered) {
    let (peer, context) = world.shake_hands(WEB, HOUR);
    let bundle = context.material.bundles.get(peer.id.trust_domain()).cloned();
    let renewal = Renewal {
        peer: Some((peer, bundle)),
        own: None,
    };
    world.live.registry.renew(&connection.entry, renewal).unwrap();
}

#[tokio::test]
async fn a_renewed_own_svid_moves_our_end() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (renewed, other) = (world.connect(WEB, 5 * HOUR), world.connect(WEB, 5 * HOUR));
    world.identity(OWN, 2 * HOUR, &[&world.partner]);
    let IdentityView::Held(context) = &*world.live.identity() else {
        panic!("no identity")
    };
    let renewal = Renewal {
        peer: None,
        own: Some(context.material.svid.clone()),
    };
    world.live.registry.renew(&renewed.entry, renewal).unwrap();
    world.pass(HOUR);
    authority.look().await;
    assert_eq!((told(&renewed), told(&other)), (None, Some(Reason::OwnExpired)));
}
