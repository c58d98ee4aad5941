//! Thousands of connections at once, most of them idle.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::clients::{Ledger, PATIENCE, connect_async};
use crate::frame::{HEAD, Question};
use crate::support::eventually;
use crate::weather::{Mishap, Weather};
use crate::world::{TTL, World};

/// Requests at once; the others wait for their turn, which is no part of what they wait for an answer.
const AT_ONCE: usize = 40;
/// All of them are open by then: 20 ms each, on a machine that does other things, too.
const OPEN_WITHIN: Duration = Duration::from_secs(400);
/// How often one of them asks something, on average, while it is held.
const QUIET: Duration = Duration::from_secs(40);
/// The crowd's first number as clients.
const FIRST: u32 = 1_000_000;

/// The life of SVIDs meanwhile: what a machine can renew in time for thousands of connections at once. The program of a debug
/// build is some ten times as slow, and the machine busy with other tests.
pub(crate) const CROWD_TTL: Duration = Duration::from_secs(if cfg!(debug_assertions) { 600 } else { 60 });

/// A crowd; ends, in order, when [`Crowd::leave`] says so.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Opens so many connections, each of which has got its first answer when this returns.
    pub(crate) fn open(world: &World, how_many: usize) -> Self {
        world.agent.set_ttl(CROWD_TTL);
        let (stop, there) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let crowd = Members {
            addr: world.plain,
            ledger: Arc::clone(&world.ledger),
            weather: Arc::clone(&world.weather),
            stop: Arc::clone(&stop),
            there: Arc::clone(&there),
            turns: Semaphore::new(AT_ONCE),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let crowd = Arc::new(crowd);
                let members: Vec<_> = (0..how_many)
                    .map(|n| tokio::spawn(Arc::clone(&crowd).member(FIRST + u32::try_from(n).unwrap())))
                    .collect();
                for member in members {
                    member.await.unwrap();
                }
            });
        });
        let crowd = Self {
            stop,
            thread: Some(thread),
        };
        eventually(&format!("{how_many} connections are open"), OPEN_WITHIN, || {
            world.alarm.check();
            (there.load(Ordering::SeqCst) == how_many).then_some(())
        });
        crowd
    }

    /// Each asks once more and ends.
    pub(crate) fn leave(mut self, world: &World) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        world.agent.set_ttl(TTL);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct Members {
    addr: std::net::SocketAddr,
    ledger: Arc<Ledger>,
    weather: Arc<Weather>,
    stop: Arc<AtomicBool>,
    /// Those that got their first answer, or have given up for good.
    there: Arc<AtomicUsize>,
    turns: Semaphore,
}

impl Members {
    async fn member(self: Arc<Self>, client: u32) {
        let mut random = fastrand::Rng::with_seed(client.into());
        let mut question = Question {
            client,
            number: 0,
            length: 0,
        };
        let mut open = None;
        while !self.stop.load(Ordering::SeqCst) {
            question.number += 1;
            question.length = random.u32(0..2000);
            self.request(&question, &mut open).await;
            if question.number == 1 {
                self.there.fetch_add(1, Ordering::SeqCst);
            }
            let next = Instant::now() + QUIET.mul_f64(2.0 * random.f64());
            while Instant::now() < next && !self.stop.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
        question.number += 1;
        self.request(&question, &mut open).await;
        if let Some((mut stream, known_good)) = open.take()
            && let Err(error) = end(&mut stream).await
        {
            let who = format!("crowd's client {client}, at its end");
            // Where it may be repeated there is nothing left to repeat: its last request was answered.
            self.ledger
                .may_repeat(&self.weather, &who, Mishap::Cut, known_good, &error);
        }
    }

    async fn request(&self, question: &Question, open: &mut Option<(TcpStream, Instant)>) {
        let _turn = self.turns.acquire().await.unwrap();
        let begun = Instant::now();
        loop {
            let (mishap, since) = match open {
                Some((_, known_good)) => (Mishap::Cut, *known_good),
                None => (Mishap::Refused, Instant::now()),
            };
            let tried = tokio::time::timeout(PATIENCE, self.attempt(question, open)).await;
            let error = match tried {
                Ok(Ok(())) => return self.ledger.answer(begun.elapsed()),
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            *open = None;
            let who = format!("crowd's client {}, request {}", question.client, question.number);
            if !self.ledger.may_repeat(&self.weather, &who, mishap, since, &error) {
                return;
            }
            if begun.elapsed() > PATIENCE {
                return self.ledger.lose(format!(
                    "{who}: no answer within {PATIENCE:?}, {mishap:?} at last ({error})"
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn attempt(&self, question: &Question, open: &mut Option<(TcpStream, Instant)>) -> io::Result<()> {
        let mut fresh = None;
        let stream = match open {
            Some((stream, _)) => stream,
            None => {
                self.ledger.connections.fetch_add(1, Ordering::SeqCst);
                fresh.insert(connect_async(self.addr).await?)
            }
        };
        stream.write_all(&question.bytes()).await?;
        let mut answer = vec![0; HEAD + question.length as usize];
        stream.read_exact(&mut answer).await?;
        question.check(&answer)?;
        match (open.as_mut(), fresh) {
            (Some((_, known_good)), _) => *known_good = Instant::now(),
            (None, Some(stream)) => *open = Some((stream, Instant::now())),
            (None, None) => {}
        }
        Ok(())
    }
}

async fn end(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "something came after the last answer",
        )),
    }
}
