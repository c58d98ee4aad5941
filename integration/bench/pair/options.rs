//! The command line, checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use svidecar::sys::limits::raise_open_files;

use crate::Result;
use crate::rows::Row;

/// Descriptors that are no connection's: the listeners, the runtime, the log.
const OTHER_FILES: u64 = 200;

/// What can be told of connections.
const PARTS: [&str; 4] = ["audit", "access_log", "decisions", "traces"];

/// Measures a pair of sidecars on loopback: CPU time per gigabyte, request and connection, memory per idle connection.
#[derive(Clone, Debug, Parser)]
#[command(name = "pair")]
pub(crate) struct Options {
    /// The program to measure. By default the one that cargo just built; its dependencies have the features that tests
    /// ask for, too. What is shipped is built by `cargo build --profile dist`.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_svidecar"))]
    program: PathBuf,
    /// Another build of it, measured in turn with the first; the table gives ratios.
    #[arg(long)]
    against: Option<PathBuf>,
    /// The same program once more with all that is told of connections, or with these parts of it, measured in turn; the
    /// table gives ratios. Traces are of one connection in a hundred.
    #[arg(long, conflicts_with = "against", value_delimiter = ',', num_args = 0.., value_parser = PARTS,
          default_missing_values = PARTS)]
    evidence: Option<Vec<String>>,
    /// How often all is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds that one load is measured for, from 0.1 to 60.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Idle connections. Both ends take two descriptors for each.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) idle: u32,
    /// `workers` in the sidecars' config; by default what they take by themselves.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: Option<u32>,
    /// Only these rows: bulk, ping, connect, idle, start.
    #[arg(long, value_delimiter = ',', value_parser = ["bulk", "ping", "connect", "idle", "start"])]
    only: Vec<String>,
    /// What `cargo bench` passes; without it all runs once and briefly.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// What the machine allows, or why not.
    pub(crate) fn checked(mut self) -> Result<Self> {
        if self.is_smoke_test() {
            self.rounds = 1;
            self.seconds = 0.1;
            self.idle = 50;
        }
        if !(0.1..=60.0).contains(&self.seconds) {
            return Err("`--seconds` is between 0.1 and 60".into());
        }
        let files = raise_open_files();
        let needed = 2 * u64::from(self.idle) + OTHER_FILES;
        if files < needed {
            return Err(format!(
                "`--idle {}` needs {needed} open files in one process, and the hard limit is {files}: \
                 ask for fewer connections, or raise the limit (`ulimit -Hn`)",
                self.idle
            )
            .into());
        }
        for (program, _) in self.programs() {
            if !program.is_file() {
                return Err(format!("`{}` is no program", program.display()).into());
            }
        }
        Ok(self)
    }

    /// Whether this is a test of the measuring program, and no measurement.
    pub(crate) const fn is_smoke_test(&self) -> bool {
        !self.bench
    }

    /// The programs to measure, and what each is to tell of connections.
    pub(crate) fn programs(&self) -> impl Iterator<Item = (&Path, &[String])> {
        let against = self.against.as_deref().map(|program| (program, &[][..]));
        let evidence = self.evidence.as_deref();
        let evidence = evidence.map(|parts| (self.program.as_path(), parts));
        std::iter::once((self.program.as_path(), &[][..]))
            .chain(against)
            .chain(evidence)
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn wants(&self, row: Row) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row.group())
    }
}
