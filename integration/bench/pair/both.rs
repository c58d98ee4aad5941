//! A build to be measured, and a running pair of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use crate::Result;
use crate::certificates::Certificates;
use crate::load::{self, Kind, Load};
use crate::meter::{Memory, cpu, machine_busy, memory};
use crate::options::Options;
use crate::side::{Role, Setup, Side, free_address};
use crate::sink::{ECHO, Sink};

/// Connections that are not in the load: knocking, checking.
const SPARE_CONNECTIONS: u32 = 200;
/// Until an exchange must get through.
const READY: Duration = Duration::from_secs(10);

/// A build to be measured.
pub(crate) struct Subject<'a> {
    /// As it was named.
    pub(crate) name: String,
    program: PathBuf,
    folder: &'a Path,
    certificates: &'a Certificates,
    pub(crate) options: &'a Options,
    evidence: &'a [String],
    /// Whether it knows resumption at all.
    pub(crate) resumes: bool,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(
        (program, evidence): (&Path, &'a [String]),
        folder: &'a Path,
        certificates: &'a Certificates,
        options: &'a Options,
    ) -> Result<Self> {
        // What is measured is a copy made just now: how a file came into the page cache decides how much of it counts
        // as the process's, and an older build would be told from a newer one by that alone. Named by its place among
        // the copies.
        let copies = folder.join("programs");
        fs::create_dir_all(&copies)?;
        let copy = copies.join(fs::read_dir(&copies)?.count().to_string());
        fs::copy(program, &copy)?;
        let mut subject = Self {
            name: format!("{} {}", program.display(), evidence.join(" "))
                .trim_end()
                .to_owned(),
            evidence,
            program: copy,
            folder,
            certificates,
            options,
            resumes: false,
        };
        subject.resumes = subject.setup(true).resumes()?;
        Ok(subject)
    }

    pub(crate) fn setup(&self, resumption: bool) -> Setup<'_> {
        Setup {
            program: &self.program,
            folder: self.folder,
            certificates: self.certificates,
            workers: self.options.workers,
            resumption,
            max_connections: self.options.idle + SPARE_CONNECTIONS,
            evidence: self.evidence,
            agent: None,
        }
    }

    /// For sockets beside the configs.
    pub(crate) const fn folder(&self) -> &Path {
        self.folder
    }
}

/// Sink, server side, client side.
pub(crate) struct Pair {
    // Dropped in this order, so that no side sees its target vanish first.
    pub(crate) client: Side,
    server: Side,
    sink: Sink,
}

/// Everything that counts, at one instant.
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) count: u64,
    pub(crate) latencies: load::Counts,
    pub(crate) client: Duration,
    pub(crate) server: Duration,
    load_and_sink: Duration,
    pub(crate) busy: Duration,
}

impl Sample {
    /// The part of `busy` that is this measurement.
    pub(crate) fn ours(&self) -> Duration {
        self.client + self.server + self.load_and_sink
    }
}

impl Pair {
    /// Starts a pair and waits until an exchange gets through.
    pub(crate) fn start(subject: &Subject<'_>, resumption: bool) -> Result<Self> {
        let setup = subject.setup(resumption);
        let sink = Sink::start()?;
        let server = setup.start(Role::Server, free_address()?, sink.addr)?;
        let client = setup.start(Role::Client, free_address()?, server.listen)?;
        let pair = Self { client, server, sink };
        pair.wait_ready(pair.client.listen)?;
        Ok(pair)
    }

    /// Until one exchange gets through: both sides hold their identity then.
    fn wait_ready(&self, to: SocketAddr) -> Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let deadline = Instant::now() + READY;
        while let Err(error) = runtime.block_on(load::connect(to, ECHO)) {
            if Instant::now() > deadline {
                return Err(self
                    .explain(&format!("no exchange gets through the pair: {error}"))
                    .into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) fn sample(&self, load: &Load, kind: Kind) -> Result<Sample> {
        Ok(Sample {
            at: Instant::now(),
            count: match kind {
                Kind::Up => self.sink.received(),
                Kind::Down | Kind::Ping | Kind::Connect => load.done(),
            },
            latencies: load.latencies(),
            client: cpu(self.client.pid())?,
            server: cpu(self.server.pid())?,
            load_and_sink: cpu(std::process::id())?,
            busy: machine_busy()?,
        })
    }

    /// Of the client side and of the server side.
    pub(crate) fn memory(&self) -> Result<[Memory; 2]> {
        Ok([memory(self.client.pid())?, memory(self.server.pid())?])
    }

    /// What went wrong, with the end of both logs.
    pub(crate) fn explain(&self, what: &str) -> String {
        let what = self.server.explain(what);
        self.client.explain(&what)
    }
}
