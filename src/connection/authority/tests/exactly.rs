//! Whatever changes in whatever order: exactly those are told to end that would not be admitted, by asking everybody.

use proptest::prelude::*;

use super::super::judge::{Verified, judge};
use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Policy(usize),
    DenyList(usize),
    /// Whether the partner's bundle is held.
    Identity(bool),
    /// Minutes; less than none is a clock set back.
    Clock(i64),
    Connect(usize),
    Renew(usize),
}

const PEERS: [&str; 4] = [
    WEB,
    "spiffe://example.org/batch",
    PARTNER,
    "spiffe://partner.example/b",
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..6).prop_map(Step::Policy),
        (0_usize..3).prop_map(Step::DenyList),
        any::<bool>().prop_map(Step::Identity),
        (-20_i64..40).prop_map(Step::Clock),
        (0..PEERS.len()).prop_map(Step::Connect),
        (0_usize..8).prop_map(Step::Renew),
    ]
}

/// One of the policies, with times around the start.
fn policy(number: usize, start: SystemTime) -> String {
    let at = |minutes: u64| crate::clock::rfc3339(start + Duration::from_secs(60 * minutes));
    let all = "{name: all, action: allow, from: ['spiffe://example.org/**', 'spiffe://partner.example/**']}";
    match number {
        0 => format!("rules: [{all}]"),
        1 => format!(
            "rules: [{{name: own, action: allow, expires: {}}}, {{name: p, action: allow, from: ['{PARTNER}']}}]",
            at(30)
        ),
        2 => format!(
            "rules: [{all}, {{name: no, action: deny, from: ['{WEB}'], not_before: {}, expires: {}}}]",
            at(10),
            at(45)
        ),
        3 => format!(
            "rules: [{{name: all, action: allow, from: ['{WEB}', '{PARTNER}'], not_before: {}}}]",
            at(5)
        ),
        4 => format!("rules: [{all}, {{name: no, action: deny, to: [other]}}]"),
        _ => "rules: []".to_owned(),
    }
}

fn deny_list(number: usize) -> String {
    match number {
        0 => "deny: []".to_owned(),
        1 => format!("deny: [{{name: web, ids: ['{WEB}']}}]"),
        _ => "deny: [{name: partner, ids: ['spiffe://partner.example/**']}]".to_owned(),
    }
}

struct Game {
    world: World,
    start: SystemTime,
    authority: Authority,
    open: Vec<Registered>,
}

impl Game {
    fn take(&mut self, step: Step) {
        let world = &self.world;
        match step {
            Step::Policy(number) => world.policy(&policy(number, self.start)),
            Step::DenyList(number) => world.deny_list(&deny_list(number)),
            Step::Identity(true) => world.identity(OWN, 2 * HOUR, &[&world.partner]),
            Step::Identity(false) => world.identity(OWN, 2 * HOUR, &[]),
            Step::Clock(minutes) => {
                let time = Duration::from_secs(60 * minutes.unsigned_abs());
                let now = world.now();
                world.clock.set(if minutes < 0 { now - time } else { now + time });
            }
            Step::Connect(peer) => {
                let IdentityView::Held(context) = &*world.live.identity() else {
                    return;
                };
                // One whom no handshake would let in is not there.
                let Some(peer) = world.verified(PEERS[peer], HOUR / 2, context) else {
                    return;
                };
                let registered = world.register(peer, context, Direction::Inbound);
                if world.admit(&registered).is_none() {
                    self.open.push(registered);
                }
            }
            Step::Renew(number) => {
                let Some(one) = self.open.get(number) else { return };
                let IdentityView::Held(context) = &*world.live.identity() else {
                    return;
                };
                let id = one.entry.basis().peer.id.to_string();
                if let Some(peer) = world.verified(&id, HOUR / 2, context) {
                    let bundle = context.material.bundles.get(peer.id.trust_domain()).cloned();
                    let renewal = crate::connection::registry::Renewal {
                        peer: Some((peer, bundle)),
                        own: None,
                    };
                    world.live.registry.renew(&one.entry, renewal).unwrap();
                }
            }
        }
    }

    /// Looks, and compares with what everybody is found to be who was not told before.
    async fn look(&mut self, after: &[Step]) {
        let before: Vec<bool> = self.open.iter().map(|one| told(one).is_some()).collect();
        self.authority.look().await;
        let live = &self.world.live;
        let (identity, policy) = (live.identity(), live.policy());
        for (one, before) in self.open.iter().zip(before) {
            let basis = one.entry.basis();
            let mut verified = Verified::default();
            let mut found = judge(
                &basis,
                &live.registry,
                &identity,
                (&policy, &live.terms()),
                self.world.now(),
                &mut verified,
            );
            let refused = found.next().map(|finding| finding.reason);
            if !before {
                assert_eq!(
                    told(one).is_some(),
                    refused.is_some(),
                    "{} {refused:?} after {after:?}",
                    basis.peer.id
                );
            }
        }
        self.open.retain(|one| told(one).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn exactly_those_end_that_would_not_be_admitted(
        steps in prop::collection::vec((step(), any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let world = World::new(OpenConnections::default());
        let mut game = Game {
            start: world.now(),
            authority: Authority::new(world.live.clone()),
            world,
            open: Vec::new(),
        };
        for peer in 0..PEERS.len() {
            game.take(Step::Connect(peer));
        }
        let mut since = Vec::new();
        for (step, looks) in steps {
            game.take(step);
            since.push(step);
            // Sometimes several changes are seen at once.
            if looks {
                runtime.block_on(game.look(&since));
                since.clear();
            }
        }
        runtime.block_on(game.look(&since));
    }
}
