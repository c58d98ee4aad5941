//! One authority with a few registered connections and a clock that the test sets.

mod exactly;
mod races;

use std::sync::Mutex;

use super::*;
use crate::authorize;
use crate::clock::ManualClock;
use crate::config::settings::{Limits, Listener, ListenerKind, PolicyMode, SvidSelect, Target};
use crate::connection::registry::{Registered, Registration};
use crate::identity::material::Material;
use crate::identity::update::{Answer, Offer, check};
use crate::record::{ConnectionRecord, Decision, Direction, PeerAddr, Receipt, RecordSink};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::tls::configs::{Context, provider};
use crate::tls::verify::{PeerSide, VerifiedPeer, verify_chain};
use crate::workload_api::authority::Authority as Ca;

const HOUR: Duration = Duration::from_secs(3600);
const OWN: &str = "spiffe://example.org/orders";
const WEB: &str = "spiffe://example.org/web";
const PARTNER: &str = "spiffe://partner.example/web";
const ALLOW_BOTH: &str =
    "rules: [{name: both, action: allow, from: ['spiffe://example.org/**', 'spiffe://partner.example/**']}]";

/// The verdicts, and whether each had a line of its own.
#[derive(Default)]
struct Told(Mutex<Vec<(Arc<Decision>, LogLine)>>);

impl RecordSink for Told {
    fn record(&self, _: &ConnectionRecord) {}

    fn decision(&self, decision: &Arc<Decision>, line: LogLine) -> Receipt {
        self.0.lock().unwrap().push((decision.clone(), line));
        Receipt::Kept
    }
}

struct World {
    clock: Arc<ManualClock>,
    told: Arc<Told>,
    live: Arc<Live>,
    own: Ca,
    partner: Ca,
    listener: Arc<Listener>,
    generation: Mutex<u64>,
}

impl World {
    fn new(actions: OpenConnections) -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = Arc::new(ManualClock::new(now));
        let ca = |name: &str| Ca::new(TrustDomain::new(name).unwrap(), 1000 * HOUR, now).unwrap();
        let listener = Arc::new(Listener {
            name: "orders".into(),
            listen: crate::config::settings::Address::Tcp("127.0.0.1:1".parse().unwrap()),
            alpn: Vec::new(),
            kind: ListenerKind::inbound(Target::Ip("127.0.0.1:2".parse().unwrap())),
        });
        let told = Arc::new(Told::default());
        let live = Live::new(
            clock.clone(),
            told.clone(),
            Limits::default(),
            actions,
            PolicyMode::Enforce,
        );
        let world = Self {
            clock,
            told,
            live: Arc::new(live),
            own: ca("example.org"),
            partner: ca("partner.example"),
            listener,
            generation: Mutex::new(0),
        };
        world.identity(OWN, HOUR, &[&world.partner]);
        world.policy(ALLOW_BOTH);
        world
    }

    fn now(&self) -> SystemTime {
        crate::clock::Clock::now(&*self.clock)
    }

    fn pass(&self, time: Duration) {
        self.clock.set(self.now() + time);
    }

    fn identity(&self, id: &str, ttl: Duration, federated: &[&Ca]) {
        let issued = self
            .own
            .issue(&SpiffeId::new(id).unwrap(), None, ttl, self.now())
            .unwrap();
        let answer = Answer {
            svids: vec![Offer {
                spiffe_id: Some(issued.spiffe_id.clone()),
                chain: issued.x509_svid.clone(),
                key: rustls::pki_types::PrivateKeyDer::try_from(issued.x509_svid_key.clone())
                    .ok()
                    .map(Into::into),
                bundle: issued.bundle.clone(),
                hint: String::new(),
            }],
            federated: federated
                .iter()
                .map(|ca| (ca.trust_domain().id_string(), ca.root().to_vec()))
                .collect(),
        };
        let update = check(answer, &SvidSelect::First, None, self.now()).unwrap();
        let mut generation = self.generation.lock().unwrap();
        *generation += 1;
        let material = Material {
            generation: *generation,
            svid: update.svid.unwrap(),
            svids: update.svids,
            bundles: update.bundles,
        };
        let clock: crate::clock::SharedClock = self.clock.clone();
        let context = Context::new(
            Arc::new(material),
            std::slice::from_ref(&self.listener),
            &provider(),
            &clock,
            crate::tls::testing::features(true),
        )
        .unwrap();
        self.live.set_identity(IdentityView::Held(Arc::new(context)));
    }

    fn policy(&self, text: &str) {
        let file = crate::policy::file::read("p.yaml", text);
        let (policy, _) =
            crate::policy::compile(vec![file], crate::policy::Surroundings::default(), self.now()).unwrap();
        let view = self.live.policy();
        let generation = view.generation + 1;
        self.live
            .set_policy(view.with_policy(Arc::new(policy), generation, self.now()));
    }

    fn deny_list(&self, text: &str) {
        let written = crate::policy::deny_list::read("deny.yaml", text);
        let (list, _) = crate::policy::deny_list::compile(written, self.now()).unwrap();
        let view = self.live.policy();
        let generation = view.deny_list_generation + 1;
        self.live
            .set_policy(view.with_deny_list(&Arc::new(list), generation, self.now()));
    }

    /// Registers a connection and has it admitted, as `connection::inbound` does.
    fn connect(&self, id: &str, ttl: Duration) -> Registered {
        let (peer, context) = self.shake_hands(id, ttl);
        let registered = self.register(peer, &context, Direction::Inbound);
        assert_eq!(self.admit(&registered), None);
        registered
    }

    /// A peer as a handshake verifies it, and what we shook hands with.
    fn shake_hands(&self, id: &str, ttl: Duration) -> (Arc<VerifiedPeer>, Arc<Context>) {
        let IdentityView::Held(context) = &*self.live.identity() else {
            panic!("no identity")
        };
        let peer = self.verified(id, ttl, context).unwrap();
        (peer, context.clone())
    }

    /// A peer with a new SVID, if its chain passes.
    fn verified(&self, id: &str, ttl: Duration, context: &Context) -> Option<Arc<VerifiedPeer>> {
        let id = SpiffeId::new(id).unwrap();
        let ca = if id.trust_domain() == self.own.trust_domain() {
            &self.own
        } else {
            &self.partner
        };
        let params = crate::workload_api::authority::leaf_params(&id, ttl, self.now()).unwrap();
        let chain = ca.sign(&params).unwrap().chain;
        verify_chain(&context.store, &chain, PeerSide::Client, self.now()).ok()
    }

    fn register(&self, peer: Arc<VerifiedPeer>, context: &Context, direction: Direction) -> Registered {
        self.live.registry.register(Registration {
            id: self.live.registry.next_id(),
            peer_addr: PeerAddr::Unix,
            source: PeerAddr::Unix,
            destination: None,
            since: self.now(),
            listener: self.listener.clone(),
            direction,
            bundle: context.material.bundles.get(peer.id.trust_domain()).cloned(),
            peer,
            own: context.material.svid.clone(),
        })
    }

    /// What an inbound connection does once it is registered. Why it is not let in, if it is not.
    fn admit(&self, registered: &Registered) -> Option<Reason> {
        let (registry, identity) = (&self.live.registry, self.live.identity());
        if let Some(ending) = recheck(&registered.entry, registry, &identity, self.now()) {
            return Some(ending.reason);
        }
        let basis = registered.entry.basis();
        let facts = authorize::Facts {
            listener: "orders",
            peer: &basis.peer.id,
            source: None,
            own_trust_domain: self.own.trust_domain(),
            certificate: Some(crate::connection::certificate(&basis.peer)),
        };
        match authorize::inbound(&self.live.policy(), &facts, self.now()) {
            Ok(permit) => {
                let admission = Decision {
                    policy_generation: permit.decision().policy_generation,
                    ..crate::record::decision::tests::bare()
                };
                registered.entry.decision.set(Arc::new(admission)).unwrap();
                registry.admitted(&registered.entry);
                None
            }
            Err(denial) => Some(denial.reason),
        }
    }
}

/// What was recorded since this was last asked: reason, whether it has its effect, whether in a line of its own.
fn recorded(world: &World) -> Vec<(Option<Reason>, bool, bool)> {
    let taken = std::mem::take(&mut *world.told.0.lock().unwrap());
    taken
        .iter()
        .map(|(verdict, line)| (verdict.reason, verdict.enforced, *line == LogLine::Own))
        .collect()
}

/// Why a connection was told to end, if it was.
fn told(connection: &Registered) -> Option<Reason> {
    connection.entry.order().map(|ending| ending.reason)
}

#[tokio::test]
async fn each_kind_of_change_ends_those_it_concerns_and_no_others() {
    type Change = fn(&World);
    let cases: &[(&str, Change, Option<Reason>, Option<Reason>)] = &[
        ("nothing", |_| {}, None, None),
        (
            "a rotation",
            |w| w.identity(OWN, 2 * HOUR, &[&w.partner]),
            None,
            None,
        ),
        ("the same policy again", |w| w.policy(ALLOW_BOTH), None, None),
        (
            "a policy without the partner",
            |w| w.policy("rules: [{name: own, action: allow}]"),
            None,
            Some(Reason::PolicyChange),
        ),
        (
            "a deny rule",
            |w| {
                w.policy(&format!("rules: [{{name: no, action: deny, from: ['{WEB}']}}, {{name: p, action: allow, from: ['{PARTNER}']}}]"))
            },
            Some(Reason::PolicyChange),
            None,
        ),
        (
            "the partner's bundle goes away",
            |w| w.identity(OWN, HOUR, &[]),
            None,
            Some(Reason::BundleChange),
        ),
        (
            "another identity",
            |w| w.identity("spiffe://example.org/other", HOUR, &[&w.partner]),
            Some(Reason::IdentityChange),
            Some(Reason::IdentityChange),
        ),
        (
            "the identity is withdrawn",
            |w| {
                w.live.set_identity(IdentityView::Missing {
                    reason: Reason::NoIdentity,
                    detail: "denied".into(),
                })
            },
            Some(Reason::IdentityChange),
            Some(Reason::IdentityChange),
        ),
        (
            "a deny list",
            |w| w.deny_list(&format!("deny: [{{name: stop, ids: ['{PARTNER}']}}]")),
            None,
            Some(Reason::DenyListChange),
        ),
        (
            "the web's chain ends",
            |w| w.pass(HOUR / 2),
            Some(Reason::PeerExpired),
            None,
        ),
        (
            "our own chain ends",
            |w| w.pass(HOUR),
            Some(Reason::OwnExpired),
            Some(Reason::OwnExpired),
        ),
    ];
    for (what, change, web_ends, partner_ends) in cases {
        let world = World::new(OpenConnections::default());
        let mut authority = Authority::new(world.live.clone());
        let web = world.connect(WEB, HOUR / 2);
        let partner = world.connect(PARTNER, 3 * HOUR);
        authority.look().await;
        assert_eq!((told(&web), told(&partner)), (None, None), "before {what}");
        change(&world);
        authority.look().await;
        assert_eq!((told(&web), told(&partner)), (*web_ends, *partner_ends), "{what}");
    }
}

/// Forty peers with five connections each, of two trust domains, and a rule for each.
#[tokio::test]
async fn only_those_are_asked_about_whom_a_change_can_concern() {
    type Change = fn(&World, &str);
    let cases: &[(&str, Change, usize)] = &[
        ("nothing", |_, _| {}, 0),
        ("a rotation", |w, _| w.identity(OWN, 2 * HOUR, &[&w.partner]), 0),
        (
            "the same rules in other words",
            |w, rules| w.policy(&format!("{rules} # again")),
            0,
        ),
        (
            "a rule about one peer",
            |w, rules| {
                w.policy(&format!(
                    "{rules}\n  - {{name: new, action: deny, from: ['spiffe://example.org/7']}}"
                ))
            },
            1,
        ),
        (
            "a rule about one trust domain",
            |w, rules| {
                w.policy(&format!(
                    "{rules}\n  - {{name: new, action: audit, from: ['spiffe://partner.example/**']}}"
                ))
            },
            20,
        ),
        (
            "a rule about another listener",
            |w, rules| w.policy(&format!("{rules}\n  - {{name: new, action: deny, to: [other]}}")),
            0,
        ),
        ("every rule", |w, _| w.policy(ALLOW_BOTH), 40),
        ("the partner's bundle", |w, _| w.identity(OWN, HOUR, &[]), 20),
        (
            "a deny list",
            |w, _| w.deny_list("deny: [{name: x, ids: ['spiffe://x/y']}]"),
            40,
        ),
        ("the end of one chain", |w, _| w.pass(Duration::from_secs(607)), 1),
        (
            "a clock set back",
            |w, _| w.clock.set(w.now() - Duration::from_secs(1)),
            40,
        ),
    ];
    let mut rules = "rules:".to_owned();
    let ids: Vec<String> = (0..40)
        .map(|n| {
            format!(
                "spiffe://{}/{n}",
                if n % 2 == 1 {
                    "example.org"
                } else {
                    "partner.example"
                }
            )
        })
        .collect();
    for (n, id) in ids.iter().enumerate() {
        rules.push_str(&format!("\n  - {{name: r{n}, action: allow, from: ['{id}']}}"));
    }
    for (what, change, asked) in cases {
        let world = World::new(OpenConnections::default());
        world.policy(&rules);
        let mut authority = Authority::new(world.live.clone());
        let open: Vec<_> = ids
            .iter()
            .enumerate()
            .flat_map(|(n, id)| {
                // Only the eighth ends so soon.
                let ttl = if n == 7 { Duration::from_secs(607) } else { HOUR };
                let (peer, context) = world.shake_hands(id, ttl);
                (0..5).map(move |_| (peer.clone(), context.clone()))
            })
            .map(|(peer, context)| world.register(peer, &context, Direction::Inbound))
            .collect();
        authority.look().await;
        change(&world, &rules);
        authority.look().await;
        assert_eq!(authority.asked, *asked, "{what}");
        drop(open);
    }
}

#[tokio::test]
async fn a_rule_that_ends_is_told_from_a_policy_that_changed() {
    let world = World::new(OpenConnections::default());
    let until = crate::clock::rfc3339(world.now() + HOUR / 4);
    world.policy(&format!(
        "rules: [{{name: visit, action: allow, from: ['{PARTNER}'], expires: {until}}}, {{name: own, action: allow}}]"
    ));
    let mut authority = Authority::new(world.live.clone());
    let (web, partner) = (world.connect(WEB, HOUR), world.connect(PARTNER, HOUR));
    world.pass(HOUR / 4 - Duration::from_secs(1));
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, None));
    world.pass(Duration::from_secs(1));
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, Some(Reason::RuleExpired)));
}

#[tokio::test]
async fn a_deny_rule_whose_time_comes_is_told_from_a_policy_that_changed() {
    let world = World::new(OpenConnections::default());
    let from = crate::clock::rfc3339(world.now() + HOUR / 4);
    world.policy(&format!(
        "rules: [{{name: all, action: allow, from: ['spiffe://example.org/**', 'spiffe://partner.example/**']}}, \
         {{name: stop, action: deny, from: ['{PARTNER}'], not_before: {from}}}]"
    ));
    let mut authority = Authority::new(world.live.clone());
    let (web, partner) = (world.connect(WEB, HOUR), world.connect(PARTNER, HOUR));
    world.pass(HOUR / 4 - Duration::from_secs(1));
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, None));
    world.pass(Duration::from_secs(1));
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, Some(Reason::RuleBegan)));
}

#[tokio::test]
async fn the_deny_list_closes_whatever_the_settings_say_and_servers_too() {
    let log = OpenConnections {
        on_policy_change: OnChange::Log,
        on_bundle_change: OnChange::Log,
        on_identity_change: OnChange::Log,
        on_expiry: OnChange::Log,
    };
    let world = World::new(log);
    let mut authority = Authority::new(world.live.clone());
    let (web, partner) = (world.connect(WEB, HOUR), world.connect(PARTNER, HOUR));
    let (server, context) = world.shake_hands(PARTNER, HOUR);
    let server = world.register(server, &context, Direction::Outbound);
    let serial = &server.entry.basis().peer.serial;
    world.deny_list(&format!("deny: [{{name: stolen, serials: ['{serial}']}}]"));
    authority.look().await;
    assert_eq!(told(&server), Some(Reason::DenyListChange));
    assert_eq!((told(&web), told(&partner)), (None, None));
    world.deny_list(&format!("deny: [{{name: gone, ids: ['{PARTNER}']}}]"));
    authority.look().await;
    assert_eq!((told(&web), told(&partner)), (None, Some(Reason::DenyListChange)));
    let detail = partner.entry.order().unwrap().detail.clone().unwrap();
    assert!(detail.contains("gone"), "{detail}");
}

#[tokio::test]
async fn a_candidate_is_asked_about_open_connections_and_ends_none() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let open = [
        world.connect(WEB, HOUR),
        world.connect(PARTNER, HOUR),
        world.connect(PARTNER, HOUR),
    ];
    let file = crate::policy::file::read("p.yaml", "rules: [{name: own, action: allow}]");
    let (candidate, _) =
        crate::policy::compile(vec![file], crate::policy::Surroundings::default(), world.now()).unwrap();
    let view = world
        .live
        .policy()
        .with_candidate(Arc::new(candidate), 1, world.now());
    let admission = view.candidate.as_ref().unwrap().admission.clone();
    world.live.set_policy(view);
    authority.look().await;
    assert_eq!(count_refused(&world.live, &admission).await, 2);
    assert!(open.iter().all(|one| told(one).is_none()));
}

#[tokio::test(start_paused = true)]
async fn draining_gives_time_and_is_taken_back_when_the_change_is() {
    let actions = OpenConnections {
        on_policy_change: OnChange::Drain(Duration::from_secs(30)),
        ..OpenConnections::default()
    };
    let world = World::new(actions);
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR);
    world.policy("rules: []");
    authority.look().await;
    tokio::time::advance(Duration::from_secs(29)).await;
    authority.look().await;
    assert_eq!(told(&web), None);
    assert_eq!(
        recorded(&world),
        [(Some(Reason::PolicyChange), true, true)],
        "once"
    );
    // Admitted again: the time starts anew at the next change.
    world.policy(ALLOW_BOTH);
    authority.look().await;
    world.policy("rules: []");
    authority.look().await;
    tokio::time::advance(Duration::from_secs(29)).await;
    authority.look().await;
    assert_eq!(told(&web), None);
    assert_eq!(
        recorded(&world),
        [(Some(Reason::PolicyChange), true, true)],
        "once more"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    authority.look().await;
    assert_eq!(told(&web), Some(Reason::PolicyChange));
    // That verdict has its effect now; it is no other one.
    assert_eq!(recorded(&world), []);
    assert!(web.entry.order().unwrap().decision.is_some());
}

#[tokio::test]
async fn logging_leaves_the_connection_alone() {
    let actions = OpenConnections {
        on_policy_change: OnChange::Log,
        on_expiry: OnChange::Log,
        ..OpenConnections::default()
    };
    let world = World::new(actions);
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR);
    world.policy("rules: []");
    authority.look().await;
    assert_eq!(authority.held.said(&web.entry), Some(Reason::PolicyChange));
    assert_eq!(recorded(&world), [(Some(Reason::PolicyChange), false, true)]);
    world.policy("rules: [{name: others, action: allow, from: ['spiffe://example.org/others']}]");
    authority.look().await;
    assert_eq!(recorded(&world), [], "said once");
    world.pass(2 * HOUR);
    authority.look().await;
    assert_eq!(told(&web), None);
    assert_eq!(recorded(&world), [(Some(Reason::OwnExpired), false, true)]);
    assert_eq!(authority.held.said(&web.entry), Some(Reason::OwnExpired));
}

#[tokio::test]
async fn a_connection_that_registers_after_the_bound_was_computed_is_still_seen_to_expire() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let long = world.connect(WEB, HOUR / 2);
    world.policy(ALLOW_BOTH);
    authority.look().await;
    let short = world.connect(WEB, HOUR / 4);
    world.pass(HOUR / 4);
    authority.look().await;
    assert_eq!((told(&long), told(&short)), (None, Some(Reason::PeerExpired)));
}

#[tokio::test]
async fn a_clock_set_back_before_a_chain_began_ends_what_rests_on_it() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let start = world.now();
    let early = world.connect(WEB, HOUR);
    world.pass(HOUR / 4);
    let late = world.connect(WEB, HOUR);
    authority.look().await;
    // Both chains are valid then.
    world.clock.set(start + HOUR / 4 - Duration::from_secs(1));
    authority.look().await;
    assert_eq!((told(&early), told(&late)), (None, None));
    world.clock.set(start);
    authority.look().await;
    assert_eq!((told(&early), told(&late)), (None, Some(Reason::PeerExpired)));
    let detail = late.entry.order().unwrap().detail.clone().unwrap();
    assert!(detail.contains("clock was set back"), "{detail}");
    // Before our own began.
    world.clock.set(start - HOUR);
    authority.look().await;
    assert_eq!(told(&early), Some(Reason::OwnExpired));
}

#[tokio::test]
async fn a_clock_that_jumps_there_and_back_between_two_looks_spares_nobody_who_came_meanwhile() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    authority.look().await;
    let before = world.now();
    world.pass(HOUR / 3);
    let web = world.connect(WEB, HOUR / 2);
    // Later than the last look, and before the chain began.
    world.clock.set(before + HOUR / 6);
    authority.look().await;
    assert_eq!(told(&web), Some(Reason::PeerExpired));
}

#[tokio::test]
async fn a_clock_that_jumps_there_and_back_ends_what_was_due_and_nothing_else() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let (short, long) = (world.connect(WEB, HOUR / 4), world.connect(WEB, HOUR));
    let start = world.now();
    // Nobody looked while it was wrong: nothing is known of it.
    world.pass(HOUR / 2);
    world.clock.set(start);
    authority.look().await;
    assert_eq!((told(&short), told(&long)), (None, None));
    // Seen, the jump ends what ran out by it, and going back does not hide the end to come.
    world.pass(HOUR / 2);
    authority.look().await;
    assert_eq!((told(&short), told(&long)), (Some(Reason::PeerExpired), None));
    world.clock.set(start);
    authority.look().await;
    assert_eq!(told(&long), None);
    world.pass(HOUR);
    authority.look().await;
    assert_eq!(told(&long), Some(Reason::OwnExpired));
}

#[test]
fn a_registered_connection_leaves_when_it_is_dropped() {
    let world = World::new(OpenConnections::default());
    let web = world.connect(WEB, HOUR);
    assert_eq!(world.live.registry.len(), 1);
    drop(web);
    assert!(world.live.registry.is_empty());
}

/// What one setting lets live must not hide the connection from what another setting closes.
#[tokio::test]
async fn a_change_that_is_only_logged_hides_no_other() {
    type Change = fn(&World);
    let other_id: Change = |w| w.identity("spiffe://example.org/other", 3 * HOUR, &[&w.partner]);
    let no_rules: Change = |w| w.policy("rules: []");
    let no_partner: Change = |w| w.identity("spiffe://example.org/other", 3 * HOUR, &[]);
    let expiry: Change = |w| w.pass(HOUR);
    let log = OpenConnections::default();
    let log_identity = OpenConnections {
        on_identity_change: OnChange::Log,
        ..log
    };
    let log_policy = OpenConnections {
        on_policy_change: OnChange::Log,
        ..log
    };
    let log_expiry = OpenConnections {
        on_expiry: OnChange::Log,
        ..log
    };
    let cases = [
        (log_identity, other_id, no_rules, Reason::PolicyChange),
        (log_identity, other_id, no_partner, Reason::BundleChange),
        (log_identity, other_id, expiry, Reason::PeerExpired),
        (log_policy, no_rules, expiry, Reason::PeerExpired),
        (log_expiry, expiry, no_rules, Reason::PolicyChange),
    ];
    for (number, (actions, logged, closing, reason)) in cases.into_iter().enumerate() {
        let world = World::new(actions);
        world.identity(OWN, 3 * HOUR, &[&world.partner]);
        let mut authority = Authority::new(world.live.clone());
        let partner = world.connect(PARTNER, HOUR);
        logged(&world);
        authority.look().await;
        assert_eq!(told(&partner), None, "case {number}: the first change is logged");
        closing(&world);
        authority.look().await;
        assert_eq!(told(&partner), Some(reason), "case {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_drains_still_ends_with_its_chain() {
    let world = World::new(OpenConnections {
        on_policy_change: OnChange::Drain(4 * HOUR),
        ..OpenConnections::default()
    });
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR / 2);
    world.policy("rules: []");
    authority.look().await;
    assert_eq!(told(&web), None);
    world.pass(HOUR / 2);
    authority.look().await;
    assert_eq!(told(&web), Some(Reason::PeerExpired));
}

#[tokio::test]
async fn a_rule_that_ends_is_said_to_have_ended_also_under_a_later_policy() {
    let world = World::new(OpenConnections::default());
    let until = crate::clock::rfc3339(world.now() + HOUR / 4);
    let policy = |more: &str| {
        format!("rules: [{{name: visit, action: allow, from: ['{WEB}'], expires: {until}}}{more}]")
    };
    world.policy(&policy(""));
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR);
    world.policy(&policy(
        ", {name: other, action: allow, from: ['spiffe://example.org/x']}",
    ));
    authority.look().await;
    assert_eq!(told(&web), None);
    world.pass(HOUR / 4);
    authority.look().await;
    assert_eq!(told(&web), Some(Reason::RuleExpired));
}

/// The chain ends when the authority does that verifies it *now*.
#[tokio::test]
async fn a_new_bundle_moves_the_end_of_the_chain_with_its_authority() {
    let renewals = [
        // (the authority at admission, the renewed one, what the connection is told after an hour)
        (1000 * HOUR, HOUR, Some(Reason::PeerExpired)),
        (HOUR, 1000 * HOUR, None),
    ];
    for (first, second, end) in renewals {
        let mut world = World::new(OpenConnections::default());
        world.partner = world.partner.renewed(first, world.now()).unwrap();
        world.identity(OWN, 100 * HOUR, &[&world.partner]);
        let mut authority = Authority::new(world.live.clone());
        let partner = world.connect(PARTNER, 10 * HOUR);
        let renewed = world.partner.renewed(second, world.now()).unwrap();
        world.identity(OWN, 100 * HOUR, &[&renewed]);
        authority.look().await;
        assert_eq!(told(&partner), None);
        world.pass(HOUR);
        authority.look().await;
        assert_eq!(told(&partner), end, "{first:?} renewed for {second:?}");
    }
}

impl World {
    /// The verdicts so far: what they are about, whether they have their effect, and who tells of them.
    fn verdicts(&self) -> Vec<(Reason, bool, LogLine)> {
        let told = self.told.0.lock().unwrap();
        told.iter()
            .map(|(verdict, line)| {
                assert_eq!(verdict.kind, crate::record::Kind::OpenConnection);
                assert_eq!(verdict.verdict, crate::record::Verdict::Deny);
                crate::record::decision::tests::must_fit_the_schema(&serde_json::to_value(verdict).unwrap());
                (verdict.reason.unwrap(), verdict.enforced, *line)
            })
            .collect()
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_ends_by_one_verdict() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR);
    world.policy(&format!(
        "rules: [{{name: p, action: allow, from: ['{PARTNER}']}}]"
    ));
    for _ in 0..3 {
        authority.look().await;
        world.policy("rules: []");
    }
    assert_eq!(
        world.verdicts(),
        [(Reason::PolicyChange, true, LogLine::OfConnection)]
    );
    let order = web.entry.order().unwrap();
    let verdict = order.decision.as_ref().unwrap();
    assert_eq!(*verdict, world.told.0.lock().unwrap()[0].0);
    assert_eq!(
        (order.reason, verdict.policy_generation),
        (Reason::PolicyChange, 2)
    );
    assert_eq!(verdict.nearest.as_ref().unwrap().unmet[0].condition, "from");
    assert!(
        verdict
            .detail
            .as_ref()
            .unwrap()
            .contains("the nearest is rule `p`"),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn a_connection_that_lives_on_has_a_verdict_without_effect_for_each_cause() {
    let world = World::new(OpenConnections {
        on_policy_change: OnChange::Log,
        on_expiry: OnChange::Log,
        ..OpenConnections::default()
    });
    let mut authority = Authority::new(world.live.clone());
    let _web = world.connect(WEB, HOUR / 2);
    world.policy("rules: []");
    authority.look().await;
    world.policy("rules: []");
    authority.look().await;
    world.pass(HOUR / 2);
    authority.look().await;
    assert_eq!(
        world.verdicts(),
        [
            (Reason::PolicyChange, false, LogLine::Own),
            (Reason::PeerExpired, false, LogLine::Own)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_drains_is_told_of_once_and_ends_by_that_verdict() {
    let world = World::new(OpenConnections {
        on_policy_change: OnChange::Drain(Duration::from_secs(30)),
        ..OpenConnections::default()
    });
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR);
    world.policy("rules: []");
    authority.look().await;
    world.policy("rules: []");
    authority.look().await;
    tokio::time::advance(Duration::from_secs(30)).await;
    authority.look().await;
    assert_eq!(world.verdicts(), [(Reason::PolicyChange, true, LogLine::Own)]);
    let order = web.entry.order().unwrap();
    assert_eq!(
        order.decision.as_ref().unwrap().id,
        world.told.0.lock().unwrap()[0].0.id
    );
}

/// A bundle that does not vouch for a peer any more is explained as a refused handshake is.
#[tokio::test]
async fn a_chain_that_fails_anew_names_the_check() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let partner = world.connect(PARTNER, HOUR);
    world.identity(OWN, HOUR, &[]);
    authority.look().await;
    let order = partner.entry.order().unwrap();
    let check = order.decision.as_ref().unwrap().check.as_ref().unwrap();
    assert_eq!(check.standard, "SPIFFE-ID 3.1");
}
