//! Troubles with those who connect: the slow, the half-open, the many.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::{Running, Trouble, always};
use crate::clients::connect;
use crate::crowd::Crowd;
use crate::frame::Question;
use crate::weather::{Effect, Mishap};
use crate::world::World;

/// Of each sort.
const SLOW: u32 = 25;
/// The number of the first client that does not read.
const FIRST_SLOW: u32 = 800_000;
/// More than all buffers on the way hold of several.
const LONG_ANSWER: u32 = 700_000;
/// What a TLS record of a ClientHello begins with.
const BEGINNING: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00];

/// Those who say nothing, who say half of it, who end half of their connection, who reset it, and who do not read.
pub(super) const SLOW_CLIENTS: Trouble = Trouble {
    name: "slow and half-open clients",
    what: "25 each of clients that are silent, that begin a handshake or a request and stop, that end their half in the middle of \
           one, that reset, and that do not read what they asked for",
    holds: "nobody else is refused or cut; who reads late reads the right answer",
    effect: Effect::NONE,
    lasts: (3.0, 14.0),
    uses: "slow",
    depth: 0,
    short: true,
    missing: always,
    begin: |world| {
        let mut held = Vec::new();
        let mut late = Vec::new();
        for n in 0..SLOW {
            for (addr, bytes) in [
                (world.tls, &[][..]),
                (world.tls, BEGINNING),
                (world.plain, &[]),
                (world.plain, &half(n)),
            ] {
                held.extend(say(world, addr, bytes));
            }
            if let Some(stream) = say(world, world.plain, &half(n)) {
                // Whoever has reset it already has ended this half, too.
                let _ = stream.shutdown(Shutdown::Write);
                held.push(stream);
            }
            if let Some(stream) = say(world, world.plain, &half(n)) {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            if n % 5 == 0 {
                let question = Question {
                    client: FIRST_SLOW,
                    number: n,
                    length: LONG_ANSWER,
                };
                let since = Instant::now();
                late.extend(
                    say(world, world.plain, &question.bytes()).map(|stream| (question, stream, since)),
                );
            }
        }
        Running::until(move |world| {
            for (question, stream, since) in late {
                match question.read_answer(&stream) {
                    Ok(()) => world.ledger.answer(Duration::ZERO),
                    Err(error) => {
                        let who = format!("a client that reads late, request {}", question.number);
                        let ledger = &world.ledger;
                        // Before its answer it cannot know which of the two it was.
                        let mishap = if world.weather.explains(Mishap::Cut, since) {
                            Mishap::Cut
                        } else {
                            Mishap::Refused
                        };
                        ledger.may_repeat(&world.weather, &who, mishap, since, &error);
                    }
                }
            }
            drop(held);
        })
    },
};

/// Connects and says this much. In bad weather that may fail; where nothing explains it, the client is turned away wrongly.
fn say(world: &World, addr: std::net::SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let since = Instant::now();
    match connect(addr).and_then(|mut stream| stream.write_all(bytes).map(|()| stream)) {
        Ok(stream) => Some(stream),
        Err(error) => {
            let who = "a slow client";
            world
                .ledger
                .may_repeat(&world.weather, who, Mishap::Refused, since, &error);
            None
        }
    }
}

fn half(number: u32) -> Vec<u8> {
    let mut bytes = Question {
        client: FIRST_SLOW + 1,
        number,
        length: 3000,
    }
    .bytes();
    bytes.truncate(1000);
    bytes
}

/// Thousands, in the long run.
pub(super) const CROWD: Trouble = Trouble {
    name: "crowd",
    what: "thousands of connections are opened, held mostly idle, and ended; meanwhile SVIDs live for longer",
    holds: "nobody is refused or cut; every member of the crowd is answered",
    effect: Effect::NONE,
    lasts: (5.0, 20.0),
    uses: "crowd slow agent",
    depth: 0,
    short: true,
    missing: |world| {
        let needed = 2 * world.options.crowd as u64 + 500;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        limit
            .is_some_and(|limit| limit < needed)
            .then(|| format!("{needed} descriptors are needed, and the hard limit is {limit:?}"))
    },
    begin: |world| {
        let crowd = Crowd::open(world, world.options.crowd);
        Running::until(|world| crowd.leave(world))
    },
};
