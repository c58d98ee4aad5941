//! The authority over 50,000 open connections of 1,000 peers, in memory: the CPU time of one look after each kind of
//! change, and how long a worker waits to register a connection while all are asked about.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use svidecar::authorize::{DenyList, Policy};
use svidecar::clock::ManualClock;
use svidecar::config::settings::{
    Address, Limits, Listener, ListenerKind, OnChange, OpenConnections, PolicyMode, Target,
};
use svidecar::connection::authority::Authority as Watch;
use svidecar::connection::live::{IdentityView, Live};
use svidecar::connection::registry::{Registered, Registration};
use svidecar::policy::{Surroundings, compile, deny_list, file};
use svidecar::record::{ConnectionRecord, Decision, Direction, LogLine, PeerAddr, Receipt, RecordSink};
use svidecar::spiffe::SpiffeId;
use svidecar::tls::configs::Context;
use svidecar::tls::verify::{PeerSide, VerifiedPeer, verify_chain};
use svidecar::workload_api::authority::{Authority, leaf_params};
use tokio::runtime::{Builder, Runtime};

use crate::world::{LIFE, World};

const CONNECTIONS: usize = 50_000;
const PEERS: usize = 1_000;
/// The registrations of which the longest is told.
const REGISTRATIONS: usize = 5_000;

/// Records go nowhere: what they cost belongs to the log.
struct Nowhere;

impl RecordSink for Nowhere {
    fn record(&self, _: &ConnectionRecord) {}
    fn decision(&self, _: &Arc<Decision>, _: LogLine) -> Receipt {
        Receipt::Kept
    }
}

struct Scene {
    live: Arc<Live>,
    clock: Arc<ManualClock>,
    start: SystemTime,
    listener: Arc<Listener>,
    context: Arc<Context>,
    peers: Vec<Arc<VerifiedPeer>>,
    runtime: Runtime,
}

impl Scene {
    fn new(world: &World, actions: OpenConnections) -> Self {
        // After the SVIDs were issued, and before they run out.
        let start = SystemTime::now();
        let clock = Arc::new(ManualClock::new(start));
        let live = Live::new(
            clock.clone(),
            Arc::new(Nowhere),
            Limits::default(),
            actions,
            PolicyMode::Enforce,
        );
        let context = Arc::new(world.context(false));
        live.set_identity(IdentityView::Held(context.clone()));
        let listener = Listener {
            name: "orders".into(),
            listen: Address::Tcp(([127, 0, 0, 1], 0).into()),
            alpn: Vec::new(),
            kind: ListenerKind::inbound(Target::Ip(([127, 0, 0, 1], 1).into())),
        };
        let peers = (0..PEERS)
            .map(|n| peer(&world.authority, &context, n, start))
            .collect();
        let scene = Self {
            live: Arc::new(live),
            clock,
            start,
            listener: Arc::new(listener),
            context,
            peers,
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        };
        scene.policy(&rules(PEERS, None));
        scene
    }

    fn policy(&self, policy: &Arc<Policy>) {
        let view = self.live.policy();
        let generation = view.generation + 1;
        self.live
            .set_policy(view.with_policy(policy.clone(), generation, self.start));
    }

    fn deny_list(&self, list: &Arc<DenyList>) {
        let view = self.live.policy();
        let generation = view.deny_list_generation + 1;
        self.live
            .set_policy(view.with_deny_list(list, generation, self.start));
    }

    /// The open connections: each peer's come from one address.
    fn open(&self) -> Vec<Registered> {
        (0..CONNECTIONS).map(|n| self.connect(n % PEERS)).collect()
    }

    fn connect(&self, peer: usize) -> Registered {
        let [_, _, high, low] = u32::try_from(peer).unwrap().to_be_bytes();
        let addr = PeerAddr::Ip([10, 0, high, low].into(), 1);
        let peer = self.peers.get(peer).unwrap().clone();
        let bundles = &self.context.material.bundles;
        self.live.registry.register(Registration {
            id: self.live.registry.next_id(),
            peer_addr: addr,
            source: addr,
            destination: None,
            since: self.start,
            listener: self.listener.clone(),
            direction: Direction::Inbound,
            bundle: bundles.get(peer.id.trust_domain()).cloned(),
            peer,
            own: self.context.material.svid.clone(),
        })
    }

    /// The CPU time of one look.
    fn look(&self, watch: &mut Watch) -> Duration {
        let begun = cpu_time();
        self.runtime.block_on(watch.look());
        cpu_time() - begun
    }
}

fn id(peer: usize) -> String {
    format!("spiffe://example.org/ns/n{}/sa/app-{peer}", peer % 50)
}

/// A verified peer whose chain ends a minute after that of the one before.
fn peer(authority: &Authority, context: &Context, n: usize, now: SystemTime) -> Arc<VerifiedPeer> {
    let life = LIFE / 2 + Duration::from_secs(60) * u32::try_from(n).unwrap();
    let params = leaf_params(&SpiffeId::new(id(n)).unwrap(), life, now).unwrap();
    let chain = authority.sign(&params).unwrap().chain;
    verify_chain(&context.store, &chain, PeerSide::Client, now).unwrap()
}

/// A rule for each of so many peers, and one that denies `denied`.
fn rules(peers: usize, denied: Option<usize>) -> Arc<Policy> {
    let mut text = "rules:\n".to_owned();
    for n in 0..peers {
        writeln!(
            text,
            "  - {{ name: r{n}, action: allow, from: [ \"{}\" ] }}",
            id(n)
        )
        .unwrap();
    }
    if let Some(denied) = denied {
        writeln!(
            text,
            "  - {{ name: no, action: deny, from: [ \"{}\" ] }}",
            id(denied)
        )
        .unwrap();
    }
    policy(&text)
}

fn policy(text: &str) -> Arc<Policy> {
    let files = vec![file::read("policy.yaml", text)];
    Arc::new(
        compile(files, Surroundings::default(), SystemTime::now())
            .unwrap()
            .0,
    )
}

/// What this thread has used.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

pub(crate) fn bench(criterion: &mut Criterion, world: &World) {
    let log = OpenConnections {
        on_expiry: OnChange::Log,
        ..OpenConnections::default()
    };
    let scene = Scene::new(world, log);
    let connections = scene.open();
    let mut group = criterion.benchmark_group("open connections");
    group.sample_size(10);
    changes(&mut group, &scene, world);
    registering(&mut group, &scene);
    drop(connections);
    closing(&mut group, &Scene::new(world, OpenConnections::default()));
    group.finish();
}

/// Changes that leave everybody open: two states by turns.
fn changes(group: &mut BenchmarkGroup<'_, WallTime>, scene: &Scene, world: &World) {
    let mut watch = Watch::new(scene.live.clone());
    scene.look(&mut watch);
    let mut by_turns = |name: &str, states: [&dyn Fn(); 2]| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|looks| {
                let states = states.iter().cycle().take(usize::try_from(looks).unwrap());
                states
                    .map(|state| {
                        state();
                        scene.look(&mut watch)
                    })
                    .sum()
            });
        });
        // As it was.
        states[1]();
        scene.look(&mut watch);
    };
    by_turns("nothing", [&|| {}, &|| {}]);
    let all = rules(PEERS, None);
    let stranger = rules(PEERS, Some(PEERS));
    by_turns(
        "policy: a rule that concerns nobody",
        [&|| scene.policy(&stranger), &|| scene.policy(&all)],
    );
    let broad = policy("rules: [{ name: all, action: allow, from: [ \"spiffe://example.org/**\" ] }]\n");
    by_turns(
        "policy: every rule another",
        [&|| scene.policy(&broad), &|| scene.policy(&all)],
    );
    let text = "deny: [{ name: x, ids: [ \"spiffe://example.org/x\" ] }]\n";
    let listed = Arc::new(
        deny_list::compile(deny_list::read("d", text), scene.start)
            .unwrap()
            .0,
    );
    by_turns(
        "deny list",
        [&|| scene.deny_list(&listed), &|| scene.deny_list(&Arc::default())],
    );
    // Every chain is verified anew, signatures included.
    let domain = world.authority.trust_domain().clone();
    let other = Authority::new(domain, LIFE, scene.start).unwrap();
    let hold = |context: Context| scene.live.set_identity(IdentityView::Held(Arc::new(context)));
    by_turns(
        "bundle: an authority more or less",
        [&|| hold(world.context_beside(&other)), &|| {
            hold(world.context(false))
        }],
    );
    let ends = scene.peers.first().unwrap().not_after;
    by_turns(
        "expiry: one peer's, and the clock set back",
        [&|| scene.clock.set(ends), &|| scene.clock.set(scene.start)],
    );
}

/// The longest of many registrations, while all connections are asked about over and over.
fn registering(group: &mut BenchmarkGroup<'_, WallTime>, scene: &Scene) {
    let states = [
        rules(PEERS, None),
        policy("rules: [{ name: all, action: allow }]\n"),
    ];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let mut watch = Watch::new(scene.live.clone());
            for state in states.iter().cycle() {
                scene.policy(state);
                runtime.block_on(watch.look());
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        group.bench_function("the longest registration meanwhile", |bencher| {
            bencher.iter_custom(|rounds| {
                let longest = |_| {
                    let waits = (0..REGISTRATIONS).map(|n| {
                        let begun = Instant::now();
                        drop(scene.connect(n % PEERS));
                        begun.elapsed()
                    });
                    waits.max().unwrap_or_default()
                };
                (0..rounds).map(longest).sum()
            });
        });
        over.store(true, Ordering::Relaxed);
    });
}

/// All are closed: what it takes to tell them. Their own end is the workers' work.
fn closing(group: &mut BenchmarkGroup<'_, WallTime>, scene: &Scene) {
    let (all, none) = (rules(PEERS, None), policy("rules: []\n"));
    group.bench_function("policy: nobody is admitted any more", |bencher| {
        bencher.iter_custom(|looks| {
            (0..looks)
                .map(|_| {
                    scene.policy(&all);
                    let mut watch = Watch::new(scene.live.clone());
                    let open = scene.open();
                    scene.policy(&none);
                    let took = scene.look(&mut watch);
                    assert!(open.iter().all(|one| one.entry.order().is_some()));
                    took
                })
                .sum()
        });
    });
}
