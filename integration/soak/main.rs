//! It stays up: a pair of sidecars under every trouble that a machine and its neighbours make, and clients that lose nothing.
//!
//! `cargo test --test soak` has each trouble once, in less than a minute. `SVIDECAR_SOAK=10m` mixes them in pairs for as long,
//! with thousands of connections; see `docs/soak.md`. The seed is printed, and `SVIDECAR_SOAK_SEED` takes it: it draws which
//! troubles, for how long; what threads make of it is not drawn.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod application;
mod clients;
mod crowd;
mod frame;
mod options;
mod quiet;
mod report;
mod stranger;
mod troubles;
mod watch;
mod weather;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use clients::Clients;
use crowd::Crowd;
use options::Options;
use stranger::Stranger;
use troubles::{Running, Trouble};
use watch::Watch;
use weather::Opened;
use world::World;

/// How long a trouble of the short run lasts.
const SHORT: Duration = Duration::from_millis(1200);
/// The connections of the warm-up: more than the verdicts that are kept in memory, where the crowd is as large.
const WARM_UP: usize = 4500;

#[test]
fn it_stays_up() {
    let options = Options::from_environment();
    eprintln!("SVIDECAR_SOAK_SEED={}", options.seed);
    raise_descriptors();
    let mut random = fastrand::Rng::with_seed(options.seed);
    let world = World::start(options);
    let watch = Watch::start(&world);

    // Whatever is made once is made now: by each kind of client, and by as many as there will be.
    let clients = Clients::start(world.plain, 1, &world.ledger, &world.weather);
    Crowd::open(&world, world.options.crowd.min(WARM_UP)).leave(&world);
    clients.all_answered();
    clients.stop();
    let start = quiet::at_rest(&world);
    eprintln!("at rest: {start:?}");

    let (possible, begun) = (possible(&world), Instant::now());
    let clients = Clients::start(world.plain, 1001, &world.ledger, &world.weather);
    let stranger = Stranger::start(&world);
    match world.options.mixed {
        None => one_by_one(&world, &clients, &possible),
        Some(how_long) => mixed(&world, &clients, &possible, how_long, &mut random),
    }
    let took = begun.elapsed();
    clients.all_answered();
    clients.stop();
    let (knocks, answers) = stranger.stop();
    let end = quiet::back_to(&world, start);
    let seen = watch.stop();
    world.alarm.check();
    let audit = quiet::audit_logs_fit(&world);

    let run = report::Run {
        world: &world,
        troubles: &troubles::all(),
        took,
        start,
        end,
        seen: &seen,
        knocks,
        audit: &audit,
    };
    let text = run.markdown();
    eprintln!("{text}");
    let losses = world.ledger.losses.lock().unwrap();
    assert!(
        losses.is_empty(),
        "{} requests were lost; the first of them:\n{}",
        world.ledger.lost.load(Ordering::SeqCst),
        losses.join("\n")
    );
    assert!(world.ledger.answered.load(Ordering::SeqCst) > 0);
    assert_eq!(
        (answers, world.application.strangers()),
        (0, 0),
        "of {knocks} knocks"
    );
    assert!(knocks > 0);
    quiet::counts_fit(&world, &seen);
    quiet::said_sparingly(&world, &seen);
    // Of a run that held, and of no other.
    if let Some(path) = &world.options.report {
        report::put(path, &text);
    }
}

/// Clients and application together have two for each connection of the crowd.
fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn possible(world: &World) -> Vec<Trouble> {
    let mut possible = troubles::all();
    let only = &world.options.only;
    for name in only {
        let names: Vec<_> = possible.iter().map(|trouble| trouble.name).collect();
        assert!(
            names.contains(&name.as_str()),
            "no trouble is called `{name}`: {names:?}"
        );
    }
    if only.is_empty() {
        let short = world.options.mixed.is_none();
        possible.retain(|trouble| trouble.short || !short);
    } else {
        possible.retain(|trouble| only.iter().any(|name| name == trouble.name));
    }
    possible.retain(|trouble| match (trouble.missing)(world) {
        None => true,
        Some(why) => {
            support::skip(&format!("soak, {}: {why}", trouble.name));
            false
        }
    });
    possible
}

fn begin(world: &Arc<World>, trouble: &Trouble) -> (Opened, Running) {
    eprintln!("begins: {}", trouble.name);
    let opened = world.weather.open(trouble.name, trouble.effect);
    (opened, (trouble.begin)(world))
}

fn end(world: &World, trouble: &Trouble, (opened, running): (Opened, Running)) {
    running.end(world);
    world.weather.close(&opened);
    eprintln!("over: {}", trouble.name);
}

fn one_by_one(world: &Arc<World>, clients: &Clients, possible: &[Trouble]) {
    for trouble in possible {
        let running = begin(world, trouble);
        world.pause(SHORT);
        end(world, trouble, running);
        clients.all_answered();
    }
}

/// Pairs that overlap, each trouble once before any comes again.
fn mixed(
    world: &Arc<World>,
    clients: &Clients,
    possible: &[Trouble],
    how_long: Duration,
    random: &mut fastrand::Rng,
) {
    let until = Instant::now() + how_long;
    let mut round: Vec<Trouble> = Vec::new();
    while Instant::now() < until {
        if round.is_empty() {
            round = possible.to_vec();
            random.shuffle(&mut round);
        }
        let first = round.remove(0);
        let second = round
            .iter()
            .position(|other| go_together(&first, other))
            .map(|at| round.remove(at));
        let mut lasts = |trouble: &Trouble| {
            let (least, most) = trouble.lasts;
            Duration::from_secs_f64(least + (most - least) * random.f64())
        };
        let (outer, inner) = match second {
            Some(second) if second.depth < first.depth => (second, Some(first)),
            second => (first, second),
        };
        let time = lasts(&outer);
        let running = begin(world, &outer);
        world.pause(time / 2);
        if let Some(inner) = inner {
            let beside = begin(world, &inner);
            world.pause(lasts(&inner));
            end(world, &inner, beside);
        }
        world.pause(time / 2);
        end(world, &outer, running);
        clients.all_answered();
    }
}

fn go_together(one: &Trouble, other: &Trouble) -> bool {
    let mut words = one.uses.split(' ');
    !words.any(|word| other.uses.split(' ').any(|its| its == word))
}
