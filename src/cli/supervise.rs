//! `svidecar supervise`: the parent of a sidecar on a host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::EXIT_FAILED;
use super::output::report;
use super::run::failed;
use super::text::parse_duration;
use crate::handover::activation;
use crate::supervise::{self, Options};

/// Run the sidecar as a child that can be replaced without losing a connection
///
/// For hosts: a small parent binds the sockets and runs `svidecar run` as its child, which is confined as the config says. The
/// parent has no identity and never sees a peer's bytes. SIGUSR2 starts the program anew, from the path that this one was
/// started by, waits until it is ready and then has the old one drain: no connection is refused or reset. A new one that
/// does not get ready leaves the old one in charge. SIGHUP, SIGTERM and SIGINT are passed on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: that of the child; 2 when the config has errors.\n\n\
Example:\n  svidecar supervise --config /etc/svidecar/svidecar.yaml\n  kill -USR2 PID         upgrade, once the program's file was replaced"
)]
pub struct SuperviseArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// How long the new child of an upgrade may take to get ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub ready_timeout: Duration,
}

/// Runs it.
#[must_use]
pub fn run(args: &SuperviseArgs) -> u8 {
    let passed = match activation::inherited() {
        Ok(passed) => passed,
        Err(error) => {
            report(&format!("svidecar: {error}"));
            return EXIT_FAILED;
        }
    };
    let called = std::env::args_os().next();
    let program = supervise::program(
        called.as_deref().map(Path::new),
        std::env::var_os("PATH").as_deref(),
    );
    let Some(program) = program.or_else(|| std::env::current_exe().ok()) else {
        report("svidecar: the program's own file cannot be found; call it by its path");
        return EXIT_FAILED;
    };
    let options = Options {
        config: args.config.clone(),
        program,
        ready_timeout: args.ready_timeout,
        passed,
    };
    supervise::run(options).unwrap_or_else(|error| failed(&args.config, error))
}
