//! What is measured, a row at a time, each with a fresh pair.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use crate::Result;
use crate::agent::Agent;
use crate::both::{Pair, Subject};
use crate::load::{self, Kind, Load};
use crate::side::{Role, Setup, free_address};
use crate::sink::{ECHO, Sink};

/// Before a load is counted: buffers have grown and the scheduler has found its places.
const WARM_UP: Duration = Duration::from_millis(300);
/// Until memory is looked at, when nothing happens any more.
const SETTLE: Duration = Duration::from_secs(1);
/// Until it should have gone back to the system.
const AFTER_CLOSE: Duration = Duration::from_secs(2);
/// Starts in each round, of which the quickest counts: what disturbs a start only makes it longer.
const STARTS: usize = 10;
/// Until an exchange must get through a side that has just been started.
const FIRST_EXCHANGE: Duration = Duration::from_secs(10);
/// Between two tries of it.
const AGAIN: Duration = Duration::from_micros(200);

/// One figure of one round.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) client: f64,
    pub(crate) server: f64,
    /// The two together.
    pub(crate) pair: f64,
    /// What the load saw, and in what unit.
    pub(crate) seen: Option<(f64, &'static str)>,
    /// The share of the machine that others used meanwhile.
    pub(crate) others: Option<f64>,
}

impl Figure {
    /// What both sides cost, added up.
    const fn sum(name: &'static str, unit: &'static str, [client, server]: [f64; 2]) -> Self {
        Self {
            name,
            unit,
            client,
            server,
            pair: client + server,
            seen: None,
            others: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Bulk(Kind, u32),
    Ping(u32),
    Connect { resumed: bool },
    Idle,
    Start,
    First,
}

impl Row {
    pub(crate) const ALL: [Self; 10] = [
        Self::Bulk(Kind::Up, 1),
        Self::Bulk(Kind::Up, 8),
        Self::Bulk(Kind::Down, 1),
        Self::Bulk(Kind::Down, 8),
        Self::Ping(32),
        Self::Connect { resumed: false },
        Self::Connect { resumed: true },
        Self::Idle,
        Self::Start,
        Self::First,
    ];

    /// What `--only` calls it by.
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Bulk(..) => "bulk",
            Self::Ping(_) => "ping",
            Self::Connect { .. } => "connect",
            Self::Idle => "idle",
            Self::Start | Self::First => "start",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Bulk(Kind::Up, 1) => "bulk up, 1 connection",
            Self::Bulk(Kind::Up, _) => "bulk up, 8 connections",
            Self::Bulk(_, 1) => "bulk down, 1 connection",
            Self::Bulk(..) => "bulk down, 8 connections",
            Self::Ping(_) => "64 B request, 32 connections",
            Self::Connect { resumed: false } => "new connection, full handshake",
            Self::Connect { resumed: true } => "new connection, resumed",
            Self::Idle => "memory",
            Self::Start => "exec to listening",
            Self::First => "exec to the first exchange",
        }
    }

    /// Whether this build can do what is measured.
    pub(crate) fn fits(self, subject: &Subject<'_>) -> bool {
        subject.resumes || self != Self::Connect { resumed: true }
    }

    /// Measures it once.
    pub(crate) fn run(self, subject: &Subject<'_>) -> Result<Vec<Figure>> {
        match self {
            Self::Bulk(kind, connections) => self.load(subject, kind, connections, false),
            Self::Ping(connections) => self.load(subject, Kind::Ping, connections, false),
            Self::Connect { resumed } => self.load(subject, Kind::Connect, 32, resumed),
            Self::Idle => idle(subject),
            Self::Start => self.start(subject),
            Self::First => self.first(subject),
        }
    }

    fn load(
        self,
        subject: &Subject<'_>,
        kind: Kind,
        connections: u32,
        resumption: bool,
    ) -> Result<Vec<Figure>> {
        let pair = Pair::start(subject, resumption)?;
        let load = Load::start(pair.client.listen, kind, connections)?;
        std::thread::sleep(WARM_UP);
        let before = pair.sample(&load, kind)?;
        std::thread::sleep(subject.options.window());
        let after = pair.sample(&load, kind)?;
        load.stop().map_err(|error| pair.explain(&error.to_string()))?;
        let count = (after.count - before.count) as f64;
        if count == 0.0 {
            return Err(pair.explain("nothing came through the pair").into());
        }
        let seconds = (after.at - before.at).as_secs_f64();
        let (unit, scale, seen) = match kind {
            Kind::Up | Kind::Down => ("CPU-s per GB", 1e9, (count * 8.0 / seconds / 1e9, "Gbit/s")),
            Kind::Ping => {
                let p99 = load::quantile(&before.latencies, &after.latencies, 0.99);
                ("CPU us", 1e6, (p99, "us p99"))
            }
            Kind::Connect => ("CPU us", 1e6, (count / seconds, "per s")),
        };
        let cost =
            |before: Duration, after: Duration| (after.saturating_sub(before)).as_secs_f64() / count * scale;
        let ours = after.ours().saturating_sub(before.ours());
        let busy = (after.busy - before.busy).saturating_sub(ours).as_secs_f64();
        let cores = std::thread::available_parallelism()?.get() as f64;
        let sides = [
            cost(before.client, after.client),
            cost(before.server, after.server),
        ];
        Ok(vec![Figure {
            seen: Some(seen),
            others: Some(busy / seconds / cores),
            ..Figure::sum(self.name(), unit, sides)
        }])
    }

    fn start(self, subject: &Subject<'_>) -> Result<Vec<Figure>> {
        let setup = subject.setup(false);
        let quickest = |role| -> Result<f64> {
            let mut quickest = Duration::MAX;
            for _ in 0..STARTS {
                let side = setup.start(role, free_address()?, free_address()?)?;
                quickest = quickest.min(side.listening_after);
            }
            Ok(quickest.as_secs_f64() * 1000.0)
        };
        let (client, server) = (quickest(Role::Client)?, quickest(Role::Server)?);
        Ok(vec![self.slower(client, server)])
    }

    /// Each side beside another that has been there for long, with an agent that answers at once.
    fn first(self, subject: &Subject<'_>) -> Result<Vec<Figure>> {
        let agent = Agent::start(subject.folder())?;
        let setup = Setup {
            agent: Some(&agent.socket),
            ..subject.setup(false)
        };
        let (inside, outside) = (free_address()?, free_address()?);
        let sink = Sink::start()?;
        let start = |role| match role {
            Role::Server => setup.start(role, inside, sink.addr),
            Role::Client => setup.start(role, outside, inside),
        };
        let quickest = |starting, other| -> Result<f64> {
            let other = start(other)?;
            let mut quickest = Duration::MAX;
            for _ in 0..STARTS {
                let began = Instant::now();
                let side = start(starting)?;
                until_exchanged(outside).map_err(|error| other.explain(&side.explain(&error.to_string())))?;
                quickest = quickest.min(began.elapsed());
            }
            Ok(quickest.as_secs_f64() * 1000.0)
        };
        let client = quickest(Role::Client, Role::Server)?;
        let server = quickest(Role::Server, Role::Client)?;
        Ok(vec![self.slower(client, server)])
    }

    /// Sides start side by side: the slower one is the pair's.
    fn slower(self, client: f64, server: f64) -> Figure {
        Figure {
            pair: client.max(server),
            ..Figure::sum(self.name(), "ms", [client, server])
        }
    }
}

/// Asks again at once where it is refused: as long as there is no identity, connections are.
fn until_exchanged(to: SocketAddr) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let deadline = Instant::now() + FIRST_EXCHANGE;
    loop {
        match runtime.block_on(load::connect(to, ECHO)) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::sleep(AGAIN),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const RSS: [&str; 3] = [
    "memory at the start, RSS",
    "each idle connection, RSS",
    "memory 2 s after they closed, RSS",
];
const PSS: [&str; 3] = [
    "memory at the start, PSS",
    "each idle connection, PSS",
    "memory 2 s after they closed, PSS",
];

/// What three looks at both sides' memory tell: at the start, with all connections, without them. Nothing where the
/// kernel did not answer.
fn of_memory(names: [&'static str; 3], looks: [[Option<f64>; 2]; 3], connections: u32) -> Vec<Figure> {
    let [[Some(c0), Some(s0)], [Some(c1), Some(s1)], [Some(c2), Some(s2)]] = looks else {
        return Vec::new();
    };
    let [start, each, after] = names;
    let kilobytes = |full: f64, start: f64| (full - start) / 1024.0 / f64::from(connections);
    vec![
        Figure::sum(start, "MB", [c0 / 1e6, s0 / 1e6]),
        Figure::sum(each, "KB", [kilobytes(c1, c0), kilobytes(s1, s0)]),
        Figure::sum(after, "MB", [c2 / 1e6, s2 / 1e6]),
    ]
}

/// Memory of idle connections, and what stays when they are gone.
fn idle(subject: &Subject<'_>) -> Result<Vec<Figure>> {
    let connections = subject.options.idle;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let pair = Pair::start(subject, true)?;
    std::thread::sleep(SETTLE);
    let start = pair.memory()?;
    let held = runtime.block_on(load::idle(pair.client.listen, connections));
    let mut held = held.map_err(|error| pair.explain(&error.to_string()))?;
    std::thread::sleep(SETTLE);
    let full = pair.memory()?;
    runtime
        .block_on(load::check(&mut held))
        .map_err(|error| pair.explain(&format!("an idle connection was not usable any more: {error}")))?;
    drop(held);
    std::thread::sleep(AFTER_CLOSE);
    let after = pair.memory()?;

    let looks = [start, full, after];
    let mut figures = of_memory(
        RSS,
        looks.map(|sides| sides.map(|side| Some(side.rss))),
        connections,
    );
    figures.extend(of_memory(
        PSS,
        looks.map(|sides| sides.map(|side| side.pss)),
        connections,
    ));
    Ok(figures)
}
