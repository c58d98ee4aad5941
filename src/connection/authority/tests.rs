//! One authority with a few registered connections and a clock that the test sets.

use std::sync::Mutex;

use super::*;
use crate::authorize::Admission;
use crate::clock::ManualClock;
use crate::config::settings::{Limits, Listener, ListenerKind, PolicyMode, SvidSelect, Target};
use crate::connection::registry::{Registered, Registration};
use crate::identity::material::Material;
use crate::identity::update::{Answer, Offer, check};
use crate::record::{ConnectionRecord, PeerAddr, RecordSink};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::tls::configs::provider;
use crate::workload_api::authority::Authority as Ca;

const HOUR: Duration = Duration::from_secs(3600);
const OWN: &str = "spiffe://example.org/orders";
const WEB: &str = "spiffe://example.org/web";
const PARTNER: &str = "spiffe://partner.example/web";
const ALLOW_BOTH: &str =
    "rules: [{name: both, action: allow, from: ['spiffe://example.org/**', 'spiffe://partner.example/**']}]";

struct Nowhere;

impl RecordSink for Nowhere {
    fn record(&self, _: &ConnectionRecord) {}
}

struct World {
    clock: Arc<ManualClock>,
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
            kind: ListenerKind::Inbound {
                upstream: Target::Ip("127.0.0.1:2".parse().unwrap()),
            },
        });
        let live = Live::new(
            clock.clone(),
            Arc::new(Nowhere),
            Limits::default(),
            actions,
            PolicyMode::Enforce,
        );
        let world = Self {
            clock,
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
                key: rustls::pki_types::PrivateKeyDer::try_from(issued.x509_svid_key.clone()).ok(),
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
            true,
        )
        .unwrap();
        self.live.set_identity(IdentityView::Held(Arc::new(context)));
    }

    fn policy(&self, text: &str) {
        let file = crate::policy::file::read("p.yaml", text);
        let (policy, _) =
            crate::policy::compile(vec![file], crate::policy::Surroundings::default(), self.now()).unwrap();
        let generation = self.live.policy().generation + 1;
        self.live.set_policy(PolicyView {
            generation,
            admission: Admission::new(Arc::new(policy), Arc::default()),
            mode: PolicyMode::Enforce,
            since: self.now(),
        });
    }

    /// Registers a connection as `connection::inbound` does.
    fn connect(&self, id: &str, ttl: Duration) -> Registered {
        let id = SpiffeId::new(id).unwrap();
        let ca = if id.trust_domain() == self.own.trust_domain() {
            &self.own
        } else {
            &self.partner
        };
        let params = crate::workload_api::authority::leaf_params(&id, ttl, self.now()).unwrap();
        let chain = ca.sign(&params).unwrap().chain;
        let IdentityView::Held(context) = &*self.live.identity() else {
            panic!("no identity")
        };
        let peer = verify_chain(&context.store, &chain, PeerSide::Client, self.now()).unwrap();
        let registered = self.live.registry.register(Registration {
            id: self.live.registry.next_id(),
            listener: self.listener.clone(),
            direction: Direction::Inbound,
            peer_addr: PeerAddr::Unix,
            bundle: context.material.bundles.get(peer.id.trust_domain()).cloned(),
            peer,
            own: context.material.svid.clone(),
            since: self.now(),
        });
        let facts = authorize::Facts {
            listener: "orders",
            peer: &registered.entry.peer.id,
            source: None,
            own_trust_domain: self.own.trust_domain(),
            certificate: None,
        };
        let permit = authorize::inbound(&self.live.policy(), &facts, self.now()).unwrap();
        registered.entry.decision.set(permit.decision().clone()).unwrap();
        registered
    }
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
    // Admitted again: the time starts anew at the next change.
    world.policy(ALLOW_BOTH);
    authority.look().await;
    world.policy("rules: []");
    authority.look().await;
    tokio::time::advance(Duration::from_secs(29)).await;
    authority.look().await;
    assert_eq!(told(&web), None);
    tokio::time::advance(Duration::from_secs(1)).await;
    authority.look().await;
    assert_eq!(told(&web), Some(Reason::PolicyChange));
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
    world.pass(2 * HOUR);
    authority.look().await;
    assert_eq!(told(&web), None);
    assert!(lock(&web.entry.noted).is_some());
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
async fn a_clock_set_back_beyond_the_last_scan_is_looked_at() {
    let world = World::new(OpenConnections::default());
    let mut authority = Authority::new(world.live.clone());
    let web = world.connect(WEB, HOUR);
    let start = world.now();
    world.pass(HOUR / 2);
    world.policy(ALLOW_BOTH);
    authority.look().await;
    world.clock.set(start);
    authority.look().await;
    // Still admitted at the earlier time; the point is that it was judged by it.
    assert_eq!(authority.scanned_at, start);
    assert_eq!(told(&web), None);
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
